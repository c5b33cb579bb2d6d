"""What the page says without a script: verdicts, settings and machines."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from probes.analysis.runs import Run, differences
from probes.page import wary
from probes.page.metrics import BY_NAME, COLLAPSE
from train.config import Config, flatten

SPLITS = ("train", "test")
DASH = "\N{EN DASH}"
_SHOWN = ("vci_adjusted", *COLLAPSE, "class_separation", "probe_mse")


def number(value: float | None, digits: int = 4) -> str:
    """Returns a number for people; a dash for what is none, whose reason stands beside it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}g}" if abs(value) < 1e5 else f"{value:.2e}"


def interval(ends: Sequence[float | None] | None) -> str:
    """Returns "0.03 to 0.05", or nothing for no interval."""
    if not ends or None in ends:
        return ""
    return f"{number(ends[0], 3)} to {number(ends[1], 3)}"


def verdict(run: Run) -> dict[str, Any]:
    """Returns where a run stands: progress in words, and each metric of both splits with notes."""
    rows = {split: run.last(split) for split in SPLITS}
    return {
        "name": run.name,
        "progress": progress(run),
        "sentence": _sentence(run),
        "splits": {split: _split(row) for split, row in rows.items()},
        "metrics": [
            {
                "title": BY_NAME[name].title,
                "direction": BY_NAME[name].direction,
                "cells": [_cell(name, row) for row in rows.values()],
            }
            for name in ("accuracy", "loss", *_SHOWN)
        ],
        # That nothing was probed yet is said where the scores would be.
        "notes": [note for note in run.notes if note != "transfer.jsonl: there is none."],
    }


def is_finished(run: Run) -> bool:
    """Whether the last epoch of the config is recorded for both splits."""
    epochs = run.config.get("epochs")
    return epochs is not None and all(
        run.last(split).get("epoch", -1) >= epochs for split in SPLITS
    )


def progress(run: Run) -> str:
    """Returns "finished, 80 epochs" or how far it is."""
    epochs, last = run.config.get("epochs"), run.last("test").get("epoch")
    if is_finished(run):
        return f"finished, {epochs} epochs"
    if last is None:
        return "nothing recorded yet"
    return f"not finished: epoch {last} of {'an unknown number' if epochs is None else epochs}"


def config_table(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the settings all runs share, and those in which they differ."""
    defaults = json.loads(json.dumps(flatten(dataclasses.asdict(Config()))))
    flat = [flatten(run.config) for run in runs]
    varied = differences(runs)
    fields = dict.fromkeys(field for config in flat for field in config)
    return {
        "varied": {f: [_setting(v) for v in values] for f, values in varied.items()},
        "shared": [
            {
                "field": f,
                "value": _setting(flat[0].get(f)),
                "set": flat[0].get(f) != defaults.get(f),
            }
            for f in fields
            if f not in varied and all(config.get(f) == flat[0].get(f) for config in flat)
        ],
    }


def machines(run: Run) -> list[dict[str, Any]]:
    """Returns the entries of ``run.json``; none if it is missing or damaged."""
    try:
        entries = json.loads((run.path / "run.json").read_text())
    except (OSError, json.JSONDecodeError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)]


def _setting(value: Any) -> str:
    """Returns a setting as a person would type it: 0.3 for 0.30000000000000004."""
    if isinstance(value, float):
        return f"{value:.10g}"
    if value is None or value == "":
        return DASH
    return str(value)


def _split(row: dict[str, Any]) -> dict[str, Any]:
    vci, adjusted = row.get("vci"), row.get("vci_adjusted")
    said = wary.notes(row)
    return {
        "epoch": row.get("epoch"),
        "vci": number(adjusted if adjusted is not None else vci),
        "is_adjusted": adjusted is not None,
        "plain": number(vci),
        "interval": interval(row.get("vci_interval")),
        "accuracy": number(row.get("accuracy")),
        "accuracy_interval": interval(wary.accuracy_interval(row)),
        "samples": number(row.get("samples")),
        "notes": [note for key in ("vci_adjusted", "vci", "samples") for note in said.get(key, [])],
        "reason": "" if vci is not None else wary.why_undefined("vci", row) if row else "no row",
    }


def _cell(metric: str, row: dict[str, Any]) -> dict[str, Any]:
    value = row.get(metric)
    ends = {
        "vci_adjusted": row.get("vci_interval"),
        "accuracy": wary.accuracy_interval(row),
    }.get(metric)
    if not row:
        reason = "no row of this split is recorded"
    else:
        reason = "" if value is not None else wary.why_undefined(metric, row)
    notes = [reason] if reason else wary.notes(row).get(metric, [])
    return {"text": number(value), "interval": interval(ends), "notes": notes}


def _sentence(run: Run) -> str:
    parts, before = [], ""
    for split in SPLITS:
        _, values = run.curve("vci", split)
        if len(values) > 1:
            verb = "fell " if values[-1] < values[0] else "did not fall: it went "
            said = "" if verb == before else verb
            parts.append(f"{said}from {values[0]:.3f} to {values[-1]:.3f} on {split}")
            before = verb
    if not parts:
        return "There are not two records yet, so nothing can be said of a change."
    adjusted = any(run.last(split).get("vci_adjusted") is not None for split in SPLITS)
    name = "Plain VCI, not adjusted for sample size," if adjusted else "VCI"
    return f"{name} {' and '.join(parts)}; 0 is complete collapse.{_told_apart(run)}"


def _told_apart(run: Run) -> str:
    ends = [run.last(split).get("vci_interval") for split in SPLITS]
    if any(not e or None in e for e in ends):
        return ""
    (low, high), (other_low, other_high) = (e for e in ends if e)
    overlap = low <= other_high and other_low <= high
    return (
        " The intervals of adjusted VCI on train and test overlap."
        if overlap
        else " The intervals of adjusted VCI on train and test do not overlap."
    )
