"""Features that were saved by any framework, read for a probe."""

import sys
from pathlib import Path

from train.config import ConfigError
from vci_jax.errors import VCIError
from vci_jax.files import KINDS
from vci_jax.probe import saved
from vci_jax.probe.selection import Samples

_SPLITS = (("train", "train"), ("test", "test"), ("validation", "validation"))
_FORMS = (".npz", ".safetensors", "_features.npy", ".pt", ".h5", ".parquet", ".csv", "")


def read(path: Path) -> Samples:
    """Returns the features and labels of a file, of a pair of files, or of a folder.

    Rows with the label -1 (an image that could not be read) or -100 (``ignore_index`` of PyTorch)
    have none: they are left out, and their number is written to stderr.

    Raises:
      ConfigError: it is no such file, its arrays do not fit each other, or other labels are
        negative; says what is wrong.
    """
    try:
        samples, dropped = saved.read(path)
    except VCIError as error:
        raise ConfigError(str(error)) from error
    if dropped:
        print(
            f"{path}: {dropped:,} of {dropped + len(samples.labels):,} rows have the label -1 or "
            "-100, which means none, and are left out.",
            file=sys.stderr,
        )
    return samples


def splits_of(path: Path) -> dict[str, Path]:
    """Returns the files of ``train``, ``test`` and perhaps ``validation``, or of ``all`` in one.

    A directory has the splits as ``train.npz``, ``test.npz``, or in whatever form ``read`` takes;
    without a test split, the validation split takes its place.

    Raises:
      ConfigError: a directory holds neither splits nor a file of features.
    """
    if not path.is_dir() or (path / "features.npy").exists():
        return {"all": path}
    files: dict[str, Path] = {}
    for split, name in (*_SPLITS, ("validation", "val")):
        there = [path / f"{name}{form}" for form in _FORMS if (path / f"{name}{form}").exists()]
        if there:
            files.setdefault(split, there[0])
    if "test" not in files and "validation" in files:
        files["test"] = files.pop("validation")
    if not {"train", "test"} <= files.keys():
        raise ConfigError(
            f"{path} has no features of train and test; call them train.npz and test.npz, or put "
            f"all in one file. Features are {KINDS}."
        )
    return files
