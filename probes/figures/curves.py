"""Metrics against epoch (figures 3 to 6 and 8), and validation scores against the penalty."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from probes.analysis.cohorts import METRICS
from probes.analysis.runs import Run
from probes.figures import style
from probes.transfer import escape


def metric_curves(runs: Sequence[Run], split: str) -> Figure:
    """Returns the four metrics of a split against epoch (figures 3, 4, 5).

    Runs of one architecture share four panels; of several, each has a column.
    """
    style.require_runs(runs)
    columns = list(dict.fromkeys(map(architecture, runs)))
    if len(columns) == 1:
        figure = style.figure(style.PAGE, 4.3)
        panels = figure.subplots(2, 2, sharex=True)
        drawn = [(axes, metric, "") for axes, metric in zip(panels.flat, METRICS, strict=True)]
    else:
        figure = style.figure(max(style.PAGE, 2.6 * len(columns)), 7.6)
        panels = figure.subplots(len(METRICS), len(columns), sharex="col", sharey="row")
        drawn = [(panels[i, j], metric, column) for i, metric in enumerate(METRICS)
                 for j, column in enumerate(columns)]  # fmt: skip
    entries = []
    for axes, metric, column in drawn:
        title = style.text(f"{column}, {split}" if column else split, 24)
        style.panel(axes, f"{style.title(metric)}, {title}", style.direction(metric))
        entries += _curves(axes, runs, metric, split, column)
    for axes in panels[-1]:
        style.epochs(axes)
    style.legend(figure, entries)
    return figure


def architecture(run: Run) -> str:
    """Returns the name of a run's network, or "" if its config has none."""
    model = run.config.get("model")
    return str(model.get("name", "")) if isinstance(model, dict) else ""


def train_and_test(runs: Sequence[Run], metrics: Sequence[str]) -> Figure:
    """Returns metrics against epoch, train at the left and test at the right, on equal axes.

    Each metric is a row of panels: ``("vci",)`` is figure 6, the three others are figure 8.
    """
    style.require_runs(runs)
    if not metrics:
        raise ValueError("there are no metrics to draw; name one or more.")
    figure = style.figure(style.PAGE, 0.6 + 1.7 * len(metrics))
    panels = figure.subplots(len(metrics), 2, sharex=True, sharey="row", squeeze=False)
    entries = []
    for row, metric in zip(panels, metrics, strict=True):
        for axes, split in zip(row, ("train", "test"), strict=True):
            style.panel(axes, f"{style.title(metric)}, {split}", style.direction(metric))
            entries += _curves(axes, runs, metric, split)
    for axes in panels[-1]:
        style.epochs(axes)
    style.legend(figure, entries)
    return figure


def _curves(
    axes: Axes, runs: Sequence[Run], metric: str, split: str, column: str = ""
) -> list[tuple[str, Line2D]]:
    """Draws finite values, on a logarithmic axis positive ones; returns the names and lines.

    With a column, it draws the runs of this architecture alone; a run has one look in all columns.
    """
    scale = style.LABELS[metric].scale if metric in style.LABELS else "linear"
    names = style.names([run.name for run in runs])
    drawn, entries = [], []
    for index, (name, run) in enumerate(zip(names, runs, strict=True)):
        if column and architecture(run) != column:
            continue
        epochs, values = run.curve(metric, split)
        points = [(e, v) for e, v in zip(epochs, values, strict=True) if scale == "linear" or v > 0]
        if points:
            look = style.line(index) | {"markevery": max(1, len(points) // 12)}
            (line,) = axes.plot(*zip(*points, strict=True), label=name, **look)
            entries.append((name, line))
            drawn += points
    if not drawn:
        _write_reason(axes, runs, metric, split)
    elif scale == "log" or (metric == "vci" and _is_long(runs, metric)):
        style.plain_log(axes)
    elif metric == "vci":
        axes.set_ylim(bottom=0.0)  # An index: its zero is full collapse.
    return entries


def _is_long(runs: Sequence[Run], metric: str) -> bool:
    """Whether both splits together, which may share an axis, span more than a decade."""
    curves = [run.curve(metric, split)[1] for run in runs for split in ("train", "test")]
    return style.is_long([value for curve in curves for value in curve])


def _write_reason(axes: Axes, runs: Sequence[Run], metric: str, split: str) -> None:
    rows = sum(row["split"] == split for run in runs for row in run.rows)
    split, metric = style.text(split, 24), style.text(metric, 24)
    reason = f"none of the {rows} {split} rows has a {metric}" if rows else f"no {split} rows"
    # On a shared axis, an empty panel has the ticks of its neighbours.
    if len(axes.get_shared_y_axes().get_siblings(axes)) == 1:
        axes.tick_params(axis="y", left=False, labelleft=False)
    names = style.text(", ".join(escape.lines([run.name for run in runs])), 60)
    style.note(axes, f"{reason}\nin {names}")


def validation_curve(values: ArrayLike, curve: ArrayLike, chosen: float) -> Figure:
    """Returns the validation score against the penalty in units of 1/C, the chosen one marked.

    Raises:
      ValueError: the shapes of values and scores differ, or ``chosen`` is not one of the values.
    """
    figure = style.figure(style.COLUMN, 2.2)
    axes = figure.subplots()
    _plot_choice(axes, "Choice of the penalty", values, curve, chosen)
    axes.set_xlabel("Penalty (1/C)", fontsize=style.TEXT)
    axes.set_ylabel("Validation score (%)", fontsize=style.TEXT)
    return figure


def validation_curves(scores: Sequence[Mapping[str, Any]], values: ArrayLike) -> Figure:
    """Returns validation scores against the penalty for every task of a run, one panel each.

    ``scores`` are rows of ``transfer.jsonl`` with ``task``, ``value`` and ``validation_curve``.

    Raises:
      ValueError: there are no rows, or as ``validation_curve``.
    """
    if not scores:
        raise ValueError("there are no scores of tasks to draw.")
    columns = min(3, len(scores))
    rows = -(-len(scores) // columns)
    figure = style.figure(style.PAGE, min(0.5 + 1.7 * rows, 9))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, row in zip(panels.flat, scores, strict=False):
        curve = np.array(row["validation_curve"], np.float64)
        task = style.text(row["task"], 24)
        # A long name is above the note at its right.
        title = task if len(task) <= 12 else f"{task}\n"
        _plot_choice(axes, title, values, curve, row["value"])
    for axes in panels.flat[len(scores) :]:
        axes.set_visible(False)
    figure.supxlabel("Penalty (1/C)", fontsize=style.TEXT)
    figure.supylabel("Validation score (%)", fontsize=style.TEXT)
    return figure


def _plot_choice(
    axes: Axes, title: str, values: ArrayLike, curve: ArrayLike, chosen: float
) -> None:
    values, curve = np.asarray(values, np.float64), np.asarray(curve, np.float64)
    if values.shape != curve.shape or chosen not in values:
        raise ValueError(
            f"got {values.shape} penalties, {curve.shape} scores and a choice of {chosen}, which "
            "must be one of the penalties; give the values and the curve of one sweep."
        )
    best = curve[np.flatnonzero(values == chosen)[0]]
    style.panel(axes, title, f"{chosen:.3g} scores {100 * best:.1f} %")
    axes.set_xscale("log")
    axes.plot(values, 100 * curve, **style.line(0) | {"marker": "None"})
    axes.axvline(chosen, color=style.GREY, linewidth=0.6, linestyle=(0, (2, 2)))
    axes.plot([chosen], [100 * best], **style.line(1) | {"markersize": 5})
