"""Work directories with known numbers, as a training leaves them, for the tests of the reports."""

import json
import math
from pathlib import Path

from probes.analysis.runs import Run

CLASSES, DIM = 10, 16
METRICS = ("vci", "fuzziness", "squared_distance", "cosine_similarity")


def row(epoch, split, *, level=1.0, **changes):
    """One row of metrics.jsonl; collapse proceeds as 1 / (1 + epoch)."""
    value = level * (0.5 if split == "train" else 0.6) / (1 + epoch)
    made = {
        "step": 22 * epoch,
        "epoch": epoch,
        "split": split,
        "accuracy": 1 - value / 2,
        "loss": value,
        "vci": value,
        "vci_adjusted": 1.02 * value,
        "vci_interval": [0.9 * value, 1.15 * value],
        "fuzziness": 3 * value,
        "squared_distance": 2 * value,
        "cosine_similarity": 1 - value,
        "class_separation": 1 - value / 2,
        "cdnv": value / 4,
        "spectrum": {
            "between": [1.0 / 2**i for i in range(CLASSES - 1)],
            "total": [(1 + value) / 2**i for i in range(DIM)],
        },
        "samples": 1000,
        "classes": CLASSES,
        "dim": DIM,
        "kept_rank": DIM,
        "warnings": [],
        "seconds": 0.1,
        "images_per_second": None,
    }
    return made | changes


def per_class(epoch=4, classes=CLASSES):
    """The content of per_class.json; class 3 is the loosest on train."""
    table = {
        "name": [f"class {k}" for k in range(classes)],
        "count": [100] * classes,
        "accuracy": [1 - k / 100 for k in range(classes)],
        "variance": [1.0 + k for k in range(classes)],
        "distance": [5.0] * classes,
        "squared_distance": [0.1 + (0.5 if k == 3 else k / (10 * classes)) for k in range(classes)],
        "cosine_similarity": [0.9] * classes,
        "nearest": [(k + 1) % classes for k in range(classes)],
        "nearest_cdnv": [0.05] * classes,
    }
    return {"step": 22 * epoch, "epoch": epoch, "train": table, "test": table}


def picture(epoch, split, images=30):
    """One line of pictures.jsonl; the images of each class move outwards."""
    angle = [2 * math.pi * (i % CLASSES) / CLASSES for i in range(images)]
    reach = epoch / (1 + epoch)
    return {
        "step": 22 * epoch,
        "epoch": epoch,
        "split": split,
        "label": [i % CLASSES for i in range(images)],
        "x": [round(reach * math.cos(a) + 0.01 * i, 3) for i, a in enumerate(angle)],
        "y": [round(reach * math.sin(a), 3) for a in angle],
    }


RUN_JSON = [
    {
        "started": "2026-01-02T03:04:05Z",
        "platform": "gpu",
        "device_kind": "NVIDIA Test",
        "devices": 2,
        "processes": 1,
        "system": "Linux x86_64",
        "python": "3.12.1",
        "versions": {"jax": "0.10.2", "flax": None},
        "step": 0,
    }
]


def write_run(path, *, name=None, epochs=4, config=None, level=1.0, tasks=None, rows=None):
    """Writes a finished run; ``tasks`` are scores by task, ``rows`` replaces the usual ones."""
    path.mkdir(parents=True)
    settings = {
        "name": name or path.name,
        "epochs": epochs,
        "seed": 0,
        "loss": {"temperature": 1.0},
    }
    (path / "config.json").write_text(json.dumps(settings | (config or {})))
    if rows is None:
        rows = [row(e, s, level=level) for e in range(epochs + 1) for s in ("train", "test")]
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (path / "per_class.json").write_text(json.dumps(per_class(epochs)))
    pictures = [picture(e, s) for e in range(epochs + 1) for s in ("train", "test")]
    (path / "pictures.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pictures))
    (path / "run.json").write_text(json.dumps(RUN_JSON))
    if tasks:
        lines = [
            {"run": path.name, "task": task, "score": score, "score_name": "accuracy", "l2": 1e-3,
             "validation_score": score - 0.01}
            for task, score in tasks.items()
        ]  # fmt: skip
        (path / "transfer.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_group(path, runs=5):
    """Writes runs of rising temperature: the more collapse, the worse the transfer."""
    return [
        write_run(
            path / f"tau_{i}",
            name=f"temperature/tau_{i}",
            config={"loss": {"temperature": 0.1 * (i + 1)}},
            level=1.0 - 0.1 * i,
            tasks={"pets": 0.9 - 0.02 * i, "cars": 0.6 - 0.03 * i + 0.01 * (i == 2)},
        )
        for i in range(runs)
    ]


def epoch_rows(epochs=4):
    return [
        {
            "epoch": e,
            "split": s,
            **{m: (i + 1 + (s == "test")) / (e + 1) for i, m in enumerate(METRICS)},
        }
        for e in range(epochs)
        for s in ("train", "test")
    ]


def loaded_run(name, rows=None, **fields):
    """A run of 30 epochs with every key that a figure needs; ``fields`` are set in each row."""
    rows = epoch_rows(30) if rows is None else rows
    spectrum = {"total": [2.0 / (i + 1) for i in range(40)], "between": [1.0, 0.5, 0.0]}
    full = [
        {
            "within_between_part": 9 / (1 + row["epoch"]),
            "within_orthogonal_part": 1 + row["epoch"],
            "spectrum": spectrum,
        }
        | row
        | fields
        for row in rows
    ]
    return Run(name, "group", Path(name), {}, full, [], [])
