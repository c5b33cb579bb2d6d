"""The command line: features in an ``.npz`` file, a table or one JSON object out.

Runs in float64 throughout; the labels are all there, so class weights and balanced jackknife
blocks come for nothing.
"""

import argparse
import json
import math
import sys
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vci_jax import agreement, moments
from vci_jax.arrays import canonicalize_reals, check_head, labelled_rows
from vci_jax.errors import Caveat
from vci_jax.geometry import Weighting
from vci_jax.jit_update import jit_update
from vci_jax.report import report

_ROWS = 4096  # a batch: large enough for a fast product, small enough for any memory

_DESCRIPTIONS = {
    "vci": "variability collapse index",
    "vci_adjusted": "VCI, sample-size bias removed",
    "vci_interval": "its 95 % interval (jackknife)",
    "fuzziness": "Tr[Sigma_W Sigma_B^+] / K",
    "squared_distance": "Tr Sigma_W / Tr Sigma_B",
    "cosine_similarity": "mean cosine within a class",
    "class_separation": "1 - d_within / d_total",
    "within_between_part": "variance along class means",
    "within_orthogonal_part": "variance orthogonal to them",
    "probe_mse": "loss of the best linear probe",
    "h_score": "Tr[Sigma_T^+ Sigma_B]",
    "shrinkage_h_score": "H-score, Ledoit-Wolf",
    "cdnv": "class-distance normalised variance",
    "equinorm": "spread of class-mean norms (NC2)",
    "equiangularity": "spread of class-mean cosines (NC2)",
    "etf_error": "distance to a simplex ETF (NC2)",
    "self_duality": "classifier vs class means (NC3)",
    "ncc_agreement": "nearest mean = classifier (NC4)",
    "effective_rank": "exp entropy of singular values",
    "logme": "log maximum evidence",
}
_LARGER_IS_COLLAPSED = {"cosine_similarity", "class_separation", "h_score", "shrinkage_h_score",
                        "ncc_agreement"}  # fmt: skip
_SMALLER_IS_COLLAPSED = {"vci", "vci_adjusted", "fuzziness", "squared_distance", "cdnv",
                         "within_between_part", "probe_mse", "equinorm", "equiangularity",
                         "etf_error", "self_duality"}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, measures, prints; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m vci_jax",
        description="Every collapse metric of features saved in an .npz file.",
        epilog="Arrays: features [N, D], labels [N]; optional head_kernel [D, K], head_bias [K], "
        "logits [N, K]. Labels are any integers from 0 on, or columns of the head and the logits "
        "if there are any; rows with the label -1 or -100 have none and are left out.",
    )
    parser.add_argument("file", help="an .npz file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--weighting", choices=("sample", "class"), default="sample")
    parser.add_argument(
        "--blocks", type=int, default=10, help="jackknife blocks for the interval; 1 for none"
    )
    options = parser.parse_args(arguments)
    try:
        arrays = read_features(options.file)
        result = measure_arrays(arrays, weighting=options.weighting, blocks=options.blocks)
    except (ValueError, OSError) as error:
        print(f"vci_jax: {error}", file=sys.stderr)
        return 2
    print(as_json(result) if options.json else as_table(result, options.file))
    return 0


def read_features(path: str) -> dict[str, np.ndarray]:
    """Reads and checks the arrays of a features file, and brings them to native byte order.

    Labels of -1 and -100 stand for rows without one and stay.

    Raises:
      ValueError: for a file of another kind, missing arrays, shapes or dtypes that do not fit,
        labels outside the classes, rows with a label whose features hold NaN or infinity, or a
        head with such values; says which and how many.
      OSError: if the file cannot be read.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError(f"it holds one array {list(file.shape)} without a name")
        with file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file.") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from None
    missing = [name for name in ("features", "labels") if name not in arrays]
    if missing:
        found = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise ValueError(
            f"{path} has no {' and no '.join(missing)}: found {found or 'no arrays'}. "
            "Save it with numpy.savez(path, features=..., labels=...)."
        )
    try:
        _check_arrays(arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return arrays


def measure_arrays(
    arrays: dict[str, np.ndarray], *, weighting: Weighting = "sample", blocks: int = 1
) -> dict[str, Any]:
    """Reports on the arrays of ``read_features``, in float64, with NC3 and NC4 for a classifier.

    K is the number of distinct labels, or of columns of the head or the logits. Rows with the label
    -1 or -100 are left out and counted in ``label_out_of_range``; rows whose logits hold NaN or
    infinity are left out of ``ncc_agreement``, counted in ``logits_non_finite``, and named in a
    caveat of that code.

    Raises:
      ValueError: for the arrays that ``read_features`` refuses, or fewer blocks than one.
    """
    if blocks < 1:
        raise ValueError(f"--blocks must be at least 1, got {blocks}.")
    arrays = dict(arrays)
    _check_arrays(arrays)
    features, (labels, num_classes) = arrays["features"], _columns(arrays)
    labelled = labels >= 0
    counts = np.bincount(labels[labelled], minlength=num_classes)
    # Blocks with equal shares of every class: deal the samples out in the order of their labels.
    block = np.empty(len(labels), np.int32)
    block[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % blocks
    head = None
    if "head_kernel" in arrays:
        head = (arrays["head_kernel"], arrays.get("head_bias", np.zeros(num_classes)))
    with jax.enable_x64(True):
        start = moments.init(
            num_classes, features.shape[1], dtype=np.float64,
            class_counts=counts if weighting == "class" else None,
        )  # fmt: skip
        states = [_pass(start, features[block == b], labels[block == b]) for b in range(blocks)]
        stack = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
        result = report(stack, weighting=weighting, head=head)
        logits = arrays.get("logits")
        if logits is None and head is not None:
            logits = features.astype(np.float64) @ head[0].astype(np.float64) + head[1]
        if logits is not None:
            _add_agreement(result, _agreement(stack, features[labelled], logits[labelled]))
    return result


def as_json(result: dict[str, Any]) -> str:
    """One JSON object on one line; undefined values are null, as JSON has no NaN."""
    return json.dumps(_jsonable(result), allow_nan=False)


def as_table(result: dict[str, Any], title: str) -> str:
    """The metrics with what they are and which way is more collapsed."""
    lines = [
        title,
        f"{result['samples']:,} samples, {result['classes']} classes, {result['dim']} dimensions "
        f"(rank {result['kept_rank']}), weighting by {result['weighting']}",
        "",
    ]
    for name, description in _DESCRIPTIONS.items():
        if name in result:
            lines.append(f"  {name:<24}{_number(result[name]):>22}   {_arrow(name)} {description}")
    lines += ["", "  v more collapsed when smaller, ^ when larger"]
    lines += [f"  ! {warning}" for warning in result["warnings"]]
    return "\n".join(lines)


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    """Refuses what cannot be measured; converts the others in place to native real numbers."""
    for name in ("features", "head_kernel", "head_bias", "logits"):
        if name in arrays:
            arrays[name] = canonicalize_reals(name, arrays[name], np.float64)
    features, labels = arrays["features"], arrays["labels"]
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"features must be real numbers [N, D], got {features.dtype} {list(features.shape)}."
        )
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be {features.shape[0]} integers, one a row of features, got "
            f"{labels.dtype} {list(labels.shape)}."
        )
    arrays["labels"] = labels = labels.astype(labels.dtype.newbyteorder("="))
    labelled = labelled_rows(labels)
    if not labelled.any():
        raise ValueError(f"all {len(labels):,} rows have the label -1 or -100, which means none.")
    finite = np.concatenate(
        [
            np.isfinite(features[low : low + _ROWS].astype(np.float64)).all(axis=1)
            for low in range(0, len(features), _ROWS)
        ]
    )
    broken = np.flatnonzero(labelled & ~finite)
    if broken.size:
        raise ValueError(
            f"{broken.size:,} of {len(features):,} rows of features hold NaN or infinity, the "
            f"first is row {broken[0]}. Remove them, or find out why the network makes them."
        )
    _check_classifier(arrays, labelled)


def _check_classifier(arrays: dict[str, np.ndarray], labelled: np.ndarray) -> None:
    """Refuses a head and logits that do not fit, and labels that are no column of theirs."""
    features, labels = arrays["features"], arrays["labels"]
    num_classes = _num_columns(arrays)
    if num_classes is None:
        if "head_bias" in arrays:
            raise ValueError("head_bias without head_kernel: a classifier needs its kernel.")
        return
    outside = np.flatnonzero(labelled & (labels >= num_classes))
    if outside.size:
        raise ValueError(
            f"{outside.size:,} labels lie outside 0 .. {num_classes - 1}, the columns of the "
            f"classifier; the first is {labels[outside[0]]} in row {outside[0]}. Remove those rows "
            "or renumber the classes."
        )
    shapes = {
        "head_kernel": (features.shape[1], num_classes),
        "head_bias": (num_classes,),
        "logits": (len(features), num_classes),
    }
    for name, shape in shapes.items():
        if name in arrays and arrays[name].shape != shape:
            raise ValueError(f"{name} must be {list(shape)}, got {list(arrays[name].shape)}.")
    if "head_kernel" in arrays:
        head = (arrays["head_kernel"], arrays.get("head_bias"))
        check_head(head, features.shape[1], num_classes)


def _num_columns(arrays: dict[str, np.ndarray]) -> int | None:
    """How many classes the classifier has; None without one."""
    for name in ("head_kernel", "logits"):
        if name in arrays:
            if arrays[name].ndim != 2 or not arrays[name].shape[1]:
                raise ValueError(f"{name} must be a matrix, got {list(arrays[name].shape)}.")
            return int(arrays[name].shape[1])
    return None


def _columns(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, int]:
    """Labels as 0 .. K-1, or -1 for none, and K. Without a classifier they are any integers."""
    labels = arrays["labels"]
    labelled, num_classes = labelled_rows(labels), _num_columns(arrays)
    columns = np.full(len(labels), -1, np.int32)
    if num_classes is None:
        names, columns[labelled] = np.unique(labels[labelled], return_inverse=True)
        return columns, len(names)
    columns[labelled] = labels[labelled]
    return columns, num_classes


def _pass(state: moments.ClassMoments, features: np.ndarray, labels: np.ndarray) -> Any:
    state = jax.tree.map(lambda leaf: leaf + 0, state)  # the donated copy
    for low in range(0, len(labels), _ROWS):
        rows, names, mask = _padded(features[low : low + _ROWS], labels[low : low + _ROWS])
        state = jit_update(state, rows, names, mask)
    return jax.device_get(state)


def _agreement(stack: Any, features: np.ndarray, logits: np.ndarray) -> agreement.Agreement:
    state = agreement.init(moments.merge_axis(stack))
    for low in range(0, len(features), _ROWS):
        rows, scores, mask = _padded(features[low : low + _ROWS], logits[low : low + _ROWS])
        state = agreement.jit_update(state, rows, scores, mask)
    return state


def _add_agreement(result: dict[str, Any], state: agreement.Agreement) -> None:
    """Adds NC4 to a report, with the number of rows it leaves out and a caveat about them."""
    result["ncc_agreement"] = float(agreement.ncc_agreement(state))
    result["logits_non_finite"] = broken = int(state.non_finite)
    if broken:
        text = f"{broken:,} rows with NaN or infinity in their logits were left out of it."
        caveat = Caveat("logits_non_finite", ("ncc_agreement",), f"ncc_agreement: {text}")
        result["caveats"].append(caveat.to_dict())
        result["warnings"].append(caveat.message)


def _padded(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """Columns filled up to a full batch, and the mask: one shape, so one compilation."""
    size = len(columns[0])
    full = [np.pad(c, [(0, _ROWS - size)] + [(0, 0)] * (c.ndim - 1)) for c in columns]
    return *full, np.arange(_ROWS) < size


def _number(value: float | list[float]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_number(part) for part in value) + "]"
    return "undefined" if math.isnan(value) else f"{value:.6g}"


def _arrow(name: str) -> str:
    return "^" if name in _LARGER_IS_COLLAPSED else "v" if name in _SMALLER_IS_COLLAPSED else " "


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_jsonable(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
