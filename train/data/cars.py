"""Stanford Cars as its archives unpack, since the address that TFDS downloads it from is gone.

    cars_train/00001.jpg, cars_test/00001.jpg
    devkit/cars_meta.mat, devkit/cars_train_annos.mat
    cars_test_annos_withlabels.mat              here or in devkit; the devkit's own test file has
                                                boxes and no classes

Whole photographs are used, not the boxes.

Reference: J. Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013.
"""

from pathlib import Path
from typing import Any

import numpy as np

from train.config import ConfigError, DataConfig
from train.data import splits
from train.data.folder import Files, take

_REMEDY = (
    "Put the unpacked archives there: cars_train.tgz, cars_test.tgz, car_devkit.tgz and "
    "cars_test_annos_withlabels.mat. Their original address at Stanford is gone; mirrors keep the "
    "files under these names."
)


def load(root: Path, config: DataConfig) -> tuple[Files, Files, tuple[str, ...]]:
    """Returns the images to train on, those to measure, and the names of the cars.

    Raises:
      ConfigError: a part of the data set is not there, or cannot be read.
    """
    if not root.is_dir():
        raise ConfigError(f"--data.source is 'cars:{root}', and there is no such folder. {_REMEDY}")
    kit = root / "devkit"
    test_list = next(
        (p for p in (root, kit) if (p / "cars_test_annos_withlabels.mat").is_file()), root
    )
    classes = tuple(str(n) for n in np.atleast_1d(_read(kit / "cars_meta.mat")["class_names"]))
    folders = (root / "cars_train", root / "cars_test")
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}. {_REMEDY}")
    found = {
        "train": _images(kit / "cars_train_annos.mat", folders, 0, len(classes)),
        "test": _images(test_list / "cars_test_annos_withlabels.mat", folders, 1, len(classes)),
    }
    sizes = {split: files.size for split, files in found.items()}
    test = config.test_split or "test"
    return (
        take(found, splits.ranges(config.train_split, sizes, "--data.train_split")),
        take(found, splits.ranges(test, sizes, "--data.test_split")),
        classes,
    )


def _images(path: Path, folders: tuple[Path, ...], place: int, num_classes: int) -> Files:
    table = np.atleast_1d(_read(path)["annotations"])
    if not {"fname", "class"} <= set(table.dtype.names or ()):
        raise ConfigError(
            f"{path} names no classes, only {', '.join(table.dtype.names or ())}. {_REMEDY}"
        )
    labels = table["class"].astype(np.int32) - 1  # MATLAB counts from one.
    if not np.all((labels >= 0) & (labels < num_classes)):
        raise ConfigError(f"{path} has classes outside 1 .. {num_classes}. {_REMEDY}")
    names = np.array([str(name).encode() for name in table["fname"]])
    return Files(folders, np.full(len(names), place, np.int32), names, labels)


def _read(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        return loadmat(path, squeeze_me=True)
    except Exception as error:  # SciPy's reader raises what it likes on broken bytes.
        raise ConfigError(f"{path} cannot be read: {error}. {_REMEDY}") from error
