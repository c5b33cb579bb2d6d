"""The progress of a command in one terminal line: action, share done, time left.

    reading big.csv, 1,240 MiB 43 %, 12 s left ...

Functions that may take long call ``advance``, which does nothing unless a command has called
``begin``. Known instance: ``tqdm``.
"""

import os
import sys
import time
from typing import NamedTuple


class _Stage(NamedTuple):
    """An action, its subject, when it began, and when it was last shown."""

    action: str
    subject: str
    start: float
    shown: float


_stage: _Stage | None = None
_EVERY_SECONDS = 0.2


def begin(action: str, subject: str) -> None:
    """Shows on stderr, if that is a terminal, an action such as ``"reading"`` and its subject."""
    global _stage
    if sys.stderr.isatty():
        now = time.monotonic()
        _stage = _Stage(action, subject, now, now)
        _write(f"{action} {subject}", " ...")


def advance(action: str, done: int, of: int) -> None:
    """Shows the progress of an action, at most five times a second.

    The action is that of ``begin``, or the next one with the same subject.
    """
    global _stage
    if _stage is None:
        return
    if action != _stage.action:
        begin(action, _stage.subject)
    now = time.monotonic()
    if now - _stage.shown < _EVERY_SECONDS or not 0 < done <= of:
        return
    _stage = _stage._replace(shown=now)
    spent = now - _stage.start
    left = f", {_duration(spent * (of - done) / done)} left" if spent > 1 else ""
    _write(f"{action} {_stage.subject}", f" {100 * done // of} %{left} ...")


def about(subject: str) -> None:
    """Sets the subject of the next action."""
    global _stage
    if _stage is not None:
        _stage = _stage._replace(action="", subject=subject)


def end() -> None:
    """Clears the line."""
    global _stage
    if _stage is not None:
        _write("", "")
    _stage = None


def _write(text: str, tail: str) -> None:
    """Replaces the line, cut to one of the terminal: of more, only the last could be replaced."""
    room = max(0, _width() - 1 - len(tail))
    print(f"\r\x1b[K{text[:room]}{tail}", end="", file=sys.stderr, flush=True)


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or sys.maxsize
    except OSError:
        return sys.maxsize


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min"
