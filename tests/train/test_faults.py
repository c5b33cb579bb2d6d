"""What goes wrong with files, disks and processes: a defined outcome for each, and no hang."""

import dataclasses
import io
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from train import data
from train.config import ConfigError, DataConfig
from train.errors import DataError, WorkerError

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 60


@pytest.fixture(autouse=True)
def _no_hang():
    """Ends the test with a traceback of the main thread if it takes a minute."""

    def give_up(*unused):
        raise TimeoutError(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def photograph(level, mode="RGB", kind="JPEG", size=(20, 12), **options):
    """The bytes of an image whose left half is brighter, so that a turn can be seen."""
    image = Image.new("L", size, level)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    file = io.BytesIO()
    image.convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Two classes of six photographs; those to measure are those to train on."""
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            path = tmp_path / "data" / name / f"{number}.JPEG"
            path.write_bytes(photograph(10 * number))
    return tmp_path / "data"


def config_of(root, **changes):
    defaults = {"source": f"folder:{root}", "test_split": "train", "image_size": 8, "batch_size": 4}
    return DataConfig(**(defaults | changes))


def measured(config):
    dataset = data.load(config)
    (batch,) = data.evaluation_batches(dataset.test, config, 12, 12)
    return dataset, batch


# --- images that are odd, but whole -----------------------------------------------------------


def test_odd_images_are_converted(folder):
    """A PNG called JPEG, CMYK, grey, alpha, EXIF-rotated: each becomes upright RGB."""
    turned = Image.Exif()
    turned[0x0112] = 3
    odd = {
        "0": photograph(0, kind="PNG"),
        "1": photograph(0, mode="CMYK"),
        "2": photograph(0, mode="L"),
        "3": photograph(0, mode="RGBA", kind="PNG"),
        "4": photograph(0, exif=turned),
    }
    for name, content in odd.items():
        (folder / "a" / f"{name}.JPEG").write_bytes(content)
    dataset, batch = measured(config_of(folder))
    assert batch["mask"].tolist() == [1] * 12
    left, right = (
        batch["image"][:5, :, :2].mean((1, 2, 3)),
        batch["image"][:5, :, -2:].mean((1, 2, 3)),
    )
    assert np.all(left[:4] > 240)
    assert np.all(right[:4] < 15)
    assert left[4] < 15 < 240 < right[4], "orientation 3 is upside down"
    assert not dataset.test.unreadable.reasons


# --- images that cannot be read ---------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def scribble(path):
    path.write_bytes(b"<html>404 not found</html>")


def vanish(path):
    path.unlink()


def become_a_folder(path):
    path.unlink()
    path.mkdir()


BREAKS = (truncate, empty, scribble, vanish, become_a_folder)


@pytest.mark.parametrize("spoil", BREAKS)
@pytest.mark.parametrize("threads", [0, 2])
def test_a_broken_image_stops_the_run_with_its_name(folder, spoil, threads):
    """By default none is tolerated: training and evaluation end with the file and the reason."""
    config = config_of(folder, threads=threads)
    dataset, broken = data.load(config), folder / "b" / "3.JPEG"
    spoil(broken)
    stream = data.training_batches(dataset.train, config, seed=0)
    for batches in (stream, data.evaluation_batches(dataset.test, config, 4, 4)):
        with pytest.raises(DataError, match=r"1 image.* cannot be read") as caught:
            list(itertools.islice(batches, 3))
        assert str(broken) in str(caught.value)
        assert "--data.max_unreadable, which is 0" in str(caught.value)
    stream.close()


@pytest.mark.parametrize("spoil", BREAKS)
def test_up_to_a_limit_broken_images_are_skipped_and_counted(folder, spoil, caplog):
    """Named once; a training batch stays full, an evaluation masks the row."""
    config = config_of(folder, max_unreadable=1)
    dataset, broken = data.load(config), folder / "b" / "3.JPEG"
    spoil(broken)
    stream = data.training_batches(dataset.train, config, seed=0)
    for _, batch in zip(range(9), stream, strict=False):
        assert batch["image"].shape == (4, 8, 8, 3)
        assert np.all(batch["image"].reshape(4, -1).max(axis=1) > 200), "no row is left empty"
    (batch,) = data.evaluation_batches(dataset.test, config, 12, 12)
    assert batch["mask"].tolist() == [1] * 9 + [0] + [1] * 2
    assert not batch["image"][9].any()
    assert list(dataset.test.unreadable.reasons) == [str(broken)]
    assert caplog.text.count("skipped, as it cannot be read") == caplog.text.count(str(broken)) == 1
    stream.close()


def test_the_next_image_of_the_order_takes_the_place(folder):
    """All other rows are what they would have been, and the place keeps its random numbers."""
    config = config_of(folder, max_unreadable=1, crop="random_resized", batch_size=12)
    dataset = data.load(config)
    whole = next(data.training_batches(dataset.train, config, seed=1))
    order = data.order.Order(12, seed=1)
    place = 7
    index = order.image(0, place)
    vanish(pathlib.Path(dataset.train.records.name_of(index)))
    batch = next(data.training_batches(dataset.train, config, seed=1))
    others = np.arange(12) != place
    assert np.array_equal(batch["image"][others], whole["image"][others])
    stored, label = dataset.train.records.read(order.image(0, place + 1))
    transform = data.augment.training_transform(config)
    assert np.array_equal(batch["image"][place], transform(stored, order.generator(place)))
    assert batch["label"][place] == label


def test_the_count_survives_a_restart(folder):
    """Two broken images before a kill and one after it are three, more than the limit of two."""
    config = config_of(folder, max_unreadable=2)
    dataset = data.load(config)
    for number in (0, 1):
        empty(folder / "a" / f"{number}.JPEG")
    stream = data.training_batches(dataset.train, config, seed=0)
    list(itertools.islice(stream, 6))
    position, expected = stream.get_state(), next(stream)
    assert len(position["unreadable"]) == 2
    again = data.load(config)
    resumed = data.training_batches(again.train, config, seed=0)
    resumed.set_state(position)
    np.testing.assert_equal(next(resumed), expected)
    empty(folder / "b" / "5.JPEG")
    with pytest.raises(DataError, match=r"3 image.*which is 2"):
        list(itertools.islice(resumed, 6))
    for batches in (stream, resumed):
        batches.close()


def test_all_images_broken(folder):
    """However high the limit, it does not search forever."""
    config = config_of(folder, max_unreadable=10**6)
    dataset = data.load(config)
    for path in folder.rglob("*.JPEG"):
        empty(path)
    with pytest.raises(DataError, match="not one of the training images"):
        next(data.training_batches(dataset.train, config, seed=0))
    with pytest.raises(DataError, match="not one of the training images"):
        data.load(config)


def test_an_image_of_another_size_is_named(folder):
    """Without image_size all images must have one size; the message has the file and both."""
    config = config_of(folder, image_size=0)
    dataset = data.load(config)
    (folder / "b" / "3.JPEG").write_bytes(photograph(0, size=(20, 14)))
    with pytest.raises(ConfigError, match=r"3.JPEG is 14 x 20 pixels, .* first image is 12 x 20"):
        list(data.evaluation_batches(dataset.test, config, 4, 4))


# --- folders ----------------------------------------------------------------------------------


def test_a_class_without_images_is_named(folder):
    (folder / "c").mkdir()
    with pytest.raises(ConfigError, match=r"class folder\(s\) 'c' in .* hold no images"):
        data.load(config_of(folder))


def test_a_class_that_is_only_measured_is_named(folder, tmp_path):
    """As a folder, and as the outcome of a slice."""
    (tmp_path / "both").mkdir()
    folder.rename(tmp_path / "both" / "train")
    root = tmp_path / "both"
    (root / "test" / "c").mkdir(parents=True)
    (root / "test" / "c" / "0.JPEG").write_bytes(photograph(0))
    with pytest.raises(ConfigError, match="to measure, but none to train on, of 'c' in"):
        data.load(config_of(root, test_split="test"))
    with pytest.raises(ConfigError, match=r"none to train on, of '[ab]'.*train\[:1\]"):
        data.load(config_of(root, train_split="train[:1]", test_split="train[1:]"))


# --- processes that die -----------------------------------------------------------------------


def workers_of(parent):
    """The process ids of the workers of a process."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat, command = (path / "stat").read_text(), (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent and b"spawn_main" in command:
            found.append(int(path.name))
    return found


def alive(pid):
    try:
        return (pathlib.Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2][1] != "Z"
    except OSError:
        return False


def follow(stream, expected):
    """Compares what a stream gives with what it should."""
    for batch in expected:
        np.testing.assert_equal(next(stream), batch)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds its workers in /proc")
def test_a_killed_worker_ends_the_run_and_resuming_loses_nothing(folder):
    """SIGKILL, as the kernel sends when memory is short: an error that says so, within seconds.

    An error in a worker (a broken file) reaches the training process whole; and what comes after a
    restart is what would have come.
    """
    config = config_of(folder, workers=2, threads=1)
    dataset = data.load(config)
    alone = data.training_batches(dataset.train, dataclasses.replace(config, workers=0), seed=0)
    stream = data.training_batches(dataset.train, config, seed=0)
    expected = list(itertools.islice(alone, 60))
    follow(stream, expected[:5])
    workers = workers_of(os.getpid())
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"worker process .* died .*-9.*--data.workers"):
        follow(stream, expected[5:])
    position = stream.get_state()
    taken = position["taken"]
    assert 5 <= taken < 60, "batches made before the kill may still arrive"
    stream.close()
    stream.set_state(position)
    follow(stream, expected[taken : taken + 2])
    truncate(folder / "a" / "2.JPEG")
    with pytest.raises(DataError, match=r"a/2.JPEG: "):
        list(itertools.islice(stream, 60))
    stream.close()


PROGRAM = """
import sys
from train import data
from train.config import DataConfig

if __name__ == "__main__":
    config = DataConfig(
        source=sys.argv[1], test_split="train", image_size=8, batch_size=4, workers=2
    )
    batches = data.training_batches(data.load(config).train, config, seed=0)
    for number, batch in enumerate(batches):
        if number == 3:
            print("ready", flush=True)
            sys.stdin.read()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds its workers in /proc")
def test_workers_do_not_outlive_the_run(folder, tmp_path):
    """Killed with SIGKILL, a run leaves none behind that waits for it forever."""
    (tmp_path / "program.py").write_text(PROGRAM)
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), f"folder:{folder}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert run.stdout.readline() == "ready\n"
        workers = workers_of(run.pid)
        assert len(workers) == 2
        for worker in workers:
            os.kill(worker, signal.SIGINT)
        time.sleep(0.5)
        assert all(alive(worker) for worker in workers), "Ctrl-C is for the run to see to"
    finally:
        run.kill()
        run.communicate()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if alive(pid)]


def test_threads_end_with_the_stream(folder):
    before = threading.active_count()
    stream = data.training_batches(data.load(config_of(folder)).train, config_of(folder), seed=0)
    next(stream)
    assert threading.active_count() > before
    stream.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
