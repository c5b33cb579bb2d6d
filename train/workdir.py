"""The work directory of a run: its settings, its owner, and what has computed in it.

- ``config.json``: the settings that the directory was made with; a run continues under no others.
- ``lock``: held by the one process that trains here. The kernel releases it with the process.
- ``run.json``: a list with an entry for each start of the training, since a run may move between
  machines: versions, devices, the initial weights, and a description of the images, which is
  compared at the next start.
"""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import jax

from train import local, processes
from train.config import FREE, Config, ConfigError, flatten, flatten_stored
from train.data import Dataset, digest
from train.errors import DamagedRunError, LockedError
from vci_jax.errors import VCIError
from vci_jax.written import read_json_lines, write_json


def work_directory(text: str | Path) -> Path:
    """Returns the path of a work directory, or raises ConfigError if it cannot be made."""
    workdir = local.path(text, "the work directory")
    path = workdir.absolute()
    parent = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    if not parent.is_dir():
        raise ConfigError(
            f"the work directory is {workdir}, and {parent} is a file, or a link that leads "
            "nowhere; choose another."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"the work directory is {workdir}, and {parent} cannot be written by this user; choose "
            "another."
        )
    return workdir


def claim(config: Config, workdir: Path) -> None:
    """Stores the config in a new work directory, or checks it against the one already there.

    Fields that change none of a run's numbers (``config.FREE``) may differ.

    Raises:
      ConfigError: the directory belongs to a run with other settings; names each of them.
    """
    # Through JSON, so that tuples are lists on both sides of the comparison.
    ours = json.loads(json.dumps(dataclasses.asdict(config)))
    path = workdir / "config.json"
    if path.exists():
        _refuse_differences(ours, _read(path), workdir)
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{workdir} cannot be made a work directory: {error}.") from error
    write_json(path, ours)


def read_config(workdir: Path) -> Config:
    """Returns the config of a work directory; a field that it lacks has its default.

    Raises:
      ConfigError: there is none, or it has fields that this version does not know.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"{workdir} has no config.json; give a work directory of python -m train."
        )
    return _build(Config, _read(path), path)


def _build(kind: type, values: dict[str, Any], path: Path) -> Any:
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    if unknown := values.keys() - fields.keys():
        raise ConfigError(
            f"{path} has the fields {', '.join(sorted(unknown))}, which this version does not "
            "know; use the version that made it."
        )
    built = {}
    for name, value in values.items():
        section = fields[name]
        if isinstance(section, type) and dataclasses.is_dataclass(section):
            value = _build(section, value, path)
        built[name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DamagedRunError(
            f"{path} is not valid JSON ({error}); choose another work directory, or delete this "
            "one to start again."
        ) from error


def read_rows(path: Path) -> dict[int, dict[str, Any]]:
    """Returns the rows of a JSON-lines file by line number, without a truncated last line.

    Raises:
      DamagedRunError: another line is not JSON; names the line.
    """
    try:
        return read_json_lines(path)[0]
    except VCIError as error:
        raise DamagedRunError(str(error)) from error


def _refuse_differences(ours: dict[str, Any], theirs: dict[str, Any], workdir: Path) -> None:
    new, old = flatten(ours), flatten_stored(theirs)
    fields = [
        key
        for key in sorted(new | old)
        if new.get(key) != old.get(key) and not key.startswith(FREE)
    ]
    if not fields:
        return
    listing = "\n".join(f"  {key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in fields)
    raise ConfigError(
        f"{workdir} holds a run with other settings:\n{listing}\n"
        "Use the same settings to resume that run, or another directory for a new one."
    )


_log = logging.getLogger(__name__)
# Network file systems show a new file on other hosts after a while.
_SEEN_SECONDS, _LOOK_EVERY_SECONDS = 10.0, 0.2


@contextlib.contextmanager
def entered(config: Config, workdir: Path, dataset: Dataset) -> Iterator[digest.Description]:
    """Claims a work directory and owns it while the context lasts; of several processes, the first.

    Args:
      config: of the run.
      workdir: of the run.
      dataset: its images.

    Yields:
      The description of the images.

    Raises:
      ConfigError: it belongs to a run with other settings or images, or is not one directory for
        all of the processes.
      LockedError: another run is at work there.
    """
    with contextlib.ExitStack() as stack:
        with processes.agreed():
            if processes.is_first():
                claim(config, workdir)
                stack.enter_context(owned(workdir, "training in"))
        check_shared(workdir)
        with processes.agreed():
            claim(config, workdir)  # Now it is there, and must be the same.
        yield same_images(config, workdir, dataset)


def check_shared(directory: Path) -> None:
    """Finds out whether all processes see the directory that the first of them owns.

    Raises:
      ConfigError: one of them sees another, in every process.
    """
    if jax.process_count() == 1:
        return
    owner, deadline = processes.texts(_owner(directory))[0], time.monotonic() + _SEEN_SECONDS
    while (seen := _owner(directory)) != owner and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_SECONDS)
    with processes.agreed():
        if seen != owner:
            raise ConfigError(
                f"{directory.absolute()} on {socket.gethostname()} is not the directory of the "
                f"first process ({owner}): give a directory that all hosts see."
            )


def _owner(directory: Path) -> str:
    try:
        return (directory / "lock").read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def owned(directory: Path, doing: str) -> Iterator[None]:
    """Locks a directory against other processes while the context lasts.

    ``doing`` says in the other processes' error what the owner does: "training in".

    Raises:
      LockedError: another process has the lock; names it and its host.
    """
    with _open_lock(directory / "lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise LockedError(
                f"{owner} is {doing} {directory}: wait for it, or choose another directory."
            ) from error
        except OSError as error:  # Some network file systems have no locks.
            _log.warning("no lock on %s (%s): start one process there only", directory, error)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        os.fsync(file.fileno())  # For the processes of other hosts.
        yield


def _open_lock(path: Path) -> TextIO:
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error
    return os.fdopen(number, "r+", encoding="utf-8")


_PACKAGES = ("vci_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def record_start(
    workdir: Path,
    *,
    step: int,
    images: digest.Description | None = None,
    init: dict[str, Any] | None = None,
) -> None:
    """Adds this process to ``run.json``: a start after ``step``.

    ``images`` describes its data set; ``init`` is the origin of its initial weights.
    """
    entry = describe() | {"step": step}
    entry |= {"images": images} if images else {}
    entry |= {"init": init} if init else {}
    write_json(workdir / "run.json", [*_starts(workdir), entry])


def check_images(workdir: Path, images: digest.Description, *, allowed: bool) -> None:
    """Compares the data set with that of the last start, if ``run.json`` describes it.

    Raises:
      ConfigError: it is another one, which is not ``allowed`` or has another number of classes.
    """
    recorded = _recorded_images(workdir)
    differences = digest.differences(recorded, images) if recorded else []
    if not recorded or not differences:
        return
    problem = f"the data are not those of the run in {workdir}: {'; '.join(differences)}."
    if recorded["classes"] != images["classes"]:
        raise ConfigError(
            f"{problem} Its network has an output for each class: put the images back, or choose "
            "another directory."
        )
    if not allowed:
        raise ConfigError(
            f"{problem} Put the images back, choose another directory, or go on with these: "
            "--data.allow-changes."
        )


def check_init(workdir: Path, init: dict[str, Any]) -> None:
    """Raises ConfigError if an earlier start of the run began with other weights."""
    recorded = [entry["init"] for entry in _starts(workdir) if isinstance(entry.get("init"), dict)]
    if recorded and recorded[-1].get("sha256") != init["sha256"]:
        raise ConfigError(
            f"the weights of --init are not those that the run in {workdir} began with "
            f"({recorded[-1]}): put them back, or choose another directory."
        )


def same_images(config: Config, workdir: Path, dataset: Dataset) -> digest.Description:
    """Returns the description of the images: in all processes one, and that of the last start.

    Raises:
      ConfigError: they are others.
    """
    with processes.agreed():
        images = digest.describe(dataset)
        check_images(workdir, images, allowed=config.data.allow_changes)
    processes.same(images)
    return images


def image_shape(workdir: Path) -> tuple[int, ...] | None:
    """Returns ``(H, W, C)`` of the images of a run, if ``run.json`` has it."""
    recorded = _recorded_images(workdir)
    return tuple(recorded["shape"]) if recorded else None


def _recorded_images(workdir: Path) -> digest.Description | None:
    """Returns the latest description of the data set in ``run.json``, if there is one."""
    entries = (entry.get("images") for entry in reversed(_starts(workdir)))
    return next((images for images in entries if digest.is_description(images)), None)


def _starts(workdir: Path) -> list[dict[str, Any]]:
    try:
        starts = json.loads((workdir / "run.json").read_text())
    except (OSError, ValueError):  # A damaged run.json must not stop the run.
        return []
    return [s for s in starts if isinstance(s, dict)] if isinstance(starts, list) else []


def describe() -> dict[str, Any]:
    """Returns the time, the devices and the versions of packages."""
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
