"""Checks before the first step of a run: facts for the user, and mistakes in the settings.

Nothing is computed or written, so the corrected command can use the same directory.
"""

import contextlib
import importlib.util
import math
import netrc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train import data, profile, program
from train.config import Config, ConfigError, DataConfig
from train.data.augment import test_transform
from train.data.decode import UnreadableImage
from train.data.sources import unreadable_reason
from train.errors import RunError
from vci_jax import METRICS

UNMEASURED = (
    "memory",
    "python -m train check, with these arguments, compiles a step and says what it takes",
)
"""What a run says of its memory: to lower a step for it would hold up the start."""
_MAX_INITIAL_SHARE = 0.1  # Share of the initial weights in the final average; more is reported.
_CHECKPOINT_OVERHEAD = 1.1  # Bytes of a checkpoint per byte of its arrays.


@contextlib.contextmanager
def as_config_error(problem: str) -> Iterator[None]:
    """Turns a library's error about shapes into ConfigError, introduced by ``problem``."""
    try:
        yield
    except RunError:
        raise
    except (TypeError, ValueError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise ConfigError(f"{problem}: {first}") from error


def settings(config: Config, steps: int, free_bytes: int, state_bytes: int) -> None:
    """Checks settings against each other, the steps of the whole run and the free disk space.

    ``state_bytes`` is the size of one checkpoint.

    Raises:
      ConfigError: a setting is impossible or has no effect; says what to do.
    """
    known = ("accuracy", "loss", *(name for name in METRICS if name != "vci_interval"))
    if config.checkpoint.keep_best and config.checkpoint.best not in known:
        raise ConfigError(
            f"--checkpoint.best is {config.checkpoint.best!r}; known metrics: {', '.join(known)}."
        )
    if steps < config.optim.accumulate:
        raise ConfigError(
            f"--optim.accumulate is {config.optim.accumulate}, but the run has {steps} steps, so "
            "that no weight would ever change; lower it, or raise --epochs."
        )
    if config.log.profile_steps > max(steps - profile.SKIPPED, 0):
        raise ConfigError(
            f"--log.profile_steps is {config.log.profile_steps}, but after the first "
            f"{profile.SKIPPED}, which are not traced, the run has "
            f"{max(steps - profile.SKIPPED, 0)} steps; lower it, or raise --epochs."
        )
    number = config.checkpoint.keep + config.checkpoint.keep_best + 1
    needed = int(number * state_bytes * _CHECKPOINT_OVERHEAD)
    if free_bytes < needed:
        raise ConfigError(
            f"{number} checkpoints need {_size(needed)}, and {_size(free_bytes)} are free on the "
            "disk of the work directory; free some, or lower --checkpoint.keep."
        )
    _wandb(config.log.wandb)


def sizes(config: Config, dataset: data.Dataset) -> None:
    """Raises ConfigError if a setting is too large for the size of the images."""
    height, width, _ = dataset.image_shape
    if config.data.crop == "pad" and config.data.crop_padding >= min(height, width):
        raise ConfigError(
            f"--data.crop_padding is {config.data.crop_padding}, as much as the images have "
            f"pixels ({height} x {width}); lower it."
        )


def memory(state_bytes: int, pass_bytes: int, batch_bytes: int) -> None:
    """Raises ConfigError if a device is too small, even without activations.

    Args:
      state_bytes: size of the weights and the optimiser's state.
      pass_bytes: size of the states of a metrics pass.
      batch_bytes: size of the images of a batch.
    """
    needed, limit = state_bytes + pass_bytes + batch_bytes, device_bytes()
    if needed > limit:
        raise ConfigError(
            f"a device has {_size(limit)}, and needs {_size(needed)} without activations: "
            f"{_size(state_bytes)} for weights and optimiser (--mesh.model divides them), "
            f"{_size(pass_bytes)} for the metrics (lower --eval.blocks) and {_size(batch_bytes)} "
            "for a batch (lower --data.batch_size)."
        )


def batch_shapes(image_shape: tuple[int, ...], rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch of ``rows`` images; a training step does not read ``mask``."""
    return {
        "image": jax.ShapeDtypeStruct((rows, *image_shape), "uint8"),
        "label": jax.ShapeDtypeStruct((rows,), "int32"),
        "mask": jax.ShapeDtypeStruct((rows,), "bool"),
    }


def step_memory(
    built: program.Program, image_shape: tuple[int, ...], rows: int
) -> list[tuple[str, str]]:
    """Returns the memory of a training step, activations included, as titles and values.

    The step is compiled for the present devices. A CPU computes bfloat16 in float32 and fuses less,
    so it needs more than an accelerator would, and more than it has is no error.

    Raises:
      ConfigError: an accelerator has too little memory.
    """
    batch = {k: v for k, v in batch_shapes(image_shape, rows).items() if k != "mask"}
    sizes = built.train_step.lower(built.shapes, batch).compile().memory_analysis()
    if sizes is None:  # Some backends have no such analysis.
        return []
    needed = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    needed += sizes.temp_size_in_bytes + sizes.generated_code_size_in_bytes
    kind, limit = jax.devices()[0].device_kind, device_bytes()
    if needed > limit and jax.default_backend() != "cpu":
        raise ConfigError(
            f"a training step takes {_size(needed)} on a device, and a {kind} has {_size(limit)}: "
            "lower --data.batch_size (and raise --optim.accumulate), or set --mesh.model, or "
            "--model.remat for a ViT."
        )
    memory = f"{_size(needed)} a device in a training step, with activations, of {_size(limit)}"
    return [("memory", f"{memory}; as compiled for {kind}")]


def device_bytes() -> int:
    """Returns the memory of a device; on CPUs, its share of the machine's memory."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return total // jax.local_device_count()


def images(split: data.Split, config: DataConfig, count: int) -> None:
    """Reads and decodes ``count`` evenly spaced images of a split.

    Raises:
      DataError: more images are broken than --data.max_unreadable allows; names them.
    """
    size, transform = split.records.size, test_transform(config)
    for index in np.unique(np.linspace(0, size - 1, min(size, count)).astype(int)).tolist():
        try:
            transform(split.records.read(index)[0])
        except (UnreadableImage, OSError) as error:
            split.unreadable.add({split.records.name_of(index): unreadable_reason(error)})


def size_of(tree: Any) -> int:
    """Returns the total size of the arrays of a tree in bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def free_bytes(workdir: Path) -> int:
    """Returns the space for checkpoints: what is free on the disk, and what old ones take up."""
    existing = next(path for path in (workdir.absolute(), *workdir.absolute().parents)
                    if path.exists())  # fmt: skip
    files = (path for path in (workdir / "checkpoints").rglob("*") if path.is_file())
    return shutil.disk_usage(existing).free + sum(path.stat().st_size for path in files)


def facts(
    config: Config, dataset: data.Dataset, steps_per_epoch: int, state_bytes: int, devices: int
) -> Iterator[tuple[str, str]]:
    """Yields what a run is about to do, as titles and values.

    ``state_bytes`` is the size of the weights and the optimiser's state, before it is divided.
    """
    kind = jax.devices()[0].device_kind
    hosts = jax.process_count()
    yield "devices", f"{devices} x {kind} on {hosts} host{'s' if hosts > 1 else ''}"
    height, width, channels = dataset.image_shape
    sizes = f"{dataset.train.size:,} to train on, {dataset.test.size:,} to measure"
    yield "images", f"{sizes}; {height} x {width} x {channels}, {dataset.num_classes:,} classes"
    left_out = len(dataset.train.unreadable.reasons)
    if left_out:
        yield "left out", f"{left_out:,} images that cannot be read"
    steps = config.epochs * steps_per_epoch
    updates = steps // config.optim.accumulate
    yield "steps", f"{steps_per_epoch:,} an epoch, {steps:,} in all, {updates:,} updates"
    left = config.optim.ema**updates
    if left > _MAX_INITIAL_SHARE:
        advice = math.floor(0.01 ** (1 / updates) * 1e5) / 1e5
        remains = f"after {updates:,} updates the moving average of the weights is still {left:.0%}"
        yield "average", f"{remains} what it began with; --optim.ema {advice:g} leaves 1 %"
    size = config.data.batch_size
    yield "batch", f"{size:,} images, {size // max(devices // config.mesh.model, 1):,} a device"
    share = state_bytes // config.mesh.model
    yield "state", f"{_size(share)} a device (weights and optimiser)"


def _size(count: float) -> str:
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = min(int(np.log10(max(count, 1))) // 3, len(units) - 1)
    return f"{count / 1000**power:.3g} {units[power]}"


def _wandb(project: str) -> None:
    """Raises ConfigError if Weights & Biases is asked for and could not be reached."""
    if not project or os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return
    if "wandb" not in sys.modules and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"--log.wandb is {project!r}, but wandb is not installed: pip install 'vci_jax[wandb]'."
        )
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if any("wandb" in host for host in netrc.netrc().hosts):
            return
    if not os.environ.get("WANDB_API_KEY"):
        raise ConfigError(
            f"--log.wandb is {project!r}, but there is no key: run `wandb login`, set "
            "WANDB_API_KEY, or keep the curves here with WANDB_MODE=offline."
        )
