"""From the ``model`` section of a config to a network."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from train.config import ConfigError, ModelConfig
from train.models import resnet, vit


class _Family(NamedTuple):
    """Networks by name, and the fields of ``ModelConfig`` that apply to them."""

    members: dict[str, Callable[..., nn.Module]]
    fields: tuple[str, ...]


_FAMILIES = (
    _Family(resnet.MEMBERS, fields=("width", "stem", "dropout", "bn_group")),
    _Family(vit.MEMBERS, fields=("patch", "drop_path", "remat")),
)


def build(config: ModelConfig, num_classes: int) -> nn.Module:
    """Returns the network that the config names.

    Raises:
      ConfigError: the name is unknown, or a setting does not apply; lists the known ones.
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
    """Raises ConfigError for a setting that has no effect and is not at its default."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in ("name", "dtype", *family.fields) and value != field.default:
            raise ConfigError(
                f"--model.{field.name} is {value!r}, but {config.name} has no such setting; it "
                f"has dtype, {', '.join(family.fields)}."
            )
