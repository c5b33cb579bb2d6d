"""Digests of weights, images and settings: equal digests mean equal features, in any directory.

Pixels in memory, weights and files of images are identified by their bytes, files by their names
too, and not by modification times, which copying or restoring may change. Reading files in several
threads takes far less time than decoding them.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.data.archives import Aircraft
from train.data.arrays import Arrays
from train.data.folder import Files
from train.data.prepared import Prepared
from train.data.sources import Records

_BYTES, _THREADS = 16, 8


def digest_json(values: Any) -> str:
    """Returns the digest of numbers, strings, lists and dictionaries."""
    text = json.dumps(values, sort_keys=True, default=list)
    return hashlib.blake2b(text.encode(), digest_size=_BYTES).hexdigest()


def digest_arrays(tree: Any) -> str:
    """Returns the digest of a tree of arrays: of their paths, types, shapes and bytes."""
    digest = hashlib.blake2b(digest_size=_BYTES)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def digest_records(records: Records, classes: Sequence[str]) -> str:
    """Returns the digest of the images of a split, in their order, and of the class names.

    All splits of a prepared data set share files, and so have the same digest.
    """
    if isinstance(records, Arrays):
        return digest_json([digest_arrays((records.images, records.labels)), list(classes)])
    digest = hashlib.blake2b(digest_size=_BYTES)
    digest.update(f"{type(records).__name__} {records.size} {list(classes)}".encode())
    files = records.files if isinstance(records, Aircraft) else records
    if isinstance(files, Files):
        digest.update(files.labels.tobytes())
    assert isinstance(records, Aircraft | Files | Prepared), "the other records are in memory"
    with ThreadPoolExecutor(_THREADS) as pool:
        paths = records.paths()
        for path, content in zip(paths, pool.map(_digest_file, paths), strict=True):
            digest.update("/".join(path.parts[-2:]).encode(errors="surrogateescape"))
            digest.update(content)
    return digest.hexdigest()


def _digest_file(path: Path) -> bytes:
    """Returns the digest of the bytes of a file, or ``unreadable``."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_BYTES)).digest()
    except OSError:
        return b"unreadable"
