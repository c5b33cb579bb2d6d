"""Small data sets, in folders and prepared by TFDS; an image's grey level says which it is."""

import io

import numpy as np
from PIL import Image

COLOURS = ("blue", "green", "red")


def picture(number, kind="PNG", side=6):
    """The bytes of an image of one grey level, which says which image it is."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (number, number, number)).save(file, kind)
    return file.getvalue()


def write_images(root, counts, start=0, suffix=".png"):
    """Writes ``counts[class]`` images below ``root``, numbered through."""
    number = start
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for _ in range(count):
            (root / name / f"{number:03d}{suffix}").write_bytes(picture(number))
            number += 1
    return root


def numbers(split):
    """Which images a split holds, by their grey levels, and the label of each."""
    found = {}
    for index in range(split.size):
        stored, label = split.records.read(index)
        image = stored if isinstance(stored, np.ndarray) else Image.open(io.BytesIO(stored))
        found[int(np.asarray(image)[0, 0, 0])] = label
    assert len(found) == split.size
    return found


def _examples(split, count, extras):
    for number in range(count):
        level = number if split == "train" else 100 + number
        row = {"image": io.BytesIO(picture(level)), "label": number % 3}
        if extras:
            row |= {"image": io.BytesIO(picture(level, side=6 + number % 2))}
            row |= {"name": f"{number}", "boxes": [{"x": 0.5}], "mask": io.BytesIO(picture(1))}
        yield number, row


def make_tfds(where, title, version="1.0.0", extras=False, **features):
    """Prepares a small data set as TFDS does; with extras, one of images of several sizes."""
    import tensorflow_datasets as tfds

    kinds = {
        "image": tfds.features.Image(shape=(None, None, 3) if extras else (6, 6, 3)),
        "label": tfds.features.ClassLabel(names=COLOURS),
    }
    if extras:
        kinds |= {
            "name": tfds.features.Text(),
            "boxes": tfds.features.Sequence({"x": np.float32}),
            "mask": tfds.features.Image(shape=(None, None, 3)),
        }
    kinds |= features

    with tfds.core.registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            name = title
            VERSION = tfds.core.Version(version)

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(kinds),
                    supervised_keys=("image", "label"),
                )

            def _split_generators(self, manager):
                del manager
                sizes = {"train": 40, "test": 10}
                return {s: self._generate_examples(s, n) for s, n in sizes.items()}

            def _generate_examples(self, split, count):
                return _examples(split, count, extras)

    Builder(data_dir=where, file_format="array_record").download_and_prepare()
