"""Transforms of one image, from its file to the batch: ``uint8 [H W C]`` of one size.

Training: crop, flip, policy and erasing, in this order, drawn from the generator of the image.
Testing: the short side is resized, then the centre is cropped; nothing is random. Normalisation is
the first operation on the device, which receives a quarter of the bytes that float32 would have.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from train.config import ConfigError, DataConfig
from train.data import decode, policies

Stored = bytes | np.ndarray
"""The bytes of an image file, or pixels ``uint8 [H W C]``."""

_ATTEMPTS = 10

# RandomResizedCrop, as in torchvision: width / height of the box.
_CROP_RATIO = (3 / 4, 4 / 3)
_LOG_CROP_RATIO = (math.log(3 / 4), math.log(4 / 3))

# Random erasing, as in timm: area relative to the image, and height / width of the rectangle.
_ERASED_AREA = (0.02, 1 / 3)
_LOG_ERASED_RATIO = (math.log(0.3), -math.log(0.3))


def training_transform(config: DataConfig) -> Callable[[Stored, np.random.Generator], np.ndarray]:
    """Returns the random transform of the training images; it can be pickled.

    ``crop`` "none" and "pad" start from the centre of the image, its short side resized to
    ``image_size`` (0: from the image as it is stored); "random_resized" from the whole image.

    Raises:
      ConfigError: now, if the settings contradict each other; later, if an image has another number
        of channels than ``mean``.
      UnreadableImage: later, for bytes that cannot be decoded.
    """
    return _Training(config)


def test_transform(config: DataConfig) -> Callable[[Stored], np.ndarray]:
    """Returns the transform for measuring either split; it can be pickled.

    Bytes are decoded at full size, so the pixels are those of torchvision's ``Resize`` and
    ``CenterCrop`` up to one grey level in rounding. With ``image_size`` 0 images stay as stored.

    Raises:
      ConfigError, UnreadableImage: as ``training_transform``.
    """
    return _Test(config)


class _Training:
    def __init__(self, config: DataConfig) -> None:
        _check(config)
        self._config = config
        self._mode = _mode(config)
        self._policy = policies.build(config)

    def __call__(self, stored: Stored, rng: np.random.Generator) -> np.ndarray:
        config = self._config
        image = self._cropped(stored, rng)
        if config.flip and rng.random() < 0.5:
            image = _mirrored(image)
        if self._policy is not None:
            image = self._policy(_as_image(image), rng)
        array = _as_array(image)
        if config.erasing and rng.random() < config.erasing:
            array = _erased(array, config, rng)
        return np.ascontiguousarray(array)

    def _cropped(self, stored: Stored, rng: np.random.Generator) -> Image.Image | np.ndarray:
        config, side = self._config, self._config.image_size
        if config.crop == "random_resized":
            photo = _photo(stored, self._mode)
            box = _random_box(photo.width, photo.height, config.crop_scale, rng)
            return decode.resized(photo, box, (side, side), self._mode, config.interpolation)
        image = _centred(stored, side, side, self._mode, config.interpolation)
        if config.crop == "pad" and config.crop_padding:
            return _shifted(_as_array(image), config.crop_padding, rng)
        return image


class _Test:
    def __init__(self, config: DataConfig) -> None:
        _check(config)
        self._side = config.image_size
        self._short = config.resize or round(config.image_size * 256 / 224)
        self._mode, self._filter = _mode(config), config.interpolation

    def __call__(self, stored: Stored) -> np.ndarray:
        return _as_array(_centred(stored, self._short, self._side, self._mode, self._filter))


def _check(config: DataConfig) -> None:
    """Raises ConfigError, with the remedy, for settings that contradict each other."""
    side, (smallest, largest) = config.image_size, config.crop_scale
    if config.crop == "random_resized" and not side:
        raise ConfigError(
            "--data.crop random_resized needs a size to resize to; set --data.image_size."
        )
    if config.crop != "pad" and config.crop_padding:
        raise ConfigError(
            f"--data.crop_padding is {config.crop_padding}, but --data.crop is {config.crop!r} "
            "and pads nothing; set --data.crop pad, or --data.crop_padding 0."
        )
    if config.interpolation != "bilinear" and not side:
        raise ConfigError(
            f"--data.interpolation is {config.interpolation!r}, but images keep their stored size; "
            "set --data.image_size."
        )
    if config.resize and not 0 < side <= config.resize:
        raise ConfigError(
            f"--data.resize is {config.resize}, but the centre crop of --data.image_size {side} "
            "must lie in the resized image; set 0 < image_size <= resize."
        )
    if not 0 < smallest <= largest <= 1:
        raise ConfigError(
            f"--data.crop_scale is {config.crop_scale}; it must be two areas relative to the "
            "image, 0 < smallest <= largest <= 1."
        )
    if not 0 <= config.erasing <= 1:
        raise ConfigError(f"--data.erasing is {config.erasing}; it is a chance, from 0 to 1.")


def _mode(config: DataConfig) -> decode.Mode:
    channels = len(config.mean)
    if channels != len(config.std) or channels not in (1, 3):
        raise ConfigError(
            f"--data.mean is {config.mean} and --data.std is {config.std}; each must have one "
            "number for each channel of the images, which is 1 or 3."
        )
    return "L" if channels == 1 else "RGB"


def _checked(array: np.ndarray, mode: decode.Mode) -> np.ndarray:
    channels = 1 if mode == "L" else 3
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != channels:
        raise ConfigError(
            f"an image is {array.dtype} {list(array.shape)}, but --data.mean has {channels} "
            f"number(s), so it must be uint8 [H W {channels}]; set --data.mean and --data.std to "
            "the channels of the images."
        )
    return array


def _photo(stored: Stored, mode: decode.Mode) -> decode.Photo:
    if not isinstance(stored, np.ndarray):
        return decode.read(stored)
    image = _as_image(_checked(stored, mode))
    return decode.Photo(image, image.width, image.height)


def _as_image(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _as_array(image: Image.Image | np.ndarray) -> np.ndarray:
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _mirrored(image: Image.Image | np.ndarray) -> Image.Image | np.ndarray:
    if isinstance(image, Image.Image):
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # A copy of image[:, ::-1] goes through memory three bytes at a time, and takes twice as long.
    mirrored = np.empty(image.shape, np.uint8)
    for channel in range(image.shape[-1]):
        mirrored[..., channel] = image[:, ::-1, channel]
    return mirrored


def _centred(
    stored: Stored, short: int, side: int, mode: decode.Mode, filter_: decode.Filter
) -> Image.Image | np.ndarray:
    """Resizes the short side and crops the centre in one step; ``side`` 0 keeps the image."""
    if isinstance(stored, np.ndarray) and (
        not side or (side == short and stored.shape[:2] == (side, side))
    ):
        return _checked(stored, mode)
    photo = _photo(stored, mode)
    image = decode.pixels(photo, mode)
    if not side:
        return image
    width, height = photo.width, photo.height
    # The long side in whole pixels, as in torchvision: its scale differs a little.
    wide = short if width <= height else int(short * width / height)
    high = short if height <= width else int(short * height / width)
    left, top = round((wide - side) / 2), round((high - side) / 2)
    across, down = width / wide, height / high
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    return image.resize((side, side), decode.FILTERS[filter_], box=box)


def _random_box(
    width: int, height: int, scale: tuple[float, float], rng: np.random.Generator
) -> decode.Box:
    """Draws torchvision's RandomResizedCrop: uniform area, log-uniform ratio, uniform position."""
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(*_LOG_CROP_RATIO))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
            return left, top, left + wide, top + high
    # A long, narrow image: the largest box in its centre that has an allowed ratio.
    wide = min(width, round(height * _CROP_RATIO[1]))
    high = min(height, round(width / _CROP_RATIO[0]))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _shifted(image: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    """Pads with zeros, and crops a window of the original size at a random position."""
    height, width, channels = image.shape
    top, left = int(rng.integers(2 * padding + 1)), int(rng.integers(2 * padding + 1))
    padded = np.zeros((height + 2 * padding, width + 2 * padding, channels), np.uint8)
    padded[padding : padding + height, padding : padding + width] = image
    return padded[top : top + height, left : left + width]


def _erased(image: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """Replaces a rectangle by noise, per pixel and channel: N(mean, std), rounded and clipped.

    Once normalised this is timm's N(0, 1), except for rounding (below 0.01) and the clipped tails:
    with ImageNet's mean and std, below -1.8 to -2.1 and above 2.2 to 2.6, 3 % of the values.
    """
    height, width, channels = image.shape
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*_ERASED_AREA)
        ratio = math.exp(rng.uniform(*_LOG_ERASED_RATIO))
        high, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < high < height and 0 < wide < width:
            top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
            noise = rng.standard_normal((high, wide, channels), np.float32)
            noise = noise * np.asarray(config.std, np.float32) + np.asarray(config.mean, np.float32)
            image = image.copy()
            image[top : top + high, left : left + wide] = np.clip(np.rint(noise), 0, 255)
            return image
    return image
