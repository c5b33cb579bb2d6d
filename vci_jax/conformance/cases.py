"""The golden cases: read from ``golden.json``, or written to it.

The file holds inputs and exact values side by side, in plain JSON, so that an implementation in
another language can be held to it too: ``expected`` weights classes by their samples,
``expected_class`` equally (absent where it is the same); values are decimal strings of 40
digits, ``nan`` where the metric is undefined.
"""

import decimal
import functools
import json
import pathlib
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vci_jax.conformance import exact
from vci_jax.conformance.scenarios import Scenario, scenarios

Precision = Literal["float64", "float32"]
Weighting = Literal["sample", "class"]

METRICS = (
    "vci",
    "vci_adjusted",
    "fuzziness",
    "squared_distance",
    "cosine_similarity",
    "class_separation",
    "within_between_part",
    "within_orthogonal_part",
    "probe_mse",
    "h_score",
    "cdnv",
    "equinorm",
    "equiangularity",
    "etf_error",
    "shrinkage_h_score",
    "effective_rank",
)

GOLDEN = pathlib.Path(__file__).with_name("golden.json")


class Case(NamedTuple):
    """Features and labels with the exact metrics; ``rtol`` is for float64 and float32."""

    name: str
    reason: str
    features: NDArray[Any]
    labels: NDArray[np.int64]
    expected: dict[str, float]
    expected_class: dict[str, float]
    rtol: tuple[float, float]
    may_refuse: bool

    def value(self, metric: str, weighting: Weighting = "sample") -> float | None:
        """The exact value, NaN if it is undefined, None if the case says nothing about it."""
        return (self.expected if weighting == "sample" else self.expected_class).get(metric)


@functools.cache
def cases() -> tuple[Case, ...]:
    """All golden cases, simple ones first."""
    return tuple(_case(entry) for entry in json.loads(GOLDEN.read_text())["cases"])


def recompute() -> str:
    """The text of ``golden.json``, from nothing but ``scenarios`` and ``exact``."""
    entries = ",\n".join(json.dumps(_entry(scenario)) for scenario in scenarios())
    about = "Exact values of collapse metrics; see vci_jax/conformance/cases.py"
    return f'{{"about": {json.dumps(about)},\n"cases": [\n{entries}\n]}}\n'


def _case(entry: dict[str, Any]) -> Case:
    def floats(values: dict[str, str]) -> dict[str, float]:
        return {name: float(value) for name, value in values.items()}

    return Case(
        name=entry["name"],
        reason=entry["reason"],
        features=np.array(entry["features"], entry["dtype"]),
        labels=np.array(entry["labels"], np.int64),
        expected=floats(entry["expected"]),
        expected_class=floats(entry.get("expected_class", entry["expected"])),
        rtol=(entry["rtol"][0], entry["rtol"][1]),
        may_refuse=entry["may_refuse"],
    )


def _entry(scenario: Scenario) -> dict[str, Any]:
    fields = scenario._asdict()
    skipped = fields.pop("leave_out")
    for weighting, key in (("sample", "expected"), ("class", "expected_class")):
        values = exact.metrics(scenario.features, scenario.labels, weighting)
        fields[key] = {name: _digits(v) for name, v in values.items() if name not in skipped}
    if fields["expected_class"] == fields["expected"]:
        del fields["expected_class"]
    return fields


def _digits(value: exact.Value) -> str:
    """Forty significant digits; what is left of a zero after sixty is zero."""
    if value is None:
        return "nan"
    with decimal.localcontext(decimal.Context(prec=40)):
        if isinstance(value, Fraction):
            value = decimal.Decimal(value.numerator) / decimal.Decimal(value.denominator)
        return "0" if abs(value) < decimal.Decimal("1e-50") else str(+value)
