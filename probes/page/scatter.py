"""Collapse on the training data against transfer, one point a run."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from probes.odds import mlo, mlog
from probes.page.curves import short
from probes.page.metrics import BY_NAME, COLLAPSE
from probes.runs import Run, settings

# Below it, a correlation is close to 1 in absolute value for many unrelated pairs of numbers.
_FEW = 10


def transfer_score(run: Run, tasks: Sequence[str]) -> float | None:
    """Returns the mean log odds gain of a run over tasks (MLOG), or None if it has no such score.

    Without the accuracy of the pretraining it is the mean log odds (MLO) that is returned.
    """
    scores = {row["task"]: row["score"] for row in run.transfer}
    if not tasks or any(task not in scores for task in tasks):
        return None
    chosen, accuracy = [scores[task] for task in tasks], run.last("test").get("accuracy")
    try:
        return mlo(chosen) if accuracy is None else mlog(chosen, accuracy)
    except (ValueError, TypeError):  # A score of 0 or 1 has no finite odds, null none at all.
        return None


def common_tasks(runs: Sequence[Run]) -> list[str]:
    """Returns the tasks that every run which has any has; only these can be compared."""
    having = [[row["task"] for row in run.transfer] for run in runs if run.transfer]
    return [task for task in (having[0] if having else []) if all(task in h for h in having)]


def scatters(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns a chart of transfer against each metric of the paper."""
    tasks = common_tasks(runs)
    scores = [transfer_score(run, tasks) for run in runs]
    return [_scatter(name, runs, scores) for name in COLLAPSE]


def strength(x: Sequence[float], y: Sequence[float]) -> dict[str, float | None] | None:
    """Returns Pearson's r with its 95 % interval by Fisher's z, and Spearman's rank correlation.

    None for fewer than three points, or if one of the two samples does not vary. The interval is
    None for three points, and where all lie on a line.
    """
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    pearson = stats.pearsonr(x, y)
    low, high = pearson.confidence_interval(0.95) if len(x) > 3 else (math.nan, math.nan)
    known = math.isfinite(low) and math.isfinite(high)
    return {
        "pearson": float(pearson.statistic),
        "low": float(low) if known else None,
        "high": float(high) if known else None,
        "spearman": float(stats.spearmanr(x, y).statistic),
    }


def _scatter(name: str, runs: Sequence[Run], scores: list[float | None]) -> dict[str, Any]:
    found = [
        (run.last("train").get(name), score, number)
        for number, (run, score) in enumerate(zip(runs, scores, strict=True))
    ]
    points = sorted(point for point in found if None not in point)
    x, y = [p[0] for p in points], [p[1] for p in points]
    told = strength(x, y)
    return {
        "id": f"scatter-{name}",
        "title": BY_NAME[name].title,
        "points": [{"run": run, "x": short(a), "y": short(b)} for a, b, run in points],
        "strength": told,
        "notes": _notes(runs, [run for _, _, run in points], told),
        "reason": "" if told else _why_none(name, runs, scores, len(points)),
    }


def _notes(runs: Sequence[Run], used: list[int], told: dict[str, float | None] | None) -> list[str]:
    if told is None:
        return []
    sorts = len(set(settings([runs[i] for i in used])))
    return [
        sentence
        for applies, sentence in (
            (
                len(used) < _FEW,
                f"Thin evidence: {len(used)} runs. The interval takes them for independent.",
            ),
            (sorts == len(used), "One seed a setting: the luck of a seed is part of each point."),
            (sorts < len(used), f"{len(used)} runs of {sorts} settings are not independent."),
            (
                told["low"] is not None and told["low"] < 0 < told["high"],
                "The interval holds 0: the sign of this correlation is not settled.",
            ),
        )
        if applies
    ]


def _why_none(name: str, runs: Sequence[Run], scores: list[float | None], points: int) -> str:
    if not any(run.transfer for run in runs):
        return "No run has a transfer.jsonl: probe them first."
    if not any(score is not None for score in scores):
        return (
            "No run has a score on the tasks that all share, strictly between 0 and 1: "
            "mean log odds are undefined."
        )
    if points < 3:
        return f"{points} run(s) with {BY_NAME[name].title} and transfer; three are the least."
    return "All runs have the same value: nothing to correlate."
