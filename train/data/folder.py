"""Folders of images: ``<root>/<split>/<class>/*``, or flat, ``<root>/<class>/*``.

The first is how ImageNet lies on disks: ``train/n01440764/*.JPEG`` and ``val/n01440764/*.JPEG``.
A config may call that ``val`` by the name it has in TFDS, ``validation``.
A flat folder is one split, called ``train``; unless the config says otherwise, the first 80 % of it
are trained on and the rest is measured.

Where part of a split is wanted, its images are first put in an order that spreads each class
evenly, so that a slice has the proportions of the whole. Within a class the order is that of a hash
of the names: it does not depend on the machine, and a new file hardly changes it.

Every run lists its folders anew: nothing is remembered, so no answer can be out of date. The 1.3
million files of ImageNet take seconds on a local disk; no file is looked at, links aside.
"""

import contextlib
import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import features

from train.config import ConfigError, DataConfig
from train.data import splits
from train.errors import DataError

# Those of torchvision's ImageFolder, and two more that the decoder knows.
SUFFIXES: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".pgm",
    ".ppm",
    ".tif",
    ".tiff",
)
if features.check("avif"):
    SUFFIXES += (".avif",)

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")

_log = logging.getLogger(__name__)

_FLAT_SPLIT, _FLAT_TRAIN, _FLAT_TEST = "train", "train[:80%]", "train[80%:]"
_SALT = b"vci_jax"
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
_LAYOUT = (
    "It must hold <split>/<class>/<image> with splits such as train and val, or <class>/<image>; "
    f"images end in {', '.join(SUFFIXES)}."
)


class Files(NamedTuple):
    """Records that are read from their files when they are needed.

    A class folder and an index into ``folders`` per image, rather than a path per image, since
    each worker process has its own copy.
    """

    folders: tuple[Path, ...]
    places: np.ndarray
    names: np.ndarray
    labels: np.ndarray

    def read(self, index: int) -> tuple[bytes, int]:
        """Returns the bytes of a file, and its label.

        Raises:
          OSError: the file cannot be read.
        """
        return self._path(index).read_bytes(), int(self.labels[index])

    def name_of(self, index: int) -> str:
        """Returns the path."""
        return str(self._path(index))

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self.labels)

    def paths(self) -> list[Path]:
        """Returns the files, in the order of the images."""
        return [self._path(index) for index in range(self.size)]

    def _path(self, index: int) -> Path:
        return self.folders[self.places[index]] / os.fsdecode(self.names[index])

    def __repr__(self) -> str:
        """Returns a description that does not print the data."""
        return f"Files({self.size} images)"


def load(root: Path, config: DataConfig) -> tuple[Files, Files, tuple[str, ...]]:
    """Returns the images to train on, those to measure, and the names of the classes.

    The classes are those of the training split, in alphabetical order.

    Raises:
      ConfigError: there is no such folder, or its classes and images are not where they should be.
    """
    available, train, test = _layout(root, config)
    wanted = [name for name in available if name in _words(train) | _words(test)]
    found = {name: _images_of(available[name]) for name in wanted}
    sizes = {name: len(found[name].names) if name in found else 0 for name in available}
    train_parts = splits.ranges(train, sizes, "--data.train_split")
    test_parts = splits.ranges(test, sizes, "--data.test_split")
    classes = sorted({same_form(f.name) for name, _ in train_parts for f in found[name].folders})
    if len(classes) < 2:
        raise ConfigError(
            f"{root} has only one class to train on, {classes[0]!r}, and there is nothing to tell "
            f"apart. {_LAYOUT}"
        )
    chosen = _join(found, train_parts, classes), _join(found, test_parts, classes)
    trained, measured = (
        {same_form(f.folders[place].name) for place in set(f.places)} for f in chosen
    )
    if strangers := measured - trained:
        raise ConfigError(
            f"there are images to measure, but none to train on, of {_listed(strangers)} in {root} "
            f"(to measure: {test}; to train on: {train}). Add some, or choose other splits."
        )
    return *chosen, tuple(classes)


def take(found: dict[str, Files], parts: list[tuple[str, range]]) -> Files:
    """Returns the images of slices of splits that share one tuple of folders."""
    chosen = [(found[split], np.asarray(rows)) for split, rows in parts]
    return Files(
        next(iter(found.values())).folders,
        np.concatenate([files.places[rows] for files, rows in chosen]),
        np.concatenate([files.names[rows] for files, rows in chosen]),
        np.concatenate([files.labels[rows] for files, rows in chosen]),
    )


def _layout(root: Path, config: DataConfig) -> tuple[dict[str, Path], str, str]:
    """Returns the folder of each split, and the slices to train on and to measure."""
    if not root.is_dir():
        problem = "there is no such folder"
        if root.exists():
            problem = "that is a file, not a folder; unpack an archive first"
        raise ConfigError(f"--data.source is 'folder:{root}', and {problem}. {_LAYOUT}")
    folders = _folders(root)
    train, test = (_as_named(s, set(folders)) for s in (config.train_split, config.test_split))
    if any(_folders(folders[name]) for name in _words(train) & folders.keys()):
        return folders, train, test or splits.default_test(list(folders), f"folder:{root}")
    _refuse_layout(root, folders, train)
    if not test and train == _FLAT_SPLIT:
        train, test = _FLAT_TRAIN, _FLAT_TEST
    available = {_FLAT_SPLIT: root}
    return available, train, test or splits.default_test(list(available), f"folder:{root}")


def _as_named(spec: str, folders: set[str]) -> str:
    """Returns the slice with TFDS's ``validation`` called ``val`` where only that folder exists."""
    if "val" not in folders or "validation" in folders:
        return spec
    return re.sub(r"\bvalidation\b", "val", spec)


def _refuse_layout(root: Path, folders: dict[str, Path], train: str) -> None:
    """Raises ConfigError if a folder without folders of splits is no folder of classes either."""
    heaps = [name for name in folders if name in _SPLIT_NAMES and _has_images(folders[name])]
    if heaps:
        raise ConfigError(
            f"the images of {root / heaps[0]} lie in one heap; sort them into a folder for each "
            f"class. {_LAYOUT}"
        )
    if any(map(_has_images, folders.values())):
        return
    remedy = ""
    if _has_images(root):
        remedy = f" Its own images have no class; perhaps folder:{root.parent} is meant."
    elif archives := [p.name for p in _readable(root) if p.suffix.lower() in ARCHIVES]:
        remedy = f" Unpack {', '.join(sorted(archives))} first."
    else:
        for name, folder in folders.items():
            if any(map(_has_images, _folders(folder).values())) or _SPLIT_NAMES & set(
                _folders(folder)
            ):
                remedy = f" They lie one level deeper; give folder:{root / name}."
                break
    raise ConfigError(
        f"{root} holds neither images of classes nor the split {train!r} of them, only the "
        f"folders {', '.join(folders) or '(none)'}.{remedy} {_LAYOUT}"
    )


def _folders(folder: Path) -> dict[str, Path]:
    return {p.name: p for p in _readable(folder) if p.is_dir() and p.name[0] != "."}


def _has_images(folder: Path) -> bool:
    return any(is_image(path.name) for path in _readable(folder))


def _readable(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}.") from error


def _words(spec: str) -> set[str]:
    return set(re.findall(r"[\w-]+", spec))


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:5]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(map(repr, shown)) + more


def _images_of(folder: Path) -> Files:
    """Returns all images of a folder of class folders; the place is the label."""
    listing = list_images(folder)
    if not listing.files:
        raise ConfigError(
            f"{folder} holds no class folders. {_LAYOUT} Images without labels cannot be measured: "
            "choose another split with --data.test_split, or hold one out (--data.train_split "
            "train[:90%] --data.test_split train[90%:]). The 50,000 validation images of ImageNet "
            "come in one heap: sort them into val/<wnid>/, as valprep.sh does."
        )
    empty = {name for name, files in listing.files.items() if not files}
    if empty:
        deeper = [p for name in sorted(empty) for p in _folders(folder / name).values()]
        where = next(
            (f" (those in {path} lie too deep)" for path in deeper if _has_images(path)), ""
        )
        raise ConfigError(
            f"the class folder(s) {_listed(empty)} in {folder} hold no images{where}. Fill or "
            f"remove them; images end in {', '.join(SUFFIXES)}."
        )
    if listing.others:
        _log.warning(
            "%d files in %s are left out: no images by their names, or in no class folder",
            listing.others,
            folder,
        )
    names = np.array([os.fsencode(name) for files in listing.files.values() for name in files])
    places = np.repeat(np.arange(len(listing.files)), [len(f) for f in listing.files.values()])
    folders = tuple(folder / name for name in listing.files)
    return Files(folders, places.astype(np.int32), names, places.astype(np.int32))


def _join(found: dict[str, Files], parts: list[tuple[str, range]], classes: list[str]) -> Files:
    """Returns the chosen images of the chosen splits as one, with labels that count ``classes``."""
    numbers = {name: number for number, name in enumerate(classes)}
    folders: list[Path] = []
    places, names, labels = [], [], []
    for split, images in parts:
        files = found[split]
        rows = np.arange(files.size) if len(images) == files.size else _spread(files)[images]
        own = np.array(
            [numbers.get(same_form(folder.name), -1) for folder in files.folders], np.int32
        )
        places.append(files.places[rows] + len(folders))
        names.append(files.names[rows])
        labels.append(own[files.places[rows]])
        folders += files.folders
    return Files(tuple(folders), *(np.concatenate(column) for column in (places, names, labels)))


def _spread(files: Files) -> np.ndarray:
    """Returns the images in an order of which every stretch has the classes in proportion.

    The j-th of the n images of a class stands at the fraction (j + 1/2) / n of the way.
    """
    hashes = [
        hashlib.blake2b(
            b"/".join((_SALT, os.fsencode(files.folders[place].name), name)), digest_size=8
        ).digest()
        for place, name in zip(files.places, files.names, strict=True)
    ]
    by_class = np.lexsort((np.array(hashes), files.places))
    counts = np.bincount(files.places)
    starts = np.cumsum(counts) - counts
    ordered = files.places[by_class]
    fraction = (np.arange(files.size) - starts[ordered] + 0.5) / counts[ordered]
    return by_class[np.lexsort((ordered, fraction))]


class Listing(NamedTuple):
    """The image files of each class folder, and how many other files were left out."""

    files: dict[str, list[str]]
    others: int


def list_images(folder: Path) -> Listing:
    """Returns the classes of a folder and their images, in alphabetical order.

    Hidden files and folders are passed over; files with another suffix than those of images are
    counted, and so are images outside of the class folders. A link that leads nowhere is listed as
    an image, so that it counts as one that cannot be read.

    Raises:
      DataError: a folder cannot be read.
      ConfigError: two have one name in different forms of Unicode.
    """
    classes, others = [], 0
    for entry in _entries(folder):
        lost = _leads_nowhere(entry)
        if lost and not is_image(entry.name):
            raise DataError(f"{entry.path} is a link that leads nowhere; mend or remove it.")
        if not lost and entry.is_dir():
            classes.append(entry.name)
        else:
            others += is_image(entry.name)
    _refuse_twins(folder, classes)
    files = {}
    for name in sorted(classes):
        seen = [e for e in _entries(folder / name) if _leads_nowhere(e) or e.is_file()]
        files[name] = sorted(entry.name for entry in seen if is_image(entry.name))
        others += len(seen) - len(files[name])
    return Listing(files, others)


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(SUFFIXES)


def same_form(name: str) -> str:
    """Returns a name in the one form of Unicode (NFC) in which names are compared."""
    return unicodedata.normalize("NFC", name)


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}.") from error


def _leads_nowhere(entry: os.DirEntry) -> bool:
    if entry.is_symlink():
        with contextlib.suppress(OSError):
            entry.stat()
            return False
        return True
    return False


def _refuse_twins(folder: Path, classes: list[str]) -> None:
    forms: dict[str, str] = {}
    for name in classes:
        twin = forms.setdefault(same_form(name), name)
        if twin != name:
            raise ConfigError(
                f"{folder} holds the class {name!r} twice, written in two forms of Unicode (NFC "
                "and NFD); put the images of both into one folder."
            )
