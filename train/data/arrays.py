"""Images in memory: the digits, the synthetic ones, and other small data sets."""

import math
import re
from typing import NamedTuple

import numpy as np

from train.config import ConfigError

# The digits have no published split. This one is fixed: 1,437 / 360, stratified by class.
# (Writers are not recorded, so the same hand can be on both sides.)
_DIGITS_TEST_SIZE = 360
_DIGITS_SPLIT_SEED = 0

# The largest value of a stored pixel of the digits.
DIGITS_PEAK = 16

# Default size of "synthetic": training images x side x classes.
_SYNTHETIC = "2000x32x10"
_SYNTHETIC_SEED = 0
_SYNTHETIC_PATTERN = 4
_SYNTHETIC_NOISE = 40.0
_SYNTHETIC_BYTES = 2**32


class Arrays(NamedTuple):
    """Records in memory: ``images`` are ``uint8 [N H W C]``, ``labels`` are ``int32 [N]``."""

    images: np.ndarray
    labels: np.ndarray
    title: str

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the pixels and the label of an image."""
        return self.images[index], int(self.labels[index])

    def name_of(self, index: int) -> str:
        """Returns the name of an image in messages."""
        return f"{self.title}[{index}]"

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Arrays({self.size} images of {self.title})"


def digits(channels: int) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """Returns scikit-learn's 1,797 scanned digits: 8x8 pixels, 17 grey levels.

    With one channel the levels are 0 to 16, as stored; with three they are RGB from 0 to 255.

    Reference: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = data.images[..., None]
    if channels > 1:
        images = np.rint(images * (255 / DIGITS_PEAK)).repeat(channels, axis=-1)
    images = images.astype(np.uint8)
    labels = data.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=_DIGITS_TEST_SIZE,
        stratify=labels,
        random_state=_DIGITS_SPLIT_SEED,
    )
    return (
        Arrays(images[train], labels[train], "digits train"),
        Arrays(images[test], labels[test], "digits test"),
        tuple(str(digit) for digit in range(10)),
    )


def synthetic(size: str) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """Returns synthetic RGB images, the same ones in each call.

    Each class is a random pattern of 4 x 4 colours, enlarged, with Gaussian noise on each pixel:
    easy to learn, and as much work for the pipeline as photographs in memory. The size is
    ``IMAGESxSIDExCLASSES``, by default 2000x32x10; the test split has a quarter as many images.

    Raises:
      ConfigError: the size is malformed, or does not fit in memory.
    """
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", size or _SYNTHETIC)
    images, side, classes = map(int, match.groups()) if match else (0, 0, 0)
    if min(images // 4, side, classes) < 1:
        raise ConfigError(
            f"--data.source is 'synthetic:{size}'; the size is IMAGESxSIDExCLASSES, at least "
            f"4x1x1, as in synthetic:{_SYNTHETIC}."
        )
    if (images + images // 4) * side * side * 3 > _SYNTHETIC_BYTES:
        raise ConfigError(
            f"--data.source is 'synthetic:{size}', more than {_SYNTHETIC_BYTES >> 30} GiB, and is "
            "kept in memory; ask for fewer or smaller images."
        )
    rng = np.random.default_rng(_SYNTHETIC_SEED)
    shape = (classes, _SYNTHETIC_PATTERN, _SYNTHETIC_PATTERN, 3)
    repeats = math.ceil(side / _SYNTHETIC_PATTERN)
    patterns = rng.integers(64, 192, shape).repeat(repeats, axis=1).repeat(repeats, axis=2)
    patterns = patterns[:, :side, :side].astype(np.float32)

    def draw(count: int, title: str) -> Arrays:
        labels = rng.permutation(np.arange(count, dtype=np.int32) % classes)
        pixels = np.empty((count, side, side, 3), np.uint8)
        for image, label in zip(pixels, labels, strict=True):
            noise = rng.standard_normal(image.shape, np.float32) * np.float32(_SYNTHETIC_NOISE)
            image[...] = np.clip(patterns[label] + noise, 0, 255)
        return Arrays(pixels, labels, title)

    names = tuple(f"pattern {number}" for number in range(classes))
    return draw(images, "synthetic train"), draw(images // 4, "synthetic test"), names
