"""Files that hold arrays under names, opened without running anything in them.

Each function opens one format and yields its arrays as ``Stored``, which are read on demand.
Decoding is done by NumPy and by the formats' own libraries, which are imported on demand.

Reference: ``numpy.lib.format`` for .npy; PyTorch, "torch.load with weights_only=True";
github.com/huggingface/safetensors; The HDF5 Group; zarr.dev.
"""

import contextlib
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vci_jax import progress
from vci_jax._pickled import STAND_INS
from vci_jax.errors import VCIError, optional


class Stored(NamedTuple):
    """An array that has not been read: functions that return its shape and its numbers."""

    shape: Callable[[], tuple[int, ...]]
    read: Callable[[], Any]


Arrays = dict[str, Stored]

_PIECE = 2**25  # Bytes that are read between two reports of progress.


@contextlib.contextmanager
def npz(path: Path) -> Iterator[Arrays]:
    """Opens a zip archive of .npy files, compressed or not."""
    with zipfile.ZipFile(path) as archive:
        yield {
            info.filename.removesuffix(".npy"): _entry(archive, info)
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Stored:
    def header() -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Returns shape, type, and the number of bytes that follow."""
        with archive.open(info) as stream:
            return *_header(stream), info.file_size - stream.tell()

    def read() -> np.ndarray:
        shape, dtype, size = header()
        _check_dtype(info.filename, dtype)
        # NumPy allocates what the header promises before it reads a byte.
        if size != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{info.filename} has {size:,} bytes for {dtype} {list(shape)}")
        with archive.open(info) as stream:
            counted: Any = _Counted(stream, info.file_size)
            return np.lib.format.read_array(counted, allow_pickle=False)

    return Stored(lambda: header()[0], read)


class _Counted:
    """A stream that reports how much of it has been read."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size, self._done = stream, size, 0

    def read(self, size: int = -1) -> bytes:
        """Reads bytes."""
        data = self._stream.read(size)
        self._done += len(data)
        progress.advance("reading", self._done, self._size)
        return data


@contextlib.contextmanager
def npy(path: Path) -> Iterator[Arrays]:
    """Maps a .npy file, whose array has the empty name."""

    def header() -> tuple[tuple[int, ...], np.dtype[Any]]:
        with path.open("rb") as stream:
            return _header(stream)

    def read() -> np.ndarray:
        _check_dtype(path.name, header()[1])
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped

    yield {"": Stored(lambda: header()[0], read)}


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Arrays]:
    """Maps the .npy files of a folder, each under its name."""
    with contextlib.ExitStack() as stack:
        files = {file.stem: stack.enter_context(npy(file)) for file in sorted(path.glob("*.npy"))}
        yield {name: arrays[""] for name, arrays in files.items()}


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"its .npy has version {version}, that of records with names")
    return shape, dtype


def _check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise VCIError(
            f"{name} holds Python objects, which only a pickle could restore, and a pickle can run "
            "any code. Save numbers or text, e.g. array.astype(str)."
        )


@contextlib.contextmanager
def torch(path: Path) -> Iterator[Arrays]:
    """Opens a file of ``torch.save``: tensors, and lists of numbers or text, at any depth.

    Names are joined by dots; the elements of a list are numbered; a tensor alone has the empty one.
    """
    arrays: Arrays = {}
    waiting = [("", load_torch(path))]
    seen: set[int] = set()  # A few bytes can hold themselves, or double forty times.
    while waiting:
        name, value = waiting.pop()
        if _is_array(value):
            arrays[name] = Stored(partial(_shape, value), partial(_same, value))
        elif isinstance(value, list | tuple) and value and all(map(_is_single, value)):
            arrays[name] = _listed(value)
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            inside = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(f"{name}.{key}".lstrip("."), part) for key, part in inside]
    yield arrays


def load_torch(path: Path) -> Any:
    """Returns what ``torch.save`` wrote; tensors of a zip archive stay on disk until they are used.

    Arrays of NumPy are read from PyTorch 2.6 on.

    Raises:
      MissingPackageError: without PyTorch.
      VCIError: for a file that holds more than tensors, arrays of NumPy, numbers, text, lists and
        dictionaries.
    """
    library = optional("torch", f"Reading {path}")
    zipped = zipfile.is_zipfile(path)
    named = tuple(int(part) for part in library.__version__.split(".")[:2]) >= (2, 6)
    try:
        with library.serialization.safe_globals(STAND_INS) if named else contextlib.nullcontext():
            return library.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError:
        globals_: list[str] = []
        with contextlib.suppress(Exception):
            globals_ = sorted(library.serialization.get_unsafe_globals_in_checkpoint(str(path)))
        more = f" It asks for {', '.join(globals_[:3])}." if globals_ else ""
        raise VCIError(
            f"{path} is damaged, or holds more than tensors, arrays, numbers and text, which could "
            f"run any code; nothing in it was run.{more} If you trust it, load it with torch and "
            "save its tensors alone."
        ) from None


def _is_array(value: Any) -> bool:
    """Whether a value is a tensor of PyTorch or an array of NumPy."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _same(value: Any) -> Any:
    return value


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape)


def _listed(values: Sequence[Any]) -> Stored:
    array = np.array([value.item() if _is_array(value) else value for value in values])
    return Stored(partial(_shape, array), partial(_same, array))


def _is_single(value: Any) -> bool:
    """Whether a value is a single number or text, also as an array."""
    return isinstance(value, str | int | float) or (_is_array(value) and not _shape(value))


@contextlib.contextmanager
def safetensors(path: Path) -> Iterator[Arrays]:
    """Opens a safetensors file, whose library checks every offset."""
    library = optional("safetensors", f"Reading {path}")
    with library.safe_open(str(path), framework="numpy") as file:

        def shape(name: str) -> tuple[int, ...]:
            return tuple(file.get_slice(name).get_shape())

        yield {
            name: Stored(partial(shape, name), partial(file.get_tensor, name))
            for name in file.keys()  # noqa: SIM118
        }


@contextlib.contextmanager
def h5(path: Path) -> Iterator[Arrays]:
    """Opens an HDF5 file; names are paths of its data sets, ``"train/features"``."""
    library = optional("h5py", f"Reading {path}")
    with library.File(path, "r") as file:
        sets: dict[str, Any] = {}
        file.visititems(
            lambda name, item: sets.update(
                {name: item} if getattr(item, "shape", None) is not None else {}
            )
        )

        def reader(name: str, item: Any) -> Callable[[], Any]:
            """Returns the function that reads a data set, text as strings."""
            if library.check_string_dtype(item.dtype):
                return lambda: np.asarray(item.asstr()[()], str)

            def read() -> Any:
                _check_dtype(name, item.dtype)
                return _by_rows(item, (item.chunks or (1,))[0])

            return read

        yield {
            name: Stored(partial(_shape, item), reader(name, item)) for name, item in sets.items()
        }


def _by_rows(stored: Any, chunk: int) -> np.ndarray:
    """Reads a data set of HDF5 or Zarr in pieces of whole chunks, and reports progress."""
    size = math.prod(stored.shape) * stored.dtype.itemsize
    if size <= _PIECE or stored.dtype.kind not in "biuf":
        return np.asarray(stored[...])
    rows: int = stored.shape[0]
    step = chunk * max(1, _PIECE * rows // (size * chunk))
    array = np.empty(stored.shape, stored.dtype)
    for low in range(0, rows, step):
        array[low : low + step] = stored[low : low + step]
        progress.advance("reading", min(low + step, rows), rows)
    return array


@contextlib.contextmanager
def zarr(path: Path) -> Iterator[Arrays]:
    """Opens a folder of Zarr, format 2 or 3; names are paths of its arrays."""
    library = optional("zarr", f"Reading {path}")
    opened = library.open(str(path), mode="r")
    members = [("", opened)] if _is_array(opened) else opened.members(max_depth=None)

    def reader(array: Any) -> Callable[[], Any]:
        """Returns the function that reads an array, unless its codec can run code."""

        def read() -> Any:
            if "pickle" in str(array.metadata.to_dict()):
                raise VCIError(
                    f"{path} was written with the codec pickle, which can run any code: write it "
                    "with another."
                )
            return _by_rows(array, (array.shards or array.chunks or (1,))[0])

        return read

    yield {
        name: Stored(partial(_shape, item), reader(item))
        for name, item in members
        if _is_array(item)
    }
