"""Speed and memory of a run: a stopwatch, peak memory, a trace for XProf or TensorBoard."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import jax

SKIPPED = 10


class Trace:
    """Traces ``steps`` steps after the first ten, which compile and warm up; a context manager."""

    def __init__(self, directory: Path, steps: int) -> None:
        self._directory, self._steps = directory, steps
        self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._end()

    def before(self, step: int) -> None:
        """Starts or stops the trace before a step of this process, counted from 1."""
        if self._steps and step == SKIPPED + 1:
            jax.profiler.start_trace(str(self._directory))
            self._running = True
        elif step == SKIPPED + self._steps + 1:
            self._end()

    def _end(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


class Stopwatch:
    """Images per second of training, without the metrics passes and the compilation."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._images, self._waited = 0, 0.0

    def begin(self) -> None:
        """Starts counting from zero."""
        self._start, self._images, self._waited = time.perf_counter(), 0, 0.0

    def add(self, images: int) -> None:
        """Counts the images of a finished step; the first one, which compiles, only starts it."""
        if self._start is None:
            self.begin()
        else:
            self._images += images

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time in the context as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def rate(self) -> float | None:
        """Returns images per second since ``begin``, or None if there were none."""
        return self._images / self._seconds() if self._images else None

    def wait_share(self) -> float | None:
        """Returns the share of the time since ``begin`` that was spent waiting for data."""
        return self._waited / self._seconds() if self._images else None

    def _seconds(self) -> float:
        assert self._start is not None, "images are counted from begin on"
        return max(time.perf_counter() - self._start, 1e-9)


def device_memory() -> float | None:
    """Returns the peak memory of the first device in bytes, if the device reports it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")
