"""The devices of a run as one (data, model) mesh, and the shardings of arrays on it.

Every device has its own part of each batch. A copy of the train state is divided among the devices
of the ``model`` axis: each array along its longest divisible axis, small ones not at all. Along
``data`` there are copies. So (n, 1) is plain data parallelism, (1, n) divides the state among all
devices, and a mesh in between suits pods that are far apart.

Axes are ``Auto``: the compiler propagates shardings from the arguments and inserts collectives, so
the step functions contain none.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.config import ConfigError, MeshConfig

_AXES = ("data", "model")
# A smaller array costs more to gather than its memory is worth.
_SMALL = 2**12


def make_mesh(
    config: MeshConfig | None = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Returns the mesh over ``devices``, by default all of them.

    Raises:
      ConfigError: --mesh.model does not divide their number.
    """
    devices = jax.devices() if devices is None else devices
    model = config.model if config else 1
    if len(devices) % model:
        raise ConfigError(
            f"--mesh.model is {model}, which does not divide the {len(devices)} devices; use one "
            f"of {', '.join(str(n) for n in range(1, len(devices) + 1) if len(devices) % n == 0)}."
        )
    return jax.make_mesh(
        (len(devices) // model, model),
        _AXES,
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def own_mesh() -> Mesh:
    """Returns the mesh over the devices of this process, where it computes without the others."""
    return make_mesh(devices=jax.local_devices())


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that puts a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches: each device has its part of the leading axis."""
    return NamedSharding(mesh, PartitionSpec(_AXES))


def divided(mesh: Mesh, tree: Any) -> Any:
    """Returns the shardings of a tree of arrays, or of their shapes, along the model axis."""
    parts = mesh.shape["model"]

    def sharding(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or leaf.size < _SMALL or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "model"))

    return jax.tree.map(sharding, tree)


def per_device(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Returns ``function(own, shared, batch) -> own`` called by every device, without collectives.

    ``own`` has a leading axis with one entry per device, ``shared`` is replicated, and ``batch`` is
    divided among the devices.
    """

    def on_device(own: Any, shared: Any, batch: Any) -> Any:
        own = jax.tree.map(lambda leaf: leaf[0], own)
        return jax.tree.map(lambda leaf: leaf[None], function(own, shared, batch))

    parts, replicated = PartitionSpec(_AXES), PartitionSpec()
    return jax.shard_map(
        on_device, mesh=mesh, in_specs=(parts, replicated, parts), out_specs=parts, check_vma=False
    )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Sends this process' share of a host batch to its devices, a part to each."""
    sharding = split(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }


def check_divisible(batch_size: int, mesh: Mesh) -> None:
    """Raises ``ConfigError`` if a training batch cannot be divided equally among the devices."""
    if batch_size % mesh.size:
        raise ConfigError(
            f"--data.batch_size is {batch_size}, which {mesh.size} devices cannot share equally; "
            f"use {round_up(batch_size, mesh)}."
        )


def round_up(batch_size: int, mesh: Mesh) -> int:
    """Returns the smallest batch that holds ``batch_size`` rows and divides among the devices."""
    return -(-batch_size // mesh.size) * mesh.size
