"""``python -m train.data prepare``: a reduced copy with the same labels, in the same order."""

import errno
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from made_images import COLOURS, make_tfds, write_images
from PIL import Image

from train import data
from train.config import ConfigError, DataConfig
from train.data import __main__ as entry
from train.data import archives, decode, folder, reduced
from train.errors import DataError, Preempted, RunError

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = reduced.Settings(short_side=24, quality=95, workers=0)
UPRIGHT = 6  # The EXIF orientation of a camera held upright: to be turned by 270 degrees.


def photo(width, height, kind="JPEG", mode="RGB", **options):
    """The bytes of an image whose upper left quarter is bright."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[: height // 2, : width // 2] = 200
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def write(root, images):
    """Writes ``{path: bytes}`` below a folder."""
    for name, content in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def source(tmp_path):
    """Two splits of large images in three classes, the second with spaces and a dot."""
    large = photo(60, 40)
    return write(tmp_path / "source", {
        f"{split}/{name}/{number}.jpg": large
        for split, count in (("train", 5), ("val", 2))
        for name in ("Ärger", "a cat. b", "dog")
        for number in range(count)
    })  # fmt: skip


def config_of(root, **changes):
    return DataConfig(source=f"folder:{root}", threads=0, **changes)


def sizes(root):
    return {path.name: Image.open(path).size for path in root.glob("*/*/*")}


def labels(split):
    return [split.records.read(index)[1] for index in range(split.size)]


# --- the copy ---------------------------------------------------------------------------------


def test_classes_labels_and_order_are_those_of_the_source(source, tmp_path):
    """And the arguments that are printed read it, also those of the splits."""
    config = config_of(source, test_split="validation")
    summary = reduced.prepare(config, tmp_path / "copy", SETTINGS)
    assert summary == (15, 6, 0, f"--data.source folder:{tmp_path / 'copy'}")
    before = data.load(config)
    after = data.load(config_of(tmp_path / "copy", test_split="validation"))
    assert after.classes == before.classes == ("a cat. b", "dog", "Ärger")
    for old, new in ((before.train, after.train), (before.test, after.test)):
        assert labels(old) == labels(new)
        stems = [pathlib.Path(new.records.name_of(i)).stem for i in range(new.size)]
        assert stems == [
            f"{i:08d}_{pathlib.Path(old.records.name_of(i)).stem}" for i in range(old.size)
        ]
    assert set(sizes(tmp_path / "copy").values()) == {(36, 24)}


def test_slices_get_folders_that_are_not_sliced_again(source, tmp_path):
    """The same arguments as for the source end in an error, not in a slice of a slice."""
    config = config_of(source, train_split="train[:80%]", test_split="train[80%:]")
    summary = reduced.prepare(config, tmp_path / "copy", SETTINGS)
    assert summary[:3] == (12, 3, 0)
    assert summary.arguments.endswith("--data.train_split train_slice --data.test_split test_slice")
    with pytest.raises(ConfigError, match="only the folders test_slice, train_slice"):
        data.load(config_of(tmp_path / "copy", train_split="train[:80%]", test_split="train[80%:]"))
    copy = data.load(
        config_of(tmp_path / "copy", train_split="train_slice", test_split="test_slice")
    )
    assert sorted(labels(copy.train)) == sorted(labels(data.load(config).train))


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        (["b", "a"], ["0_b", "1_a"]),
        (["A/b", "A:b"], ["0_A_b", "1_A_b"]),
        (["Cat", "cat"], ["0_Cat", "1_cat"]),  # One folder where case does not count.
        ([".x", "a/b"], ["_x", "a_b"]),
        (["", "x" * 300], ["_", "x" * 200]),
        ([f"class {n}" for n in range(11)], [f"{n:02d}_class {n}" for n in range(11)]),
    ],
)
def test_class_folders_keep_the_order_of_the_labels(classes, folders):
    names = reduced._class_folders(classes)
    assert list(names) == folders == sorted(folders)


def test_a_data_set_of_tfds_whose_classes_are_not_in_alphabetical_order(tmp_path, monkeypatch):
    """Each grey level keeps its label; its class is not in the order of the names."""
    names = ["red", "a/green", "blue"]
    import tensorflow_datasets as tfds

    make_tfds(tmp_path, "shades", extras=True, label=tfds.features.ClassLabel(names=names))
    monkeypatch.chdir(tmp_path)
    config = DataConfig(source="tfds:shades", data_dir=str(tmp_path), threads=0)
    assert reduced.prepare(config, tmp_path / "copy", SETTINGS)[:3] == (40, 10, 0)
    copy = data.load(config_of(tmp_path / "copy"))
    assert copy.classes == ("0_red", "1_a_green", "2_blue")
    for old, new in zip(vars(data.load(config)).values(), (copy.train, copy.test), strict=False):
        expected = {old.records.read(i)[0]: old.records.read(i)[1] for i in range(old.size)}
        assert {new.records.read(i)[0]: new.records.read(i)[1] for i in range(new.size)} == expected
    assert len(COLOURS) == len(names)


# --- single images ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_small_images_keep_their_bytes(kind):
    """In every format, with a suffix that the folder source reads; a side of 24 is small."""
    small = photo(24, 30, kind)
    content, suffix = reduced.reduced(small, SETTINGS)
    assert content == small
    assert folder._is_image("x" + suffix)


@pytest.mark.parametrize(
    ("size", "expected"), [((60, 40), (36, 24)), ((40, 60), (24, 36)), ((25, 25), (24, 24))]
)
def test_large_images_become_upright_jpegs_of_the_short_side(size, expected):
    """The bright quarter stays in its corner, and is turned by EXIF, once."""
    for kind in ("JPEG", "PNG"):
        content, suffix = reduced.reduced(photo(*size, kind), SETTINGS)
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.size, suffix) == ("JPEG", expected, ".jpg")
        assert image.convert("L").getpixel((3, 3)) > 180
    exif = Image.Exif()
    exif[0x0112] = UPRIGHT
    turned, _ = reduced.reduced(photo(*size, exif=exif, comment=b"x" * 100), SETTINGS)
    image = Image.open(io.BytesIO(turned))
    assert image.size == expected[::-1]
    assert not image.getexif()
    assert "comment" not in image.info
    pixels = decode.decode(turned, "L")
    assert pixels[3, -3] > 180
    assert pixels[3, 3] < 50


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [("L", "JPEG", "L"), ("LA", "PNG", "L"), ("1", "PNG", "L"), ("I;16", "PNG", "L"),
     ("RGBA", "PNG", "RGB"), ("P", "PNG", "RGB"), ("CMYK", "JPEG", "RGB")],
)  # fmt: skip
def test_grey_images_stay_grey(mode, kind, expected):
    content, _ = reduced.reduced(photo(60, 40, kind, mode), SETTINGS)
    assert Image.open(io.BytesIO(content)).mode == expected


def test_the_filter_averages_what_it_reduces():
    """A fine pattern of black and white becomes grey, as the whole image is."""
    pattern = np.zeros((96, 96), np.uint8)
    pattern[::2], pattern[:, ::2] = 255, 255
    file = io.BytesIO()
    Image.fromarray(pattern).save(file, "PNG")
    content, _ = reduced.reduced(file.getvalue(), SETTINGS)
    inner = decode.decode(content, "L")[4:-4, 4:-4]
    assert inner == pytest.approx(pattern.mean(), abs=6)


def test_pixels_become_jpegs(tmp_path):
    """Aircraft are decoded, and their banner cut off, before; small ones keep their size."""
    images = write(tmp_path, {"1.jpg": photo(60, 60), "2.jpg": photo(30, 40)})
    names = np.array([b"1.jpg", b"2.jpg"])
    files = folder.Files((images,), np.zeros(2, int), names, np.zeros(2, int))
    for index, size in enumerate([(36, 24), (30, 20)]):
        pixels, _ = archives.Aircraft(files, "RGB").read(index)
        content, suffix = reduced.reduced(pixels, SETTINGS)
        assert (Image.open(io.BytesIO(content)).size, suffix) == (size, ".jpg")


# --- what can go wrong ------------------------------------------------------------------------


def test_unreadable_images_are_named_and_counted(source, tmp_path):
    """Small images are decoded too, so that a copy holds none that is cut off."""
    write(source, {"train/dog/0.jpg": photo(60, 40)[:300], "train/dog/1.jpg": photo(9, 9)[:-60]})
    with pytest.raises(DataError, match=r"(?s)2 image.*dog/0.jpg.*dog/1.jpg"):
        reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)
    with pytest.raises(ConfigError, match="unfinished copy"):
        data.load(config_of(tmp_path / "copy"))
    copied = config_of(source, max_unreadable=2)
    assert reduced.prepare(copied, tmp_path / "copy", SETTINGS)[:3] == (13, 6, 2)
    assert data.load(config_of(tmp_path / "copy")).train.size == 13
    write(source, {"train/dog/0.jpg": photo(60, 40)})
    # Repaired: one of the images that the manifest has a digest of, so that it is another source.
    with pytest.raises(ConfigError, match="images to train on have other content"):
        reduced.prepare(copied, tmp_path / "copy", SETTINGS)


def test_a_class_without_images_would_move_labels(source, tmp_path):
    for number in range(5):
        write(source, {f"train/dog/{number}.jpg": b"broken"})
    config = config_of(source, max_unreadable=9)
    with pytest.raises(DataError, match="the class 'dog' has no readable image"):
        reduced.prepare(config, tmp_path / "copy", SETTINGS)
    with pytest.raises(ConfigError, match="unfinished copy"):
        data.load(config_of(tmp_path / "copy"))


def test_an_interrupted_call_goes_on_and_keeps_what_is_written(source, tmp_path, monkeypatch):
    """Ctrl-C in the middle of the second chunk: those before are not written again."""
    monkeypatch.setattr(reduced, "_CHUNK", 4)
    whole, calls = reduced.reduced, iter(range(1000))

    def interrupted(*arguments):
        if next(calls) == 6:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(reduced, "reduced", interrupted)
    with pytest.raises(Preempted, match="interrupted with 4 of 21 images") as raised:
        reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)
    assert raised.value.exit_code == 75
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").glob("*/*/*")}
    assert len(before) == 6
    cut = write(tmp_path / "copy", {"train/dog/.00000009_4.jpg.1.partial": b"cut"})
    with pytest.raises(ConfigError, match=r"unfinished copy of images; the same `python -m"):
        data.load(config_of(tmp_path / "copy"))
    assert reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)[:3] == (15, 6, 0)
    assert before.items() <= {p: p.stat().st_mtime_ns for p in cut.glob("*/*/*")}.items()
    assert not list(cut.glob("*/*/.*"))
    done = len(list(calls))
    assert reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)[:3] == (15, 6, 0)
    assert done == 1000 - 22  # 6 and the interrupted one, then the other 15.


def test_the_disk_is_full(source, tmp_path, monkeypatch):
    def full(*unused):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(reduced, "replacing", full)
    with pytest.raises(RunError, match=r"jpg cannot be written: No space left on device\. Mend"):
        reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"short_side": 25}, "short_side was 24 and is 25"),
        ({}, {"quality": 90}, "quality was 95 and is 90"),
        ({"train_split": "train[:50%]"}, {}, "began with 15 images"),
        ({"train_split": "val", "test_split": "train"}, {}, "began with 15 images"),
    ],
)
def test_a_copy_with_other_settings_is_refused(source, tmp_path, changes, settings, message):
    reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)
    before = sorted((tmp_path / "copy").rglob("*"))
    with pytest.raises(ConfigError, match=message):
        reduced.prepare(
            config_of(source, **changes), tmp_path / "copy", SETTINGS._replace(**settings)
        )
    assert sorted((tmp_path / "copy").rglob("*")) == before


def test_a_copy_of_another_source_is_refused(source, tmp_path):
    reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)
    other = write_images(tmp_path / "other", dict.fromkeys(COLOURS, 5))
    with pytest.raises(ConfigError, match="holds a copy of other images or settings"):
        reduced.prepare(config_of(other), tmp_path / "copy", SETTINGS)


def test_files_of_others_in_a_copy_are_noticed(source, tmp_path):
    reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)
    write(tmp_path / "copy", {"train/dog/mine.jpg": photo(30, 30)})
    with pytest.raises(DataError, match="22 images of 3 classes instead of 21 of 3"):
        reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)


@pytest.mark.parametrize("text", ["{", "[]", '{"finished": true}'])
def test_a_damaged_manifest_is_named(source, tmp_path, text):
    reduced.prepare(config_of(source), tmp_path / "copy", SETTINGS)
    (tmp_path / "copy" / folder.MANIFEST).write_text(text)
    with pytest.raises(DataError, match=f"{folder.MANIFEST} is damaged"):
        data.load(config_of(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "copy"], "images of digits are in memory"),
        (
            ["cifar10_small", "copy", "--data.source", "synthetic"],
            "images of synthetic are in memory",
        ),
        (["digits", "s3://bucket/copy"], "s3:// is not supported"),
        (["digits", "copy", "--quality", "0"], "--quality is 0"),
        (["digits", "copy", "--workers", "-1"], "--workers is -1"),
        (["digits", "copy", "--short-side", "0"], "--short-side is 0"),
        (["digits", "copy", "--data.image-size", "300"], "--short-side is 320, .* needs 343"),
        (["digit", "copy"], "Did you mean 'digits'"),
        (["digits", "copy", "--data.source", "folder:SOURCE", "--data.batch-size", "0"], "is 0"),
        (["digits", "source/copy", "--data.source", "folder:SOURCE"], "lies in the images of"),
        (["digits", ".", "--data.source", "folder:SOURCE"], "holds other files"),
        (["digits", "file/copy", "--data.source", "folder:SOURCE"], "file/copy cannot be written"),
    ],
)
def test_mistakes_cost_a_sentence(arguments, message, source, tmp_path, monkeypatch, capsys):
    """And nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    arguments = [a.replace("SOURCE", str(source)) for a in arguments]
    assert entry.main(["prepare", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before


# --- the command ------------------------------------------------------------------------------


def command(source, copy, *more):
    words = [sys.executable, "-m", "train.data", "prepare", "digits", str(copy)]
    words += [f"--data.source=folder:{source}", "--short-side=24", *more]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("request_", [signal.SIGINT, signal.SIGTERM])
def test_processes_stop_when_asked_and_go_on(source, tmp_path, request_):
    """One sentence and exit code 75; the same command completes the copy with two workers."""
    large = photo(700, 700, "PNG")
    many = {f"train/{n}/{i}.png": large for n in ("dog", "a cat. b") for i in range(5, 200)}
    write(source, many)
    first = command(source, tmp_path / "copy", "--workers=2")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "copy").glob("*/*/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(request_)
    out, err = first.communicate(timeout=60)
    assert (first.returncode, out) == (75, ""), err
    assert err.startswith("interrupted with ")
    assert err.count("\n") == 1
    manifest = json.loads((tmp_path / "copy" / folder.MANIFEST).read_text())
    assert not manifest["finished"]
    second = command(source, tmp_path / "copy", "--workers=2")
    out, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    assert out.startswith(f"{15 + 390:,} images to train on and 6 to measure are in ")
    assert set(sizes(tmp_path / "copy").values()) == {(36, 24), (24, 24)}


def test_help_and_the_sentences_at_the_end(source, tmp_path, capsys):
    """What is left out is said, and the arguments that read the copy are those to paste."""
    with pytest.raises(SystemExit, match="0"):
        entry.main(["prepare", "--help"])
    assert "--short-side" in capsys.readouterr().out
    write(source, {"val/dog/0.jpg": b"broken"})
    words = ["digits", str(tmp_path / "a copy"), f"--data.source=folder:{source}"]
    before = signal.getsignal(signal.SIGTERM)
    assert entry.main(["prepare", *words, "--workers=0", "--data.max-unreadable=1"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    copy = tmp_path / "a copy"
    assert capsys.readouterr().out.splitlines() == [
        f"15 images to train on and 5 to measure are in {copy}.",
        "1 could not be read and are left out.",
        f"Use them with --data.source 'folder:{copy}'",
    ]
    assert set(sizes(copy).values()) == {(60, 40)}
