"""How the penalty of a probe was chosen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from probes.figures import style


def validation_curve(values: ArrayLike, curve: ArrayLike, chosen: float) -> Figure:
    """Returns the validation score against the penalty, the chosen one marked.

    Args:
      values: penalties in units of 1/C, such as ``sweep.VALUES``.
      curve: validation scores in [0, 1], as many.
      chosen: one of the values.

    Raises:
      ValueError: values and scores are not as many, or the chosen value is not among them.
    """
    figure = style.figure(style.COLUMN, 2.2)
    axes = figure.subplots()
    _choice(axes, "Choice of the penalty", values, curve, chosen)
    axes.set_xlabel("Penalty (1/C)", fontsize=style.TEXT)
    axes.set_ylabel("Validation score (%)", fontsize=style.TEXT)
    return figure


def validation_curves(scores: Sequence[Mapping[str, Any]], values: ArrayLike) -> Figure:
    """Returns the same for every task of a run, a panel each.

    Args:
      scores: rows of ``transfer.jsonl`` with ``task``, ``value`` and ``validation_curve``; a score
        that is not known is None.
      values: penalties in units of 1/C, such as ``sweep.VALUES``.

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
        # A long name stands above the note at its right.
        title = task if len(task) <= 12 else f"{task}\n"
        _choice(axes, title, values, curve, row["value"])
    for axes in panels.flat[len(scores) :]:
        axes.set_visible(False)
    figure.supxlabel("Penalty (1/C)", fontsize=style.TEXT)
    figure.supylabel("Validation score (%)", fontsize=style.TEXT)
    return figure


def _choice(axes: Axes, title: str, values: ArrayLike, curve: ArrayLike, chosen: float) -> None:
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
