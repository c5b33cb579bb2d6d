"""Style of all figures: sizes, colours, panels, legends and files.

Colours are those of Okabe and Ito, distinct under every common colour blindness. Lines also differ
in dashes and markers, and points in shape.
"""

import functools
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes as Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Figure
from matplotlib.lines import Line2D as Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from probes.transfer import escape
from vci_jax import METRICS

# Inches: a column and the text width of a two-column page.
COLUMN, PAGE = 3.25, 6.75

# Font sizes in points.
TEXT, SMALL = 7.5, 6.5

GREY, GRID = "#555555", "#e6e6e6"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))


class Label(NamedTuple):
    """How a metric is drawn: its title, whether collapse is downwards, and its scale."""

    title: str
    downwards: bool
    scale: str


# Ratios without an upper bound fall by orders of magnitude and have logarithmic axes.
LABELS = {
    key: Label(
        "Adjusted VCI" if key == "vci_adjusted" else METRICS[key].title,
        METRICS[key].direction == "smaller",
        "log" if METRICS[key].scale == "log" else "linear",
    )
    for key in ("vci", "vci_adjusted", "fuzziness", "squared_distance", "cosine_similarity")
}


def figure(width: float, height: float) -> Figure:
    """Returns an empty figure of a size in inches, with constrained layout."""
    result = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(result)
    result.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    return result


def require_runs(runs: Sequence[object]) -> None:
    """Raises ValueError if there are no runs."""
    if not runs:
        raise ValueError("there are no runs to draw; give work directories that have rows.")


def text(name: str, limit: int = 48) -> str:
    r"""Returns a user's name as one line of a figure, without mathematics.

    A name of more than ``limit`` letters loses its middle; letters that the font lacks become
    escapes.

    >>> text("lr$0.1$"), text("very_long_name", 8)
    ('lr\\$0.1\\$', 'very…ame')
    """
    return _shortened(_drawable(escape.line(name)), limit).replace("$", r"\$")


def names(originals: Sequence[str], limit: int = 48) -> list[str]:
    """Returns names as ``text`` does, no two of them the same."""
    shown = [_shortened(_drawable(name), limit) for name in escape.lines(originals)]
    return [name.replace("$", r"\$") for name in escape.lines(shown)]


@functools.cache
def _letters(family: str) -> set[int]:
    """Returns the code points of a font family, in regular and bold."""
    weights = (font_manager.FontProperties(family=family, weight=w) for w in ("normal", "bold"))
    fonts = [font_manager.get_font(font_manager.findfont(weight)) for weight in weights]
    return set.intersection(*(set(font.get_charmap()) for font in fonts))


def _drawable(name: str) -> str:
    """Returns a name with escapes for letters that the font lacks, invisible joiners aside."""
    letters = _letters(font_manager.FontProperties().get_name())
    return "".join(
        c
        if ord(c) in letters or unicodedata.category(c) == "Cf"
        else c.encode("unicode_escape").decode()
        for c in name
    )


def _shortened(name: str, limit: int) -> str:
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[len(name) - tail :]}"


def line(index: int) -> dict[str, Any]:
    """Returns the colour, dashes and marker of line ``index``; 280 are different."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "linewidth": 1.1,
        "markersize": 2.8,
    }


def panel(axes: Axes, title: str, note: str = "") -> None:
    """Gives a panel its title, a note at its right, and the common frame."""
    axes.set_title(title, loc="left", fontsize=TEXT, fontweight="bold")
    axes.set_title(note, loc="right", fontsize=SMALL, color=GREY)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL, length=2.5, width=0.6)
    axes.tick_params(which="minor", length=1.5, width=0.4)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_linewidth(0.6)


def epochs(axes: Axes, size: float = TEXT) -> None:
    """Labels the axis of epochs, with ticks at whole numbers."""
    axes.set_xlabel("Epoch", fontsize=size)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def direction(metric: str) -> str:
    """Returns the direction of collapse in words."""
    if metric not in LABELS:
        return ""
    return "smaller = more collapsed" if LABELS[metric].downwards else "larger = more collapsed"


def title(metric: str) -> str:
    """Returns the printed name of a metric."""
    label = LABELS.get(metric)
    return label.title if label else text(metric.replace("_", " ").capitalize(), 22)


def empty(axes: Axes, reason: str) -> None:
    """Writes the reason for an empty panel into its middle, and removes its ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    note(axes, reason, wrap=True)


def note(axes: Axes, words: str, **options: Any) -> None:
    """Writes a note into the middle of a panel."""
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL, "color": GREY}
    axes.text(0.5, 0.5, words, transform=axes.transAxes, **look | options)


def is_long(values: Sequence[float]) -> bool:
    """Whether values span more than a decade: a linear axis would hide the small ones."""
    return min(values, default=0) > 0 and max(values) > 10 * min(values)


def plain_log(axes: Axes) -> None:
    """Makes the y axis logarithmic, with plain numbers."""
    axes.set_yscale("log")
    _plain(axes.yaxis, *axes.get_ylim())


def plain_log_log(axes: Axes) -> None:
    """Makes both axes logarithmic, with plain numbers."""
    plain_log(axes)
    plain_log_x(axes)


def plain_log_x(axes: Axes) -> None:
    """Makes the x axis logarithmic, with plain numbers."""
    axes.set_xscale("log")
    _plain(axes.xaxis, *axes.get_xlim())


def _plain(axis: Axis, low: float, high: float) -> None:
    """Puts plain numbers at 1, 2 and 5 of each decade; beyond three decades, at 1 alone."""
    steps = (1.0,) if high / low > 1e3 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, entries: Iterable[tuple[str, Line2D]]) -> None:
    """Puts one legend below the figure: each name once, as ``text`` or mathematics."""
    lines: dict[str, Line2D] = {}
    for name, line_ in entries:
        lines.setdefault(name, line_)
    if not lines:
        return
    # An entry is about as wide as its letters and the line before them.
    widest = max(map(len, lines)) * SMALL * 0.55 + 40
    columns = max(1, min(len(lines), int(figure.get_figwidth() * 72 / widest)))
    # The figure grows by further rows, so that panels keep their height.
    rows = -(-len(lines) // columns)
    figure.set_figheight(figure.get_figheight() + max(0, rows - 4) * SMALL * 1.5 / 72)
    box = figure.legend(
        list(lines.values()),
        [f"entry {i}" for i in range(len(lines))],
        loc="outside lower center",
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        handlelength=3.2,
    )
    # Set here, since matplotlib omits labels that begin with an underscore.
    for label, name in zip(box.get_texts(), lines, strict=True):
        label.set_text(name)


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure in the format of the file's suffix; returns the path.

    The same figure gives the same bytes: an SVG has no date and no random ids.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "vci_jax"}):
        if path.suffix == ".svg":
            figure.savefig(path, metadata={"Date": None})
        else:
            figure.savefig(path, dpi=300 if figure.get_figwidth() <= PAGE else 160)
    return path


def save_both(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as ``stem.png`` and ``stem.svg``; returns both paths."""
    return [save(figure, stem.with_name(stem.name + suffix)) for suffix in (".png", ".svg")]
