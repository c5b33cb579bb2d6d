"""Decoding: the bytes of an image file to upright pixels, in one or three channels of 8 bits.

The format is read from the first bytes, since names can be wrong (ImageNet has a PNG among its
JPEGs). Reading takes two steps, because a random crop needs the size of an image first: ``read``
parses the header, then ``pixels`` or ``resized`` decodes. Alpha is dropped, as in the loaders of
torchvision and TFDS.

Where a box has at least twice the wanted pixels, ``resized`` lets libjpeg decode at 1/2, 1/4 or 1/8
of the size (Pillow's ``draft``).

Why Pillow: milliseconds for one random crop to 224x224 of an original ImageNet photograph, on one
core of a shared x86-64 machine, by ``taskset -c 0 python -m benchmarks.decode PHOTOGRAPHS``, and
the mean difference from the first row in grey levels:

================================================== ==== ====
Pillow 13.0, whole image, then the box             2.82 0
Pillow 13.0, draft, then the box (this file)       2.47 0.07
simplejpeg 1.9, scaled decoding, Pillow's resizing 2.41 0.07
OpenCV 5.0, reduced decoding, INTER_AREA           2.04 0.84
Pillow 13.0, decoding of the whole image, no more  1.81
================================================== ==== ====

With bicubic filters, as for DeiT, this file differs by 0.08. The operations of the policies need
Pillow's images in any case. OpenCV differs by its filter.
"""

import io
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin, features
from PIL.JpegImagePlugin import JpegImageFile

# Formats of pixels alone. (Given an EPS, Pillow would start Ghostscript.)
_FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
if features.check("avif"):
    _FORMATS += ("AVIF",)

# A PNG may hold megabytes of text (a manual, a colour profile) beside its pixels.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**28

_ORIENTATION_TAG = 0x0112
# EXIF orientation -> the transposition that turns the image upright (CIPA DC-008).
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
Filter = Literal["bilinear", "bicubic"]
FILTERS: dict[Filter, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
Box = tuple[float, float, float, float]
"""``(left, top, right, bottom)`` in pixels; right and bottom are outside."""


class UnreadableImage(ValueError):
    """Bytes from which no whole image can be decoded."""


class Photo(NamedTuple):
    """An image whose pixels may not be decoded yet; ``width`` and ``height`` are upright."""

    image: Image.Image
    width: int
    height: int
    orientation: int = 1


def read(data: bytes) -> Photo:
    """Reads the header: format, size and orientation; raises UnreadableImage if it cannot."""
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if not isinstance(image, JpegImageFile):
            image.load()  # Only JPEG decodes faster later; a PNG may have EXIF after its pixels.
    except Exception as error:  # Pillow's plugins raise many kinds of errors on broken bytes.
        raise _unreadable(error) from error
    orientation = _orientation(image)
    width, height = image.size if orientation < 5 else image.size[::-1]
    return Photo(image, width, height, orientation)


def pixels(photo: Photo, mode: Mode) -> Image.Image:
    """Returns the whole image.

    Raises:
      UnreadableImage: the bytes are truncated or broken, or their pixels have no known range.
    """
    return _upright(_converted(photo.image, mode), photo.orientation)


def decode(data: bytes, mode: Mode) -> np.ndarray:
    """Returns the whole image as ``uint8 [H W C]``; see ``read`` and ``pixels``."""
    array = np.asarray(pixels(read(data), mode))
    return array.reshape(*array.shape[:2], -1)


def mode_of(channels: int) -> Mode:
    """Returns Pillow's name for 8-bit images of one or three channels."""
    return "L" if channels == 1 else "RGB"


def resized(
    photo: Photo, box: Box, size: tuple[int, int], mode: Mode, filter_: Filter = "bilinear"
) -> Image.Image:
    """Returns the content of a box, resized to ``(width, height)``; call it once per ``Photo``.

    Pillow's filter averages where it shrinks, and reads pixels beyond the edges of the box.

    Raises:
      UnreadableImage: as ``pixels``.
    """
    image, orientation = photo.image, photo.orientation
    left, top, right, bottom = _stored_box(box, photo)
    width, height = size if orientation < 5 else size[::-1]
    factor = int(min((right - left) / width, (bottom - top) / height))
    shrink = 1.0
    if factor > 1:
        full = image.width
        drafted = image.draft(None, (image.width // factor, image.height // factor))
        if drafted is not None:  # (mode, box of the whole image at the reduced size)
            shrink = full / drafted[1][2]
    box = (left / shrink, top / shrink, right / shrink, bottom / shrink)
    part = _converted(image, mode).resize((width, height), FILTERS[filter_], box=box)
    return _upright(part, orientation)


def _unreadable(error: Exception) -> UnreadableImage:
    if isinstance(error, Image.DecompressionBombError):
        return UnreadableImage(f"its pixels are too many to decode ({error})")
    return UnreadableImage(f"{type(error).__name__}: {error}")


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # A broken EXIF block does not affect the pixels.
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _converted(image: Image.Image, mode: Mode) -> Image.Image:
    try:
        image.load()
        if image.mode == mode:
            return image
        if image.mode.startswith("I;16"):  # Pillow's own conversion would clip at 255.
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of mode {image.mode!r} have no known range")
        if "transparency" in image.info:  # Pillow warns unless the alpha is made explicit first.
            image = image.convert("RGBA")
        return image.convert(mode)
    except Exception as error:
        raise _unreadable(error) from error


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _stored_box(box: Box, photo: Photo) -> Box:
    """Returns the box in the stored image of a box in the upright one."""
    left, top, right, bottom = box
    width, height = photo.width, photo.height
    if photo.orientation >= 5:
        left, top, right, bottom = top, left, bottom, right
        width, height = height, width
    if photo.orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if photo.orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
