"""Command line of the probes; it contains no logic.

``python -m probes correlate --published`` judges the published tables, and draws figure 7;
``python -m probes correlate RUN...`` does so for work directories;
``python -m probes figures RUN... --out DIR`` draws every figure of runs.
"""

import sys
from collections.abc import Callable

from probes import correlate_main, figures_main

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "correlate": correlate_main.main,
    "figures": figures_main.main,
}


def main(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; 2 stands for a mistake in the arguments."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is not None:
        return command(arguments[1:])
    asked = bool(arguments) and arguments[0] in ("-h", "--help")
    print(
        f"{__doc__}\nusage: python -m probes {{{','.join(COMMANDS)}}} ...",
        file=sys.stdout if asked else sys.stderr,
    )
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
