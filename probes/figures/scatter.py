"""Metrics against transfer: figure 7."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.analysis.cohorts import ALL, Study
from probes.analysis.correlation import Correlation
from probes.figures import style


def transfer_scatter(study: Study, correlations: Sequence[Correlation]) -> Figure:
    """Returns MLOG against every metric, a row of panels for each group (figure 7).

    Panels of a column share their horizontal axis. Above each is Pearson's r, from the result of
    ``correlate(study)``, with the interval that inverts its permutation test.
    """
    groups = {name: rows for name, rows in study.members().items() if name != ALL}
    by_name = {(correlation.group, correlation.metric): correlation for correlation in correlations}
    figure = style.figure(style.PAGE, 0.3 + 1.75 * len(groups))
    shape = (len(groups), len(study.metrics))
    panels = figure.subplots(*shape, sharex="col", sharey="row", squeeze=False)
    for index, (row, (group, members)) in enumerate(zip(panels, groups.items(), strict=True)):
        for axes, (metric, values) in zip(row, study.metrics.items(), strict=True):
            style.panel(axes, "")
            if index == 0:  # Above the line of the coefficient.
                title = style.title(metric)
                axes.set_title(title, fontsize=style.TEXT, fontweight="bold", pad=14)
            _points(axes, values[members], study.mlog[members], index)
            _write(axes, by_name.get((group, metric)))
        row[0].set_ylabel(f"{style.text(group, 24)}\nMLOG", fontsize=style.TEXT)
    for axes, metric in zip(panels[-1], study.metrics, strict=True):
        axes.set_xlabel(style.direction(metric), fontsize=style.SMALL, color=style.GREY)
    figure.align_ylabels(panels[:, 0])
    return figure


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, index: int) -> None:
    finite = np.isfinite(x)
    if not finite.any():
        style.note(axes, "no run has it")
        return
    look = style.line(index) | {"linestyle": "none", "markersize": 4}
    axes.plot(x[finite], y[finite], **look)
    axes.margins(x=0.12, y=0.12)


def _write(axes: Axes, correlation: Correlation | None) -> None:
    """Writes r and its interval above a panel."""
    if correlation is None or not correlation.estimates:
        text = "r undefined" if correlation is None else f"{correlation.settings} points: no r"
    else:
        estimate = correlation.pearson
        low, high = estimate.permutation.low, estimate.permutation.high
        text = f"r = {estimate.value:+.3f}"
        text += f" [{low:+.2f}, {high:+.2f}]" if np.isfinite(low) else " (no interval)"
    axes.text(
        0.5, 1.0, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=style.SMALL
    )
