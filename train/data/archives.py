"""Data sets read from their unpacked official archives: FGVC-Aircraft and Stanford Cars.

FGVC-Aircraft (``fgvc-aircraft-2013b``), by variant:

    data/variants.txt                          the 100 variants, one a line
    data/images_variant_{train,val,test}.txt   "1025794 707-320": image, then variant, which may
                                               have spaces and slashes ("Challenger 600", "F/A-18")
    data/images/1025794.jpg

The lowest 20 rows of each photograph are a banner with its owner, which the authors ask to remove.
It is cut off here, before any resizing; torchvision's loader leaves it in.

Stanford Cars, which TFDS can no longer download:

    cars_train/00001.jpg, cars_test/00001.jpg
    devkit/cars_meta.mat, devkit/cars_train_annos.mat
    cars_test_annos_withlabels.mat              here or in devkit; the devkit's own has no classes

Whole photographs are used, not the boxes.

References: S. Maji et al., Fine-Grained Visual Classification of Aircraft, arXiv:1306.5151, 2013;
J. Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from train.config import ConfigError, DataConfig
from train.data import decode, splits
from train.data.folder import Files, take
from train.errors import DataError

_BANNER = 20
_SPLITS = ("train", "val", "test")
_AIRCRAFT_REMEDY = (
    "Unpack the official archive there: fgvc-aircraft-2013b.tar.gz (2.75 GB), from the page of the "
    "data set at Oxford's Visual Geometry Group, holds data/variants.txt, "
    "data/images_variant_{train,val,test}.txt and data/images."
)


class Aircraft(NamedTuple):
    """Records that are decoded, and their banner cut off, when they are read."""

    files: Files
    mode: decode.Mode

    @property
    def size(self) -> int:
        """The number of images."""
        return self.files.size

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the pixels above the banner, and the label."""
        data, label = self.files.read(index)
        image = decode.decode(data, self.mode)[:-_BANNER]
        if not image.size:
            raise decode.UnreadableImage(f"it has no more than the {_BANNER} rows of the banner")
        return image, label

    def name_of(self, index: int) -> str:
        """Returns the path."""
        return self.files.name_of(index)

    def paths(self) -> list[Path]:
        """Returns the files, in the order of the images."""
        return self.files.paths()


def load_aircraft(root: Path, config: DataConfig) -> tuple[Aircraft, Aircraft, tuple[str, ...]]:
    """Returns the training records, the test records and the variants.

    Raises:
      ConfigError: the archive is not there.
      DataError: a list cannot be read, or does not fit the others.
    """
    folder = next((p for p in (root / "data", root) if (p / "variants.txt").is_file()), None)
    if folder is None:
        raise ConfigError(
            f"--data.source is 'aircraft:{root}', and there is no {root / 'data' / 'variants.txt'}."
            f" {_AIRCRAFT_REMEDY}"
        )
    classes = tuple(line.strip() for line in _lines(folder / "variants.txt"))
    available = {split: _aircraft_images(folder, split, classes) for split in _SPLITS}
    mode = decode.mode_of(len(config.mean))
    train, test = (Aircraft(files, mode) for files in _chosen(available, config))
    return train, test, classes


def _chosen(available: dict[str, Files], config: DataConfig) -> tuple[Files, Files]:
    """Returns the images of the training and the test split of a config."""
    sizes = {split: files.size for split, files in available.items()}
    test = config.test_split or "test"
    return (
        take(available, splits.ranges(config.train_split, sizes, "--data.train_split")),
        take(available, splits.ranges(test, sizes, "--data.test_split")),
    )


def _aircraft_images(folder: Path, split: str, classes: tuple[str, ...]) -> Files:
    path = folder / f"images_variant_{split}.txt"
    numbers = {name: number for number, name in enumerate(classes)}
    names, labels = [], []
    for line in _lines(path):
        image, _, variant = line.strip().partition(" ")
        if variant.strip() not in numbers:
            raise DataError(f"{path}: {variant!r} of image {image} is not in variants.txt.")
        names.append(f"{image}.jpg".encode())
        labels.append(numbers[variant.strip()])
    folder_ids = np.zeros(len(names), np.int32)
    return Files((folder / "images",), folder_ids, np.array(names), np.array(labels, np.int32))


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. {_AIRCRAFT_REMEDY}") from error


_CARS_REMEDY = (
    "Put the unpacked archives there: cars_train.tgz, cars_test.tgz, car_devkit.tgz and "
    "cars_test_annos_withlabels.mat. Their original address at Stanford is gone; mirrors keep the "
    "files under these names."
)


def load_cars(root: Path, config: DataConfig) -> tuple[Files, Files, tuple[str, ...]]:
    """Returns the training records, the test records and the names of the cars.

    Raises:
      ConfigError: a part of the data set is not there.
      DataError: a list cannot be read.
    """
    if not root.is_dir():
        raise ConfigError(
            f"--data.source is 'cars:{root}', and there is no such folder. {_CARS_REMEDY}"
        )
    kit = root / "devkit"
    test_list = next(
        (p for p in (root, kit) if (p / "cars_test_annos_withlabels.mat").is_file()), root
    )
    classes = tuple(str(n) for n in np.atleast_1d(_read(kit / "cars_meta.mat")["class_names"]))
    folders = (root / "cars_train", root / "cars_test")
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}. {_CARS_REMEDY}")
    lists = (kit / "cars_train_annos.mat", test_list / "cars_test_annos_withlabels.mat")
    available = {
        split: _cars_images(path, folders, index, len(classes))
        for index, (split, path) in enumerate(zip(("train", "test"), lists, strict=True))
    }
    return *_chosen(available, config), classes


def _cars_images(path: Path, folders: tuple[Path, ...], index: int, num_classes: int) -> Files:
    table = np.atleast_1d(_read(path)["annotations"])
    if not {"fname", "class"} <= set(table.dtype.names or ()):
        raise DataError(
            f"{path} names no classes, only {', '.join(table.dtype.names or ())}. {_CARS_REMEDY}"
        )
    labels = table["class"].astype(np.int32) - 1  # MATLAB counts from one.
    if not np.all((labels >= 0) & (labels < num_classes)):
        raise DataError(f"{path} has classes outside 1 .. {num_classes}. {_CARS_REMEDY}")
    names = np.array([str(name).encode() for name in table["fname"]])
    return Files(folders, np.full(len(names), index, np.int32), names, labels)


def _read(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        return loadmat(path, squeeze_me=True)
    except Exception as error:  # SciPy raises many kinds of errors on broken bytes.
        raise DataError(f"{path} cannot be read: {error}. {_CARS_REMEDY}") from error
