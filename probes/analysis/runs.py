"""Finished or running trainings, read from their work directories.

A work directory holds ``config.json``, ``metrics.jsonl`` and, once its features have been probed,
``transfer.jsonl``. Any part may be missing or, after a process was killed, end in half a line: a
``Run`` has the parts that exist, and ``notes`` on the others.
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from probes.transfer import escape
from train.config import FREE, flatten_stored
from vci_jax.written import read_json_lines

Row = dict[str, Any]

_SCORED = ("task", "score")
# Fields of the config that do not affect the training: its name, when it measures and saves.
_INCIDENTAL = (*FREE, "name", "checkpoint.", "eval.every_epochs", "eval.batch_size")


class Run(NamedTuple):
    """One training.

    Attributes:
      name: name of the work directory.
      group: the part of the config's name before the slash if there is one, else the name of the
        directory above the work directory.
      config: content of ``config.json``, nested.
      rows: rows of ``metrics.jsonl``.
      transfer: rows of ``transfer.jsonl``, the last of each task.
      notes: sentences on files and lines that are missing, truncated or repeated.
    """

    name: str
    group: str
    path: Path
    config: Row
    rows: list[Row]
    transfer: list[Row]
    notes: list[str]

    def curve(self, metric: str, split: str) -> tuple[list[float], list[float]]:
        """Returns the epochs at which a metric of a split is defined, and its values there."""
        points = [
            (row["epoch"], row[metric])
            for row in self.rows
            if row["split"] == split and row.get(metric) is not None
        ]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def last(self, split: str) -> Row:
        """Returns the last row of a split, empty if it has none."""
        return next((row for row in reversed(self.rows) if row["split"] == split), {})


def read_run(path: Path | str) -> Run:
    """Returns the run of a work directory, given as a directory or as its ``metrics.jsonl``.

    Raises:
      ValueError: there is neither ``metrics.jsonl`` nor ``transfer.jsonl``, or a row other than a
        truncated last one is malformed; names the file and the line or the values.
    """
    path = Path(path)
    path = path.parent if path.is_file() else path
    if not _is_run(path):
        raise ValueError(
            f"{path} has no metrics.jsonl and no transfer.jsonl; give the work directory of a run."
        )
    notes: list[str] = []
    config = _read_config(path / "config.json", notes)
    rows = read_rows(path / "metrics.jsonl", notes, required=("epoch", "split"))
    probed = (path / "transfer.jsonl").exists()  # A run without it is whole.
    scores = read_rows(path / "transfer.jsonl", notes if probed else [], required=_SCORED)
    _check_scores(path / "transfer.jsonl", scores)
    latest = {row["task"]: row for row in scores}
    if len(latest) < len(scores):
        notes.append("transfer.jsonl: of tasks scored more than once, the last score counts.")
    resolved = path.resolve()
    group, slash, _ = str(config.get("name")).rpartition("/")
    return Run(
        name=resolved.name,
        group=group if slash else resolved.parent.name,
        path=path,
        config=config,
        rows=rows,
        transfer=list(latest.values()),
        notes=notes,
    )


def read_runs(paths: Iterable[Path | str]) -> list[Run]:
    """Returns the runs of work directories, and of those below other directories.

    Runs of the same name get as many parent directories as make their names unique:
    ``seed_1/tau_0.05``.

    Raises:
      ValueError: as ``read_run``, or there is no run below a path.
    """
    directories = {run.resolve(): run for path in paths for run in _find(Path(path))}
    runs = [read_run(path) for path in directories.values()]
    names = escape.short_paths([run.path.resolve() for run in runs])
    return [run._replace(name=name) for run, name in zip(runs, names, strict=True)]


def read_rows(path: Path, notes: list[str], *, required: Sequence[str] = ()) -> list[Row]:
    """Returns the rows of a ``.jsonl`` file; no rows if it does not exist. Blank lines are skipped.

    ``notes`` receives a sentence if the file is missing, if a truncated last line was dropped, or
    if numbers that are not finite became None.

    Raises:
      ValueError: another line is not a JSON object, or lacks a ``required`` field; names file and
        line.
    """
    if not path.exists():
        notes.append(f"{path.name} is missing.")
        return []
    lines, torn = read_json_lines(path, _parse)
    if torn is not None:
        notes.append(f"{path.name}: line {torn}, the last, is cut off and left out.")
    rows, infinite = [], 0
    for number, (row, has_infinite) in lines.items():
        missing = [field for field in required if not isinstance(row, dict) or field not in row]
        if missing or not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}, has no {', '.join(missing) or 'fields'}.")
        rows.append(row)
        infinite += has_infinite
    if infinite:
        notes.append(
            f"{path.name}: numbers that are not finite, on {infinite} line(s), count as undefined."
        )
    return rows


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Returns the config fields in which runs differ, each with its value in every run.

    Fields that affect no number are omitted. A field that is newer than a run has its default; a
    run without a config has None everywhere.
    """
    flat = [flatten_stored(run.config) if run.config else {} for run in runs]
    fields = dict.fromkeys(field for config in flat for field in config)
    values = {field: [config.get(field) for config in flat] for field in fields}
    return {
        field: column
        for field, column in values.items()
        if not field.startswith(_INCIDENTAL) and any(value != column[0] for value in column)
    }


def settings(runs: Sequence[Run]) -> list[int]:
    """Returns a number for each run, the same for runs whose configs differ in the seed alone."""
    varied = differences(runs)
    keys = [
        repr([column[i] for field, column in varied.items() if field != "seed"])
        if run.config
        else str(run.path)
        for i, run in enumerate(runs)
    ]
    order = list(dict.fromkeys(keys))
    return [order.index(key) for key in keys]


def _is_run(path: Path) -> bool:
    return (path / "metrics.jsonl").is_file() or (path / "transfer.jsonl").is_file()


def _find(path: Path) -> list[Path]:
    if path.is_file() or _is_run(path):
        return [path.parent if path.is_file() else path]
    if not path.is_dir():
        raise ValueError(f"{path} does not exist; give the work directories of runs.")
    files = [*path.rglob("metrics.jsonl"), *path.rglob("transfer.jsonl")]
    if not files:
        raise ValueError(f"there is no metrics.jsonl below {path}; give work directories of runs.")
    return sorted({file.parent for file in files})


def _check_scores(path: Path, rows: Iterable[Row]) -> None:
    for row in rows:
        score = row["score"]
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not isinstance(row["task"], str) or not (score is None or is_number):
            raise ValueError(
                f"{path} has a row with the task {row['task']!r} and the score {score!r}; a task "
                "is a string, and a score a number or null."
            )


def _parse(text: str) -> tuple[Any, bool]:
    """Returns parsed JSON with None for numbers that are not finite, and whether there were any."""
    infinite: list[str] = []

    def finite(number: str) -> float | None:
        value = float(number)
        if math.isfinite(value):
            return value
        infinite.append(number)
        return None

    return json.loads(text, parse_float=finite, parse_constant=infinite.append), bool(infinite)


def _read_config(path: Path, notes: list[str]) -> Row:
    if not path.exists():
        notes.append(f"{path.name} is missing.")
        return {}
    try:
        config = json.loads(path.read_text(errors="replace"))
    except json.JSONDecodeError as error:
        notes.append(f"{path.name} is not valid JSON ({error}) and is left out.")
        return {}
    if not isinstance(config, dict):
        notes.append(f"{path.name} is not an object and is left out.")
        return {}
    return config
