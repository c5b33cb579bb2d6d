"""A look at the data before a long run: the images as the network gets them, and their speed.

``python -m train.data CONFIG [SHEET.png] [--section.field value]`` writes a sheet of augmented
training images with the names of their classes (default: ``CONFIG_data.png``), and prints images
per second stage by stage. CONFIG is an experiment, or ``GROUP/RUN``.

``python -m train.data prepare CONFIG FOLDER`` writes a copy of the images with a shorter side of at
most 320 pixels, which costs a host less to decode; ``--data.source folder:FOLDER`` reads it.
"""

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import configs
from train import config as config_lib
from train import data, local, mesh, runtime
from train.data import preview, reduced
from train.errors import Preempted, RunError
from train.preemption import REQUESTS, ignore_requests
from vci_jax import interrupt, processors

_USAGE = """\
usage: python -m train.data CONFIG [SHEET.png] [--section.field value ...]
       python -m train.data prepare CONFIG FOLDER [--short-side 320] [--quality 95] [--workers N]
                                    [--section.field value ...]"""
_IMAGES = 48


def main(arguments: Sequence[str]) -> int:
    """Shows or copies the data of a config and returns the exit code."""
    if not arguments or arguments[0].startswith("-"):
        print(f"{_USAGE}\nknown configs: {', '.join(configs.names())}", file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    try:
        if arguments[0] == "prepare":
            _prepare(arguments[1:])
        else:
            _show(*_parse(arguments))
    except Preempted as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 130
    return 0


def _config(name: str, overrides: list[str], program: str) -> config_lib.Config:
    """Returns the config of a name, or ``GROUP/RUN``, with overrides."""
    group, _, run = name.partition("/")
    if run and run not in configs.runs(group):
        raise config_lib.ConfigError(f"{group} has the runs {', '.join(configs.runs(group))}.")
    config = configs.runs(group)[run] if run else configs.get(name)
    return config_lib.override(config, overrides, program)


def _parse(arguments: Sequence[str]) -> tuple[config_lib.Config, Path]:
    name, *rest = arguments
    path = Path(f"{name.replace('/', '_')}_data.png")
    if rest and not rest[0].startswith("-"):
        path, *rest = Path(rest[0]), *rest[1:]
    return _config(name, rest, "python -m train.data {} [SHEET.png]"), path


def _prepare(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.data prepare",
        usage="%(prog)s CONFIG FOLDER [options] [--section.field value ...]",
        description="Writes a copy of a config's images that costs less to decode.",
        allow_abbrev=False,
    )
    parser.add_argument("config", metavar="CONFIG", help="an experiment, or GROUP/RUN")
    parser.add_argument("folder", metavar="FOLDER", help="of the copy; it is made")
    parser.add_argument("--short-side", type=int, default=320, help="in pixels (default: 320)")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEGs (default: 95)")
    parser.add_argument(
        "--workers",
        type=int,
        default=processors.available(),
        help="processes (default: one for each core that may be used)",
    )
    options, overrides = parser.parse_known_args(arguments)
    config = _config(options.config, overrides, "python -m train.data prepare {} FOLDER")
    root = local.path(options.folder, "the folder of the copy")
    runtime.quiet()
    settings = reduced.Settings(options.short_side, options.quality, options.workers)
    with _requests_as_interrupts():
        summary = reduced.prepare(config.data, root, settings)
    print(f"{summary.train:,} images to train on and {summary.test:,} to measure are in {root}.")
    if summary.unreadable:
        print(f"{summary.unreadable:,} could not be read and are left out.")
    print(f"Use them with {summary.arguments}")


@contextlib.contextmanager
def _requests_as_interrupts() -> Iterator[None]:
    """Lets Ctrl-C and a scheduler's requests to end raise KeyboardInterrupt."""
    interrupt.as_exception()
    old = {r: signal.getsignal(r) for r in REQUESTS if signal.getsignal(r) is not signal.SIG_IGN}
    for request in old:
        signal.signal(request, signal.default_int_handler)
    try:
        yield
    finally:
        for request, handler in old.items():
            signal.signal(request, handler)


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
    code = main(sys.argv[1:])
    ignore_requests()
    sys.exit(code)
