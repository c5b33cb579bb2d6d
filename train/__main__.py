"""Command line of the training program; it contains no logic.

``python -m train CONFIG WORKDIR [--section.field value]`` trains, or resumes, the run in WORKDIR.
``python -m train CONFIG --help`` lists every field with its value in that config.
``python -m train GROUP DIR [--run NAME]`` trains each run of a group, one after the other, or one
of them, in ``DIR/NAME``; a run that fails does not stop those after it.
``python -m train check CONFIG WORKDIR ...`` describes the run, reports wrong settings and writes
nothing.
Compiled programs are kept in ``~/.cache/vci_jax/xla``, or in ``$JAX_COMPILATION_CACHE_DIR``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

import configs
from train import config as config_lib
from train import display, local, loop, preemption, processes, runtime
from train.errors import Preempted, ProcessLostError, RunError
from vci_jax import interrupt

_USAGE = "usage: python -m train [check] CONFIG WORKDIR [--run NAME] [--section.field value ...]"


def main(arguments: Sequence[str]) -> int:
    """Runs one training and returns the exit code.

    The codes are those of ``train.errors``, and 130 for Ctrl-C.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    interrupt.as_exception()
    try:
        _train(arguments)
    except Preempted as error:
        print(error, file=sys.stderr)
        return processes.leave(error.exit_code)
    except (RunError, ProcessLostError) as error:
        print(f"error: {error}", file=sys.stderr)
        return processes.leave(error.exit_code)
    except KeyboardInterrupt:
        interrupt.at_once()
        print("interrupted; the same command resumes from the last checkpoint.", file=sys.stderr)
        return processes.leave(130)
    return 0


def program(arguments: Sequence[str]) -> NoReturn:
    """Runs one training and ends the process with the exit code of ``main``."""
    code = main(arguments)
    preemption.ignore_requests()
    sys.exit(code)


def _train(arguments: Sequence[str]) -> None:
    only_check = bool(arguments) and arguments[0] == "check"
    name, workdir, overrides = _split(arguments[only_check:])
    run_one = _check if only_check else _run
    runtime.quiet()
    runtime.cache_programs()
    if not configs.is_group(name):
        config = config_lib.override(configs.get(name), overrides)
        run_one(config, _required(workdir))
        return
    chosen, overrides = _choose(name, overrides)
    runs = {run: config_lib.override(config, overrides) for run, config in chosen.items()}
    directory, failures, kinds = _required(workdir), [], set()
    for run, config in runs.items():
        print(f"{config.name}:", flush=True)
        try:
            run_one(config, directory / run)
        except Preempted:
            raise
        except RunError as error:
            failures.append(f"{config.name}: {error}")
            kinds.add(type(error))
    if failures:
        listing = "\n".join(failures)
        kind = kinds.pop() if len(kinds) == 1 else RunError
        raise kind(f"{len(failures)} of {len(runs)} run(s) failed:\n{listing}")


def _choose(name: str, overrides: list[str]) -> tuple[dict[str, config_lib.Config], list[str]]:
    """Returns the runs of a group that ``--run`` asks for, and the other overrides."""
    runs = configs.runs(name)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run")
    known, rest = parser.parse_known_args(overrides)
    if known.run is None:
        return runs, rest
    if known.run not in runs:
        raise config_lib.ConfigError(f"--run is {known.run!r}; {name} has {', '.join(runs)}.")
    return {known.run: runs[known.run]}, rest


def _required(workdir: Path | None) -> Path:
    if workdir is None:
        raise config_lib.ConfigError(f"no work directory given.\n{_USAGE}")
    return workdir


def _run(config: config_lib.Config, workdir: Path) -> None:
    console = Console()
    with processes.explained():
        rows = loop.train(config, workdir, console)
    if rows:  # Only the first of several processes has rows.
        display.print_summary(console, rows, workdir)


def _check(config: config_lib.Config, workdir: Path) -> None:
    console = Console()
    loop.inspect(config, workdir, console)
    console.print("No mistake was found; nothing was written.")


def _split(arguments: Sequence[str]) -> tuple[str, Path | None, list[str]]:
    if not arguments or arguments[0].startswith("-"):
        raise config_lib.ConfigError(f"no config given.\n{_help()}")
    name, *rest = arguments
    if not rest or rest[0].startswith("-"):
        return name, None, list(rest)
    return name, local.path(rest[0], "the work directory"), list(rest[1:])


def _help() -> str:
    known = "\n".join(f"  {name}: {summary}" for name, summary in configs.summaries().items())
    return (
        f"{_USAGE}\nfields and their values: python -m train CONFIG --help\nknown configs:\n{known}"
    )


if __name__ == "__main__":
    program(sys.argv[1:])
