"""From the labels of a source of images to those of a task: some are merged, some dropped."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from probes.transfer.tasks import Task
from train.config import ConfigError


class Relabelled(NamedTuple):
    """Which rows of a split a task has, their labels, and how many it dropped."""

    rows: np.ndarray
    labels: np.ndarray
    dropped: int


def relabeller(task: Task, names: Sequence[str]) -> Callable[[np.ndarray], Relabelled]:
    """Returns what turns the labels of the source into those of the task.

    A label of -1 stands for an image that could not be read; it is in no row, and not counted.

    Args:
      task: with the classes.
      names: of the source's classes, by label.

    Raises:
      ConfigError: the source lacks a class of the task, or has another number of classes.
    """
    numbers = {name: number for number, name in enumerate(names)}
    wanted = [name for _, members in task.classes for name in members]
    if missing := [name for name in wanted if name not in numbers]:
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

    def relabel(labels: np.ndarray) -> Relabelled:
        found = table[labels]
        rows = np.flatnonzero(found >= 0)
        return Relabelled(rows, found[rows].astype(np.int32), int(np.sum(found[labels >= 0] < 0)))

    return relabel
