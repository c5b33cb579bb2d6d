"""Within-class variability along the class means and orthogonal to them, and spectra."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probes.analysis.runs import Row, Run
from probes.figures import style

_PARTS = {
    "within_between_part": r"along class means: Tr[$P\,\Sigma_W$]",
    "within_orthogonal_part": r"orthogonal to them: Tr[$(I-P)\,\Sigma_W$]",
}

_SPECTRA = {"total": r"$\Sigma_T$", "between": r"$\Sigma_B$"}

# Eigenvalues below this share of the largest are rounding errors.
_FLOOR = 1e-13


def within_parts(runs: Sequence[Run], split: str) -> Figure:
    """Returns the two parts of the within-class variability against epoch (figure 1)."""
    figure, panels = _panels(runs)
    entries: list[tuple[str, Line2D]] = []
    for axes, name, run in zip(panels, _names(runs), runs, strict=True):
        style.panel(axes, f"{name}, {style.text(split, 12)}", "within-class variability")
        style.epochs(axes)
        drawn = []
        for index, (part, label) in enumerate(_PARTS.items()):
            epochs, values = run.curve(part, split)
            drawn += values
            if values:
                look = style.line(index) | {"linestyle": "-"}
                (line,) = axes.plot(epochs, values, label=label, **look)
                entries.append((label, line))
        if not drawn:
            style.empty(axes, _missing(run, split, " or ".join(_PARTS)))
        elif style.is_long(drawn):
            style.plain_log(axes)
    style.legend(figure, entries)
    return figure


def spectra(runs: Sequence[Run], split: str, epoch: float | None = None) -> Figure:
    """Returns the sorted eigenvalues of Sigma_T and Sigma_B (figure 2).

    They are of the recorded epoch that is nearest to ``epoch``, by default the last one.
    """
    figure, panels = _panels(runs)
    entries: list[tuple[str, Line2D]] = []
    for axes, name, run in zip(panels, _names(runs), runs, strict=True):
        row = _nearest(run, split, epoch)
        at = f", epoch {row['epoch']:g}" if row else ""
        style.panel(axes, f"{name}, {style.text(split, 12)}{at}")
        axes.set_xlabel("Rank of the eigenvalue", fontsize=style.TEXT)
        axes.set_ylabel("Eigenvalue", fontsize=style.TEXT)
        if row is None:
            style.empty(axes, _missing(run, split, "spectrum"))
        else:
            entries += _spectrum(axes, row["spectrum"])
    style.legend(figure, entries)
    return figure


def _spectrum(axes: Axes, spectrum: dict[str, list[float | None]]) -> list[tuple[str, Line2D]]:
    eigenvalues = {name: _above_rounding(spectrum.get(name) or []) for name in _SPECTRA}
    if not any(eigenvalues.values()):
        style.empty(axes, "no eigenvalue of its spectrum\nis positive")
        return []
    entries = []
    for index, (name, label) in enumerate(_SPECTRA.items()):
        if values := eigenvalues[name]:
            marks = _log_spaced(len(values)).tolist()
            look = style.line(index) | {"markevery": marks, "markersize": 2.4}
            (line,) = axes.plot(range(1, len(values) + 1), values, label=label, **look)
            entries.append((label, line))
    style.plain_log_log(axes)
    return entries


def _above_rounding(values: Sequence[float | None]) -> list[float]:
    defined = [value for value in values if value is not None]
    return [value for value in defined if value > max(0.0, _FLOOR * max(defined))]


def _log_spaced(size: int) -> np.ndarray:
    """Returns logarithmically spaced indices, twelve per decade, and the last."""
    return np.unique(np.geomspace(1, size, 1 + int(12 * np.log10(size))).round().astype(int) - 1)


def _nearest(run: Run, split: str, epoch: float | None) -> Row | None:
    rows = [row for row in run.rows if row["split"] == split and row.get("spectrum")]
    if not rows:
        return None
    return rows[-1] if epoch is None else min(rows, key=lambda row: abs(row["epoch"] - epoch))


def _names(runs: Sequence[Run]) -> list[str]:
    """Returns names that leave the right half of a title free."""
    return style.names([run.name for run in runs], 20)


def _missing(run: Run, split: str, what: str) -> str:
    rows = sum(row["split"] == split for row in run.rows)
    split = style.text(split, 24)
    return f"none of its {rows} {split} rows\nhas {what}" if rows else f"no {split} rows"


def _panels(runs: Sequence[Run]) -> tuple[Figure, list[Axes]]:
    style.require_runs(runs)
    columns = min(2, len(runs))
    rows = -(-len(runs) // columns)
    figure = style.figure(style.COLUMN if columns == 1 else style.PAGE, 0.4 + 2.0 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[len(runs) :]:
        spare.remove()
    return figure, panels[: len(runs)]
