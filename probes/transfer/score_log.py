"""``transfer.jsonl``: one row per score, on disk before ``add`` returns.

The last row of each task counts. A line that a killed process left incomplete is dropped when the
file is next opened.
"""

from pathlib import Path
from typing import Any

from train.config import ConfigError
from train.workdir import read_rows
from vci_jax.written import append_json_lines, json_lines, json_ready, replace_text

Row = dict[str, Any]


class ScoreLog:
    """The rows of one run."""

    def __init__(self, path: Path) -> None:
        """Reads the existing rows.

        Raises:
          DamagedRunError: a line other than the last is not JSON.
          ConfigError: a line is not a row.
        """
        self._path = path
        rows = read_rows(path)
        for number, row in rows.items():
            if not isinstance(row, dict) or not isinstance(row.get("task"), str):
                raise ConfigError(f"{path}, line {number}, is not a row of a task; delete it.")
        self._rows: dict[str, Row] = {row["task"]: row for row in rows.values()}
        if path.exists() and not path.read_text(errors="replace").endswith("\n"):
            replace_text(path, json_lines(rows.values()))

    @property
    def rows(self) -> dict[str, Row]:
        """The last row of each task."""
        return dict(self._rows)

    def has(self, task: str, key: str) -> bool:
        """Whether the last row of a task has a key."""
        return task in self._rows and self._rows[task].get("key") == key

    def add(self, row: Row) -> None:
        """Appends a row; numbers that are not finite become null."""
        append_json_lines(self._path, [row])
        self._rows[row["task"]] = json_ready(row)
