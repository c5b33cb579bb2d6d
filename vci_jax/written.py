"""What is written to disk: files that are always whole, and numbers as JSON has them."""

import contextlib
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Gives a file to write, which takes its place at once when it is done.

    A reader sees the old file or the new one, whole, also if the machine stops.

    Args:
      path: of the file; its directory is made.
      mode: ``"w"`` for text, ``"wb"`` for bytes.
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
    """Writes a text file, whole."""
    with replacing(path) as file:
        file.write(text)


def json_ready(value: Any) -> Any:
    """Returns a value as JSON has it: plain numbers, and None where one is not finite."""
    if isinstance(value, Mapping):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
