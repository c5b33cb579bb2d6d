"""A directory has one owner at a time: the process that holds the lock on its file ``lock``.

The lock is the kernel's and ends with its process, however that ends.
"""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from train.config import ConfigError

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def owned(directory: Path, doing: str) -> Iterator[None]:
    """Keeps other processes from a directory, which exists, while the context lasts.

    Args:
      directory: what is owned.
      doing: what the owner does there, for the message: "training in".

    Raises:
      ConfigError: another process has it; says which, and on which host.
    """
    with _opened(directory / "lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise ConfigError(
                f"{owner} is {doing} {directory}: wait for it, or choose another directory."
            ) from error
        except OSError as error:  # Some network file systems have no locks.
            _log.warning("no lock on %s (%s): start one process there only", directory, error)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _opened(path: Path) -> TextIO:
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error
    return os.fdopen(number, "r+", encoding="utf-8")
