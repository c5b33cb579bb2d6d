"""The raw file of a network: correct test images of its probes, and all cheap scores.

    python -m studies.cifar10.score RUN [RUN ...] --out docs/study/networks --data-dir DIR

writes ``OUT/seed_S/NAME.json`` from a finished run of ``configs/collapse_study.py``. It has a bit
for each test image, 1 if it is classified correctly, in the same order for all networks, so errors
can be paired over images. ``OUT/images.json`` has the test images of tasks with a part of
CIFAR-100.
"""

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import vci_jax
from probes import encoders
from probes.analysis import runs
from probes.encoders.config import TransferConfig
from probes.encoders.encoder import Encoder
from probes.transfer import features, task_features, tasks
from studies.cifar10.networks import OWN, pack
from train import data, runtime
from train.config import DataConfig
from vci_jax.probe import baselines, selection
from vci_jax.probe.selection import Samples
from vci_jax.written import replace_text

VALUES = np.geomspace(1e-6, 1e6, 25)
SIZES = (500, 2000)
FOLDS, REPEATS = 5, 3
NEIGHBOURS = 20
# Metrics on the pretraining images.
METRICS = ("accuracy", "loss", "vci", "vci_adjusted", "fuzziness", "squared_distance",
           "cosine_similarity", "class_separation", "cdnv", "effective_rank", "h_score", "logme",
           "samples")  # fmt: skip
TARGET_METRICS = ("vci_adjusted", "h_score_adjusted", "logme")
# Tasks of the test images of CIFAR-100, and tasks with too few images for a test set.
SPLIT = ("cifar100", "cifar100_coarse", "cifar100_living", "cifar100_made")
WHOLE = ("digits", "sign_digits")


class Target(NamedTuple):
    """Features of a task; ``test`` is None if all images are scored by cross-fitting."""

    name: str
    train: Samples
    test: Samples | None
    num_classes: int


def main(arguments: list[str]) -> int:
    """Scores the networks that have no raw file yet, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="+", help="work directories of finished runs")
    parser.add_argument("--out", type=Path, required=True, help="directory of the raw files")
    parser.add_argument("--data-dir", default="", help="where CIFAR-100 is, prepared by TFDS")
    parser.add_argument("--sign-digits", default="", help="folder of the photographs of hand signs")
    parsed = parser.parse_args(arguments)
    runtime.quiet()
    runtime.cache_programs()
    sources = {"sign_digits": f"folder:{parsed.sign_digits}"} if parsed.sign_digits else {}
    options = TransferConfig(data_dir=parsed.data_dir, threads=1, sources=sources)
    for path in parsed.run:
        run = runs.read_run(path)
        file = parsed.out / f"seed_{run.config['seed']}" / f"{run.name}.json"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_text(file, json.dumps(network(path, options)) + "\n")
            print(file, flush=True)
    if not (parsed.out / "images.json").exists():
        replace_text(parsed.out / "images.json", json.dumps(subsets(parsed.data_dir)) + "\n")
    return 0


def network(path: Path, options: TransferConfig) -> dict[str, Any]:
    """Returns the content of a run's raw file."""
    run = runs.read_run(path)
    own = {split: run.last(split) for split in ("train", "test")}
    if own["test"].get("epoch") != run.config["epochs"]:
        raise ValueError(f"{path} is not finished: its last test row is of {own['test']}.")
    encoder = encoders.load(str(path), options)
    start = time.perf_counter()
    metrics = {split: {name: row[name] for name in METRICS} for split, row in own.items()}
    metrics["test"] |= {
        "images": own["test"]["samples"],
        "right": [pack(own_answers(encoder, options))],
    }
    scores = {target.name: score(target) for target in targets(encoder, options)}
    seconds = {"training": training_seconds(run), "scoring": time.perf_counter() - start}
    return {
        "setting": run.name,
        "seed": run.config["seed"],
        "machine": json.loads((path / "run.json").read_text()),
        "processor": processor(),
        "seconds": seconds,
        **metrics,
        "tasks": scores,
    }


def training_seconds(run: runs.Run) -> float:
    """Returns the time of a run's steps and measurements, without start and compilation."""
    rows = [row for row in run.rows if row["split"] in ("train", "test")]
    rates = [row["images_per_second"] for row in rows if row["images_per_second"]]
    steps = max(row["step"] for row in rows)
    images = steps * run.config["data"]["batch_size"]
    return images / statistics.median(rates) + sum(row["seconds"] for row in rows)


def processor() -> str:
    """Returns the name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def own_answers(encoder: Encoder, options: TransferConfig) -> np.ndarray:
    """Returns which pretraining test images the network's own head classifies correctly."""
    (task,) = tasks.choose("small", (OWN,), {}, Path(options.data_dir))
    planned = task_features.plan(encoder, task, logits=True)
    test = planned.splits["test"]
    compute = features.extract(
        encoder.outputs, test, planned.config, mesh=encoder.mesh, batch_size=options.batch_size
    )
    _, labels, logits = compute(range(test.size))
    return np.asarray(np.argmax(logits, axis=1) == labels)


def subsets(data_dir: str) -> dict[str, str]:
    """Returns the test images of each task with a part of CIFAR-100, packed."""
    cifar = data.load(DataConfig(source="tfds:cifar100:3.0.2", data_dir=data_dir))
    names = [cifar.classes[cifar.test.records.read(row)[1]] for row in range(cifar.test.size)]
    packed = {}
    for task in tasks.choose("small", SPLIT, {}, Path(data_dir)):
        chosen = {old for _, olds in task.classes for old in olds}
        if chosen and not chosen.issuperset(cifar.classes):
            packed[task.name] = pack(np.isin(names, list(chosen)))
    return packed


def targets(encoder: Encoder, options: TransferConfig) -> Iterator[Target]:
    """Yields the features of each task."""
    data_dir = Path(options.data_dir)
    for task in tasks.choose("small", (*SPLIT, *WHOLE), options.sources, data_dir):
        train, test, num_classes = task_samples(encoder, task, options)
        if task.name in WHOLE:
            both = Samples(*(np.concatenate(parts) for parts in zip(train, test, strict=True)))
            yield Target(task.name, both, None, num_classes)
        else:
            yield Target(task.name, train, test, num_classes)


def task_samples(
    encoder: Encoder, task: tasks.Task, options: TransferConfig
) -> tuple[Samples, Samples, int]:
    """Returns the features of a task's splits and its number of classes, cached on disk."""
    planned = task_features.plan(encoder, task)
    root = encoder.directory / "features"
    cached = task_features.make(encoder, task, planned, options, root=root)
    train, test = (Samples(*map(np.asarray, cached.splits[name])) for name in ("train", "test"))
    return train, test, cached.num_classes


def score(target: Target) -> dict[str, Any]:
    """Returns the images that the probe classifies correctly, and cheap scores of subsets."""
    if target.test is None:
        right = [cross_fitted(target, repeat) for repeat in range(REPEATS)]
    else:
        right = [answers(target.train, target.test, target.num_classes)]
    sizes = [size for size in SIZES if size < len(target.train.labels)]
    return {
        "images": len(right[0]),
        "right": [pack(answer) for answer in right],
        "accuracy": float(np.mean(right)),
        "cheap": {
            str(size): cheap(part(target.train, size), target.num_classes)
            for size in (*sizes, len(target.train.labels))
        },
    }


def answers(
    train: Samples, test: Samples, num_classes: int, values: np.ndarray = VALUES
) -> np.ndarray:
    """Returns whether the probe of the paper's protocol is right on each test image."""
    result = sweep(train, test, num_classes, values=values)
    predicted = selection.predict(result.fit.kernel, result.fit.bias, test.features)
    return np.asarray(predicted == test.labels)


def sweep(
    train: Samples,
    test: Samples,
    num_classes: int,
    validation: Samples | None = None,
    values: np.ndarray = VALUES,
) -> selection.Sweep:
    """Returns the probe of the paper's protocol, by default with a quarter of its penalties."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # The selected penalty is at an end of the grid.
        return selection.sweep(
            train,
            test,
            validation=validation,
            values=values,
            num_classes=num_classes,
            tolerance=1e-5,  # docs/study.md says what that changes
        )


def cross_fitted(target: Target, repeat: int) -> np.ndarray:
    """Returns whether each image is right under the probe of the folds without it."""
    features, labels = target.train
    fold = folds(labels, repeat)
    right = np.zeros(len(labels), bool)
    for number in range(FOLDS):
        held_out = fold == number
        train = Samples(features[~held_out], labels[~held_out])
        right[held_out] = answers(
            train, Samples(features[held_out], labels[held_out]), target.num_classes
        )
    return right


def folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns the fold of each image; folds are of equal size, in all and in each class."""
    order = np.random.default_rng(seed).permutation(len(labels))
    fold = np.empty(len(labels), int)
    fold[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % FOLDS
    return fold


def part(samples: Samples, size: int) -> Samples:
    """Returns a balanced subset of images, the same for every network."""
    if size >= len(samples.labels):
        return samples
    order = np.random.default_rng(0).permutation(len(samples.labels))
    labels = samples.labels[order]
    rank = np.empty(len(order), int)  # of an image within its class
    for name in np.unique(labels):
        rank[labels == name] = np.arange(np.sum(labels == name))
    rows = np.sort(order[np.argsort(rank, kind="stable")[:size]])
    return Samples(samples.features[rows], samples.labels[rows])


def cheap(samples: Samples, num_classes: int) -> dict[str, float]:
    """Returns the cheap scores of labelled images.

    Means, neighbours and the probe are scored on a held-out fifth, which also selects the probe's
    penalty.
    """
    fitted, held_out = selection.hold_out(samples, 0)
    nearest = baselines.knn_predict(
        *fitted, held_out.features, k=min(NEIGHBOURS, len(fitted.labels)), num_classes=num_classes
    )
    centroid = baselines.nearest_mean_predict(*fitted, held_out.features, num_classes=num_classes)
    empty = vci_jax.init(num_classes, samples.features.shape[1])
    report = vci_jax.report(vci_jax.jit_update(empty, *samples), only=TARGET_METRICS)
    scores = {
        **{name: report[name] for name in TARGET_METRICS},
        "nearest_mean": np.mean(centroid == held_out.labels),
        "neighbours": np.mean(nearest == held_out.labels),
    }
    if len(samples.labels) in SIZES:  # On all images the probe is the reference, not a score.
        scores["probe"] = sweep(fitted, held_out, num_classes, validation=held_out).validation_score
    return {name: float(value) for name, value in scores.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
