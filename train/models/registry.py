"""From the ``model`` section of a config to a network."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from train.config import ConfigError, ModelConfig
from train.models import resnet, vit


class _Family(NamedTuple):
    """Networks by name, and the settings that they have besides ``dtype``."""

    members: dict[str, Callable[..., nn.Module]]
    fields: tuple[str, ...]


_FAMILIES = (
    _Family(
        members={
            "_resnet6": resnet._resnet6,
            "resnet8": resnet.resnet8,
            "resnet20": resnet.resnet20,
            "resnet18": resnet.resnet18,
            "resnet34": resnet.resnet34,
            "resnet50": resnet.resnet50,
            "resnet101": resnet.resnet101,
            "resnet152": resnet.resnet152,
        },
        fields=("width", "stem", "dropout", "bn_group"),
    ),
    _Family(
        members={
            "_vit_nano": vit._vit_nano,
            "deit_ti": vit.deit_ti,
            "deit_s": vit.deit_s,
            "deit_b": vit.deit_b,
        },
        fields=("patch", "drop_path", "remat"),
    ),
)


def build(config: ModelConfig, num_classes: int) -> nn.Module:
    """Returns the network that the config names.

    Raises:
      ConfigError: there is none of that name, or it has no such setting; lists those there are.
    """
    for family in _FAMILIES:
        if config.name in family.members:
            _refuse_foreign(config, family)
            settings = {field: getattr(config, field) for field in family.fields}
            member = family.members[config.name]
            return member(num_classes=num_classes, dtype=jnp.dtype(config.dtype), **settings)
    names = [name for family in _FAMILIES for name in family.members]
    known = ", ".join(name for name in names if not name.startswith("_"))
    raise ConfigError(f"--model.name is {config.name!r}; known models: {known}.")


def _refuse_foreign(config: ModelConfig, family: _Family) -> None:
    """A setting that would have no effect is a mistake, so it must have its default."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in ("name", "dtype", *family.fields) and value != field.default:
            raise ConfigError(
                f"--model.{field.name} is {value!r}, but {config.name} has no such setting; it "
                f"has dtype, {', '.join(family.fields)}."
            )
