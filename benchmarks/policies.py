"""What a host's core spends on an image of ImageNet's recipes: decoding and crop, policy, erasing.

    taskset -c 0 python -m benchmarks.policies ../shared/data/imagenet_sample

Each contestant makes every photograph of the folder ready for the batch, from its bytes, in one
thread of one process, four times with other random numbers, in turns. Reported is the processor
time an image, the least of the rounds, which other work on the machine disturbs least, and the
part of it that is due to the policy or to erasing. ``benchmarks.data`` times whole batches.
"""

import functools
import pathlib
import sys
import time

import numpy as np

from train.config import DataConfig
from train.data import augment

ROUNDS, DRAWS, SIDE = 9, 4, 224
BICUBIC = {"interpolation": "bicubic"}
# Name -> (settings beyond the random crop and the flip, the contestant without the policy).
CONTESTANTS = {
    "bilinear": ({}, ""),
    "bilinear, AutoAugment (ResNet)": ({"policy": "autoaugment_imagenet"}, "bilinear"),
    "bilinear, RandAugment 2, 9": ({"policy": "randaugment"}, "bilinear"),
    "bicubic": (BICUBIC, ""),
    "bicubic, RandAugment 2, 9": (BICUBIC | {"policy": "randaugment"}, "bicubic"),
    "bicubic, erasing": (BICUBIC | {"erasing": 0.25}, "bicubic"),
    "bicubic, AutoAugment": (BICUBIC | {"policy": "autoaugment_imagenet"}, "bicubic"),
    "bicubic, AutoAugment, erasing (DeiT)": (
        BICUBIC | {"policy": "autoaugment_imagenet", "erasing": 0.25},
        "bicubic",
    ),
}


def transformed(images, changes):
    """Makes all images; each time with the same crops and operations."""
    transform = augment.training_transform(
        DataConfig(image_size=SIDE, crop="random_resized", flip=True, **changes)
    )
    for number, image in enumerate(images * DRAWS):
        transform(image, np.random.default_rng(number))


def main(folder):
    """Prints the table."""
    images = [path.read_bytes() for path in sorted(pathlib.Path(folder).rglob("*.[jJ][pP]*"))]
    work = {
        name: functools.partial(transformed, images, changes)
        for name, (changes, _) in CONTESTANTS.items()
    }
    least = dict.fromkeys(work, np.inf)
    for _ in range(ROUNDS):
        for name, make in work.items():
            start = time.process_time()
            make()
            spent = (time.process_time() - start) / (len(images) * DRAWS)
            least[name] = min(least[name], spent)
    print(f"{len(images)} photographs, {ROUNDS} rounds, least processor time")
    print("| recipe | ms an image | images/s a core | part |\n|---|---|---|---|")
    for name, spent in least.items():
        _, base = CONTESTANTS[name]
        part = f"{1 - least[base] / spent:.0%}" if base else ""
        print(f"| {name} | {1e3 * spent:.2f} | {1 / spent:.0f} | {part} |")


if __name__ == "__main__":
    main(sys.argv[1])
