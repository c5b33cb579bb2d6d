"""Data: the split of the digits, the order of training, the padding of evaluation."""

import dataclasses
import itertools

import numpy as np
import pytest

import configs
from train import data
from train.config import ConfigError


@pytest.fixture(scope="module")
def digits():
    """The digits."""
    return data.load("digits")


@pytest.fixture
def numbered():
    """A split whose images hold their own number."""
    images = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    return data.Split(images, np.arange(50, dtype=np.int32))


def _config(**changes):
    return dataclasses.replace(configs.get("digits").data, **changes)


def _order(split, config, *, seed, batches):
    stream = data.training_batches(split, config, seed)
    return np.array([batch["label"] for batch in itertools.islice(stream, batches)])


def test_digits_split_is_the_stated_one(digits):
    """1,437 and 360 images, disjoint, together all 1,797, stratified to within one image."""
    assert (len(digits.train.labels), len(digits.test.labels)) == (1437, 360)
    assert digits.image_shape == (8, 8, 1)
    assert digits.train.images.dtype == np.uint8
    both = np.concatenate([digits.train.images, digits.test.images])
    assert len(np.unique(both.reshape(1797, -1), axis=0)) == 1797
    counts = [np.bincount(split.labels) for split in (digits.train, digits.test)]
    share = (counts[0] + counts[1]) * 360 / 1797
    assert np.all(np.abs(counts[1] - share) < 1)


def test_digits_config_normalises(digits):
    """The mean and deviation in the config are those of the training pixels."""
    config = configs.get("digits").data
    assert config.mean == pytest.approx([digits.train.images.mean()], abs=0.01)
    assert config.std == pytest.approx([digits.train.images.std()], abs=0.01)


def test_unknown_source_lists_the_known_ones():
    """A typing error costs a message."""
    with pytest.raises(ConfigError, match=r"known sources: .*digits"):
        data.load("digitz")


def test_each_epoch_is_another_permutation(numbered):
    """Every image once an epoch; epochs and seeds differ; the same seed repeats."""
    config = _config(batch_size=10, crop_padding=0)
    order = _order(numbered, config, seed=1, batches=10)
    first, second = order[:5].ravel(), order[5:].ravel()
    assert sorted(first) == sorted(second) == list(range(50))
    assert np.any(first != second)
    assert np.all(order == _order(numbered, config, seed=1, batches=10))
    assert np.any(order != _order(numbered, config, seed=2, batches=10))


def test_a_partial_batch_is_left_out_and_does_not_cross_epochs(numbered):
    """With 50 images in batches of 20, an epoch has two batches of different images."""
    order = _order(numbered, _config(batch_size=20, crop_padding=0), seed=0, batches=4)
    for epoch in (order[:2], order[2:]):
        assert len(np.unique(epoch)) == 40


@pytest.mark.parametrize("threads", [0, 2])
def test_a_restored_position_gives_the_next_batch(numbered, threads):
    """Augmentation included, the stream goes on bit for bit, whatever reads it."""
    config = _config(batch_size=16, crop_padding=1, threads=threads)
    stream = data.training_batches(numbered, config, seed=3)
    list(itertools.islice(stream, 5))
    position, expected = stream.get_state(), next(stream)
    again = data.training_batches(numbered, config, seed=3)
    again.set_state(position)
    np.testing.assert_equal(next(again), expected)


def test_the_random_shift_moves_within_the_padding():
    """A shifted image is a window of the zero-padded original, and all nine windows occur."""
    image = np.arange(1, 17, dtype=np.uint8).reshape(4, 4, 1)
    split = data.Split(np.repeat(image[None], 60, axis=0), np.zeros(60, np.int32))
    padded = np.pad(image[..., 0], 1)
    windows = {padded[t : t + 4, s : s + 4].tobytes() for t in range(3) for s in range(3)}
    stream = data.training_batches(split, _config(batch_size=60, crop_padding=1), seed=0)
    seen = {image.tobytes() for batch in itertools.islice(stream, 2) for image in batch["image"]}
    assert seen == windows


@pytest.mark.parametrize(("size", "padded"), [(7, 8), (50, 50), (64, 64), (25, 32)])
def test_evaluation_sees_every_image_once(numbered, size, padded):
    """Under the mask are exactly the images of the split, in order; all shapes are equal."""
    batches = list(data.evaluation_batches(numbered, size, padded))
    assert {batch["image"].shape[0] for batch in batches} == {padded}
    seen = np.concatenate([batch["label"][batch["mask"] > 0] for batch in batches])
    assert seen.tolist() == list(range(50))
    assert all(not batch["image"][batch["mask"] == 0].any() for batch in batches)
