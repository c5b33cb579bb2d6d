"""Local paths, the only ones that runs and data may have.

Orbax could write checkpoints to ``gs://``, but array_record, image folders, the lock of a work
directory and appending to files need a file system. A mounted bucket (Cloud Storage FUSE,
Mountpoint for S3) serves as data.
"""

import argparse
import re
from pathlib import Path

from train.config import ConfigError

# Path() turns two slashes into one. A single letter is a drive.
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")


def path(text: str | Path, what: str) -> Path:
    """Returns a path with ``~`` expanded; ``what`` names it in the error.

    Raises:
      ConfigError: it is an address such as ``gs://bucket/run``; says what to do.

    >>> path("runs/digits", "the work directory").name
    'digits'
    """
    if match := _SCHEME.match(str(text)):
        raise ConfigError(
            f"{what} is {str(text)!r}, but {match[1]}:// is not supported: a run works on paths of "
            "this machine. Copy data here first (gcloud storage cp -r, aws s3 cp --recursive) or "
            "mount the bucket (gcsfuse, mount-s3); keep work directories on a disk, and copy them "
            "when the run has ended."
        )
    return Path(text).expanduser()


def argument(text: str) -> Path:
    """``path`` as the type of an argument for ``argparse``."""
    try:
        return path(text, "the path")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
