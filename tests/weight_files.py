"""Files of weights as safetensors writes them, and stand-ins for those of torch."""

import json

import numpy as np
import pytest

from train import models
from train.config import ModelConfig
from train.models import public, weights
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


def small_networks():
    """Two more words, for networks that compile fast; whatever holds for them holds for all."""
    return public.NETWORKS | {
        "vit_nano": (public._VIT, "_vit_nano", 16, (2,)),
        "resnet6": (public._RESNET, "_resnet6", 128, (1, 1)),
    }


def drawn(word, classes=5, side=32, seed=0):
    """Random tensors by torch's names for a network of one of the words."""
    _, name, _, _ = public.NETWORKS[word]
    model = models.build(ModelConfig(name=name), classes)
    shapes = weights.shapes(model, (side, side, 3))
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, shape in shapes.items():
        scale = 1 / np.sqrt(max(np.prod(shape[1:]), 1)) if len(shape) > 1 else 0.1
        values = scale * rng.normal(size=shape)
        drawn[name] = np.float32(np.abs(values) + 0.5 if name.endswith("var") else values)
    return drawn
