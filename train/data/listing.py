"""What image files a folder of class folders holds.

Every run lists its folders anew: nothing is remembered, so no answer can be out of date. The 1.3
million files of ImageNet take seconds on a local disk; no file is looked at, links aside.
"""

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import features

from train.config import ConfigError

# Those of torchvision's ImageFolder, and two more that the decoder knows.
SUFFIXES: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".pgm",
    ".ppm",
    ".tif",
    ".tiff",
)
if features.check("avif"):
    SUFFIXES += (".avif",)

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")


class Listing(NamedTuple):
    """The image files of each class folder, and how many other files were left out."""

    files: dict[str, list[str]]
    others: int


def list_images(folder: Path) -> Listing:
    """Returns the classes of a folder and their images, in alphabetical order.

    Hidden files and folders are passed over; files with another suffix than those of images are
    counted, and so are images outside of the class folders. A link that leads nowhere is listed as
    an image, so that it counts as one that cannot be read.

    Raises:
      ConfigError: a folder cannot be read, or two have one name in different forms of Unicode.
    """
    classes, others = [], 0
    for entry in _entries(folder):
        lost = _leads_nowhere(entry)
        if lost and not is_image(entry.name):
            raise ConfigError(f"{entry.path} is a link that leads nowhere; mend or remove it.")
        if not lost and entry.is_dir():
            classes.append(entry.name)
        else:
            others += is_image(entry.name)
    _refuse_twins(folder, classes)
    files = {}
    for name in sorted(classes):
        seen = [e for e in _entries(folder / name) if _leads_nowhere(e) or e.is_file()]
        files[name] = sorted(entry.name for entry in seen if is_image(entry.name))
        others += len(seen) - len(files[name])
    return Listing(files, others)


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(SUFFIXES)


def same_form(name: str) -> str:
    """Returns a name in the one form of Unicode (NFC) in which names are compared."""
    return unicodedata.normalize("NFC", name)


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"the folder {folder} cannot be read: {error.strerror}.") from error


def _leads_nowhere(entry: os.DirEntry) -> bool:
    if entry.is_symlink():
        with contextlib.suppress(OSError):
            entry.stat()
            return False
        return True
    return False


def _refuse_twins(folder: Path, classes: list[str]) -> None:
    forms: dict[str, str] = {}
    for name in classes:
        twin = forms.setdefault(same_form(name), name)
        if twin != name:
            raise ConfigError(
                f"{folder} holds the class {name!r} twice, written in two forms of Unicode (NFC "
                "and NFD); put the images of both into one folder."
            )
