"""Collapse on the training data against transfer, one point per run."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.analysis.cohorts import Study, from_runs
from probes.analysis.conclusions import statements
from probes.analysis.correlation import Correlation, correlate
from probes.analysis.resampling import ResamplingPlan
from probes.analysis.runs import Run
from probes.page.curves import short
from probes.page.metrics import BY_NAME, COLLAPSE
from probes.transfer import escape

# With fewer settings, unrelated numbers often have a correlation close to 1 or -1.
_FEW = 10


def scatters(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns a chart of transfer against each metric of the paper, and the conclusions.

    If the runs cannot be compared, the charts are empty, with the reason.
    """
    try:
        study = from_runs(runs, "train")
    except ValueError as error:
        return [_empty(name, str(error)) for name in COLLAPSE], []
    plan = ResamplingPlan()
    correlations = correlate(study, plan)
    names = escape.lines([run.name for run in runs])  # As the study has them.
    numbers = {name: number for number, name in enumerate(names)}
    charts = [
        _scatter(study, [c for c in correlations if c.metric == name], numbers) for name in COLLAPSE
    ]
    if not any(chart["strengths"] for chart in charts):
        return charts, []
    return charts, [*study.notes, *statements(correlations, [], plan)]


def _scatter(
    study: Study, correlations: list[Correlation], numbers: dict[str, int]
) -> dict[str, Any]:
    name = correlations[0].metric
    values = study.metrics[name]
    order = [i for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
    strengths = [_strength(c) for c in correlations if c.estimates]
    return _empty(name, "") | {
        "points": [
            {
                "run": numbers[study.names[i]],
                "group": study.groups[i],
                "x": short(float(values[i])),
                "y": short(float(study.mlog[i])),
            }
            for i in order
        ],
        "strengths": strengths,
        "notes": _notes(correlations) if strengths else [],
        "reason": "" if strengths else " ".join(correlations[0].warnings),
    }


def _empty(name: str, reason: str) -> dict[str, Any]:
    return {
        "id": f"scatter-{name}",
        "title": BY_NAME[name].title,
        "points": [],
        "strengths": [],
        "notes": [],
        "reason": reason,
    }


def _strength(correlation: Correlation) -> dict[str, Any]:
    """Returns the coefficients of a group, with None for undefined ones."""
    pearson, spearman = correlation.pearson, correlation.estimates["spearman"]
    return {
        "group": correlation.group,
        "runs": correlation.runs,
        "pearson": _finite(pearson.value),
        "low": _finite(pearson.permutation.low),
        "high": _finite(pearson.permutation.high),
        "p": _finite(pearson.permutation.p_value),
        "spearman": _finite(spearman.value),
    }


def _notes(correlations: list[Correlation]) -> list[str]:
    notes = []
    for c in correlations:
        notes += c.warnings
        if c.settings < _FEW:
            several = f"{c.runs} runs of {c.settings} settings"
            single = f"{c.runs} runs, one seed a setting"
            amount = several if c.runs > c.settings else single
            notes.append(f"Thin evidence in {c.group}: {amount}.")
    return notes


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
