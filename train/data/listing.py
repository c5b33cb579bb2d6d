"""What image files a folder of class folders holds, remembered from one run to the next.

Listing ImageNet takes a second on a local disk and minutes on a network file system, while looking
at the modification times of its thousand folders is always quick: those times decide whether the
remembered listing still holds, for a folder's time changes with every file that comes or goes. A
folder that changed within the last seconds is not remembered, since a further change might not move
its time.
"""

import functools
import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

from vci_jax.written import replace_text

_log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SETTLED_NS = 2_000_000_000


class Listing(NamedTuple):
    """The image files of each class folder, and how many other files were left out."""

    files: dict[str, list[str]]
    others: int


def list_images(folder: Path) -> Listing:
    """Returns the classes of a folder and their images, in alphabetical order.

    Hidden files and folders are passed over; files with another suffix than those of images are
    counted.
    """
    folder = folder.absolute()
    times = _times(folder)
    place = _place(folder)
    if (remembered := _recall(place, times)) is not None:
        return remembered
    now = time.time_ns()
    listing = _scan(folder, sorted(times.keys() - {""}))
    if max(times.values()) < now - _SETTLED_NS:
        _remember(place, {"times": times, **listing._asdict()})
    return listing


def _times(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        times = {
            entry.name: entry.stat().st_mtime_ns
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".")
        }
    return times | {"": folder.stat().st_mtime_ns}


def _scan(folder: Path, classes: list[str]) -> Listing:
    files, others = {}, 0
    for name in classes:
        with os.scandir(folder / name) as entries:
            seen = [e.name for e in entries if not e.name.startswith(".") and e.is_file()]
        files[name] = sorted(file for file in seen if file.lower().endswith(SUFFIXES))
        others += len(seen) - len(files[name])
    return Listing(files, others)


def _place(folder: Path) -> Path:
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=12).hexdigest()
    return Path.home() / ".cache" / "vci_jax" / "listings" / f"{digest}.json"


def _recall(place: Path, times: dict[str, int]) -> Listing | None:
    """Returns what is remembered, if it was listed at these times and is whole."""
    try:
        remembered = json.loads(place.read_text())
    except (OSError, ValueError):
        return None
    match remembered:
        case {"times": then, "files": dict(files), "others": int(others)} if then == times:
            return Listing(files, others)
    return None


def _remember(place: Path, content: dict) -> None:
    try:
        replace_text(place, json.dumps(content))
    except OSError as error:
        _say_once(place.parent, error.strerror or str(error))


@functools.cache
def _say_once(folder: Path, reason: str) -> None:
    _log.warning("listings cannot be kept in %s (%s): each run lists its folders", folder, reason)
