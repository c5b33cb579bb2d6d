"""What a program has to know of a data set that need not be on this disk."""

from typing import NamedTuple

from train import data
from train.config import ConfigError, DataConfig


class Facts(NamedTuple):
    """The sizes of a data set; ``side`` is that of its square images as the network sees them."""

    train: int
    test: int
    classes: int
    side: int
    channels: int


# By the name in TFDS. Photographs have no side of their own.
_KNOWN = {
    "cifar10": Facts(50_000, 10_000, 10, 32, 3),
    "cifar100": Facts(50_000, 10_000, 100, 32, 3),
    "imagenet2012": Facts(1_281_167, 50_000, 1000, 0, 3),
}


def find(config: DataConfig, images: list[int] | None, classes: int | None) -> Facts:
    """Returns the facts of a config's data set.

    Args:
      config: of the data.
      images: how many there are to train on and to measure; None takes what is known.
      classes: likewise.

    Raises:
      ConfigError: nothing is known of this data set, or its images have no fixed side.
    """
    kind, _, rest = config.source.partition(":")
    if kind in ("digits", "synthetic"):
        loaded = data.load(config)
        side, _, channels = loaded.image_shape
        known = Facts(loaded.train.size, loaded.test.size, loaded.num_classes, side, channels)
    elif config.train_split == "train" and rest.partition(":")[0] in _KNOWN:
        # Part of a split has as many images as only the data set itself can say.
        known = _KNOWN[rest.partition(":")[0]]
    elif images is None or classes is None:
        raise ConfigError(
            f"the sizes of {config.source!r}, split {config.train_split!r}, are unknown here; give "
            "--images TRAIN TEST and --classes K."
        )
    else:
        known = Facts(images[0], images[1], classes, side=0, channels=0)
    train, test = images or known[:2]
    side = config.image_size or known.side
    if not side:
        raise ConfigError(
            f"--data.image_size is 0, and the images of {config.source!r} have no known side; "
            "set it, as to 224."
        )
    return Facts(train, test, classes or known.classes, side, len(config.mean))
