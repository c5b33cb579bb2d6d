"""The programs of a run, lowered as the run compiles them, from shapes alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tools.compile.facts import Facts
from train import mesh as meshes
from train import program
from train.config import Config


def lower(config: Config, mesh: Any, facts: Facts) -> dict[str, Callable[[], jax.stages.Lowered]]:
    """Returns the train step and the metrics step by name; each is lowered when it is called."""
    shape = (facts.side, facts.side, facts.channels)
    task = program.build_spec(config, facts.classes, facts.train // config.data.batch_size)
    built = program.build(
        task,
        mesh,
        image_shape=shape,
        num_classes=facts.classes,
        layers=config.eval.layers,
        blocks=config.eval.blocks,
    )
    rows = meshes.round_up(config.eval.batch_size, mesh)

    def metrics() -> jax.stages.Lowered:
        tally = _placed(jax.eval_shape(built.init_tally), meshes.split(mesh))
        state = _placed(built.shapes, meshes.replicated(mesh))
        return built.add_batch.lower(tally, state, batch(mesh, rows, shape, masked=True))

    def train() -> jax.stages.Lowered:
        return built.train_step.lower(
            built.shapes, batch(mesh, config.data.batch_size, shape, masked=False)
        )

    return {"train step": train, "metrics step": metrics}


def batch(
    mesh: Any, rows: int, shape: tuple[int, ...], *, masked: bool
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns what the data pipeline sends to the devices, as shapes.

    Args:
      mesh: the devices.
      rows: of all of them together.
      shape: of an image.
      masked: whether it is a batch to measure.
    """
    arrays = {"image": ((rows, *shape), jnp.uint8), "label": ((rows,), jnp.int32)}
    if masked:
        arrays["mask"] = ((rows,), jnp.float32)
    return {
        name: jax.ShapeDtypeStruct(sides, dtype, sharding=meshes.split(mesh))
        for name, (sides, dtype) in arrays.items()
    }


def _placed(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
