"""The scores of several runs put together: mean log odds over the tasks that all of them have.

A mean over other tasks is another number, so a task that one run lacks is left out for all, and
said. A score of exactly 0 or 1 has no log odds; for the mean alone it is taken to be half a test
image away from there, 1 / 2n or 1 - 1 / 2n of n, which is also said.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from probes import odds

Row = dict[str, Any]


class Result(NamedTuple):
    """The scores of one run.

    Attributes:
      run: its work directory.
      rows: of ``transfer.jsonl``, by task.
      test: its row of ``metrics.jsonl`` of the test split, empty if there is none.
    """

    run: Path
    rows: dict[str, Row]
    test: Row


def summarise(results: Sequence[Result], tasks: Sequence[str]) -> list[Row]:
    """Returns a summary of each run: ``mlo``, ``mlog``, what they are the means of, and notes.

    ``mlo`` is None if there is no task that all runs have; ``mlog`` also if the accuracy of the
    run's own test split is not known.

    Args:
      results: of the runs.
      tasks: those that were asked for.
    """
    shared = [task for task in tasks if all(task in result.rows for result in results)]
    return [_summary(result, tasks, shared) for result in results]


def _summary(result: Result, tasks: Sequence[str], shared: Sequence[str]) -> Row:
    missing = [task for task in tasks if task not in shared]
    notes = []
    if missing:
        notes.append(f"left out, as not every run has a score: {', '.join(missing)}.")
    scores = [
        _inside(result.rows[task]["score"], result.rows[task]["test_size"], task, notes)
        for task in shared
    ]
    own, size = result.test.get("accuracy"), result.test.get("samples")
    if own is None:
        notes.append("no MLOG: metrics.jsonl has no test accuracy at this step.")
    else:
        own = _inside(own, size, "its own test split", notes)
    return {
        "run": result.run.resolve().name,
        "tasks": list(shared),
        "mlo": odds.mlo(scores) if shared else None,
        "mlog": odds.mlog(scores, own) if shared and own is not None else None,
        "pretraining_accuracy": result.test.get("accuracy"),
        "notes": notes,
    }


def _inside(score: float, size: int, what: str, notes: list[str]) -> float:
    if 0 < score < 1:
        return score
    moved = abs(score - 1 / (2 * size))
    notes.append(f"{what} is {score:g}, taken as {moved:.4g}: half of its {size} images away.")
    return moved


def best(results: Sequence[Result], task: str) -> set[int]:
    """Returns which results have the highest score of a task."""
    scores: Mapping[int, float] = {
        number: result.rows[task]["score"]
        for number, result in enumerate(results)
        if task in result.rows
    }
    return {number for number, score in scores.items() if score == max(scores.values())}
