"""Worker processes that die: with the training process, or before it."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from train.config import ConfigError

_LOOK_EVERY_SECONDS = 1.0
_GRAIN_SAYS = "Worker process was terminated unexpectedly"


def start_worker(index: int, count: int) -> None:
    """Runs first in each worker process: lets it end when the training process is gone.

    Killed with SIGKILL, that process cannot stop its workers, and they would wait forever for it to
    take their batches.
    """
    del index, count
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
            f"a worker process that reads images died {code}; a code of -9 often means that the "
            "machine ran out of memory. Lower --data.workers in a new directory, or use the same "
            "command again: it goes on from the last checkpoint."
        ) from error
