"""Public checkpoints of our own networks: ResNets of torchvision and timm, ViTs of DeiT and timm.

    loaded = public.read("resnet50", Path("resnet50-0676ba61.pth"))
    variables, notes = public.fit(loaded, model, (224, 224))

A file may have a head or none, keys and prefixes around the names of its tensors (``unwrap``), and
position embeddings for images of another size. A file of another network is refused with the likely
cause.
"""

import math
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from train.config import DataConfig, ModelConfig
from train.models import unwrap, weights
from train.models.registry import build
from train.models.weights import StateDictError, Tensors

_HALF = (127.5, 127.5, 127.5)
_MAX_LISTED = 6


class Family(NamedTuple):
    """Properties of a family: name of the head, test transform, where its files are published."""

    head: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    margin: float
    interpolation: Literal["bilinear", "bicubic"]
    where: str
    published: str


_SIZES = {"ti": "tiny", "s": "small", "b": "base"}
_PUBLISHED = "the published weights are for --model.{}."
_WIDE, _PATCH = _PUBLISHED.format("width 64 --model.stem imagenet"), _PUBLISHED.format("patch 16")
_TIMM = "the model.safetensors of timm/{} at huggingface.co"
_RESNET = Family(
    "fc",
    DataConfig().mean,
    DataConfig().std,
    256 / 224,
    "bilinear",
    _TIMM.format("{}.tv_in1k") + ", or torchvision's {}-*.pth",
    _WIDE,
)
_DEIT = Family(
    "head",
    DataConfig().mean,
    DataConfig().std,
    256 / 224,
    "bicubic",
    _TIMM.format("deit_{}_patch16_224.fb_in1k"),
    _PATCH,
)
_VIT = Family(
    "head",
    _HALF,
    _HALF,
    1 / 0.9,
    "bicubic",
    _TIMM.format("vit_{}_patch16_224.augreg_in21k_ft_in1k"),
    _PATCH,
)

# Name of the weights -> (family, --model.name, D, blocks).
NETWORKS: dict[str, tuple[Family, str, int, tuple[int, ...]]] = {
    "resnet18": (_RESNET, "resnet18", 512, (2, 2, 2, 2)),
    "resnet34": (_RESNET, "resnet34", 512, (3, 4, 6, 3)),
    "resnet50": (_RESNET, "resnet50", 2048, (3, 4, 6, 3)),
    "resnet101": (_RESNET, "resnet101", 2048, (3, 4, 23, 3)),
    "resnet152": (_RESNET, "resnet152", 2048, (3, 8, 36, 3)),
    "deit_ti": (_DEIT, "deit_ti", 192, (12,)),
    "deit_s": (_DEIT, "deit_s", 384, (12,)),
    "deit_b": (_DEIT, "deit_b", 768, (12,)),
    "vit_ti": (_VIT, "deit_ti", 192, (12,)),
    "vit_s": (_VIT, "deit_s", 384, (12,)),
    "vit_b": (_VIT, "deit_b", 768, (12,)),
}


class PublicWeights(NamedTuple):
    """The tensors of a file, under the names of its network.

    Attributes:
      word: a name of ``NETWORKS``.
      tensors: tensors of the network; if the file has no head, with one of a single zero class.
      classes: outputs of the file's head; 0 if it has none.
      side: side of the images of the position embeddings; 224 for ResNets.
      patch: side of a patch; 16 for ResNets, which have none.
      notes: sentences on what was chosen and removed.
    """

    word: str
    path: Path
    tensors: Tensors
    classes: int
    side: int
    patch: int
    notes: tuple[str, ...]


def read(word: str, path: Path) -> PublicWeights:
    """Returns the weights of a file (.pth, .pt or .safetensors) for a network of ``NETWORKS``.

    Raises:
      StateDictError: the file cannot be read, holds several networks, a distillation token, or
        numbers that are not finite; says the likely cause.
    """
    family, name, dim, _ = NETWORKS[word]
    if not path.is_file():
        raise StateDictError(f"{path} cannot be read: No such file. {where(word)}")
    names = weights.shapes(build(ModelConfig(name=name), 1), (224, 224, 3))
    unwrapped = unwrap.read(path, names)
    tensors, classes, notes = _with_head(unwrapped, family.head, dim)
    if "dist_token" in tensors:
        size = _SIZES[word.rpartition("_")[2]]
        raise StateDictError(
            f"{path} has a distillation token, and the networks here have none: take "
            f"timm:deit_{size}_distilled_patch16_224={path}."
        )
    side, patch = 224, 16
    if family is not _RESNET and {"pos_embed", "patch_embed.proj.weight"} <= tensors.keys():
        patch = tensors["patch_embed.proj.weight"].shape[-1]
        side = patch * math.isqrt(max(tensors["pos_embed"].shape[1] - 1, 1))
    return PublicWeights(word, path, tensors, classes, side, patch, (*unwrapped.notes, *notes))


def fit(
    loaded: PublicWeights, model: nn.Module, size: tuple[int, int], cause: str = ""
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the variables of a model with the values of a file, and notes on changes.

    Args:
      loaded: the weights.
      model: a network with as many outputs as the head of the file, at least one.
      size: ``(height, width)`` of its images, to whose grid the position embeddings of a ViT move.
      cause: the likely cause if a file of this network does not fit.

    Raises:
      StateDictError: the file is not of this network; names the likely cause.
    """
    tensors = loaded.tensors
    notes: tuple[str, ...] = ()
    grid = (size[0] // loaded.patch, size[1] // loaded.patch)
    old = (loaded.side // loaded.patch,) * 2
    position = tensors.get("pos_embed", np.zeros(0))
    if position.shape[:2] == (1, 1 + math.prod(old)) and old != grid:
        moved, note = move_positions(position[0], old, grid)
        tensors, notes = tensors | {"pos_embed": moved[None]}, (note,)
    try:
        variables = weights.fill(tensors, model, (*size, 3), str(loaded.path))
    except weights.MisfitError as error:
        raise StateDictError(_mismatch(loaded, error.problems, cause)) from error
    return variables, notes


def move_positions(
    position: np.ndarray, old: tuple[int, int], new: tuple[int, int]
) -> tuple[np.ndarray, str]:
    """Returns position embeddings for another grid of patches, and a sentence on it.

    As in timm's ``resample_abs_pos_embed``: bicubic with anti-aliasing; the class token stays.

    Args:
      position: ``[1 + rows * columns, D]``, the class token first.
      old: its rows and columns of patches.
      new: the new rows and columns.
    """
    position = np.asarray(position, np.float32)
    grid = position[1:].reshape(*old, -1)
    grid = jax.image.resize(grid, (*new, grid.shape[-1]), "cubic", antialias=True)
    moved = np.concatenate([position[:1], np.asarray(grid).reshape(math.prod(new), -1)])
    (a, b), (c, d) = old, new
    return moved, f"position embeddings were interpolated from {a} x {b} to {c} x {d}, bicubic."


def where(word: str) -> str:
    """Returns a sentence on the file that a network needs, and where it is published."""
    family = NETWORKS[word][0]
    size = word.rpartition("_")[2]
    origin = family.where.replace("{}", _SIZES.get(size, word))
    return f"Wanted is a file of weights, {word}=PATH: {origin}; nothing is downloaded."


def _with_head(unwrapped: unwrap.Weights, head: str, dim: int) -> tuple[Tensors, int, list[str]]:
    """Returns tensors with a head, its number of classes (0: made up), and notes."""
    tensors, outside, notes = dict(unwrapped.inside), unwrapped.outside, []
    own = {f"{head}.weight", f"{head}.bias"}
    outer = outside.get(f"{head}.weight", np.zeros(0))
    if not own & tensors.keys() and own <= outside.keys() and outer.shape[1:] == (dim,):
        tensors |= {name: outside[name] for name in own}
    elsewhere = [name for name in outside if name not in own or name not in tensors]
    # A head of pretraining of several layers: fc.0.weight, head.mlp.2.weight.
    elsewhere += [name for name in tensors if name.startswith(f"{head}.") and name not in own]
    tensors = {k: v for k, v in tensors.items() if not k.startswith(f"{head}.") or k in own}
    if elsewhere:
        notes.append(
            f"{len(elsewhere)} tensors beside the network are left out: {_listed(elsewhere)}."
        )
    if own & tensors.keys():
        return tensors, int(tensors.get(f"{head}.weight", np.zeros(1)).shape[0]), notes
    blank = {f"{head}.weight": np.zeros((1, dim), np.float32)}
    return tensors | blank | {f"{head}.bias": np.zeros(1, np.float32)}, 0, notes


def _mismatch(loaded: PublicWeights, problems: list[str], cause: str) -> str:
    """Returns at most ten lines: counts of misfits, the first of them, and the likely cause."""
    network, likely = likely_cause(loaded.tensors)
    own = bool(cause) and loaded.word in network
    likely = cause if own else likely
    counts = [
        f"{sum(p.startswith(kind) for p in problems)} {kind.rstrip(':')}"
        for kind in ("missing:", "unexpected:", "shape:")
    ]
    title = f"{loaded.path} {'does not fit this' if own else 'is not a'} {loaded.word}"
    lines = [f"{title}: of its tensors, {', '.join(counts)}."]
    lines += [f"  {problem}" for problem in problems[:_MAX_LISTED]]
    if len(problems) > _MAX_LISTED:
        lines.append(f"  and {len(problems) - _MAX_LISTED} more")
    return "\n".join([*lines, f"Likely cause: {likely}"])


def likely_cause(tensors: Tensors) -> tuple[tuple[str, ...], str]:
    """Returns the names of ``NETWORKS`` that have such tensors, and a sentence on the network."""
    names = tensors.keys()
    if "blocks.0.attn.qkv.weight" in names:
        return _which_vit(tensors)
    if "layer1.0.conv1.weight" in names:
        return _which_resnet(tensors)
    if any("patch_embeddings.projection" in name for name in names):
        return (), "the names are those of Hugging Face; python:MODULE:FUNCTION takes any function."
    if "conv_proj.weight" in names:
        return (), "a ViT with torchvision's names: torchvision:vit_b_16=PATH reads it."
    return (), (
        f"another kind of network, with tensors such as {_listed(list(names))}; if timm or "
        "torchvision has it, timm:NAME=PATH or torchvision:NAME=PATH reads it."
    )


def _which_resnet(tensors: Tensors) -> tuple[tuple[str, ...], str]:
    blocks = tuple(
        sum(bool(re.fullmatch(rf"layer{stage}\.\d+\.conv1\.weight", name)) for name in tensors)
        for stage in range(1, 5)
    )
    bottleneck = "layer1.0.conv3.weight" in tensors
    plain = (
        tensors["layer1.0.conv2.weight"].shape == (64, 64, 3, 3)
        and tensors.get("conv1.weight", np.zeros(0)).shape == (64, 3, 7, 7)
        and not any(".se." in name for name in tensors)
    )
    dim = 2048 if bottleneck else 512
    for word, (family, _, width, sizes) in NETWORKS.items():
        if plain and family is _RESNET and (width, sizes) == (dim, blocks):
            return (word,), f"it is a {word}, or part of one: {word}=PATH."
    return (), (
        "a ResNet of another width, stem or kind of block (ResNeXt, Wide ResNet, ResNet-D): "
        "timm:NAME=PATH or torchvision:NAME=PATH."
    )


def _which_vit(tensors: Tensors) -> tuple[tuple[str, ...], str]:
    width = tensors["blocks.0.attn.qkv.weight"].shape[1]
    depth = sum(1 for name in tensors if name.endswith(".attn.qkv.weight"))
    extra = {
        "ls1.gamma": "LayerScale (DeiT III, DINOv2)",
        "fc_norm.weight": "features that average the tokens (MAE)",
        "reg_token": "register tokens",
        "q_norm.weight": "normalised queries",
    }
    for suffix, part in extra.items():
        if any(name.endswith(suffix) for name in tensors):
            return (), f"a ViT with {part}, which the networks here have not: timm:NAME=PATH."
    for word, (family, _, dim, sizes) in NETWORKS.items():
        if family is _VIT and (dim, sizes) == (width, (depth,)):
            deit = word.replace("vit", "deit")
            return (word, deit), f"it is a {word} or {deit}, or part of one."
    return (), f"a ViT of width {width} and depth {depth}: timm:NAME=PATH."


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
