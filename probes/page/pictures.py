"""Where some images of each run lie in the plane of its best linear probe: ``pictures.jsonl``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.analysis.runs import Run, read_rows
from probes.page.classes import names
from probes.page.curves import SPLITS, evenly

# Points on a page, at some twelve bytes each: a quarter of its 3 MB.
_BUDGET = 60_000

# With more classes than this, corners are too close for names.
_NAMED = 20


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
                most = max(2, _BUDGET // (2 * len(runs) * max(1, len(own[-1]["label"]))))
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
