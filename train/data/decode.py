"""Bytes of an image file -> pixels, upright, with one or three channels.

What a file is, its first bytes say: names lie (ImageNet has a PNG among its JPEGs). Reading is in
two steps, because a random crop must know the size of the image before it knows which pixels it
needs: ``read`` looks at the header alone, and ``pixels`` decodes.
"""

import io
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

# Formats whose decoders are C and do nothing but decode. (Pillow hands an EPS to Ghostscript.)
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

_ORIENTATION = 0x0112
# EXIF orientation -> what turns the stored rows and columns upright (EXIF 2.32, 4.6.5).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Mode = Literal["L", "RGB"]
Box = tuple[float, float, float, float]


class UnreadableImage(ValueError):
    """Bytes from which no whole image can be decoded."""


class Photo(NamedTuple):
    """An image of which the header has been read; ``width`` and ``height`` are upright."""

    image: Image.Image
    orientation: int
    width: int
    height: int


def read(data: bytes) -> Photo:
    """Reads the header.

    Raises:
      UnreadableImage: the bytes are empty, or not an image.
    """
    if not data:
        raise UnreadableImage("the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # Pillow's plugins raise what they like on broken bytes.
        raise UnreadableImage(_explain(data, error)) from error
    width, height = image.size if orientation < 5 else image.size[::-1]
    return Photo(image, orientation, width, height)


def _explain(data: bytes, error: Exception) -> str:
    return f"{len(data)} bytes that start with {data[:8]!r}: {type(error).__name__}: {error}"


def pixels(photo: Photo, mode: Mode = "RGB") -> Image.Image:
    """Decodes the whole image, upright.

    Raises:
      UnreadableImage: the bytes are truncated or broken.
    """
    image = _convert(_load(photo), mode)
    turn = _UPRIGHT.get(photo.orientation)
    return image if turn is None else image.transpose(turn)


def decode(data: bytes, mode: Mode = "RGB") -> Image.Image:
    """Returns the image in these bytes, upright; see ``read`` and ``pixels``."""
    return pixels(read(data), mode)


def _load(photo: Photo) -> Image.Image:
    try:
        photo.image.load()
    except Exception as error:
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error
    return photo.image


def _convert(image: Image.Image, mode: Mode) -> Image.Image:
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert(mode)
