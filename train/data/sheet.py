"""A sheet of images with the names of their classes: what a person looks at before a long run."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_COLUMNS = 8
_SMALLEST = 96
_LARGEST = 224
_GAP = 6
_TEXT = 13
_BACKGROUND, _INK = (250, 250, 250), (30, 30, 30)


def draw(images: np.ndarray, names: Sequence[str], title: str) -> Image.Image:
    """Returns the sheet.

    Small images are enlarged pixel by pixel, large ones reduced. The brightest pixel of the sheet
    becomes white, since not all data sets use the whole range.

    Args:
      images: ``uint8 [N H W C]``, of one or three channels.
      names: N of them, written below the images.
      title: written above all.
    """
    font = ImageFont.load_default(_TEXT)
    bright = images.astype(np.float32) * (255 / max(1, images.max()))
    cells = [_cell(image) for image in np.rint(bright).astype(np.uint8)]
    width, height = cells[0].width + _GAP, cells[0].height + 2 * _GAP + _TEXT
    rows = -(-len(cells) // _COLUMNS)
    top = 2 * _GAP + _TEXT
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + top), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, _GAP // 2), title, fill=_INK, font=font)
    for number, (cell, name) in enumerate(zip(cells, names, strict=True)):
        left, upper = number % _COLUMNS * width + _GAP, number // _COLUMNS * height + top
        sheet.paste(cell, (left, upper))
        pen.text((left, upper + cell.height), _fitting(name, cell.width, font), _INK, font)
    return sheet


def _cell(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    longest = max(image.size)
    if longest > _LARGEST:
        image.thumbnail((_LARGEST, _LARGEST))
        return image
    times = max(1, -(-_SMALLEST // longest))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _fitting(name: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Returns as much of a name as there is room for."""
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(name + "...") > width:
        name = name[:-1]
    return name + "..."
