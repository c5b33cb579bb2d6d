"""The devices of a run as one (data, model) mesh, and how arrays lie on it.

Axes are ``Auto``: the compiler propagates shardings from the arguments and inserts collectives, so
the step functions contain none. Today every array is either split along ``data`` by its leading
axis (batches) or replicated (everything else); ``model`` has size one.
"""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.config import ConfigError


def make_mesh() -> Mesh:
    """Returns the mesh over all devices, every one of them on the data axis."""
    return jax.make_mesh(
        (jax.device_count(), 1), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto)
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of parameters and accumulators: a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches: the leading axis is divided among the data axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Sends this process' share of a host batch to its devices, each its own part."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }


def check_divisible(batch_size: int, mesh: Mesh) -> None:
    """Raises ``ConfigError`` if a training batch cannot be divided equally among the devices."""
    parts = mesh.shape["data"]
    if batch_size % parts:
        raise ConfigError(
            f"--data.batch_size is {batch_size}, which {parts} devices cannot share equally; "
            f"use {-(-batch_size // parts) * parts}."
        )


def round_up(batch_size: int, mesh: Mesh) -> int:
    """Returns the smallest batch that holds ``batch_size`` rows and divides among the devices."""
    parts = mesh.shape["data"]
    return -(-batch_size // parts) * parts
