"""The features of a task: its splits, through an encoder, under its labels.

Features belong to a split of a source, and not to a task's labels: the tasks on CIFAR-100 share one
pass over its images.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from probes.encoders import Encoder, identity
from probes.encoders.config import TransferConfig
from probes.encoders.encoder import bicubic
from probes.transfer import features
from probes.transfer.tasks import Task
from train import data
from train.config import ConfigError, DataConfig
from train.data import decode
from train.data.arrays import DIGITS_PEAK
from train.data.folder import Files
from train.data.sources import Records
from vci_jax.probe import selection
from vci_jax.probe.saved import renumber
from vci_jax.probe.selection import Samples


class TaskPlan(NamedTuple):
    """The images of a task, before any feature is computed.

    Attributes:
      splits: images of ``train``, ``test`` and perhaps ``validation``.
      depends_on: everything that the features of each split depend on.
      classes: classes of the source, by label.
      config: has the transform.
      logits: whether to store the logits of the pretraining head beside the features.
    """

    splits: dict[str, data.Split]
    depends_on: dict[str, dict[str, Any]]
    classes: Sequence[str]
    config: DataConfig
    logits: bool = False


class Material(NamedTuple):
    """Features and labels of a task, ready to be probed.

    Attributes:
      splits: features and the task's labels of ``train``, ``test`` and perhaps ``validation``.
      dropped: number of images of each split whose class is not in the task.
      directories: directory of the features of each split.
      notes: sentences about deviations from the published protocol.
      seconds: time that the features took.
      logits: logits ``[N K]`` of the rows of each split; empty without a head.
    """

    splits: dict[str, Samples]
    num_classes: int
    dropped: dict[str, int]
    directories: dict[str, Path]
    notes: list[str]
    seconds: float
    logits: dict[str, np.ndarray] = {}  # noqa: RUF012


class _Progress(Protocol):
    """Receives a split's name, its number of finished rows, and its size."""

    def __call__(self, split: str, rows: int, size: int) -> None: ...


class _Prepared(NamedTuple):
    """Records in a network's range of pixels, resized by its filter."""

    records: Records
    factor: float
    mode: decode.Mode
    resize: Callable[[np.ndarray], np.ndarray] | None

    @property
    def size(self) -> int:
        return self.records.size

    def read(self, index: int) -> tuple[np.ndarray, int]:
        stored, label = self.records.read(index)
        if isinstance(stored, bytes):
            stored = decode.decode(stored, self.mode)
        if self.resize:
            stored = self.resize(stored)
        stored = stored.reshape(*stored.shape[:2], -1)
        return np.rint(stored * self.factor).astype(np.uint8), label

    def name_of(self, index: int) -> str:
        return self.records.name_of(index)


def plan(encoder: Encoder, task: Task, *, logits: bool | None = None) -> TaskPlan:
    """Returns the images of a task, and what their features depend on.

    ``logits`` stores the logits of the pretraining head as well, by default for every model but a
    run of ``train``.

    Raises:
      ConfigError: the images are missing, or do not fit the task; the message has the remedy.
    """
    if encoder.stored is not None:
        parts, classes = _images(encoder, task) if task.source else ({}, ())
        splits = {name: split for name, (split, _) in parts.items()}
        return TaskPlan(splits, {"all": encoder.identity}, classes, encoder.data)
    if logits is None:
        logits = encoder.step is None
    logits = logits and encoder.num_classes > 0
    config = _config(encoder, task)
    grey = len(config.mean) == 1
    peak = DIGITS_PEAK if grey and task.source == "digits" else 255
    factor = encoder.peak / peak
    parts, classes = _images(encoder, task)
    specs = {"train": task.train, "test": task.test, "validation": task.validation}
    relabeller(task, classes)  # Raises its errors before features are computed.
    resize = functools.partial(bicubic, side=config.image_size, short=config.resize)
    splits, depends_on = {}, {}
    for name, (split, digest) in parts.items():
        splits[name] = split
        filtered = encoder.interpolation == "bicubic"
        if filtered or factor != 1:
            mode: decode.Mode = "L" if grey else "RGB"
            records = _Prepared(split.records, factor, mode, resize if filtered else None)
            splits[name] = dataclasses.replace(split, records=records)
        depends_on[name] = {"records": digest, "split": specs[name], "scale": factor}
        depends_on[name] |= encoder.identity
        if logits:
            depends_on[name]["logits"] = encoder.num_classes
    if encoder.interpolation == "bicubic":  # The records already have the size of the input.
        config = dataclasses.replace(config, resize=config.image_size)
    return TaskPlan(splits, depends_on, classes, config, logits)


def _config(encoder: Encoder, task: Task) -> DataConfig:
    return dataclasses.replace(
        encoder.data, source=task.source, train_split=task.train, test_split=task.test
    )


def _images(
    encoder: Encoder, task: Task
) -> tuple[dict[str, tuple[data.Split, str]], Sequence[str]]:
    """Returns the splits of a task with their digests, and the classes of the source."""
    config = _config(encoder, task)
    dataset, (train, test) = _load(config)
    parts = {"train": (dataset.train, train), "test": (dataset.test, test)}
    if task.validation:
        other, (_, digest) = _load(dataclasses.replace(config, test_split=task.validation))
        parts["validation"] = (other.test, digest)
    return parts, dataset.classes


@functools.cache
def _load(config: DataConfig) -> tuple[data.Dataset, tuple[str, str]]:
    """Returns a data set and the digests of its splits; cached for models of the same input."""
    dataset = data.load(config)
    train, test = (
        identity.digest_records(split.records, dataset.classes)
        for split in (dataset.train, dataset.test)
    )
    return dataset, (train, test)


def make(
    encoder: Encoder,
    task: Task,
    planned: TaskPlan,
    options: TransferConfig,
    *,
    root: Path,
    say: Callable[[str], None] = lambda message: None,
    progress: _Progress = lambda split, rows, size: None,
) -> Material:
    """Returns the features of a plan; those on disk are not computed again.

    ``root`` is the parent of the directories of features, ``say`` receives messages about damaged
    files, and ``progress`` a split's name, its number of finished rows, and its size.

    Raises:
      ConfigError: an image cannot be read, or another process is computing the same features.
      OSError: the disk is full.
    """
    if encoder.stored is not None:
        return _from_files(encoder, encoder.stored, task)
    relabel = relabeller(task, planned.classes)
    start = time.perf_counter()
    splits, dropped, directories, notes = {}, {}, {}, _notes(encoder, task)
    logits = {}
    for name, split in planned.splits.items():
        compute = features.extract(
            encoder.outputs if planned.logits else encoder.features,
            split,
            planned.config,
            mesh=encoder.mesh,
            batch_size=options.batch_size,
        )
        saved_split = features.keep(
            root,
            planned.depends_on[name],
            split.size,
            compute,
            shard_rows=options.shard_rows,
            say=say,
            progress=functools.partial(progress, name, size=split.size),
        )
        directories[name] = saved_split.directory
        if saved_split.unreadable > options.max_unreadable:  # Stored under another limit.
            raise ConfigError(
                f"{saved_split.unreadable} images of {name} could not be read, more than "
                f"--max-unreadable, which is {options.max_unreadable}. Mend them, or raise it."
            )
        if saved_split.unreadable:
            notes.append(f"{saved_split.unreadable} images of {name} could not be read; left out.")
        rows, numbers, dropped[name] = relabel(saved_split.labels)
        chosen = slice(None) if len(rows) == len(saved_split.labels) else rows
        splits[name] = Samples(saved_split.features[chosen], numbers)
        if saved_split.logits is not None:
            logits[name] = saved_split.logits[chosen]
    notes += _differences(task, splits)
    count = len(task.classes) or len(planned.classes)
    seconds = time.perf_counter() - start
    return Material(splits, count, dropped, directories, notes, seconds, logits)


def _from_files(encoder: Encoder, path: Path, task: Task) -> Material:
    """Returns stored features, checked against the images of a task if it has any."""
    start = time.perf_counter()
    files = features.saved_splits(path)
    splits = {name: features.read_saved(file) for name, file in files.items()}
    notes = []
    if task.source:
        splits, classes, dropped = _matched(encoder, splits, task)
    else:
        if "all" in splits:
            train, test = selection.hold_out(splits["all"], seed=0)
            splits = {"train": train, "test": test}
            notes.append("a stratified fifth of the rows is the test split.")
        splits, classes = renumber(splits)
        dropped = dict.fromkeys(splits, 0)
    paths = {name: files.get(name, path) for name in splits}
    seconds = time.perf_counter() - start
    return Material(splits, classes, dropped, paths, notes, seconds)


def _matched(
    encoder: Encoder, splits: dict[str, Samples], task: Task
) -> tuple[dict[str, Samples], int, dict[str, int]]:
    """Returns features that another program computed from a task's images, with its labels.

    The rows of a single file are all images, train before test, or by class and then by name, as
    torchvision's ``ImageFolder`` lists a folder.
    """
    parts, classes = _images(encoder, task)
    images = {name: split.records for name, (split, _) in parts.items()}
    if "all" in splits:
        splits = _divided(splits["all"], images)
    relabel = relabeller(task, classes)
    relabelled, dropped = {}, {}
    for name, records in images.items():
        samples = splits.get(name, Samples(np.zeros((0, 0)), np.zeros(0, int)))
        labels = getattr(records, "labels", samples.labels)
        if len(samples.labels) != records.size or np.any(labels != samples.labels):
            raise ConfigError(
                f"features:{encoder.stored} has {len(samples.labels)} rows of {name}, and "
                f"{task.source} has {records.size} images, or other labels. Rows must be in the "
                "order of the images, their labels the places of the classes in alphabetical "
                "order; without --data and --task the file's own rows and labels are probed."
            )
        rows, numbers, dropped[name] = relabel(samples.labels)
        relabelled[name] = Samples(samples.features[rows], numbers)
    return relabelled, len(task.classes) or len(classes), dropped


def _divided(whole: Samples, images: dict[str, Records]) -> dict[str, Samples]:
    """Divides features of all images into splits, by the row order that matches the labels."""
    sizes = [records.size for records in images.values()]
    rows = np.arange(sum(sizes))
    listed = [records for records in images.values() if isinstance(records, Files)]
    if len(listed) == len(images):
        labels = np.concatenate([files.labels for files in listed])
        if len(labels) == len(whole.labels) and np.any(labels != whole.labels):
            names = np.array([path.name for files in listed for path in files.paths()])
            rows[np.lexsort((names, labels))] = np.arange(len(rows))
    if len(whole.labels) != len(rows):
        return {}
    parts = np.split(rows, np.cumsum(sizes)[:-1])
    return {
        name: Samples(whole.features[part], whole.labels[part])
        for name, part in zip(images, parts, strict=True)
    }


class KeptRows(NamedTuple):
    """The rows of a split that belong to a task, their labels, and the number of other rows."""

    rows: np.ndarray
    labels: np.ndarray
    dropped: int


def relabeller(task: Task, names: Sequence[str]) -> Callable[[np.ndarray], KeptRows]:
    """Returns the function from labels of the source to rows and labels of the task.

    ``names`` are the source's classes by label. Unreadable images have the label -1; they are
    neither in the rows nor counted.

    Raises:
      ConfigError: the source lacks a class of the task, or has another number of classes.
    """
    numbers = {name: number for number, name in enumerate(names)}
    needed = [name for _, group in task.classes for name in group]
    if missing := [name for name in needed if name not in numbers]:
        raise ConfigError(
            f"{task.name} needs the classes {', '.join(missing[:5])}, which {task.source} does not "
            f"have; it has {', '.join(names[:5])}, and so on."
        )
    count = len(task.classes) or len(names)
    if task.num_classes not in (0, count):
        raise ConfigError(
            f"{task.source} has {count} classes, and {task.name} has {task.num_classes}; it is "
            "another data set, or another version of it."
        )
    table = np.full(len(names) + 1, -1) if task.classes else np.append(np.arange(len(names)), -1)
    for label, (_, members) in enumerate(task.classes):
        table[[numbers[name] for name in members]] = label

    def relabel(labels: np.ndarray) -> KeptRows:
        numbers = table[labels]
        rows = np.flatnonzero(numbers >= 0)
        return KeptRows(rows, numbers[rows].astype(np.int32), int(np.sum(numbers[labels >= 0] < 0)))

    return relabel


def _notes(encoder: Encoder, task: Task) -> list[str]:
    if not encoder.trained_on or (encoder.trained_on.split(":")[:2] != task.source.split(":")[:2]):
        return []
    return ["the network was trained on these images: this is no transfer."]


def _differences(task: Task, splits: dict[str, Samples]) -> list[str]:
    """Returns a sentence for each split whose number of images is not the published one."""
    if task.sizes is None:
        return []
    published = dict(zip(("train", "validation", "test"), task.sizes, strict=True))
    return [
        f"{name} has {len(split.labels)} images, and {published[name]} were published."
        for name, split in splits.items()
        if len(split.labels) != published[name]
    ]
