"""Damaged data sets: the right images, or one message that names the file; never a traceback."""

import dataclasses
import io
import json
import os
import shutil
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from made_images import make_tfds, numbers, picture, write_images
from PIL import Image, PngImagePlugin

from train import data
from train.config import DataConfig
from train.data.prepared import Prepared
from train.data.sources import Dataset
from train.errors import RunError


def outcome(config):
    """Returns the data set after every image of both splits is read, or what is said of it."""
    try:
        dataset = data.load(config)
        for split in (dataset.train, dataset.test):
            for batch in data.evaluation_batches(split, config, 8, 8):
                assert batch["image"].dtype == np.uint8
        return dataset
    except RunError as error:
        return str(error)


def holds(found, *words):
    """Asserts that a message has all of these words, and is not that of a whole data set."""
    assert isinstance(found, str), f"no message, but {found}"
    assert not (missing := [word for word in words if word not in found]), (missing, found)


# --- TFDS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    pytest.importorskip("tensorflow_datasets")
    where = tmp_path_factory.mktemp("tfds")
    make_tfds(where, "mixed", extras=True)
    return where


def shard(version, split="train"):
    return version / f"mixed-{split}.array_record-00000-of-00001"


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def halve(path):
    cut(path, path.stat().st_size // 2)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_split(version, **changes):
    info = json.loads((version / "dataset_info.json").read_text())
    info["splits"][0] |= changes
    (version / "dataset_info.json").write_text(json.dumps(info))


def to_folder(path):
    path.unlink()
    path.mkdir()


def exchange(version):
    train, test = shard(version).read_bytes(), shard(version, "test").read_bytes()
    shard(version).write_bytes(test)
    shard(version, "test").write_bytes(train)


def dangle(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def relabel(version, old, new):
    path = version / "features.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


SHARD, INFO, FEATURES, LABELS = "mixed-train.array", "dataset_info.json", "features.json", "label."
TFDS = {
    "shard missing": (lambda v: shard(v).unlink(), SHARD),
    "test shard missing": (lambda v: shard(v, "test").unlink(), "mixed-test.array"),
    "shard empty": (lambda v: cut(shard(v), 0), SHARD),
    "shard of ten bytes": (lambda v: cut(shard(v), 10), SHARD),
    "shard cut within its records": (lambda v: cut(shard(v), 5000), SHARD),
    "shard cut at a block": (lambda v: cut(shard(v), 65536), SHARD),
    "shard cut within its footer": (lambda v: cut(shard(v), 65600), SHARD),
    "shard short of one byte": (lambda v: cut(shard(v), 131071), SHARD),
    "shard with more bytes": (lambda v: shard(v).open("ab").write(b"more"), SHARD),
    "shard of zeros": (lambda v: shard(v).write_bytes(bytes(131072)), SHARD),
    "shard is a folder": (lambda v: to_folder(shard(v)), SHARD),
    "shard is a link to nowhere": (lambda v: dangle(shard(v)), SHARD),
    "shards exchanged": (exchange, "mixed-t"),
    "bit flipped in the first record": (lambda v: flip(shard(v), 200), "mixed train[0]"),
    "bit flipped in a record": (lambda v: flip(shard(v), 3000), "mixed train[11]"),
    "bit flipped in a header": (lambda v: flip(shard(v), 70), "mixed train[0]"),
    "bit flipped in the footer": (lambda v: flip(shard(v), 65540), SHARD),
    "bit flipped between records": (lambda v: flip(shard(v), 20000), None),
    "info missing": (lambda v: (v / INFO).unlink(), INFO),
    "info empty": (lambda v: cut(v / INFO, 0), INFO),
    "info cut": (lambda v: halve(v / INFO), INFO),
    "info not text": (lambda v: (v / INFO).write_bytes(b"\xff\xfe\0"), INFO),
    "info of other JSON": (lambda v: (v / INFO).write_text("[1]"), INFO),
    "info without splits": (lambda v: edit(v / INFO, splits=[]), INFO),
    "info of another name": (lambda v: edit(v / INFO, name="other"), "other-t"),
    "info of more records": (lambda v: edit_split(v, shardLengths=["41"]), SHARD),
    "info of more shards": (lambda v: edit_split(v, shardLengths=["20", "20"]), SHARD),
    "info of another template": (lambda v: edit_split(v, filepathTemplate="{X}"), INFO),
    "features missing": (lambda v: (v / FEATURES).unlink(), FEATURES),
    "features empty": (lambda v: cut(v / FEATURES, 0), FEATURES),
    "features cut": (lambda v: halve(v / FEATURES), FEATURES),
    "features of other JSON": (lambda v: (v / FEATURES).write_text("{}"), FEATURES),
    "features of no known class": (lambda v: relabel(v, "image_feature.Image", "x.Y"), FEATURES),
    "fewer names than classes": (lambda v: (v / "label.labels.txt").write_text("a\nb\n"), LABELS),
    "names cut": (lambda v: cut(v / "label.labels.txt", 7), LABELS),
    "names missing": (lambda v: (v / "label.labels.txt").unlink(), None),
    "version not finished": (lambda v: v.rename(v.parent / "1.0.0.incompleteAB"), "incompleteAB"),
    "version with the name of TFDS' work": (
        lambda v: v.rename(v.parent / "incomplete.AB_1.0.0"),
        "incomplete.AB",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TFDS)
def test_a_damaged_prepared_data_set(case, prepared, tmp_path):
    damage, named = TFDS[case]
    where = tmp_path / "tfds"
    shutil.copytree(prepared, where)
    damage(where / "mixed" / "1.0.0")
    found = outcome(DataConfig(source="tfds:mixed", data_dir=str(where), image_size=5))
    if named is None:
        assert isinstance(found, Dataset), found
        assert numbers(found.train) == {number: number % 3 for number in range(40)}
    else:
        holds(found, named)


def test_a_damaged_data_set_of_tfds_says_the_command_that_mends_it(prepared, tmp_path):
    shutil.copytree(prepared / "mixed", tmp_path / "cifar10")
    shard(tmp_path / "cifar10" / "1.0.0").unlink()
    found = outcome(DataConfig(source="tfds:cifar10", data_dir=str(tmp_path), image_size=5))
    holds(found, "is missing", "tfds build cifar10 --overwrite --file_format=array_record")


@pytest.mark.parametrize("workers", [0, 1])
def test_one_damaged_record_counts_as_one_image(prepared, tmp_path, workers):
    shutil.copytree(prepared, tmp_path / "tfds")
    flip(shard(tmp_path / "tfds" / "mixed" / "1.0.0"), 3000)
    config = DataConfig(source="tfds:mixed", data_dir=str(tmp_path / "tfds"), image_size=5,
                        max_unreadable=1, workers=workers)  # fmt: skip
    dataset = data.load(config)
    batches = list(data.evaluation_batches(dataset.train, config, 8, 8))
    assert sum(batch["mask"].sum() for batch in batches) == 39
    assert list(dataset.train.unreadable.reasons) == ["mixed train[11]"]


def test_a_damaged_record_of_images_of_one_size(tmp_path):
    """They are not decoded into memory then; the others are as they were."""
    pytest.importorskip("tensorflow_datasets")
    make_tfds(tmp_path, "tiny")
    flip(tmp_path / "tiny" / "1.0.0" / "tiny-train.array_record-00000-of-00001", 3000)
    config = DataConfig(source="tfds:tiny", data_dir=str(tmp_path))
    holds(outcome(config), "tiny train[", "tiny/1.0.0")
    dataset = outcome(dataclasses.replace(config, max_unreadable=1))
    assert isinstance(dataset, Dataset)
    assert isinstance(dataset.train.records, Prepared)
    assert len(dataset.train.unreadable.reasons) == 1


def test_an_older_finished_version_is_taken_before_an_unfinished_one(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "tfds")
    versions = tmp_path / "tfds" / "mixed"
    shutil.copytree(versions / "1.0.0", versions / "2.0.0.incompleteXY")
    found = outcome(DataConfig(source="tfds:mixed", data_dir=str(tmp_path / "tfds"), image_size=5))
    assert isinstance(found, Dataset)


# --- folders ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Twelve images to train on, of two classes, and six to measure."""
    write_images(tmp_path / "data" / "train", {"blue": 6, "red": 6})
    write_images(tmp_path / "data" / "val", {"blue": 3, "red": 3}, start=100)
    return tmp_path / "data"


def png(width, height):
    """A PNG that claims a size, and has no pixels."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def with_text(megabytes):
    """An image with so much text in it."""
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    for number in range(megabytes):
        info.add_text(f"Comment{number}", "x" * 2**20, zip=True)
    info.add_itxt("Long", "y" * 3 * 2**20, zip=True)
    Image.new("RGB", (6, 6), (0, 0, 0)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def first(root):
    return root / "train" / "blue" / "000.png"


def link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def pack(root):
    shutil.make_archive(str(root), "zip", root)
    shutil.rmtree(root)
    root.with_suffix(".zip").rename(root)


def pack_splits(root):
    for split in ("train", "val"):
        shutil.make_archive(str(root / split), "zip", root / split)
        shutil.rmtree(root / split)


def deeper(folder, name="images"):
    """Moves what a folder holds into a new folder in it."""
    inside = list(folder.iterdir())
    (folder / name).mkdir()
    for path in inside:
        path.rename(folder / name / path.name)


def heap(folder):
    """Moves all images out of their class folders."""
    for path in list(folder.glob("*/*")):
        path.rename(folder / f"{path.parent.name}.{path.name}")
    for path in list(folder.iterdir()):
        if path.is_dir():
            path.rmdir()


def rename_class(root, split, name):
    (root / split / "red").rename(root / split / name)


def two_forms(root, splits=("val",)):
    """Writes a class name in another form of Unicode in some splits."""
    for split in ("train", "val"):
        form = "NFD" if split in splits else "NFC"
        rename_class(root, split, unicodedata.normalize(form, "größe"))


def twins(root):
    two_forms(root, splits=())
    write_images(root / "train", {unicodedata.normalize("NFD", "größe"): 1}, start=50)


def save_as(path, kind, **options):
    image = Image.open(path)
    path.unlink()
    image.save(path.with_suffix(f".{kind}"), **options)


FOLDERS = {
    "file empty": (lambda r: first(r).write_bytes(b""), "000.png"),
    "file cut": (lambda r: cut(first(r), 40), "000.png"),
    "file of zeros": (lambda r: first(r).write_bytes(bytes(100)), "000.png"),
    "file of text": (lambda r: first(r).write_text("<html>404</html>"), "000.png"),
    "bit flipped in a header": (lambda r: flip(first(r), 18), "000.png"),
    "link to nowhere": (lambda r: link(first(r), r / "nowhere"), "000.png"),
    "link to itself": (lambda r: link(first(r), first(r)), "000.png"),
    "link to nowhere to measure": (
        lambda r: link(r / "val" / "red" / "x.jpg", r / "nowhere"),
        "x.jpg",
    ),
    "class folder links to nowhere": (lambda r: link(r / "train" / "green", r / "no"), "green"),
    "bomb": (lambda r: first(r).write_bytes(png(60000, 60000)), "000.png"),
    "image of no height": (lambda r: first(r).write_bytes(png(6, 0)), "000.png"),
    "image of another size": (
        lambda r: (r / "train" / "red" / "008.png").write_bytes(picture(0, side=9)),
        "008.png",
    ),
    "class folder empty": (lambda r: (r / "train" / "green").mkdir(), "green"),
    "one class only": (
        lambda r: [shutil.rmtree(r / s / "red") for s in ("train", "val")],
        "only one class",
    ),
    "class to measure unknown": (lambda r: rename_class(r, "val", "rosa"), "'rosa'"),
    "class to train on empty": (lambda r: [p.unlink() for p in r.glob("train/red/*")], "'red'"),
    "class name in two forms in one split": (twins, "two forms of Unicode"),
    "archive in place of the folder": (pack, "unpack an archive"),
    "archives in place of splits": (pack_splits, "Unpack train.zip, val.zip first"),
    "root one level too deep": (deeper, "folder:"),
    "classes one level too deep": (lambda r: deeper(r / "train"), "hold no images (those in"),
    "images one level too deep": (lambda r: deeper(r / "train" / "red"), "red/images lie too deep"),
    "flat val": (lambda r: heap(r / "val"), "val holds no class folders"),
    "flat train": (lambda r: heap(r / "train"), "train lie in one heap"),
    "flat train and val": (lambda r: [heap(r / s) for s in ("train", "val")], "in one heap"),
    "train missing": (lambda r: shutil.rmtree(r / "train"), "neither images of classes nor"),
    "val missing": (lambda r: shutil.rmtree(r / "val"), "has no split called test"),
    "everything missing": (shutil.rmtree, "there is no such folder"),
    "everything empty": (lambda r: [shutil.rmtree(p) for p in r.iterdir()], "(none)"),
    "pipe among the images": (lambda r: os.mkfifo(r / "train" / "blue" / "p.png"), True),
    "text among the images": (lambda r: (r / "train" / "blue" / "a.txt").write_text("x"), True),
    "folder among the images": (lambda r: (r / "train" / "blue" / "a.png").mkdir(), True),
    "hidden files": (lambda r: (r / "train" / "blue" / "._000.png").write_bytes(b"x"), True),
    "image outside of classes": (lambda r: (r / "train" / "x.png").write_bytes(b"x"), True),
    "megabytes of text": (lambda r: first(r).write_bytes(with_text(70)), True),
    "link to an image": (lambda r: link(first(r), shutil.copy(first(r), r.parent)), True),
    "class name in two forms": (two_forms, True),
    "tiff": (lambda r: save_as(first(r), "tif"), True),
    "wrong suffix": (lambda r: first(r).rename(first(r).with_suffix(".jpg")), True),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_damaged_folder(case, folder):
    damage, named = FOLDERS[case]
    damage(folder)
    found = outcome(DataConfig(source=f"folder:{folder}"))
    if named is True:
        assert isinstance(found, Dataset), found
        assert numbers(found.train) == {number: int(number >= 6) for number in range(12)}
        assert numbers(found.test) == {100 + number: int(number >= 3) for number in range(6)}
    else:
        holds(found, named)


def test_a_file_that_comes_with_an_old_time_is_seen(folder):
    """Nothing is remembered from one run to the next, so no folder's time can mislead."""
    config = DataConfig(source=f"folder:{folder}")
    blue = folder / "train" / "blue"
    before = blue.stat()
    assert data.load(config).train.size == 12
    (blue / "new.png").write_bytes(picture(50))
    os.utime(blue, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert data.load(config).train.size == 13
