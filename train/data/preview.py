"""A look at the data before a long run: a contact sheet of images, and the speed of each stage."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from train.config import Config
from train.data import decode
from train.data.arrays import Arrays
from train.data.augment import training_transform
from train.data.order import Order
from train.data.pipeline import training_batches
from train.data.sources import Dataset, Records

_SECONDS = 2.0
_SAMPLE = 256
_BATCH = 128


class Stage(NamedTuple):
    """The speed of a stage; None if this data set does not have it."""

    name: str
    images_per_second: float | None
    what: str


def measure(config: Config, dataset: Dataset, put: Callable[[dict], object]) -> list[Stage]:
    """Returns the speed of each stage, measured for some seconds.

    ``read``, ``decode`` and ``augment`` run in one thread, on images of the first epoch; ``batch``
    is all of them together, by the threads and workers of the config; ``put`` sends a batch to the
    devices.
    """
    records, order = dataset.train.records, Order(dataset.train.size, config.seed)
    indices = [order.image(0, position) for position in range(min(_SAMPLE, records.size))]
    stored = [records.read(index)[0] for index in indices]
    read = _rate(records.read, indices)
    devices = f"{jax.local_device_count()} device(s), {jax.devices()[0].device_kind}"
    return [
        Stage("read", read, "from memory" if isinstance(records, Arrays) else "from disk"),
        *_transforms(config, records, stored, order),
        Stage("batch", _batches(config, dataset), _readers(config)),
        Stage("transfer", _transfer(config, dataset, put), f"to {devices}"),
    ]


def _transforms(
    config: Config, records: Records, stored: list, order: Order
) -> tuple[Stage, Stage]:
    """Returns the stages decoding and augmentation."""
    if isinstance(stored[0], np.ndarray):
        decoded, decoding = stored, Stage("decode", None, "was decoded before")
    else:
        pixels = partial(decode.decode, mode=decode.mode_of(len(config.data.mean)))
        decoded = [pixels(data) for data in stored]
        decoding = Stage("decode", _rate(pixels, stored), "the whole image")
    transform, numbers = training_transform(config.data), itertools.count()
    rate = _rate(lambda image: transform(image, order.generator(next(numbers))), decoded)
    return decoding, Stage("augment", rate, "of decoded images")


def _batches(config: Config, dataset: Dataset) -> float:
    """Returns the speed of the whole pipeline on the host, once it runs evenly."""
    size = min(_BATCH, config.data.batch_size, dataset.train.size)
    data = dataclasses.replace(config.data, batch_size=size)
    stream = training_batches(dataset.train, data, config.seed)
    # Batches that were made ahead would count as made in no time.
    ahead = (2 * data.threads + 2) * max(1, data.processes)
    for _ in range(ahead):
        next(stream)
    rate = _rate(lambda _: next(stream), [0])
    stream.close()
    return rate * size


def _transfer(config: Config, dataset: Dataset, put: Callable[[dict], object]) -> float:
    shape = (config.data.batch_size, *dataset.image_shape)
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        "label": np.zeros(shape[0], np.int32),
    }
    return _rate(lambda _: jax.block_until_ready(put(batch)), [0]) * shape[0]


def _rate(function: Callable, arguments: Iterable) -> float:
    """Returns calls per second, over the arguments in turn."""
    calls, start = 0, time.perf_counter()
    for argument in itertools.cycle(arguments):
        function(argument)
        calls += 1
        if (elapsed := time.perf_counter() - start) > _SECONDS:
            break
    return calls / elapsed


def _readers(config: Config) -> str:
    data = config.data
    threads = f"{data.threads} thread(s)" if data.threads else "no thread ahead"
    return f"all of the above, {data.processes or 'no'} worker process(es), {threads}"


_COLUMNS = 8
_SMALLEST = 96
_LARGEST = 224
_GAP = 6
_TEXT = 13
_BACKGROUND, _INK = (250, 250, 250), (30, 30, 30)


def contact_sheet(images: np.ndarray, names: Sequence[str], title: str) -> Image.Image:
    """Returns a sheet of images ``uint8 [N H W C]``, with names below them and a title above.

    Small images are enlarged pixel by pixel, large ones reduced. The brightest pixel of the sheet
    becomes white, since not all data sets use the whole range.
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
        pen.text((left, upper + cell.height), _shortened(name, cell.width, font), _INK, font)
    return sheet


def _cell(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    longest = max(image.size)
    if longest > _LARGEST:
        image.thumbnail((_LARGEST, _LARGEST))
        return image
    times = max(1, -(-_SMALLEST // longest))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _shortened(name: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Returns a name, cut to a width in pixels."""
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(name + "...") > width:
        name = name[:-1]
    return name + "..."
