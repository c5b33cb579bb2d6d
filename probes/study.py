"""Runs side by side: what was measured on each, and how its features transfer.

The one input of correlations, of figure 7 and of tables 1 and 2, from work directories
(``from_runs``) or from the published tables (``probes.published``).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from probes import odds, runs
from probes.runs import Row, Run

# The four metrics that the paper compares.
METRICS = ("fuzziness", "squared_distance", "cosine_similarity", "vci")

# The group of all runs.
ALL = "all"


class Study(NamedTuple):
    """N runs of one or more groups.

    Attributes:
      names: of the runs.
      groups: the group of each.
      settings: a number for each, the same for runs that differ in the seed alone.
      scores: test scores in (0, 1) by task, ``[N]``.
      metrics: by name, ``[N]``; NaN where a run does not have one.
      accuracy: on the test split of the data of pretraining, ``[N]``.
      mlo: mean log odds of the scores, ``[N]``.
      mlog: the same less the log odds of the accuracy, ``[N]``.
      notes: sentences about what was left out.
    """

    names: list[str]
    groups: list[str]
    settings: list[int]
    scores: dict[str, np.ndarray]
    metrics: dict[str, np.ndarray]
    accuracy: np.ndarray
    mlo: np.ndarray
    mlog: np.ndarray
    notes: list[str]

    def log_odds(self) -> np.ndarray:
        """Returns the log odds of the pretraining accuracy, ``[N]``."""
        return np.array([odds.mlo([accuracy]) for accuracy in self.accuracy])

    def members(self) -> dict[str, np.ndarray]:
        """Returns the rows of each group; of all runs too, last, where there are several groups."""
        groups = np.array(self.groups)
        rows = {group: np.flatnonzero(groups == group) for group in dict.fromkeys(self.groups)}
        return rows if len(rows) == 1 else rows | {ALL: np.arange(len(groups))}


def from_runs(found: Sequence[Run], split: str) -> Study:
    """Returns the runs that can be compared, with the tasks that all of them were scored on.

    Scores are compared with the metrics of the step they were taken at where that step was
    measured, else with the last ones, with a note. A run is left out, with a note, if it was not
    probed at all, if its test accuracy is missing or has no log odds (0 or 1), or if one of its
    scores has none. A null score is none.

    Args:
      found: as read from work directories.
      split: whose metrics count, ``"train"`` or ``"test"``.

    Raises:
      ValueError: fewer than two runs are left, or they have no task in common; names the reasons.
    """
    notes = [f"{run.name}: left out, {reason}." for run in found if (reason := _unfit(run))]
    kept = [run for run in found if not _unfit(run)]
    notes += [note for run in kept for note in _doubts(run, split)]
    scores = [_scores(run) for run in kept]
    tasks = [task for task in scores[0] if all(task in other for other in scores)] if kept else []
    if len(kept) < 2 or not tasks:
        why = "\n".join(notes) or "the runs have no task in common."
        raise ValueError(
            f"{len(kept)} of {len(found)} run(s) can be compared, and two are needed that were "
            f"scored on the same tasks:\n{why}\nProbe them: python -m probes transfer RUN"
        )
    dropped = sorted({task for other in scores for task in other} - set(tasks))
    if dropped:
        notes.append(f"tasks that not every run was scored on are left out: {', '.join(dropped)}.")
    table = {task: np.array([row[task] for row in scores]) for task in tasks}
    accuracy = np.array([measured(run, "test")["accuracy"] for run in kept])
    mlo, mlog = gains(table, accuracy)
    return Study(
        names=[run.name for run in kept],
        groups=[run.group for run in kept],
        settings=runs.settings(kept),
        scores=table,
        metrics={name: _column(kept, split, name) for name in METRICS},
        accuracy=accuracy,
        mlo=mlo,
        mlog=mlog,
        notes=notes,
    )


def gains(scores: dict[str, np.ndarray], accuracy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns MLO and MLOG of each run, ``[N]`` and ``[N]``, from its scores and its accuracy."""
    rows = np.stack(list(scores.values()), axis=1)
    return (
        np.array([odds.mlo(row) for row in rows]),
        np.array([odds.mlog(row, last) for row, last in zip(rows, accuracy, strict=True)]),
    )


def measured(run: Run, split: str) -> Row:
    """Returns the metrics that belong to the scores: of the same step, or the last; or nothing."""
    steps = _steps(run)
    same = [row for row in run.rows if row["split"] == split and row.get("step") in steps]
    return same[-1] if len(steps) == 1 and same else run.last(split)


def _column(found: Sequence[Run], split: str, metric: str) -> np.ndarray:
    values = [measured(run, split).get(metric) for run in found]
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _scores(run: Run) -> dict[str, float]:
    return {row["task"]: row["score"] for row in run.transfer if row["score"] is not None}


def _steps(run: Run) -> list[int]:
    """The steps at which the scores were taken, where they say so."""
    found = {row.get("step") for row in run.transfer if row["score"] is not None}
    return sorted(step for step in found if step is not None)


def _doubts(run: Run, split: str) -> list[str]:
    """What of a run may not belong together, in sentences."""
    missing = [row["task"] for row in run.transfer if row["score"] is None]
    notes = [f"{run.name}: its score on {', '.join(missing)} is null."] if missing else []
    steps = _steps(run)
    for one in dict.fromkeys((split, "test")):
        step = measured(run, one).get("step")
        if step is not None and any(other != step for other in steps):
            listing = ", ".join(map(str, steps))
            notes.append(
                f"{run.name}: its scores are of step {listing}, but its {one} metrics of {step}."
            )
    train, test = (run.last(one).get("step") for one in ("train", "test"))
    if None not in (train, test) and train != test:
        notes.append(f"{run.name}: its last train row is of step {train}, its last test of {test}.")
    return notes


def _unfit(run: Run) -> str:
    """Why a run has no MLOG, or nothing."""
    accuracy, scores = measured(run, "test").get("accuracy"), _scores(run)
    solved = [task for task, score in scores.items() if not 0 < score < 1]
    if not scores:
        return "it has no scores in transfer.jsonl"
    if accuracy is None or not 0 < accuracy < 1:
        return f"its test accuracy is {accuracy}, which has no log odds"
    return f"a score has no log odds on {', '.join(solved)}" if solved else ""
