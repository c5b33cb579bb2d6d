"""The tables of docs/study/pilot.md: effects of the loss compared with noise, by regime.

The rows are in ``docs/study/pilot.json``, one for each trained network; ``pilot_score``
adds those of further runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from probes.analysis import tables
from probes.analysis.tables import Table
from probes.transfer import odds

_PLAIN = "tau_1.0"  # Plain cross-entropy, which is in both groups.
TASKS = ("cifar10", "cifar100")


class Row(NamedTuple):
    """A network of the pilot.

    Attributes:
      regime: name of the network, data and epochs.
      setting: setting of the loss, such as ``tau_0.05``.
      minutes: wall-clock time of the training.
      train, test: metrics of the pretraining images; ``test`` has their number too.
      tasks: accuracy and number of test images of each task.
    """

    regime: str
    setting: str
    seed: int
    minutes: float
    train: Mapping[str, float]
    test: Mapping[str, float]
    tasks: Mapping[str, Mapping[str, float]]

    @property
    def mlo(self) -> float:
        """Mean log odds over the tasks."""
        return odds.mlo([task["accuracy"] for task in self.tasks.values()])

    @property
    def mlog(self) -> float:
        """The same less the log odds of the network's own test accuracy."""
        return self.mlo - odds.mlo([self.test["accuracy"]])


def row(fields: Mapping[str, Any]) -> Row:
    """Returns a row of the raw file."""
    return Row(**fields)


def errors(row: Row) -> tuple[float, float]:
    """Returns the standard errors of MLO and of MLOG from the sizes of the test sets.

    Delta method: log(a / (1 - a)) of n images has the variance 1 / (n a (1 - a)); test sets are
    taken as independent. Differences on the same images have smaller errors.
    """

    def variance(share: float, size: float) -> float:
        return 1 / (size * share * (1 - share))

    tasks = [variance(task["accuracy"], task["images"]) for task in row.tasks.values()]
    mlo = sum(tasks) / len(tasks) ** 2
    own = variance(row.test["accuracy"], row.test["samples"])
    return float(np.sqrt(mlo)), float(np.sqrt(mlo + own))


def markdown(rows: Sequence[Row]) -> str:
    """Returns both tables."""
    return "\n\n".join(map(tables.markdown, (_runs(rows), _effects(rows)))) + "\n"


def _runs(rows: Sequence[Row]) -> Table:
    header = ["Regime", "Setting", "seed", "min", "train acc. %", "test acc. %", "VCI train"]
    header += ["VCI test", "cos. sim.", *(f"{name} %" for name in TASKS), "MLO", "MLOG", "SE"]
    return Table("Runs of the pilot", header, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    scores = [row.tasks.get(name, {}).get("accuracy") for name in TASKS]
    return [
        row.regime,
        row.setting,
        str(row.seed),
        f"{row.minutes:.1f}",
        f"{100 * row.train['accuracy']:.1f}",
        f"{100 * row.test['accuracy']:.2f}",
        f"{row.train['vci']:.4f}",
        f"{row.test['vci']:.4f}",
        f"{row.train['cosine_similarity']:.3f}",
        *("" if score is None else f"{100 * score:.2f}" for score in scores),
        f"{row.mlo:.3f}",
        f"{row.mlog:.3f}",
        f"{errors(row)[1]:.3f}",
    ]


def _effects(rows: Sequence[Row]) -> Table:
    """Returns the spread of the settings and the noise, in each group of each regime.

    "sd" is the standard deviation of the settings' means over seeds. The error of a mean is pooled
    over the regime's settings from their seeds; without two seeds, it is from the test images.
    """
    effects = []
    for regime in dict.fromkeys(row.regime for row in rows):
        inside = [row for row in rows if row.regime == regime]
        for knob, label in (("tau", "temperature"), ("lambda", "regulariser")):
            group = [row for row in inside if row.setting.startswith(knob) or row.setting == _PLAIN]
            if len({row.setting for row in group}) > 1:
                effects.append([regime, label, *_effect(group, inside)])
    header = ["Regime", "Group", "settings (runs)"]
    for name in ("MLO", "MLOG"):
        header += [f"{name}: range", "sd", "SE seeds", "SE images", "sd / SE"]
    return Table("Settings against noise", header, effects)


def _effect(group: Sequence[Row], regime: Sequence[Row]) -> list[str]:
    settings = dict.fromkeys(row.setting for row in group)
    seeds = len(group) / len(settings)
    cells = [f"{len(settings)} ({len(group)})"]
    for position, name in enumerate(("mlo", "mlog")):
        means = [
            np.mean([getattr(row, name) for row in group if row.setting == setting])
            for setting in settings
        ]
        spread = float(np.std(means, ddof=1))
        noise = seed_noise(regime, name) / np.sqrt(seeds)
        images = float(np.median([errors(row)[position] for row in group]))
        error = images if np.isnan(noise) else noise
        cells += [f"{max(means) - min(means):.3f}", f"{spread:.3f}"]
        cells += ["" if np.isnan(noise) else f"{noise:.3f}", f"{images:.3f}"]
        cells.append(f"{spread / error:.1f}")
    return cells


def seed_noise(rows: Sequence[Row], name: str) -> float:
    """Returns the standard deviation between seeds of one setting, pooled, or NaN."""
    squares, degrees = 0.0, 0
    for setting in dict.fromkeys(row.setting for row in rows):
        values = [getattr(row, name) for row in rows if row.setting == setting]
        squares += len(values) * float(np.var(values))
        degrees += len(values) - 1
    return float(np.sqrt(squares / degrees)) if degrees else float("nan")
