"""``Encoder``: a network from images to features, with its test transform."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from PIL import Image

from probes.encoders import identity
from probes.encoders.config import TransferConfig
from train import local
from train.config import DataConfig

IMAGENET_MEAN, IMAGENET_STD = DataConfig().mean, DataConfig().std


class Outputs(NamedTuple):
    """Features ``[B D]`` and logits ``[B K]`` of a batch; logits are None without a head."""

    features: jax.Array | np.ndarray
    logits: jax.Array | np.ndarray | None


class Encoder(NamedTuple):
    """A network that gives features, or features that another program has computed.

    Attributes:
      name: name in tables and rows.
      directory: directory of results and features: the work directory of a run, else ``OUT/name``.
      features: maps images ``uint8 [B H W C]``, divided among the devices, to ``[B D]``.
      outputs: maps the same images to features and logits.
      num_classes: number of logits of the pretraining head; 0 without a head.
      data: the test transform (``image_size``, ``resize``, ``mean``, ``std``); each task replaces
        its ``source``.
      interpolation: filter of the transform of a network other than a run, which has it in
        ``data``.
      peak: largest pixel value in training.
      identity: digests of weights and transform; equal identities mean equal features.
      trained_on: source of the pretraining images, as in ``train.data``; "" if unknown.
      notes: sentences about assumptions and choices.
      experiment: name of the config of a run, else the kind of model.
      step: step of the checkpoint of a run, else None.
      test: row of ``metrics.jsonl`` of the test split at this step, or empty.
      stored: file or directory of features, for ``features:PATH``; nothing is computed then.
    """

    name: str
    directory: Path
    features: Callable[[jax.Array], jax.Array | np.ndarray]
    outputs: Callable[[jax.Array], Outputs]
    num_classes: int
    mesh: Any
    data: DataConfig
    identity: dict[str, Any]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    peak: int = 255
    trained_on: str = ""
    notes: tuple[str, ...] = ()
    experiment: str = ""
    step: int | None = None
    test: dict[str, Any] = {}  # noqa: RUF012
    stored: Path | None = None


def name_and_directory(kind: str, path: Path | None, options: TransferConfig) -> tuple[str, Path]:
    """Returns the name of a model other than a run, and the directory of its results.

    The name includes four digits of the path's digest, since many files are called best.pth.
    """
    name = kind
    if path is not None:
        name += f"-{path.stem}-{identity.digest_json(str(path.resolve()))[:4]}"
    name = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[-80:].strip("-.")
    return name, local.path(options.out or "probes-out", "--out") / name


def transform(
    options: TransferConfig,
    *,
    side: int,
    resize: int,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> DataConfig:
    """Returns a test transform; ``--image-size`` keeps the proportion of ``resize`` to ``side``."""
    image_size = options.image_size or side
    return DataConfig(
        image_size=image_size,
        # Rounded as torchvision and timm do for their default sides.
        resize=resize if image_size == side else round(resize * image_size / side),
        mean=mean,
        std=std,
        data_dir=options.data_dir,
        threads=options.threads,
        max_unreadable=options.max_unreadable,
    )


def describe_transform(data: DataConfig, interpolation: str) -> dict[str, Any]:
    """Returns the fields of a transform that features depend on, for ``Encoder.identity``."""
    fields = {name: getattr(data, name) for name in ("image_size", "resize", "mean", "std")}
    return fields | ({} if interpolation == "bilinear" else {"interpolation": interpolation})


def bicubic(pixels: np.ndarray, *, side: int, short: int) -> np.ndarray:
    """Returns the centre of an image whose short side was resized by Pillow's bicubic filter.

    This is ``Resize(short, BICUBIC)`` and ``CenterCrop(side)`` of torchvision, as timm uses them,
    of ``uint8 [H W]``, ``[H W 1]`` or ``[H W 3]``.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    width, height = (int(short * edge / min(image.size)) for edge in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + side, top + side)))
