"""Public checkpoints by our own networks: ResNets of torchvision and timm, ViTs of DeiT and timm.

    resnet50=PATH    deit_s=PATH    vit_b=PATH

Reading a .pth needs PyTorch; safetensors do not. A file has no transform, so the test transform of
its authors is used: bilinear with 256 / 224 for ResNets, bicubic for the rest, mean and deviation
0.5 for ViTs of timm.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probes.encoders.config import TransferConfig
from probes.encoders.encoder import (
    Encoder,
    Outputs,
    describe_transform,
    name_and_directory,
    transform,
)
from probes.encoders.identity import digest_arrays
from train import mesh as meshes
from train import models
from train.config import ModelConfig
from train.models import public
from train.models.weights import StateDictError


def load(word: str, path: Path, options: TransferConfig) -> Encoder:
    """Returns the encoder of a file of weights (.pth, .pt or .safetensors) of ``public.NETWORKS``.

    ``--image-size`` moves the position embeddings of a ViT to another grid.

    Raises:
      StateDictError: the file cannot be read, or is not of this network; names the likely cause.
    """
    family, name, _, _ = public.NETWORKS[word]
    loaded = public.read(word, path)
    data = transform(
        options,
        side=loaded.side,
        resize=math.floor(loaded.side * family.margin),
        mean=family.mean,
        std=family.std,
    )
    if "pos_embed" in loaded.tensors and data.image_size % loaded.patch:
        raise StateDictError(
            f"--image-size {data.image_size} is no multiple of the patch of {loaded.patch} pixels."
        )
    config = ModelConfig(name=name, patch=loaded.patch)
    model = models.build(config, max(loaded.classes, 1))
    variables, moved = public.fit(loaded, model, (data.image_size,) * 2)
    note = (
        f"{loaded.classes or 'no'} classes; transform: short side {data.resize}, centre "
        f"{data.image_size}, {family.interpolation}, mean {data.mean}; the file does not say."
    )
    own_name, directory = name_and_directory(word, path, options)
    features, outputs, mesh = _functions(model, variables, data, loaded.classes)
    return Encoder(
        name=own_name,
        directory=directory,
        features=features,
        outputs=outputs,
        num_classes=loaded.classes,
        mesh=mesh,
        data=data,
        identity={
            "variables": digest_arrays(variables),
            "model": {"name": name, "patch": loaded.patch},
            "transform": describe_transform(data, family.interpolation),
        },
        interpolation=family.interpolation,
        notes=(*loaded.notes, *moved, note),
        experiment=word,
    )


def _functions(model: Any, variables: Any, data: Any, classes: int) -> tuple[Any, Any, Any]:
    """Returns the functions of features and of outputs, and their mesh."""
    mesh = meshes.own_mesh()
    replicated, parts = meshes.replicated(mesh), meshes.split(mesh)
    mean, std = np.float32(data.mean), np.float32(data.std)

    def apply(variables: Any, images: jax.Array) -> Outputs:
        images = (images.astype(jnp.float32) - mean) / std
        logits, features = model.apply(variables, images, train=False)
        return Outputs(features, logits if classes else None)

    variables = jax.device_put(variables, replicated)
    compiled = partial(jax.jit, in_shardings=(replicated, parts), out_shardings=parts)
    features = compiled(lambda variables, images: apply(variables, images).features)
    return partial(features, variables), partial(compiled(apply), variables), mesh
