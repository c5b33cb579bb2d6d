"""One self-contained HTML page for a run, or for a group of runs.

``python -m probes report DIR... [--out FILE] [--watch]`` reads the work directories, or all those
below a directory, and writes ``report.html``: into the work directory of a single run, else into
the common parent directory. The page needs no network and no server. ``--watch`` rewrites it
whenever a run has a new record, and an open page reloads.
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

# Files of a work directory that a page depends on.
_SOURCES = ("config.json", "metrics.jsonl", "transfer.jsonl", "per_class.json", "pictures.jsonl",
            "run.json")  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Writes the page and returns the exit code."""
    options = _parse(arguments)
    try:
        runs = read_runs(options.directories)
        out = options.out or default_path(runs)
        if options.watch:
            try:
                watch(options.directories, out, options.seconds)
            except KeyboardInterrupt:
                write(read_runs(options.directories), out)  # An open page stops reloading.
        else:
            write(runs, out)
    except (ValueError, OSError) as error:
        print(f"error: {escape.prose(str(error))}", file=sys.stderr)
        return 2
    print(f"Report: {escape.line(str(out))}")
    return 0


def default_path(runs: Sequence[Run]) -> Path:
    """Returns the path of the page of runs: in their common directory."""
    paths = [run.path.resolve() for run in runs]
    return Path(os.path.commonpath(paths)) / "report.html"


def write(runs: Sequence[Run], out: Path, *, refresh: int = 0) -> None:
    """Replaces the page atomically."""
    group = dict.fromkeys(run.group for run in runs)
    title = runs[0].name if len(runs) == 1 else " and ".join(group)
    replace_text(out, render(runs, title=title, refresh=refresh))


def watch(directories: Sequence[Path], out: Path, seconds: int) -> None:
    """Writes the page whenever its sources change; the last page, without reloads, at the end."""
    before = None
    while True:
        runs = read_runs(directories)  # Includes new runs.
        now, finished = _stamps(runs), all(map(is_finished, runs))
        if now != before or finished:
            write(runs, out, refresh=0 if finished else seconds)
            before = now
        if finished:
            return
        time.sleep(seconds)


def _stamps(runs: Sequence[Run]) -> list[tuple[str, int, int]]:
    files = [run.path / name for run in runs for name in _SOURCES]
    return [(str(f), s.st_mtime_ns, s.st_size) for f in files if f.exists() for s in [f.stat()]]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m probes report", description=(__doc__ or "").partition("\n")[0]
    )
    help_ = "work directory of a run, or a directory above several"
    parser.add_argument("directories", nargs="+", type=local.argument, metavar="DIR", help=help_)
    parser.add_argument("--out", type=local.argument, help="file to write the page to")
    help_ = "rewrite the page whenever a run has a new record"
    parser.add_argument("--watch", action="store_true", help=help_)
    help_ = "seconds between two checks of --watch (default: 5)"
    parser.add_argument("--seconds", type=int, default=5, help=help_)
    options = parser.parse_args(arguments)
    if options.seconds < 1:
        parser.error(f"--seconds is {options.seconds}; it must be at least 1.")
    return options
