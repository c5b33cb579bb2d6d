"""PyTorch's files of weights, read by the formats' own libraries without running what is in them.

A file of safetensors, or of ``torch.save``, which ``torch.load`` reads with ``weights_only=True``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from train.config import ConfigError
from vci_jax import files
from vci_jax.arrays import as_native
from vci_jax.errors import VCIError

Tensors = dict[str, np.ndarray]


class StateDictError(ConfigError):
    """A file of weights that cannot be read, or must not be."""


# Where a training keeps its weights; averaged ones first, as they are those to be tested.
_KEYS = ("model_ema", "state_dict_ema", "teacher", "state_dict", "model")


def read(path: Path) -> Tensors:
    """Returns the tensors of a state dict by name.

    A dictionary that holds the state dict under a key such as ``model`` beside other things is
    opened, and the prefix ``module.`` that data-parallel training leaves on every name is removed.

    Raises:
      StateDictError: the file cannot be read, is of another format, broken, holds no state dict,
        asks for anything to be called, or needs a package that is missing; says what to do.
    """
    return read_keyed(path)[0]


def read_keyed(path: Path) -> tuple[Tensors, str]:
    """Returns what ``read`` does, and the keys under which it was, ``"teacher"``; "" for none.

    Of several, the averaged weights are taken: ``model_ema``, ``state_dict_ema``, ``teacher``, then
    ``state_dict`` and ``model``.
    """
    try:
        return _unwrap(files.read_tree(path), path)
    except VCIError as error:
        raise StateDictError(str(error)) from error


def _unwrap(tree: Any, path: Path) -> tuple[Tensors, str]:
    keys: list[str] = []
    while isinstance(tree, Mapping) and len(keys) < len(_KEYS):  # It may hold itself.
        inside = [key for key in _KEYS if isinstance(tree.get(key), Mapping)]
        if not inside:
            break
        keys.append(inside[0])
        tree = tree[inside[0]]
    named = isinstance(tree, Mapping) and all(isinstance(key, str) for key in tree)
    if not named or not tree or not all(hasattr(v, "shape") for v in tree.values()):
        held = sorted(map(str, tree))[:8] if isinstance(tree, Mapping) else type(tree).__name__
        raise StateDictError(
            f"{path} holds no state dict, alone or as one of {', '.join(_KEYS)}, but {held}."
        )
    if all(name.startswith("module.") for name in tree):
        tree = {name.removeprefix("module."): value for name, value in tree.items()}
    return {name: as_native(name, value) for name, value in tree.items()}, ".".join(keys)
