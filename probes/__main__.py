"""Command line of the probes; it contains no logic.

``python -m probes COMMAND ... [--field value]``, and ``python -m probes COMMAND --help``.
"""

import importlib
import sys
from collections.abc import Sequence

from train import processes
from train.errors import ProcessLostError, RunError
from vci_jax import interrupt

# Command -> (what runs it, what it does). Each is imported when it is asked for.
_COMMANDS = {
    "transfer": (
        "probes.transfer.commands:transfer",
        "score downstream tasks on models, with MLO and MLOG",
    ),
    "features": (
        "probes.transfer.commands:features",
        "compute the features of tasks and keep them on disk",
    ),
    "probe": ("probes.transfer.commands:probe", "probe features that any program has saved"),
    "rank": (
        "probes.page.rank_command:main",
        "which model for these images, and how sure: models in pairs on the same images",
    ),
    "correlate": (
        "probes.figures.correlate_command:main",
        "judge metrics by transfer: runs, or --published",
    ),
    "figures": ("probes.figures.command:main", "draw the figures of the paper from runs"),
    # The older name of ``python -m studies.cifar10``.
    "study": ("studies.cifar10.__main__:main", "the study of docs/study.md: run it, rebuild it"),
    "report": ("probes.page.command:main", "one page for a run or a group of runs"),
}
_USAGE = "usage: python -m probes COMMAND ...\ncommands:\n" + "\n".join(
    f"  {name}: {summary}" for name, (_, summary) in _COMMANDS.items()
)


def main(arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit code: those of ``train.errors``, or 130 for Ctrl-C."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if not arguments or arguments[0] not in _COMMANDS:
        print(f"error: no such command: {' '.join(arguments[:1])!r}.\n{_USAGE}", file=sys.stderr)
        return 2
    module, _, function = _COMMANDS[arguments[0]][0].partition(":")
    run = getattr(importlib.import_module(module), function)
    interrupt.as_exception()
    try:
        return run(list(arguments[1:]))
    except (RunError, ProcessLostError) as error:
        print(f"error: {error}", file=sys.stderr)
        return processes.leave(error.exit_code)
    except KeyboardInterrupt:
        interrupt.at_once()
        print("interrupted; the same command resumes.", file=sys.stderr)
        return processes.leave(130)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
