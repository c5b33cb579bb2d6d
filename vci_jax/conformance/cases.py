"""The golden cases, read from ``golden.json``.

The file holds inputs and exact values side by side, in plain JSON, so that an implementation in
another language can be held to it too: ``expected`` weights classes by their samples,
``expected_class`` equally (absent where it is the same); values are decimal strings of 40
digits, ``nan`` where the metric is undefined.
"""

import functools
import json
import pathlib
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
