"""The pictures of the study: its design, its answer, and the regret of choices."""

from pathlib import Path
from typing import Any

import numpy as np

from probes import figures
from probes.figures import style
from probes.figures.style import Axes, Figure, Line2D
from studies.cifar10 import choosing, statements
from studies.cifar10.document import StudyData
from studies.cifar10.networks import GROUPS, PLAIN, TASKS
from studies.cifar10.words import NAMES, pretraining_title, title

_WIDTH = style.PAGE
# Labels of some points of the first panel, and their side of the point.
_LABELS = {
    "vci_plus": ("+ 0.5 VCI", "above"),
    "vci_minus": ("- 0.5 VCI", "right"),
    "logit_norm": ("normalised logits", "right"),
    "mse": ("squared error", "right"),
    "lambda_1.5": ("regulariser 1.5", "right"),
    "lambda_2.0": ("regulariser 2", "left"),
}
_SIDES = {"right": ((6, 0), "left"), "left": ((-6, 0), "right"), "above": ((0, 20), "center")}
_PLAIN = {"temperature": "1", "regulariser": "0", "objectives": "cross-entropy"}
_SIZES = {"500": "500 images", "2000": "2,000 images", choosing.ALL: "all images"}


def draw(study: StudyData, directory: Path) -> list[Path]:
    """Writes the pictures and returns their paths."""
    drawn = {"design": design(study), "answer": answer(study), "regret": regret(study)}
    return [figures.save(figure, directory / f"{name}.png") for name, figure in drawn.items()]


def design(study: StudyData) -> Figure:
    """Draws the design: groups, settings and tasks."""
    figure = style.figure(_WIDTH, 2.9)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 100), ylim=(0, 60))
    first = "5,000 images\nof CIFAR-10\n\nResNet-8,\n64 features,\n30 epochs"
    _box(axes, (9, 32), first, style.GREY)
    for row, (group, settings) in enumerate(GROUPS.items()):
        shown = [_short(name) if name != PLAIN else _PLAIN[group] for name in settings]
        lines = [", ".join(shown)]
        if group == "objectives":  # Words, not numbers: several lines.
            lines = [", ".join(shown[start : start + 3]) for start in range(0, len(shown), 3)]
        y = 52 - 17 * row - 3 * (len(lines) > 1)
        label = "\n".join([f"{group}: {len(settings)} settings", *lines])
        _box(axes, (46, y), label, style.COLOURS[row])
        axes.plot((9, 46, 87), (32, y, 32), color=style.GREY, linewidth=0.8, zorder=0)
    sizes = {task: len(study.networks.members[task]) for task in TASKS}
    tasks = "\n".join(f"{task}: {size:,}" for task, size in sizes.items())
    _box(axes, (87, 32), f"linear probes\n(images scored)\n\n{tasks}", style.GREY)
    seeds = f"{len(study.networks.names)} networks, up to {len(set(study.networks.seeds))} seeds"
    note = f"{seeds} a setting; plain cross-entropy is in all three groups"
    axes.text(46, 0, note, ha="center", fontsize=style.SMALL, color=style.GREY)
    return figure


def _short(setting: str) -> str:
    knob, _, value = setting.rpartition("_")
    return value if knob in ("tau", "lambda") else title(setting)


def _box(axes: Axes, centre: tuple[float, float], text: str, colour: str) -> None:
    frame = {"boxstyle": "round,pad=0.7", "facecolor": "white", "edgecolor": colour}
    axes.text(*centre, text, ha="center", va="center", fontsize=style.SMALL, bbox=frame)


def answer(study: StudyData) -> Figure:
    """Draws MLOG with its errors against the four metrics of the paper, for every setting."""
    figure = style.figure(_WIDTH, 5.6)
    panels = figure.subplots(2, 2, sharey=True)
    drawn, entries = study.drawn, []
    for axes, metric in zip(panels.flat, statements.METRICS, strict=True):
        style.panel(axes, style.title(metric), style.direction(metric))
        for index, group in enumerate(GROUPS):
            chosen = statements.members(drawn.settings, group)
            x, y = drawn.metrics["train", metric][:, chosen], drawn.mlog[:, chosen]
            errors = 1.96 * y[1:].std(axis=0)
            bars = axes.errorbar(x[0], y[0], yerr=errors, elinewidth=0.6, **_marker(index))
            entries.append((group, bars.lines[0]))
        for setting, (label, side) in _LABELS.items() if metric == "vci" else ():
            column = drawn.settings.index(setting)
            point = drawn.metrics["train", metric][0, column], drawn.mlog[0, column]
            offset, align = _SIDES[side]
            axes.annotate(
                label, point, offset, textcoords="offset points", ha=align, va="center",
                fontsize=style.SMALL, color=style.GREY,
            )  # fmt: skip
        if metric in ("squared_distance", "fuzziness"):
            style.plain_log_x(axes)
    for axes in panels[:, 0]:
        axes.set_ylabel("MLOG (better transfer is up)", fontsize=style.TEXT)
    style.legend(figure, entries)
    return figure


def regret(study: StudyData) -> Figure:
    """Draws the accuracy that is lost by choosing a network by each score."""
    figure = style.figure(_WIDTH, 4.2)
    axes = figure.subplots()
    style.panel(axes, "Accuracy lost by choosing a network by ...")
    lost = study.choices.regret
    rows = [(f"{NAMES[score]}, on the target", score) for score in choosing.TARGET]
    rows += [(pretraining_title(score), score) for score in choosing.SOURCE]
    for position, (name, score) in enumerate(rows):
        source = name == pretraining_title(score)
        sizes = ("",) if source else tuple(size for size in _SIZES if (score, size) in lost)
        for size in sizes:
            index = 3 if source else list(_SIZES).index(size)
            values = study.choices.points(lost[score, size])
            axes.errorbar(
                values[0], -position + 0.22 * (1 - index) * (not source),
                xerr=values[1:].std(), elinewidth=0.8,
                **_marker(index),
            )  # fmt: skip
    random = study.choices.points(study.choices.spread)[0]
    axes.axvline(random, color=style.GREY, linewidth=0.8, dashes=(4, 2))
    axes.set_yticks(-np.arange(len(rows)), [name for name, _ in rows], fontsize=style.SMALL)
    axes.set_xlim(left=0)
    axes.set_xlabel(
        "points of accuracy, mean of six tasks, ± standard error; dashed: any network at random",
        fontsize=style.SMALL,
    )
    handles = [(label, _handle(axes, index)) for index, label in enumerate(_SIZES.values())]
    style.legend(figure, [*handles, ("images of pretraining", _handle(axes, 3))])
    return figure


def _handle(axes: Axes, index: int) -> Line2D:
    (line,) = axes.plot([], [], **_marker(index))
    return line


def _marker(index: int) -> dict[str, Any]:
    return style.line(index) | {"linestyle": "none", "markersize": 4}
