"""The array_record files of a prepared data set: that all are there, whole, with their records."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from train.config import ConfigError

_THREADS = 16  # On a network file system, opening is waiting.


def check(splits: Iterable[Any], remedy: str) -> None:
    """Opens every file of some splits and counts its records against the description.

    Args:
      splits: of TFDS (``SplitInfo``).
      remedy: a sentence for the message.

    Raises:
      ConfigError: a file is missing, cut or damaged; names it.
    """
    expected = [
        (Path(path), length)
        for split in splits
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = list(pool.map(_problem, *zip(*expected, strict=True)))
    damaged = [
        f"{path} {problem}"
        for (path, _), problem in zip(expected, problems, strict=True)
        if problem
    ]
    if damaged:
        more = f" (and {len(damaged) - 1} more files)" if damaged[1:] else ""
        raise ConfigError(f"{damaged[0]}{more}. {remedy}")


def _problem(path: Path, length: int) -> str:
    """Returns what is wrong with a file; nothing if it is sound."""
    from array_record.python.array_record_module import (  # type: ignore[import-untyped]
        ArrayRecordReader,
    )

    if not path.exists():
        return "is missing"
    if not path.is_file():
        return "is not a file"
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        reader.close()
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        return f"is cut or damaged ({said})"
    return "" if count == length else f"holds {count} records instead of {length}"
