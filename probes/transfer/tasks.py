"""The downstream tasks: sources of images, splits, classes and scores.

``paper`` has the ten data sets of the paper's section 6 with its splits and scores; ``small`` has
seven tasks for networks of CIFAR's size. Any other source of ``train.data`` is a task as well:
``folder:PATH``, ``tfds:NAME``.

A task may combine classes (``classes``), as in the super-classes of CIFAR-100. Images of other
classes are dropped and counted.

Reference: Xu & Liu (2023), section 6; S. Kornblith et al. (2019), table 1; A. Krizhevsky, Learning
Multiple Layers of Features from Tiny Images, 2009 (the super-classes).
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from train.config import ConfigError
from vci_jax.probe import selection


@dataclasses.dataclass(frozen=True)
class Task:
    """One data set with a score.

    Attributes:
      name: name in ``transfer.jsonl``.
      source: a source of ``train.data``; a relative path lies in the data directory.
      train: training split.
      validation: validation split; empty holds out a stratified fifth of train.
      test: test split; empty is the source's default.
      score: top-1 accuracy, or the mean of the accuracies of the classes.
      num_classes: published number of the task's classes; 0 is not checked.
      sizes: published numbers of images of train, validation and test; a note names a deviation.
      classes: the task's classes, each with the source's classes in it; empty for the source's.
      remedy: how to get the data; added to error messages.
    """

    name: str
    source: str
    train: str = "train"
    validation: str = ""
    test: str = "test"
    score: Literal["top1", "mean_per_class"] = "top1"
    num_classes: int = 0
    sizes: tuple[int, int, int] | None = None
    classes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    remedy: str = ""


# The 20 super-classes of CIFAR-100, and their five classes each.
SUPERCLASSES: dict[str, tuple[str, ...]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

# Two tasks without a common class. Landscapes are in neither.
MADE_BY_PEOPLE = ("food_containers", "household_electrical_devices", "household_furniture",
                  "large_man-made_outdoor_things", "vehicles_1", "vehicles_2")  # fmt: skip
LIVING = tuple(
    name for name in SUPERCLASSES if name not in (*MADE_BY_PEOPLE, "large_natural_outdoor_scenes")
)


def _members(superclasses: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns the classes of super-classes, each as a class of its own."""
    return tuple((fine, (fine,)) for name in superclasses for fine in SUPERCLASSES[name])


_CIFAR10 = Task("cifar10", "tfds:cifar10:3.0.2", num_classes=10, sizes=(50000, 0, 10000))
_CIFAR100 = Task("cifar100", "tfds:cifar100:3.0.2", num_classes=100, sizes=(50000, 0, 10000))

PAPER = (
    Task(
        "pets",
        "tfds:oxford_iiit_pet:4.0.0",
        score="mean_per_class",
        num_classes=37,
        sizes=(3680, 0, 3669),
    ),
    Task(
        "flowers",
        "tfds:oxford_flowers102:2.1.1",
        validation="validation",
        score="mean_per_class",
        num_classes=102,
        sizes=(1020, 1020, 6149),
    ),
    # Not in TFDS. See train/data/archives.py on the banner of its photographs.
    Task(
        "aircraft",
        "aircraft:fgvc-aircraft-2013b",
        validation="val",
        score="mean_per_class",
        num_classes=100,
        sizes=(3334, 3333, 3333),
    ),
    # Also in TFDS, but its download fails with error 404.
    Task("cars", "cars:stanford_cars", num_classes=196, sizes=(8144, 0, 8041)),
    Task(
        "dtd", "tfds:dtd:3.0.1", validation="validation", num_classes=47, sizes=(1880, 1880, 1880)
    ),
    _CIFAR10,
    # TFDS calls the test images validation; there is no third split.
    Task(
        "food101", "tfds:food101:2.0.0", test="validation", num_classes=101, sizes=(75750, 0, 25250)
    ),
    _CIFAR100,
    # The 102nd class is BACKGROUND_Google; it counts in the published tables.
    Task(
        "caltech101",
        "tfds:caltech101:3.0.2",
        score="mean_per_class",
        num_classes=102,
        sizes=(3060, 0, 6084),
    ),
    # TFDS' default configuration has another split of the images.
    Task(
        "sun397", "tfds:sun397/standard-part1-120k:4.0.0", num_classes=397, sizes=(19850, 0, 19850)
    ),
)

SMALL = (
    _CIFAR100,
    dataclasses.replace(
        _CIFAR100, name="cifar100_coarse", num_classes=20, classes=tuple(SUPERCLASSES.items())
    ),
    dataclasses.replace(
        _CIFAR100,
        name="cifar100_living",
        num_classes=5 * len(LIVING),
        sizes=(32500, 0, 6500),
        classes=_members(LIVING),
    ),
    dataclasses.replace(
        _CIFAR100,
        name="cifar100_made",
        num_classes=5 * len(MADE_BY_PEOPLE),
        sizes=(15000, 0, 3000),
        classes=_members(MADE_BY_PEOPLE),
    ),
    Task("digits", "digits", test="", num_classes=10, sizes=(1437, 0, 360)),
    Task(
        "sign_digits",
        "folder:sign_digits",
        train="train[:80%]",
        test="train[80%:]",
        num_classes=10,
        remedy="It wants photographs of hand signs for the digits as sign_digits/<digit>/*.JPG in "
        "the data directory, or elsewhere: --sources sign_digits folder:PATH.",
    ),
    _CIFAR10,
)

SUITES = {"paper": PAPER, "small": SMALL}

SCORES: dict[str, selection.Score] = {
    "top1": selection.top1,
    "mean_per_class": selection.mean_per_class,
}


# Kinds of sources with a path, which for the tasks above lies in the data directory.
_PATHS = ("folder", "aircraft", "cars")


def choose(
    suite: str, names: Sequence[str], sources: Mapping[str, str], data_dir: Path
) -> list[Task]:
    """Returns the tasks of a suite, or the named ones, with the sources of their images.

    Args:
      suite: a name of ``SUITES``.
      names: names of tasks, or sources of images; empty for the whole suite.
      sources: other sources of images, by task.
      data_dir: directory of the tasks' folders.

    Raises:
      ConfigError: a name is neither a task nor a source, or is given twice.
    """
    for name in sources:
        _by_name(name)
    tasks = [_named(name) for name in names] if names else list(SUITES[suite])
    chosen = [task.name for task in tasks]
    if repeated := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise ConfigError(f"the tasks {', '.join(repeated)} are given more than once.")
    return [_with_source(task, sources, data_dir) for task in tasks]


def _with_source(task: Task, sources: Mapping[str, str], data_dir: Path) -> Task:
    if task.name in sources:
        return dataclasses.replace(task, source=sources[task.name])
    kind, _, path = task.source.partition(":")
    if kind not in _PATHS or ":" in task.name:
        return task
    return dataclasses.replace(task, source=f"{kind}:{data_dir / path}")


def _named(name: str) -> Task:
    if ":" in name or name == "synthetic":
        # Of a flat folder, train.data measures a fifth by default.
        return Task(name, name, test="")
    return _by_name(name)


def _by_name(name: str) -> Task:
    by_name = {task.name: task for suite in SUITES.values() for task in suite}
    if name not in by_name:
        close = difflib.get_close_matches(name, by_name, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"{name!r} is not a task.{hint} Tasks are {', '.join(by_name)}, and any source of "
            "images, such as folder:PATH or tfds:NAME."
        )
    return by_name[name]
