"""Encoders of Python functions, for networks of any library: ``python:MODULE:FUNCTION``.

    def encode(images):  # numpy uint8 [B, H, W, 3], RGB
        return features  # float [B, D]; or the pair (features, logits [B, K])

The function normalises the pixels itself. Its attributes describe the rest:

    encode.image_size = 224  # side of the input images; 224 by default
    encode.resize = 256  # short side before the centre crop; image_size * 256 / 224 by default
    encode.interpolation = "bicubic"  # or "bilinear", the default
    encode.name = "my network"  # name in tables; MODULE-FUNCTION by default
    encode.version = "epoch 90"  # part of the key of features on disk, with the module's file
"""

import importlib
import inspect
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from probes.encoders.config import TransferConfig
from probes.encoders.encoder import (
    Encoder,
    Outputs,
    describe_transform,
    name_and_directory,
    transform,
)
from probes.encoders.identity import digest_json
from train import mesh as meshes
from train.config import ConfigError
from train.errors import RunError


def load(target: str, options: TransferConfig) -> Encoder:
    """Returns the encoder of ``MODULE:FUNCTION``; calls it once, with two black images.

    Raises:
      ConfigError: there is no such function, its attributes are wrong, or it does not return
        features ``[B, D]`` and perhaps logits ``[B, K]``.
    """
    module_name, _, function_name = target.partition(":")
    title = f"python:{target}"
    if not module_name or not function_name:
        raise ConfigError(f"{title!r} names no function; write python:MODULE:FUNCTION.")
    try:
        module = importlib.import_module(module_name)
        function = operator.attrgetter(function_name)(module)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{title} cannot be imported: {error}. MODULE must be importable from the directory "
            "where you are, as in python:examples.efficientnet_lite:lite0."
        ) from error
    side = int(getattr(function, "image_size", 224))
    resize = int(getattr(function, "resize", round(side * 256 / 224)))
    interpolation = getattr(function, "interpolation", "bilinear")
    if interpolation not in ("bilinear", "bicubic") or not 0 < side <= resize:
        raise ConfigError(
            f"{title} has image_size {side}, resize {resize} and interpolation {interpolation!r}; "
            "it needs 0 < image_size <= resize, and bilinear or bicubic."
        )
    data = transform(options, side=side, resize=resize)
    source = inspect.getsourcefile(module)
    identity_fields = {
        "function": target,
        "source": digest_json(Path(source).read_text()) if source else "",
        "version": str(getattr(function, "version", "")),
        "transform": describe_transform(data, interpolation) | {"mean": None, "std": None},
    }
    label = str(getattr(function, "name", target.replace(":", "-")))
    return host_encoder(
        function,
        title,
        label,
        data=data,
        identity=identity_fields,
        interpolation=interpolation,
        options=options,
    )


def host_encoder(
    function: Callable[[np.ndarray], Any],
    title: str,
    label: str,
    *,
    data: Any,
    identity: dict[str, Any],
    interpolation: Any,
    options: TransferConfig,
    path: Path | None = None,
    notes: tuple[str, ...] = (),
) -> Encoder:
    """Returns the encoder of a function of images ``uint8 [B H W 3]`` that runs on the host.

    The function returns features, or features and logits. ``title`` is its name in errors; its
    name in tables is ``label``, with ``path`` if there is a file of weights.

    Raises:
      ConfigError: for two black images it raises an error, or returns something else.
    """

    def outputs(images: jax.Array | np.ndarray) -> Outputs:
        """Calls the function and checks the shapes of its results."""
        pixels = np.asarray(images)
        results = function(pixels)
        pair = results if isinstance(results, tuple) else (results, None)
        arrays = [None if x is None else np.asarray(x, np.float32) for x in pair]
        shapes = [np.shape(x) for x in arrays if x is not None]
        if (
            len(arrays) != 2
            or arrays[0] is None
            or any(len(shape) != 2 or shape[0] != len(pixels) for shape in shapes)
        ):
            raise ConfigError(
                f"{title} returned arrays of shapes {shapes} for {len(pixels)} images; it must "
                "return features [B, D], or the pair (features [B, D], logits [B, K])."
            )
        return Outputs(arrays[0], arrays[1])

    try:
        tried = outputs(np.zeros((2, data.image_size, data.image_size, 3), np.uint8))
    except RunError:
        raise
    except Exception as error:  # A user's function may raise anything.
        raise ConfigError(
            f"{title} failed on two black images of {data.image_size} pixels: "
            f"{type(error).__name__}: {str(error)[:400]}"
        ) from error
    name, directory = name_and_directory(label, path, options)
    return Encoder(
        name=name,
        directory=directory,
        features=lambda images: outputs(images).features,
        outputs=outputs,
        num_classes=0 if tried.logits is None else tried.logits.shape[1],
        mesh=meshes.own_mesh(),
        data=data,
        identity=identity,
        interpolation=interpolation,
        notes=notes,
        experiment=title.partition(":")[0],
    )
