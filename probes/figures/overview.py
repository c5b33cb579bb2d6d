"""The four metrics of one run, train and test in each panel, sized for a screen."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.analysis.runs import Row
from probes.figures import style
from vci_jax import METRICS

# Solid lines with markers: the gaps of dashes would look like missing records.
_STYLES: dict[str, dict[str, Any]] = {
    split: style.line(index) | {"linestyle": "-"} for index, split in enumerate(("train", "test"))
}

_PANELS = ("vci_adjusted", "fuzziness", "squared_distance", "cosine_similarity")

# Least distance of the labels at the right end of an axis, relative to its height.
_LABEL_GAP = 0.075


def collapse_curves(rows: Sequence[Row]) -> Figure:
    """Returns the paper's four metrics against epoch, with the adjusted VCI, train and test."""
    if not rows:
        raise ValueError("there are no rows to draw; let the run write its first record.")
    figure = style.figure(10.0, 6.4)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    for index, metric in enumerate(_PANELS):
        values = [row[metric] for row in rows if row.get(metric) is not None]
        if metric == "vci_adjusted" and not values:  # Undefined, or from an older version.
            metric = "vci"
            values = [row[metric] for row in rows if row.get(metric) is not None]
        axes = figure.add_subplot(2, 2, index + 1)
        scale = style.LABELS[metric].scale
        if METRICS[metric].scale == "zero" and style.is_long(values):
            scale = "log"
        axes.set_yscale(scale)
        ends = {split: _curve(axes, rows, metric, split) for split in _STYLES}
        _decorate(axes, style.title(metric), style.LABELS[metric].downwards)
        _limits(axes, metric, scale)
        _label(axes, {split: end for split, end in ends.items() if end is not None})
        style.epochs(axes, size=10)
        if index < 2:
            axes.set_xlabel("")
    return figure


def _curve(axes: Axes, rows: Sequence[Row], metric: str, split: str) -> float | None:
    """Draws one split and returns its last value, or None if the metric was never defined."""
    points = [
        (row["epoch"], row[metric])
        for row in rows
        if row["split"] == split and _is_drawable(row.get(metric), axes.get_yscale())
    ]
    if not points:
        return None
    epochs, values = zip(*points, strict=True)
    look = _STYLES[split] | {"markersize": 3.5, "linewidth": 1.8}
    axes.plot(epochs, values, label=split, **look)
    return values[-1]


def _is_drawable(value: float | None, scale: str) -> bool:
    """Whether a value is defined and, on a logarithmic axis, positive."""
    return value is not None and (scale == "linear" or value > 0)


def _decorate(axes: Axes, title: str, downwards: bool) -> None:
    arrow = "↓" if downwards else "↑"
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_title(f"{arrow} more collapsed", loc="right", fontsize=9, color="#555555")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.margins(x=0.02)


def _limits(axes: Axes, metric: str, scale: str) -> None:
    """Starts the axis of an index at zero; logarithmic axes get plain numbers."""
    axes.autoscale_view()  # Limits are computed lazily; what follows needs them now.
    if scale == "log":
        style.plain_log(axes)
    elif METRICS[metric].scale == "zero":
        axes.set_ylim(bottom=0.0)


def _label(axes: Axes, ends: dict[str, float]) -> None:
    """Writes each split's name and last value beside the end of its line, without overlap."""
    to_fraction = axes.transScale + axes.transLimits
    heights = {split: to_fraction.transform((0.0, end))[1] for split, end in ends.items()}
    order = sorted(heights, key=heights.__getitem__)
    if len(order) == 2:
        low, high = order
        overlap = max(0.0, _LABEL_GAP - (heights[high] - heights[low])) / 2
        heights[low], heights[high] = heights[low] - overlap, heights[high] + overlap
    for split in order:
        axes.annotate(
            f"{split} {ends[split]:#.3g}",
            xy=(1.015, heights[split]),
            xycoords="axes fraction",
            color=_STYLES[split]["color"],
            fontsize=9,
            va="center",
            annotation_clip=False,
        )
