"""Sources: folders as people have them, real CIFAR-10 from TFDS, and what each mistake says."""

import dataclasses
import itertools
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image

from train import data
from train.config import ConfigError, DataConfig

RGB = DataConfig(image_size=16, resize=18, batch_size=4, threads=2)


def _folder(root, **changes):
    return dataclasses.replace(RGB, source=f"folder:{root}", **changes)


def _write(path, shade, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)


@pytest.fixture
def standard(tmp_path, monkeypatch):
    """train/ and val/ of two classes; the shade of an image is 10 times its number."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "images"
    for number in range(6):
        _write(root / "train" / "ab"[number % 2] / f"{number}.JPEG", 10 * number)
    for number in range(3):
        _write(root / "val" / "ab"[number % 2] / f"{number}.png", 10 * number)
    return root


def test_the_standard_layout(standard):
    """Classes by name, both splits, every format's suffix in any case, sizes as configured."""
    found = data.load(_folder(standard))
    assert (found.train.size, found.test.size) == (6, 3)
    assert found.classes == ("a", "b")
    assert found.image_shape == (16, 16, 3)
    (batch,) = data.evaluation_batches(found.train, _folder(standard), 6, 6)
    shades = batch["image"].mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(np.round(shades / 10) % 2, batch["label"])
    assert sorted(np.round(shades / 10)) == list(range(6))


def test_a_new_image_is_seen_in_spite_of_the_cache(standard):
    """The cached index is of the folder as it is now."""
    assert data.load(_folder(standard)).train.size == 6
    time.sleep(0.01)
    _write(standard / "train" / "a" / "6.jpg", 60)
    assert data.load(_folder(standard)).train.size == 7


def test_a_place_for_the_cache_that_cannot_be_written_is_no_error(standard, monkeypatch):
    """As on a full or read-only disk."""
    blocked = standard.parent / "blocked"
    blocked.write_text("a file where a directory should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert data.load(_folder(standard)).train.size == 6


def test_a_flat_folder_is_split_by_class(tmp_path):
    """80 % and 20 % of each class; together every image once; the same on every call."""
    for number in range(20):
        _write(tmp_path / "ab"[number % 2] / f"{number}.jpg", 10 * number)
    found = data.load(_folder(tmp_path))
    assert np.bincount(found.train.records.labels).tolist() == [8, 8]
    assert np.bincount(found.test.records.labels).tolist() == [2, 2]
    names = [s.records.name_of(i) for s in (found.train, found.test) for i in range(s.size)]
    assert len(set(names)) == 20
    again = data.load(_folder(tmp_path))
    assert [again.train.records.name_of(i) for i in range(16)] == names[:16]


def test_mistakes_in_folders_name_what_is_wrong(standard, tmp_path):
    """No such folder; no images; a class without images; a class that is measured only."""
    with pytest.raises(ConfigError, match="no such folder"):
        data.load(_folder(tmp_path / "nowhere"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match="holds neither images of classes"):
        data.load(_folder(tmp_path / "bare"))
    (standard / "train" / "c").mkdir()
    with pytest.raises(ConfigError, match=r"class folder\(s\) 'c' in .* hold no images"):
        data.load(_folder(standard))
    (standard / "train" / "c").rmdir()
    _write(standard / "val" / "d" / "0.png", 0)
    with pytest.raises(ConfigError, match="none to train on, of 'd' "):
        data.load(_folder(standard))


def test_broken_and_vanished_files_are_skipped_up_to_the_limit(standard):
    """Zero bytes, cut short, gone: each is counted by name; one more than allowed ends the run."""
    config = _folder(standard, max_unreadable=3)
    (standard / "train" / "a" / "0.JPEG").write_bytes(b"")
    whole = (standard / "train" / "b" / "1.JPEG").read_bytes()
    (standard / "train" / "b" / "1.JPEG").write_bytes(whole[: len(whole) // 2])
    found = data.load(config)
    (standard / "train" / "a" / "2.JPEG").unlink()
    (batch,) = data.evaluation_batches(found.train, config, 6, 6)
    assert batch["mask"].sum() == 3
    assert len(found.train.unreadable.reasons) == 3
    batch = next(data.training_batches(found.train, config, seed=0))
    assert batch["image"].shape == (4, 16, 16, 3)
    strict = dataclasses.replace(config, max_unreadable=1)
    with pytest.raises(ConfigError, match=r"2\.JPEG|1\.JPEG|0\.JPEG"):
        list(data.evaluation_batches(data.load(strict).train, strict, 6, 6))


def test_a_data_set_that_is_not_there_says_how_to_prepare_it(tmp_path):
    """No download is tried; the message holds the command."""
    config = DataConfig(source="tfds:cifar10:3.0.2", data_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=r"tfds build cifar10|download_and_prepare"):
        data.load(config)


@pytest.mark.slow
def test_a_killed_worker_is_an_error_and_not_a_hang(tmp_path):
    """SIGKILL for a worker process; the message says what to do, within seconds."""
    code = (
        "import dataclasses, os, signal, multiprocessing\n"
        "from train import data\n"
        "from train.config import ConfigError, DataConfig\n"
        "if __name__ == '__main__':\n"
        "    c = DataConfig(source='synthetic:400x16x4', workers=1, batch_size=8)\n"
        "    s = data.training_batches(data.load(c).train, c, 0)\n"
        "    next(s)\n"
        "    for child in multiprocessing.active_children(): os.kill(child.pid, signal.SIGKILL)\n"
        "    try:\n"
        "        for _ in range(1000): next(s)\n"
        "    except ConfigError as error: print('said:', error)\n"
    )
    script = tmp_path / "killed.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert "said: a worker process that reads images died" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
def test_real_cifar10_is_what_was_published(tmp_path):
    """Mean and standard deviation of the channels, to 1e-4, without TensorFlow."""
    maker = SHARED / "make_tfds.py"
    if not maker.exists():
        pytest.skip(f"needs {maker.name}, which does not ship with the project")
    subprocess.run([sys.executable, str(maker), "--out", str(tmp_path)], check=True, timeout=500)
    config = DataConfig(source="tfds:cifar10:3.0.2", data_dir=str(tmp_path), batch_size=500)
    found = data.load(config)
    assert (found.train.size, found.test.size, found.num_classes) == (50_000, 10_000, 10)
    total, square = np.zeros(3), np.zeros(3)
    for batch in data.evaluation_batches(found.train, config, 500, 500):
        pixels = batch["image"].reshape(-1, 3) / 255
        total, square = total + pixels.sum(0), square + (pixels**2).sum(0)
    mean = total / (50_000 * 1024)
    std = np.sqrt(square / (50_000 * 1024) - mean**2)
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(std, [0.2470, 0.2435, 0.2616], atol=1e-4)
    seen = itertools.islice(data.training_batches(found.train, config, 0), 100)
    assert np.bincount(np.concatenate([batch["label"] for batch in seen])).tolist() == [5000] * 10
    assert "tensorflow" not in sys.modules
