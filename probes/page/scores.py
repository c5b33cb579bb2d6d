"""The table of transfer scores, with the best of each task marked."""

from collections.abc import Sequence
from typing import Any

from probes.analysis.cohorts import measured
from probes.analysis.runs import Run
from probes.page.tables import DASH, numbers
from probes.transfer import escape, odds, summary


def table(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Returns the scores by run and task, the best of each task marked; None if there are none."""
    having = [run for run in runs if run.transfer]
    if not having:
        return None
    tasks = list(dict.fromkeys(row["task"] for run in having for row in run.transfer))
    scored = [{row["task"]: row for row in run.transfer} for run in having]
    shared = common_tasks(runs)
    gain = all(measured(run, "test").get("accuracy") is not None for run in having)
    means = [transfer_score(run, shared, gain=gain) for run in having]
    return {
        "tasks": [
            {"name": escape.line(task), "score": _score_name(scored, task)} for task in tasks
        ],
        "runs": [
            {"name": run.name, "cells": [_score(scored, i, task) for task in tasks]}
            for i, run in enumerate(having)
        ],
        "means": [
            {"text": text, "best": i in _best(means)} for i, text in enumerate(numbers(means))
        ],
        "mean_name": "MLOG" if gain else "MLO",
        "shared": len(shared),
        "lacking": [run.name for run in runs if not run.transfer],
    }


def common_tasks(runs: Sequence[Run]) -> list[str]:
    """Returns the tasks that every run which has any has; only these can be compared."""
    having = [[row["task"] for row in run.transfer] for run in runs if run.transfer]
    return [task for task in (having[0] if having else []) if all(task in h for h in having)]


def transfer_score(run: Run, tasks: Sequence[str], *, gain: bool) -> float | None:
    """Returns the mean log odds of a run over tasks, or None if it is undefined.

    Args:
      run: with scores.
      tasks: all of which it must have.
      gain: take off the log odds of the accuracy on its own test split (MLOG rather than MLO).
    """
    rows = {row["task"]: row for row in run.transfer if row["score"] is not None}
    if not tasks or any(task not in rows for task in tasks):
        return None
    own = measured(run, "test")
    try:
        scores = [odds.of_score(rows[task])[0] for task in tasks]
        return odds.mlog(scores, odds.of_accuracy(own)[0]) if gain else odds.mlo(scores)
    except (ValueError, KeyError):  # Of 0 or 1 it is not known how many images they are of.
        return None


def _score_name(scored: list[dict[str, Any]], task: str) -> str:
    return next((s[task].get("score_name", "") for s in scored if task in s), "")


def _score(scored: list[dict[str, Any]], which: int, task: str) -> dict[str, Any]:
    row = scored[which].get(task)
    if row is None or row["score"] is None:
        return {"text": DASH, "best": False, "detail": "not probed"}
    among = [s[task]["score"] if task in s else None for s in scored]
    best = which in _best(among)
    detail = [
        f"{name} {row[key]:.4g}"
        for key, name in (("validation_score", "validation"), ("l2", "l2"))
        if row.get(key) is not None
    ]
    return {"text": f"{row['score']:.4f}", "best": best, "detail": ", ".join(detail)}


def _best(values: Sequence[float | None]) -> set[int]:
    """Returns the places of the highest value, where there is more than one."""
    defined = [value for value in values if value is not None]
    return summary.leading(values) if len(defined) > 1 else set()
