"""Names and slices of splits, in the syntax of TFDS: ``train``, ``train[:90%]``, ``test[100:]``."""

import re
from collections.abc import Mapping, Sequence

from train.config import ConfigError

_TEST_NAMES = ("test", "validation", "val")

# NAME or NAME[FROM:TO]; a bound is a number of images, or a percentage.
_SLICE = re.compile(r"([\w-]+)(?:\[(-?\d+(?:\.\d+)?%|-?\d*):(-?\d+(?:\.\d+)?%|-?\d*)\])?")


def default_test(available: Sequence[str], source: str) -> str:
    """Returns the test split by default: test, validation or val; else raises ConfigError."""
    for name in _TEST_NAMES:
        if name in available:
            return name
    raise ConfigError(
        f"{source} has no split called {', '.join(_TEST_NAMES)}, only {', '.join(available)}; name "
        "one with --data.test_split, or hold one out: --data.train_split train[:90%] "
        "--data.test_split train[90%:]."
    )


def ranges(spec: str, sizes: Mapping[str, int], field: str) -> list[tuple[str, range]]:
    """Returns the images of each split that a slice, or a sum of slices, selects, as in TFDS.

    ``sizes`` has the number of images of each split; ``field`` is named in the error.

    Raises:
      ConfigError: the slice is malformed, names an unknown split, or is empty.

    >>> ranges("train[:90%]+test[-5:]", {"train": 55, "test": 20}, "--data.train_split")
    [('train', range(0, 50)), ('test', range(15, 20))]
    """
    parts = list(sizes) if spec == "all" else re.split(r"\s*\+\s*", spec)
    selected = [_range(part, spec, sizes, field) for part in parts]
    if not any(len(images) for _, images in selected):
        raise ConfigError(f"{field} is {spec!r}, which holds no image; widen the slice.")
    return selected


def _range(part: str, spec: str, sizes: Mapping[str, int], field: str) -> tuple[str, range]:
    match = _SLICE.fullmatch(part)
    name = match[1] if match else part.partition("[")[0]
    known = f"The splits are {', '.join(sizes)}; a slice looks like train[:90%]."
    if name not in sizes:
        usual = f" With {field}= the usual one is taken." if field == "--data.test_split" else ""
        raise ConfigError(f"{field} is {spec!r}: Unknown split {name!r}. {known}{usual}")
    if match is None:
        raise ConfigError(f"{field} is {spec!r}: {part!r} is not a slice. {known}")
    percent = "%" in part  # Of one bound, and so of both.
    bounds = [_images(bound, sizes[name] / 100 if percent else 1) for bound in match.groups()[1:]]
    if any(bound is not None and abs(bound) > sizes[name] for bound in bounds):
        raise ConfigError(f"{field} is {spec!r}, and {name} has {sizes[name]} images. {known}")
    return name, range(sizes[name])[slice(*bounds)]


def _images(bound: str | None, unit: float) -> int | None:
    """Returns the number of images of a bound; None is an end of the split."""
    return round(float(bound.rstrip("%")) * unit) if bound else None
