"""A trace of some training steps, for XProf or TensorBoard's profile tab."""

from pathlib import Path
from typing import Self

import jax

SKIPPED = 10


class Trace:
    """Traces some steps, once those that compile and warm up are over; a context manager."""

    def __init__(self, directory: Path, steps: int) -> None:
        """Takes where the trace goes, and how many steps it has; 0 makes none."""
        self._directory, self._steps = directory, steps
        self._on = False

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Ends a trace that is still on."""
        self._end()

    def before(self, step: int) -> None:
        """Begins, or ends, before the step of this number in this process, counted from 1."""
        if self._steps and step == SKIPPED + 1:
            jax.profiler.start_trace(str(self._directory))
            self._on = True
        elif step == SKIPPED + self._steps + 1:
            self._end()

    def _end(self) -> None:
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
