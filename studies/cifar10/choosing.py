"""Choice of a network by a cheap score: its regret against the best network under the probe.

Legend: B draws, of which the first is the estimate; N networks.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from probes.analysis.tables import Table
from studies.cifar10 import resampling
from studies.cifar10.networks import OWN, TASKS, Networks
from studies.cifar10.words import NAMES, pretraining_title, title

DRAWS = 400
# Keys of ``StudyData.left_out``: without both VCI losses; with the settings added later.
WITHOUT_VCI, WITH_ALL = "vci_plus, vci_minus", "all"
ALL = "all"  # All labelled images of the target.
# Scores on images of pretraining and of the target; 1 if larger is better, -1 if smaller is.
SOURCE = {"accuracy": 1, "vci": 1, "vci_adjusted": 1}
TARGET = {"vci_adjusted": -1, "h_score_adjusted": 1, "logme": 1, "nearest_mean": 1, "neighbours": 1,
          "probe": 1}  # fmt: skip


class Choices(NamedTuple):
    """Regret of choosing by each score: ``regret[score, size]`` is ``[B T]`` for T tasks.

    Attributes:
      regret: lost accuracy, from 0 to 1. The size is the number of labelled images of the target,
        ``500``, ``2000`` or ``all``; ``""`` for scores of the images of pretraining.
      spread: regret of a random choice: the best accuracy less the mean, ``[B T]``.
      weights: weights of the tasks in a mean over tasks, ``[B T]``.
    """

    regret: dict[tuple[str, str], np.ndarray]
    spread: np.ndarray
    weights: np.ndarray

    def points(self, lost: np.ndarray) -> np.ndarray:
        """Returns the mean over tasks of ``regret`` or ``spread``, in points of accuracy."""
        return np.asarray(100 * (lost * self.weights).sum(axis=1))


def choose(
    networks: Networks,
    accuracy: dict[str, np.ndarray],
    *,
    others: bool = False,
    without: tuple[str, ...] = (),
) -> Choices:
    """Returns the regret of every score.

    A choice is among one network of each setting; the regret is the mean of as many choices as
    there are seeds. Each draw has its own test images and its own networks of each setting.

    ``accuracy`` is from ``resampling.accuracies``. ``others`` draws settings and data sets as well;
    the settings ``without`` are no candidates.
    """
    draws = min(DRAWS, len(accuracy[OWN]))
    candidates = resampling.choices(networks, draws, others=others)
    if without:
        candidates = candidates[:, :, [name not in without for name in networks.settings]]
    regret = {}
    for score, sign in SOURCE.items():
        values = accuracy[OWN][:draws] if score == "accuracy" else networks.metrics["train", score]
        regret[score, ""] = np.stack(
            [regret_of(accuracy[task][:draws], sign * values, candidates) for task in TASKS], axis=1
        )
    for score, sign in TARGET.items():
        for size in sizes(networks, score):
            scores = {task: sign * cheap(networks, task, size, score) for task in TASKS}
            regret[score, size] = np.stack(
                [regret_of(accuracy[task][:draws], scores[task], candidates) for task in TASKS],
                axis=1,
            )
    spread = np.stack(
        [_random_regret(accuracy[task][:draws], candidates) for task in TASKS], axis=1
    )
    return Choices(regret, spread, resampling.task_weights(draws, others=others))


def sizes(networks: Networks, score: str) -> list[str]:
    """Returns the numbers of labelled images at which some task has a score."""
    scored = {size for _, size, name in networks.cheap if name == score}
    common = sorted(scored & {"500", "2000"}, key=int)
    return common + ([] if score == "probe" else [ALL])


def cheap(networks: Networks, task: str, size: str, score: str) -> np.ndarray:
    """Returns a score of each network on ``size`` labelled images of a task, or on all it has."""
    scored = [n for scored_task, n, name in networks.cheap if (scored_task, name) == (task, score)]
    return networks.cheap[task, size if size in scored else max(scored, key=int), score]


def regret_of(accuracy: np.ndarray, score: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Returns the best accuracy less that of the network of the highest score, ``[B]``.

    A network whose score is NaN is not chosen; if all are NaN, the regret is NaN.

    Args:
      accuracy: accuracy of every network, ``[B N]``.
      score: ``[N]`` or ``[B N]``.
      candidates: networks of each choice, ``[B C S]``; regret is averaged over the C choices.
    """
    accuracy, score = (_take(values, candidates) for values in (accuracy, score))
    undefined = np.isnan(score)
    best = np.argmax(np.where(undefined, -np.inf, score), axis=2)[..., None]
    lost = accuracy.max(axis=2) - np.take_along_axis(accuracy, best, axis=2)[..., 0]
    return np.asarray(np.where(undefined.all(axis=2), np.nan, lost).mean(axis=1))


def _random_regret(accuracy: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    accuracy = _take(accuracy, candidates)
    return np.asarray((accuracy.max(axis=2) - accuracy.mean(axis=2)).mean(axis=1))


def _take(values: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Returns the values, ``[N]`` or ``[B N]``, of the candidates of each choice, ``[B C S]``."""
    values = np.broadcast_to(values, (len(candidates), values.shape[-1]))
    return np.take_along_axis(values[:, None, :], candidates, axis=2)


def size_table(choices: Choices) -> Table:
    """Returns the table of regret by score and number of labelled images of the target."""
    regret, rows = choices.regret, []
    for score in TARGET:
        cells = [
            points(choices, regret[score, size]) if (score, size) in regret else ""
            for size in ("500", "2000", ALL)
        ]
        rows.append([f"{NAMES[score]}, on the target", *cells])
    for score in SOURCE:
        rows.append([pretraining_title(score), "", "", points(choices, regret[score, ""])])
    rows.append(["any network, at random", "", "", points(choices, choices.spread)])
    header = ["Choose the network by", "500 images", "2,000 images", "all images"]
    return Table("Accuracy lost by the choice, in points (± standard error)", header, rows)


def _scores_on_all(choices: Choices) -> Iterable[tuple[str, tuple[str, str]]]:
    """Yields names and keys of the scores on all labelled images and on pretraining images."""
    for score in TARGET:
        if (score, ALL) in choices.regret:
            yield f"{NAMES[score]}, on the target", (score, ALL)
    for score in SOURCE:
        yield pretraining_title(score), (score, "")


def task_table(choices: Choices) -> Table:
    """Returns the table of regret by score and task."""
    regret = choices.regret
    rows = [
        [name, *(f"{100 * value:.2f}" for value in regret[key][0])]
        for name, key in _scores_on_all(choices)
    ]
    rows.append(["any network, at random", *(f"{100 * x:.2f}" for x in choices.spread[0])])
    return Table("The same on every task, all images", ["Choose the network by", *TASKS], rows)


def without_table(choices: Choices, left_out: dict[str, Choices]) -> Table:
    """Returns the table of regret if some settings were not among the candidates."""
    rows = []
    for name, key in _scores_on_all(choices):
        lost = {names: entry.points(entry.regret[key])[0] for names, entry in left_out.items()}
        single = {names: lost[names] for names in lost if names not in (WITHOUT_VCI, WITH_ALL)}
        extremes = min(single, key=single.__getitem__), max(single, key=single.__getitem__)
        cells = [f"{lost[names]:.2f}" for names in (WITH_ALL, "vci_minus", WITHOUT_VCI)]
        cells += [f"{single[setting]:.2f} ({title(setting)})" for setting in extremes]
        rows.append([name, *cells])
    header = ["Choose the network by", "with regularisers 1.5 and 2 (two seeds)"]
    header += ["without cross-entropy - 0.5 VCI", "without both VCI losses"]
    header += ["least without one setting", "most without one setting"]
    return Table("The same, if other settings had been there to choose", header, rows)


def points(choices: Choices, lost: np.ndarray) -> str:
    """Returns a mean over tasks with its standard error, from the draws."""
    mean = choices.points(lost)
    return f"{mean[0]:.2f} ± {mean[1:].std():.2f}"
