"""PyTorch's files of weights, read without PyTorch and without running anything in them.

Three formats are read, told apart by their first bytes:

- zip: what ``torch.save`` has written since 1.6, a pickle and one raw entry a storage;
- legacy: what it wrote before, five pickles and the raw storages, still that of the ResNets which
  torchvision distributes;
- safetensors: a JSON header and raw bytes.

A pickle is a program, and ``pickle.load`` runs it. The unpickler here looks up no name: the few
that a state dict of tensors needs stand for inert records, made anew for every file, and any other
is refused. numpy then checks each record against the bytes that are really there.

Reference: github.com/pytorch/pytorch, torch/serialization.py; github.com/huggingface/safetensors,
"Format".
"""

import io
import json
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from train.config import ConfigError

Tensors = dict[str, np.ndarray]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = pickle.dumps(_LEGACY_MAGIC, protocol=2)

_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_SAFETENSORS_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class StateDictError(ConfigError):
    """A file of weights that cannot be read, or must not be."""


# Where a training keeps its weights; averaged ones first, as they are those to be tested.
_KEYS = ("model_ema", "state_dict_ema", "teacher", "state_dict", "model")


def read(path: Path) -> Tensors:
    """Returns the tensors of a state dict by name.

    A dictionary that holds the state dict under a key such as ``model`` beside other things is
    opened, and the prefix ``module.`` that data-parallel training leaves on every name is removed.

    Raises:
      StateDictError: the file cannot be read, is of another format, broken, holds no state dict, or
        asks for anything to be called; says what to do.
    """
    return read_keyed(path)[0]


def read_keyed(path: Path) -> tuple[Tensors, str]:
    """Returns what ``read`` does, and the keys under which it was, ``"teacher"``; "" for none.

    Of several, the averaged weights are taken: ``model_ema``, ``state_dict_ema``, ``teacher``, then
    ``state_dict`` and ``model``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StateDictError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return _unwrap(_decode(data, path), path)
    except StateDictError:
        raise
    except Exception as error:  # Whatever a broken file can make of the parsers.
        raise StateDictError(
            f"{path} is broken: {type(error).__name__}: {error}. Get it again, and compare its "
            "size or checksum."
        ) from error


def _decode(data: bytes, path: Path) -> Any:
    if data.startswith(b"PK"):
        return _decode_zip(data, path)
    if data.startswith(_LEGACY_START):
        return _decode_legacy(data, path)
    if data[8:9] == b"{":
        return _decode_safetensors(data)
    if tarfile.is_tarfile(io.BytesIO(data)):
        kind = "a tar archive, as torch wrote before version 0.4"
    else:
        kind = "neither a state dict saved by torch nor a safetensors file"
    raise StateDictError(
        f"{path} is {kind}. Load it with torch where you trust it, and save it again: "
        "torch.save(model.state_dict(), path)."
    )


class _Storage(NamedTuple):
    dtype: str
    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Turns every name in a pickle into an inert record, or refuses it."""

    def find_class(self, module: str, name: str) -> Any:
        """Stands in for an import."""
        if module == "torch" and name in _DTYPES:
            return name
        # New functions each time: a pickle can set attributes of what it is given.
        admitted: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: (
                _Tensor(storage, offset, size, stride)
            ),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module, name) in admitted:
            return admitted[module, name]
        raise StateDictError(
            f"the file asks for {module}.{name}, which a state dict of tensors does not need. It "
            "may hold more than weights, or mean harm. If you trust it, load it with torch and "
            "save its weights alone: torch.save(model.state_dict(), path)."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the record of a storage; legacy files add a view of it, which must be None."""
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or any(view):
            raise StateDictError(f"the file refers to {pid!r}, which is no plain storage.")
        return _Storage(dtype, key, size)


def _decode_zip(data: bytes, path: Path) -> Any:
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1 or any(info.compress_type for info in archive.infolist()):
        raise StateDictError(f"{path} is a zip file, but not one that torch.save has written.")
    (root,) = roots
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise StateDictError(f"{path} was written on a big-endian machine; save it on another.")
    tree = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl"))).load()
    storages: dict[str, bytes] = {}

    def fetch(storage: _Storage) -> bytes:
        if storage.key not in storages:
            storages[storage.key] = archive.read(f"{root}data/{storage.key}")
        return storages[storage.key]

    return _materialise(tree, fetch)


def _decode_legacy(data: bytes, path: Path) -> Any:
    stream = io.BytesIO(data)
    _, version, system, tree, keys = (_Unpickler(stream).load() for _ in range(5))
    if version != 1001 or not system["little_endian"]:
        raise StateDictError(f"{path} has version {version} of {system}; save it with a new torch.")
    dtypes = {storage.key: storage.dtype for storage in _storages(tree)}
    storages = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        storages[key] = stream.read(count * np.dtype(_DTYPES[dtypes[key]]).itemsize)
    return _materialise(tree, lambda storage: storages[storage.key])


def _storages(tree: Any) -> list[_Storage]:
    if isinstance(tree, _Tensor):
        return [tree.storage]
    if isinstance(tree, Mapping):
        return [storage for value in tree.values() for storage in _storages(value)]
    return []


def _materialise(tree: Any, fetch: Callable[[_Storage], bytes]) -> Any:
    """Replaces records by arrays over the bytes of their storages, which numpy holds them to."""
    if isinstance(tree, Mapping):
        return {key: _materialise(value, fetch) for key, value in tree.items()}
    if not isinstance(tree, _Tensor):
        return tree
    dtype = np.dtype(_DTYPES[tree.storage.dtype])
    strides = tuple(dtype.itemsize * stride for stride in tree.stride)
    buffer, offset = fetch(tree.storage), dtype.itemsize * tree.offset
    return np.ndarray(tree.size, dtype, buffer, offset, strides)


def _decode_safetensors(data: bytes) -> Tensors:
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = np.dtype(_SAFETENSORS_DTYPES[entry["dtype"]])
        flat = np.frombuffer(data[start + begin : start + end], dtype)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def _unwrap(tree: Any, path: Path) -> tuple[Tensors, str]:
    keys = []
    while isinstance(tree, Mapping):
        inside = [key for key in _KEYS if isinstance(tree.get(key), Mapping)]
        if not inside:
            break
        keys.append(inside[0])
        tree = tree[inside[0]]
    named = isinstance(tree, Mapping) and all(isinstance(key, str) for key in tree)
    if not named or not tree or not all(isinstance(v, np.ndarray) for v in tree.values()):
        held = sorted(map(str, tree))[:8] if isinstance(tree, Mapping) else type(tree).__name__
        raise StateDictError(
            f"{path} holds no state dict, alone or as one of {', '.join(_KEYS)}, but {held}."
        )
    if all(name.startswith("module.") for name in tree):
        tree = {name.removeprefix("module."): value for name, value in tree.items()}
    return dict(tree), ".".join(keys)
