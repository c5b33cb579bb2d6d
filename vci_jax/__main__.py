"""``python -m vci_jax FILE...``, and ``vci FILE...``: the command as a process."""

import signal
import sys
from typing import NoReturn

from vci_jax import interrupt
from vci_jax.cli import main


def run() -> NoReturn:
    """Runs the command as the main program of a process, with its signal handlers.

    A closed pipe ends it in silence, as it does other programs; Ctrl-C with one line and 130, at
    once: threads of XLA have crashed where Python took its time to end.
    """
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    interrupt.at_once()
    sys.exit(main())


if __name__ == "__main__":
    run()
