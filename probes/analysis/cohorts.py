"""A study: several runs with their metrics and the transfer of their features.

It is the input of correlations, of figure 7 and of tables 1 and 2, from work directories
(``from_runs``) or from the published tables (``published.py``).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from probes.analysis import runs
from probes.analysis.runs import Row, Run
from probes.transfer import escape, odds

# The four metrics that the paper compares.
METRICS = ("fuzziness", "squared_distance", "cosine_similarity", "vci")

# The group of all runs.
ALL = "all"

_UNPROBED = "it has no scores in transfer.jsonl"


class Study(NamedTuple):
    """N runs of one or more groups.

    Attributes:
      names: unique names of the runs.
      groups: the group of each run.
      settings: a number for each run, the same for runs that differ in the seed alone.
      scores: test scores in (0, 1) by task, ``[N]``; 0 and 1 are moved inside by half an image.
      metrics: values by name, ``[N]``; NaN where a run does not have one.
      accuracy: accuracy on the test split of the pretraining data, ``[N]``.
      mlo: mean log odds of the scores, ``[N]``.
      mlog: MLO less the log odds of the accuracy, ``[N]``.
      notes: sentences about what was left out or moved.
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
        """Returns the rows of each group and, if there are several, of ``ALL`` runs, last."""
        rows: dict[str, list[int]] = {}
        for i, group in enumerate(self.groups):
            rows.setdefault(_group_name(group), []).append(i)
        members = {group: np.array(numbers) for group, numbers in rows.items()}
        return members if len(rows) == 1 else members | {ALL: np.arange(len(self.groups))}


def from_runs(candidates: Sequence[Run], split: str) -> Study:
    """Returns the runs that can be compared, with the tasks that all of them were scored on.

    Scores are compared with the metrics of their own step if it was measured, else with the last
    ones, with a note. Scores and accuracies of 0 and 1 are moved inside the interval by half an
    image, with a note (``odds.inside``). A run is left out, with a note, if it has no scores, or if
    its test accuracy or a score is missing, null or not a share of images. Names become unique
    single lines (``escape.lines``).

    Args:
      candidates: runs as read from work directories.
      split: the split of the metrics, ``"train"`` or ``"test"``.

    Raises:
      ValueError: fewer than two runs are left, or they have no task in common; names the reasons.
    """
    names = escape.lines([run.name for run in candidates])
    notes, comparable, scores, accuracies = [], [], [], []
    for name, run in zip(names, candidates, strict=True):
        try:
            own_scores, own_accuracy, adjustments = shares(run)
        except ValueError as error:
            notes.append(f"{name}: left out, {str(error).rstrip('.')}.")
        else:
            comparable.append(run._replace(name=name, group=_group_name(escape.line(run.group))))
            scores.append(own_scores)
            accuracies.append(own_accuracy)
            notes += [f"{name}: {sentence}" for sentence in adjustments]
    notes += [note for run in comparable for note in _mismatches(run, split)]
    tasks = [task for task in scores[0] if all(task in s for s in scores)] if scores else []
    if len(comparable) < 2 or not tasks:
        raise ValueError(_too_few(candidates, len(comparable), notes))
    dropped = sorted({task for other in scores for task in other} - set(tasks))
    if dropped:
        notes.append(f"tasks that not every run was scored on are left out: {', '.join(dropped)}.")
    table = {task: np.array([row[task] for row in scores]) for task in tasks}
    accuracy = np.array(accuracies)
    mlo, mlog = gains(table, accuracy)
    return Study(
        names=[run.name for run in comparable],
        groups=[run.group for run in comparable],
        settings=runs.settings(comparable),
        scores=table,
        metrics={name: _column(comparable, split, name) for name in METRICS},
        accuracy=accuracy,
        mlo=mlo,
        mlog=mlog,
        notes=notes,
    )


def shares(run: Run) -> tuple[dict[str, float], float, list[str]]:
    """Returns the scores of a run by task, its test accuracy, and notes on values that were moved.

    Raises:
      ValueError: scores or the accuracy are missing or not shares of images.
    """
    rows = [row for row in run.transfer if row["score"] is not None]
    if not rows:
        raise ValueError(_UNPROBED)
    own = measured(run, "test")
    if own.get("accuracy") is None:
        raise ValueError("it has no test accuracy in metrics.jsonl")
    adjusted = {escape.line(row["task"]): odds.adjusted_score(row) for row in rows}
    accuracy, accuracy_note = odds.adjusted_accuracy(own)
    notes = [note for note in (*(note for _, note in adjusted.values()), accuracy_note) if note]
    return {task: score for task, (score, _) in adjusted.items()}, accuracy, notes


def gains(scores: dict[str, np.ndarray], accuracy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns MLO and MLOG of each run, ``[N]`` and ``[N]``, from its scores and its accuracy."""
    rows = np.stack(list(scores.values()), axis=1)
    return (
        np.array([odds.mlo(row) for row in rows]),
        np.array([odds.mlog(row, last) for row, last in zip(rows, accuracy, strict=True)]),
    )


def measured(run: Run, split: str) -> Row:
    """Returns the metrics of the scored step, else the last ones, else an empty row."""
    steps = _steps(run)
    same = [row for row in run.rows if row["split"] == split and row.get("step") in steps]
    return same[-1] if len(steps) == 1 and same else run.last(split)


def _column(runs_: Sequence[Run], split: str, metric: str) -> np.ndarray:
    values = [measured(run, split).get(metric) for run in runs_]
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _steps(run: Run) -> list[int]:
    """Returns the recorded steps of the scores."""
    steps = {row.get("step") for row in run.transfer if row["score"] is not None}
    return sorted(step for step in steps if step is not None)


def _mismatches(run: Run, split: str) -> list[str]:
    """Returns notes on missing scores and on rows of a run that are of different steps."""
    missing = [escape.line(row["task"]) for row in run.transfer if row["score"] is None]
    notes = [f"{run.name}: its score on {', '.join(missing)} is null."] if missing else []
    steps = _steps(run)
    for name in dict.fromkeys((split, "test")):
        step = measured(run, name).get("step")
        if step is not None and any(other != step for other in steps):
            listing = ", ".join(map(str, steps))
            notes.append(
                f"{run.name}: its scores are of step {listing}, but its {name} metrics of {step}."
            )
    train, test = (run.last(name).get("step") for name in ("train", "test"))
    if None not in (train, test) and train != test:
        notes.append(f"{run.name}: its last train row is of step {train}, its last test of {test}.")
    return notes


def _group_name(group: str) -> str:
    """Returns the name of a group, changed if it is the name of all runs."""
    return f'group "{ALL}"' if group == ALL else group


def _too_few(candidates: Sequence[Run], count: int, notes: Sequence[str]) -> str:
    """Returns the error message for runs that cannot be compared."""
    reasons = "\n".join(notes) or "the runs have no task in common."
    message = f"{count} of {len(candidates)} run(s) can be compared, and two are needed that were "
    message += f"scored on the same tasks:\n{reasons}"
    probed = all(any(row["score"] is not None for row in run.transfer) for run in candidates)
    if not probed or count > 1:
        message += "\nProbe them on the same tasks: python -m probes transfer RUN..."
    return message
