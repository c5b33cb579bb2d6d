"""``transfer.jsonl``: one row a score, appended when it is known, on disk when that returns.

Where a task was scored more than once, its last row counts. A line that a killed process left half
written is dropped when the file is next opened.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from train.config import ConfigError
from vci_jax.written import replace_text

Row = dict[str, Any]


class Ledger:
    """The rows of one run."""

    def __init__(self, path: Path) -> None:
        """Reads what is there.

        Raises:
          ConfigError: a line other than the last is not JSON, or one is not a row.
        """
        self._path = path
        self._rows: dict[str, Row] = {}
        lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
        whole = ""
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                if number == len(lines):
                    break
                raise ConfigError(f"{path}, line {number}, is not valid JSON: {error}.") from error
            if not isinstance(row, dict) or not isinstance(row.get("task"), str):
                raise ConfigError(
                    f"{path}, line {number}, is not a row of a task; delete the line."
                )
            self._rows[row["task"]] = row
            whole += line if line.endswith("\n") else line + "\n"
        if whole != "".join(lines):
            replace_text(path, whole)

    @property
    def rows(self) -> dict[str, Row]:
        """The last row of each task."""
        return dict(self._rows)

    def has(self, task: str, key: str) -> bool:
        """Whether the last row of a task has a key."""
        return task in self._rows and self._rows[task].get("key") == key

    def add(self, row: Row) -> None:
        """Appends a row; numbers that are not finite become null."""
        row = {name: _finite(value) for name, value in row.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[row["task"]] = row


def write_json(path: Path, content: Any) -> None:
    """Writes a file of JSON in one go: a reader finds the old one or the new one."""
    replace_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
