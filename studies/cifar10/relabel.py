"""Prepares copies of CIFAR-10 and CIFAR-100 with fewer, broader classes, to pretrain on.

    python -m studies.cifar10.relabel DIR cifar10_pairs cifar10_kinds cifar100_coarse

Each is a TFDS data set in DIR, beside its source, and is read as ``tfds:cifar10_pairs``. The
classes of the source are then a downstream task that the loss of pretraining never rewards. Images
of classes that are in no new class are left out.
"""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from probes.transfer.tasks import SUPERCLASSES
from train.config import ConfigError, DataConfig
from train.data import prepared

_SPLITS = ("train", "test")


class Relabelled(NamedTuple):
    """A copy of a data set: its source, and the classes of the source in each new class."""

    source: str
    version: str
    classes: dict[str, tuple[str, ...]]


COPIES = {
    "cifar10_pairs": Relabelled(
        "cifar10",
        "3.0.2",
        {
            "air_and_sea": ("airplane", "ship"),
            "road": ("automobile", "truck"),
            "pets": ("cat", "dog"),
            "hoofed": ("deer", "horse"),
            "small_wild": ("bird", "frog"),
        },
    ),
    "cifar10_kinds": Relabelled(
        "cifar10",
        "3.0.2",
        {
            "living": ("bird", "cat", "deer", "dog", "frog", "horse"),
            "made": ("airplane", "automobile", "ship", "truck"),
        },
    ),
    "cifar100_coarse": Relabelled("cifar100", "3.0.2", SUPERCLASSES),
}


def prepare(data_dir: Path, name: str) -> Path:
    """Writes a copy by its name, unless it exists, and returns its directory.

    Raises:
      ConfigError: there is no such copy, or its source is not prepared in ``data_dir``.
    """
    if name not in COPIES:
        raise ConfigError(f"{name!r} is not a known copy; known are {', '.join(COPIES)}.")
    directory = data_dir / name / COPIES[name].version
    if not directory.exists():
        with tfds.core.registered.skip_registration():
            builder = _builder(data_dir, name, COPIES[name])
        builder(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return directory


def _builder(data_dir: Path, title: str, copy: Relabelled) -> type:
    """Returns TFDS' builder class of a copy."""
    config, source = DataConfig(data_dir=str(data_dir)), f"{copy.source}:{copy.version}"
    _, _, names = prepared.load(source, config)
    shape = prepared.stored_shape(source, config)
    new = {name: label for label, names in enumerate(copy.classes.values()) for name in names}
    labels = [new.get(name) for name in names]

    class Builder(tfds.core.GeneratorBasedBuilder):
        name = title
        VERSION = tfds.core.Version(copy.version)

        def _info(self) -> Any:
            kinds = {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(names=list(copy.classes)),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(kinds),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, manager: Any) -> dict[str, Any]:
            del manager
            return {split: self._generate_examples(split) for split in _SPLITS}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            records = prepared.Prepared(data_dir / copy.source / copy.version, split)
            for number in range(records.size):
                image, label = records.read(number)
                if labels[label] is not None:
                    yield number, {"image": io.BytesIO(image), "label": labels[label]}

    return Builder


def main(arguments: list[str]) -> int:
    """Prepares the copies that are named and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("name", nargs="+", choices=sorted(COPIES))
    parsed = parser.parse_args(arguments)
    for name in parsed.name:
        print(prepare(parsed.data_dir, name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
