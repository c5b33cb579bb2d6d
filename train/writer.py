"""What a run leaves to read: ``metrics.jsonl`` and TensorBoard event files.

One row of ``metrics.jsonl`` is one split at one step: ``step``, ``epoch``, ``split``, ``accuracy``,
``loss``, every metric of ``vci_jax.report``, and two timing fields, ``seconds`` (of the metrics
pass) and ``images_per_second`` (of training since the row before), the only ones that differ
between two runs with one seed. Values that are not finite are written as null.

``per_class.json`` beside it has what ``vci_jax.per_class`` says of each split at the last of these
steps: ``step``, ``epoch``, and for each split a list per column. It is no part of the rows, which
it would make several times as long where there are a thousand classes. ``pictures.jsonl`` has, for
each row, where a few images lie in the plane of ``vci_jax.picture``: ``label``, ``x``, ``y``.

``batches.jsonl`` has a line for every ``log.every_steps``-th training batch: ``step``, ``loss``,
``accuracy``, ``gradient_norm``, ``learning_rate``, ``images_per_second``, ``data_wait`` (the part
of the time that was spent waiting for data) and, where the device tells, ``device_memory`` (bytes,
the most so far). TensorBoard shows the same under ``batch/``.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax
from tensorboardX import SummaryWriter

from train.config import ConfigError
from train.workdir import read_rows
from vci_jax.written import append_json_lines, json_lines, json_ready, replace_text, write_json

Row = dict[str, Any]

TIMING_FIELDS = ("seconds", "images_per_second")


class MetricWriter:
    """Appends rows and curves to a work directory; a context manager that closes its files."""

    def __init__(self, workdir: Path, *, last_step: int, wandb: Any = None) -> None:
        """Opens the files, and forgets what a killed run wrote after its last checkpoint.

        Args:
          workdir: where the files are, or will be.
          last_step: of the rows that stay; those of later steps are about to be written again.
            -1 keeps none.
          wandb: a run of Weights & Biases that gets the rows too, or None.
        """
        self._path = workdir / "metrics.jsonl"
        self.rows = _rewind(self._path, last_step)
        self._pictures = workdir / "pictures.jsonl"
        _rewind(self._pictures, last_step)
        self._batches = workdir / "batches.jsonl"
        _rewind(self._batches, last_step)
        self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=last_step + 1)
        self._wandb = wandb

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Closes the files."""
        self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()

    def has(self, step: int) -> bool:
        """Whether the rows of a step are written."""
        return any(row["step"] == step for row in self.rows)

    def write(self, rows: list[Row]) -> None:
        """Appends the rows of a step, on disk when this returns.

        What they say of classes and of single images goes to files of its own.
        """
        rows = [json_ready(row) for row in rows]
        _write_per_class(self._path.with_name("per_class.json"), rows)
        places = [{key: row[key] for key in ("step", "epoch", "split")} for row in rows]
        append_json_lines(
            self._pictures,
            [at | row["picture"] for at, row in zip(places, rows, strict=True) if "picture" in row],
        )
        rows = [{k: row[k] for k in row if k not in ("per_class", "picture")} for row in rows]
        self.rows += rows
        append_json_lines(self._path, rows)
        for row in rows:
            values = dict(_curves(row))
            for name, value in values.items():
                self._writer.add_scalar(name, value, row["step"])
            if self._wandb is not None:
                self._wandb.log(values | {"step": row["step"], "epoch": row["epoch"]})

    def scalars(self, step: int, values: Row) -> None:
        """Adds a line to ``batches.jsonl`` and a point to each TensorBoard curve of the batches."""
        values = {key: value for key, value in values.items() if value is not None}
        with self._batches.open("a") as file:
            file.write(json_lines([{"step": step} | values]))
        for key, value in values.items():
            self._writer.add_scalar(f"batch/{key}", value, step)


class NullWriter:
    """The writer of every process but the first: all see the same rows, and one writes them."""

    rows: tuple[Row, ...] = ()

    def has(self, step: int) -> bool:
        """Whether the rows of a step are written; the first process knows."""
        return False

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Does nothing."""

    def write(self, rows: list[Row]) -> None:
        """Does nothing."""

    def scalars(self, step: int, values: Row) -> None:
        """Does nothing."""


def open_wandb(project: str, workdir: Path, config: dict[str, Any]) -> Any:
    """Returns the run of Weights & Biases that belongs to a work directory, or None for no project.

    Its id is kept in ``wandb_id`` there, so that a resumed run goes on with its curves.

    Raises:
      ConfigError: its package is not installed.
    """
    if not project:
        return None
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            f"--log.wandb is {project!r}, but wandb is not installed: pip install 'vci_jax[wandb]'."
        ) from error
    path = workdir / "wandb_id"
    if not path.exists():
        path.write_text(uuid.uuid4().hex)
    return wandb.init(
        project=project,
        name=config["name"],
        config=config,
        id=path.read_text(),
        resume="allow",
    )


def to_floats(scalars: dict[str, jax.Array]) -> dict[str, float]:
    """Returns device scalars as Python floats, waiting for the step that computes them."""
    return {key: float(value) for key, value in scalars.items()}


def _curves(row: Row, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields what can be drawn: numbers that are not timings, those of layers under their names."""
    prefix = prefix or f"{row['split']}/"
    for key, value in row.items():
        if key == "layers":
            for layer, metrics in value.items():
                yield from _curves(metrics, f"{prefix}{layer}/")
        elif key == "vci_interval":
            ends = zip(("low", "high"), value, strict=True)
            yield from ((f"{prefix}{key}/{end}", edge) for end, edge in ends if edge is not None)
        elif isinstance(value, float) and key not in TIMING_FIELDS:
            yield prefix + key, value


def _write_per_class(path: Path, rows: list[Row]) -> None:
    """Replaces the file by the columns of these rows, to the six digits that float32 has."""
    columns = {row["split"]: row["per_class"] for row in rows if "per_class" in row}
    if not columns:
        return
    short = {
        split: {
            name: [float(f"{v:.6g}") if isinstance(v, float) else v for v in column]
            for name, column in table.items()
        }
        for split, table in columns.items()
    }
    write_json(path, {key: rows[0][key] for key in ("step", "epoch")} | short, indent=None)


def _rewind(path: Path, last_step: int) -> list[Row]:
    """Returns the rows up to a step, and leaves the file with these alone."""
    rows = [row for row in read_rows(path).values() if row["step"] <= last_step]
    if rows and rows[-1].get("split") == "train":
        rows.pop()  # The process was killed between the two splits of this step.
    replace_text(path, json_lines(rows))
    return rows
