"""The caveats of a report: what the numbers cannot say themselves.

Each rule looks at the finished numbers and a few facts about how they were made, and gives a
``Caveat`` where a reader must know more: rows that were refused, directions that were cut, bias of
small samples, values that are undefined.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from vci_jax.errors import Caveat

# Functions of the one trace Tr[Sigma_T^+ Sigma_B], and so of its bias and of its cutoff.
TRACE = ("vci", "vci_adjusted", "probe_mse", "h_score")
# Functions of Sigma_B^+, or of distances between class means.
MEANS = ("fuzziness", "squared_distance", "cdnv", "equinorm", "equiangularity", "etf_error")


def find(result: dict[str, Any], facts: dict[str, Any]) -> list[Caveat]:
    """Returns the caveats of a report, the ones about the data first.

    Args:
      result: the metrics and counts of ``report``.
      facts: how they were made: ``overflowed``, ``underflowed``, ``scatter_known``.
    """
    found = [*_rows(result), *_degenerate(result, facts), *_sample_size(result)]
    found += _undefined(result, facts)
    return found


def _rows(result: dict[str, Any]) -> Iterator[Caveat]:
    labels, broken = result["label_out_of_range"], result["non_finite"]
    if labels:
        text = f"{labels:,} rows with a label out of range were left out."
        yield Caveat("label_out_of_range", ("samples",), text)
    if broken:
        yield Caveat(
            "non_finite", ("samples",), f"{broken:,} rows with NaN or infinity were left out."
        )


def _degenerate(result: dict[str, Any], facts: dict[str, Any]) -> Iterator[Caveat]:
    classes, rank = result["classes"], result["kept_rank"]
    if classes < 2:
        text = "Only one class is present: VCI compares classes and is undefined."
        yield Caveat("one_class", (*TRACE, *MEANS), text)
    if classes < 2 or facts["overflowed"] or facts["underflowed"]:
        return
    limit = min(result["dim"], classes - 1)
    if rank == 0:
        text = "All features are equal: there is no variance to compare, and VCI is undefined."
        yield Caveat("no_variance", (*TRACE, *MEANS), text)
    elif result["between_rank"] == 0:
        text = "All class means coincide: fuzziness and squared distance are undefined."
        yield Caveat("means_coincide", ("fuzziness", "squared_distance"), text)
    if 0 < rank < limit:
        text = (
            f"The features span {rank} directions, fewer than the {limit} of {classes} classes: "
            f"VCI cannot fall below {1 - rank / limit:.3f}."
        )
        yield Caveat("few_directions", ("vci", "vci_adjusted"), text)


def _sample_size(result: dict[str, Any]) -> Iterator[Caveat]:
    samples, classes, rank = result["samples"], result["classes"], result["kept_rank"]
    spent, shown = max(rank, classes - 1), f"{samples:,} samples"
    if classes > 1 and samples - 1 <= spent:
        text = (
            f"{shown} are too few for {spent} directions: VCI is biased to 0 and cannot be "
            "adjusted. Use more samples."
        )
        yield Caveat("too_few_samples", TRACE, text)
    elif classes > 1 and samples - 1 < 5 * spent:
        text = (
            f"{shown} for {rank} directions bias VCI down by the factor "
            f"{1 - spent / (samples - 1):.2f}: compare vci_adjusted."
        )
        yield Caveat("small_sample", TRACE, text)


def _undefined(result: dict[str, Any], facts: dict[str, Any]) -> Iterator[Caveat]:
    """Why values are missing that the data should have given, and which are."""
    missing = tuple(
        name for name, value in result.items() if isinstance(value, float) and math.isnan(value)
    )
    if facts["overflowed"]:
        text = (
            "The scatter is not finite: squares of the features leave the range of the moments, or "
            "states of other class_counts were merged. Scale the features, or use dtype=float64."
        )
        yield Caveat("overflow", missing, text)
    elif facts["underflowed"]:
        text = (
            "The class means differ by so little that squares are lost: scale the features, or use "
            "dtype=float64."
        )
        yield Caveat("underflow", missing, text)
    elif not facts["scatter_known"]:
        text = (
            'weighting="class" on imbalanced data needs moments from init(..., class_counts=...); '
            "the metrics that need the full Sigma_W are undefined."
        )
        yield Caveat("class_counts", missing, text)
    if any(math.isnan(end) for end in _ends(result)):
        text = (
            "vci_interval is undefined: without one of the blocks VCI is 0 or cannot be adjusted."
        )
        yield Caveat("no_interval", ("vci_interval",), text)
    if missing:
        yield Caveat("undefined", missing, f"Undefined here: {', '.join(missing)}.")


def _ends(result: dict[str, Any]) -> Iterable[float]:
    ends: Iterable[float] = result.get("vci_interval", [])
    return ends
