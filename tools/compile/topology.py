"""Chips that are not there: what the compiler and the roofline know of them."""

import importlib.util
import os
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from train.config import ConfigError


class Chip(NamedTuple):
    """Peaks of one chip, as its maker states them."""

    flops: float
    """Operations a second, multiplying bfloat16."""
    bandwidth: float
    """Bytes a second of its main memory."""
    memory: float
    """Bytes of it."""


# cloud.google.com/tpu/docs/v5e
_CHIPS = {"v5e": Chip(flops=197e12, bandwidth=819e9, memory=16e9)}


def find(topology: str) -> tuple[Chip, list[Any]]:
    """Returns the chip, and the devices that the compiler takes for those of a topology.

    Args:
      topology: a chip and its arrangement, as in ``v5e:2x4``.

    Raises:
      ConfigError: the chip is unknown, there is no such arrangement, or no TPU compiler.
    """
    kind = topology.partition(":")[0]
    if kind not in _CHIPS:
        raise ConfigError(
            f"--topology is {topology!r}; known chips: {', '.join(_CHIPS)}, as in v5e:2x4."
        )
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("the TPU compiler is missing; pip install -e '.[tpu-compile]'.")
    # It would ask a cloud's metadata server for its TPU, and keep the real one of this machine
    # from a training. Compiling needs neither.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--topology is {topology!r}, which the compiler does not know: {error}"
        ) from error
    return _CHIPS[kind], list(found.devices)
