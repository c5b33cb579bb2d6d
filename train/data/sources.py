"""Sources of images: ``load`` returns the data set that a config names.

A source is two splits of records and the names of their classes. A record is the bytes of an image
file, or decoded pixels, with its label. Images stay 8-bit integers; normalisation is the first
operation on the device.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from train import local
from train.config import ConfigError, DataConfig
from train.data import archives, arrays, folder, prepared
from train.data.augment import Stored, test_transform, training_transform
from train.data.decode import UnreadableImage
from train.errors import DataError

_KINDS = (
    "digits, synthetic[:IMAGESxSIDExCLASSES], tfds:NAME[:VERSION], aircraft:PATH, cars:PATH, "
    "folder:PATH"
)


_log = logging.getLogger(__name__)
_MAX_LISTED = 10


class Records(Protocol):
    """Random access to the images of a split; picklable and thread-safe."""

    @property
    def size(self) -> int:
        """The number of images."""

    def read(self, index: int) -> tuple[Stored, int]:
        """Returns an image and its label, or raises OSError."""

    def name_of(self, index: int) -> str:
        """Returns the name of an image in messages."""


class Subset(NamedTuple):
    """Some records of others, by their indices."""

    records: Records
    indices: Sequence[int]

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self.indices)

    def read(self, index: int) -> tuple[Stored, int]:
        """Returns an image and its label, or raises OSError."""
        return self.records.read(self.indices[index])

    def name_of(self, index: int) -> str:
        """Returns the name of an image in messages."""
        return self.records.name_of(self.indices[index])


class Unreadable:
    """The unreadable images so far, by name, with the reason.

    Training and evaluation share it, so an image counts once. Each of several processes counts
    those of its own share.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.reasons: dict[str, str] = {}

    def add(self, reasons: Mapping[str, str]) -> None:
        """Adds images and logs the new ones; raises DataError if they exceed the limit."""
        for name, reason in reasons.items():
            if name not in self.reasons and len(self.reasons) < self._limit:
                _log.warning("skipped, as it cannot be read: %s (%s)", name, reason)
            self.reasons.setdefault(name, reason)
        check_unreadable(self.reasons, self._limit)


def check_unreadable(reasons: Mapping[str, str], limit: int) -> None:
    """Raises DataError, with names and reasons, if there are more images than the limit."""
    if len(reasons) <= limit:
        return
    lines = [f"  {name}: {reason}" for name, reason in reasons.items()]
    if len(lines) > _MAX_LISTED:
        lines[_MAX_LISTED:] = [f"  and {len(lines) - _MAX_LISTED} more"]
    listing = "\n".join(lines)
    raise DataError(
        f"{len(reasons)} image(s) cannot be read, more than --data.max_unreadable, which is "
        f"{limit}:\n{listing}\nRepair or remove them, or raise the limit to go on without them."
    )


def unreadable_reason(error: Exception) -> str:
    """Returns why an image could not be read, without its name."""
    return getattr(error, "strerror", None) or str(error)


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of the training or of the test split."""

    records: Records
    image_shape: tuple[int, ...]
    """``(H, W, C)`` of the images after their transform."""
    unreadable: Unreadable
    """The unreadable images of both splits so far."""

    @property
    def size(self) -> int:
        """The number of images, broken ones included."""
        return self.records.size


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A train and a test split with the same classes and the same image shape."""

    train: Split
    test: Split
    classes: Sequence[str]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(H, W, C)``."""
        return self.train.image_shape


def load(config: DataConfig) -> Dataset:
    """Returns the data set of a config.

    Raises:
      ConfigError: there is no such source, it is not on this disk, or the settings contradict each
        other; says what to do.
    """
    training_transform(config)  # Raises errors in the settings before a worker does.
    transform = test_transform(config)
    train, test, classes = _find(config)
    unreadable = Unreadable(config.max_unreadable)
    shape = _image_shape(train, transform, unreadable)
    return Dataset(Split(train, shape, unreadable), Split(test, shape, unreadable), classes)


def stored_side(config: DataConfig) -> int:
    """Returns the side of the images of a network that keeps the stored size.

    Raises:
      ConfigError: the data are not on this disk, or the images are not square and of one size.
    """
    kind, _, rest = config.source.partition(":")
    if kind == "tfds":
        height, width, *_ = prepared.stored_shape(rest, config)
    else:
        height, width, _ = load(config).image_shape
    if height is None or height != width:
        raise ConfigError(f"the images of {config.source} are {height} x {width}, not squares.")
    return height


def _find(config: DataConfig) -> tuple[Records, Records, Sequence[str]]:
    kind, _, rest = config.source.partition(":")
    if kind in ("digits", "synthetic") and (config.train_split, config.test_split) != ("train", ""):
        raise ConfigError(
            f"--data.source is {config.source!r}, whose splits are fixed; leave out "
            "--data.train_split and --data.test_split."
        )
    if config.source == "digits":
        return arrays.digits(len(config.mean))
    if kind == "synthetic":
        return arrays.synthetic(rest)
    if kind == "tfds" and rest:
        return prepared.load(rest, config)
    if kind == "aircraft" and rest:
        return archives.load_aircraft(local.path(rest, "--data.source"), config)
    if kind == "cars" and rest:
        return archives.load_cars(local.path(rest, "--data.source"), config)
    if kind == "folder" and rest:
        root = local.path(rest, "--data.source")
        folder.refuse_unfinished(root)
        return folder.load(root, config)
    raise ConfigError(f"--data.source is {config.source!r}; known sources: {_KINDS}.")


def _image_shape(
    records: Records, transform: Callable[[Stored], np.ndarray], unreadable: Unreadable
) -> tuple[int, ...]:
    """Returns the shape of the first image that can be read."""
    for index in range(records.size):
        try:
            stored, _ = records.read(index)
            return transform(stored).shape
        except (UnreadableImage, OSError) as error:
            unreadable.add({records.name_of(index): unreadable_reason(error)})
    raise DataError("not one of the training images can be read.")
