"""A reduced copy of a data set: the same images and labels, less to decode.

Most of a host's time for a photograph goes into decoding it, and a network of 224 x 224 pixels sees
few of its pixels. The copy is a folder that ``--data.source folder:FOLDER`` reads,
``FOLDER/<split>/<class>/<index>_<name>.jpg``, with a manifest. An interrupted call goes on where it
was: each file is written whole, and those that exist are kept.
"""

import contextlib
import dataclasses
import io
import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from train import workdir
from train.config import ConfigError, DataConfig
from train.data import decode, digest, folder
from train.data.arrays import Arrays
from train.data.augment import Stored
from train.data.pipeline import made_in_order
from train.data.sources import Dataset, Records, load, unreadable_reason
from train.errors import DataError, Preempted, RunError
from vci_jax import progress
from vci_jax.written import replacing, write_json

_CHUNK = 32
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp",
             "GIF": ".gif", "TIFF": ".tif", "PPM": ".ppm", "AVIF": ".avif"}  # fmt: skip
_GREY = ("1", "L", "LA", "La", "I", "F")
_NAME_BYTES, _STEM = 200, 40
_INDEX = re.compile(r"(\d{8})_")


class Settings(NamedTuple):
    """The short side in pixels, the quality of the JPEGs from 1 to 100, and the processes."""

    short_side: int
    quality: int
    workers: int


class Summary(NamedTuple):
    """The number of images of both splits, and how to read the copy."""

    train: int
    test: int
    unreadable: int
    arguments: str


def prepare(config: DataConfig, root: Path, settings: Settings) -> Summary:
    """Writes, or completes, the copy of a config's images in the folder ``root``.

    Raises:
      ConfigError: the settings or the source do not suit, or ``root`` holds something else.
      DataError: too many images cannot be read, or a class has no image to train on.
      Preempted: it was interrupted; the same call goes on.
      RunError: a file cannot be written.
    """
    _check_settings(config, settings)
    dataset = load(config)
    if isinstance(dataset.train.records, Arrays):
        raise ConfigError(
            f"the images of {config.source} are in memory, decoded: a copy would gain nothing."
        )
    names = _split_names(config)
    with _owned(root, config):
        manifest = _claim(root, {
            "source": config.source,
            "short_side": settings.short_side,
            "quality": settings.quality,
            "splits": list(names),
            "images": {k: v for k, v in digest.describe(dataset).items() if k != "shape"},
        })  # fmt: skip
        written = _write(dataset, [root / name for name in names], config, settings)
        reading = dataclasses.replace(config, train_split=names[0], test_split=names[1])
        copy = _checked_copy(root, reading, _class_folders(dataset.classes), written)
        write_json(root / folder.MANIFEST, manifest | {"finished": True})
    arguments = f"--data.source {shlex.quote(f'folder:{root}')}"
    if config.train_split != names[0]:
        arguments += f" --data.train_split {names[0]}"
    if config.test_split not in ("", names[1]):
        arguments += f" --data.test_split {names[1]}"
    return Summary(
        copy[0].size,
        copy[1].size,
        dataset.train.size + dataset.test.size - written,
        arguments,
    )


def reduced(stored: Stored, settings: Settings) -> tuple[bytes, str]:
    """Returns the bytes and the suffix of an image, upright and with a short side as asked.

    An image that is not larger keeps its bytes, or if it has only pixels, its size.

    Raises:
      UnreadableImage: it cannot be decoded.
    """
    if isinstance(stored, np.ndarray):
        image = Image.fromarray(stored[..., 0] if stored.shape[-1] == 1 else stored)
        shorter = min(image.size)
    else:
        photo = decode.read(stored)
        kind, mode = photo.image.format or "", photo.image.mode
        grey = mode in _GREY or mode.startswith("I;16")
        image = decode.pixels(photo, "L" if grey else "RGB")
        shorter = min(image.size)
        if shorter <= settings.short_side:
            return stored, _SUFFIXES[kind]
    if shorter > settings.short_side:
        # LANCZOS of the whole image, not ``decode.resized``: its decoding at a part of the size
        # saves time in every epoch, but this is done once, and every crop is taken from it.
        scale = settings.short_side / shorter
        width, height = (round(side * scale) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    image.info.clear()  # The comment of the original would be written too.
    file = io.BytesIO()
    image.save(file, "JPEG", quality=settings.quality)
    return file.getvalue(), ".jpg"


class _Part(NamedTuple):
    """A split and the folder of its copy."""

    folder: Path
    records: Records


@dataclasses.dataclass(frozen=True)
class _Writer:
    """Writes the images of a number; can be pickled. ``pending`` has rows of part and index."""

    parts: tuple[_Part, ...]
    pending: np.ndarray
    classes: tuple[str, ...]
    settings: Settings

    def __call__(self, number: int) -> tuple[int, dict[str, str], str]:
        """Returns the number of files, the unreadable images, and why writing failed."""
        written, unreadable = 0, {}
        for part, index in self.pending[number * _CHUNK :][:_CHUNK].tolist():
            records = self.parts[part].records
            name = records.name_of(index)
            try:
                stored, label = records.read(index)
                data, suffix = reduced(stored, self.settings)
            except (decode.UnreadableImage, OSError) as error:
                unreadable[name] = unreadable_reason(error)
                continue
            stem = re.sub(r"[^\w.-]", "_", Path(name).stem, flags=re.ASCII)[:_STEM]
            path = self.parts[part].folder / self.classes[label] / f"{index:08d}_{stem}{suffix}"
            try:
                with replacing(path, "wb") as file:
                    file.write(data)
            except OSError as error:
                return written, unreadable, f"{path} cannot be written: {error.strerror}"
            written += 1
        return written, unreadable, ""


def _write(
    dataset: Dataset, folders: Sequence[Path], config: DataConfig, settings: Settings
) -> int:
    """Writes the images that are missing and returns the number of all files."""
    parts, pending, written = [], [], 0
    for number, (path, split) in enumerate(
        zip(folders, (dataset.train, dataset.test), strict=True)
    ):
        parts.append(_Part(path, split.records))
        done = _existing(path)
        written += len(done)
        missing = np.setdiff1d(np.arange(split.size, dtype=np.int32), done)
        pending.append(np.stack([np.full_like(missing, number), missing], axis=1))
    rows = np.concatenate(pending)
    writer = _Writer(tuple(parts), rows, _class_folders(dataset.classes), settings)
    chunks = range(-(-len(rows) // _CHUNK))
    workers = min(settings.workers, len(chunks))
    config = dataclasses.replace(config, workers=workers, threads=min(workers, 1))
    progress.begin("writing", f"the reduced images of {config.source}")
    try:
        with contextlib.closing(made_in_order(writer, chunks, config)) as results:
            for number, (count, unreadable, failure) in enumerate(results, start=1):
                written += count
                progress.advance("writing", number, len(chunks))
                dataset.train.unreadable.add(unreadable)
                if failure:
                    raise RunError(f"{failure}. Mend that, and the same command goes on.")
    except KeyboardInterrupt as interruption:
        raise Preempted(
            f"interrupted with {written:,} of {dataset.train.size + dataset.test.size:,} images "
            "written, so the copy is unfinished; the same command goes on."
        ) from interruption
    finally:
        progress.end()
    return written


def _existing(path: Path) -> np.ndarray:
    """Returns the indices of the images that are written, and removes files that are cut off."""
    indices = []
    for file in path.glob("*/*"):
        if file.name.startswith("."):
            file.unlink()
        elif match := _INDEX.match(file.name):
            indices.append(int(match[1]))
    return np.array(indices, np.int32)


def _check_settings(config: DataConfig, settings: Settings) -> None:
    needed = max(config.image_size, config.resize or round(config.image_size * 256 / 224))
    if settings.short_side < max(needed, 1):
        raise ConfigError(
            f"--short-side is {settings.short_side}, and this config needs {max(needed, 1)} pixels "
            "(--data.resize, --data.image_size): smaller images would be enlarged."
        )
    if not 1 <= settings.quality <= 100:
        raise ConfigError(f"--quality is {settings.quality}; it is from 1 to 100.")
    if settings.workers < 0:
        raise ConfigError(f"--workers is {settings.workers}; give the number of processes, or 0.")


@contextlib.contextmanager
def _owned(root: Path, config: DataConfig) -> Iterator[None]:
    """Makes the folder, and locks it against other processes."""
    origin = Path(config.source.partition(":")[2]).expanduser().resolve()
    if not config.source.startswith("tfds:") and root.resolve().is_relative_to(origin):
        raise ConfigError(f"{root} lies in the images of {config.source}; choose another folder.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        others = not (root / folder.MANIFEST).exists() and {p.name for p in root.iterdir()}
    except OSError as error:
        raise ConfigError(f"{root} cannot be written: {error.strerror}.") from error
    if others and others != {"lock"}:
        raise ConfigError(f"{root} holds other files; give a new or empty folder.")
    with workdir.owned(root, "preparing images in"):
        try:
            yield
        except OSError as error:
            raise RunError(f"{root} cannot be written: {error.strerror}.") from error


def _claim(root: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Writes the manifest of an unfinished copy, or compares it with the one that is there."""
    if not (before := folder.read_manifest(root)):
        write_json(root / folder.MANIFEST, manifest | {"finished": False})
        return manifest
    changes = digest.differences(before["images"], manifest["images"])
    for name in ("short_side", "quality", "splits"):
        if before[name] != manifest[name]:
            changes.append(f"{name} was {before[name]} and is {manifest[name]}")
    if changes:
        raise ConfigError(
            f"{root} holds a copy of other images or settings ({'; '.join(changes)}); give a new "
            "folder, or the same settings."
        )
    return manifest


def _split_names(config: DataConfig) -> tuple[str, str]:
    """Returns the folders of the splits: the names in the config, so that it reads the copy.

    A slice such as ``train[:90%]`` would be taken a second time, so its folder has a name that no
    config asks for by default.
    """
    train, test = config.train_split, config.test_split or "test"
    train = train if re.fullmatch(r"[\w-]+", train) and train != "all" else "train_slice"
    plain = re.fullmatch(r"[\w-]+", test) and test not in ("all", train)
    return train, test if plain else "test_slice"


def _class_folders(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns a folder for each class, in alphabetical order, which is that of the labels."""
    names = [unicodedata.normalize("NFC", name) for name in classes]
    names = [re.sub(r'[\x00-\x1f/\\:*?"<>|]|^\.', "_", name) for name in names]
    names = [name.encode()[:_NAME_BYTES].decode("utf-8", "ignore") or "_" for name in names]
    if names != sorted(names) or len({name.casefold() for name in names}) < len(names):
        digits = len(str(len(names) - 1))
        names = [f"{label:0{digits}d}_{name}" for label, name in enumerate(names)]
    return tuple(names)


def _checked_copy(
    root: Path, config: DataConfig, classes: Sequence[str], written: int
) -> tuple[Records, Records]:
    """Returns the splits of the copy; DataError unless each class has its label."""
    if empty := [n for n in classes if not (root / config.train_split / n).is_dir()]:
        raise DataError(
            f"the class {empty[0]!r} has no readable image to train on, so that in {root} the "
            "classes behind it would have other labels; choose a --data.train_split with all."
        )
    train, test, found = folder.load(root, config)
    if found != tuple(classes) or train.size + test.size != written:
        raise DataError(
            f"{root} holds {train.size + test.size:,} images of {len(found)} classes instead of "
            f"{written:,} of {len(classes)}: others have been put there; give a new folder."
        )
    return train, test
