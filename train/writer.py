"""The results of a run on disk: ``metrics.jsonl`` and TensorBoard event files.

One row of ``metrics.jsonl`` is one split at one step: ``step``, ``epoch``, ``split``, ``accuracy``,
``loss``, every metric of ``vci_jax.report``, and two timing fields, ``seconds`` (of the metrics
pass) and ``images_per_second`` (of training since the previous row), the only ones that differ
between two runs with one seed. Values that are not finite are written as null.

``per_class.json`` has the columns of ``vci_jax.per_class`` for each split at the last of these
steps, with ``step`` and ``epoch``; rows would be several times as long with a thousand classes.
``pictures.jsonl`` has, for each row, the positions of a few images in the plane of
``vci_jax.picture``: ``label``, ``x``, ``y``.

``batches.jsonl`` has a line for every ``log.every_steps``-th training batch: ``step``, ``loss``,
``accuracy``, ``gradient_norm``, ``learning_rate``, ``images_per_second``, ``data_wait`` (the part
of the time that was spent waiting for data) and, where the device tells, ``device_memory`` (bytes,
the most so far). TensorBoard shows the same under ``batch/``.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tensorboardX import SummaryWriter

from train.config import ConfigError
from train.workdir import read_rows
from vci_jax.written import append_json_lines, json_lines, json_ready, replace_text, write_json

Row = dict[str, Any]

TIMING_FIELDS = ("seconds", "images_per_second")


class MetricWriter:
    """Appends rows and curves to a work directory; a context manager that closes its files.

    ``wandb`` is a run of Weights & Biases that gets the rows too, or None.
    """

    def __init__(self, workdir: Path, *, last_step: int, wandb: Any = None) -> None:
        """Opens the files, and drops rows after ``last_step``, the last checkpoint; -1 is none."""
        self._path = workdir / "metrics.jsonl"
        self.rows = _rewind(self._path, last_step)
        self._pictures = workdir / "pictures.jsonl"
        _rewind(self._pictures, last_step)
        self._batches = workdir / "batches.jsonl"
        _rewind(self._batches, last_step)
        self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=last_step + 1)
        self._wandb = wandb

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()

    def has(self, step: int) -> bool:
        """Whether the rows of a step are written."""
        return any(row["step"] == step for row in self.rows)

    def write(self, rows: list[Row]) -> None:
        """Appends the rows of a step, on disk on return; classes and images have other files."""
        rows = [json_ready(row) for row in rows]
        _write_per_class(self._path.with_name("per_class.json"), rows)
        keys = ("step", "epoch", "split")
        pictures = [{k: r[k] for k in keys} | r["picture"] for r in rows if "picture" in r]
        append_json_lines(self._pictures, pictures)
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
    """The writer of every process but the first, which alone writes."""

    rows: tuple[Row, ...] = ()

    def has(self, step: int) -> bool:
        """Whether the rows of a step are written; the first process knows."""
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        """Does nothing."""

    def write(self, rows: list[Row]) -> None:
        """Does nothing."""

    def scalars(self, step: int, values: Row) -> None:
        """Does nothing."""


def open_wandb(project: str, workdir: Path, config: dict[str, Any]) -> Any:
    """Returns the run of Weights & Biases that belongs to a work directory, or None for no project.

    Its id is stored in ``wandb_id`` there, so that a resumed run continues its curves.

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
        project=project, name=config["name"], config=config, id=path.read_text(), resume="allow"
    )


def _curves(row: Row, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields the curves of a row: numbers other than timings, those of layers by their names."""
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
    """Replaces the file by the columns of these rows, in six digits, as float32 has them."""
    columns = {row["split"]: row["per_class"] for row in rows if "per_class" in row}
    if not columns:
        return
    rounded = {
        split: {
            name: [float(f"{v:.6g}") if isinstance(v, float) else v for v in column]
            for name, column in table.items()
        }
        for split, table in columns.items()
    }
    write_json(path, {key: rows[0][key] for key in ("step", "epoch")} | rounded, indent=None)


def _rewind(path: Path, last_step: int) -> list[Row]:
    """Returns the rows up to a step, and removes the others from the file."""
    rows = [row for row in read_rows(path).values() if row["step"] <= last_step]
    if rows and rows[-1].get("split") == "train":
        rows.pop()  # The process was killed between the two splits of this step.
    replace_text(path, json_lines(rows))
    return rows
