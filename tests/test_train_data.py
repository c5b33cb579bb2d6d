"""Data: the split of the digits, the order of training, the padding of evaluation."""

import dataclasses
import itertools

import numpy as np
import pytest

import configs
from train import data
from train.config import ConfigError
from train.data.arrays import Arrays
from train.data.unreadable import Unreadable


@pytest.fixture(scope="module")
def digits():
    """The digits."""
    return data.load(_config())


@pytest.fixture
def numbered():
    """A split whose images hold their own number."""
    images = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    return _split(images, np.arange(50, dtype=np.int32))


def _split(images, labels):
    return data.Split(Arrays(images, labels, "numbered"), images.shape[1:], Unreadable(0))


def _config(**changes):
    return dataclasses.replace(configs.get("digits").data, **changes)


def _order(split, config, *, seed, batches):
    stream = data.training_batches(split, config, seed)
    return np.array([batch["label"] for batch in itertools.islice(stream, batches)])


def test_digits_split_is_the_stated_one(digits):
    """1,437 and 360 images, disjoint, together all 1,797, stratified to within one image."""
    assert (digits.train.size, digits.test.size) == (1437, 360)
    assert digits.image_shape == (8, 8, 1)
    assert digits.train.records.images.dtype == np.uint8
    both = np.concatenate([digits.train.records.images, digits.test.records.images])
    assert len(np.unique(both.reshape(1797, -1), axis=0)) == 1797
    counts = [np.bincount(split.records.labels) for split in (digits.train, digits.test)]
    share = (counts[0] + counts[1]) * 360 / 1797
    assert np.all(np.abs(counts[1] - share) < 1)


def test_digits_config_normalises(digits):
    """The mean and deviation in the config are those of the training pixels."""
    config = configs.get("digits").data
    assert config.mean == pytest.approx([digits.train.records.images.mean()], abs=0.01)
    assert config.std == pytest.approx([digits.train.records.images.std()], abs=0.01)


def test_unknown_source_lists_the_known_ones():
    """A typing error costs a message."""
    with pytest.raises(ConfigError, match=r"known sources: .*digits"):
        data.load(_config(source="digitz"))


def test_each_epoch_is_another_permutation(numbered):
    """Every image once an epoch; epochs and seeds differ; the same seed repeats."""
    config = _config(batch_size=10, crop="none", crop_padding=0)
    order = _order(numbered, config, seed=1, batches=10)
    first, second = order[:5].ravel(), order[5:].ravel()
    assert sorted(first) == sorted(second) == list(range(50))
    assert np.any(first != second)
    assert np.all(order == _order(numbered, config, seed=1, batches=10))
    assert np.any(order != _order(numbered, config, seed=2, batches=10))


def test_a_partial_batch_is_left_out_and_does_not_cross_epochs(numbered):
    """With 50 images in batches of 20, an epoch has two batches of different images."""
    order = _order(numbered, _config(batch_size=20, crop="none", crop_padding=0), seed=0, batches=4)
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
    split = _split(np.repeat(image[None], 60, axis=0), np.zeros(60, np.int32))
    padded = np.pad(image[..., 0], 1)
    windows = {padded[t : t + 4, s : s + 4].tobytes() for t in range(3) for s in range(3)}
    stream = data.training_batches(split, _config(batch_size=60, crop_padding=1), seed=0)
    seen = {image.tobytes() for batch in itertools.islice(stream, 2) for image in batch["image"]}
    assert seen == windows


@pytest.mark.parametrize(("size", "padded"), [(7, 8), (50, 50), (64, 64), (25, 32)])
def test_evaluation_sees_every_image_once(numbered, size, padded):
    """Under the mask are exactly the images of the split, in order; all shapes are equal."""
    batches = list(data.evaluation_batches(numbered, _config(), size, padded))
    assert {batch["image"].shape[0] for batch in batches} == {padded}
    seen = np.concatenate([batch["label"][batch["mask"] > 0] for batch in batches])
    assert seen.tolist() == list(range(50))
    assert all(not batch["image"][batch["mask"] == 0].any() for batch in batches)


def test_processes_together_make_the_batch_of_one(numbered):
    """Shares of two processes, put together in order, are the batch of one process; both kinds."""
    config = _config(batch_size=16)
    shares = [data.Share(index, 2) for index in range(2)]
    streams = [data.training_batches(numbered, config, 0, share) for share in shares]
    for whole in itertools.islice(data.training_batches(numbered, config, 0), 7):
        parts = [next(stream) for stream in streams]
        for name in whole:
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), whole[name])
    passes = [data.evaluation_batches(numbered, config, 20, 24, share) for share in shares]
    wholes = data.evaluation_batches(numbered, config, 20, 24)
    for whole, *parts in zip(wholes, *passes, strict=True):
        for name in whole:
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), whole[name])


def test_the_position_reported_is_that_of_the_batch_handed_out(numbered):
    """Batches on their way to the device are not taken yet: none is lost or doubled."""
    config = _config(batch_size=16)
    ahead = data.Ahead(data.training_batches(numbered, config, seed=3), lambda batch: batch)
    for _ in range(4):
        next(ahead)
    again = data.training_batches(numbered, config, seed=3)
    again.set_state(ahead.get_state())
    np.testing.assert_equal(next(again), next(ahead))


def test_repeated_augmentation_puts_versions_side_by_side(numbered):
    """With three repeats, an epoch of 48 places holds 16 images, three times each."""
    stream = data.training_batches(numbered, _config(batch_size=48, repeats=3), seed=0)
    labels = next(stream)["label"]
    assert np.array_equal(labels, np.repeat(labels[::3], 3))
    assert len(np.unique(labels)) == 16


class _Broken:
    """Records of which some cannot be read."""

    def __init__(self, split, broken):
        self._records, self._broken = split.records, set(broken)
        self.size = split.size

    def read(self, index):
        if index in self._broken:
            raise OSError("input/output error")
        return self._records.read(index)

    def name_of(self, index):
        return f"image {index}"


def test_broken_images_are_replaced_in_training_and_masked_in_evaluation(numbered):
    """Batches keep their size, what can be read is as before, and each image counts once."""
    config = _config(batch_size=50, max_unreadable=2)
    unreadable = Unreadable(2)
    split = data.Split(_Broken(numbered, {3, 7}), numbered.image_shape, unreadable)
    labels = next(data.training_batches(split, config, seed=0))["label"]
    whole = next(data.training_batches(numbered, config, seed=0))["label"]
    assert labels.shape == (50,)
    good = ~np.isin(whole, [3, 7])
    np.testing.assert_array_equal(labels[good], whole[good])
    assert not np.isin(labels, [3, 7]).any()
    seen = [b["label"][b["mask"] > 0] for b in data.evaluation_batches(split, config, 20, 20)]
    assert np.concatenate(seen).tolist() == [i for i in range(50) if i not in (3, 7)]
    assert sorted(unreadable.reasons) == ["image 3", "image 7"]


def test_too_many_broken_images_end_the_run_with_their_names(numbered):
    """One more than the limit is an error that names it and says why."""
    split = data.Split(_Broken(numbered, {3, 7}), numbered.image_shape, Unreadable(1))
    stream = data.training_batches(split, _config(batch_size=50, max_unreadable=1), seed=0)
    with pytest.raises(ConfigError, match=r"image [37]: input/output error"):
        next(stream)
