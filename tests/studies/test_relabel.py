"""Copies of CIFAR data sets with fewer, broader classes."""

import pytest
from made_images import make_tfds, numbers

from studies.cifar10 import relabel
from train import data
from train.config import ConfigError, DataConfig


def test_a_copy_has_the_new_classes_and_leaves_out_what_is_in_none(tmp_path, monkeypatch):
    """Image i of the source has the class i mod 3: blue, green, red."""
    make_tfds(tmp_path, "tiny")
    copy = relabel.Relabelled("tiny", "1.0.0", {"warm": ("red",), "cold": ("blue",)})
    monkeypatch.setitem(relabel.COPIES, "tiny_warmth", copy)
    place = relabel.prepare(tmp_path, "tiny_warmth")
    assert relabel.prepare(tmp_path, "tiny_warmth") == place  # Once it is there, nothing is done.
    made = data.load(DataConfig(source="tfds:tiny_warmth:1.0.0", data_dir=str(tmp_path)))
    assert tuple(made.classes) == ("warm", "cold")
    expected = {i: {2: 0, 0: 1}[i % 3] for i in range(40) if i % 3 != 1}
    assert numbers(made.train) == expected
    assert made.test.size == 7
    with pytest.raises(ConfigError, match="'tiny_cold' is not a known copy"):
        relabel.prepare(tmp_path, "tiny_cold")


@pytest.mark.parametrize("name", ["cifar10_pairs", "cifar10_kinds", "cifar100_coarse"])
def test_every_class_of_the_source_is_in_one_new_class(name):
    copy = relabel.COPIES[name]
    olds = [old for group in copy.classes.values() for old in group]
    assert len(set(olds)) == len(olds) == {"cifar10": 10, "cifar100": 100}[copy.source]
