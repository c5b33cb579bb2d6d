"""Worker processes, and how they end: with the training process, or before it."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from train.config import ConfigError
from train.stop import REQUESTS

_LOOK_EVERY_SECONDS = 1.0
_GRAIN_SAYS = "Worker process was terminated unexpectedly"


def start_worker(index: int, count: int) -> None:
    """Runs first in each worker process: lets it end when the training process is gone, only then.

    Killed with SIGKILL, that process cannot stop its workers, and they would wait forever for it to
    take their batches. Signals that reach the whole group, Ctrl-C and requests to end, are its own
    affair: it needs its workers until it has saved, and stops them itself.
    """
    del index, count
    for request in (signal.SIGINT, *REQUESTS):
        signal.signal(request, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


@contextlib.contextmanager
def spared() -> Iterator[None]:
    """Holds requests to end back while workers start, until they can ignore them.

    A process begins with the signal mask of the thread that starts it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
            "(lower --data.workers, which a run that goes on may change), and -7 that /dev/shm was "
            "(docker run --shm-size=16g). The same command goes on from the last checkpoint."
        ) from error
