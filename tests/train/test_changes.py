"""A run whose images are others when it is gone on with."""

import dataclasses
import json
import shutil

import pytest
import tiny_run
from made_images import picture, write_images

from train import data, loop
from train.config import ConfigError, DataConfig
from train.data import digest
from train.workdir import check_images, record_start

OTHER = "the images to measure have other content"


@pytest.fixture
def folder(tmp_path):
    """36 images to train on, of three classes, and six to measure."""
    write_images(tmp_path / "data" / "train", {"blue": 12, "green": 12, "red": 12})
    write_images(tmp_path / "data" / "val", {"blue": 2, "green": 2, "red": 2}, start=100)
    return tmp_path / "data"


def describe(root):
    return digest.describe(data.load(DataConfig(source=f"folder:{root}", max_unreadable=9)))


def add_class(root):
    write_images(root / "train", {"yellow": 28}, start=50)


def swap(root):
    (root / "train" / "red" / "024.png").rename(root / "train" / "blue" / "024.png")
    (root / "train" / "blue" / "000.png").rename(root / "train" / "red" / "000.png")


def rename_class(root):
    for split in ("train", "val"):
        (root / split / "red").rename(root / split / "rosa")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add_class, "began with 36 images of 3 classes to train on and 6 to measure, finds 64"),
        (lambda r: (r / "val" / "red" / "104.png").unlink(), "and 5 to measure"),
        (swap, "to train on have other names or labels"),
        (rename_class, "the classes have other names"),
        (lambda r: (r / "val" / "red" / "104.png").write_bytes(picture(7)), OTHER),
        (lambda r: (r / "val" / "red" / "104.png").write_bytes(b""), OTHER),
    ],
)  # fmt: skip
def test_what_differs_is_said(change, said, folder, tmp_path):
    before = json.loads(json.dumps(describe(folder)))
    record_start(tmp_path, step=0, images=before)
    check_images(tmp_path, describe(folder), allowed=False)
    change(folder)
    with pytest.raises(ConfigError, match=said):
        check_images(tmp_path, describe(folder), allowed=False)


def test_data_may_be_moved(folder, tmp_path):
    before = describe(folder)
    assert describe(shutil.copytree(folder, tmp_path / "elsewhere")) == before
    assert digest.differences(before, before) == []


@pytest.mark.parametrize("content", ["", "[{", "{}", "[1, null]", '[{"step": 0}]'])
def test_a_run_that_noted_nothing_is_not_held_to_it(content, folder, tmp_path):
    """Older runs, and those whose run.json is damaged."""
    (tmp_path / "run.json").write_text(content)
    check_images(tmp_path, describe(folder), allowed=False)


def test_pixels_in_memory_count_to_the_last(tmp_path):
    dataset = data.load(DataConfig(source="synthetic:40x4x2"))
    before = digest.describe(dataset)
    dataset.train.records.images[-1, -1, -1, -1] ^= 1
    assert digest.differences(before, digest.describe(dataset)) == [
        "the images to train on have other content"
    ]


def test_a_run_goes_on_with_other_images_only_where_that_is_asked_for(folder, tmp_path):
    config = tiny_run.tiny_config(epochs=2)
    settings = DataConfig(source=f"folder:{folder}", batch_size=8, image_size=6, threads=0)
    config = dataclasses.replace(config, data=settings)
    rows = loop.train(config, tmp_path / "run", tiny_run.console())
    assert len(rows) == 6
    kept = shutil.copytree(folder, tmp_path / "kept")
    add_class(folder)
    allowed = dataclasses.replace(config, data=dataclasses.replace(settings, allow_changes=True))
    with pytest.raises(ConfigError, match=r"4 classes .* an output for each class"):
        loop.train(allowed, tmp_path / "run", tiny_run.console())
    shutil.rmtree(folder / "train" / "red")
    shutil.rmtree(folder / "val" / "red")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"finds 52 images.*--data.allow-changes"):
        loop.train(config, tmp_path / "run", tiny_run.console())
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    terminal = tiny_run.console()
    loop.train(allowed, tmp_path / "run", terminal)
    assert "Resuming from step 8 of 12" in terminal.file.getvalue()
    noted = [entry["images"] for entry in json.loads((tmp_path / "run" / "run.json").read_text())]
    assert [entry["train"]["images"] for entry in noted] == [36, 52]
    assert noted[0] == describe(kept)
