"""Ctrl-C in the commands: one line and exit code 130.

Importing JAX takes seconds. An exception in the middle of it ends in a traceback, or in an
``ImportError`` that hides it, or crashes threads of XLA. So ``vci_jax`` imports this module before
JAX, and in a process of its own commands Ctrl-C ends the process at once until ``as_exception``.
In any other program that imports ``vci_jax`` nothing changes.

Known instance: ``mercurial.dispatch``.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

_COMMANDS = ("vci_jax", "train", "probes")
_SCRIPTS = ("vci", "vci.exe")


def at_once() -> None:
    """From now on Ctrl-C ends the process at once, with 130; in the main thread."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _end)


def as_exception() -> None:
    """From now on Ctrl-C raises ``KeyboardInterrupt`` again, for what must be tidied up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: Any) -> NoReturn:
    os.write(2, b"\ninterrupted.\n" if os.isatty(2) else b"interrupted.\n")
    os._exit(130)


def _is_command() -> bool:
    """Whether this process was started as ``vci`` or ``python -m`` one of the packages."""
    if sys.argv[:1] == ["-m"]:  # While the package is imported that holds the command.
        arguments = sys.orig_argv
        module = arguments[arguments.index("-m") + 1] if "-m" in arguments else ""
    else:
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        module = spec.name if spec else ""
    script = Path(sys.argv[0]).name if sys.argv else ""
    return module.partition(".")[0] in _COMMANDS or script in _SCRIPTS


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    at_once()
