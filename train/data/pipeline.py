"""Grain pipelines from a split to host batches ``{"image", "label"}`` or ``{..., "mask"}``.

Training: each epoch is a permutation of the whole split that depends on (seed, epoch) alone, and
the augmentation of an image on (seed, its place in the stream) alone, so the number of batches
consumed is the whole state of the iterator, and a resumed run sees the batches it would have seen.
Evaluation: every image once, in order; the last batch is padded and masked.
"""

from collections.abc import Iterator

import grain
import numpy as np

from train.config import DataConfig
from train.data.sources import Records, Split

Batch = dict[str, np.ndarray]


def training_batches(split: Split, data: DataConfig, seed: int) -> grain.DatasetIterator:
    """Returns an endless iterator of augmented batches, with ``get_state`` and ``set_state``.

    An epoch has ``N // batch_size`` batches; the rest of its permutation is left out, another rest
    in each epoch.
    """
    records = grain.MapDataset.source(Records(split)).seed(seed).shuffle()
    if data.crop_padding:
        records = records.random_map(_RandomShift(data.crop_padding))
    batches = records.batch(data.batch_size, drop_remainder=True).repeat(None)
    options = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=2 * data.threads)
    return iter(batches.to_iter_dataset(options))


def evaluation_batches(split: Split, batch_size: int, padded_size: int) -> Iterator[Batch]:
    """Yields every image of the split once, in batches of equal shape.

    Args:
      split: what to go through.
      batch_size: images taken per batch; the last one may have fewer.
      padded_size: rows of every batch, at least ``batch_size``; rows that hold no image are zeros
        with ``mask`` 0, and all others have ``mask`` 1.
    """
    for start in range(0, len(split.labels), batch_size):
        images = split.images[start : start + batch_size]
        labels = split.labels[start : start + batch_size]
        mask = np.ones(len(labels), np.float32)
        yield {
            "image": _pad(images, padded_size),
            "label": _pad(labels, padded_size),
            "mask": _pad(mask, padded_size),
        }


def _pad(rows: np.ndarray, size: int) -> np.ndarray:
    return np.pad(rows, [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1))


class _RandomShift(grain.transforms.RandomMap):
    """Pads the image with zeros and cuts a window of the original size at a random place."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def random_map(self, record: Batch, rng: np.random.Generator) -> Batch:
        image, pad = record["image"], self._padding
        height, width, _ = image.shape
        top, left = rng.integers(0, 2 * pad + 1, size=2)
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        return {**record, "image": padded[top : top + height, left : left + width]}
