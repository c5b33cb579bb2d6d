"""The pipeline: order, shares, resume, padding, whole batches at once, the way to the device.

Run as a program, this file is one process of several that read one epoch together.
"""

import collections
import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from processes import free_port, wait

import configs
from train import data
from train import mesh as meshes
from train.config import ConfigError, DataConfig
from train.data import pipeline
from train.data.arrays import Arrays
from train.data.order import Order
from train.data.sources import Unreadable

ROOT = pathlib.Path(__file__).parents[2]


class Slow:
    """Records that are not in memory as one array, so that each image goes its own way."""

    def __init__(self, arrays):
        self._arrays = arrays
        self.size, self.read, self.name_of = arrays.size, arrays.read, arrays.name_of

    def __reduce__(self):
        return Slow, (self._arrays,)


def split_of(images, labels=None, slow=False):
    """A split of images in memory."""
    labels = np.arange(len(images)) if labels is None else labels
    records = Arrays(images, labels.astype(np.int32), "test")
    return data.Split(Slow(records) if slow else records, images.shape[1:], Unreadable(0))


@pytest.fixture
def numbered():
    """Fifty images that hold their own number."""
    return split_of(
        np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 1), np.uint8)
    )


def config_of(**changes):
    return DataConfig(**({"mean": (0.0,), "std": (1.0,), "batch_size": 10} | changes))


def order_of(split, config, *, seed, batches, share=None):
    """The labels of the first batches."""
    stream = data.training_batches(split, config, seed, share)
    return np.array([batch["label"] for batch in itertools.islice(stream, batches)])


# --- order ------------------------------------------------------------------------------------


def test_each_epoch_is_another_permutation(numbered):
    """Every image once an epoch; epochs and seeds differ; the same seed repeats."""
    order = order_of(numbered, config_of(), seed=1, batches=10)
    first, second = order[:5].ravel(), order[5:].ravel()
    assert sorted(first) == sorted(second) == list(range(50))
    assert np.any(first != second)
    assert np.all(order == order_of(numbered, config_of(), seed=1, batches=10))
    assert np.any(order != order_of(numbered, config_of(), seed=2, batches=10))


def test_an_epoch_does_not_depend_on_those_before_it(numbered):
    """Epoch e begins with batch e * steps, whatever the batch size was before."""
    small, large = config_of(batch_size=5), config_of(batch_size=25)
    fifth = order_of(numbered, small, seed=3, batches=60)[50:].ravel()
    assert np.array_equal(fifth, order_of(numbered, large, seed=3, batches=12)[10:].ravel())


def test_permutations_are_uniform():
    """Tenths of the places hold all tenths of the images equally, within five deviations.

    The counts are hypergeometric: n images in 100 cells, n/100 * 0.9 * 0.9 the variance of each.
    """
    images, order = 60_000, Order(60_000, seed=0)
    for epoch in (0, 1):
        places = np.array([order.image(epoch, place) for place in range(images)])
        assert np.array_equal(np.sort(places), np.arange(images))
        cells = np.histogram2d(np.arange(images), places, bins=10)[0]
        assert np.abs(cells - images / 100).max() < 5 * np.sqrt(images / 100 * 0.81)
        steps = np.diff(places)
        assert abs(np.mean(steps > 0) - 0.5) < 5 * 0.5 / np.sqrt(images)
    assert np.mean(places == [order.image(0, place) for place in range(images)]) < 1e-3


def test_a_partial_batch_is_left_out_and_does_not_cross_epochs(numbered):
    """With 50 images in batches of 20, an epoch has two batches of different images."""
    order = order_of(numbered, config_of(batch_size=20), seed=0, batches=4)
    for epoch in (order[:2], order[2:]):
        assert len(np.unique(epoch)) == 40


def test_repeated_augmentation_holds_versions_of_an_image_together():
    """Three versions a batch, each with its own shift, and 1/3 of the images in an epoch."""
    images = np.random.default_rng(0).integers(1, 256, (60, 5, 5, 1), np.uint8)
    config = config_of(batch_size=12, repeats=3, crop="pad", crop_padding=2)
    stream = data.training_batches(split_of(images), config, seed=0)
    epoch = list(itertools.islice(stream, 5))
    labels = np.stack([batch["label"] for batch in epoch]).reshape(-1, 3)
    assert np.all(labels == labels[:, :1])
    assert len(np.unique(labels)) == 20
    versions = np.stack([batch["image"] for batch in epoch]).reshape(20, 3, -1)
    assert sum(len(np.unique(three, axis=0)) for three in versions) > 50
    following = np.stack([batch["label"] for batch in itertools.islice(stream, 5)])
    assert set(following.ravel()) != set(labels.ravel())


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_shares_make_up_the_batches_of_one_process(count, slow):
    """Put together in order they are those batches bit for bit, augmentation included."""
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), np.uint8)
    split = split_of(images, slow=slow)
    config = config_of(batch_size=12, crop="pad", crop_padding=1, flip=True, repeats=2)
    whole = itertools.islice(data.training_batches(split, config, seed=5), 7)
    shares = [
        itertools.islice(data.training_batches(split, config, 5, data.Share(i, count)), 7)
        for i in range(count)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        for name, rows in batch.items():
            assert np.array_equal(rows, np.concatenate([part[name] for part in parts]))


def test_the_random_shift_moves_within_the_padding():
    """A shifted image is a window of the zero-padded original, and all nine windows occur."""
    image = np.arange(1, 17, dtype=np.uint8).reshape(4, 4, 1)
    split = split_of(np.repeat(image[None], 60, axis=0))
    padded = np.pad(image[..., 0], 1)
    windows = {padded[t : t + 4, s : s + 4].tobytes() for t in range(3) for s in range(3)}
    config = config_of(batch_size=60, crop="pad", crop_padding=1)
    stream = data.training_batches(split, config, seed=0)
    seen = {image.tobytes() for batch in itertools.islice(stream, 2) for image in batch["image"]}
    assert seen == windows


# --- resume -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("threads", [0, 2])
def test_a_restored_position_gives_the_next_batch(numbered, threads, slow):
    """Augmentation included, the stream goes on bit for bit, whatever reads it."""
    split = dataclasses.replace(numbered, records=Slow(numbered.records)) if slow else numbered
    config = config_of(batch_size=16, crop="pad", crop_padding=1, threads=threads)
    stream = data.training_batches(split, config, seed=3)
    list(itertools.islice(stream, 5))
    position, expected = json.loads(json.dumps(stream.get_state())), next(stream)
    again = data.training_batches(split, config, seed=3)
    again.set_state(position)
    np.testing.assert_equal(next(again), expected)
    stream.set_state(position)
    np.testing.assert_equal(next(stream), expected)


def test_workers_make_the_same_batches_and_resume_anywhere(numbered):
    """Two processes and their threads give the bits of no process at all, from any position on."""
    split = dataclasses.replace(numbered, records=Slow(numbered.records))
    alone = config_of(batch_size=16, crop="pad", crop_padding=1, flip=True, threads=0)
    crowd = dataclasses.replace(alone, workers=2, threads=2)
    expected = list(itertools.islice(data.training_batches(split, alone, seed=3), 9))
    stream = data.training_batches(split, crowd, seed=3)
    for batch in expected[:4]:
        actual = next(stream)
        np.testing.assert_equal(actual, batch)
        assert type(actual["image"]) is np.ndarray, "memory of this process, not of a worker"
    position = stream.get_state()
    stream.close()
    stream.set_state(position)
    for batch in expected[4:]:
        np.testing.assert_equal(next(stream), batch)
    stream.close()
    # A stream without workers goes on from the same position.
    again = data.training_batches(split, alone, seed=3)
    again.set_state(position)
    np.testing.assert_equal(next(again), expected[4])


def test_a_split_smaller_than_a_batch_is_refused(numbered):
    """Here, so that the look at the data says it as training does."""
    with pytest.raises(ConfigError, match=r"--data.batch_size is 51, more than the 50 training"):
        data.training_batches(numbered, config_of(batch_size=51), seed=0)


# --- evaluation -------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize(("size", "padded"), [(7, 8), (50, 52), (64, 64), (25, 32), (1, 4)])
def test_evaluation_sees_every_image_once(numbered, size, padded, count, slow):
    """Under the masks of all processes are the images of the split, in order; shapes are equal."""
    split = dataclasses.replace(numbered, records=Slow(numbered.records)) if slow else numbered
    shares = [
        data.evaluation_batches(split, config_of(), size, padded, data.Share(i, count))
        for i in range(count)
    ]
    seen = []
    for parts in zip(*shares, strict=True):
        assert {part["image"].shape for part in parts} == {(padded // count, 4, 4, 1)}
        batch = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        present = batch["mask"] > 0
        assert np.array_equal(batch["image"][present, 0, 0, 0], batch["label"][present])
        assert not batch["image"][~present].any()
        seen += batch["label"][present].tolist()
    assert seen == list(range(50))


def test_evaluation_that_is_not_finished_ends_its_threads(numbered):
    """Leaving a pass early closes the stream behind it."""
    batches = data.evaluation_batches(numbered, config_of(threads=2), 5, 5)
    next(batches)
    stream = batches.gi_frame.f_locals["results"].gi_frame.f_locals["stream"]
    batches.close()
    with pytest.raises(ValueError, match="closed"):
        next(stream)


# --- to the device ----------------------------------------------------------------------------


class Counter:
    """Batches that are numbers; one of them may fail."""

    def __init__(self, fails_at=None):
        self.taken, self._fails_at = 0, fails_at

    def __next__(self):
        if self.taken == self._fails_at:
            raise ValueError("broken")
        self.taken += 1
        return self.taken

    def get_state(self):
        return {"taken": self.taken}


def test_the_position_is_that_of_the_step_not_of_the_transfer():
    """A batch that is under way but not handed out comes again after a restart."""
    counter = Counter()
    ahead = data.DevicePrefetcher(counter, lambda batch: -batch)
    assert ahead.get_state() == {"taken": 0}
    assert [next(ahead) for _ in range(3)] == [-1, -2, -3]
    assert ahead.get_state() == {"taken": 3}
    assert counter.taken == 4


def test_an_error_waits_until_its_batch_is_due():
    """The steps before it are taken, and their position can be saved."""
    ahead = data.DevicePrefetcher(Counter(fails_at=2), lambda batch: batch)
    assert [next(ahead), next(ahead)] == [1, 2]
    assert ahead.get_state() == {"taken": 2}
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_a_batch_may_be_donated(numbered):
    """Given away with each step, batches on their way are not touched."""
    mesh = meshes.make_mesh()
    config = config_of(batch_size=2 * jax.device_count())
    batches = data.training_batches(numbered, config, seed=0)
    expected = data.training_batches(numbered, config, seed=0)
    ahead = data.DevicePrefetcher(batches, lambda batch: meshes.put_batch(batch, mesh))
    total = jax.jit(lambda batch: jax.tree.map(lambda x: x + 0, batch), donate_argnums=0)
    for _ in range(4):
        batch = next(ahead)
        np.testing.assert_equal(jax.device_get(total(batch)), next(expected))
        assert batch["label"].is_deleted()


# --- processes --------------------------------------------------------------------------------

DIGITS_STEPS = 1437 // 64


def read_together(rank, port, processes, folder):
    """One process of a run: what arrives on its devices in two epochs and one evaluation."""
    if processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, rank, initialization_timeout=60)
    mesh, config = meshes.make_mesh(), configs.get("digits").data
    dataset = data.load(config)
    batches = data.training_batches(dataset.train, config, seed=0)
    ahead = data.DevicePrefetcher(batches, lambda batch: meshes.put_batch(batch, mesh))
    seen = collections.defaultdict(list)
    for _ in range(2 * DIGITS_STEPS):
        collect(seen, "train", next(ahead))
    padded = meshes.round_up(50, mesh)
    for batch in data.evaluation_batches(dataset.test, config, 50, padded):
        collect(seen, "test", meshes.put_batch(batch, mesh))
    arrays = {name: np.concatenate(parts) for name, parts in seen.items()}
    np.savez(folder / f"seen{processes}_{rank}.npz", devices=jax.device_count(), **arrays)
    if processes > 1:
        jax.distributed.shutdown()


def collect(seen, split, batch):
    """Notes the rows that lie on devices of this process, in the order of the global batch."""
    for name, array in batch.items():
        shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        seen[f"{split}_{name}"].append(np.concatenate([shard.data for shard in shards]))


def start(rank, port, processes, devices, folder):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    command = [sys.executable, __file__, str(rank), str(port), str(processes), str(folder)]
    with open(folder / f"log{processes}_{rank}", "wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


@pytest.mark.slow
def test_two_processes_of_four_devices_see_what_one_of_one_sees(tmp_path):
    """In two epochs and one evaluation: the same images under the same labels, each as often."""
    port = free_port()
    processes = [start(rank, port, 2, 4, tmp_path) for rank in range(2)]
    processes.append(start(0, port, 1, 1, tmp_path))
    try:
        codes = wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    logs = "\n".join(path.read_text()[-2000:] for path in tmp_path.glob("log*"))
    assert codes == [0, 0, 0], logs
    alone = np.load(tmp_path / "seen1_0.npz")
    halves = [np.load(tmp_path / f"seen2_{rank}.npz") for rank in range(2)]
    assert int(alone["devices"]) == 1
    assert all(int(half["devices"]) == 8 for half in halves)
    for name in ("train_image", "train_label"):
        steps = [half[name].reshape(2 * DIGITS_STEPS, 32, *half[name].shape[1:]) for half in halves]
        whole = np.concatenate(steps, axis=1).reshape(alone[name].shape)
        assert np.array_equal(whole, alone[name]), "the batches are the same, row by row"
    for seen, parts in ((alone, [alone]), (halves, halves)):
        present = [part["test_mask"] > 0 for part in parts]
        labels = np.concatenate([p["test_label"][m] for p, m in zip(parts, present, strict=True)])
        images = np.concatenate([p["test_image"][m] for p, m in zip(parts, present, strict=True)])
        test = data.load(configs.get("digits").data).test.records
        assert len(labels) == 360, seen
        assert rows(images, labels) == rows(test.images, test.labels)


def rows(images, labels):
    return collections.Counter(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_requests_stay_blocked_in_threads_that_start_workers():
    """Also in the first: starting multiprocessing's resource tracker unblocks SIGTERM there.

    A worker that dies of it before it has read what it is to do leaves its parent waiting for ever.
    """
    program = """
import signal, threading
from multiprocessing import resource_tracker
from train.data import pipeline
masks = []
def start_a_worker():
    resource_tracker.ensure_running()
    masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
with pipeline.blocked_requests(workers=0):
    assert resource_tracker._resource_tracker._fd is None
with pipeline.blocked_requests(workers=1):
    thread = threading.Thread(target=start_a_worker)
    thread.start()
    thread.join()
assert masks[0] >= set(pipeline.REQUESTS), masks
assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(pipeline.REQUESTS)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_own_share_is_all_of_it_in_one_process():
    assert pipeline.own_share() == (0, 1)
    assert data.Share(1, 4).of(20) == range(5, 10)


if __name__ == "__main__":
    rank, port, processes, folder = sys.argv[1:]
    read_together(int(rank), int(port), int(processes), pathlib.Path(folder))
