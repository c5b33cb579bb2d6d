"""Checkpoints: everything that the rest of a run depends on, saved while training goes on.

A checkpoint is the train state, the position of the data iterator, and a fingerprint of the state.
Orbax copies the arrays before ``save`` returns, writes them in a thread, and renames the finished
directory into place, so a process killed at any moment leaves complete checkpoints only. The rows
of ``metrics.jsonl`` are written before the checkpoint of the same step, ``MetricWriter`` drops the
rows after the restored one, and a run that was asked to end while it measured measures that step
first: no row is lost or doubled.

What disks do to files later is met by the fingerprint, and by going back to the checkpoint before.
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

from train.config import CheckpointConfig, ConfigError
from train.errors import DamagedRunError
from train.step import TrainState

_log = logging.getLogger(__name__)
_BROKEN = "broken"


class Notes(NamedTuple):
    """What a checkpoint holds besides arrays.

    Attributes:
      data: the position of the data iterator.
      first_loss: of the first batch of the run.
    """

    data: dict[str, Any]
    first_loss: float | None


class Clock:
    """Says when so many minutes have passed since the last checkpoint."""

    def __init__(self, minutes: float, ask_every: int) -> None:
        """Starts at the first moment.

        Args:
          minutes: between two checkpoints; 0 is never.
          ask_every: steps between two looks at the clock of the first process, where there are
            several, which must agree.
        """
        self._seconds, self._ask_every = minutes * 60, ask_every
        self.begin()

    def begin(self) -> None:
        """Counts from now on."""
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
    """Returns the manager of a directory: a context manager that waits for saves at its end."""
    kept: list[Any] = [policies.LatestN(config.keep)]
    if config.keep_every_epochs:
        kept.append(policies.EveryNSteps(config.keep_every_epochs * steps_per_epoch))
    worst = -math.inf if config.best_is == "highest" else math.inf
    if config.keep_best:
        kept.append(
            policies.BestN(
                # Those saved when another metric decided are no candidates.
                get_metric_fn=lambda metrics: metrics.get(config.best, worst),
                reverse=config.best_is == "lowest",
                n=config.keep_best,
                keep_checkpoints_without_metrics=False,
            )
        )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
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

    Args:
      manager: of the directory.
      state: after ``step``.
      notes: of the same moment.
      step: its number.
      fingerprint: of the state, from ``inspect``.
      metrics: of the test split, if they were taken at this step.
    """
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()),
            notes=ocp.args.JsonSave(notes._asdict() | {"fingerprint": fingerprint}),
        ),
        metrics=metrics,
    )


def to_choose_by(row: Mapping[str, Any], config: CheckpointConfig) -> dict[str, float] | None:
    """Returns the metric by which the best checkpoints are chosen, if any are.

    An undefined one counts as the worst.

    Raises:
      ConfigError: there is no such metric.
    """
    if not config.keep_best:
        return None
    value = row.get(config.best, "")
    if value is not None and not isinstance(value, (int, float)):
        known = ", ".join(key for key, item in row.items() if isinstance(item, float))
        raise ConfigError(f"--checkpoint.best is {config.best!r}; known metrics: {known}.")
    if value is None or not math.isfinite(value):
        value = -math.inf if config.best_is == "highest" else math.inf
    return {config.best: float(value)}


def restore(
    manager: ocp.CheckpointManager,
    shapes: TrainState,
    inspect: Callable[[TrainState], tuple[jax.Array, jax.Array]],
    say: Callable[[str], None],
) -> tuple[TrainState, Notes, int] | None:
    """Returns the latest saved state that is whole, with its notes and its step.

    Those after it are moved to ``broken`` beside the checkpoints, not deleted.

    Args:
      manager: of the directory to look in.
      shapes: of the state, with shardings, which need not be those it was saved with.
      inspect: see below.
      say: tells the user of a checkpoint that is not whole.

    Returns:
      None if nothing was saved yet.

    Raises:
      DamagedRunError: there are checkpoints, and none can be read.
    """
    broken: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        found, why = _attempt(manager, step, shapes, inspect)
        if found is not None:
            for number, reason in broken.items():
                _set_aside(manager.directory, number)
                say(
                    f"The checkpoint of step {number} is damaged ({reason}): going back to step "
                    f"{step}. It was moved to {manager.directory / _BROKEN}."
                )
            if broken:
                manager.reload()
            return *found, step
        broken[step] = why
    if broken:
        listing = "\n".join(f"  step {step}: {reason}" for step, reason in broken.items())
        raise DamagedRunError(
            f"no checkpoint in {manager.directory} can be read:\n{listing}\n"
            "Put back a copy, or delete that folder to begin again with the same settings."
        )
    return None


def open_reader(directory: Path, *, alone: bool = False) -> ocp.CheckpointManager:
    """Returns a manager that changes nothing on disk: the run may be at work there.

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
    """Returns the step of the last checkpoint in a directory, which need not exist; else None."""
    if not directory.is_dir():
        return None
    with open_reader(directory) as reader:
        return reader.latest_step()


def saved_classes(reader: ocp.CheckpointManager, step: int) -> int:
    """Returns how many classes the network of a checkpoint tells apart.

    Raises:
      DamagedRunError: the checkpoint cannot be read.
    """
    place = Path(reader.directory) / str(step) / "state"
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.metadata(place).item_metadata.tree
        return tree["params"]["head"]["bias"].shape[0]
    except Exception as error:  # Whatever a damaged file makes of the reader.
        raise DamagedRunError(f"the checkpoint {place.parent} cannot be read: {error}.") from error


def read(
    reader: ocp.CheckpointManager,
    step: int,
    shapes: TrainState,
    inspect: Callable[[TrainState], tuple[jax.Array, jax.Array]],
) -> TrainState:
    """Returns the state of a step, on devices that need not be those it was saved from.

    Raises:
      DamagedRunError: the checkpoint is damaged; nothing older is taken in its place.
    """
    found, why = _attempt(reader, step, shapes, inspect)
    if found is None:
        others = ", ".join(str(other) for other in reader.all_steps() if other != step)
        raise DamagedRunError(
            f"the checkpoint of step {step} in {reader.directory} is damaged ({why}). Others there "
            f"are those of steps {others or '(none)'}."
        )
    return found[0]


def inspect(state: TrainState) -> tuple[jax.Array, jax.Array]:
    """Returns a 32-bit fingerprint of a state, and whether all its numbers are finite.

    The fingerprint is the sum, modulo 2**32, of the bits of each number times an odd weight that
    belongs to its place: any change of one number, and any exchange of two, shows. It is a sum of
    integers, so it is the same on any number of devices.
    """
    total, finite = jnp.zeros((), jnp.uint32), jnp.ones((), bool)
    for number, leaf in enumerate(jax.tree.leaves(state)):
        place = jnp.arange(leaf.size, dtype=jnp.uint32).reshape(leaf.shape)
        bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
        weight = 2 * (place + jnp.uint32(0x9E3779B9 * (number + 1) % 2**32)) + 1
        total += jnp.sum(bits * weight, dtype=jnp.uint32)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            finite &= jnp.all(jnp.isfinite(leaf))
    return total, finite


def _attempt(
    manager: ocp.CheckpointManager, step: int, shapes: TrainState, inspect: Callable
) -> tuple[tuple[TrainState, Notes] | None, str]:
    """Returns the state and the notes of a step, or None and why it cannot be read."""
    found, why = None, ""
    try:
        saved = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(shapes._asdict()), notes=ocp.args.JsonRestore()
            ),
        )
        notes, state = saved["notes"], TrainState(**saved["state"])
        if int(inspect(state)[0]) == notes["fingerprint"]:
            found = state, Notes(*(notes[field] for field in Notes._fields))
        else:
            why = "its numbers are not those that were saved"
    except Exception as error:  # Whatever a damaged file makes of the reader.
        why = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        _log.info("checkpoint %d", step, exc_info=True)
    alone = jax.tree.leaves(shapes)[0].sharding.is_fully_addressable
    if jax.process_count() > 1 and not alone:
        whole = multihost_utils.process_allgather(np.array(found is not None))
        if not whole.all():
            found, why = None, why or "another process cannot read it"
    return found, why


def _set_aside(directory: Any, step: int) -> None:
    if jax.process_index() == 0:
        target = Path(directory) / _BROKEN
        target.mkdir(exist_ok=True)
        number = sum(path.name.startswith(f"{step}_") for path in target.iterdir())
        (Path(directory) / str(step)).rename(target / f"{step}_{number}")
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"set aside {step}")
