"""A look at the data before a long run: the images as the network gets them, and their speed.

``python -m train.data CONFIG [SHEET.png] [--section.field value]`` writes a sheet of augmented
training images with the names of their classes (default: ``CONFIG_data.png``), and prints images
per second stage by stage. CONFIG is an experiment, or ``GROUP/RUN``.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import configs
from train import config as config_lib
from train import data, mesh, runtime
from train.data import preview
from train.errors import RunError

_USAGE = "usage: python -m train.data CONFIG [SHEET.png] [--section.field value ...]"
_IMAGES = 48


def main(arguments: Sequence[str]) -> int:
    """Shows the data of a config and returns the exit code."""
    if not arguments or arguments[0].startswith("-"):
        print(f"{_USAGE}\nknown configs: {', '.join(configs.names())}", file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    try:
        _show(*_parse(arguments))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(arguments: Sequence[str]) -> tuple[config_lib.Config, Path]:
    name, *rest = arguments
    group, _, run = name.partition("/")
    if run and run not in configs.runs(group):
        raise config_lib.ConfigError(f"{group} has the runs {', '.join(configs.runs(group))}.")
    path = Path(f"{name.replace('/', '_')}_data.png")
    if rest and not rest[0].startswith("-"):
        path, *rest = Path(rest[0]), *rest[1:]
    config = configs.runs(group)[run] if run else configs.get(name)
    return config_lib.override(config, rest, "python -m train.data {} [SHEET.png]"), path


def _show(config: config_lib.Config, path: Path) -> None:
    runtime.quiet()
    console, dataset = Console(), data.load(config.data)
    images, labels = _first_images(config, dataset)
    names = [dataset.classes[label] for label in labels]
    height, width = images.shape[1:3]
    title = f"{config.name}: training images of {config.data.source}, {height} x {width}"
    try:
        preview.contact_sheet(images, names, title).save(path)
    except (OSError, ValueError) as error:
        raise config_lib.ConfigError(f"{path} cannot be written: {error}.") from error
    console.print(f"Images: {path}", highlight=False, soft_wrap=True)
    if config.data.mix.mixup or config.data.mix.cutmix:
        console.print("(before they are mixed, which happens on the device)")
    put = partial(mesh.put_batch, mesh=mesh.make_mesh())
    _print_speed(console, dataset, preview.measure(config, dataset, put))


def _first_images(
    config: config_lib.Config, dataset: data.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first training images of the run."""
    stream = data.training_batches(dataset.train, config.data, config.seed)
    batches = [next(stream) for _ in range(-(-_IMAGES // config.data.batch_size))]
    stream.close()
    images, labels = (
        np.concatenate([b[name] for b in batches])[:_IMAGES] for name in ("image", "label")
    )
    return images, labels


def _print_speed(console: Console, dataset: data.Dataset, measured: list[preview.Stage]) -> None:
    sizes = f"{dataset.train.size:,} to train on, {dataset.test.size:,} to measure"
    table = Table(title=f"{sizes}, {dataset.num_classes:,} classes")
    table.add_column("stage")
    table.add_column("images/s", justify="right")
    table.add_column("what")
    for stage in measured:
        rate = stage.images_per_second
        table.add_row(stage.name, "-" if rate is None else f"{rate:,.0f}", stage.what)
    console.print(table)
    seconds = dataset.train.size / next(r for name, r, _ in measured if name == "batch" and r)
    console.print(f"An epoch takes at least {seconds:,.1f} s on this machine.", highlight=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
