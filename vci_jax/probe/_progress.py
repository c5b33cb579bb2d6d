"""The checkpoint file of a path, from which an interrupted path resumes; always whole."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vci_jax.written import replacing

_CHUNK = 4096


class Progress(NamedTuple):
    """The number of penalties solved, the state of the path, and results block by block."""

    done: int
    state: Any
    results: list[tuple[np.ndarray, ...]]


def key(arrays: Sequence[np.ndarray], settings: Sequence[Any]) -> str:
    """Returns a fingerprint of everything that a path depends on."""
    digest = hashlib.blake2b(repr([settings, [(a.shape, a.dtype.str) for a in arrays]]).encode())
    for array in arrays:
        for start in range(0, len(array), _CHUNK):
            digest.update(np.ascontiguousarray(array[start : start + _CHUNK]).data)
    return digest.hexdigest()


class Unusable(ValueError):
    """A checkpoint file of another path, a damaged one, or a file of another kind."""


# Errors of NumPy, zipfile and zlib for files that are empty, cut short, damaged, or of other kinds.
UNREADABLE = (
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


def load(path: str | os.PathLike[str], key: str, state: Any) -> Progress:
    """Returns the content of the file; no results and ``state`` if it does not exist.

    Raises:
      Unusable: it belongs to another path, or cannot be read.
    """
    if not os.path.exists(path):
        return Progress(0, state, [])
    try:
        with np.load(path) as opened:
            file = {name: opened[name] for name in opened.files}
        kept_key = str(file["key"])
    except UNREADABLE as error:
        raise Unusable(
            f"{path} keeps no path ({error}); name another file, or delete it."
        ) from error
    if kept_key != key:
        raise Unusable(
            f"{path} keeps a path of other features, labels, penalties or options; name another "
            "file, or delete it."
        )
    leaves, tree = jax.tree.flatten(state)
    leaves = [file[f"state{i}"] for i in range(len(leaves))]
    blocks, fields = file["blocks"]
    results = [tuple(file[f"result{i}_{j}"] for j in range(fields)) for i in range(int(blocks))]
    return Progress(int(file["done"]), jax.tree.unflatten(tree, leaves), results)


def save(path: str | os.PathLike[str], key: str, progress: Progress) -> None:
    """Replaces the file atomically."""
    results = progress.results
    arrays = {f"state{i}": leaf for i, leaf in enumerate(jax.tree.leaves(progress.state))}
    for i, fields in enumerate(results):
        arrays |= {f"result{i}_{j}": field for j, field in enumerate(fields)}
    with replacing(path, "wb") as file:
        np.savez(
            file, key=key, done=progress.done, blocks=(len(results), len(results[0])), **arrays
        )
