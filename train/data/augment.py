"""The way of one image from its file to the batch: ``uint8 [H W C]`` of a fixed size.

Training, in this order: crop, flip, policy, erasing, each drawn from the generator that the caller
hands over with the image. Testing: short side to a fixed length, then the centre, nothing random.
Normalisation is the first operation on the device.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from train.config import DataConfig
from train.data import decode, policies

Stored = bytes | np.ndarray
"""The bytes of an image file, or decoded pixels ``uint8 [H W C]``."""

_RATIOS = (3 / 4, 4 / 3)


def training_transform(config: DataConfig) -> Callable[[Stored, np.random.Generator], np.ndarray]:
    """Returns the random transform of the training images; it can be pickled.

    Raises:
      ConfigError: the settings contradict each other.
    """
    return _Training(config)


def test_transform(config: DataConfig) -> Callable[[Stored], np.ndarray]:
    """Returns the fixed transform with which both splits are measured; it can be pickled."""
    return _Test(config)


class _Training:
    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._policy = policies.build(config)

    def __call__(self, stored: Stored, rng: np.random.Generator) -> np.ndarray:
        config = self._config
        if config.crop == "random_resized":
            image = np.asarray(_random_resized_crop(_open(stored), config, rng))
        else:
            image = _sized(stored, config.image_size, config.image_size)
        if config.crop == "pad" and config.crop_padding:
            image = _shift(_with_channels(image), config.crop_padding, rng)
        if config.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if self._policy is not None:
            image = np.asarray(self._policy(Image.fromarray(np.ascontiguousarray(image)), rng))
        return np.ascontiguousarray(_with_channels(image))


class _Test:
    def __init__(self, config: DataConfig) -> None:
        self._size = config.image_size
        self._short = config.resize or round(config.image_size * 256 / 224)

    def __call__(self, stored: Stored) -> np.ndarray:
        return _with_channels(_sized(stored, self._short, self._size))


def _open(stored: Stored) -> Image.Image:
    if isinstance(stored, np.ndarray):
        return Image.fromarray(stored[..., 0] if stored.shape[-1] == 1 else stored)
    return decode.decode(stored)


def _with_channels(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., None]


def _sized(stored: Stored, short: int, size: int) -> np.ndarray:
    if not size or (
        isinstance(stored, np.ndarray) and stored.shape[:2] == (size, size) == (short, short)
    ):
        return stored if isinstance(stored, np.ndarray) else np.asarray(_open(stored))
    image = _open(stored)
    width, height = image.size
    scale = short / min(width, height)
    width, height = max(short, int(width * scale)), max(short, int(height * scale))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _random_resized_crop(
    image: Image.Image, config: DataConfig, rng: np.random.Generator
) -> Image.Image:
    box = _draw_box(*image.size, config.crop_scale, rng)
    size = (config.image_size, config.image_size)
    return image.resize(size, Image.Resampling.BILINEAR, box=box)


def _draw_box(width, height, scale, rng):
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, round(height * _RATIOS[1]))
    h = min(height, round(width / _RATIOS[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _shift(image: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    height, width, channels = image.shape
    top, left = rng.integers(0, 2 * padding + 1, size=2)
    padded = np.zeros((height + 2 * padding, width + 2 * padding, channels), image.dtype)
    padded[padding : padding + height, padding : padding + width] = image
    return padded[top : top + height, left : left + width]
