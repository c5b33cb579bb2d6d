"""Curves over training and spectra, as JSON for the charts, thinned to the size of a page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.analysis.runs import Run
from probes.page.caveats import why_undefined
from probes.page.metrics import BY_NAME, FURTHER, MAIN, MetricDisplay
from probes.transfer import escape

SPLITS = ("train", "test")

# Numbers on a page, of about ten bytes each: a third of its 3 MB for curves, a sixth for spectra.
_CURVE_BUDGET = 100_000
_SPECTRUM_BUDGET = 50_000
_EIGENVALUES = 64

# Numbers of a row that are not drawn as curves.
_NOT_CURVES = {"step", "epoch", "seconds", "images_per_second"}


def charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns a chart for every recorded metric, and for the main ones in any case."""
    values = (item for run in runs for row in run.rows for item in row.items())
    recorded = dict.fromkeys(
        name for name, value in values if isinstance(value, float) and name not in _NOT_CURVES
    )
    unknown = [MetricDisplay(n, n.replace("_", " ")) for n in recorded if n not in BY_NAME]
    further = [metric for metric in (*FURTHER, *unknown) if metric.name in recorded]
    most = max(8, _CURVE_BUDGET // (2 * len(runs) * (len(MAIN) + len(further))))
    return [_chart(metric, runs, most) | {"main": metric in MAIN} for metric in (*MAIN, *further)]


def thinning(runs: Sequence[Run], charts: list[dict[str, Any]]) -> str:
    """Returns a sentence if the charts lack some records, else an empty string."""
    shown = max((len(series["x"]) for chart in charts for series in chart["series"]), default=0)
    records = max(len([r for r in run.rows if r["split"] == s]) for run in runs for s in SPLITS)
    if shown >= records or not shown:
        return ""
    return f"The curves show {shown:,} of up to {records:,} records of a run, evenly spaced."


def spectra(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns the eigenvalues of each run and split, at some epochs and some indices.

    Many eigenvalues are thinned to logarithmically spaced indices, with all of the first; many
    epochs to evenly spaced ones, with the first and the last.
    """
    each = _SPECTRUM_BUDGET // (max(1, len(runs)) * 2 * 2 * _EIGENVALUES)
    charts = []
    for number, run in enumerate(runs):
        for split in SPLITS:
            rows = [r for r in run.rows if r["split"] == split and r.get("spectrum")]
            rows = [rows[i] for i in evenly(len(rows), max(2, each))]
            if rows:
                charts.append({"run": number, "split": split, **_spectrum(rows)})
    return charts


def short(value: float | None, digits: int = 5) -> float | None:
    """Returns a number with fewer digits, to make the page smaller."""
    return None if value is None else float(f"{value:.{digits}g}")


def evenly(length: int, most: int) -> list[int]:
    """Returns the indices of ``most`` evenly spaced records, with the first and the last."""
    if length <= most:
        return list(range(length))
    return sorted({round(i) for i in np.linspace(0, length - 1, most)})


def _chart(metric: MetricDisplay, runs: Sequence[Run], most: int) -> dict[str, Any]:
    series = [
        _series(metric, number, run, split, most)
        for number, run in enumerate(runs)
        for split in SPLITS
    ]
    series = [line for line in series if line["x"]]
    return {
        "id": escape.line(metric.name),
        "title": metric.title,
        "direction": metric.direction,
        "scale": _scale(metric, [y for line in series for y in line["y"]]),
        "series": series,
        "reason": "" if series else _why_empty(metric, runs),
    }


def _scale(metric: MetricDisplay, values: list[float]) -> str:
    """Returns the scale of an axis: logarithmic for ratios, and for indices over a decade."""
    falls = bool(values) and min(values) > 0 and max(values) > 10 * min(values)
    return "log" if metric.scale == "zero" and falls else metric.scale


def _series(metric: MetricDisplay, number: int, run: Run, split: str, most: int) -> dict[str, Any]:
    rows = [r for r in run.rows if r["split"] == split and r.get(metric.name) is not None]
    rows = [rows[i] for i in evenly(len(rows), most)]
    series: dict[str, Any] = {
        "run": number,
        "split": split,
        "x": [row["epoch"] for row in rows],
        "y": [short(row[metric.name]) for row in rows],
    }
    if metric.name == "vci_adjusted":
        ends = [row.get("vci_interval") or [None, None] for row in rows]
        if any(low is not None for low, _ in ends):
            series["low"] = [short(low) for low, _ in ends]
            series["high"] = [short(high) for _, high in ends]
    return series


def _why_empty(metric: MetricDisplay, runs: Sequence[Run]) -> str:
    rows = [row for run in runs for row in run.rows]
    if not rows:
        return "Nothing is recorded yet: metrics.jsonl has no complete row."
    recorded = [row for row in rows if metric.name in row]
    reason = why_undefined(metric.name, recorded[-1] if recorded else rows[-1])
    return f"No value at any epoch: {reason.rstrip('.')}."


def _spectrum(rows: list[dict[str, Any]]) -> dict[str, Any]:
    size = {name: len(rows[-1]["spectrum"][name]) for name in ("between", "total")}
    shown = {name: _log_spaced(length) for name, length in size.items()}
    return {
        "epochs": [row["epoch"] for row in rows],
        "size": size,
        "index": {name: [i + 1 for i in indices] for name, indices in shown.items()},
        **{
            name: [[short(row["spectrum"][name][i], 4) for i in shown[name]] for row in rows]
            for name in shown
        },
    }


def _log_spaced(length: int) -> list[int]:
    if length <= _EIGENVALUES:
        return list(range(length))
    return sorted({round(i) - 1 for i in np.geomspace(1, length, _EIGENVALUES + 24)})
