"""``run.json``: on what a run was computed, which ``config.json`` does not say.

A list, with one entry for each time that the training was started or gone on with: a run may be
stopped on one machine and finished on another. Nothing reads it back to compute anything.
"""

import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax

from vci_jax.written import replace_text

_PACKAGES = ("vci_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def note_start(workdir: Path, *, step: int) -> None:
    """Adds this process to ``run.json``.

    Args:
      workdir: of the run.
      step: after which it begins.
    """
    path = workdir / "run.json"
    try:
        starts = json.loads(path.read_text()) if path.exists() else []
    except json.JSONDecodeError:
        starts = []  # It is worth less than the run, which must not fail for it.
    replace_text(path, json.dumps([*starts, describe() | {"step": step}], indent=2) + "\n")


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
