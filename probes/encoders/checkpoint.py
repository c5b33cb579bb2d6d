"""Public checkpoints by our own networks: ResNets of torchvision and timm, ViTs of DeiT and timm.

    resnet50=PATH    deit_s=PATH    vit_b=PATH

A .pth is read by PyTorch, a file of safetensors without. A file has no transform; the one here is
that with which its authors tested: bilinear with 256 / 224 for ResNets, bicubic for the rest, mean
and deviation 0.5 for ViTs of timm.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probes.encoders import unwrap
from probes.encoders.config import TransferConfig
from probes.encoders.encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Encoder,
    Outputs,
    describe_transform,
    place,
    transform,
)
from probes.encoders.identity import digest_arrays
from train import mesh as meshes
from train import models
from train.config import ModelConfig
from train.models import weights
from train.models.weights import StateDictError, Tensors

_HALF = (127.5, 127.5, 127.5)
_SHOWN = 6


class _Family(NamedTuple):
    """What members of a family share: the name of the head and the test transform."""

    head: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    margin: float
    interpolation: Literal["bilinear", "bicubic"]
    where: str


_SIZES = {"ti": "tiny", "s": "small", "b": "base"}
_TIMM = "the model.safetensors of timm/{} at huggingface.co"
_RESNET = _Family(
    "fc",
    IMAGENET_MEAN,
    IMAGENET_STD,
    256 / 224,
    "bilinear",
    _TIMM.format("{}.tv_in1k") + ", or torchvision's {}-*.pth",
)
_DEIT = _Family(
    "head",
    IMAGENET_MEAN,
    IMAGENET_STD,
    256 / 224,
    "bicubic",
    _TIMM.format("deit_{}_patch16_224.fb_in1k"),
)
_VIT = _Family(
    "head",
    _HALF,
    _HALF,
    1 / 0.9,
    "bicubic",
    _TIMM.format("vit_{}_patch16_224.augreg_in21k_ft_in1k"),
)

# Word -> (family, our name of the network, D, blocks).
NETWORKS: dict[str, tuple[_Family, str, int, tuple[int, ...]]] = {
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


def load(word: str, path: Path, options: TransferConfig) -> Encoder:
    """Returns the encoder of a file of weights.

    Args:
      word: of ``NETWORKS``.
      path: .pth, .pt or .safetensors, with or without a head, under the keys and prefixes that
        ``unwrap`` knows.
      options: ``image_size`` moves the position embeddings of a ViT to another grid.

    Raises:
      StateDictError: the file cannot be read, or is not of this network; says the likely cause.
    """
    family, name, dim, _ = NETWORKS[word]
    if not path.is_file():
        raise StateDictError(f"{path} cannot be read: No such file. {where(word)}")
    build = partial(models.build, ModelConfig(name=name))
    stored = unwrap.read(path, weights.shapes(build(1), (224, 224, 3)))
    tensors, classes, notes = _with_head(stored, family.head, dim)
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
    data = transform(
        options,
        side=side,
        resize=math.floor(side * family.margin),
        mean=family.mean,
        std=family.std,
    )
    if family is not _RESNET:
        build = partial(models.build, ModelConfig(name=name, patch=patch))
        if data.image_size != side:
            tensors, note = _on_grid(tensors, data.image_size, patch)
            notes.append(note)
    model = build(max(classes, 1))
    try:
        variables = weights.fill(tensors, model, (data.image_size,) * 2 + (3,), str(path))
    except weights.MisfitError as error:
        raise StateDictError(_mismatch(word, path, tensors, error.problems)) from error
    notes.append(
        f"{classes or 'no'} classes; transform: short side {data.resize}, centre "
        f"{data.image_size}, {family.interpolation}, mean {data.mean}; the file does not say."
    )
    own_name, directory = place(word, path, options)
    features, outputs, mesh = _functions(model, variables, data, classes)
    return Encoder(
        name=own_name,
        directory=directory,
        features=features,
        outputs=outputs,
        num_classes=classes,
        mesh=mesh,
        data=data,
        identity={
            "variables": digest_arrays(variables),
            "model": {"name": name, "patch": patch},
            "transform": describe_transform(data, family.interpolation),
        },
        interpolation=family.interpolation,
        notes=(*stored.notes, *notes),
        experiment=word,
    )


def where(word: str) -> str:
    """Returns a sentence about the file that a network needs, and where it is published."""
    family = NETWORKS[word][0]
    size = word.rpartition("_")[2]
    places = family.where.replace("{}", _SIZES.get(size, word))
    return f"Wanted is a file of weights, {word}=PATH: {places}; nothing is downloaded."


def _functions(model: Any, variables: Any, data: Any, classes: int) -> tuple[Any, Any, Any]:
    """Returns features, outputs and the mesh on which they are computed."""
    mesh = meshes.make_mesh()
    whole, parts = meshes.replicated(mesh), meshes.split(mesh)
    mean, std = np.float32(data.mean), np.float32(data.std)

    def apply(variables: Any, images: jax.Array) -> Outputs:
        images = (images.astype(jnp.float32) - mean) / std
        logits, features = model.apply(variables, images, train=False)
        return Outputs(features, logits if classes else None)

    variables = jax.device_put(variables, whole)
    compiled = partial(jax.jit, in_shardings=(whole, parts), out_shardings=parts)
    features = compiled(lambda variables, images: apply(variables, images).features)
    return partial(features, variables), partial(compiled(apply), variables), mesh


def _with_head(stored: unwrap.Weights, head: str, dim: int) -> tuple[Tensors, int, list[str]]:
    """Returns tensors that have a head, its number of classes (0: made up), and notes."""
    tensors, notes = dict(stored.inside), []
    own = {f"{head}.weight", f"{head}.bias"}
    outer = stored.outside.get(f"{head}.weight", np.zeros(0))
    if not own & tensors.keys() and own <= stored.outside.keys() and outer.shape[1:] == (dim,):
        tensors |= {name: stored.outside[name] for name in own}
    elsewhere = [name for name in stored.outside if name not in own or name not in tensors]
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


def _on_grid(tensors: Tensors, side: int, patch: int) -> tuple[Tensors, str]:
    """Returns tensors whose position embeddings fit images of another side.

    As timm's ``resample_abs_pos_embed``: bicubic with anti-aliasing, the class token's untouched.
    """
    if side % patch:
        raise StateDictError(f"--image-size {side} is no multiple of the patch of {patch} pixels.")
    position = np.asarray(tensors["pos_embed"], np.float32)
    old, new = math.isqrt(position.shape[1] - 1), side // patch
    grid = position[0, 1:].reshape(old, old, -1)
    grid = jax.image.resize(grid, (new, new, grid.shape[-1]), "cubic", antialias=True)
    moved = np.concatenate([position[0, :1], np.asarray(grid).reshape(new * new, -1)])
    note = f"position embeddings were interpolated from {old} x {old} to {new} x {new}, bicubic."
    return tensors | {"pos_embed": moved[None]}, note


def _mismatch(word: str, path: Path, tensors: Tensors, problems: list[str]) -> str:
    """Returns at most ten lines: how many tensors do not fit, examples, and the likely cause."""
    counts = [
        f"{sum(p.startswith(kind) for p in problems)} {kind.rstrip(':')}"
        for kind in ("missing:", "unexpected:", "shape:")
    ]
    lines = [f"{path} is not a {word}: of its tensors, {', '.join(counts)}."]
    lines += [f"  {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN} more")
    return "\n".join([*lines, f"Likely cause: {likely_cause(tensors)}"])


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
