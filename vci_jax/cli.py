"""The command line: features in ``.npz`` files, a table, a comparison or one JSON object out.

Runs in float64 throughout; the labels are all there, so class weights and balanced jackknife
blocks come for nothing.
"""

import argparse
import sys
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from vci_jax._report import Report
from vci_jax._table import report_text
from vci_jax.arrays import as_native
from vci_jax.catalogue import ON_PRETRAINING, ON_TARGET
from vci_jax.compare import Comparison, compare
from vci_jax.errors import VCIError
from vci_jax.geometry import Weighting
from vci_jax.in_memory import measure_arrays


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, measures, prints; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(
        prog="vci",
        description="Every collapse metric of features saved in an .npz file; of several files "
        "with features of the same samples, the differences with their intervals.",
        epilog="Arrays: features [N, D], labels [N]; optional head_kernel [D, K], head_bias [K], "
        "logits [N, K]. Labels are integers or text, or columns of the head and the logits if "
        "there are any; rows with the label -1 or -100 have none and are left out. "
        f"{ON_PRETRAINING} {ON_TARGET}",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="an .npz file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--weighting", choices=("sample", "class"), default="sample")
    parser.add_argument(
        "--blocks", type=int, default=10, help="jackknife blocks for the interval; 1 for none"
    )
    options = parser.parse_args(arguments)
    try:
        if len(options.files) == 1:
            (path,) = options.files
            report = _measure(path, read_features(path), options.weighting, options.blocks)
            print(report.to_json() if options.json else report_text(report, path))
            return 0
        compared = _compare(options.files, options.weighting, options.blocks)
        print(compared.to_json() if options.json else compared)
    except (ValueError, OSError) as error:
        print(f"vci_jax: {error}", file=sys.stderr)
        return 2
    return 0


def read_features(path: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a features file, in native byte order.

    Raises:
      VCIError: for a file of another kind, or one without features or labels; says what it holds.
      OSError: if the file cannot be read.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise VCIError(f"it holds one array {list(file.shape)} without a name")
        with file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise VCIError(f"{path}: no such file.") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise VCIError(f"{path} is not a readable .npz file: {error}") from None
    missing = [name for name in ("features", "labels") if name not in arrays]
    if missing:
        found = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise VCIError(
            f"{path} has no {' and no '.join(missing)}: found {found or 'no arrays'}. "
            "Save it with numpy.savez(path, features=..., labels=...)."
        )
    return {name: as_native(name, array) for name, array in arrays.items()}


def _measure(path: str, arrays: dict[str, np.ndarray], weighting: Weighting, blocks: int) -> Report:
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


def _compare(paths: Sequence[str], weighting: Weighting, blocks: int) -> Comparison:
    """Compares the files, whose labels must be the same."""
    if len(set(paths)) < len(paths):
        raise VCIError(f"the same file twice: {', '.join(paths)}.")
    sets = {}
    for path in paths:
        arrays = read_features(path)
        sets[path] = (arrays["features"], arrays["labels"])
    return compare(sets, blocks=blocks, weighting=weighting)
