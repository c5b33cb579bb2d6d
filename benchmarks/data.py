"""Images per second on one core, beside torchvision's PIL pipeline and bare Pillow.

    python -m benchmarks.data ../shared/data --torchvision OTHER/bin/python

torchvision needs an environment of its own, with the same Pillow (a CPU build of torch will do):

    python -m venv OTHER; OTHER/bin/pip install torch torchvision pillow==13.0.0

Photographs (``imagenet_sample``): from the file to a batch of uint8, RandomResizedCrop to 224,
flip, AutoAugment's ImageNet policy. CIFAR-10 (``cifar10_webp.npz``): from pixels in memory to a
batch of uint8, a shift within 4 pixels of padding, flip. Both sides run everything in one thread of
one core, in turns of a second, each in its own process while the other waits; medians of the turns.
"""

import argparse
import functools
import io
import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL
from PIL import Image

TURNS, SECONDS = 11, 1.0
PHOTOGRAPHS, SMALL = 31, 256
SIDE = 224


def rate(make, size):
    """Images per second of a function that makes ``size`` of them, called for a second."""
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        make()
        calls += 1
    return calls * size / (time.perf_counter() - start)


# --- ours and the limits ----------------------------------------------------------------------


def photographs_contestants(folder, paths):
    from train import data
    from train.config import DataConfig

    config = DataConfig(
        source=f"folder:{folder}",
        test_split="train",
        batch_size=PHOTOGRAPHS,
        image_size=SIDE,
        crop="random_resized",
        flip=True,
        policy="autoaugment_imagenet",
        threads=0,
    )
    dataset = data.load(config)
    files = dataset.train.records
    # As many images as ImageNet has: the shuffle takes longer for very few.
    many = [np.tile(column, 20_000) for column in (files.folder_ids, files.names, files.labels)]
    split = data.Split(type(files)(files.folders, *many), *unchanged(dataset.train))
    turn = itertools.cycle(paths)

    def decoded():
        return Image.open(io.BytesIO(next(turn).read_bytes())).convert("RGB")

    def resized():
        return np.asarray(decoded().resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    def many_of(make):
        return lambda: [make() for _ in range(PHOTOGRAPHS)]

    return {
        "train.data": functools.partial(next, data.training_batches(split, config, seed=0)),
        "Pillow, decode": many_of(decoded),
        "Pillow, decode and resize": many_of(resized),
    }


def small_contestants(images):
    from train import data
    from train.config import DataConfig
    from train.data.arrays import Arrays
    from train.data.sources import Unreadable

    config = DataConfig(batch_size=SMALL, crop="pad", crop_padding=4, flip=True, threads=0)
    records = Arrays(images, np.zeros(len(images), np.int32), "cifar10")
    split = data.Split(records, images.shape[1:], Unreadable(0))
    rng = np.random.default_rng(0)
    return {
        "train.data": functools.partial(next, data.training_batches(split, config, seed=0)),
        "NumPy, a random gather": lambda: images[rng.integers(0, len(images), SMALL)],
    }


def unchanged(split):
    return split.image_shape, split.unreadable


# --- torchvision, in its own process ----------------------------------------------------------


def torchvision_contestants(paths, images):
    import torch
    from torchvision import transforms
    from torchvision.datasets.folder import pil_loader

    torch.set_num_threads(1)
    crop = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()]
    crop.append(transforms.AutoAugment(transforms.AutoAugmentPolicy.IMAGENET))
    shift = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    pixels = [transforms.PILToTensor()]
    usual = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.2,) * 3)]
    turn, rng = itertools.cycle(paths), np.random.default_rng(0)

    def photographs(transform):
        return torch.stack([transform(pil_loader(next(turn))) for _ in range(PHOTOGRAPHS)])

    def small(transform):
        rows = rng.integers(0, len(images), SMALL).tolist()
        return torch.stack([transform(Image.fromarray(images[row])) for row in rows])

    return {
        f"{kind} {name}": functools.partial(make, transforms.Compose(steps + end))
        for kind, make, steps in (("photographs", photographs, crop), ("small", small, shift))
        for name, end in (("uint8", pixels), ("float, normalised", usual))
    }


def serve(folder, array):
    """Answers each name on standard input with the images per second of a turn."""
    contestants = torchvision_contestants(photographs_in(folder), np.load(array))
    for make in contestants.values():
        make()
    import torchvision

    print(f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}", flush=True)
    for line in sys.stdin:
        name = line.strip()
        size = PHOTOGRAPHS if name.startswith("photographs") else SMALL
        print(rate(contestants[name], size), flush=True)


class Torchvision:
    """The process that runs torchvision; it works only while it is asked."""

    def __init__(self, python, folder, array):
        command = [python, "-W", "ignore", __file__, "--serve", str(folder), str(array)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.version = self._process.stdout.readline().strip()

    def turn(self, name):
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


# --- both --------------------------------------------------------------------------------------


def photographs_in(folder):
    return sorted(path for path in pathlib.Path(folder).rglob("*") if path.suffix == ".JPEG")


def cifar10(path):
    """The 10,000 test images, five times: as many as are trained on."""
    with np.load(path) as pack:
        data, ends = pack["test_bytes"], pack["test_end"]
    starts = np.concatenate([[0], ends[:-1]])
    images = [
        np.asarray(Image.open(io.BytesIO(data[low:high].tobytes())).convert("RGB"))
        for low, high in zip(starts, ends, strict=True)
    ]
    return np.tile(np.stack(images), (5, 1, 1, 1))


def compete(title, size, contestants, theirs, kind):
    """Takes turns, and prints medians and their ratios to ours."""
    turns = {name: functools.partial(rate, make, size) for name, make in contestants.items()}
    if theirs is not None:
        for end in ("uint8", "float, normalised"):
            turns[f"torchvision, {end}"] = functools.partial(theirs.turn, f"{kind} {end}")
    for make in contestants.values():
        make()
    rates = {name: [] for name in turns}
    for _ in range(TURNS):
        for name, turn in turns.items():
            rates[name].append(turn())
    ours = statistics.median(rates["train.data"])
    print(f"\n{title}")
    for name, found in rates.items():
        median, spread = statistics.median(found), (min(found), max(found))
        print(
            f"    {median:10,.0f} images/s  ({spread[0]:,.0f} to {spread[1]:,.0f})"
            f"  train.data is {ours / median:6.2f}x   {name}"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=pathlib.Path, help="with imagenet_sample, cifar10_webp.npz")
    parser.add_argument("--torchvision", metavar="PYTHON", help="of the other environment")
    arguments = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # The other process inherits it.
    folder = arguments.shared / "imagenet_sample"
    images = cifar10(arguments.shared / "cifar10_webp.npz")
    with tempfile.NamedTemporaryFile(suffix=".npy") as array:
        np.save(array, images)
        array.flush()
        theirs = None
        if arguments.torchvision:
            theirs = Torchvision(arguments.torchvision, folder, array.name)
        else:
            print("torchvision is left out; --help says how to add it.")
        print(f"Pillow {PIL.__version__}; {theirs.version if theirs else ''}; core {core}")
        paths = photographs_in(folder)
        compete(
            f"{len(paths)} ImageNet photographs: crop to {SIDE}, flip, AutoAugment",
            PHOTOGRAPHS,
            photographs_contestants(folder, paths),
            theirs,
            "photographs",
        )
        compete("CIFAR-10: shift, flip", SMALL, small_contestants(images), theirs, "small")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
