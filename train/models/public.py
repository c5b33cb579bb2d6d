"""Public checkpoints of our own networks: ResNets of torchvision and timm, ViTs of DeiT and timm.

    found = public.read("resnet50", Path("resnet50-0676ba61.pth"))
    variables, notes = public.fit(found, model, (224, 224))

A file may have a head or none, keys and prefixes around the names of its tensors (``unwrap``), and
position embeddings for images of another size. What is not the network that its word says is
refused with the likely cause.
"""

import math
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
_SHOWN = 6


class Family(NamedTuple):
    """What the members of a family share: name of the head, test transform, where files are."""

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

# Word -> (family, our name of the network, D, blocks).
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
      word: of ``NETWORKS``.
      path: of the file.
      tensors: those of the network; with a head of one class that is 0 where the file has none.
      classes: outputs of the head; 0 where there is none.
      side: of the square images that the position embeddings are for; 224 for ResNets.
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
    """Returns the weights of a file, for the network that a word of ``NETWORKS`` means.

    Args:
      word: such as "resnet50".
      path: .pth, .pt or .safetensors, with or without a head, under the keys and prefixes that
        ``unwrap`` knows.

    Raises:
      StateDictError: the file cannot be read, holds several networks, a distillation token, or
        numbers that are not finite; says the likely cause.
    """
    family, name, dim, _ = NETWORKS[word]
    if not path.is_file():
        raise StateDictError(f"{path} cannot be read: No such file. {where(word)}")
    found = unwrap.read(path, weights.shapes(build(ModelConfig(name=name), 1), (224, 224, 3)))
    tensors, classes, notes = _with_head(found, family.head, dim)
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
    return PublicWeights(word, path, tensors, classes, side, patch, (*found.notes, *notes))


def fit(
    found: PublicWeights, model: nn.Module, size: tuple[int, int], cause: str = ""
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the variables of a model with the values of a file, and what was done to them.

    Args:
      found: of the file.
      model: with as many outputs as the head of ``found``, at least one.
      size: ``(height, width)`` of its images; the position embeddings of a ViT move to their grid.
      cause: what to say where the file is of this network and does not fit all the same.

    Raises:
      StateDictError: the file is not of this network; says the likely cause.
    """
    tensors = found.tensors
    notes: tuple[str, ...] = ()
    grid = (size[0] // found.patch, size[1] // found.patch)
    old = (found.side // found.patch,) * 2
    position = tensors.get("pos_embed", np.zeros(0))
    if position.shape[:2] == (1, 1 + math.prod(old)) and old != grid:
        moved, note = move_positions(position[0], old, grid)
        tensors, notes = tensors | {"pos_embed": moved[None]}, (note,)
    try:
        variables = weights.fill(tensors, model, (*size, 3), str(found.path))
    except weights.MisfitError as error:
        raise StateDictError(_mismatch(found, error.problems, cause)) from error
    return variables, notes


def move_positions(
    position: np.ndarray, old: tuple[int, int], new: tuple[int, int]
) -> tuple[np.ndarray, str]:
    """Returns position embeddings for another grid of patches, and a sentence on it.

    As timm's ``resample_abs_pos_embed``: bicubic with anti-aliasing, the class token's untouched.

    Args:
      position: ``[1 + rows * columns, D]``, the class token's first.
      old: rows and columns of patches that it is for.
      new: those wanted.
    """
    position = np.asarray(position, np.float32)
    grid = position[1:].reshape(*old, -1)
    grid = jax.image.resize(grid, (*new, grid.shape[-1]), "cubic", antialias=True)
    moved = np.concatenate([position[:1], np.asarray(grid).reshape(math.prod(new), -1)])
    (a, b), (c, d) = old, new
    return moved, f"position embeddings were interpolated from {a} x {b} to {c} x {d}, bicubic."


def where(word: str) -> str:
    """Returns a sentence on which file a network needs, and where it is published."""
    family = NETWORKS[word][0]
    size = word.rpartition("_")[2]
    places = family.where.replace("{}", _SIZES.get(size, word))
    return f"Wanted is a file of weights, {word}=PATH: {places}; nothing is downloaded."


def _with_head(found: unwrap.Weights, head: str, dim: int) -> tuple[Tensors, int, list[str]]:
    """Returns tensors that have a head, its number of classes (0: made up), and notes."""
    tensors, notes = dict(found.inside), []
    own = {f"{head}.weight", f"{head}.bias"}
    outer = found.outside.get(f"{head}.weight", np.zeros(0))
    if not own & tensors.keys() and own <= found.outside.keys() and outer.shape[1:] == (dim,):
        tensors |= {name: found.outside[name] for name in own}
    elsewhere = [name for name in found.outside if name not in own or name not in tensors]
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


def _mismatch(found: PublicWeights, problems: list[str], cause: str) -> str:
    """Returns at most ten lines: how much does not fit, some of it, and why that may be."""
    likely = likely_cause(found.tensors)
    own = bool(cause) and likely.startswith("it is a") and f" {found.word}" in likely
    likely = cause if own else likely
    counts = [
        f"{sum(p.startswith(kind) for p in problems)} {kind.rstrip(':')}"
        for kind in ("missing:", "unexpected:", "shape:")
    ]
    title = f"{found.path} {'does not fit this' if own else 'is not a'} {found.word}"
    lines = [f"{title}: of its tensors, {', '.join(counts)}."]
    lines += [f"  {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN} more")
    return "\n".join([*lines, f"Likely cause: {likely}"])


def likely_cause(tensors: Tensors) -> str:
    """Returns a sentence on which network has such tensors, by their names and shapes."""
    has = tensors.keys()
    if "blocks.0.attn.qkv.weight" in has:
        return _which_vit(tensors)
    if "layer1.0.conv1.weight" in has:
        return _which_resnet(tensors)
    if any("patch_embeddings.projection" in name for name in has):
        return "the names are those of Hugging Face; python:MODULE:FUNCTION takes any function."
    if "conv_proj.weight" in has:
        return "a ViT with torchvision's names: torchvision:vit_b_16=PATH reads it."
    return (
        f"another kind of network, with tensors such as {_listed(list(has))}; if timm or "
        "torchvision has it, timm:NAME=PATH or torchvision:NAME=PATH reads it."
    )


def _which_resnet(tensors: Tensors) -> str:
    blocks = tuple(
        sum(1 for name in tensors if _is_block(name, f"layer{stage}.")) for stage in range(1, 5)
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
            return f"it is a {word}, or part of one: {word}=PATH."
    return (
        "a ResNet of another width, stem or kind of block (ResNeXt, Wide ResNet, ResNet-D): "
        "timm:NAME=PATH or torchvision:NAME=PATH."
    )


def _is_block(name: str, stage: str) -> bool:
    return name.startswith(stage) and name.removeprefix(stage).split(".")[1:] == [
        "conv1",
        "weight",
    ]


def _which_vit(tensors: Tensors) -> str:
    width = tensors["blocks.0.attn.qkv.weight"].shape[1]
    depth = sum(1 for name in tensors if name.endswith(".attn.qkv.weight"))
    extra = {
        "ls1.gamma": "LayerScale (DeiT III, DINOv2)",
        "fc_norm.weight": "features that average the tokens (MAE)",
        "reg_token": "register tokens",
        "q_norm.weight": "normalised queries",
    }
    if met := [what for end, what in extra.items() if any(n.endswith(end) for n in tensors)]:
        return f"a ViT with {met[0]}, which the networks here have not: timm:NAME=PATH."
    for word, (family, _, dim, sizes) in NETWORKS.items():
        if family is _VIT and (dim, sizes) == (width, (depth,)):
            return f"it is a {word} or {word.replace('vit', 'deit')}, or part of one."
    return f"a ViT of width {width} and depth {depth}: timm:NAME=PATH."


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
