"""Ranking of models on images: features on disk, then probes, compared in pairs.

A model that fails is left out. Features on disk are not computed again, so the same command resumes
after an interruption.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from probes.encoders import load
from probes.encoders.config import TransferConfig
from probes.transfer import runner as transfer
from probes.transfer import task_features
from probes.transfer.display import Display
from probes.transfer.tasks import Task, choose
from train.config import ConfigError
from train.data import Split
from vci_jax.probe import Ranking, rank

# With fewer images than this, all of them are scored, by cross-fitting.
SMALL = 2000
_CURVE = (0.1, 0.3)


@dataclasses.dataclass(frozen=True)
class RankConfig:
    """Images, and settings of the ranking."""

    data: str
    """Images: folder:PATH, tfds:NAME, digits, or a task of the suites such as cifar100_living."""
    out: str = "ranking"
    """Directory for ranking.json, rank.html, and the features of models other than runs."""
    score: str = ""
    """top1 or mean_per_class; empty for the task's own score, which is top1 for a folder."""
    csv: bool = False
    """Write ranking.csv as well, one row per model."""
    curve: bool = True
    """Also fit probes on a tenth and on three tenths of the training images, for the page."""
    confidence: float = 0.95
    """Confidence level of all intervals; pairs of models are tested at one minus this level."""
    data_dir: str = ""
    """Directory of prepared TFDS data sets and of image folders; empty for the default of TFDS."""
    image_size: int = 0
    """Side of the input images; 0 for the size that each network was trained on."""
    batch_size: int = 256
    """Images per forward pass, over all devices together; affects the speed alone."""
    shard_rows: int = 8192
    """Images per shard on disk; an interruption loses at most one shard."""
    threads: int = 2
    """Threads that read images."""
    max_unreadable: int = 0
    """Number of unreadable images to leave out; with more, a model fails and names them."""
    seed: int = 0
    """Seed of the splits."""
    neighbours: int = 20
    """Number k of neighbours of the nearest-neighbour score."""


class Outcome(NamedTuple):
    """A ranking, and further content of its page.

    Attributes:
      features: features of the scored images by model, ``[N D]``.
      classes: names of the task's classes.
      images: the splits of the scored images, in their order.
      failures: models without a score, and the reasons.
    """

    ranking: Ranking
    features: dict[str, np.ndarray]
    classes: Sequence[str]
    images: list[Split]
    failures: list[tuple[str, str]]


class _Rows(NamedTuple):
    """One model's features, labels and logits to fit on, and features of an official test split."""

    features: np.ndarray
    labels: np.ndarray
    logits: np.ndarray | None
    test: np.ndarray | None
    test_labels: np.ndarray | None


def task_of(config: RankConfig) -> tuple[Task, TransferConfig]:
    """Returns the task on whose images models are ranked, and the settings of its features.

    Raises:
      ConfigError: no such data or score.
    """
    options = _options(config)
    task = choose("small", [config.data], {}, transfer.data_directory(options))[0]
    match config.score:
        case "":
            pass  # The task's own.
        case "top1" | "mean_per_class" as score:
            task = dataclasses.replace(task, score=score)
        case unknown:
            raise ConfigError(f"--score is {unknown!r}; it is top1 or mean_per_class.")
    return task, options


def run(
    models: Sequence[str],
    config: RankConfig,
    display: Display,
    before: transfer.Failures | None = None,
) -> Outcome:
    """Returns the ranking of some models.

    Args:
      models: words of ``encoders.load``.
      config: which images, and how.
      display: where progress appears.
      before: models that have failed already, and are not tried.

    Raises:
      ConfigError: no such data or score, no model could be ranked, or a name occurs twice.
    """
    task, options = task_of(config)
    by_model: dict[str, _Rows] = {}
    failures = [(model, why) for (model, _), why in (before or {}).items()]
    images: list[Split] = []
    classes: Sequence[str] = ()
    for word in [word for word in models if word not in dict(failures)]:
        try:
            name, rows, splits, classes = _features(word, task, options, display)
            _same_rows(name, rows, by_model)
            by_model[name], images = rows, splits
        except transfer.FAILURES as error:
            failures.append((word, transfer.explain(error)))
            display.say(f"{word}: not ranked. {failures[-1][1]}")
    if not by_model:
        raise ConfigError(
            "no model could be ranked:\n" + "\n".join(f"{m}: {w}" for m, w in failures)
        )
    ranking = _rank(by_model, task, config, display)
    tested = {name: r.features if r.test is None else r.test for name, r in by_model.items()}
    if next(iter(by_model.values())).test is not None:
        images = images[-1:]
    return Outcome(ranking, tested, classes, images, failures)


def _options(config: RankConfig) -> TransferConfig:
    shared = {field.name for field in dataclasses.fields(TransferConfig)} - {"data"}
    values = {name: value for name, value in dataclasses.asdict(config).items() if name in shared}
    return TransferConfig(**values)


def _features(
    word: str, task: Task, options: TransferConfig, display: Display
) -> tuple[str, _Rows, list[Split], Sequence[str]]:
    """Returns name, features, images and classes of one model."""
    encoder = load(word, options)
    for note in encoder.notes:
        display.say(f"{word}: {note}")
    display.begin(encoder.name)
    planned = task_features.plan(encoder, task, logits=True)
    material = task_features.make(
        encoder,
        task,
        planned,
        options,
        root=encoder.directory / "features",
        say=display.say,
        progress=display.images,
    )
    for note in material.notes:
        display.say(f"{encoder.name}: {note}")
    classes = [name for name, _ in task.classes] or planned.classes
    order = [name for name in ("train", "validation", "test") if name in material.splits]
    splits = [planned.splits[name] for name in order]
    small = sum(len(material.splits[name].labels) for name in order) < SMALL
    fitted = order if small else order[:-1]
    parts = [material.splits[name] for name in fitted]
    logits = [material.logits[name] for name in fitted if name in material.logits]
    test = None if small else material.splits["test"]
    rows = _Rows(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(logits) if logits else None,
        None if test is None else np.asarray(test.features),
        None if test is None else test.labels,
    )
    return encoder.name, rows, splits, classes


def _same_rows(name: str, rows: _Rows, others: dict[str, _Rows]) -> None:
    if name in others:
        raise ConfigError(f"the model {name} is given twice.")
    for other, other_rows in others.items():
        same = np.array_equal(rows.labels, other_rows.labels) and (
            rows.test_labels is None
            or (
                other_rows.test_labels is not None
                and np.array_equal(rows.test_labels, other_rows.test_labels)
            )
        )
        if not same:
            raise ConfigError(
                f"its images are not those of {other}: {len(rows.labels)} and "
                f"{len(other_rows.labels)} rows, or other labels. Models are compared on the same "
                "images in the same order."
            )


def _rank(models: dict[str, _Rows], task: Task, config: RankConfig, display: Display) -> Ranking:
    some = next(iter(models.values()))
    test: Any = None
    if some.test is not None:
        test = {name: rows.test for name, rows in models.items()}, some.test_labels

    def progress(name: str, done: int, of: int) -> None:
        display.begin(name)
        display.images("probes", done, of)

    try:
        return rank(
            {name: rows.features for name, rows in models.items()},
            some.labels,
            test=test,
            logits={name: r.logits for name, r in models.items() if r.logits is not None},
            per_class=task.score == "mean_per_class",
            neighbours=config.neighbours,
            confidence=config.confidence,
            curve=_CURVE if config.curve else (),
            seed=config.seed,
            progress=progress,
            resume=Path(config.out) / "scores",
        )
    except ValueError as error:
        remedy = " Probes on a tenth of the images are left out by --no-curve." * config.curve
        raise ConfigError(f"{error}{remedy}") from error
