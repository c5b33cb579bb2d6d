"""Sections of the page without a script: verdicts, settings, machines, transfer scores."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from probes.analysis.cohorts import measured
from probes.analysis.runs import Run, differences
from probes.page import caveats
from probes.page.metrics import BY_NAME, COLLAPSE
from probes.transfer import escape, odds, summary
from train.config import Config, flatten

SPLITS = ("train", "test")
DASH = "\N{EN DASH}"
_SHOWN = ("vci_adjusted", *COLLAPSE, "class_separation", "probe_mse")


def numbers(values: Sequence[float | None]) -> list[str]:
    """Returns numbers with equal decimal places: three or more digits of the smallest.

    A dash stands for an undefined value.

    >>> numbers([0.038, 0.05274, None]), numbers([1.0, 0.9972]), numbers([0.1, 2e-9])
    (['0.0380', '0.0527', '–'], ['1.000', '0.997'], ['1.00e-01', '2.00e-09'])
    """
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v]
    places = max(0, 2 - math.floor(math.log10(min(sizes)))) if sizes else 3
    style = f".{places}f" if places < 7 and max(sizes, default=0) < 1e5 else ".2e"
    return [DASH if v is None or not math.isfinite(v) else f"{v:{style}}" for v in values]


def verdicts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns the progress of each run, and each metric of both splits with notes."""
    rows = [run.last(split) for run in runs for split in SPLITS]
    cards = iter(_cards(rows))
    return [
        {
            "name": run.name,
            "progress": progress(run),
            "sentence": _sentence(run),
            "splits": {split: next(cards) for split in SPLITS},
            "metrics": [
                {
                    "title": BY_NAME[name].title,
                    "direction": BY_NAME[name].direction,
                    "cells": _cells(name, [run.last(split) for split in SPLITS]),
                }
                for name in ("accuracy", "loss", *_SHOWN)
            ],
            "notes": run.notes,
        }
        for run in runs
    ]


def is_finished(run: Run) -> bool:
    """Whether the last epoch of the config is recorded for both splits."""
    epochs = run.config.get("epochs")
    return epochs is not None and all(
        run.last(split).get("epoch", -1) >= epochs for split in SPLITS
    )


def progress(run: Run) -> str:
    """Returns the progress of a run in words, such as "finished, 80 epochs"."""
    epochs, last = run.config.get("epochs"), run.last("test").get("epoch")
    if is_finished(run):
        return f"finished, {epochs} epochs"
    if last is None:
        return "nothing recorded yet"
    return f"not finished: epoch {last} of {'an unknown number' if epochs is None else epochs}"


def config_table(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the settings that all runs share, and those that differ."""
    defaults = json.loads(json.dumps(flatten(dataclasses.asdict(Config()))))
    flat = [flatten(run.config) for run in runs]
    varied = differences(runs)
    fields = dict.fromkeys(field for config in flat for field in config)
    return {
        "varied": {f: [_setting(v) for v in values] for f, values in varied.items()},
        "shared": [
            {"field": f, "value": _setting(value), "set": value != defaults.get(f)}
            for f in fields
            for value in [flat[0].get(f)]
            if f not in varied and all(config.get(f) == value for config in flat)
        ],
    }


def machines(run: Run) -> list[dict[str, Any]]:
    """Returns the entries of ``run.json``; none if it is missing or damaged."""
    try:
        entries = json.loads((run.path / "run.json").read_text(errors="replace"))
    except (OSError, json.JSONDecodeError):
        return []
    listed = entries if isinstance(entries, list) else []
    return [entry for entry in listed if isinstance(entry, dict)]


def _setting(value: Any) -> str:
    """Returns a setting without rounding errors: 0.3 for 0.30000000000000004."""
    if isinstance(value, float):
        return f"{value:.10g}"
    if value is None:
        return "none"
    return str(value) or "(empty)"


def _cards(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns VCI and accuracy of each row for the verdicts, with equal decimal places."""
    vci = _with_intervals([_vci(row) for row in rows], [row.get("vci_interval") for row in rows])
    accuracy = _with_intervals(
        [row.get("accuracy") for row in rows], [caveats.accuracy_interval(row) for row in rows]
    )
    return [
        {
            "epoch": row.get("epoch"),
            "vci": vci[i][0],
            "interval": vci[i][1],
            "is_adjusted": row.get("vci_adjusted") is not None,
            "accuracy": accuracy[i][0],
            "accuracy_interval": accuracy[i][1],
            "samples": f"{row['samples']:,}" if row.get("samples") is not None else DASH,
            "notes": _notes(row, ("vci_adjusted", "vci", "samples")),
            "reason": "" if _vci(row) is not None else _reason("vci", row),
        }
        for i, row in enumerate(rows)
    ]


def _vci(row: dict[str, Any]) -> float | None:
    """Returns the adjusted VCI if it is defined, else the plain one."""
    adjusted = row.get("vci_adjusted")
    return row.get("vci") if adjusted is None else adjusted


def _with_intervals(
    values: Sequence[float | None], ends: Sequence[Sequence[float | None] | None]
) -> list[tuple[str, str]]:
    """Returns pairs of number and interval, such as "0.0363 to 0.0398", to equal places."""
    pairs = [(None, None) if not pair or None in pair else tuple(pair) for pair in ends]
    texts = numbers([*values, *(end for pair in pairs for end in pair)])
    lows, highs = texts[len(values) :: 2], texts[len(values) + 1 :: 2]
    spans = [DASH not in (a, b) and f"{a} to {b}" for a, b in zip(lows, highs, strict=True)]
    return [(value, span or "") for value, span in zip(texts[: len(values)], spans, strict=True)]


def _notes(row: dict[str, Any], metrics: Sequence[str]) -> list[str]:
    notes = caveats.notes(row)
    return list(dict.fromkeys(note for metric in metrics for note in notes.get(metric, [])))


def _reason(metric: str, row: dict[str, Any]) -> str:
    return caveats.why_undefined(metric, row) if row else "no row of this split is recorded"


def _cells(metric: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    values = [row.get(metric) for row in rows]
    ends: list[Any] = [None] * len(rows)
    if metric == "vci_adjusted":
        ends = [row.get("vci_interval") for row in rows]
    elif metric == "accuracy":
        ends = list(map(caveats.accuracy_interval, rows))
    notes = [
        [_reason(metric, row)] if value is None else _notes(row, (metric,))
        for row, value in zip(rows, values, strict=True)
    ]
    return [
        {"text": text, "interval": interval, "notes": notes[i]}
        for i, (text, interval) in enumerate(_with_intervals(values, ends))
    ]


def _sentence(run: Run) -> str:
    adjusted = any(run.last(split).get("vci_adjusted") is not None for split in SPLITS)
    parts, before = [], ""
    for split in SPLITS:
        _, values = run.curve("vci_adjusted" if adjusted else "vci", split)
        if len(values) > 1:
            verb = "fell " if values[-1] < values[0] else "did not fall: it went "
            opening = "" if verb == before else verb
            first, last = numbers([values[0], values[-1]])
            parts.append(f"{opening}from {first} to {last} on {split}")
            before = verb
    if not parts:
        return "There are fewer than two records yet, so no change can be reported."
    name = "VCI" if adjusted else "VCI, not adjusted for sample size,"
    return f"{name} {' and '.join(parts)}; 0 is complete collapse.{_overlap(run)}"


def adjustment(run: Run) -> str:
    """Returns a sentence on the adjustment of VCI, with the plain values."""
    rows = [(split, run.last(split)) for split in SPLITS]
    pairs = [(s, r["vci"]) for s, r in rows if None not in (r.get("vci"), r.get("vci_adjusted"))]
    if not pairs:
        return ""
    texts = numbers([value for _, value in pairs])
    plain = " and ".join(f"{t} on {s}" for t, (s, _) in zip(texts, pairs, strict=True))
    return (
        "VCI on this page is vci_adjusted: without the bias of the sample size, which makes VCI of "
        "few images too small, so that splits of different sizes can be compared. The plain "
        f"VCI of these images is {plain}."
    )


def _overlap(run: Run) -> str:
    ends = [run.last(split).get("vci_interval") for split in SPLITS]
    if any(not e or None in e for e in ends):
        return ""
    (low, high), (other_low, other_high) = (e for e in ends if e)
    apart = "overlap" if low <= other_high and other_low <= high else "do not overlap"
    return f" The 95 % intervals of train and test {apart}."


def scores(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Returns the scores by run and task, the best of each task marked; None without scores."""
    probed = [run for run in runs if run.transfer]
    if not probed:
        return None
    tasks = list(dict.fromkeys(row["task"] for run in probed for row in run.transfer))
    scored = [{row["task"]: row for row in run.transfer} for run in probed]
    shared = common_tasks(runs)
    gain = all(measured(run, "test").get("accuracy") is not None for run in probed)
    means = [transfer_score(run, shared, gain=gain) for run in probed]
    return {
        "tasks": [
            {"name": escape.line(task), "score": _score_name(scored, task)} for task in tasks
        ],
        "runs": [
            {"name": run.name, "cells": [_score(scored, i, task) for task in tasks]}
            for i, run in enumerate(probed)
        ],
        "means": [
            {"text": text, "best": i in _best(means)} for i, text in enumerate(numbers(means))
        ],
        "mean_name": "MLOG" if gain else "MLO",
        "shared": len(shared),
        "lacking": [run.name for run in runs if not run.transfer],
    }


def common_tasks(runs: Sequence[Run]) -> list[str]:
    """Returns the tasks that all probed runs share."""
    tasks = [[row["task"] for row in run.transfer] for run in runs if run.transfer]
    return [task for task in (tasks[0] if tasks else []) if all(task in t for t in tasks)]


def transfer_score(run: Run, tasks: Sequence[str], *, gain: bool) -> float | None:
    """Returns MLO of a run over tasks, or MLOG with ``gain``; None if it is undefined."""
    rows = {row["task"]: row for row in run.transfer if row["score"] is not None}
    if not tasks or any(task not in rows for task in tasks):
        return None
    own = measured(run, "test")
    try:
        scores = [odds.adjusted_score(rows[task])[0] for task in tasks]
        return odds.mlog(scores, odds.adjusted_accuracy(own)[0]) if gain else odds.mlo(scores)
    except (ValueError, KeyError):  # A score of 0 or 1 without a number of images.
        return None


def _score_name(scored: list[dict[str, Any]], task: str) -> str:
    return next((s[task].get("score_name", "") for s in scored if task in s), "")


def _score(scored: list[dict[str, Any]], which: int, task: str) -> dict[str, Any]:
    row = scored[which].get(task)
    if row is None or row["score"] is None:
        return {"text": DASH, "best": False, "detail": "not probed"}
    best = which in _best([s[task]["score"] if task in s else None for s in scored])
    detail = [
        f"{name} {row[key]:.4g}"
        for key, name in (("validation_score", "validation"), ("l2", "l2"))
        if row.get(key) is not None
    ]
    return {"text": f"{row['score']:.4f}", "best": best, "detail": ", ".join(detail)}


def _best(values: Sequence[float | None]) -> set[int]:
    """Returns the indices of the highest value, if there are two or more values."""
    defined = [value for value in values if value is not None]
    return summary.leading(values) if len(defined) > 1 else set()
