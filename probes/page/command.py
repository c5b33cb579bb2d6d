"""One self-contained HTML page for a run, or for a group of runs.

``python -m probes report DIR... [--out FILE] [--watch]`` reads the work directories, or all those
below a directory, and writes ``report.html``: into the work directory of a single run, into the
directory that the runs have in common otherwise. The page needs no network and no server. With
``--watch`` it is written again whenever a run has recorded something, and an open page follows.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from probes.analysis.runs import Run, read_runs
from probes.page.render import render
from probes.page.tables import is_finished
from probes.transfer import escape
from train import local
from vci_jax.written import replace_text

# What a page is made of.
_SOURCES = (
    "config.json",
    "metrics.jsonl",
    "transfer.jsonl",
    "per_class.json",
    "pictures.jsonl",
    "run.json",
)


def main(arguments: Sequence[str]) -> int:
    """Writes the page and returns the exit code: 2 for directories that hold no run."""
    options = _parse(arguments)
    try:
        runs = read_runs(options.directories)
        out = options.out or place(runs)
        if options.watch:
            _watch_until_asked(options.directories, out, options.seconds)
        else:
            write(runs, out)
    except (ValueError, OSError) as error:
        print(f"error: {escape.prose(str(error))}", file=sys.stderr)
        return 2
    print(f"Report: {escape.line(str(out))}")
    return 0


def place(runs: Sequence[Run]) -> Path:
    """Returns where the page of some runs belongs."""
    paths = [run.path.resolve() for run in runs]
    return Path(os.path.commonpath(paths)) / "report.html"


def write(runs: Sequence[Run], out: Path, *, refresh: int = 0) -> None:
    """Replaces the page; whoever opens it meanwhile sees the old one or the new one, whole."""
    group = dict.fromkeys(run.group for run in runs)
    title = runs[0].name if len(runs) == 1 else " and ".join(group)
    replace_text(out, render(runs, title=title, refresh=refresh))


def watch(directories: Sequence[Path], out: Path, seconds: int) -> None:
    """Writes the page whenever its sources change, until every run is finished.

    The last page no longer reloads itself.
    """
    before = None
    while True:
        runs = read_runs(directories)  # Including runs that started meanwhile.
        now, finished = _stamps(runs), all(map(is_finished, runs))
        if now != before or finished:
            write(runs, out, refresh=0 if finished else seconds)
            before = now
        if finished:
            return
        time.sleep(seconds)


def _watch_until_asked(directories: Sequence[Path], out: Path, seconds: int) -> None:
    try:
        watch(directories, out, seconds)
    except KeyboardInterrupt:
        write(read_runs(directories), out)  # An open page stops following.


def _stamps(runs: Sequence[Run]) -> list[tuple[str, int, int]]:
    files = [run.path / name for run in runs for name in _SOURCES]
    return [(str(f), s.st_mtime_ns, s.st_size) for f in files if f.exists() for s in [f.stat()]]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m probes report", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "directories",
        nargs="+",
        type=local.argument,
        metavar="DIR",
        help="work directory of a run, or a directory above several",
    )
    parser.add_argument("--out", type=local.argument, help="file to write the page to")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="rewrite the page whenever a run has recorded something",
    )
    parser.add_argument(
        "--seconds", type=int, default=5, help="seconds between two checks of --watch (default: 5)"
    )
    options = parser.parse_args(arguments)
    if options.seconds < 1:
        parser.error(f"--seconds is {options.seconds}; it must be at least 1.")
    return options
