"""Checkpoints: everything that the rest of a run depends on, saved while training goes on.

A checkpoint is the train state, the position of the data iterator, and a fingerprint of the state.
Orbax copies the arrays before ``save`` returns, writes them in a thread, and renames the finished
directory into place, so a process killed at any moment leaves complete checkpoints only. The rows
of ``metrics.jsonl`` are written before the checkpoint of the same step, ``MetricWriter`` drops the
rows after the restored one, and a run that was interrupted during a metrics pass begins with that
pass: no row is lost or doubled.

The fingerprint detects files that were damaged later; the run then resumes from the checkpoint
before.
"""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from train.config import CheckpointConfig
from train.errors import DamagedRunError
from train.step import TrainState

_log = logging.getLogger(__name__)
_BROKEN = "broken"


class Notes(NamedTuple):
    """What a checkpoint holds besides arrays: the position of the data, the first batch's loss."""

    data: dict[str, Any]
    first_loss: float | None


class Clock:
    """Tells when ``minutes`` have passed since the last checkpoint; 0 is never.

    Several processes must agree, so every ``ask_every`` steps they take the first one's clock.
    """

    def __init__(self, minutes: float, ask_every: int) -> None:
        self._seconds, self._ask_every = minutes * 60, ask_every
        self.begin()

    def begin(self) -> None:
        """Restarts the clock."""
        self._start = monotonic()

    def is_due(self, step: int) -> bool:
        """Whether it is time after a step; the same in every process."""
        if not self._seconds:
            return False
        due = monotonic() - self._start >= self._seconds
        if jax.process_count() > 1:
            if step % self._ask_every:
                return False
            due = bool(multihost_utils.broadcast_one_to_all(np.array(due)))
        return due


def open_manager(
    directory: Path, config: CheckpointConfig, steps_per_epoch: int
) -> ocp.CheckpointManager:
    """Returns the manager of a directory, a context manager that waits for saves when it exits."""
    preserved: list[Any] = [policies.LatestN(config.keep)]
    if config.keep_every_epochs:
        preserved.append(policies.EveryNSteps(config.keep_every_epochs * steps_per_epoch))
    worst = -math.inf if config.best_is == "highest" else math.inf
    if config.keep_best:
        preserved.append(
            policies.BestN(
                # Checkpoints saved under another --checkpoint.best are no candidates.
                get_metric_fn=lambda metrics: metrics.get(config.best, worst),
                reverse=config.best_is == "lowest",
                n=config.keep_best,
                keep_checkpoints_without_metrics=False,
            )
        )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(preserved),
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
    )
    return ocp.CheckpointManager(directory.absolute(), options=options)


def save(
    manager: ocp.CheckpointManager,
    state: TrainState,
    notes: Notes,
    *,
    step: int,
    fingerprint: int,
    metrics: Mapping[str, float] | None,
) -> None:
    """Starts saving; returns as soon as the state may be donated again.

    ``fingerprint`` is that of ``inspect``; ``metrics`` are from ``selection_metric``.
    """
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()),
            notes=ocp.args.JsonSave(notes._asdict() | {"fingerprint": fingerprint}),
        ),
        metrics=metrics,
    )


def selection_metric(row: Mapping[str, Any], config: CheckpointConfig) -> dict[str, float] | None:
    """Returns the metric that selects the best checkpoints, if any; undefined counts as worst."""
    if not config.keep_best:
        return None
    value = row.get(config.best)
    if value is None or not math.isfinite(value):
        value = -math.inf if config.best_is == "highest" else math.inf
    return {config.best: float(value)}


def restore(
    manager: ocp.CheckpointManager,
    shapes: TrainState,
    inspect: Callable[[TrainState], tuple[jax.Array, jax.Array]],
    say: Callable[[str], None],
) -> tuple[TrainState, Notes, int] | None:
    """Returns the latest intact state with its notes and its step, or None before the first save.

    Damaged checkpoints after it are reported by ``say`` and moved to ``broken``, not deleted.

    Args:
      manager: the manager of the directory.
      shapes: shapes and shardings of the state; the shardings may differ from the saved ones.
      inspect: the compiled ``inspect``.
      say: prints a message.

    Raises:
      DamagedRunError: there are checkpoints, and none can be read.
    """
    broken: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        restored, reason = _try_restore(manager, step, shapes, inspect)
        if restored is not None:
            for number, reason in broken.items():
                _set_aside(manager.directory, number)
                say(
                    f"The checkpoint of step {number} is damaged ({reason}): going back to step "
                    f"{step}. It was moved to {manager.directory / _BROKEN}."
                )
            if broken:
                manager.reload()
            return *restored, step
        broken[step] = reason
    if broken:
        listing = "\n".join(f"  step {step}: {reason}" for step, reason in broken.items())
        raise DamagedRunError(
            f"no checkpoint in {manager.directory} can be read:\n{listing}\n"
            "Put back a copy, or delete that folder to begin again with the same settings."
        )
    return None


def open_reader(directory: Path, *, alone: bool = False) -> ocp.CheckpointManager:
    """Returns a read-only manager: the run may be training in that directory.

    Args:
      directory: of the checkpoints.
      alone: whether this process reads for its own devices, without the others of the run.
    """
    options = ocp.CheckpointManagerOptions(read_only=True)
    if alone and jax.process_count() > 1:
        own = jax.process_index()
        options.multiprocessing_options = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"alone{own}"
        )
    return ocp.CheckpointManager(directory.absolute(), options=options)


def latest_step(directory: Path) -> int | None:
    """Returns the step of the last checkpoint; None without one, or without the directory."""
    if not directory.is_dir():
        return None
    with open_reader(directory) as reader:
        return reader.latest_step()


def saved_classes(reader: ocp.CheckpointManager, step: int) -> int:
    """Returns the number of classes of a saved network, or raises DamagedRunError."""
    directory = Path(reader.directory) / str(step) / "state"
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.metadata(directory).item_metadata.tree
        return tree["params"]["head"]["bias"].shape[0]
    except Exception as error:  # Orbax raises many kinds on a damaged file.
        path = directory.parent
        raise DamagedRunError(f"the checkpoint {path} cannot be read: {error}.") from error


def read(
    reader: ocp.CheckpointManager,
    step: int,
    shapes: TrainState,
    inspect: Callable[[TrainState], tuple[jax.Array, jax.Array]],
) -> TrainState:
    """Returns the state of a step; its devices may differ from those that saved it.

    Raises:
      DamagedRunError: the checkpoint is damaged.
    """
    restored, reason = _try_restore(reader, step, shapes, inspect)
    if restored is None:
        others = ", ".join(str(other) for other in reader.all_steps() if other != step)
        raise DamagedRunError(
            f"the checkpoint of step {step} in {reader.directory} is damaged ({reason}). Others "
            f"there are those of steps {others or '(none)'}."
        )
    return restored[0]


def inspect(state: TrainState) -> tuple[jax.Array, jax.Array]:
    """Returns a 32-bit fingerprint of a state, and whether all its numbers are finite.

    The fingerprint is the sum, modulo 2**32, of the bits of each number times an odd weight for its
    position, so it changes with any number and with any exchange of two. A sum of integers is the
    same on any number of devices.
    """
    total, finite = jnp.zeros((), jnp.uint32), jnp.ones((), bool)
    for number, leaf in enumerate(jax.tree.leaves(state)):
        position = jnp.arange(leaf.size, dtype=jnp.uint32).reshape(leaf.shape)
        bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
        weight = 2 * (position + jnp.uint32(0x9E3779B9 * (number + 1) % 2**32)) + 1
        total += jnp.sum(bits * weight, dtype=jnp.uint32)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            finite &= jnp.all(jnp.isfinite(leaf))
    return total, finite


def _try_restore(
    manager: ocp.CheckpointManager, step: int, shapes: TrainState, inspect: Callable
) -> tuple[tuple[TrainState, Notes] | None, str]:
    """Returns the state and the notes of a step, or None and why it cannot be read."""
    restored, reason = None, ""
    try:
        saved = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(shapes._asdict()), notes=ocp.args.JsonRestore()
            ),
        )
        notes, state = saved["notes"], TrainState(**saved["state"])
        if int(inspect(state)[0]) == notes["fingerprint"]:
            restored = state, Notes(*(notes[field] for field in Notes._fields))
        else:
            reason = "its numbers are not those that were saved"
    except Exception as error:  # Orbax raises many kinds on a damaged file.
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        _log.info("checkpoint %d", step, exc_info=True)
    alone = jax.tree.leaves(shapes)[0].sharding.is_fully_addressable
    if jax.process_count() > 1 and not alone:
        intact = multihost_utils.process_allgather(np.array(restored is not None))
        if not intact.all():
            restored, reason = None, reason or "another process cannot read it"
    return restored, reason


def _set_aside(directory: Any, step: int) -> None:
    if jax.process_index() == 0:
        target = Path(directory) / _BROKEN
        target.mkdir(exist_ok=True)
        number = sum(path.name.startswith(f"{step}_") for path in target.iterdir())
        (Path(directory) / str(step)).rename(target / f"{step}_{number}")
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"set aside {step}")
