"""The classes of each run: a table of the last record, and some of their images as points.

They are from ``per_class.json``, and from ``pictures.jsonl``, which has images in the plane of the
best linear probe.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.analysis.runs import Run, read_rows
from probes.page.curves import SPLITS, evenly, short
from probes.transfer import escape

COLUMNS = (
    ("class", "Class"),
    ("count", "Images"),
    ("accuracy", "Accuracy"),
    ("squared_distance", "Variance / distance²"),
    ("variance", "Variance"),
    ("distance", "Distance of its mean"),
    ("cosine_similarity", "Cosine similarity"),
    ("nearest", "Nearest class"),
    ("nearest_cdnv", "CDNV of the two"),
)

# Rows on a page, of about sixty bytes each.
_BUDGET = 12_000

# Points on a page, of about twelve bytes each: a quarter of its 3 MB.
_POINTS = 60_000

# More classes than this have no names in the picture.
_NAMED = 20


def tables(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns a table for each run and split that has one, and sentences about missing ones.

    Of too many classes for a page, it has those with the largest spread.
    """
    shown, missing = [], []
    most = max(50, _BUDGET // (2 * max(1, len(runs))))
    for number, run in enumerate(runs):
        record = _record(run)
        if isinstance(record, str):
            missing.append(f"{run.name}: {record}")
            continue
        shown += [
            {"run": number, "split": split, "epoch": record.get("epoch")}
            | _table(record[split], most)
            for split in SPLITS
            if split in record
        ]
    return shown, missing


def names(run: Run) -> list[str]:
    """Returns the names of the classes of a run; empty if they are not recorded."""
    record = _record(run)
    tables = [] if isinstance(record, str) else [record[s] for s in SPLITS if s in record]
    return next((_names(table) for table in tables), [])


def _record(run: Run) -> dict[str, Any] | str:
    """Returns the content of a run's file, or the reason why it cannot be read."""
    try:
        record = json.loads((run.path / "per_class.json").read_text(errors="replace"))
    except FileNotFoundError:
        return "no per_class.json (an older version, or nothing recorded yet)."
    except json.JSONDecodeError:
        return "per_class.json is damaged."
    if not isinstance(record, dict) or not all(_is_table(record[s]) for s in SPLITS if s in record):
        return "per_class.json is damaged."
    return record


def _is_table(columns: Any) -> bool:
    """Whether a value is a table: columns of one length, with a number or None for the spread."""
    if not isinstance(columns, dict) or "squared_distance" not in columns:
        return False
    present = [columns[name] for name in ("name", *dict(COLUMNS)) if name in columns]
    if not all(isinstance(column, list) for column in present):
        return False
    spread = columns["squared_distance"]
    numbers = all(value is None or isinstance(value, int | float) for value in spread)
    return numbers and len({len(column) for column in present}) == 1


def _names(columns: dict[str, list[Any]]) -> list[str]:
    return [escape.line(str(name)) for name in columns.get("name", [])]


def _table(columns: dict[str, list[Any]], most: int) -> dict[str, Any]:
    spread = [-1.0 if value is None else value for value in columns["squared_distance"]]
    order = sorted(range(len(spread)), key=lambda k: -spread[k])[:most]
    columns = columns | {"class": list(range(len(spread)))}
    class_names = _names(columns)
    rows = [[_value(columns, name, k, class_names) for name, _ in COLUMNS] for k in order]
    return {"of": len(spread), "rows": rows}


def _value(
    columns: dict[str, list[Any]], name: str, k: int, class_names: list[str]
) -> float | int | str | None:
    value = columns[name][k] if name in columns else None
    if name in ("class", "nearest"):
        if not isinstance(value, int) or value < 0:
            return None  # The only class has no nearest one.
        return class_names[value] if class_names else value
    return short(value, 4) if isinstance(value, float) else value


def pictures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns the points of each run and split that has some, at evenly spaced epochs."""
    charts = []
    for number, run in enumerate(runs):
        path = run.path / "pictures.jsonl"
        rows = read_rows(path, [], required=("epoch", "split", "label", "x", "y"))
        if not all(map(_is_picture, rows)):
            raise ValueError(f"{path} is damaged: a line has no points; delete that line.")
        for split in SPLITS:
            own = list({row["epoch"]: row for row in rows if row["split"] == split}.values())
            if own:
                most = max(2, _POINTS // (2 * len(runs) * max(1, len(own[-1]["label"]))))
                own = [own[i] for i in evenly(len(own), most)]
                charts.append({"run": number, "split": split} | _picture(own, names(run)))
    return charts


def _is_picture(row: dict[str, Any]) -> bool:
    columns = [row["label"], row["x"], row["y"]]
    return (
        all(isinstance(column, list) for column in columns)
        and len({len(column) for column in columns}) == 1
        and all(isinstance(label, int) for label in row["label"])
    )


def _picture(rows: list[dict[str, Any]], class_names: list[str]) -> dict[str, Any]:
    last = rows[-1]
    count = len(class_names) or max(last["label"], default=0) + 1
    angle = 2 * np.pi * np.arange(count) / count
    corners = np.stack([np.cos(angle), np.sin(angle)], axis=1).round(3).tolist()
    return {
        "names": (class_names or [str(k) for k in range(count)])[: count if count <= _NAMED else 0],
        "corners": corners,
        "label": last["label"],
        "epochs": [row["epoch"] for row in rows],
        "points": [list(zip(row["x"], row["y"], strict=True)) for row in rows],
    }
