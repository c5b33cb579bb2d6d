"""Mean log odds of several runs, over the tasks that all of them have.

A task that one run lacks is left out for all, with a note. For the mean, scores of exactly 0 and 1
are moved inside by half an image (``odds.inside``), with a note.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from probes.transfer import odds, rounding

Row = dict[str, Any]


class ModelScores(NamedTuple):
    """The scores of one run.

    Attributes:
      run: its work directory.
      rows: rows of ``transfer.jsonl`` by task.
      test: row of ``metrics.jsonl`` of the test split, or empty.
    """

    run: Path
    rows: dict[str, Row]
    test: Row


def summarise(results: Sequence[ModelScores], tasks: Sequence[str]) -> list[Row]:
    """Returns a summary of each run: ``mlo``, ``mlog``, the tasks of these means, and notes.

    ``mlo`` is None if the runs share none of the tasks; ``mlog`` also if the accuracy of the run's
    own test split is unknown.
    """
    shared = [task for task in tasks if all(_score(result, task) is not None for result in results)]
    return [_summary(result, tasks, shared) for result in results]


def _summary(result: ModelScores, tasks: Sequence[str], shared: Sequence[str]) -> Row:
    missing = [task for task in tasks if task not in shared]
    notes = []
    if missing:
        notes.append(f"left out, as not every run has a score: {', '.join(missing)}.")
    scores, own, mlo, mlog = [], None, None, None
    try:
        for task in shared:
            scores.append(_noted(odds.adjusted_score({**result.rows[task], "task": task}), notes))
        mlo = odds.mlo(scores) if shared else None
    except ValueError as error:
        notes.append(f"no MLO: {error}")
    if result.test.get("accuracy") is None:
        notes.append("no MLOG: metrics.jsonl has no test accuracy at this step.")
    else:
        try:
            own = _noted(odds.adjusted_accuracy(result.test), notes)
            mlog = odds.mlog(scores, own) if mlo is not None else None
        except ValueError as error:
            notes.append(f"no MLOG: {error}")
    return {
        "run": result.run.resolve().name,
        "tasks": list(shared),
        "mlo": mlo,
        "mlog": mlog,
        "pretraining_accuracy": result.test.get("accuracy"),
        "notes": notes,
    }


def _noted(adjusted: tuple[float, str], notes: list[str]) -> float:
    """Returns an adjusted value, and adds its note, if any, to the notes."""
    value, note = adjusted
    notes += [note] if note else []
    return value


def _score(result: ModelScores, task: str) -> float | None:
    return result.rows[task]["score"] if task in result.rows else None


def best(results: Sequence[ModelScores], task: str) -> set[int]:
    """Returns the indices of the results with the highest score of a task."""
    return leading([_score(result, task) for result in results])


def leading(values: Sequence[float | None]) -> set[int]:
    """Returns the indices of the highest value; values that differ by rounding alone are equal.

    >>> leading([0.3, None, 0.1 + 0.2, 0.2])
    {0, 2}
    """
    defined = [value for value in values if value is not None]
    if not defined:
        return set()
    least = max(defined) - rounding.SHARE * max(1.0, abs(max(defined)))
    return {i for i, value in enumerate(values) if value is not None and value >= least}
