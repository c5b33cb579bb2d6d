"""Holding an implementation to the cases and laws, and showing how it fared."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vci_jax.conformance.cases import METRICS, Case, Precision, Weighting, cases
from vci_jax.conformance.laws import laws
from vci_jax.errors import VCIError

Implementation = Callable[[NDArray[Any], NDArray[np.int64]], float]

_CHANGED = 1e-4  # relative; the base cases were chosen so that real changes are larger


class Result(NamedTuple):
    """One question and its answer. ``note`` says what was raised, or what the law demands."""

    metric: str
    name: str
    expected: float
    got: float
    passed: bool
    note: str


def check(
    metric: str,
    implementation: Implementation,
    *,
    precision: Precision = "float64",
    weighting: Weighting = "sample",
) -> list[Result]:
    """Holds one implementation of one metric to every golden case.

    Args:
      metric: a name in ``METRICS``.
      implementation: (features [N, D], labels [N]) -> value. Undefined values may be NaN,
        infinite or a ValueError. Any other exception is a failure, and reported as one.
      precision: dtype in which real features are handed over, and the tolerance to go with it.
        The inputs are exact in both.
      weighting: of imbalanced classes, ``"sample"`` or ``"class"``.

    Raises:
      VCIError: for an unknown metric.
    """
    _known(metric)
    results = []
    for case in cases():
        expected = case.value(metric, weighting)
        if expected is not None:
            rtol = case.rtol[precision == "float32"]
            got, note = _ask(implementation, _features(case, precision), case.labels)
            passed = _agrees(expected, got, note, rtol, case.may_refuse)
            results.append(Result(metric, case.name, expected, got, passed, note))
    return results


def check_laws(metric: str, implementation: Implementation) -> list[Result]:
    """Holds one implementation of one metric to every law, in float64.

    Raises:
      VCIError: for an unknown metric.
    """
    _known(metric)
    base = {case.name: case for case in cases()}
    results = []
    for law in laws():
        for name in law.data:
            features, labels = base[name].features.astype(np.float64), base[name].labels
            before, note = _ask(implementation, features, labels)
            after, later = _ask(implementation, *law.transform(features, labels))
            distance, scale = abs(after - before), max(abs(before), abs(after))
            same = law.keeps(metric, name)
            passed = distance <= law.rtol * scale if same else distance > _CHANGED * scale
            demand = "must stay" if same else "must change"
            note = note or later or demand
            results.append(Result(metric, f"{law.name}: {name}", before, after, passed, note))
    return results


def table(results: Sequence[Result], *, failures_only: bool = False) -> str:
    """The results as text, and a last line that counts them."""
    width = max([len(result.name) for result in results], default=4) + 2
    lines = [f"{'metric':<24}{'case or law':<{width}}{'expected':>15}{'got':>15}"]
    for result in results:
        if not (failures_only and result.passed):
            mark = "  " if result.passed else "x "
            lines.append(
                f"{mark}{result.metric:<22}{result.name:<{width}}{result.expected:>15.8g}"
                f"{result.got:>15.8g}  {result.note}".rstrip()
            )
    failed = sum(not result.passed for result in results)
    return "\n".join([*lines, f"{len(results) - failed} passed, {failed} failed"])


def _known(metric: str) -> None:
    if metric not in METRICS:
        raise VCIError(f"Unknown metric {metric!r}; the suite has {', '.join(METRICS)}.")


def _features(case: Case, precision: Precision) -> NDArray[Any]:
    """The case's features; those of another type than float64 stay what they are."""
    return case.features.astype(precision) if case.features.dtype == np.float64 else case.features


def _ask(
    implementation: Implementation, features: NDArray[Any], labels: NDArray[np.int64]
) -> tuple[float, str]:
    """The answer and, if it raised, what. It gets copies, so that nothing leaks between cases."""
    try:
        return float(implementation(features.copy(), labels.copy())), ""
    except ValueError as error:  # A refusal, of whatever subclass.
        return math.nan, f"ValueError: {error}"
    except Exception as error:
        return math.nan, f"{type(error).__name__}: {error}"


def _agrees(expected: float, got: float, note: str, rtol: float, may_refuse: bool) -> bool:
    refused = not math.isfinite(got) and (not note or note.startswith("ValueError"))
    if math.isnan(expected) or (may_refuse and refused):
        return refused
    if math.isinf(expected):
        return got == expected
    return abs(got - expected) <= (rtol * abs(expected) if expected else rtol)
