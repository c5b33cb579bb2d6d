"""Policies: tables of random operations on the colours and the shape of a training image.

AutoAugment draws one pair of operations for an image, and applies each with its own probability.
RandAugment draws operations with replacement, and applies them all. An operation is a name and a
level, which ``setting`` turns into an angle, a factor or a threshold. Ranges, signs,
nearest-neighbour sampling and black borders are those of torchvision, and so are the pixels, up to
one grey level from rounding of float32 factors. (The authors' code differs in some ranges, and
fills with grey.)

References: Cubuk et al., AutoAugment, CVPR 2019, Tables 7 and 9; Cubuk et al., RandAugment,
NeurIPS 2020.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageOps

from train.config import ConfigError, DataConfig

Policy = Callable[[Image.Image, np.random.Generator], Image.Image]


class Step(NamedTuple):
    """An operation, its probability and its level of 9; 0 for an operation without levels."""

    name: str
    probability: float
    level: int = 0


Pairs = tuple[tuple[Step, Step], ...]

AUTOAUGMENT_IMAGENET: Pairs = (
    (Step("Posterize", 0.4, 8), Step("Rotate", 0.6, 9)),
    (Step("Solarize", 0.6, 5), Step("AutoContrast", 0.6)),
    (Step("Equalize", 0.8), Step("Equalize", 0.6)),
    (Step("Posterize", 0.6, 7), Step("Posterize", 0.6, 6)),
    (Step("Equalize", 0.4), Step("Solarize", 0.2, 4)),
    (Step("Equalize", 0.4), Step("Rotate", 0.8, 8)),
    (Step("Solarize", 0.6, 3), Step("Equalize", 0.6)),
    (Step("Posterize", 0.8, 5), Step("Equalize", 1.0)),
    (Step("Rotate", 0.2, 3), Step("Solarize", 0.6, 8)),
    (Step("Equalize", 0.6), Step("Posterize", 0.4, 6)),
    (Step("Rotate", 0.8, 8), Step("Color", 0.4, 0)),
    (Step("Rotate", 0.4, 9), Step("Equalize", 0.6)),
    (Step("Equalize", 0.0), Step("Equalize", 0.8)),
    (Step("Invert", 0.6), Step("Equalize", 1.0)),
    (Step("Color", 0.6, 4), Step("Contrast", 1.0, 8)),
    (Step("Rotate", 0.8, 8), Step("Color", 1.0, 2)),
    (Step("Color", 0.8, 8), Step("Solarize", 0.8, 7)),
    (Step("Sharpness", 0.4, 7), Step("Invert", 0.6)),
    (Step("ShearX", 0.6, 5), Step("Equalize", 1.0)),
    (Step("Color", 0.4, 0), Step("Equalize", 0.6)),
    (Step("Equalize", 0.4), Step("Solarize", 0.2, 4)),
    (Step("Solarize", 0.6, 5), Step("AutoContrast", 0.6)),
    (Step("Invert", 0.6), Step("Equalize", 1.0)),
    (Step("Color", 0.6, 4), Step("Contrast", 1.0, 8)),
    (Step("Equalize", 0.8), Step("Equalize", 0.6)),
)

AUTOAUGMENT_CIFAR10: Pairs = (
    (Step("Invert", 0.1), Step("Contrast", 0.2, 6)),
    (Step("Rotate", 0.7, 2), Step("TranslateX", 0.3, 9)),
    (Step("Sharpness", 0.8, 1), Step("Sharpness", 0.9, 3)),
    (Step("ShearY", 0.5, 8), Step("TranslateY", 0.7, 9)),
    (Step("AutoContrast", 0.5), Step("Equalize", 0.9)),
    (Step("ShearY", 0.2, 7), Step("Posterize", 0.3, 7)),
    (Step("Color", 0.4, 3), Step("Brightness", 0.6, 7)),
    (Step("Sharpness", 0.3, 9), Step("Brightness", 0.7, 9)),
    (Step("Equalize", 0.6), Step("Equalize", 0.5)),
    (Step("Contrast", 0.6, 7), Step("Sharpness", 0.6, 5)),
    (Step("Color", 0.7, 7), Step("TranslateX", 0.5, 8)),
    (Step("Equalize", 0.3), Step("AutoContrast", 0.4)),
    (Step("TranslateY", 0.4, 3), Step("Sharpness", 0.2, 6)),
    (Step("Brightness", 0.9, 6), Step("Color", 0.2, 8)),
    (Step("Solarize", 0.5, 2), Step("Invert", 0.0)),
    (Step("Equalize", 0.2), Step("AutoContrast", 0.6)),
    (Step("Equalize", 0.2), Step("Equalize", 0.6)),
    (Step("Color", 0.9, 9), Step("Equalize", 0.6)),
    (Step("AutoContrast", 0.8), Step("Solarize", 0.2, 8)),
    (Step("Brightness", 0.1, 3), Step("Color", 0.7, 0)),
    (Step("Solarize", 0.4, 5), Step("AutoContrast", 0.9)),
    (Step("TranslateY", 0.9, 9), Step("TranslateY", 0.7, 9)),
    (Step("AutoContrast", 0.9), Step("Solarize", 0.8, 3)),
    (Step("Equalize", 0.8), Step("Invert", 0.1)),
    (Step("TranslateY", 0.7, 9), Step("AutoContrast", 0.9)),
)

RANDAUGMENT: tuple[str, ...] = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
    "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip

_AUTOAUGMENT_TOP = 9
_RANDAUGMENT_TOP = 30

# Largest settings of the operations with a random sign. Translations are relative to the side.
_LARGEST = {
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150 / 331,
    "TranslateY": 150 / 331,
    "Rotate": 30.0,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
}


def build(config: DataConfig) -> Policy | None:
    """Returns the policy of a config, which can be pickled; None if it has none.

    Raises:
      ConfigError: the images have one channel, or RandAugment's numbers are out of range.
    """
    if config.policy == "none":
        return None
    if len(config.mean) != 3:
        raise ConfigError(
            f"--data.policy is {config.policy!r}, which needs images of three channels, and "
            f"--data.mean has {len(config.mean)}; set --data.policy none."
        )
    if config.policy == "randaugment":
        number, level = config.randaugment
        if number < 1 or not 0 <= level <= _RANDAUGMENT_TOP:
            raise ConfigError(
                f"--data.randaugment is {config.randaugment}; it must be a number of operations, "
                f"at least 1, and a magnitude from 0 to {_RANDAUGMENT_TOP}."
            )
        return partial(_randaugment, number, level)
    tables = {
        "autoaugment_imagenet": AUTOAUGMENT_IMAGENET,
        "autoaugment_cifar10": AUTOAUGMENT_CIFAR10,
    }
    return partial(_autoaugment, tables[config.policy])


def setting(name: str, level: int, top: int, size: tuple[int, int]) -> float:
    """Returns the setting of an operation at a level from 0 to ``top``, for ``(width, height)``.

    This is the slope of a shear, the pixels of a translation, the degrees of a rotation, the
    difference of an enhancement's factor from 1, the bits that Posterize keeps, or the value from
    which Solarize inverts; 0 for operations without levels.
    """
    if name == "Posterize":
        return 8 - round(4 * level / top)
    if name == "Solarize":
        return 255 * (top - level) / top
    largest = _LARGEST.get(name, 0.0)
    if name == "TranslateX":
        largest *= size[0]
    if name == "TranslateY":
        largest *= size[1]
    return largest * level / top


def apply(image: Image.Image, name: str, value: float) -> Image.Image:
    """Returns an RGB image after one operation with a setting; see ``setting``."""
    return _OPERATIONS[name](image, value)


def _autoaugment(table: Pairs, image: Image.Image, rng: np.random.Generator) -> Image.Image:
    for name, probability, level in table[rng.integers(len(table))]:
        if rng.random() < probability:
            image = _apply_signed(image, name, level, _AUTOAUGMENT_TOP, rng)
    return image


def _randaugment(
    number: int, level: int, image: Image.Image, rng: np.random.Generator
) -> Image.Image:
    for index in rng.integers(len(RANDAUGMENT), size=number):
        image = _apply_signed(image, RANDAUGMENT[index], level, _RANDAUGMENT_TOP, rng)
    return image


def _apply_signed(
    image: Image.Image, name: str, level: int, top: int, rng: np.random.Generator
) -> Image.Image:
    value = setting(name, level, top, image.size)
    if name in _LARGEST and rng.random() < 0.5:
        value = -value
    return apply(image, name, value)


def _affine(image: Image.Image, inverse: tuple[float, ...]) -> Image.Image:
    """Takes the pixel (x, y) from ``inverse``: (a x + b y + c, d x + e y + f)."""
    return image.transform(image.size, Image.Transform.AFFINE, inverse)


def _moved(image: Image.Image, right: int, down: int) -> Image.Image:
    # A crop is black outside of the image, and five times as fast as an affine map.
    return image.crop((-right, -down, image.width - right, image.height - down))


_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Identity": lambda image, _: image,
    "ShearX": lambda image, slope: _affine(image, (1, slope, 0, 0, 1, 0)),
    "ShearY": lambda image, slope: _affine(image, (1, 0, 0, slope, 1, 0)),
    "TranslateX": lambda image, pixels: _moved(image, int(pixels), 0),
    "TranslateY": lambda image, pixels: _moved(image, 0, int(pixels)),
    "Rotate": lambda image, degrees: image.rotate(degrees),
    "Brightness": lambda image, change: ImageEnhance.Brightness(image).enhance(1 + change),
    "Color": lambda image, change: ImageEnhance.Color(image).enhance(1 + change),
    "Contrast": lambda image, change: ImageEnhance.Contrast(image).enhance(1 + change),
    "Sharpness": lambda image, change: ImageEnhance.Sharpness(image).enhance(1 + change),
    "Posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "Solarize": lambda image, threshold: ImageOps.solarize(image, math.ceil(threshold)),
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageChops.invert(image),  # ImageOps goes through a table.
}
