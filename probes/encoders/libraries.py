"""Models of timm and torchvision, built by these libraries, with their own test transforms.

    timm:NAME=PATH    torchvision:NAME=PATH

Both need torch (extra ``torch``). Weights come from a file: nothing is downloaded. ``=random``
stands for random weights.
"""

import difflib
import importlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from probes.encoders.config import TransferConfig
from probes.encoders.encoder import Encoder, describe_transform, transform
from probes.encoders.function import host_encoder
from probes.encoders.identity import digest_arrays
from train.config import ConfigError
from train.models import unwrap
from train.models.weights import StateDictError

RANDOM = "random"


def load_timm(rest: str, options: TransferConfig) -> Encoder:
    """Returns the encoder of ``NAME=PATH``: features are timm's input of the classifier.

    Raises:
      ConfigError: timm is missing or has no such model, or no file is given.
      StateDictError: the file does not fit.
    """
    timm = _library("timm")
    name, path = _split(rest)
    if not timm.is_model(name):
        raise ConfigError(_unknown("timm", name, timm.list_models()))
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # The tag after the dot is unknown.
        raise ConfigError(_unknown("timm", name, timm.list_pretrained())) from error
    if path is None:
        where = config and (config.hf_hub_id or config.url)
        raise ConfigError(_no_file("timm", name, f"model.safetensors of {where}" if where else ""))
    size = {"img_size": options.image_size} if options.image_size else {}
    try:
        model = timm.create_model(name, pretrained=False, **size)
    except TypeError:  # A convolutional network has no such setting.
        model = timm.create_model(name, pretrained=False)
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    resize = model.reset_classifier
    notes = _fill(model, path, f"timm:{name}", heads, resize=resize, convert=convert)
    resolved = timm.data.resolve_model_data_config(model)
    side = resolved["input_size"][-1]
    known = resolved["interpolation"] in ("bilinear", "bicubic")
    if resolved["crop_mode"] != "center" or not known:
        notes.append(
            f"timm's transform is {resolved['crop_mode']} crop, {resolved['interpolation']}; here "
            "it is the centre crop, bicubic."
        )
    data = transform(
        options,
        side=side,
        resize=math.floor(side / resolved["crop_pct"]),
        mean=tuple(255 * x for x in resolved["mean"]),
        std=tuple(255 * x for x in resolved["std"]),
    )

    def outputs(images: Any) -> tuple[Any, Any]:
        maps = model.forward_features(images)
        features = model.forward_head(maps, pre_logits=True)
        return features, model.forward_head(maps) if model.num_classes else None

    interpolation = "bilinear" if resolved["interpolation"] == "bilinear" else "bicubic"
    return _encoder(f"timm:{name}", path, model, outputs, data, interpolation, options, notes)


def load_torchvision(rest: str, options: TransferConfig) -> Encoder:
    """Returns the encoder of ``NAME=PATH``: features are the input of the last linear layer.

    Raises:
      ConfigError, StateDictError: as ``load_timm``.
    """
    vision = _library("torchvision").models
    torch = _library("torch")
    name, path = _split(rest)
    classifiers = vision.list_models(module=vision)
    if name not in classifiers:
        raise ConfigError(_unknown("torchvision", name, classifiers))
    entries = vision.get_model_weights(name)
    if not len(entries):
        raise ConfigError(f"torchvision:{name} names no transform; use python:MODULE:FUNCTION.")
    if path is None:
        raise ConfigError(_no_file("torchvision", name, entries.DEFAULT.url))
    # The name of the file identifies the weights; unknown ones have the default transform.
    file = Path(path).name
    entry = next((w for w in entries if w.url.endswith(file)), entries.DEFAULT)
    preset = entry.transforms()
    sized = name.startswith("vit_")  # Position embeddings are made for one size.
    if options.image_size and sized:
        raise ConfigError(f"torchvision:{name} has one size of input; leave out --image-size.")
    size = {"image_size": preset.crop_size[0]} if sized else {}
    model = vision.get_model(name, weights=None, **size)
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    if not linear:
        raise ConfigError(f"torchvision:{name} has no linear layer whose input could be features.")
    head, layer = linear[-1]
    parent = model.get_submodule(head.rpartition(".")[0])

    def resize(classes: int) -> None:
        if classes:
            new = torch.nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
        else:
            new = torch.nn.Identity()
        setattr(parent, head.rpartition(".")[2], new)

    notes = _fill(model, path, f"torchvision:{name}", (head,), resize=resize)
    notes.append(f"the transform is that of {entry}.")
    if hasattr(model, "transform_input"):  # torchvision sets it with its own weights alone.
        model.transform_input = True
        notes.append("the input is transformed as torchvision does with its own weights.")
    data = transform(
        options,
        side=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(255 * x for x in preset.mean),
        std=tuple(255 * x for x in preset.std),
    )
    last = model.get_submodule(head)
    head_inputs = []
    last.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0]))

    def outputs(images: Any) -> tuple[Any, Any]:
        logits = model(images)
        return head_inputs.pop(), None if isinstance(last, torch.nn.Identity) else logits

    kind = "bicubic" if preset.interpolation.value == "bicubic" else "bilinear"
    return _encoder(f"torchvision:{name}", path, model, outputs, data, kind, options, notes)


def _encoder(
    title: str,
    path: Path | str,
    model: Any,
    outputs: Any,
    data: Any,
    interpolation: str,
    options: TransferConfig,
    notes: list[str],
) -> Encoder:
    """Returns the encoder of a torch module in evaluation mode, on torch's GPU if there is one."""
    torch = _library("torch")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.eval().to(device)
    mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (data.mean, data.std))

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2)
            features, logits = outputs((pixels.float() - mean) / std)
        return features.cpu().numpy(), None if logits is None else logits.cpu().numpy()

    values = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    return host_encoder(
        run,
        title,
        title.replace(":", "-"),
        data=data,
        identity={
            "model": title,
            "variables": digest_arrays(values),
            "transform": describe_transform(data, interpolation),
        },
        interpolation=interpolation,
        options=options,
        path=path if isinstance(path, Path) else None,
        notes=tuple(notes),
    )


def _fill(
    model: Any,
    path: Path | str,
    title: str,
    heads: tuple[str, ...],
    *,
    resize: Any,
    convert: Any = None,
) -> list[str]:
    """Loads a file into a module, whose head becomes that of the file; returns notes."""
    torch = _library("torch")
    if path == RANDOM:
        return ["the weights are random, as asked for."]
    assert isinstance(path, Path)
    stored = unwrap.read(path, model.state_dict().keys())
    tensors = {
        k: torch.from_numpy(np.array(v, np.float32 if v.dtype.kind != "i" else v.dtype))
        for k, v in stored.inside.items()
    }
    classes = {len(tensors[f"{h}.weight"]) for h in heads if f"{h}.weight" in tensors}
    resize(max(classes, default=0))
    if convert is not None:
        tensors = convert(tensors, model)
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    try:
        model.load_state_dict(counters | tensors)
    except RuntimeError as error:
        lines = [line.strip()[:200] for line in str(error).splitlines()[1:7]]
        listing = "\n".join(f"  {line}" for line in lines)
        raise StateDictError(
            f"{path} does not fit {title}:\n{listing}\n"
            "Likely cause: the weights of another model; its name is often in that of the file."
        ) from error
    count = max(classes, default=0)
    return [*stored.notes, f"{count or 'no'} classes."]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name} is not installed ({error}): pip install 'vci_jax[torch]', or pip install "
            "torch torchvision timm."
        ) from error


def _split(rest: str) -> tuple[str, Path | str | None]:
    name, _, path = rest.partition("=")
    if not path:
        return name, None
    return name, path if path == RANDOM else Path(path).expanduser()


def _unknown(library: str, name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    return f"{library} has no model {name!r}.{hint}"


def _no_file(library: str, name: str, where: str) -> str:
    hint = f" They are {where}." if where else ""
    return (
        f"{library}:{name} needs a file of weights, and nothing is downloaded: "
        f"{library}:{name}=PATH.{hint} ({library}:{name}={RANDOM} is the network untrained.)"
    )
