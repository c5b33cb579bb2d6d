"""Data sets as random access to ``{"image", "label"}`` records, which is what Grain reads.

Images stay in their stored integers; normalisation is the first operation on the device.
"""

from typing import NamedTuple

import numpy as np

from train.config import ConfigError

# The digits have no published split. This one is fixed: 1,437 / 360, stratified by class.
# (Writers are not recorded, so the same hand can be on both sides.)
_DIGITS_TEST_SIZE = 360
_DIGITS_SPLIT_SEED = 0


class Split(NamedTuple):
    """One split, in memory: ``images`` are ``[N H W C]`` integers, ``labels`` are ``[N]``."""

    images: np.ndarray
    labels: np.ndarray


class Records:
    """A ``Split`` as the random-access source that Grain expects."""

    def __init__(self, split: Split) -> None:
        """Keeps a reference to the split."""
        self._split = split

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._split.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns one record."""
        return {"image": self._split.images[index], "label": self._split.labels[index]}

    def __repr__(self) -> str:
        """Returns a description that does not print the data: Grain puts it into its messages."""
        return f"Records({len(self)} images)"


class Dataset(NamedTuple):
    """A train and a test split with the same classes and the same image shape."""

    train: Split
    test: Split
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(H, W, C)``."""
        return self.train.images.shape[1:]


def _digits() -> Dataset:
    """Returns scikit-learn's 1,797 scanned digits: 8x8 pixels, 17 grey levels.

    Reference: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=_DIGITS_TEST_SIZE,
        stratify=labels,
        random_state=_DIGITS_SPLIT_SEED,
    )
    return Dataset(
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
        num_classes=10,
    )


_SOURCES = {"digits": _digits}


def load(name: str) -> Dataset:
    """Returns the data set of that name.

    Raises:
      ConfigError: there is none; lists those there are.
    """
    if name not in _SOURCES:
        raise ConfigError(f"--data.source is {name!r}; known sources: {', '.join(_SOURCES)}.")
    return _SOURCES[name]()
