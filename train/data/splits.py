"""Names and slices of splits, in the words of TFDS: ``train``, ``train[:90%]``, ``test[100:]``."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from train.config import ConfigError

_TEST_NAMES = ("test", "validation", "val")


def default_test(available: Sequence[str], source: str) -> str:
    """Returns the split to measure if the config names none.

    Raises:
      ConfigError: there is no split of a usual name; says how to hold one out.
    """
    for name in _TEST_NAMES:
        if name in available:
            return name
    raise ConfigError(
        f"{source} has no split called {', '.join(_TEST_NAMES)}, only {', '.join(available)}; name "
        "one with --data.test_split, or hold one out: --data.train_split train[:90%] "
        "--data.test_split train[90%:]."
    )


def ranges(spec: str, sizes: Mapping[str, int], field: str) -> list[tuple[str, range]]:
    """Returns which images of which splits a slice means; TFDS decides.

    Args:
      spec: as ``train[:90%]``, or a sum of such.
      sizes: the number of images of each split there is.
      field: of the config, for the message.

    Raises:
      ConfigError: the slice is none, of a split that is none, or empty.
    """
    if spec in sizes:
        return [(spec, range(sizes[spec]))]
    import tensorflow_datasets as tfds

    infos = {
        name: SimpleNamespace(num_examples=size, shard_lengths=[size])
        for name, size in sizes.items()
    }
    try:
        parts = tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"{field} is {spec!r}: {error} The splits are {', '.join(sizes)}; a slice looks like "
            "train[:90%]."
        ) from error
    found = [(part.splitname, range(sizes[part.splitname])[part.from_ : part.to]) for part in parts]
    if not any(len(images) for _, images in found):
        raise ConfigError(f"{field} is {spec!r}, which holds no image; widen the slice.")
    return found
