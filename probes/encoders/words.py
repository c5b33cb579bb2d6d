"""Encoders by their names on the command line."""

from pathlib import Path
from typing import NoReturn

import jax

from probes.encoders import checkpoint, function, libraries, run
from probes.encoders.config import TransferConfig
from probes.encoders.encoder import Encoder, name_and_directory, transform
from train import mesh as meshes
from train.config import ConfigError
from train.models import public

# Example: description. The help, the error and the documentation list these.
KINDS = {
    "runs/digits": "a work directory of python -m train",
    "resnet50=resnet50.pth": "weights with the names of torchvision and timm: resnet18, resnet34, "
    "resnet50, resnet101, resnet152",
    "deit_s=deit_small.pth": "weights of DeiT: deit_ti, deit_s, deit_b",
    "vit_b=model.safetensors": "weights of timm's vit_*_patch16: vit_ti, vit_s, vit_b",
    "timm:convnext_tiny=model.safetensors": "any model of timm, with its own transform",
    "torchvision:vit_b_16=vit_b_16.pth": "any classifier of torchvision, with its own transform",
    "python:my_module:encode": "a function: uint8 [B, H, W, 3] -> features, or (features, logits)",
    "features:mine.npz": "features made elsewhere: one file, or a folder with train.* and test.*",
}


def load(word: str, options: TransferConfig) -> Encoder:
    """Returns the encoder of a model, named as in the examples of ``KINDS``.

    Raises:
      ConfigError: the name is of no kind, or the model cannot be loaded.
    """
    kind, colon, rest = word.partition(":")
    if colon and kind in _LOADERS:
        return _LOADERS[kind](rest, options)
    name, equals, path = word.partition("=")
    if equals and name in public.NETWORKS:
        return checkpoint.load(name, Path(path).expanduser(), options)
    path_ = Path(word).expanduser()
    if path_.is_dir():
        return run.load(path_, options)
    if word in public.NETWORKS:
        raise ConfigError(f"{word} is the name of a network. {public.where(word)}")
    if path_.is_file():
        raise ConfigError(
            f"{word} is a file: say what it is, as in resnet50={word}.\n{list_kinds()}"
        )
    raise ConfigError(f"{word!r} is neither a model nor an existing directory.\n{list_kinds()}")


def list_kinds() -> str:
    """Returns the kinds of models, one per line with an example."""
    lines = (f"  {example:36}  {summary}" for example, summary in KINDS.items())
    return "Models are, by example:\n" + "\n".join(lines)


def _stored(rest: str, options: TransferConfig) -> Encoder:
    """Returns the encoder of existing features; it computes nothing."""
    path = Path(rest).expanduser()
    if not rest or not path.exists():
        raise ConfigError(f"features:{rest}: there is no such file or directory.")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stamps = [[str(f.name), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()]

    def refuse(images: jax.Array) -> NoReturn:
        del images
        raise ConfigError(f"features:{rest} holds features, and no network to compute others.")

    name, directory = name_and_directory("features", path, options)
    return Encoder(
        name=name,
        directory=directory,
        features=refuse,
        outputs=refuse,
        num_classes=0,
        mesh=meshes.own_mesh(),
        data=transform(options, side=32, resize=32),
        identity={"features": str(path.resolve()), "files": stamps},
        experiment="features",
        stored=path,
    )


_LOADERS = {
    "timm": libraries.load_timm,
    "torchvision": libraries.load_torchvision,
    "python": function.load,
    "features": _stored,
}
