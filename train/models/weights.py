"""Public weights: torchvision's ResNets and the ViTs of DeiT and timm, as our variables.

    tensors, key = weights.read(Path("resnet50-0676ba61.pth"))
    model = models.build(ModelConfig(name="resnet50"), num_classes=1000)
    variables = weights.fill(tensors, model, (224, 224, 3), "resnet50")

Every tensor of the file is used and every variable of the model filled, or the file is refused with
the names of the others. Reading a file runs no code that is in it.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from train.config import ConfigError
from train.models.resnet import ResNet
from train.models.vit import ViT
from vci_jax import files
from vci_jax.arrays import as_native
from vci_jax.errors import VCIError

Tensors = dict[str, np.ndarray]


class StateDictError(ConfigError):
    """A file of weights that cannot be read, or must not be."""


# Keys of the weights in checkpoints; averaged weights come first.
_KEYS = ("model_ema", "state_dict_ema", "teacher", "state_dict", "model")


Names = dict[str, str | Callable[..., str]]

# Part of a path of ours -> torch's name; functions take the numbers in it.
_LEAVES: Names = {
    "kernel|scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_RESNET: Names = _LEAVES | {
    "stem_conv": "conv1",
    "stem_norm": "bn1",
    r"stage(\d+)_block(\d+)": lambda stage, block: f"layer{stage}.{block - 1}",
    r"Conv_(\d+)": lambda index: f"conv{index + 1}",
    r"BatchNorm_(\d+)": lambda index: f"bn{index + 1}",
    "shortcut_conv": "downsample.0",
    "shortcut_norm": "downsample.1",
    "head": "fc",
}
_VIT: Names = _LEAVES | {
    "class_token": "cls_token",
    "position": "pos_embed",
    "patches": "patch_embed.proj",
    r"block(\d+)": lambda index: f"blocks.{index - 1}",
    "(norm1|norm2|norm|head)": str,
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
}


class MisfitError(StateDictError):
    """The tensors do not fit the model; ``problems`` has a line for each that does not."""

    def __init__(self, title: str, problems: list[str]) -> None:
        self.problems = problems
        listing = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{title} does not fit the model:\n{listing}")


def read(path: Path) -> tuple[Tensors, str]:
    """Returns the tensors of a state dict by name, and the key under which it was, or "".

    If the file has several of the keys ``model_ema``, ``state_dict_ema``, ``teacher``,
    ``state_dict`` and ``model``, the first is taken. The prefix ``module.`` that data-parallel
    training adds to every name is removed.

    Raises:
      StateDictError: the file is damaged, of another format, holds no state dict, would run code,
        or needs a package that is missing; names the remedy.
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


def fill(
    tensors: Tensors, model: nn.Module, image_shape: tuple[int, ...], title: str
) -> dict[str, Any]:
    """Returns the variables of a model as float32, with the values of tensors by torch's names.

    The position embeddings of a ViT depend on ``image_shape``, ``(height, width, channels)``;
    ``title`` names the tensors in errors.

    Raises:
      MisfitError: some tensors are missing, unexpected or of another shape; lists them.
      ValueError: there are no public weights for this kind of model.
    """
    wanted, structure = _variables(model, image_shape)
    _refuse_misfits(wanted, tensors, title)
    values = [_to_ours(tensors[name], shape) for name, shape in wanted.items()]
    return jax.tree.unflatten(structure, values)


def shapes(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors of a model, by torch's names.

    Raises:
      ValueError: there are no public weights for this kind of model.
    """
    wanted, _ = _variables(model, image_shape)
    return {name: _torch_shape(shape, name) for name, shape in wanted.items()}


def _variables(
    model: nn.Module, image_shape: tuple[int, ...]
) -> tuple[dict[str, tuple[int, ...]], Any]:
    """Returns our shapes by torch's names, in the order of the leaves, and the tree structure."""
    names = {ResNet: _RESNET, ViT: _VIT}.get(type(model))
    if names is None:
        raise ValueError(f"there are no public weights for a {type(model).__name__}.")
    images = jnp.zeros((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    return {_translate(leaf_path, names): leaf.shape for leaf_path, leaf in leaves}, structure


def _translate(path: tuple[Any, ...], names: Names) -> str:
    """Returns torch's name of the variable at a path of ours, such as ``layer1.0.bn1.bias``."""
    return ".".join(_translate_part(part.key, names) for part in path[1:])


def _translate_part(part: str, names: Names) -> str:
    for pattern, name in names.items():
        if match := re.fullmatch(pattern, part):
            if isinstance(name, str):
                return name
            return name(*(int(g) if g.isdigit() else g for g in match.groups()))
    raise AssertionError(f"{part} has no counterpart in torch")


def _torch_shape(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Filters are [H W in out] here and [out in H W] in torch; matrices are transposed."""
    if name in ("cls_token", "pos_embed"):
        return (1,) * (3 - len(shape)) + shape
    return (*shape[:-3:-1], *shape[:-2])


def _to_ours(tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if tensor.ndim in (2, 4):
        tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
    return np.ascontiguousarray(tensor.reshape(shape), np.float32)


def _refuse_misfits(wanted: dict[str, tuple[int, ...]], tensors: Tensors, title: str) -> None:
    """Lists every name on one side alone, and every pair of different shapes."""
    # torch's BatchNorm counts its training steps, which nothing here depends on.
    names = {name for name in tensors if not name.endswith(".num_batches_tracked")}
    problems = [f"missing: {name}" for name in wanted if name not in names]
    problems += [f"unexpected: {name}" for name in sorted(names - wanted.keys())]
    for name, shape in wanted.items():
        expected = _torch_shape(shape, name)
        if name in names and tensors[name].shape != expected:
            problems.append(f"shape: {name} is {tensors[name].shape}, the model has {expected}")
    if problems:
        raise MisfitError(title, problems)
