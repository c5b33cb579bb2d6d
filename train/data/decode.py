"""The bytes of an image file -> its pixels, upright, in one or three channels of 8 bits.

What a file is, its first bytes say: names lie (ImageNet has a PNG among its JPEGs). Reading takes
two steps, because a random crop must know the size of an image before it knows which pixels it
needs: ``read`` looks at the header, then ``pixels`` or ``resized`` decodes. Alpha is dropped, as
the loaders of torchvision and TFDS drop it.

``resized`` leaves to libjpeg what it can: where at least twice the wanted pixels lie in the box,
the inverse DCT itself yields 1/2, 1/4 or 1/8 of the size (Pillow's ``draft``).

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

(PyTurboJPEG 2.6 comes without the library that it calls.) The operations of the policies need
Pillow's images in any case, and the difference of OpenCV is its other filter.
"""

import io
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin, features
from PIL.JpegImagePlugin import JpegImageFile

# Formats that are no more than pixels. (Given an EPS, Pillow would start Ghostscript.)
_FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
if features.check("avif"):
    _FORMATS += ("AVIF",)

# Pixels do not depend on text: a PNG with megabytes of it (a manual, a colour profile) is an image.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**28

_ORIENTATION_TAG = 0x0112
# EXIF orientation -> what brings the stored image upright (CIPA DC-008, tag Orientation).
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
    """Reads the header: what the image is, its size, and which side is up.

    Raises:
      UnreadableImage: the bytes are none, or not an image.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if not isinstance(image, JpegImageFile):
            image.load()  # Only a JPEG gains by waiting; a PNG may have its EXIF behind the pixels.
    except Exception as error:  # Pillow's plugins raise what they like on broken bytes.
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


def decode(data: bytes, mode: Mode) -> Image.Image:
    """Returns the whole image in these bytes; see ``read`` and ``pixels``."""
    return pixels(read(data), mode)


def resized(
    photo: Photo, box: Box, size: tuple[int, int], mode: Mode, filter_: Filter = "bilinear"
) -> Image.Image:
    """Returns what is in a box, resized to ``(width, height)``, for use once on a new ``Photo``.

    The filter is Pillow's, which averages where it shrinks. At the edge of the box it sees the
    pixels outside.

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
        if drafted is not None:  # (mode, box of the whole image in the pixels to come)
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
    except Exception:  # A broken EXIF block says nothing, and leaves the pixels as good as any.
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
    """Returns the box in the stored image that holds the pixels of an upright one."""
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
