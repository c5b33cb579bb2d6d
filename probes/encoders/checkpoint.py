"""Public checkpoints by our own networks: ResNets of torchvision and timm, ViTs of DeiT and timm.

    resnet50=PATH    deit_s=PATH    vit_b=PATH

A .pth is read by PyTorch, a file of safetensors without. A file has no transform; the one here is
that with which its authors tested: bilinear with 256 / 224 for ResNets, bicubic for the rest, mean
and deviation 0.5 for ViTs of timm.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probes.encoders.config import TransferConfig
from probes.encoders.encoder import Encoder, Outputs, describe_transform, place, transform
from probes.encoders.identity import digest_arrays
from train import mesh as meshes
from train import models
from train.config import ModelConfig
from train.models import public
from train.models.weights import StateDictError


def load(word: str, path: Path, options: TransferConfig) -> Encoder:
    """Returns the encoder of a file of weights.

    Args:
      word: of ``public.NETWORKS``.
      path: .pth, .pt or .safetensors, with or without a head, under the keys and prefixes that
        ``unwrap`` knows.
      options: ``image_size`` moves the position embeddings of a ViT to another grid.

    Raises:
      StateDictError: the file cannot be read, or is not of this network; says the likely cause.
    """
    family, name, _, _ = public.NETWORKS[word]
    found = public.read(word, path)
    data = transform(
        options,
        side=found.side,
        resize=math.floor(found.side * family.margin),
        mean=family.mean,
        std=family.std,
    )
    if "pos_embed" in found.tensors and data.image_size % found.patch:
        raise StateDictError(
            f"--image-size {data.image_size} is no multiple of the patch of {found.patch} pixels."
        )
    config = ModelConfig(name=name, patch=found.patch)
    model = models.build(config, max(found.classes, 1))
    variables, moved = public.fit(found, model, (data.image_size,) * 2)
    note = (
        f"{found.classes or 'no'} classes; transform: short side {data.resize}, centre "
        f"{data.image_size}, {family.interpolation}, mean {data.mean}; the file does not say."
    )
    own_name, directory = place(word, path, options)
    features, outputs, mesh = _functions(model, variables, data, found.classes)
    return Encoder(
        name=own_name,
        directory=directory,
        features=features,
        outputs=outputs,
        num_classes=found.classes,
        mesh=mesh,
        data=data,
        identity={
            "variables": digest_arrays(variables),
            "model": {"name": name, "patch": found.patch},
            "transform": describe_transform(data, family.interpolation),
        },
        interpolation=family.interpolation,
        notes=(*found.notes, *moved, note),
        experiment=word,
    )


def _functions(model: Any, variables: Any, data: Any, classes: int) -> tuple[Any, Any, Any]:
    """Returns features, outputs and the mesh on which they are computed."""
    mesh = meshes.own_mesh()
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
