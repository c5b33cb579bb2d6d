"""What features depend on, as digests: two equal digests mean equal features, whatever the path.

Pixels in memory and weights are identified by their bytes, images on disk by the names, sizes and
modification times of their files: reading a hundred gigabytes to find that nothing has changed
would cost more than the features.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from train.data.aircraft import Aircraft
from train.data.arrays import Arrays
from train.data.folder import Files
from train.data.prepared import Prepared
from train.data.sources import Records

_BYTES = 16


def of_json(values: Any) -> str:
    """Returns the digest of numbers, strings, lists and dictionaries."""
    text = json.dumps(values, sort_keys=True, default=list)
    return hashlib.blake2b(text.encode(), digest_size=_BYTES).hexdigest()


def of_arrays(tree: Any) -> str:
    """Returns the digest of a tree of arrays: their paths in it, types, shapes and bytes."""
    digest = hashlib.blake2b(digest_size=_BYTES)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def of_records(records: Records, classes: Sequence[str]) -> str:
    """Returns the digest of the images of a split, in their order, and of what labels mean.

    A prepared data set is one set of files for all its splits, so theirs are the same.
    """
    if isinstance(records, Arrays):
        return of_json([of_arrays((records.images, records.labels)), list(classes)])
    digest = hashlib.blake2b(digest_size=_BYTES)
    digest.update(f"{type(records).__name__} {records.size} {list(classes)}".encode())
    files = records.files if isinstance(records, Aircraft) else records
    if isinstance(files, Files):
        digest.update(files.labels.tobytes())
    assert isinstance(records, Aircraft | Files | Prepared), "the other records are in memory"
    for path in records.paths():
        about = path.stat()
        name = "/".join(path.parts[-2:])
        digest.update(f"{name} {about.st_size} {about.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()
