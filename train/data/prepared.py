"""Data sets that TFDS has prepared on this disk, read without TensorFlow and never downloaded.

TFDS stores a data set as array_record files beside a description, which is enough to read them: no
code of the data set runs, and nothing uses the network. Images are the stored bytes.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from train import local
from train.config import ConfigError, DataConfig
from train.data import decode, splits
from train.data.arrays import Arrays
from train.errors import DataError

# Images of one fixed size are decoded into memory, up to this many bytes a split (CIFAR-10 has 154
# MB): reading and decoding a record takes 50 times as long.
_IN_MEMORY_BYTES = 2**29
_CHUNK = 1000

# The name of a finished version; TFDS adds a suffix until then.
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class Prepared:
    """Records of a prepared split that are read when they are needed."""

    def __init__(self, directory: Path, split: str) -> None:
        self._directory, self._split = directory, split
        self._open()

    def _open(self) -> None:
        tfds = package()
        builder = tfds.builder_from_directory(str(self._directory))
        self._keys = _keys(builder.info)
        self._classes = builder.info.features[self._keys[1]].num_classes
        features = builder.info.features.items()
        images = [key for key, kind in features if isinstance(kind, tfds.features.Image)]
        self._source = builder.as_data_source(
            split=self._split, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding())
        )

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self._source)

    def read(self, index: int) -> tuple[bytes, int]:
        """Returns the bytes of an image, and its label."""
        with self._as_unreadable():
            record = self._source[index]
        return self._checked(index, record)

    def read_many(self, indices: list[int]) -> list[tuple[bytes, int]]:
        """Returns several records, faster than one by one."""
        with self._as_unreadable():
            records = self._source.__getitems__(indices)
        return [self._checked(i, record) for i, record in zip(indices, records, strict=True)]

    def name_of(self, index: int) -> str:
        """Returns the name of an image in messages."""
        return f"{self._directory.parent.name} {self._split}[{index}]"

    def paths(self) -> list[Path]:
        """Returns the files of the whole data set, with all its splits."""
        return sorted(path for path in self._directory.iterdir() if path.is_file())

    @contextlib.contextmanager
    def _as_unreadable(self) -> Iterator[None]:
        """Turns errors of array_record and TFDS about a damaged record into UnreadableImage."""
        try:
            yield
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise decode.UnreadableImage(
                f"damaged in {self._directory}/*-{self._split.partition('[')[0]}.*: {reason}"
            ) from error

    def _checked(self, index: int, record: dict[str, Any]) -> tuple[bytes, int]:
        image, label = (record[key] for key in self._keys)
        if not 0 <= label < self._classes:
            raise ConfigError(
                f"{self.name_of(index)} has the label {label}, which is none of the "
                f"{self._classes} classes; some data sets publish a test split without labels. "
                "Choose another with --data.test_split."
            )
        return image, int(label)

    def __getstate__(self) -> tuple[Path, str]:
        return self._directory, self._split

    def __setstate__(self, state: tuple[Path, str]) -> None:
        self._directory, self._split = state
        self._open()  # A worker process opens the files for itself.


def load(
    name: str, config: DataConfig
) -> tuple[Prepared | Arrays, Prepared | Arrays, tuple[str, ...]]:
    """Returns the training records, the test records and the names of the classes.

    The name is ``NAME[/CONFIG][:VERSION]``, by default the latest prepared version.

    Raises:
      ConfigError: the data set is not prepared, or not for classification; says what to do.
    """
    data_dir = data_directory(config.data_dir)
    directory = _find(name, data_dir)
    info = _read_info(directory, name, data_dir)
    _check(info, name, directory)
    sizes = {split: part.num_examples for split, part in info.splits.items()}
    test_split = config.test_split or splits.default_test(list(sizes), f"tfds:{name}")
    used = set()
    for spec, field in ((config.train_split, "train_split"), (test_split, "test_split")):
        used |= {split for split, _ in splits.ranges(spec, sizes, f"--data.{field}")}
    _check_shards([info.splits[split] for split in sorted(used)], _repair_hint(name, data_dir))
    image, label = (info.features[key] for key in _keys(info))
    train, test = Prepared(directory, config.train_split), Prepared(directory, test_split)
    names = tuple(label.names)
    images = max(train.size, test.size)
    if None not in image.shape and images * np.prod(image.shape) <= _IN_MEMORY_BYTES:
        return _in_memory(train, config), _in_memory(test, config), names
    return train, test, names


def package() -> Any:
    """Imports ``tensorflow_datasets``, which takes a second; ConfigError if it is missing."""
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise ConfigError(
            "data sets prepared by TFDS need tensorflow-datasets: pip install 'vci_jax[tfds]'."
        ) from error
    return tensorflow_datasets


def data_directory(setting: str) -> Path:
    """Returns the directory of prepared data sets: --data.data_dir or TFDS' default."""
    if setting:
        return local.path(setting, "the directory of the data")
    return local.path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"), "TFDS_DATA_DIR")


def stored_shape(name: str, config: DataConfig) -> tuple[int | None, ...]:
    """Returns the shape of the images in the description; None for sides that vary.

    Raises:
      ConfigError: the data set is not prepared; says what to do.
    """
    data_dir = data_directory(config.data_dir)
    info = _read_info(_find(name, data_dir), name, data_dir)
    return tuple(info.features[_keys(info)[0]].shape)


def _find(name: str, data_dir: Path) -> Path:
    """Returns the directory of a prepared version."""
    stem, _, version = name.partition(":")
    folder = data_dir / stem
    versions = [path for path in _versions(folder) if not version or path.name == version]
    if versions:
        return max(versions, key=lambda path: [int(n) for n in path.name.split(".") if n.isdigit()])
    configs = sorted({path.name for path in folder.glob("*") if _versions(path)})
    if configs and not version:
        raise ConfigError(
            f"--data.source is 'tfds:{name}', and {folder} holds several configurations; choose "
            f"one of tfds:{stem}/{f', tfds:{stem}/'.join(configs)}."
        )
    raise ConfigError(_how_to_prepare(name, data_dir))


def _versions(folder: Path) -> list[Path]:
    """Returns the directories of the finished versions."""
    paths = sorted(folder.glob("*/dataset_info.json"))
    return [path.parent for path in paths if _VERSION.fullmatch(path.parent.name)]


def _read_info(directory: Path, name: str, data_dir: Path) -> Any:
    """Returns the description of a version; raises DataError with the file that is damaged."""
    tfds = package()
    info, features = directory / "dataset_info.json", directory / "features.json"
    path = info
    try:
        proto = tfds.core.dataset_info.read_proto_from_builder_dir(str(directory))
        if not proto.splits:
            raise ValueError("it describes no split")
        path = features
        json.loads(features.read_text())
        builder = tfds.builder_from_directory(str(directory))
        path = info
        for split in builder.info.splits.values():
            split.filepaths  # Parses the template of the names.  # noqa: B018
        for key, feature in dict(builder.info.features.items()).items():
            if isinstance(feature, tfds.features.ClassLabel):
                path = directory / f"{key}.labels.txt"
                if len(feature.names) != feature.num_classes:
                    raise ValueError(
                        f"it has {len(feature.names)} names for {feature.num_classes} classes"
                    )
    except Exception as error:  # TFDS, protobuf and JSON raise many kinds of errors.
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        raise DataError(
            f"{path} is damaged: {reason.rstrip('.')}. {_repair_hint(name, data_dir)}"
        ) from error
    return builder.info


def _repair_hint(name: str, data_dir: Path) -> str:
    """Returns what to do about damaged files of a data set."""
    known = package().list_builders(with_community_datasets=False)
    if re.split("[:/]", name)[0] not in known:
        return "Put back a copy of it, or prepare the data set again."
    return (
        "Put back a copy of it, or prepare the data set again in an environment with TensorFlow: "
        f"tfds build {name} --overwrite --file_format=array_record --data_dir={data_dir}"
    )


def _how_to_prepare(name: str, data_dir: Path) -> str:
    """Returns the error message for a data set that is not on this disk."""
    import difflib

    tfds = package()
    stem = name.partition(":")[0]
    base = stem.partition("/")[0]
    folder = data_dir / stem
    versions = [path.name for path in _versions(folder)]
    message = f"--data.source is 'tfds:{name}', and {folder} holds no such data set"
    message += f", but version {', '.join(versions)}." if versions else "."
    if unfinished := [
        p.name for p in sorted(folder.glob("*.*")) if p.is_dir() and p.name not in versions
    ]:
        message += f" {', '.join(unfinished)} there has no dataset_info.json or is not finished."
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        close = difflib.get_close_matches(base, known, n=1)
        hint = f" Did you mean tfds:{close[0]}?" if close else ""
        return f"{message} TFDS knows no {base!r} either.{hint}"
    manual = ""
    if base == "imagenet2012":
        manual = " --manual_dir=DIR, where DIR holds ILSVRC2012_img_train.tar and _val.tar"
    return (
        f"{message} Prepare it in an environment with TensorFlow (pip install tensorflow "
        "tensorflow-datasets), which training does not need:\n"
        f"  tfds build {name} --file_format=array_record --data_dir={data_dir}{manual}\n"
        "Another place is chosen by --data.data_dir or TFDS_DATA_DIR."
    )


def _keys(info: Any) -> tuple[str, str]:
    keys = info.supervised_keys or ("image", "label")
    return (keys[0], keys[1]) if all(isinstance(key, str) for key in keys) else ("image", "label")


def _check(info: Any, name: str, directory: Path) -> None:
    """Raises ConfigError unless the data set is one of images, labels and random access."""
    tfds = package()
    image, label = _keys(info)
    named = isinstance(info.features, tfds.features.FeaturesDict)
    features = dict(info.features.items()) if named else {}
    if not (
        isinstance(features.get(image), tfds.features.Image)
        and features[image].np_dtype == np.uint8
        and isinstance(features.get(label), tfds.features.ClassLabel)
    ):
        raise ConfigError(
            f"tfds:{name} is not for image classification: it needs 8-bit images and class labels "
            f"as its supervised keys, and has {', '.join(features) or 'no named features'}."
        )
    formats = {kind.value for kind in info.available_file_formats()}
    if "array_record" not in formats:
        raise ConfigError(
            f"{directory} is stored as {', '.join(formats) or 'nothing known'}, which cannot be "
            "read at random places. Convert it in an environment with TensorFlow:\n"
            f"  tfds convert_format --dataset_version_dir={directory} "
            "--out_file_format=array_record"
        )


def _in_memory(records: Prepared, config: DataConfig) -> Prepared | Arrays:
    """Returns the decoded images; the records themselves if some cannot be decoded."""
    mode = decode.mode_of(len(config.mean))
    images, labels = None, np.empty(records.size, np.int32)
    for start in range(0, records.size, _CHUNK):
        indices = list(range(start, min(start + _CHUNK, records.size)))
        try:
            decoded = [(decode.decode(d, mode), label) for d, label in records.read_many(indices)]
        except decode.UnreadableImage:
            return records
        for index, (image, label) in zip(indices, decoded, strict=True):
            if images is None:
                images = np.empty((records.size, *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                return records
            images[index], labels[index] = image, label
    assert images is not None, "splits.ranges refuses empty slices"
    return Arrays(images, labels, records.name_of(0).partition("[")[0])


_THREADS = 16  # On a network file system, opening is waiting.


def _check_shards(splits: Iterable[Any], remedy: str) -> None:
    """Opens every file of splits (``SplitInfo``) and compares its number of records.

    Raises:
      DataError: a file is missing, cut or damaged; names it, and the remedy.
    """
    expected = [
        (Path(path), length)
        for split in splits
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = list(pool.map(_shard_problem, *zip(*expected, strict=True)))
    damaged = [
        f"{path} {problem}"
        for (path, _), problem in zip(expected, problems, strict=True)
        if problem
    ]
    if damaged:
        more = f" (and {len(damaged) - 1} more files)" if damaged[1:] else ""
        raise DataError(f"{damaged[0]}{more}. {remedy}")


def _shard_problem(path: Path, length: int) -> str:
    """Returns the problem of a file, or an empty string."""
    from array_record.python.array_record_module import (  # type: ignore[import-untyped]
        ArrayRecordReader,
    )

    if not path.exists():
        return "is missing"
    if not path.is_file():
        return "is not a file"
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        reader.close()
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        return f"is cut or damaged ({reason})"
    return "" if count == length else f"holds {count} records instead of {length}"
