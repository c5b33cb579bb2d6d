"""The classes of each run at its last record, from ``per_class.json``."""

import json
from collections.abc import Sequence
from typing import Any

from probes.analysis.runs import Run
from probes.page.curves import SPLITS, short

COLUMNS = (
    ("class", "Class"),
    ("count", "Images"),
    ("squared_distance", "Spread: variance / distance²"),
    ("variance", "Variance"),
    ("distance", "Distance from the centre"),
    ("cosine_similarity", "Cosine similarity"),
    ("nearest", "Nearest class"),
    ("nearest_cdnv", "CDNV with it"),
)

# Rows on a page, at some sixty bytes each.
_BUDGET = 12_000


def tables(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns a table for each run and split that has one, and what is missing, in sentences.

    Where there are too many classes for a page, those with the largest spread are kept.
    """
    found, missing = [], []
    most = max(50, _BUDGET // (2 * max(1, len(runs))))
    for number, run in enumerate(runs):
        try:
            record = json.loads((run.path / "per_class.json").read_text())
        except FileNotFoundError:
            missing.append(f"{run.name}: there is no per_class.json (an older version, or no row).")
            continue
        except json.JSONDecodeError:
            missing.append(f"{run.name}: per_class.json is damaged.")
            continue
        found += [
            {"run": number, "split": split, "epoch": record.get("epoch")}
            | _table(record[split], most)
            for split in SPLITS
            if split in record
        ]
    return found, missing


def _table(columns: dict[str, list[Any]], most: int) -> dict[str, Any]:
    spread = [-1.0 if value is None else value for value in columns["squared_distance"]]
    order = sorted(range(len(spread)), key=lambda k: -spread[k])[:most]
    rows = [
        [k, *(_value(columns, name, k) for name, _ in COLUMNS if name != "class")] for k in order
    ]
    return {"of": len(spread), "rows": rows}


def _value(columns: dict[str, list[Any]], name: str, k: int) -> float | int | None:
    value = columns[name][k] if name in columns else None
    return short(value, 4) if isinstance(value, float) else value
