"""``python -m vci_jax FILE...``, and ``vci FILE...``: the command as a process."""

import os
import signal
import sys
from typing import Any, NoReturn

from vci_jax.cli import main


def run() -> NoReturn:
    """Runs the command in a process of its own, whose signals it takes.

    A closed pipe ends it in silence, as it does other programs; so does Ctrl-C, with 130 and at
    once: threads of XLA have crashed where Python took its time to end.
    """
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, _interrupted)
    sys.exit(main())


def _interrupted(*_: Any) -> NoReturn:
    os.write(2, b"\n")
    os._exit(130)


if __name__ == "__main__":
    run()
