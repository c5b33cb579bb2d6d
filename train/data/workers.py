"""Worker processes, and how they end: with the training process, or before it."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from train.config import ConfigError

_LOOK_EVERY_SECONDS = 1.0
_GRAIN_SAYS = "Worker process was terminated unexpectedly"


def start_worker(index: int, count: int) -> None:
    """Runs first in each worker process: lets it end when the training process is gone, only then.

    Killed with SIGKILL, that process cannot stop its workers, and they would wait forever for it to
    take their batches. At Ctrl-C it does stop them, so they need not say they were interrupted.
    """
    del index, count
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


@contextlib.contextmanager
def translate_death() -> Iterator[None]:
    """Turns Grain's report of a dead worker into a ConfigError that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(_GRAIN_SAYS):
            raise
        code = str(error).removeprefix(_GRAIN_SAYS).strip().partition(".")[0]
        raise ConfigError(
            f"a worker process that reads images died {code}. Often -9 means that memory was short "
            "(lower --data.workers in a new directory), and -7 that /dev/shm was (docker run "
            "--shm-size=16g). The same command goes on from the last checkpoint."
        ) from error
