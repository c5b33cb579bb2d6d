"""Features by several processes: each computes its share of every shard, the first one keeps them.

    python -m probes features MODEL ... --mesh.distributed    (the same command on every host)

Every process loads the network on its own devices, so networks of other libraries run as well. Of
each range of rows process p of P computes those from ``p / P`` to ``(p + 1) / P``; the parts, put
together in the order of the processes, are what one process would have computed. The first process
alone reads and writes files of features, so a resumed command may have any number of processes.

Afterwards the command runs in the first process, which finds all features on disk; the others wait
for its end. A probe is one convex problem that a host solves in seconds to minutes, and rankings
compare models pair by pair: more hosts would gain little and change the order of sums.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from probes.encoders import Encoder, identity, load
from probes.encoders.config import TransferConfig
from probes.transfer import features, task_features
from probes.transfer.display import Display
from probes.transfer.runner import ALL_TASKS, FAILURES, Failures, explain
from probes.transfer.tasks import Task
from train import data, processes
from train.config import ConfigError, MeshConfig

_FILES = "features:"

Wanted = Callable[[Encoder, task_features.TaskPlan, Task], bool]
"""Whether the features of a task are wanted at all; asked in the first process."""


def join(config: MeshConfig, command: str, models: Sequence[str], options: Any) -> None:
    """Joins the processes of a command, which all were started with the same words.

    Raises:
      ConfigError: they were not; says which differ. Or ``config.model`` is set.
    """
    if config.model != 1:
        raise ConfigError(
            f"--mesh.model is {config.model}: the probes keep a network whole on every device; "
            "leave it out."
        )
    processes.join(config)
    settings = {f"--{name}": value for name, value in dataclasses.asdict(options).items()}
    processes.same({"the command": command, "the list of models": list(models), **settings})


def compute(
    models: Sequence[str],
    tasks: Sequence[Task],
    options: TransferConfig,
    display: Display,
    *,
    logits: bool | None = None,
    wanted: Wanted = lambda encoder, planned, task: True,
) -> Failures:
    """Computes the features that are not on disk by all processes; in a single one does nothing.

    Args:
      models: words of ``encoders.load``. Those of files of features are left to the first process:
        there is nothing to compute.
      tasks: with the images.
      options: of the batches and shards.
      display: shows how far it is.
      logits: as in ``task_features.plan``.
      wanted: leaves out tasks, such as those with a score.

    Returns:
      Reasons for missing features, by model and task; the same in every process.

    Raises:
      ProcessLostError: another process has ended.
    """
    failures: Failures = {}
    if jax.process_count() == 1:
        return failures
    for model in models:
        if model.startswith(_FILES):
            continue
        try:
            with processes.agreed():
                encoder = load(model, options)
            processes.same({f"the network of {model}": identity.digest_json(encoder.identity)})
        except FAILURES as error:
            failures[model, ALL_TASKS] = explain(error)
            continue
        for task in tasks:
            display.begin(f"{encoder.name} {task.name}")
            try:
                with processes.agreed():
                    planned = task_features.plan(encoder, task, logits=logits)
                _same_images(planned, task)
                with processes.agreed():
                    due = processes.is_first() and wanted(encoder, planned, task)
                if processes.gather(np.array(due))[0]:
                    _compute_task(encoder, planned, options, display)
            except FAILURES as error:
                failures[model, task.name] = explain(error)
    return failures


def _same_images(planned: task_features.TaskPlan, task: Task) -> None:
    counts = {name: split.size for name, split in planned.splits.items()}
    processes.same(
        {
            f"the number of classes of {task.name}": len(planned.classes),
            f"the number of images of {task.name}": counts,
            f"the digest of the images of {task.name}": identity.digest_json(planned.depends_on),
        }
    )


def _compute_task(
    encoder: Encoder, planned: task_features.TaskPlan, options: TransferConfig, display: Display
) -> None:
    for name, split in planned.splits.items():
        own = features.extract(
            encoder.outputs if planned.logits else encoder.features,
            split,
            planned.config,
            mesh=encoder.mesh,
            batch_size=-(-options.batch_size // jax.process_count()),
        )
        if processes.is_first():
            _lead(
                encoder.directory / "features",
                planned.depends_on[name],
                split.size,
                own,
                shard_rows=options.shard_rows,
                say=display.say,
                progress=lambda rows, name=name, size=split.size: display.images(name, rows, size),
            )
        else:
            _follow(own)


def _lead(
    root: Path, depends_on: dict[str, Any], size: int, own: features.Compute, **options: Any
) -> None:
    """Keeps the rows of all processes, and tells the others which are missing."""

    def together(rows: range) -> tuple[np.ndarray, ...]:
        _announce(rows)
        return share(own, rows)

    with processes.agreed():
        try:
            features.keep(root, depends_on, size, together, **options)
        finally:
            _announce(range(0))


def _follow(own: features.Compute) -> None:
    """Computes the share of this process in every range of rows that the first one asks for."""
    with processes.agreed():
        problem: Exception | None = None
        while rows := _announce(range(0)):
            try:
                share(own, rows)
            except Exception as error:  # The first process has it too, and asks for nothing more.
                problem = error
        if problem is not None:
            raise problem


def _announce(rows: range) -> range:
    """Returns the rows that the first process announces; of the others nothing is asked."""
    start, stop = processes.gather(np.array([rows.start, rows.stop], np.int32))[0].tolist()
    return range(start, stop)


def share(own: features.Compute, rows: range) -> tuple[np.ndarray, ...]:
    """Returns what ``own`` makes of a range of rows, of which each process computes its share.

    Raises:
      Exception: whatever ``own`` raises in any process; in every process.
    """
    count = jax.process_count()
    parts = [data.Share(index, count).of(len(rows)) for index in range(count)]
    part = parts[jax.process_index()]
    # Where there are fewer rows than processes some compute a row that is not theirs, for its form.
    mine = range(rows.start + part.start, rows.start + part.stop) or rows[:1]
    with processes.agreed():
        columns = own(mine)
    longest = max(map(len, parts))
    gathered = []
    for column in columns:
        padded = np.zeros((max(longest, 1), *column.shape[1:]), column.dtype)
        padded[: len(column)] = column
        everyone = processes.gather(padded)
        pieces = [values[: len(p)] for values, p in zip(everyone, parts, strict=True)]
        gathered.append(np.concatenate(pieces))
    return tuple(gathered)
