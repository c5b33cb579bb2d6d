"""``run.json``: on what a run was computed, which ``config.json`` does not say.

A list, with one entry for each time that the training was started or gone on with: a run may be
stopped on one machine and finished on another. What it says of the images is compared with those
that a run finds when it is gone on with; nothing else reads it back.
"""

import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax

from train.config import ConfigError
from train.data import digest
from vci_jax.written import replace_text

_PACKAGES = ("vci_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def note_start(workdir: Path, *, step: int, images: digest.Description | None = None) -> None:
    """Adds this process to ``run.json``.

    Args:
      workdir: of the run.
      step: after which it begins.
      images: the description of its data set.
    """
    entry = describe() | {"step": step} | ({"images": images} if images else {})
    replace_text(workdir / "run.json", json.dumps([*_starts(workdir), entry], indent=2) + "\n")


def refuse_other_images(workdir: Path, images: digest.Description, *, allowed: bool) -> None:
    """Compares a data set with that of the last start, if there was one that noted it.

    Args:
      workdir: of the run.
      images: the description of the data set that is there now.
      allowed: whether it may be another, as long as it has as many classes.

    Raises:
      ConfigError: it is another; says what differs.
    """
    noted = _noted(workdir)
    found = digest.differences(noted[-1], images) if noted else []
    if not found:
        return
    said = f"the data are not those of the run in {workdir}: {'; '.join(found)}."
    if noted[-1]["classes"] != images["classes"]:
        raise ConfigError(
            f"{said} Its network has an output for each class: put the images back, or choose "
            "another directory."
        )
    if not allowed:
        raise ConfigError(
            f"{said} Put the images back, choose another directory, or go on with these: "
            "--data.allow-changes."
        )


def image_shape(workdir: Path) -> tuple[int, ...] | None:
    """Returns ``(H, W, C)`` of the images of a run, if it has noted it."""
    noted = _noted(workdir)
    return tuple(noted[-1]["shape"]) if noted else None


def _noted(workdir: Path) -> list[digest.Description]:
    """Returns the descriptions of the data set at each start that noted one."""
    found = [entry.get("images") for entry in _starts(workdir)]
    return [images for images in found if images and digest.is_description(images)]


def _starts(workdir: Path) -> list[dict[str, Any]]:
    try:
        starts = json.loads((workdir / "run.json").read_text())
    except (OSError, ValueError):  # It is worth less than the run, which must not fail for it.
        return []
    return [e for e in starts if isinstance(e, dict)] if isinstance(starts, list) else []


def describe() -> dict[str, Any]:
    """Returns the time, the devices, and the versions of what computes."""
    device = jax.devices()[0]
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
