"""What ``vci_jax`` says of a case, by name; few programs are compiled, as shapes are padded."""

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

import vci_jax
from tools.oracle_cases import CLASSES, ROWS, Case

_update = jax.jit(vci_jax.update)
_merge = jax.jit(vci_jax.merge)
_merge_axis = jax.jit(vci_jax.merge_axis)
_collapse_metrics = jax.jit(vci_jax.collapse_metrics, static_argnames=("weighting",))
_PARTS = 3
_PAPER = ("vci", "fuzziness", "squared_distance", "cosine_similarity")


def moments(case: Case) -> vci_jax.ClassMoments:
    """The moments of a case by its route: one state, states merged in turn, or a stack."""
    counts = np.bincount(case.labels, minlength=CLASSES) if case.counted else None
    empty = vci_jax.init(
        CLASSES, case.features.shape[1], class_counts=counts, dtype=np.dtype(case.state)
    )
    states = [empty] * _PARTS
    for rows, owner in zip(case.batches, case.owners, strict=True):
        states[owner] = _update(states[owner], *_padded(case, rows))
    if case.route == "merge_axis":
        return _merge_axis(jax.tree.map(lambda *leaves: np.stack(leaves), *states))
    if case.route == "merge":
        return functools.reduce(_merge, states)
    return states[0]


def _padded(case: Case, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch of ROWS rows; the padding holds garbage, which the mask takes out."""
    size = len(rows)
    features = np.full((ROWS, case.features.shape[1]), 77, case.features.dtype)
    labels, mask = np.zeros(ROWS, np.int32), np.zeros(ROWS, bool)
    features[:size], labels[:size], mask[:size] = case.features[rows], case.labels[rows], True
    if features.dtype.kind == "f":
        features[size:] = np.nan
    return features, labels, mask


class Measured(NamedTuple):
    """What ``vci_jax`` says of a case.

    ``values`` are by name. Metrics of ``collapse_metrics`` are named ``collapse_metrics.vci`` and
    so on, those of ``report(only=...)``, which has ways of its own, ``only.vci`` and so on.
    ``lists`` are both spectra, and ``per_class.variance`` and so on with one entry a class present.
    """

    values: dict[str, float]
    lists: dict[str, list[float]]
    report: dict[str, Any]
    only: dict[str, Any]


def measure(case: Case) -> Measured:
    """Measures a case in every way."""
    with jax.enable_x64(case.state == "float64"):
        state = moments(case)
        direct = jax.device_get(
            _collapse_metrics(
                state, weighting=case.weighting, head=(case.kernel, np.zeros(CLASSES, case.state))
            )
        )
        classes = jax.device_get(vci_jax.per_class(state, weighting=case.weighting))
    report = vci_jax.report(state, weighting=case.weighting, head=(case.kernel, np.zeros(CLASSES)))
    values = {name: value for name, value in report.items() if isinstance(value, float)}
    values |= {f"collapse_metrics.{name}": float(value) for name, value in direct.items()}
    only = vci_jax.report(state, weighting=case.weighting, only=_PAPER)
    values |= {f"only.{name}": only[name] for name in _PAPER}
    values |= {name: float(report[name]) for name in ("kept_rank", "between_rank")}
    lists = {f"spectrum.{name}": list(part) for name, part in report["spectrum"].items()}
    present = np.unique(case.labels)
    lists |= {f"per_class.{name}": np.asarray(part)[present].tolist()
              for name, part in classes.items()}  # fmt: skip
    return Measured(values, lists, report, only)


def concerned(report: dict[str, Any], ignored: frozenset[str]) -> set[str]:
    """The metrics that some caveat names, but for the codes that are ignored."""
    return {
        name
        for caveat in report["caveats"]
        if caveat["code"] not in ignored
        for name in caveat["metrics"]
    }


def is_nan(value: float | None) -> bool:
    """Whether there is no value."""
    return value is None or math.isnan(value)
