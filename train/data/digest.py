"""Fingerprint of a run's images, to detect later whether they have changed.

It covers every byte of images in memory. For files it covers all names and labels, and the bytes of
a few evenly spaced ones, since reading all would cost as much as an epoch. It does not depend on
the path of the folder, so data may be moved.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from train.data.archives import Aircraft
from train.data.arrays import Arrays
from train.data.decode import UnreadableImage
from train.data.folder import Files
from train.data.sources import Dataset, Records

Description = dict[str, Any]

_SAMPLE = 64
_SPLITS = ("train", "test")
_BYTES = 16


def describe(dataset: Dataset) -> Description:
    """Returns, as JSON, the shape, the numbers and the digests of the images of a data set."""
    return {
        "shape": list(dataset.image_shape),
        "classes": dataset.num_classes,
        "class_names": _digest(name.encode() for name in dataset.classes),
        "train": _describe_split(dataset.train.records),
        "test": _describe_split(dataset.test.records),
    }


def is_description(value: Any) -> bool:
    """Whether a value that was read from disk has the form of a description."""
    fields = {"shape": list, "classes": int, "class_names": str, "train": dict, "test": dict}
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), kind) for name, kind in fields.items())
        and all({"images", "names", "content"} <= value[split].keys() for split in _SPLITS)
    )


def differences(before: Mapping[str, Any], now: Description) -> list[str]:
    """Returns the differences between two descriptions, in words."""
    counts = [
        _counts(before["train"]["images"], before["classes"], before["test"]["images"]),
        _counts(now["train"]["images"], now["classes"], now["test"]["images"]),
    ]
    if counts[0] != counts[1]:
        return [f"began with {counts[0]}, finds {counts[1]}"]
    changes = []
    if before["class_names"] != now["class_names"]:
        changes.append("the classes have other names")
    for split, title in zip(_SPLITS, ("to train on", "to measure"), strict=True):
        for part, what in (("names", "names or labels"), ("content", "content")):
            if before[split][part] != now[split][part]:
                changes.append(f"the images {title} have other {what}")
    return changes


def _counts(images: int, classes: int, measured: int) -> str:
    return f"{images:,} images of {classes:,} classes to train on and {measured:,} to measure"


def _describe_split(records: Records) -> Description:
    if isinstance(records, Arrays):
        images = np.ascontiguousarray(records.images)
        names = _digest([records.labels])
        return {"images": records.size, "names": names, "content": _digest([images])}
    files = records.files if isinstance(records, Aircraft) else records
    named = [*files.names.tolist(), files.labels] if isinstance(files, Files) else []
    indices = np.unique(np.linspace(0, records.size - 1, min(records.size, _SAMPLE)).astype(int))
    content = _digest(part for index in indices.tolist() for part in _content(records, index))
    return {"images": records.size, "names": _digest(named), "content": content}


def _content(records: Records, index: int) -> list[bytes | np.ndarray]:
    try:
        stored, label = records.read(index)
    except (UnreadableImage, OSError):
        return [b"unreadable"]
    return [np.ascontiguousarray(stored) if isinstance(stored, np.ndarray) else stored,
            str(label).encode()]  # fmt: skip


def _digest(parts: Iterable[bytes | np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=_BYTES)
    for part in parts:
        size = part.nbytes if isinstance(part, np.ndarray) else len(part)
        digest.update(size.to_bytes(8, "little"))
        digest.update(part.data if isinstance(part, np.ndarray) else part)
    return digest.hexdigest()
