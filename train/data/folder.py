"""Folders of images: ``<root>/<split>/<class>/*``, or flat, ``<root>/<class>/*``.

The first is the layout of ImageNet: ``train/n01440764/*.JPEG`` and ``val/n01440764/*.JPEG``. A
config may call ``val`` by its name in TFDS, ``validation``. A flat folder is one split, called
``train``; by default its first 80 % are trained on and the rest is measured.

A slice of a split is stratified: images are first put in an order that spreads each class evenly.
Within a class the order is that of a hash of the names, so it does not depend on the machine, and a
new file hardly changes it.

Every run lists its folders anew; the 1.3 million files of ImageNet take seconds on a local disk.
"""

import hashlib
import json
import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import features

from train.config import ConfigError, DataConfig
from train.data import splits
from train.errors import DataError

# The suffixes of torchvision's ImageFolder, .gif and .avif.
_SUFFIXES: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".pgm", ".ppm",
                             ".tif", ".tiff")  # fmt: skip
if features.check("avif"):
    _SUFFIXES += (".avif",)

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")

MANIFEST = "vci_prepared.json"
"""The description that ``python -m train.data prepare`` leaves in a folder."""

_log = logging.getLogger(__name__)

_FLAT_SPLIT, _FLAT_TRAIN, _FLAT_TEST = "train", "train[:80%]", "train[80%:]"
_SALT = b"vci_jax"
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
_LAYOUT = (
    "It must hold <split>/<class>/<image> with splits such as train and val, or <class>/<image>; "
    f"images end in {', '.join(_SUFFIXES)}."
)


class Files(NamedTuple):
    """Records that are read from their files when they are needed.

    Instead of a path, each image has an index into ``folders``, since each worker process has its
    own copy of this.
    """

    folders: tuple[Path, ...]
    folder_ids: np.ndarray
    names: np.ndarray
    labels: np.ndarray

    def read(self, index: int) -> tuple[bytes, int]:
        """Returns the bytes of a file, and its label; raises OSError if it cannot be read."""
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
        return self.folders[self.folder_ids[index]] / os.fsdecode(self.names[index])


def load(root: Path, config: DataConfig) -> tuple[Files, Files, tuple[str, ...]]:
    """Returns the training records, the test records and the names of the classes.

    The classes are those of the training split, in alphabetical order.

    Raises:
      ConfigError: there is no such folder, or its classes and images are not where they should be.
    """
    folders, train, test = _layout(root, config)
    used = _split_names(train) | _split_names(test)
    available = {name: _images_of(folders[name]) for name in folders if name in used}
    sizes = {name: available[name].size if name in available else 0 for name in folders}
    train_parts = splits.ranges(train, sizes, "--data.train_split")
    test_parts = splits.ranges(test, sizes, "--data.test_split")
    classes = sorted({_nfc(f.name) for name, _ in train_parts for f in available[name].folders})
    if len(classes) < 2:
        raise ConfigError(
            f"{root} has only one class to train on, {classes[0]!r}, and there is nothing to tell "
            f"apart. {_LAYOUT}"
        )
    chosen = _join(available, train_parts, classes), _join(available, test_parts, classes)
    trained, measured = ({_nfc(f.folders[i].name) for i in set(f.folder_ids)} for f in chosen)
    if untrained := measured - trained:
        raise ConfigError(
            f"there are images to measure, but none to train on, of {_listed(untrained)} in {root} "
            f"(to measure: {test}; to train on: {train}). Add some, or choose other splits."
        )
    return *chosen, tuple(classes)


def read_manifest(root: Path) -> dict[str, Any]:
    """Returns the description of a folder that ``prepare`` wrote; of another one, an empty dict.

    Raises:
      DataError: it is damaged.
    """
    path = root / MANIFEST
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if not {"finished", "images", "short_side", "quality", "splits"} <= manifest.keys():
            raise ValueError("it lacks a field")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged: {error}. Remove {root} and prepare it anew."
        ) from error
    return manifest


def refuse_unfinished(root: Path) -> None:
    """Raises ConfigError if ``prepare`` was interrupted in this folder."""
    if not read_manifest(root).get("finished", True):
        raise ConfigError(
            f"{root} is an unfinished copy of images; the same `python -m train.data prepare` "
            "completes it."
        )


def take(available: dict[str, Files], parts: list[tuple[str, range]]) -> Files:
    """Returns the images of slices of splits that share one tuple of folders."""
    chosen = [(available[split], np.asarray(rows)) for split, rows in parts]
    return Files(
        next(iter(available.values())).folders,
        np.concatenate([files.folder_ids[rows] for files, rows in chosen]),
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
    if any(_folders(folders[name]) for name in _split_names(train) & folders.keys()):
        return folders, train, test or splits.default_test(list(folders), f"folder:{root}")
    _refuse_layout(root, folders, train)
    if not test and train == _FLAT_SPLIT:
        train, test = _FLAT_TRAIN, _FLAT_TEST
    return {_FLAT_SPLIT: root}, train, test or splits.default_test([_FLAT_SPLIT], f"folder:{root}")


def _as_named(spec: str, folders: set[str]) -> str:
    """Returns the slice with TFDS's ``validation`` called ``val`` where only that folder exists."""
    if "val" not in folders or "validation" in folders:
        return spec
    return re.sub(r"\bvalidation\b", "val", spec)


def _refuse_layout(root: Path, folders: dict[str, Path], train: str) -> None:
    """Raises ConfigError if a folder without folders of splits is no folder of classes either."""
    unsorted = [name for name in folders if name in _SPLIT_NAMES and _has_images(folders[name])]
    if unsorted:
        raise ConfigError(
            f"the images of {root / unsorted[0]} lie in one heap; sort them into a folder for each "
            f"class. {_LAYOUT}"
        )
    if any(map(_has_images, folders.values())):
        return
    remedy = ""
    if _has_images(root):
        remedy = f" Its own images have no class; perhaps folder:{root.parent} is meant."
    elif archives := [p.name for p in _readable(root) if p.suffix.lower() in _ARCHIVES]:
        remedy = f" Unpack {', '.join(sorted(archives))} first."
    else:
        for name, folder in folders.items():
            inner = _folders(folder)
            if any(map(_has_images, inner.values())) or _SPLIT_NAMES & inner.keys():
                remedy = f" They lie one level deeper; give folder:{root / name}."
                break
    raise ConfigError(
        f"{root} holds neither images of classes nor the split {train!r} of them, only the "
        f"folders {', '.join(folders) or '(none)'}.{remedy} {_LAYOUT}"
    )


def _folders(folder: Path) -> dict[str, Path]:
    return {p.name: p for p in _readable(folder) if p.is_dir() and p.name[0] != "."}


def _has_images(folder: Path) -> bool:
    return any(_is_image(path.name) for path in _readable(folder))


def _readable(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}.") from error


def _split_names(spec: str) -> set[str]:
    """Returns the names of splits in a sum of slices."""
    return set(re.findall(r"[\w-]+", spec))


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:5]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(map(repr, shown)) + more


def _images_of(folder: Path) -> Files:
    """Returns all images of a folder of class folders, labelled in alphabetical order."""
    classes, others = _list_images(folder)
    if not classes:
        raise ConfigError(
            f"{folder} holds no class folders. {_LAYOUT} Images without labels cannot be measured: "
            "choose another split with --data.test_split, or hold one out (--data.train_split "
            "train[:90%] --data.test_split train[90%:]). The 50,000 validation images of ImageNet "
            "come in one heap: sort them into val/<wnid>/, as valprep.sh does."
        )
    empty = {name for name, files in classes.items() if not files}
    if empty:
        deeper = [p for name in sorted(empty) for p in _folders(folder / name).values()]
        where = next(
            (f" (those in {path} lie too deep)" for path in deeper if _has_images(path)), ""
        )
        raise ConfigError(
            f"the class folder(s) {_listed(empty)} in {folder} hold no images{where}. Fill or "
            f"remove them; images end in {', '.join(_SUFFIXES)}."
        )
    if others:
        _log.warning(
            "%d files in %s are left out: no images by their names, or in no class folder",
            others,
            folder,
        )
    names = np.array([os.fsencode(name) for files in classes.values() for name in files])
    counts = [len(files) for files in classes.values()]
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return Files(tuple(folder / name for name in classes), labels, names, labels)


def _join(available: dict[str, Files], parts: list[tuple[str, range]], classes: list[str]) -> Files:
    """Returns the chosen images of the chosen splits together, labelled by ``classes``."""
    numbers = {name: number for number, name in enumerate(classes)}
    folders: list[Path] = []
    folder_ids, names, labels = [], [], []
    for split, images in parts:
        files = available[split]
        rows = np.arange(files.size) if len(images) == files.size else _stratified(files)[images]
        of_folder = np.array([numbers.get(_nfc(f.name), -1) for f in files.folders], np.int32)
        folder_ids.append(files.folder_ids[rows] + len(folders))
        names.append(files.names[rows])
        labels.append(of_folder[files.folder_ids[rows]])
        folders += files.folders
    columns = (np.concatenate(column) for column in (folder_ids, names, labels))
    return Files(tuple(folders), *columns)


def _stratified(files: Files) -> np.ndarray:
    """Returns the indices of the images, ordered so that each slice has the classes in proportion.

    The j-th of the n images of a class stands at the fraction (j + 1/2) / n of the order.
    """
    hashes = [
        hashlib.blake2b(
            b"/".join((_SALT, os.fsencode(files.folders[index].name), name)), digest_size=8
        ).digest()
        for index, name in zip(files.folder_ids, files.names, strict=True)
    ]
    by_class = np.lexsort((np.array(hashes), files.folder_ids))
    counts = np.bincount(files.folder_ids)
    starts = np.cumsum(counts) - counts
    ordered = files.folder_ids[by_class]
    fraction = (np.arange(files.size) - starts[ordered] + 0.5) / counts[ordered]
    return by_class[np.lexsort((ordered, fraction))]


def _list_images(folder: Path) -> tuple[dict[str, list[str]], int]:
    """Returns the images of each class folder, in alphabetical order, and the number of others.

    Hidden files are skipped; other files, and images outside of the class folders, are counted. A
    broken link is listed if its name is that of an image, and so counts as unreadable.

    Raises:
      DataError: a folder cannot be read.
      ConfigError: two have one name in different forms of Unicode.
    """
    classes, others = [], 0
    for entry in _entries(folder):
        broken = _is_broken_link(entry)
        if broken and not _is_image(entry.name):
            raise DataError(f"{entry.path} is a link that leads nowhere; mend or remove it.")
        if not broken and entry.is_dir():
            classes.append(entry.name)
        else:
            others += _is_image(entry.name)
    _refuse_twins(folder, classes)
    files = {}
    for name in sorted(classes):
        entries = [e.name for e in _entries(folder / name) if _is_broken_link(e) or e.is_file()]
        files[name] = sorted(filter(_is_image, entries))
        others += len(entries) - len(files[name])
    return files, others


def _is_image(name: str) -> bool:
    """Whether a name has the suffix of an image."""
    return name.lower().endswith(_SUFFIXES)


def _nfc(name: str) -> str:
    """Returns a name in the form of Unicode in which names are compared."""
    return unicodedata.normalize("NFC", name)


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}.") from error


def _is_broken_link(entry: os.DirEntry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _refuse_twins(folder: Path, classes: list[str]) -> None:
    forms: dict[str, str] = {}
    for name in classes:
        twin = forms.setdefault(_nfc(name), name)
        if twin != name:
            raise ConfigError(
                f"{folder} holds the class {name!r} twice, written in two forms of Unicode (NFC "
                "and NFD); put the images of both into one folder."
            )
