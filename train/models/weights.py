"""Public weights: torchvision's ResNets and the ViTs of DeiT and timm, as our variables.

    model = models.build(ModelConfig(name="resnet50"), num_classes=1000)
    variables = weights.load(Path("resnet50-0676ba61.pth"), model, (224, 224, 3))
    logits, features = model.apply(variables, images, train=False)

Images are RGB, normalised with ImageNet's mean and deviation. Every tensor of the file is used and
every variable of the model filled, or the file is refused with the names of those that are not.
Files are read by the formats' own libraries, which run nothing that is in them: safetensors, or
``torch.load`` with ``weights_only=True``.
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


# Where a training keeps its weights; averaged ones first, as they are those to be tested.
_KEYS = ("model_ema", "state_dict_ema", "teacher", "state_dict", "model")


Names = dict[str, str | Callable[..., str]]

# What a part of one of our paths is called there; functions take the numbers in it.
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
    """Tensors that are not those of the model; ``problems`` has a line for each."""

    def __init__(self, title: str, problems: list[str]) -> None:
        """Takes what the tensors are of, and what is wrong with each."""
        self.problems = problems
        listing = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{title} does not fit the model:\n{listing}")


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


def load(path: Path, model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Returns the variables of a model as float32, with the values of a file.

    Args:
      path: a state dict, in a format that ``read`` knows.
      model: of the same architecture and number of classes.
      image_shape: ``(height, width, channels)`` that the weights were trained for; a ViT's
        position embedding is made for one.

    Raises:
      StateDictError: the file cannot be read, or does not fit the model; lists every tensor that
        is missing, unexpected or of another shape.
      ValueError: there are no public weights for this kind of model.
    """
    wanted, structure = _variables(model, image_shape)
    return _fill(read(path), wanted, structure, str(path))


def fill(
    tensors: Tensors, model: nn.Module, image_shape: tuple[int, ...], title: str
) -> dict[str, Any]:
    """Returns the variables of a model with the values of tensors by torch's names.

    Args:
      tensors: all of the model's, and no others.
      model: as for ``load``.
      image_shape: as for ``load``.
      title: what to call the tensors in an error.

    Raises:
      MisfitError: some tensors are missing, unexpected or of another shape.
      ValueError: there are no public weights for this kind of model.
    """
    return _fill(tensors, *_variables(model, image_shape), title)


def shapes(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors of a model, by torch's names.

    Raises:
      ValueError: there are no public weights for this kind of model.
    """
    wanted, _ = _variables(model, image_shape)
    return {name: _their_shape(shape, name) for name, shape in wanted.items()}


def _variables(
    model: nn.Module, image_shape: tuple[int, ...]
) -> tuple[dict[str, tuple[int, ...]], Any]:
    """Returns our shapes by torch's names, in the order of the leaves, and the tree of these."""
    names = {ResNet: _RESNET, ViT: _VIT}.get(type(model))
    if names is None:
        raise ValueError(f"there are no public weights for a {type(model).__name__}.")
    images = jnp.zeros((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    return {_translate(leaf_path, names): leaf.shape for leaf_path, leaf in leaves}, structure


def _fill(
    tensors: Tensors, wanted: dict[str, tuple[int, ...]], structure: Any, title: str
) -> dict[str, Any]:
    _refuse_misfits(wanted, tensors, title)
    values = [_to_ours(tensors[name], shape) for name, shape in wanted.items()]
    return jax.tree.unflatten(structure, values)


def _translate(path: tuple[Any, ...], names: Names) -> str:
    """Returns what torch calls the variable at a path of ours, such as ``layer1.0.bn1.bias``."""
    return ".".join(_translate_part(part.key, names) for part in path[1:])


def _translate_part(part: str, names: Names) -> str:
    for pattern, theirs in names.items():
        if match := re.fullmatch(pattern, part):
            if isinstance(theirs, str):
                return theirs
            return theirs(*(int(g) if g.isdigit() else g for g in match.groups()))
    raise AssertionError(f"{part} has no counterpart in torch")


def _their_shape(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Filters are [H W in out] here and [out in H W] there; matrices are transposed."""
    if name in ("cls_token", "pos_embed"):
        return (1,) * (3 - len(shape)) + shape
    return (*shape[:-3:-1], *shape[:-2])


def _to_ours(tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if tensor.ndim in (2, 4):
        tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
    return np.ascontiguousarray(tensor.reshape(shape), np.float32)


def _refuse_misfits(wanted: dict[str, tuple[int, ...]], tensors: Tensors, title: str) -> None:
    """Lists every name on one side alone, and every pair of different shapes."""
    # How often a BatchNorm of torch was trained, which nothing of ours depends on.
    found = {name for name in tensors if not name.endswith(".num_batches_tracked")}
    problems = [f"missing: {name}" for name in wanted if name not in found]
    problems += [f"unexpected: {name}" for name in sorted(found - wanted.keys())]
    for name, shape in wanted.items():
        theirs = _their_shape(shape, name)
        if name in found and tensors[name].shape != theirs:
            problems.append(f"shape: {name} is {tensors[name].shape}, the model has {theirs}")
    if problems:
        raise MisfitError(title, problems)
