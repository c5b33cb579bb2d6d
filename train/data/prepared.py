"""Data sets that TFDS has prepared on this disk, read without TensorFlow and never downloaded.

TFDS stores a data set as array_record files beside a description, and the description alone is
enough to read them: no code of the data set runs here, and nothing looks at the network. Images
come as the bytes that were stored.
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

# Images of one fixed size are decoded once, into memory, up to this many bytes a split: CIFAR-10
# has 154 MB. Reading and decoding a record takes 50 times as long as looking it up.
_IN_MEMORY_BYTES = 2**29
_CHUNK = 1000

# What TFDS calls a version; one that it has not finished has another name.
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class Prepared:
    """Records of a prepared split, read when they are needed; labels come with them."""

    def __init__(self, directory: Path, split: str) -> None:
        """Opens the files."""
        self._directory, self._split = directory, split
        self._open()

    def _open(self) -> None:
        tfds = package()
        builder = tfds.builder_from_directory(str(self._directory))
        self._keys = _keys(builder.info)
        self._classes = builder.info.features[self._keys[1]].num_classes
        image = tfds.features.Image
        skipped = [key for key, kind in builder.info.features.items() if isinstance(kind, image)]
        self._source = builder.as_data_source(
            split=self._split, decoders=dict.fromkeys(skipped, tfds.decode.SkipDecoding())
        )

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self._source)

    def read(self, index: int) -> tuple[bytes, int]:
        """Returns the bytes of an image, and its label."""
        with self._explained(index):
            record = self._source[index]
        return self._checked(index, record)

    def read_many(self, indices: list[int]) -> list[tuple[bytes, int]]:
        """Returns several records, faster than one by one."""
        with self._explained(indices[0]):
            records = self._source.__getitems__(indices)
        return [self._checked(i, record) for i, record in zip(indices, records, strict=True)]

    def name_of(self, index: int) -> str:
        """Returns what to call the image in a message."""
        return f"{self._directory.parent.name} {self._split}[{index}]"

    def paths(self) -> list[Path]:
        """Returns the files of the whole data set, of which the split is a part."""
        return sorted(path for path in self._directory.iterdir() if path.is_file())

    @contextlib.contextmanager
    def _explained(self, index: int) -> Iterator[None]:
        """Turns what array_record and TFDS say of a damaged record into UnreadableImage."""
        try:
            yield
        except Exception as error:
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise decode.UnreadableImage(
                f"damaged in {self._directory}/*-{self._split.partition('[')[0]}.*: {said}"
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
        """Returns what a worker process needs to open the files for itself."""
        return self._directory, self._split

    def __setstate__(self, state: tuple[Path, str]) -> None:
        """Opens the files again."""
        self._directory, self._split = state
        self._open()

    def __repr__(self) -> str:
        """Returns a description that does not print the data."""
        return f"Prepared({self._directory}, {self._split!r})"


def load(
    name: str, config: DataConfig
) -> tuple[Prepared | Arrays, Prepared | Arrays, tuple[str, ...]]:
    """Returns the images to train on, those to measure, and the names of the classes.

    Args:
      name: ``NAME[/CONFIG][:VERSION]``; without a version, the latest one that is prepared.
      config: with the splits and the directory.

    Raises:
      ConfigError: the data set is not prepared, or not for classification; says what to do.
    """
    data_dir = directory(config.data_dir)
    place = _find(name, data_dir)
    builder = _described(place, name, data_dir)
    info = builder.info
    _check(info, name, place)
    sizes = {split: part.num_examples for split, part in info.splits.items()}
    test_split = config.test_split or splits.default_test(list(sizes), f"tfds:{name}")
    used = set()
    for spec, field in ((config.train_split, "train_split"), (test_split, "test_split")):
        used |= {split for split, _ in splits.ranges(spec, sizes, f"--data.{field}")}
    _check_shards([info.splits[split] for split in sorted(used)], _mend(name, data_dir))
    image, label = (info.features[key] for key in _keys(info))
    train, test = Prepared(place, config.train_split), Prepared(place, test_split)
    names = tuple(label.names)
    if None not in image.shape and max(train.size, test.size) * np.prod(image.shape) <= (
        _IN_MEMORY_BYTES
    ):
        return _in_memory(train, config), _in_memory(test, config), names
    return train, test, names


def package() -> Any:
    """Returns ``tensorflow_datasets``, which takes a second to import and no other source needs.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise ConfigError(
            "data sets prepared by TFDS need tensorflow-datasets: pip install 'vci_jax[tfds]'."
        ) from error
    return tensorflow_datasets


def directory(given: str) -> Path:
    """Returns where prepared data sets are: as given, or where TFDS puts them."""
    if given:
        return local.path(given, "the directory of the data")
    return local.path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"), "TFDS_DATA_DIR")


def stored_shape(name: str, config: DataConfig) -> tuple[int | None, ...]:
    """Returns what the description says of the size of the images; None where they differ.

    Raises:
      ConfigError: the data set is not prepared; says what to do.
    """
    data_dir = directory(config.data_dir)
    info = _described(_find(name, data_dir), name, data_dir).info
    return tuple(info.features[_keys(info)[0]].shape)


def _find(name: str, data_dir: Path) -> Path:
    """Returns the directory of a prepared version."""
    stem, _, version = name.partition(":")
    folder = data_dir / stem
    found = [path for path in _versions(folder) if not version or path.name == version]
    if found:
        return max(found, key=lambda path: [int(n) for n in path.name.split(".") if n.isdigit()])
    configs = sorted({path.name for path in folder.glob("*") if _versions(path)})
    if configs and not version:
        raise ConfigError(
            f"--data.source is 'tfds:{name}', and {folder} holds several configurations; choose "
            f"one of tfds:{stem}/{f', tfds:{stem}/'.join(configs)}."
        )
    raise ConfigError(_how_to_prepare(name, data_dir))


def _versions(folder: Path) -> list[Path]:
    """Returns the versions that are finished: TFDS names a version last of all."""
    found = sorted(folder.glob("*/dataset_info.json"))
    return [path.parent for path in found if _VERSION.fullmatch(path.parent.name)]


def _described(place: Path, name: str, data_dir: Path) -> Any:
    """Returns the builder of a version.

    Raises:
      DataError: its description is damaged; names the file.
    """
    tfds = package()
    info, features = place / "dataset_info.json", place / "features.json"
    path = info
    try:
        proto = tfds.core.dataset_info.read_proto_from_builder_dir(str(place))
        if not proto.splits:
            raise ValueError("it describes no split")
        path = features
        json.loads(features.read_text())
        builder = tfds.builder_from_directory(str(place))
        path = info
        for split in builder.info.splits.values():
            split.filepaths  # Made of the template there.  # noqa: B018
        for key, feature in dict(builder.info.features.items()).items():
            if isinstance(feature, tfds.features.ClassLabel):
                path = place / f"{key}.labels.txt"
                if len(feature.names) != feature.num_classes:
                    raise ValueError(
                        f"it has {len(feature.names)} names for {feature.num_classes} classes"
                    )
    except Exception as error:  # TFDS, protobuf and JSON raise what they like.
        said = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        raise DataError(
            f"{path} is damaged: {said.rstrip('.')}. {_mend(name, data_dir)}"
        ) from error
    return builder


def _mend(name: str, data_dir: Path) -> str:
    """Returns what to do about damaged files of a data set."""
    known = package().list_builders(with_community_datasets=False)
    if re.split("[:/]", name)[0] not in known:
        return "Put back a copy of it, or prepare the data set again."
    return (
        "Put back a copy of it, or prepare the data set again in an environment with TensorFlow: "
        f"tfds build {name} --overwrite --file_format=array_record --data_dir={data_dir}"
    )


def _how_to_prepare(name: str, data_dir: Path) -> str:
    """Returns what to say if there is no such data set on this disk."""
    import difflib

    tfds = package()
    stem = name.partition(":")[0]
    base = stem.partition("/")[0]
    folder = data_dir / stem
    there = [path.name for path in _versions(folder)]
    message = f"--data.source is 'tfds:{name}', and {folder} holds no such data set"
    message += f", but version {', '.join(there)}." if there else "."
    if unfinished := [
        p.name for p in sorted(folder.glob("*.*")) if p.is_dir() and p.name not in there
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
    """Returns the decoded images; the records themselves if not all of them can be decoded."""
    mode: decode.Mode = "L" if len(config.mean) == 1 else "RGB"
    images, labels = None, np.empty(records.size, np.int32)
    for start in range(0, records.size, _CHUNK):
        indices = list(range(start, min(start + _CHUNK, records.size)))
        try:
            found = [
                (np.asarray(decode.pixels(decode.read(data), mode)), label)
                for data, label in records.read_many(indices)
            ]
        except decode.UnreadableImage:
            return records
        for index, (image, label) in zip(indices, found, strict=True):
            image = image.reshape(*image.shape[:2], -1)
            if images is None:
                images = np.empty((records.size, *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                return records
            images[index], labels[index] = image, label
    assert images is not None, "splits.ranges refuses empty slices"
    return Arrays(images, labels, records.name_of(0).partition("[")[0])


_THREADS = 16  # On a network file system, opening is waiting.


def _check_shards(splits: Iterable[Any], remedy: str) -> None:
    """Opens every file of some splits and counts its records against the description.

    Args:
      splits: of TFDS (``SplitInfo``).
      remedy: a sentence for the message.

    Raises:
      DataError: a file is missing, cut or damaged; names it.
    """
    expected = [
        (Path(path), length)
        for split in splits
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = list(pool.map(_problem, *zip(*expected, strict=True)))
    damaged = [
        f"{path} {problem}"
        for (path, _), problem in zip(expected, problems, strict=True)
        if problem
    ]
    if damaged:
        more = f" (and {len(damaged) - 1} more files)" if damaged[1:] else ""
        raise DataError(f"{damaged[0]}{more}. {remedy}")


def _problem(path: Path, length: int) -> str:
    """Returns what is wrong with a file; nothing if it is sound."""
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
        said = str(error).strip().partition("\n")[0]
        return f"is cut or damaged ({said})"
    return "" if count == length else f"holds {count} records instead of {length}"
