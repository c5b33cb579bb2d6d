"""Aircraft and Cars, read from miniatures in the layout of their official archives."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from train import data
from train.config import ConfigError, DataConfig
from train.errors import DataError

VARIANTS = ("707-320", "Challenger 600", "F/A-18")


def load(source, **changes):
    config = DataConfig(source=source, image_size=16, resize=16)
    return data.load(dataclasses.replace(config, **changes))


def image(path, colour, size=(40, 36)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, quality=95)


@pytest.fixture
def aircraft(tmp_path):
    """Six images a split; each is grey, by its number, over a white banner of 20 rows."""
    folder = tmp_path / "fgvc-aircraft-2013b" / "data"
    folder.mkdir(parents=True)
    (folder / "variants.txt").write_text("\n".join(VARIANTS) + "\n")
    for offset, split in enumerate(("train", "val", "test")):
        lines = []
        for number in range(6):
            name = f"{1000 * offset + number:07d}"
            photograph = Image.new("RGB", (60, 52), (255, 255, 255))
            photograph.paste((10 * number, 10 * number, 10 * number), (0, 0, 60, 32))
            (folder / "images").mkdir(exist_ok=True)
            photograph.save(folder / "images" / f"{name}.jpg", quality=100)
            lines.append(f"{name} {VARIANTS[number % 3]}")
        (folder / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder.parent


def test_aircraft_has_its_splits_and_variants(aircraft):
    """Names with spaces and slashes; labels count variants.txt, whatever the order of the lists."""
    dataset = load(f"aircraft:{aircraft}", test_split="val")
    assert dataset.classes == VARIANTS
    assert (dataset.train.size, dataset.test.size) == (6, 6)
    assert [dataset.test.records.read(i)[1] for i in range(6)] == [0, 1, 2, 0, 1, 2]
    assert dataset.test.records.name_of(4).endswith("images/0001004.jpg")
    default = load(f"aircraft:{aircraft}", train_split="train+val")
    assert default.train.size == 12
    assert default.test.records.name_of(0).endswith("0002000.jpg")


def test_the_banner_is_cut_off(aircraft):
    """Not one white pixel is left; 52 rows become 32. JPEG's blocks of 8 rows end at row 32."""
    records = load(f"aircraft:{aircraft}").train.records
    pixels, _ = records.read(3)
    assert pixels.shape == (32, 60, 3)
    assert pixels.max() <= 32
    grey = load(f"aircraft:{aircraft}", mean=(1.0,), std=(1.0,)).train.records.read(3)[0]
    assert grey.shape == (32, 60, 1)


def test_aircraft_says_what_is_missing(aircraft, tmp_path):
    with pytest.raises(ConfigError, match=r"no .*variants.txt.* fgvc-aircraft-2013b.tar.gz"):
        load(f"aircraft:{tmp_path / 'nowhere'}")
    lists = aircraft / "data" / "images_variant_val.txt"
    lists.write_text("0001000 Concorde\n")
    with pytest.raises(DataError, match=r"'Concorde' of image 0001000 is not in variants.txt"):
        load(f"aircraft:{aircraft}")
    lists.unlink()
    with pytest.raises(DataError, match=r"images_variant_val.txt cannot be read"):
        load(f"aircraft:{aircraft}")


CARS = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012")


@pytest.fixture
def cars(tmp_path):
    root = tmp_path / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    names = np.array(CARS, object)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    kinds = [("bbox_x1", "O"), ("bbox_y1", "O"), ("class", "O"), ("fname", "O")]
    for split, classes in (("train", [2, 1, 2]), ("test", [1, 1])):
        rows = [(1, 1, c, f"{i + 1:05d}.jpg") for i, c in enumerate(classes)]
        for number, (_, _, c, name) in enumerate(rows):
            image(root / f"cars_{split}" / name, (100 * c, 10 * number, 0))
        table = np.array(rows, dtype=kinds)
        place = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
        savemat(root / place[split], {"annotations": table})
        if split == "test":
            unlabelled = np.array([(1, 1, row[3]) for row in rows], dtype=kinds[:2] + kinds[3:])
            savemat(root / "devkit" / "cars_test_annos.mat", {"annotations": unlabelled})
    return root


def test_cars_has_its_splits_and_classes(cars):
    """MATLAB's classes count from one; the images of the two splits have the same names."""
    dataset = load(f"cars:{cars}")
    assert dataset.classes == CARS
    assert [dataset.train.records.read(i)[1] for i in range(3)] == [1, 0, 1]
    assert [dataset.test.records.read(i)[1] for i in range(2)] == [0, 0]
    assert dataset.train.records.name_of(0).endswith("cars_train/00001.jpg")
    assert dataset.test.records.name_of(0).endswith("cars_test/00001.jpg")


def test_the_labels_of_the_test_split_may_lie_in_the_devkit(cars):
    name = "cars_test_annos_withlabels.mat"
    (cars / name).rename(cars / "devkit" / name)
    assert load(f"cars:{cars}").test.size == 2


def test_cars_says_what_is_missing(cars, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no such folder. Put the unpacked archives"):
        load(f"cars:{tmp_path / 'nowhere'}")
    labelled = cars / "cars_test_annos_withlabels.mat"
    labelled.write_bytes((cars / "devkit" / "cars_test_annos.mat").read_bytes())
    with pytest.raises(DataError, match="names no classes, only bbox_x1, bbox_y1, fname"):
        load(f"cars:{cars}")
    labelled.write_bytes(b"torn")
    with pytest.raises(DataError, match=r"withlabels.mat cannot be read"):
        load(f"cars:{cars}")
    labelled.unlink()
    with pytest.raises(DataError, match=r"withlabels.mat cannot be read"):
        load(f"cars:{cars}")


def test_digits_become_rgb_images_where_the_network_sees_three_channels():
    """Ink of 16 is white, 255, in all channels; the split is the same one."""
    grey = data.load(DataConfig(source="digits", mean=(1.0,), std=(1.0,)))
    rgb = data.load(DataConfig(source="digits"))
    assert rgb.image_shape == (8, 8, 3)
    expected = np.rint(grey.test.records.images * (255 / 16)).astype(np.uint8)
    for channel in range(3):
        assert np.array_equal(rgb.test.records.images[..., channel], expected[..., 0])
    assert rgb.test.records.images.max() == 255
    assert np.array_equal(rgb.test.records.labels, grey.test.records.labels)
