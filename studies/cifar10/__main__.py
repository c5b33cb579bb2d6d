"""``python -m studies.cifar10 DIR``: the study, from its raw files, or from nothing.

    python -m studies.cifar10 docs/study --readme README.md               # rebuild docs/study.md
    python -m studies.cifar10 docs/study --data-dir DIR --work-dir RUNS   # first, what is missing

DIR holds the raw numbers of every run, in ``runs/seed_S/NAME``, and the figures; the text is
``DIR.md``. What is missing is trained and probed two runs at a time (``--jobs``), each on one core,
in ``RUNS/seed_S/NAME``, where the checkpoints stay. It can be stopped at any moment; the same
command goes on. The data directory has CIFAR-10 and CIFAR-100 prepared by TFDS, and a folder
``sign_digits`` of photographs.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import configs
from studies.cifar10 import document, jobs, records
from train.config import ConfigError

GROUP = "cifar10_study"


def main(arguments: Sequence[str]) -> int:
    """Runs the study and returns the exit code.

    1 stands for runs that could not be finished, or, with ``--check``, for a text that is not what
    the raw files say; 2 for a mistake in the settings; 75 for SIGTERM, 130 for Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        return _study(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was.", file=sys.stderr)
        return 130


def _study(options: argparse.Namespace) -> int:
    code = 0
    if options.data_dir or options.work_dir:
        code = _run(options)
    try:
        evidence = records.read(options.study)
        texts = document.texts(evidence, options.study, options.readme)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    if options.check:
        return max(
            code, *(document.compare(path, text, sys.stderr) for path, text in texts.items())
        )
    for path in document.draw(evidence, options.study):
        print(path)
    for path, text in texts.items():
        path.write_text(text)
        print(path)
    return code


def _run(options: argparse.Namespace) -> int:
    if not (options.data_dir and options.work_dir):
        raise ConfigError("--data-dir and --work-dir are needed together, to train and to probe.")
    places = jobs.Places(options.study, options.work_dir, options.data_dir)
    known = configs.runs(GROUP)
    if unknown := sorted(set(options.run) - set(known)):
        raise ConfigError(f"--run {', '.join(unknown)}: {GROUP} has {', '.join(known)}.")
    wanted = [
        jobs.Job(GROUP, name, seed, known[name].epochs)
        for seed in range(options.seeds)
        for name in known
        if not options.run or name in options.run
    ]
    return jobs.work_off(wanted, places, options.jobs, Console())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.cifar10",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, metavar="DIR", help="of the raw files and figures")
    parser.add_argument("--data-dir", type=Path, help="where the images are")
    parser.add_argument("--work-dir", type=Path, help="where networks are trained and kept")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of each run")
    parser.add_argument("--run", nargs="+", default=(), help="only these runs of the group")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, a core each"
    )
    parser.add_argument("--readme", type=Path, help="a file whose part about the study is made too")
    parser.add_argument("--check", action="store_true", help="compare the text, write nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
