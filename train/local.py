"""Paths of this machine's file systems: the only ones that runs and data may have.

Orbax could write checkpoints to ``gs://``, but array_record, image folders, the lock of a work
directory and the appending of rows could not follow it there. A bucket that is mounted (Cloud
Storage FUSE, Mountpoint for S3) serves as data.
"""

import argparse
import re
from pathlib import Path

from train.config import ConfigError

# Path() makes one slash of two. A single letter is a drive.
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")


def path(text: str | Path, what: str) -> Path:
    """Returns a path with ``~`` for the home directory resolved.

    Args:
      text: as it is given.
      what: it is, for the message, as "the work directory".

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
    """``path`` as the type of an argument for ``argparse``.

    Raises:
      argparse.ArgumentTypeError: as ``path``.
    """
    try:
        return path(text, "the path")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
