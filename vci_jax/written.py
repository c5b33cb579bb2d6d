"""Writes files atomically, with numbers that JSON can hold."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from vci_jax.errors import VCIError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file to write, which replaces the old one atomically at the end.

    A reader sees the old file or the new one, also if the machine stops. The directory is created
    if it is missing; ``mode`` is ``"w"`` for text, ``"wb"`` for bytes.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as file:
        file.write(text)


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = 2) -> None:
    """Writes a JSON file atomically; numbers that are not finite become null."""
    replace_text(path, json.dumps(json_ready(content), indent=indent, allow_nan=False) + "\n")


def json_lines(rows: Iterable[Any]) -> str:
    """Returns the text of a JSON-lines file; numbers that are not finite become null."""
    return "".join(json.dumps(json_ready(row), allow_nan=False) + "\n" for row in rows)


def append_json_lines(path: str | os.PathLike[str], rows: Iterable[Any]) -> None:
    """Adds lines to a JSON-lines file, on disk when this returns."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json_lines(rows))
        file.flush()
        os.fsync(file.fileno())


def read_json_lines(
    path: str | os.PathLike[str], parse: Callable[[str], Any] = json.loads
) -> tuple[dict[int, Any], int | None]:
    """Reads a JSON-lines file, which may be missing, or have a truncated last line.

    Returns:
      The parsed value of each line by its number, from 1, without blank lines; and the number of a
      truncated last line, or None.

    Raises:
      VCIError: another line is not JSON; names file and line.
    """
    path = pathlib.Path(path)
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    lines = {n: line for n, line in enumerate(text.splitlines(), start=1) if line.strip()}
    values = {}
    for number, line in lines.items():
        try:
            values[number] = parse(line)
        except json.JSONDecodeError as error:
            if number == max(lines):
                return values, number
            raise VCIError(f"{path}, line {number}, is not valid JSON: {error}.") from error
    return values, None


def json_ready(value: Any) -> Any:
    """Returns a value for JSON: plain numbers, and None for those that are not finite."""
    if isinstance(value, Mapping):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
