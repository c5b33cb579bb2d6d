"""Sources: the digits, made-up images, folders and their listings, prepared TFDS data sets."""

import io
import json
import os
import pathlib
import pickle
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from made_images import COLOURS, make_tfds, numbers, picture, write_images
from PIL import Image
from shared_data import SHARED

import configs
from train import data
from train.config import ConfigError, DataConfig
from train.data import prepared, splits

ROOT = pathlib.Path(__file__).parents[2]


def load(source, **changes):
    return data.load(DataConfig(source=str(source), **changes))


# --- in memory --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return data.load(configs.get("digits").data)


def test_digits_split_is_the_stated_one(digits):
    """1,437 and 360 images, disjoint, together all 1,797, stratified to within one image."""
    train, test = digits.train.records, digits.test.records
    assert (digits.train.size, digits.test.size) == (1437, 360)
    assert digits.image_shape == (8, 8, 1)
    assert train.images.dtype == np.uint8
    both = np.concatenate([train.images, test.images])
    assert len(np.unique(both.reshape(1797, -1), axis=0)) == 1797
    counts = [np.bincount(records.labels) for records in (train, test)]
    share = (counts[0] + counts[1]) * 360 / 1797
    assert np.all(np.abs(counts[1] - share) < 1)
    assert digits.classes == tuple("0123456789")


def test_digits_config_normalises(digits):
    """The mean and deviation in the config are those of the training pixels."""
    config, images = configs.get("digits").data, digits.train.records.images
    assert config.mean == pytest.approx([images.mean()], abs=0.01)
    assert config.std == pytest.approx([images.std()], abs=0.01)


def test_unknown_source_lists_the_known_ones():
    """A typing error costs a message."""
    with pytest.raises(ConfigError, match=r"'digitz'; known sources: digits, .*folder:PATH"):
        load("digitz")


def test_fixed_splits_take_no_slices():
    with pytest.raises(ConfigError, match="splits are fixed"):
        load("digits", train_split="train[:50%]", mean=(1.0,), std=(1.0,))


def test_synthetic_images_are_the_same_each_time_and_can_be_learnt():
    """The nearest class mean of the training images names the class of every test image."""
    dataset = load("synthetic:300x12x7")
    assert (dataset.train.size, dataset.test.size, dataset.num_classes) == (300, 75, 7)
    assert dataset.image_shape == (12, 12, 3)
    train, test = dataset.train.records, dataset.test.records
    assert np.array_equal(train.images, load("synthetic:300x12x7").train.records.images)
    counts = np.bincount(train.labels)
    assert counts.max() - counts.min() <= 1
    flat = [
        records.images.reshape(records.size, -1).astype(np.float64) for records in (train, test)
    ]
    means = np.stack([flat[0][train.labels == k].mean(axis=0) for k in range(7)])
    nearest = ((flat[1][:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    assert np.array_equal(nearest, test.labels)


@pytest.mark.parametrize("size", ["x", "3x8x2", "100x0x2", "100x8", "9999999x224x10"])
def test_a_synthetic_size_that_is_none_is_refused(size):
    with pytest.raises(ConfigError, match=f"synthetic:{size}"):
        load(f"synthetic:{size}")


# --- folders ----------------------------------------------------------------------------------


def test_a_folder_with_splits(tmp_path):
    """Labels count the classes in alphabetical order, and test images may be of fewer of them."""
    write_images(tmp_path / "train", {"red": 3, "blue": 2, "green": 4})
    write_images(tmp_path / "val", {"green": 2, "red": 1}, start=100)
    dataset = load(f"folder:{tmp_path}")
    assert tuple(dataset.classes) == COLOURS
    assert numbers(dataset.train) == {0: 2, 1: 2, 2: 2, 3: 0, 4: 0, 5: 1, 6: 1, 7: 1, 8: 1}
    assert numbers(dataset.test) == {100: 1, 101: 1, 102: 2}
    assert dataset.image_shape == (6, 6, 3)
    assert dataset.train.records.name_of(0) == str(tmp_path / "train" / "blue" / "003.png")


@pytest.mark.parametrize(
    "kind", ["jpg", "JPEG", "Png", "webp", "JPG", "tif", "TIFF", "ppm", "pgm", "BMP", "gif", "avif"]
)
def test_suffixes_of_any_case(tmp_path, kind):
    for split in ("train", "test"):
        write_images(tmp_path / split, {"a": 0, "b": 1})
        name = tmp_path / split / "a" / f"image.{kind}"
        file_type = {"jpg": "JPEG", "tif": "TIFF", "pgm": "PPM"}.get(kind.lower(), kind.upper())
        name.write_bytes(picture(7, file_type))
    assert load(f"folder:{tmp_path}").train.size == 2


def test_the_first_usual_name_is_the_test_split(tmp_path):
    """test before validation before val; a given name wins."""
    for start, split in enumerate(("train", "val", "validation", "test")):
        write_images(tmp_path / split, {"a": 1, "b": 1}, start=2 * start)
    assert numbers(load(f"folder:{tmp_path}").test) == {6: 0, 7: 1}
    assert numbers(load(f"folder:{tmp_path}", test_split="val").test) == {2: 0, 3: 1}
    both = load(f"folder:{tmp_path}", train_split="train+validation")
    assert numbers(both.train) == {0: 0, 1: 1, 4: 0, 5: 1}


def test_validation_may_lie_in_a_folder_called_val(tmp_path):
    """The config that reads ImageNet from TFDS reads it from its folders too."""
    write_images(tmp_path / "train", {"a": 1, "b": 0})
    write_images(tmp_path / "val", {"a": 2}, start=1)
    (tmp_path / "train" / "b" / "9.png").write_bytes(picture(9))
    dataset = load(f"folder:{tmp_path}", test_split="validation[1:]")
    assert numbers(dataset.test) == {2: 0}


def test_a_flat_folder_is_divided_evenly(tmp_path):
    """80 % of each class to train on, the rest to measure: disjoint, complete, always the same."""
    write_images(tmp_path, {"red": 10, "blue": 5, "green": 20})
    first, again = (load(f"folder:{tmp_path}") for _ in range(2))
    train, test = numbers(first.train), numbers(first.test)
    assert not train.keys() & test.keys()
    assert len(train | test) == 35
    assert np.bincount(list(train.values())).tolist() == [4, 16, 8]
    assert (train, test) == (numbers(again.train), numbers(again.test))
    assert list(train) != sorted(train), "a hash of the names decides, not their order"


def test_slices_of_a_flat_folder_have_the_proportions_of_the_whole(tmp_path):
    """Ten slices of 10 % hold each image once, and of each class one tenth to within one image."""
    write_images(tmp_path, {"blue": 40, "green": 23, "red": 60})
    parts = []
    for low in range(0, 100, 10):
        spec = f"train[{low}%:{low + 10}%]"
        dataset = load(f"folder:{tmp_path}", train_split="train", test_split=spec)
        parts.append(numbers(dataset.test))
        counts = np.bincount(list(parts[-1].values()), minlength=3)
        assert np.all(np.abs(counts - np.array([4, 2.3, 6])) < 1 + 0.3)
    assert sorted(number for part in parts for number in part) == list(range(123))


def test_one_more_file_moves_few_others(tmp_path):
    """The order is that of a hash of the names, so a division survives a small change."""
    write_images(tmp_path, {"a": 50, "b": 50})
    before = numbers(load(f"folder:{tmp_path}").train).keys()
    (tmp_path / "a" / "new.png").write_bytes(picture(200))
    after = numbers(load(f"folder:{tmp_path}").train).keys()
    assert len(before ^ after) <= 3


@pytest.mark.parametrize(
    "spec",
    [
        "train", "all", "train[:90%]", "train[-10%:]", "train[33.3%:66.6%]", "train[-5:]",
        "train[5:50%]", "train[3:40] + test[:5]", "a-b[:-1]",
    ],
)  # fmt: skip
def test_a_slice_means_what_it_means_in_tfds(spec):
    """Percentages are rounded alike, and negative bounds count from the end."""
    tfds = pytest.importorskip("tensorflow_datasets")
    sizes = {"train": 55, "test": 20, "a-b": 7}
    infos = {k: SimpleNamespace(num_examples=n, shard_lengths=[n]) for k, n in sizes.items()}
    parts = tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos)
    expected = [(p.splitname, range(sizes[p.splitname])[p.from_ : p.to]) for p in parts]
    assert splits.ranges(spec, sizes, "--data.train_split") == expected


def test_only_prepared_data_need_tfds(tmp_path, monkeypatch):
    """A flat folder is divided without it; a prepared data set says what to install."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    write_images(tmp_path, {"a": 5, "b": 5})
    assert load(f"folder:{tmp_path}").train.size == 8
    with pytest.raises(ConfigError, match=r"pip install 'vci_jax\[tfds\]'"):
        load("tfds:cifar10")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("train[:50%]", "", "has no split called test.*--data.test_split train"),
        ("train[:0%]", "train", r"train\[:0%\]', which holds no image"),
        ("train[:1/2]", "train", "--data.train_split is"),
        ("train", "dev", "--data.test_split is 'dev': Unknown split"),
        ("trian", "", "has no split called|Unknown split"),
    ],
)
def test_slices_that_are_none_are_refused(tmp_path, train, test, message):
    write_images(tmp_path, {"a": 4, "b": 4})
    with pytest.raises(ConfigError, match=message):
        load(f"folder:{tmp_path}", train_split=train, test_split=test)


def test_a_missing_folder_says_what_it_must_hold(tmp_path):
    with pytest.raises(ConfigError, match=r"no such folder.*<split>/<class>/<image>"):
        load(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match=r"holds neither .*\(none\)"):
        load(f"folder:{tmp_path}")


def test_images_in_one_heap_are_explained(tmp_path):
    """The validation images of ImageNet come without class folders."""
    write_images(tmp_path / "train", {"a": 2})
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(picture(1, "JPEG"))
    with pytest.raises(ConfigError, match=r"val holds no class folders.*valprep"):
        load(f"folder:{tmp_path}")


def test_files_that_are_no_images_are_left_out_and_counted(tmp_path, caplog):
    """By name: a text and a film are reported, hidden files are not."""
    write_images(tmp_path, {"a": 5, "b": 5})
    for name in ("notes.txt", "moving.mp4", ".DS_Store"):
        (tmp_path / "a" / name).write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    dataset = load(f"folder:{tmp_path}", test_split="train")
    assert dataset.train.size == 10
    assert f"2 files in {tmp_path} are left out" in caplog.text


def test_names_need_not_be_ascii(tmp_path):
    write_images(tmp_path, {"größe": 2, "b": 2})
    (tmp_path / "b" / "名前.png").write_bytes(picture(9))
    os.rename(tmp_path / "b" / "002.png", os.fsencode(tmp_path) + b"/b/\xff.png")
    dataset = load(f"folder:{tmp_path}", test_split="train")
    assert sorted(numbers(dataset.train)) == [0, 1, 2, 3, 9]


def test_files_can_be_sent_to_a_worker(tmp_path):
    write_images(tmp_path, {"a": 3, "b": 3})
    records = load(f"folder:{tmp_path}", test_split="train").train.records
    assert pickle.loads(pickle.dumps(records)).read(4) == records.read(4)


@pytest.mark.skipif(not SHARED.exists(), reason="needs sign_digits, which is not in the project")
def test_photographs_of_hand_signs():
    """1,033 real photographs in a flat folder: 80 % and 20 % of each of the ten classes."""
    dataset = load(f"folder:{SHARED / 'sign_digits'}")
    assert tuple(dataset.classes) == tuple("0123456789")
    assert (dataset.train.size, dataset.test.size) == (826, 207)
    assert dataset.image_shape == (100, 100, 3)
    for split, low, high in ((dataset.train, 80, 84), (dataset.test, 19, 22)):
        counts = np.bincount(split.records.labels)
        assert low <= counts.min() <= counts.max() <= high
    batch = next(data.training_batches(dataset.train, DataConfig(batch_size=16), seed=0))
    assert batch["image"].shape == (16, 100, 100, 3)
    assert batch["image"].std() > 20


# --- TFDS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Two prepared data sets: of one size, in two versions, and of several sizes with extras."""
    where = tmp_path_factory.mktemp("tfds")
    make_tfds(where, "tiny", "1.0.0")
    make_tfds(where, "tiny", "1.10.0")
    make_tfds(where, "mixed", extras=True)
    return where


@pytest.fixture
def offline(monkeypatch):
    """Any attempt to reach the network fails the test."""

    def refuse(*arguments):
        raise AssertionError(f"tried to connect: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_prepared_data_set_of_one_size_is_decoded_into_memory(tfds_dir, offline):
    dataset = load("tfds:tiny", data_dir=str(tfds_dir))
    assert isinstance(dataset.train.records, data.arrays.Arrays)
    assert tuple(dataset.classes) == COLOURS
    assert numbers(dataset.train) == {number: number % 3 for number in range(40)}
    assert numbers(dataset.test) == {100 + number: number % 3 for number in range(10)}
    grey = load("tfds:tiny", data_dir=str(tfds_dir), mean=(1.0,), std=(1.0,))
    assert grey.image_shape == (6, 6, 1)


def test_a_prepared_data_set_of_several_sizes_gives_the_stored_bytes(tfds_dir):
    """Other images of a record are not decoded either, and a worker can open the files anew."""
    dataset = load("tfds:mixed", data_dir=str(tfds_dir), image_size=5)
    records = dataset.train.records
    assert isinstance(records, prepared.Prepared)
    assert numbers(dataset.train) == {number: number % 3 for number in range(40)}
    stored, label = records.read(7)
    assert isinstance(stored, bytes)
    assert Image.open(io.BytesIO(stored)).format == "PNG"
    assert pickle.loads(pickle.dumps(records)).read(7) == (stored, label)
    assert records.read_many([3, 7]) == [records.read(3), (stored, label)]
    assert records.name_of(7) == "mixed train[7]"


@pytest.mark.parametrize("name", ["tiny", "mixed"])
def test_slices_of_a_prepared_data_set(tfds_dir, name):
    """Disjoint and complete, in both ways of keeping the images."""
    dataset = load(
        f"tfds:{name}",
        data_dir=str(tfds_dir),
        image_size=5,
        train_split="train[:75%]",
        test_split="train[75%:]",
    )
    train, test = numbers(dataset.train), numbers(dataset.test)
    assert (len(train), len(test)) == (30, 10)
    assert train | test == {number: number % 3 for number in range(40)}


def test_versions(tfds_dir):
    """The latest by number unless one is named; 1.10 is later than 1.9 would be."""
    assert prepared._find("tiny", tfds_dir).name == "1.10.0"
    assert prepared._find("tiny:1.0.0", tfds_dir).name == "1.0.0"
    with pytest.raises(ConfigError, match=r"but version 1.0.0, 1.10.0"):
        load("tfds:tiny:2.0.0", data_dir=str(tfds_dir))


def test_a_configuration_must_be_chosen(tmp_path, tfds_dir):
    (tmp_path / "tiny").mkdir()
    for name in ("a", "b"):
        (tmp_path / "tiny" / name).symlink_to(tfds_dir / "tiny")
    with pytest.raises(ConfigError, match="tfds:tiny/a, tfds:tiny/b"):
        load("tfds:tiny", data_dir=str(tmp_path))
    assert load("tfds:tiny/b:1.0.0", data_dir=str(tmp_path)).train.size == 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet2012", "tfds build imagenet2012 --file_format=array_record --data_dir=.*manual"),
        ("cifar10:3.0.2", r"pip install tensorflow (?s:.)*tfds build cifar10:3.0.2 --file_format="),
        ("cifar1o", "Did you mean tfds:cifar10"),
    ],
)
def test_missing_data_is_one_message_and_no_download(tmp_path, offline, name, message):
    """The message has the command that prepares the data, and no connection is attempted."""
    with pytest.raises(ConfigError, match=message):
        load(f"tfds:{name}", data_dir=str(tmp_path))


def test_a_data_set_without_labels_is_refused(tfds_dir, tmp_path):
    """By its description, or by a label that is no class, as in some published test splits."""
    source = tfds_dir / "tiny" / "1.0.0"
    target = tmp_path / "tiny" / "1.0.0"
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).symlink_to(path)
    features = (source / "features.json").read_text()
    (target / "features.json").unlink()
    (target / "features.json").write_text(
        features.replace('"numClasses": "3"', '"numClasses": "2"')
    )
    (target / "label.labels.txt").unlink()
    (target / "label.labels.txt").write_text("blue\ngreen\n")
    with pytest.raises(ConfigError, match=r"has the label 2, which is none of the 2 classes"):
        load("tfds:tiny", data_dir=str(tmp_path))
    info = json.loads((source / "dataset_info.json").read_text())
    info["supervisedKeys"]["tuple"]["items"][1]["featureKey"] = "image"
    (target / "dataset_info.json").unlink()
    (target / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match="not for image classification"):
        load("tfds:tiny", data_dir=str(tmp_path))


def test_another_file_format_says_how_to_convert(tfds_dir, tmp_path):
    target = tmp_path / "tiny" / "1.0.0"
    target.mkdir(parents=True)
    for path in (tfds_dir / "tiny" / "1.0.0").iterdir():
        name = path.name.replace("array_record", "tfrecord")
        text = path.read_bytes()
        if name == "dataset_info.json":
            text = text.replace(b"array_record", b"tfrecord")
        (target / name).write_bytes(text)
    with pytest.raises(ConfigError, match=r"tfds convert_format --dataset_version_dir="):
        load("tfds:tiny", data_dir=str(tmp_path))


PROGRAM = """
import sys
from train import data
from train.config import DataConfig

if __name__ == "__main__":
    config = DataConfig(source="tfds:mixed", data_dir=sys.argv[1], image_size=5, batch_size=4)
    batches = data.training_batches(data.load(config).train, config, seed=0)
    assert next(batches)["image"].shape == (4, 5, 5, 3)
    assert "tensorflow" not in sys.modules
"""


def test_no_tensorflow_in_the_process(tfds_dir, tmp_path):
    """A TensorFlow that fails on import, first on the path, is never touched."""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, str(tmp_path / "program.py"), str(tfds_dir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs make_tfds.py, which is not in the project")
def test_cifar10_is_the_published_one(tmp_path):
    """50,000 and 10,000 images, balanced; mean and deviation of the channels as published."""
    maker = [sys.executable, str(SHARED / "make_tfds.py"), "--out", str(tmp_path)]
    subprocess.run([*maker, "--only", "cifar10"], check=True, capture_output=True, timeout=600)
    dataset = load("tfds:cifar10:3.0.2", data_dir=str(tmp_path))
    train, test = dataset.train.records, dataset.test.records
    assert train.images.shape == (50_000, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert dataset.classes[:3] == ("airplane", "automobile", "bird")
    channels = train.images.reshape(-1, 3) / 255
    np.testing.assert_allclose(channels.mean(axis=0), (0.4914, 0.4822, 0.4465), atol=1e-4)
    np.testing.assert_allclose(channels.std(axis=0), (0.2470, 0.2435, 0.2616), atol=1e-4)
