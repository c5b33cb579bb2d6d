"""vci_jax as an implementation like any other, and the command that judges it."""

import argparse
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from vci_jax import moments
from vci_jax._report import report
from vci_jax.conformance.cases import METRICS, Precision, Weighting
from vci_jax.conformance.runner import Implementation, Result, check, check_laws, table

# One size for all cases, so that one program serves them; streaming, padding and the masking of
# absent classes are judged along the way.
_CLASSES, _ROWS = 6, 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the verdict; returns 0 if everything passed."""
    parser = argparse.ArgumentParser(
        prog="python -m vci_jax.conformance", description="Hold vci_jax to its own suite."
    )
    parser.add_argument("--verbose", action="store_true", help="show what passed as well")
    options = parser.parse_args(arguments)
    results = everything()
    print(table(results, failures_only=not options.verbose))
    return 0 if all(result.passed for result in results) else 1


def everything() -> list[Result]:
    """Both weightings and both precisions on all cases, then all laws."""
    results: list[Result] = []
    for metric in METRICS:
        results += check(metric, implementation(metric))
        results += check(metric, implementation(metric, weighting="class"), weighting="class")
        results += check(metric, implementation(metric, precision="float32"), precision="float32")
        results += check_laws(metric, implementation(metric))
    return results


def implementation(
    metric: str, *, weighting: Weighting = "sample", precision: Precision = "float64"
) -> Implementation:
    """A metric of vci_jax as (features, labels) -> value, accumulated in ``precision``."""

    def value(features: NDArray[Any], labels: NDArray[np.int64]) -> float:
        key = (features.tobytes(), features.shape, str(features.dtype), labels.tobytes())
        return float(_report(key, weighting, precision)[metric])

    return value


@functools.lru_cache(maxsize=512)  # one measurement answers for all metrics
def _report(key: Any, weighting: Weighting, precision: Precision) -> dict[str, Any]:
    data, shape, dtype, names = key
    features = np.frombuffer(data, dtype).reshape(shape)
    labels = np.frombuffer(names, np.int64).astype(np.int32)
    counts = None
    if weighting == "class":
        counts = np.bincount(labels[labels >= 0], minlength=_CLASSES)
    with jax.enable_x64(precision == "float64"):
        state = moments.init(_CLASSES, shape[1], class_counts=counts, dtype=precision)
        for low in range(0, len(labels), _ROWS):
            rows, marks = features[low : low + _ROWS], labels[low : low + _ROWS]
            padding = _ROWS - len(marks)
            mask = np.arange(_ROWS) < len(marks)
            rows = np.pad(rows, ((0, padding), (0, 0)))
            state = _update(state, rows, np.pad(marks, (0, padding)), mask)
    return report(state, weighting=weighting)


_update = jax.jit(moments.update)
