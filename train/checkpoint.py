"""Checkpoints: everything that the rest of a run depends on, saved while training goes on.

A checkpoint is the train state and the position of the data iterator. Orbax copies the arrays
before ``save`` returns, writes them in a thread, and renames the finished directory into place, so
a process killed at any moment leaves complete checkpoints only. The rows of ``metrics.jsonl`` are
written before the checkpoint of the same step, and ``Journal.rewind`` drops the rows after the
restored one: no row is lost or doubled.
"""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from train.config import CheckpointConfig
from train.data import Ahead, TrainingBatches
from train.step import TrainState


def open_manager(directory: Path, config: CheckpointConfig) -> ocp.CheckpointManager:
    """Returns the manager of a directory: a context manager that waits for saves at its end."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=config.keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
    )
    return ocp.CheckpointManager(directory.absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, batches: Ahead, step: int) -> None:
    """Starts saving; returns as soon as the state may be donated again."""
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()),
            data=ocp.args.JsonSave(batches.get_state()),
        ),
    )


def restore(
    manager: ocp.CheckpointManager, state: TrainState, batches: TrainingBatches
) -> tuple[TrainState, int | None]:
    """Returns the latest saved state and its step, with ``batches`` moved to where they were.

    Args:
      manager: of the directory to look in.
      state: a fresh state, for the structure, the shapes and the shardings; returned with a step
        of None if nothing was saved yet.
      batches: a fresh iterator.
    """
    step = manager.latest_step()
    if step is None:
        return state, None
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state._asdict())
    saved = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore()
        ),
    )
    batches.set_state(saved["data"])
    return TrainState(**saved["state"]), step
