"""Every figure, drawn from the rows of ``metrics.jsonl`` alone.

This is the only file that imports matplotlib. Figures are built with its object interface, so
nothing here touches global state, needs a screen, or leaks when many are drawn. Each function
returns a ``Figure``; ``save`` writes one.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

Row = dict[str, Any]

# Okabe and Ito's blue and vermilion: told apart under every common colour blindness, and, since
# the lines also differ in dashes and carry their names, in black and white.
_STYLES = {
    "train": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "test": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
}

# Metric, title, whether collapse is downwards, scale. Ratios without an upper bound fall by orders
# of magnitude, so they get a logarithmic axis. VCI is an index whose zero means something, so its
# axis starts there.
_CURVES = (
    ("vci", "Variability Collapse Index", True, "linear"),
    ("fuzziness", "Fuzziness", True, "log"),
    ("squared_distance", "Squared distance", True, "log"),
    ("cosine_similarity", "Cosine similarity", False, "linear"),
)

# Two labels at the right end of an axis are never closer than this fraction of its height.
_LABEL_GAP = 0.075


def load_rows(path: Path) -> list[Row]:
    """Returns the rows of a ``metrics.jsonl``.

    The last line of a run that is being written, or was killed, may be cut off: it is left out,
    with a warning.

    Raises:
      ValueError: another line is not valid JSON; names it.
    """
    lines = path.read_text().splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}, is not valid JSON: {error}.") from error
            warnings.warn(f"{path}: the last line is cut off and left out.", stacklevel=2)
    return rows


def collapse_curves(rows: Sequence[Row]) -> Figure:
    """Returns the paper's four metrics against epoch, train and test (its figures 3 to 6)."""
    if not rows:
        raise ValueError("there are no rows to draw; let the run write its first record.")
    figure = _figure(width=10.0, height=6.4)
    for index, (metric, title, downwards, scale) in enumerate(_CURVES):
        axes = figure.add_subplot(2, 2, index + 1)
        axes.set_yscale(scale)
        ends = {split: _curve(axes, rows, metric, split) for split in _STYLES}
        _decorate(axes, title, downwards)
        _limits(axes, metric, scale)
        _label(axes, {split: end for split, end in ends.items() if end is not None})
        if index >= 2:
            axes.set_xlabel("Epoch")
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure in the format of the file's suffix; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    return path


def _figure(*, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
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
    axes.plot(epochs, values, markersize=3.5, linewidth=1.8, label=split, **_STYLES[split])
    return values[-1]


def _is_drawable(value: float | None, scale: str) -> bool:
    """Whether a value has a place on the axis: null has none, zero has none on logarithmic ones."""
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
    """Starts VCI at zero, and gives logarithmic axes plain numbers."""
    axes.autoscale_view()  # Limits are computed lazily; what follows needs them now.
    if metric == "vci":
        axes.set_ylim(bottom=0.0)
    if scale == "linear":
        return
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, ends: dict[str, float]) -> None:
    """Writes each split's name and last value beside the end of its line, clear of the other."""
    to_fraction = axes.transScale + axes.transLimits
    heights = {split: to_fraction.transform((0.0, end))[1] for split, end in ends.items()}
    order = sorted(heights, key=heights.__getitem__)
    if len(order) == 2:
        low, high = order
        overlap = max(0.0, _LABEL_GAP - (heights[high] - heights[low])) / 2
        heights[low], heights[high] = heights[low] - overlap, heights[high] + overlap
    for split in order:
        axes.annotate(
            f"{split} {ends[split]:.3g}",
            xy=(1.015, heights[split]),
            xycoords="axes fraction",
            color=_STYLES[split]["color"],
            fontsize=9,
            va="center",
            annotation_clip=False,
        )
