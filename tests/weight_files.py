"""Files of weights as safetensors writes them, and stand-ins for those of torch."""

import json

import pytest

from vci_jax.files import read_tree as read_file

TREES = {}

_SAFETENSORS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_SAFETENSORS |= {"int64": "I64", "int32": "I32"}


def write_safetensors(path, tensors):
    """As the format's page has it: length, JSON, bytes."""
    pytest.importorskip("safetensors", reason="reads the files that are written here")
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, value in tensors.items():
        span = [len(body), len(body) + value.nbytes]
        kind = _SAFETENSORS[value.dtype.name]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": span}
        body += value.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def write_pth(path, tree):
    """A file that ``read_tree`` takes for one of ``torch.save``, which needs no torch here."""
    path.touch()
    TREES[path] = tree
    return path


def read_tree(path):
    """What ``vci_jax.files.read_tree`` finds; vci_jax/test_files.py has torch read its own."""
    return TREES[path] if path in TREES else read_file(path)
