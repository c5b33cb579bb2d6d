"""Features on disk: computed once, shard by shard, then memory-mapped.

A directory holds the features of one network for one split, and is named by the digest of
everything that they depend on, so that nothing stale is ever reused:

    <digest>/features.npy    float32 [N D]
             labels.npy      int32 [N], labels of the source; -1 if the image could not be read
             logits.npy      float32 [N K], logits of pretraining, if requested
             progress.json   finished shards, until the directory is complete
             meta.json       dependencies and shards, once it is complete

The digest of each shard is compared before its rows are used again. A killed process loses one
shard. ``extract`` computes rows from images by any function; ``keep`` stores them. ``read_saved``
reads features that other programs saved.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from probes.encoders import identity
from train import data
from train import mesh as meshes
from train.config import ConfigError, DataConfig
from train.data.arrays import Arrays
from train.data.sources import Records
from train.workdir import owned
from vci_jax.errors import VCIError
from vci_jax.files import KINDS
from vci_jax.probe import saved
from vci_jax.probe.selection import Samples
from vci_jax.written import write_json

# Version of the files; other versions are never reused.
_FORMAT = 2
_ABSENT = -1
_ALL = data.Share(0, 1)  # All rows of a batch: processes share ranges of rows, not batches.
# Splits of features that other programs saved, and the endings of their files.
_SPLITS = (("train", "train"), ("test", "test"), ("validation", "validation"))
_FORMS = (".npz", ".safetensors", "_features.npy", ".pt", ".h5", ".parquet", ".csv", "")

Compute = Callable[[range], tuple[np.ndarray, ...]]
"""Returns the features ``[n D]`` and labels ``[n]`` of a range of rows, and perhaps logits
``[n K]``; the label of a missing row is -1.
"""

_Array = jax.Array | np.ndarray
_Results = _Array | tuple[_Array, _Array | None]

_NAMES = ("features", "labels", "logits")

_Shards = list[tuple[int, str]]
"""The end of each shard, and the digest of its rows."""


class Features(NamedTuple):
    """Features ``[N D]``, labels ``[N]`` and perhaps logits, mapped from files in ``directory``."""

    features: np.ndarray
    labels: np.ndarray
    logits: np.ndarray | None
    directory: Path

    @property
    def unreadable(self) -> int:
        """The number of rows of unreadable images, which are zeros."""
        return int(np.sum(self.labels == _ABSENT))


def extract(
    feature_fn: Callable[[jax.Array], _Results],
    split: data.Split,
    config: DataConfig,
    *,
    mesh: Any,
    batch_size: int,
) -> Compute:
    """Returns the function that computes a range of rows of a split.

    Args:
      feature_fn: maps images ``uint8 [B H W C]``, divided among the devices, to features
        ``[B D]``, or to these and logits ``[B K]``; B is always the same, padding included.
      split: the images.
      config: their transform.
      mesh: the devices, all of this process.
      batch_size: images per call; raised to a multiple of the devices.
    """
    size = meshes.round_up(batch_size, mesh)

    def compute(rows: range) -> tuple[np.ndarray, ...]:
        """Computes one range of rows; see ``Compute``."""
        part = dataclasses.replace(split, records=_subset(split.records, rows))
        batches, labels = [], []
        running: _Results | None = None
        for batch in data.evaluation_batches(part, config, size, size, _ALL):
            labels.append(np.where(batch["mask"] > 0, batch["label"], _ABSENT))
            images = meshes.put_batch({"image": batch["image"]}, mesh)["image"]
            # The devices compute this batch while the host fetches the results of the one before.
            previous, running = running, feature_fn(images)
            if previous is not None:
                batches.append(_on_host(previous))
        batches.append(_on_host(running))
        columns = [np.concatenate(arrays)[: len(rows)] for arrays in zip(*batches, strict=True)]
        numbers = np.concatenate(labels)[: len(rows)]
        for column in columns:
            column[numbers == _ABSENT] = 0
        return columns[0], numbers, *columns[1:]

    return compute


def keep(
    root: Path,
    depends_on: Mapping[str, Any],
    size: int,
    compute: Compute,
    *,
    shard_rows: int,
    say: Callable[[str], None] = lambda message: None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Features:
    """Returns N rows from disk, or from ``compute`` where they are missing.

    Args:
      root: parent of the directory.
      depends_on: everything that the rows depend on, for JSON.
      size: N.
      compute: computes a range of rows.
      shard_rows: rows of a shard.
      say: receives messages about damaged files, which are replaced.
      progress: receives the number of rows on disk.

    Raises:
      ConfigError: ``compute`` fails.
      LockedError: another process is filling the directory.
      OSError: the disk is full or not writable.
    """
    depends_on = json.loads(json.dumps({"format": _FORMAT, "size": size, **depends_on}))
    directory = root / identity.digest_json(depends_on)
    directory.mkdir(parents=True, exist_ok=True)
    with owned(directory, "computing the features in"):
        if (directory / "meta.json").exists():
            try:
                return _verified(directory, depends_on, size)
            except (ValueError, TypeError, OSError) as error:
                say(f"{directory} is damaged ({error}): its features are computed again.")
                (directory / "meta.json").unlink()
                (directory / "progress.json").unlink(missing_ok=True)
        shards = _fill(directory, size, compute, shard_rows, progress)
        content = {"depends_on": depends_on, "shards": shards}
        write_json(directory / "meta.json", content)
        (directory / "progress.json").unlink()
        return _verified(directory, depends_on, size)


def _on_host(results: Any) -> list[np.ndarray]:
    arrays = results if isinstance(results, tuple) else (results,)
    return [np.asarray(array, np.float32) for array in arrays if array is not None]


def _subset(records: Records, rows: range) -> Records:
    if isinstance(records, Arrays):  # evaluation_batches starts no process for them.
        part = slice(rows.start, rows.stop)
        return Arrays(records.images[part], records.labels[part], records.title)
    return data.Subset(records, rows)


def _fill(
    directory: Path, size: int, compute: Compute, shard_rows: int, progress: Callable[[int], None]
) -> _Shards:
    """Computes the missing rows; each shard is on disk before the next one begins."""
    shards = _resumable(directory, size)
    start = shards[-1][0] if shards else 0
    progress(start)
    while start < size:
        rows = range(start, min(start + shard_rows, size))
        arrays = [
            array.astype(np.int32 if name == "labels" else np.float32, copy=False)
            for name, array in zip(_NAMES, compute(rows), strict=False)
        ]
        for name, array in zip(_NAMES, arrays, strict=False):
            _write_rows(directory / f"{name}.npy", size, rows, array)
        shards.append((rows.stop, _digest(arrays)))
        start = rows.stop
        write_json(directory / "progress.json", {"shards": shards})
        progress(start)
    return shards


def _write_rows(path: Path, size: int, rows: range, values: np.ndarray) -> None:
    """Writes rows of an array that has its full length from the start (sparse, on most disks)."""
    if not rows.start:
        path.unlink(missing_ok=True)  # Never writes through a link.
    mode: Literal["r+", "w+"] = "r+" if rows.start else "w+"
    shape = (size, *values.shape[1:])
    mapped = np.lib.format.open_memmap(path, mode=mode, dtype=values.dtype, shape=shape)
    mapped[rows.start : rows.stop] = values
    mapped.flush()


def _digest(arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _resumable(directory: Path, size: int) -> _Shards:
    """Returns the shards of a killed process; none if the files do not fit."""
    try:
        shards = json.loads((directory / "progress.json").read_text())["shards"]
        return _intact(_mapped(directory, size), shards)
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _verified(directory: Path, depends_on: Mapping[str, Any], size: int) -> Features:
    """Returns the content of a complete directory, or raises ValueError or OSError."""
    meta = json.loads((directory / "meta.json").read_text())
    if not isinstance(meta, dict) or meta.get("depends_on") != depends_on:
        raise ValueError("meta.json is that of other features")
    arrays, recorded = _mapped(directory, size), meta.get("shards") or []
    shards = _intact(arrays, recorded)
    if len(shards) < len(recorded) or (shards[-1][0] if shards else 0) < size:
        raise ValueError("its rows are not those that were written")
    return Features(arrays[0], arrays[1], arrays[2] if arrays[2:] else None, directory)


def _intact(arrays: Sequence[np.ndarray], recorded: _Shards) -> _Shards:
    """Returns the shards before the first one whose digest does not match."""
    shards: _Shards = []
    start = 0
    for stop, digest in recorded:
        if _digest([array[start:stop] for array in arrays]) != digest:
            break
        shards.append((stop, digest))
        start = stop
    return shards


def _mapped(directory: Path, size: int) -> list[np.ndarray]:
    paths = [directory / f"{name}.npy" for name in _NAMES]
    arrays = [np.load(path, mmap_mode="r") for path in paths if path.exists()]
    dtypes = [np.float32, np.int32, np.float32]
    if len(arrays) < 2 or any(path.is_symlink() for path in paths):
        raise ValueError("its files are missing, or are links")
    if any(a.shape[:1] != (size,) or a.dtype != d for a, d in zip(arrays, dtypes, strict=False)):
        raise ValueError("its files have another form than when they were written")
    return arrays


def read_saved(path: Path) -> Samples:
    """Returns the features and labels of a file, of a pair of files, or of a folder.

    Rows with the label -1 (an unreadable image) or -100 (``ignore_index`` of PyTorch) are left out,
    and their number is written to stderr.

    Raises:
      ConfigError: the file cannot be read, its arrays do not match, or other labels are negative.
    """
    try:
        samples, dropped = saved.read(path)
    except VCIError as error:
        raise ConfigError(str(error)) from error
    if dropped:
        print(
            f"{path}: {dropped:,} of {dropped + len(samples.labels):,} rows have the label -1 or "
            "-100, which means none, and are left out.",
            file=sys.stderr,
        )
    return samples


def saved_splits(path: Path) -> dict[str, Path]:
    """Returns the files of ``train``, ``test`` and perhaps ``validation``, or of ``all`` in one.

    A directory has the splits as ``train.npz`` and ``test.npz``, or in another form of
    ``read_saved``; the validation split replaces a missing test split.

    Raises:
      ConfigError: a directory holds neither splits nor a file of features.
    """
    if not path.is_dir() or (path / "features.npy").exists():
        return {"all": path}
    files: dict[str, Path] = {}
    for split, name in (*_SPLITS, ("validation", "val")):
        candidates = [path / f"{name}{form}" for form in _FORMS]
        if existing := [file for file in candidates if file.exists()]:
            files.setdefault(split, existing[0])
    if "test" not in files and "validation" in files:
        files["test"] = files.pop("validation")
    if not {"train", "test"} <= files.keys():
        raise ConfigError(
            f"{path} has no features of train and test; call them train.npz and test.npz, or put "
            f"all in one file. Features are {KINDS}."
        )
    return files
