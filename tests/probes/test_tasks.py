"""The tasks as data: the paper's table, the super-classes, and what becomes of labels."""

from pathlib import Path

import numpy as np
import pytest
from shared_data import SHARED

from probes.transfer import task_features, tasks
from train.config import ConfigError

HERE = Path("/data")

# Data set, source, classes, train / validation / test, score, as in the paper's section 6.
PAPER = {
    "pets": ("tfds:oxford_iiit_pet:4.0.0", 37, (3680, 0, 3669), "mean_per_class"),
    "flowers": ("tfds:oxford_flowers102:2.1.1", 102, (1020, 1020, 6149), "mean_per_class"),
    "aircraft": ("aircraft:/data/fgvc-aircraft-2013b", 100, (3334, 3333, 3333), "mean_per_class"),
    "cars": ("cars:/data/stanford_cars", 196, (8144, 0, 8041), "top1"),
    "dtd": ("tfds:dtd:3.0.1", 47, (1880, 1880, 1880), "top1"),
    "cifar10": ("tfds:cifar10:3.0.2", 10, (50000, 0, 10000), "top1"),
    "cifar100": ("tfds:cifar100:3.0.2", 100, (50000, 0, 10000), "top1"),
    "food101": ("tfds:food101:2.0.0", 101, (75750, 0, 25250), "top1"),
    "caltech101": ("tfds:caltech101:3.0.2", 102, (3060, 0, 6084), "mean_per_class"),
    "sun397": ("tfds:sun397/standard-part1-120k:4.0.0", 397, (19850, 0, 19850), "top1"),
}


def test_the_paper_suite_is_the_papers():
    found = {
        task.name: (task.source, task.num_classes, task.sizes, task.score)
        for task in tasks.choose("paper", (), {}, HERE)
    }
    assert found == PAPER
    by_name = {task.name: task for task in tasks.PAPER}
    assert by_name["food101"].test == "validation"
    assert {task.name: task.validation for task in tasks.PAPER if task.validation} == {
        "flowers": "validation",
        "aircraft": "val",
        "dtd": "validation",
    }


def test_super_classes_divide_the_classes():
    """Twenty of five, no class in two; living and made ones share none, and leave one out."""
    fine = [name for members in tasks.SUPERCLASSES.values() for name in members]
    assert len(tasks.SUPERCLASSES) == 20
    assert len(fine) == len(set(fine)) == 100
    assert not set(tasks.LIVING) & set(tasks.MADE_BY_PEOPLE)
    left = tasks.SUPERCLASSES.keys() - set(tasks.LIVING) - set(tasks.MADE_BY_PEOPLE)
    assert left == {"large_natural_outdoor_scenes"}
    sizes = {task.name: (task.num_classes, len(task.classes)) for task in tasks.SMALL}
    assert sizes["cifar100_coarse"] == (20, 20)
    assert sizes["cifar100_living"] == (65, 65)
    assert sizes["cifar100_made"] == (30, 30)


@pytest.mark.skipif(not SHARED.exists(), reason="needs cifar100_webp.npz, not in the project")
def test_super_classes_are_those_of_the_data_set():
    with np.load(SHARED / "cifar100_webp.npz") as pack:
        coarse = [str(pack["coarse_names"][number]) for number in pack["coarse_of_fine"]]
        fine = [str(name) for name in pack["class_names"]]
    ours = {name: group for group, members in tasks.SUPERCLASSES.items() for name in members}
    assert ours == dict(zip(fine, coarse, strict=True))


def test_labels_are_merged_dropped_and_counted():
    """Three cats and dogs, two birds; stones are dropped, and -1 is no image at all."""
    task = tasks.Task("t", "s", classes=(("pet", ("cat", "dog")), ("bird", ("bird",))))
    relabel = task_features.relabeller(task, ("bird", "cat", "stone", "dog"))
    found = relabel(np.array([1, 2, 3, -1, 0, 2, 0, 1, 2]))
    assert found.rows.tolist() == [0, 2, 4, 6, 7]
    assert found.labels.tolist() == [0, 0, 1, 1, 0]
    assert found.dropped == 3


def test_without_classes_labels_stay():
    relabel = task_features.relabeller(tasks.Task("t", "s"), ("a", "b", "c"))
    found = relabel(np.array([2, -1, 0, 1]))
    assert found.rows.tolist() == [0, 2, 3]
    assert found.labels.tolist() == [2, 0, 1]
    assert found.dropped == 0


def test_another_data_set_under_the_name_is_refused():
    with pytest.raises(ConfigError, match=r"needs the classes beaver, .* tfds:cifar100:3.0.2"):
        task_features.relabeller(tasks.SMALL[1], ("cat", "dog"))
    with pytest.raises(ConfigError, match="has 2 classes, and cifar10 has 10"):
        task_features.relabeller(tasks.SMALL[-1], ("cat", "dog"))


def test_tasks_are_chosen_by_name_or_source():
    """A task's own folder lies in the data directory; a folder that is asked for, where it says."""
    (signs,) = tasks.choose("paper", ("sign_digits",), {}, HERE)
    assert signs.source == "folder:/data/sign_digits"
    (moved,) = tasks.choose("paper", ("sign_digits",), {"sign_digits": "folder:photos"}, HERE)
    assert moved.source == "folder:photos"
    assert moved.test == "train[80%:]"
    (other,) = tasks.choose("small", ("folder:birds",), {}, HERE)
    assert (other.name, other.source, other.test) == ("folder:birds", "folder:birds", "")
    with pytest.raises(ConfigError, match="Did you mean 'flowers'"):
        tasks.choose("paper", ("flower",), {}, HERE)
    with pytest.raises(ConfigError, match="'cifar' is not a task"):
        tasks.choose("paper", (), {"cifar": "folder:x"}, HERE)
    with pytest.raises(ConfigError, match="pets are given more than once"):
        tasks.choose("paper", ("pets", "pets"), {}, HERE)
