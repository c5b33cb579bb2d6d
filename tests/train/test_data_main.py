"""``python -m train.data``: the sheet, the table, and what mistakes cost."""

import re

import numpy as np
import pytest
from PIL import Image

from train.config import Config, DataConfig
from train.data import __main__ as entry
from train.data import load, preview
from train.data.preview import contact_sheet

SHORT = ("--data.batch-size=32", "--data.threads=0")


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    """A few calls a stage rather than seconds; files go to a directory of the test."""
    monkeypatch.setattr(preview, "_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)


def test_a_sheet_and_a_table(tmp_path, capsys):
    """The PNG is an image of the stated size; each stage has a row, and rates are positive."""
    assert entry.main(["digits", "sheet.png", *SHORT]) == 0
    out = capsys.readouterr().out
    for stage in ("read", "decode", "augment", "batch", "transfer"):
        assert f"│ {stage}" in out
    assert "1,437 to train on, 360 to measure, 10 classes" in out
    assert "Images: sheet.png" in out
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.mode == "RGB"
        assert image.width > 8 * 96
        assert image.height > 6 * 96
        assert len(np.unique(np.asarray(image))) > 10


def test_files_are_named_after_the_config(tmp_path):
    assert entry.main(["digits", *SHORT]) == 0
    assert (tmp_path / "digits_data.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "known configs: .*digits"),
        (["digit"], "Did you mean 'digits'"),
        (["digits", "--data.batch-size", "0"], "--data.batch_size is 0"),
        (["digits", "--data.source", "folder:nowhere"], "no such folder"),
        (["digits", "no/such/place.png", *SHORT], "no/such/place.png cannot be written"),
        (["digits", "sheet.what", *SHORT], "sheet.what cannot be written"),
        (["cifar10_losses"], "is a group of runs"),
        (["cifar10_losses/what"], "cifar10_losses has the runs"),
        (["digits/what"], "digits is a single run"),
    ],
)
def test_mistakes_cost_a_message_and_exit_code_2(arguments, message, capsys):
    """No traceback, and nothing on stdout."""
    assert entry.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(message, captured.err)


def test_mixing_on_the_device_is_said_to_be_missing_from_the_sheet(capsys):
    assert entry.main(["digits", *SHORT, "--data.mix.mixup=0.2"]) == 0
    assert "before they are mixed" in capsys.readouterr().out


# --- the sheet --------------------------------------------------------------------------------


def cell(image, number, side):
    """The pixels of one image on a sheet."""
    width, height = side + preview._GAP, side + 2 * preview._GAP + preview._TEXT
    left = number % preview._COLUMNS * width + preview._GAP
    top = number // preview._COLUMNS * height + 2 * preview._GAP + preview._TEXT
    return np.asarray(image)[top : top + side, left : left + side]


def test_small_images_are_enlarged_pixel_by_pixel():
    """Each pixel becomes a square; the brightest of the sheet becomes white."""
    images = np.random.default_rng(0).integers(0, 17, (11, 8, 8, 1), np.uint8)
    images[0, 0, 0] = 16
    drawn = contact_sheet(images, ["x"] * 11, "title")
    for number, image in enumerate(images):
        expected = np.rint(image.astype(np.float32) * (255 / 16)).astype(np.uint8)
        squares = expected.repeat(12, axis=0).repeat(12, axis=1).repeat(3, axis=2)
        assert np.array_equal(cell(drawn, number, 96), squares)


def test_large_images_are_reduced_and_names_shortened():
    """A name that is too long ends in dots, within the width of its image."""
    images = np.full((2, 500, 500, 3), 200, np.uint8)
    drawn = contact_sheet(images, ["a name that is far too long for any image " * 3, "b"], "title")
    assert drawn.width == 8 * (224 + preview._GAP) + preview._GAP
    assert np.all(cell(drawn, 1, 224) == 255)
    below = np.asarray(drawn)[-preview._TEXT - preview._GAP :]
    written = np.flatnonzero((below < 128).any(axis=(0, 2)))
    assert written.size
    gap = written[(written > 224) & (written < 230)]
    assert gap.size == 0, "the first name does not run into the second"


def test_black_images_do_not_divide_by_zero():
    assert not cell(contact_sheet(np.zeros((1, 96, 96, 3), np.uint8), ["x"], ""), 0, 96).any()


# --- the stages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "decoded", "augmented"),
    [
        ({}, "was decoded before", "of decoded images"),
        ({"policy": "randaugment"}, "was decoded before", "of decoded images"),
    ],
)
def test_stages_say_what_was_measured(changes, decoded, augmented):
    """Images in memory need no decoding, and shift and flip alone are done by the batch."""
    config = Config(data=DataConfig(source="synthetic:64x8x4", batch_size=16, **changes))
    found = {stage.name: stage for stage in preview.measure(config, load(config.data), dict)}
    assert found["read"].what == "from memory"
    assert found["decode"] == ("decode", None, decoded)
    assert found["augment"].what == augmented
    rates = [stage.images_per_second for stage in found.values() if stage.name != "decode"]
    assert all(rate > 0 for rate in rates)


def test_stages_of_files(tmp_path):
    """Files are read and decoded; small ones that are not to be resized included."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    data = DataConfig(source=f"folder:{tmp_path}", test_split="train", batch_size=4, threads=0)
    found = {s.name: s for s in preview.measure(Config(data=data), load(data), dict)}
    assert found["read"].what == "from disk"
    assert found["decode"].images_per_second > 0
    assert found["batch"].what == "all of the above, no worker process(es), no thread ahead"
