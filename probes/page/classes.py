"""The classes of each run at its last record, from ``per_class.json``."""

import json
from collections.abc import Sequence
from typing import Any

from probes.analysis.runs import Run
from probes.page.curves import SPLITS, short
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

# Rows on a page, at some sixty bytes each.
_BUDGET = 12_000


def tables(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns a table for each run and split that has one, and what is missing, in sentences.

    Where there are too many classes for a page, those with the largest spread are kept.
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
    """Returns the names of the classes of a run, if it has noted them."""
    record = _record(run)
    tables = [] if isinstance(record, str) else [record[s] for s in SPLITS if s in record]
    return next((_names(table) for table in tables), [])


def _record(run: Run) -> dict[str, Any] | str:
    """Returns the content of a run's file, or why there is none."""
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
    """Whether something is a table: columns of one length, with a number or None for the spread."""
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
