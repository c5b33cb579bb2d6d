"""The command ``vci``: files of features in, a table, a comparison, CSV or JSON out.

Runs in float64 throughout; the labels are all there, so class weights and balanced jackknife
blocks come for nothing.
"""

import argparse
import csv
import importlib
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vci_jax
from vci_jax import progress
from vci_jax._report import Report
from vci_jax._table import WIDTH, metrics_text, report_text
from vci_jax.catalogue import ON_PRETRAINING, ON_TARGET
from vci_jax.compare import compare
from vci_jax.errors import VCIError
from vci_jax.files import KINDS, read_arrays, read_features
from vci_jax.geometry import Weighting
from vci_jax.in_memory import measure_arrays

_COMMANDS = {"probe": "vci_jax.probe.command:main"}

_DESCRIPTION = """\
How collapsed are these features? Of one file, prints every collapse metric and
its caveats. Of several files with features of the same samples, prints which
has collapsed more, with an interval of each difference.

examples:
  vci features.npz                      all metrics in a table
  vci before.pt after.h5                which has collapsed more, and how sure
  vci rows.csv --features 'f*' --labels species
  vci *.npz --csv > metrics.csv         a row for each file
  vci probe train.npz test.npz          accuracy of a linear classifier of them"""
_EPILOG = "\n\n".join(
    textwrap.fill(text, WIDTH - 1)
    for text in (
        f"Files: {KINDS}. They hold features [N, D] and labels [N]; optional are head_kernel "
        "[D, K], head_bias [K] and logits [N, K] of the classifier.",
        "Labels are integers or text, or columns of the classifier if there is one; rows with the "
        "label -1 or -100 have none and are left out.",
        f"{ON_PRETRAINING} {ON_TARGET}",
        "Exit codes: 0 done, 2 a mistake in the files or options, 130 interrupted.",
    )
)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of ``vci FILE...``, for shell completion as well."""
    parser = argparse.ArgumentParser(
        prog="vci",
        usage="vci FILE [FILE ...] [options]\n       vci probe TRAIN TEST [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    files: Any = parser.add_argument("files", nargs="*", metavar="FILE", help="a file of features")
    files.complete = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # Of shtab.
    add_keys(parser)
    parser.add_argument(
        "--weighting",
        choices=("sample", "class"),
        default="sample",
        help="whether every sample counts the same, or every class (default: sample)",
    )
    parser.add_argument(
        "--blocks",
        type=int,
        default=10,
        metavar="B",
        help="jackknife blocks of the intervals; 1 for no interval (default: 10)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--csv", action="store_true", help="print CSV with a row for each file")
    form.add_argument("--metrics", action="store_true", help="list all metrics and stop")
    form.add_argument("--version", action="version", version=f"vci_jax {vci_jax.__version__}")
    return parser


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Adds ``--features`` and ``--labels``, the names of the arrays in a file."""
    for name, example in (("features", "'f*' for the columns f0, f1, ..."), ("labels", "y")):
        parser.add_argument(
            f"--{name}",
            metavar="KEY",
            help=f"name of the array or column with the {name}, e.g. {example} "
            "(default: guessed from the usual names)",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, measures, prints; returns the exit code (2 for bad input)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in _COMMANDS:
        module, _, function = _COMMANDS[arguments[0]].partition(":")
        run, arguments = getattr(importlib.import_module(module), function), arguments[1:]
    else:
        run = _measure_files
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        print(f"vci_jax: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print("vci_jax: not enough memory: measure fewer rows or columns.", file=sys.stderr)
        return 2
    return 0


def _measure_files(arguments: Sequence[str]) -> None:
    """Prints the report of one file, or the comparison of several."""
    options = parser().parse_intermixed_args(arguments)
    if options.metrics:
        print(metrics_text())
        return
    if not options.files:
        parser().error("give at least one FILE; vci --help says what it may be")
    keys = {"features": options.features, "labels": options.labels}
    if len(options.files) == 1:
        (path,) = options.files
        try:
            progress.begin("reading", _named(path))
            arrays = read_arrays(path, **keys)
            progress.begin("measuring", path)
            report = _measure(path, arrays, options.weighting, options.blocks)
        finally:
            progress.end()
        text = report.to_json() if options.json else report_text(report, path)
        reports: Mapping[str, Report] = {path: report}
    else:
        compared = _compare(options.files, keys, options.weighting, options.blocks)
        text = compared.to_json() if options.json else repr(compared)
        reports = compared.reports
    if options.csv:
        _print_csv(reports)
    else:
        print(text)


def _named(path: str) -> str:
    """A file and its size, if it has one."""
    size = Path(path).stat().st_size / 2**20 if Path(path).is_file() else 0
    return f"{path}, {size:,.0f} MiB" if size >= 1 else path


def _measure(path: str, arrays: Mapping[str, Any], weighting: Weighting, blocks: int) -> Report:
    """The report of the arrays of a file; NC3 and NC4 if they have a classifier."""
    kernel, bias = arrays.get("head_kernel"), arrays.get("head_bias")
    if kernel is None and bias is not None:
        raise VCIError(f"{path}: head_bias without head_kernel: a classifier needs its kernel.")
    try:
        return measure_arrays(
            arrays["features"],
            arrays["labels"],
            classifier=None if kernel is None else (kernel, bias),
            logits=arrays.get("logits"),
            blocks=blocks,
            weighting=weighting,
        )
    except VCIError as error:
        raise VCIError(f"{path}: {error}") from None


def _compare(
    paths: Sequence[str], keys: Mapping[str, str | None], weighting: Weighting, blocks: int
) -> vci_jax.Comparison:
    """Compares the files, whose labels must be the same."""
    if len(set(paths)) < len(paths):
        raise VCIError(f"the same file twice: {', '.join(paths)}.")
    sets = {}
    try:
        for place, path in enumerate(paths, 1):
            progress.begin("reading", f"{_named(path)} ({place} of {len(paths)})")
            sets[path] = read_features(path, **keys)
        progress.begin("comparing", f"{len(paths)} files")
        return compare(sets, blocks=blocks, weighting=weighting)
    finally:
        progress.end()


def _print_csv(reports: Mapping[str, Report]) -> None:
    """A header, and a row of numbers for each file; undefined values are nan."""
    rows = [
        {"file": path} | {key: report[key] for key in ("samples", "classes", "dim")}
        | report.scalars()
        for path, report in reports.items()
    ]  # fmt: skip
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(sys.stdout, names, restval="nan", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
