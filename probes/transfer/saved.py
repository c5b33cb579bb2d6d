"""Features that were saved by any framework, read for a probe."""

import sys
from pathlib import Path

import numpy as np

from train.config import ConfigError
from train.models import state_dict
from vci_jax import cli
from vci_jax.arrays import as_native, canonicalize_reals, labelled_rows
from vci_jax.probe.selection import Samples

_KINDS = (
    "X.npz or X.safetensors with the arrays features [N, D] and labels [N]; X_features.npy, with "
    "X_labels.npy beside it; or a directory with features.npy and labels.npy"
)

_SPLITS = (("train", "train"), ("test", "test"), ("validation", "validation"))
_FORMS = (".npz", ".safetensors", "_features.npy", "")


def read(path: Path) -> Samples:
    """Returns the features and labels of a file, or of a pair of files.

    ``.npy`` files are memory-mapped. Rows with the label -1 (an image that could not be read) or
    -100 (``ignore_index`` of PyTorch) have none: they are left out, and their number is written to
    stderr.

    Raises:
      ConfigError: it is no such file, its arrays do not fit each other, or other labels are
        negative; says what is wrong.
    """
    try:
        if path.is_dir():
            features, labels = _pair(path / "features.npy", path / "labels.npy")
        elif path.suffix == ".npy":
            features, labels = _pair(path, path.with_name(_labels_name(path)))
        elif path.suffix == ".safetensors":
            features, labels = _named(state_dict.read(path), path)
        elif path.suffix == ".npz":
            features, labels = _named(cli.read_features(str(path)), path)
        else:
            raise ConfigError(f"{path} is none of the features that can be read: {_KINDS}.")
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return _checked(features, labels, path)


def splits_of(path: Path) -> dict[str, Path]:
    """Returns the files of ``train``, ``test`` and perhaps ``validation``, or of ``all`` in one.

    A directory has the splits as ``train.npz``, ``test.npz``, or in whatever form ``read`` takes;
    without a test split, the validation split takes its place.

    Raises:
      ConfigError: a directory holds neither splits nor a file of features.
    """
    if not path.is_dir() or (path / "features.npy").exists():
        return {"all": path}
    found: dict[str, Path] = {}
    for split, name in (*_SPLITS, ("validation", "val")):
        there = [path / f"{name}{form}" for form in _FORMS if (path / f"{name}{form}").exists()]
        if there:
            found.setdefault(split, there[0])
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    if not {"train", "test"} <= found.keys():
        raise ConfigError(
            f"{path} has no features of train and test; call them train.npz and test.npz, or put "
            "all in one file. Features are " + _KINDS + "."
        )
    return found


def _labels_name(path: Path) -> str:
    if "features" not in path.stem:
        raise ConfigError(
            f"{path}: which file has its labels? Call the pair X_features.npy and X_labels.npy."
        )
    return path.name.replace("features", "labels")


def _pair(features: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(features, mmap_mode="r"), np.load(labels, mmap_mode="r")


def _named(arrays: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, np.ndarray]:
    missing = {"features", "labels"} - arrays.keys()
    if missing:
        raise ConfigError(
            f"{path} has no {' and no '.join(sorted(missing))}, only {', '.join(arrays)}."
        )
    return np.asarray(arrays["features"]), np.asarray(arrays["labels"])


def _checked(features: np.ndarray, labels: np.ndarray, path: Path) -> Samples:
    try:
        features = canonicalize_reals("features", features, np.float64)
        labels = as_native("labels", labels)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    fits = features.ndim == 2 and labels.shape == features.shape[:1] and len(labels)
    if not fits or labels.dtype.kind not in "iu":
        raise ConfigError(
            f"{path}: features are {features.dtype} {list(features.shape)} and labels "
            f"{labels.dtype} {list(labels.shape)}; they must be numbers [N, D] and integers [N]."
        )
    try:
        labelled = labelled_rows(labels)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if labelled.all():
        return Samples(features, np.asarray(labels))
    if not labelled.any():
        raise ConfigError(
            f"{path}: all {len(labels)} rows have the label -1 or -100, which means none: nothing "
            "to probe."
        )
    dropped = int(np.sum(~labelled))
    print(
        f"{path}: {dropped:,} of {len(labels):,} rows have the label -1 or -100, which means none, "
        "and are left out.",
        file=sys.stderr,
    )
    return Samples(features[labelled], labels[labelled])


def renumber(splits: dict[str, Samples]) -> tuple[dict[str, Samples], int]:
    """Returns the splits with labels 0 .. K-1 in the order of the old ones, and K.

    The labels of a file are any integers: K is the number of different ones in all splits.
    """
    found = {name: np.unique(split.labels, return_inverse=True) for name, split in splits.items()}
    names = sorted({label for labels, _ in found.values() for label in labels.tolist()})
    if names[-1] + 1 == len(names):
        return splits, len(names)
    numbers = {label: number for number, label in enumerate(names)}
    renumbered = {
        name: splits[name]._replace(
            labels=np.array([numbers[label] for label in labels.tolist()], np.int32)[inverse]
        )
        for name, (labels, inverse) in found.items()
    }
    return renumbered, len(names)
