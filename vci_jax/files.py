"""Features and labels in files of any format: the one reader of the library and the probes.

    features, labels = vci_jax.read_features("features.npz")
    vci_jax.vci(features, labels)

A format is told by the first bytes of a file, then by its name. Nothing in a file is run: pickles
are refused, and what PyTorch wrote is read with ``weights_only=True``.

Legend: N samples, K classes, D feature dimension.
"""

import contextlib
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vci_jax import _columns, _formats
from vci_jax._formats import Arrays
from vci_jax.arrays import as_native
from vci_jax.errors import VCIError

# Optional arrays of a file, those of its classifier.
CLASSIFIER = ("head_kernel", "head_bias", "logits")
KINDS = ".npz, .npy, .pt, .safetensors, .csv, .parquet, .h5, or a folder of .npy files or of Zarr"

_ARRAYS = {
    "npz": _formats.npz,
    "npy": _formats.npy,
    "folder": _formats.folder,
    "torch": _formats.torch,
    "safetensors": _formats.safetensors,
    "h5": _formats.h5,
    "zarr": _formats.zarr,
}
_TABLES = {"csv": _columns.csv, "parquet": _columns.parquet}
_MAGIC = {
    b"\x93NUMPY": "npy",
    b"\x89HDF\r\n": "h5",
    b"PAR1": "parquet",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "torch",  # As it was before 1.6.
    b"\x80": "pickle",
    b"version https://git-lfs": "lfs",
    b"\x1f\x8b": "gzip",
}
_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), "torch"),
    **dict.fromkeys((".h5", ".hdf5"), "h5"),
    **dict.fromkeys((".pkl", ".pickle"), "pickle"),
    ".npz": "npz",
    ".npy": "npy",
    ".safetensors": "safetensors",
    ".parquet": "parquet",
}
_REFUSED = {
    "pickle": "is a pickle, which can run any code. Load it where you trust it, and save it with "
    "numpy.savez(path, features=..., labels=...)",
    "lfs": "is a pointer of Git LFS in place of the file: run git lfs pull",
    "gzip": "is compressed with gzip: unpack it first, e.g. with gunzip",
    "empty": "is empty: write it again",
    "": f"is of no format that can be read, which are {KINDS}",
}
_MAX_LISTED = 8


def read_features(
    path: str | os.PathLike[str], *, features: str | None = None, labels: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reads features and labels from a file, without running anything in it.

    Args:
      path: a file of NumPy (.npz; X_features.npy with X_labels.npy beside it; a folder with
        features.npy and labels.npy), PyTorch (.pt, .pth), safetensors, CSV, Parquet, HDF5 or Zarr.
        The library of the format must be installed; CSV and NumPy's need none.
      features: the name of the array; of a table, a name or a pattern of columns, such as ``"f*"``.
        None takes ``"features"`` or another usual name, if only one array can be meant.
      labels: the name of the array or column, likewise.

    Returns:
      features [N, D] and labels [N] as they are stored, in native byte order; those of .npy files
      are memory maps. ``vci`` and ``measure_arrays`` check what they hold.

    Raises:
      VCIError: for a file that is not there, damaged or of another format, arrays that are not in
        it, or if several can be meant; says what the file holds.
      MissingPackageError: if the format needs a package that is not installed.

    Example:
      >>> import tempfile, numpy as np, vci_jax
      >>> path = tempfile.mkdtemp() + "/mine.npz"
      >>> np.savez(path, embeddings=np.eye(4)[[0, 0, 1, 1, 2, 2]], y=[5, 5, 7, 7, 9, 9])
      >>> features, labels = vci_jax.read_features(path)
      >>> features.shape, labels.tolist()
      ((6, 4), [5, 5, 7, 7, 9, 9])
    """
    arrays = read_arrays(path, features, labels)
    return arrays["features"], arrays["labels"]


def read_arrays(
    path: str | os.PathLike[str], features: str | None = None, labels: str | None = None
) -> dict[str, np.ndarray]:
    """Reads ``features``, ``labels`` and arrays of ``CLASSIFIER``, as ``read_features`` does."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        got = repr(path) if isinstance(path, str) else type(path).__name__
        raise VCIError(f"path must be the name of a file, got {got}.")
    for name, key in (("features", features), ("labels", labels)):
        if key is not None and not isinstance(key, str):
            raise VCIError(f"{name}= must be a name or a pattern of names, got {key!r}.")
    path = Path(path)
    kind = _kind(path)
    with explained(path, kind):
        if kind in _TABLES:
            rows, classes = _TABLES[kind](path, features, labels)
            arrays = {"features": rows, "labels": classes}
        else:
            with _ARRAYS[kind](path) as stored:
                arrays = _named(path, kind, stored, features, labels)
        return {name: as_native(name, array) for name, array in arrays.items()}


def read_tree(path: str | os.PathLike[str]) -> Any:
    """Returns the nested content of a file of PyTorch or safetensors.

    The leaves are tensors of PyTorch or arrays of NumPy. The tree may hold itself.

    Raises:
      VCIError: for a file that is not there, damaged, of another format, or that asks for code.
      MissingPackageError: if the format needs a package that is not installed.
    """
    path = Path(path)
    kind = _kind(path)
    with explained(path, kind):
        if kind == "torch":
            return _formats.load_torch(path)
        if kind != "safetensors":
            raise VCIError(
                f"{path} is neither a file of torch.save nor of safetensors: write it with "
                "torch.save(model.state_dict(), path)."
            )
        with _formats.safetensors(path) as stored:
            return {name: array.read() for name, array in stored.items()}


def _kind(path: Path) -> str:
    """Returns the format of a file, a key of ``_ARRAYS`` or ``_TABLES``; refuses others."""
    with explained(path, "readable"):
        if path.is_dir():
            marks = ("zarr.json", ".zarray", ".zgroup")
            return "zarr" if any((path / mark).exists() for mark in marks) else "folder"
        with path.open("rb") as file:
            start = file.read(32)
        kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "")
        if start.startswith(b"PK") and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickled = any(name.endswith("/data.pkl") for name in archive.namelist())
            kind = "torch" if pickled else "npz"
        elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
            kind = "safetensors"
        kind = kind or _SUFFIXES.get(path.suffix.lower(), "")
    kind = kind if start else "empty"
    if kind in _REFUSED:
        raise VCIError(f"{path} {_REFUSED[kind]}.")
    return kind


@contextlib.contextmanager
def explained(path: Path, kind: str) -> Iterator[None]:
    """Turns any exception in the block, as for a damaged file, into VCIError with one sentence."""
    try:
        yield
    except VCIError as error:
        message = str(error)
        raise type(error)(message if str(path) in message else f"{path}: {message}") from None
    except FileNotFoundError:
        raise VCIError(f"{path}: no such file.") from None
    except MemoryError:
        raise VCIError(f"{path} does not fit into memory: store fewer rows, or float32.") from None
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise VCIError(f"{path} cannot be read: {error.strerror}.") from None
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise VCIError(
            f"{path} is not a readable {kind} file: {first.partition('. ')[0][:200].rstrip('.')}. "
            "It is damaged or was cut short: write it again, or copy it anew."
        ) from None


def _named(
    path: Path, kind: str, stored: Arrays, features: str | None, labels: str | None
) -> dict[str, Any]:
    """Returns features, labels and the arrays of the classifier by these names."""
    if list(stored) == [""]:  # One array without a name.
        beside = _labels_beside(path, labels)
        with _ARRAYS[_kind(beside)](beside) as others:
            if list(others) != [""]:
                raise VCIError(f"{path} has one array, {beside} has {_listed(others)}.")
            return {"features": stored[""].read(), "labels": others[""].read()}
    first = _name(path, stored, "features", features, _columns.FEATURES, labels)
    second = _name(path, stored, "labels", labels, _columns.LABELS, first)
    arrays = {"features": stored[first].read(), "labels": stored[second].read()}
    # The folders of ``python -m probes features`` have the logits of other classes.
    own = () if kind == "folder" else CLASSIFIER
    return arrays | {name: stored[name].read() for name in own if name in stored}


def _name(
    path: Path,
    stored: Arrays,
    what: str,
    given: str | None,
    usual: tuple[str, ...],
    other: str | None,
) -> str:
    """Returns the name of the features or the labels among the arrays of a file."""
    if given is not None:
        if given.strip("/") in stored:
            return given.strip("/")
        raise VCIError(f"{path} has no array {given!r} for --{what}; it holds {_listed(stored)}.")
    if what in stored:
        return what
    names = [name for name in stored if re.split(r"[./]", name)[-1].lower() in usual]
    if not names:  # Those of no usual name, by the number of dimensions.
        size = 2 if what == "features" else 1
        names = [n for n, a in stored.items() if len(a.shape()) == size and n not in CLASSIFIER]
        names = [name for name in names if name != other]
    if len(names) == 1:
        return names[0]
    reason = f"has several arrays that may be the {what}" if names else f"has no array {what!r}"
    if len(names) > 1 and f"{what}.0" in names:
        raise VCIError(f"{path} has {what} in a list of arrays: join them before, with torch.cat.")
    raise VCIError(
        f"{path} {reason}; it holds {_listed(stored)}. Name one with --{what} KEY ({what}= in "
        "Python)."
    )


def _listed(stored: Arrays) -> str:
    parts = [f"{name} {list(array.shape())}" for name, array in stored.items()]
    more = f" and {len(parts) - _MAX_LISTED} more" if len(parts) > _MAX_LISTED else ""
    return (", ".join(parts[:_MAX_LISTED]) or "no arrays") + more


def _labels_beside(path: Path, labels: str | None) -> Path:
    """Returns the file of the labels that belongs to a file of features."""
    names = (
        [labels.removesuffix(path.suffix)]
        if labels
        else [
            re.sub(rf"(?<![a-z]){word}(?![a-z])", label, path.stem, flags=re.IGNORECASE)
            for word in _columns.FEATURES
            for label in _columns.LABELS
        ]
    )
    files = [path.with_name(name + path.suffix) for name in names if name != path.stem]
    if existing := [file for file in files if file.exists()]:
        return existing[0]
    raise VCIError(
        f"{path} has one array without a name, and no labels beside it: call the pair "
        f"X_features{path.suffix} and X_labels{path.suffix}, or name the file of labels in that "
        "folder with --labels."
    )
