"""The caveats of a report: when its numbers must be read with care.

Each rule looks at the finished numbers and a few facts about how they were made, and gives a
``Caveat`` where a reader must know more: rows that were refused, directions that were cut, bias of
small samples, values that are undefined.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from vci_jax.errors import Caveat

# Functions of the one trace Tr[Sigma_T^+ Sigma_B], and so of its bias and of its cutoff.
PLUGIN = ("vci", "probe_mse", "h_score")
ADJUSTED = ("vci_adjusted", "probe_mse_adjusted", "h_score_adjusted")
TRACE = (*PLUGIN, *ADJUSTED)
# Functions of Sigma_B^+, or of distances between class means.
DISTANCES = ("fuzziness", "squared_distance", "cdnv")
MEANS = (*DISTANCES, "equinorm", "equiangularity", "etf_error")
_ADJUSTED_MEANS = ("squared_distance_adjusted", "cdnv_adjusted")
# Entries of ``per_class`` that are variances.
_OF_CLASS = ("per_class.variance", "per_class.squared_distance", "per_class.nearest_cdnv")
# Relative errors that are promised, for moments in float64 and in float32.
PROMISED = (1e-8, 1e-3)
# Directions of Sigma_T and of Sigma_B, and what depends on each.
_OF_TOTAL = (*TRACE, "vci_interval")
_OF_BETWEEN = ("fuzziness", "within_between_part", "within_orthogonal_part")


def find(result: dict[str, Any], facts: dict[str, Any], data_eps: float) -> list[Caveat]:
    """Returns the caveats of a report, the ones about the data first.

    Args:
      result: the metrics and counts of ``report``.
      facts: how they were made: ``overflowed``, ``underflowed`` (some features, every one),
        ``scatter_known``, the relative ``errors`` of metrics, the ``expected_rank`` of Sigma_T,
        ``mean_noise``, the share of Tr Sigma_B that is sampling noise, and ``inequality``,
        K sum_k (n_k / N)^2 and the relative spread of the classes' variances.
      data_eps: roundoff of the moments.
    """
    caveats = [*_rows(result), *_degenerate(result, facts)]
    some, every = facts["underflowed"]
    if not (facts["overflowed"] or every):
        caveats += [*_sample_size(result), *_class_size(result, facts), *_unequal(result, facts)]
        caveats += [] if some else _cut(result, facts, data_eps)
        caveats += _precision(result, facts, data_eps)
    caveats += _undefined(result, facts)
    return [caveat for caveat in caveats if caveat.metrics]


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
    if facts["overflowed"] or facts["underflowed"][1]:
        return
    if number := int(facts["vanishing"]):
        text = (
            f"{number} features vary within classes by no more than the rounding of the class "
            "means, which counts as not at all: near complete collapse the last digits, or all, "
            "of what compares variances are lost."
        )
        yield Caveat("vanishing_variance", (*TRACE, *DISTANCES, *_OF_BETWEEN), text)
    if number := int(facts["tight_classes"]):
        text = (
            f"{number} of {classes} classes vary so little beside the distance of the classes that "
            "rounding shows in what per_class says of them."
        )
        yield Caveat("tight_classes", _OF_CLASS, text)
    if classes < 2:
        return
    if number := int(facts["central_classes"]):
        text = (
            f"{number} of {classes} classes lie so near the centre that rounding shows in what "
            "per_class says of their distance."
        )
        yield Caveat("central_classes", ("per_class.distance", "per_class.squared_distance"), text)
    limit = min(result["dim"], classes - 1)
    if rank == 0:
        text = "All features are equal: there is no variance to compare, and VCI is undefined."
        yield Caveat("no_variance", (*TRACE, *MEANS), text)
    elif result["between_rank"] == 0:
        text = "All class means coincide to rounding: what divides by their distance is undefined."
        concerned = (*MEANS, *_OF_BETWEEN, "squared_distance_adjusted", "probe_mse_adjusted")
        yield Caveat("means_coincide", (*concerned, "spectrum"), text)
    if math.isinf(result.get("cdnv", 0.0)):
        text = "Two class means coincide to rounding: cdnv is infinite."
        yield Caveat("two_means_coincide", ("cdnv", "cdnv_adjusted"), text)
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
            f"{shown} are too few for {spent} directions: vci, probe_mse and h_score are biased to "
            "complete collapse and cannot be adjusted. Use more samples."
        )
        yield Caveat("too_few_samples", TRACE, text)
    elif classes > 1 and samples - 1 < 5 * spent:
        factor = 1 - spent / (samples - 1)
        text = (
            f"{shown} for {rank} directions and {classes} classes bias vci, probe_mse and h_score "
            f"towards collapse (vci of pure noise would be {factor:.2f}): compare vci_adjusted, "
            "probe_mse_adjusted and h_score_adjusted."
        )
        yield Caveat("small_sample", PLUGIN, text)
        if samples - 1 < 3 * spent:
            text = (
                f"{shown} for {spent} directions are fewer than three each: the adjusted values "
                "and the interval were checked above that only."
            )
            yield Caveat("unchecked_size", (*ADJUSTED, "vci_interval"), text)


def _class_size(result: dict[str, Any], facts: dict[str, Any]) -> Iterator[Caveat]:
    noise = float(facts["mean_noise"])
    if result["classes"] > 1 and noise > 0.05:
        text = (
            f"Sampling noise is {min(noise, 1):.0%} of the variance between class means: "
            "fuzziness, squared_distance and cdnv are biased towards collapse, and NC2 measures "
            "noise as well. Use more samples a class"
        )
        uncertain = noise > 0.5
        rest = (
            ": the adjusted forms are uncertain too." if uncertain else ", or the adjusted forms."
        )
        concerned = (*MEANS, *_ADJUSTED_MEANS) if uncertain else MEANS
        yield Caveat("noisy_means", concerned, text + rest)


def _unequal(result: dict[str, Any], facts: dict[str, Any]) -> Iterator[Caveat]:
    """Sizes and covariances may be unequal, each by itself; docs/error_bars.md has the measures."""
    sizes, spread = map(float, facts["inequality"])
    if result["classes"] > 1 and sizes > 1.5 and spread > 0.25:
        text = (
            "Classes are unequal in size and in spread. The adjusted values and vci_interval "
            "assume one of the two, and may be off by some hundredths."
        )
        yield Caveat("unequal_classes", (*ADJUSTED, "vci_interval"), text)


def _cut(result: dict[str, Any], facts: dict[str, Any], data_eps: float) -> Iterator[Caveat]:
    """Directions in which features may vary, but not visibly above rounding."""
    rank, expected, classes = result["kept_rank"], int(facts["expected_rank"]), result["classes"]
    limit = min(result["dim"], classes - 1)
    remedy = (
        "Use dtype=float64 to see them."
        if data_eps > 1e-12
        else "Remove features that are (nearly) linear functions of others."
    )
    if classes > 1 and rank < expected:
        bounds = ""
        if math.isfinite(value := result.get("vci", math.nan)):
            low = max(0.0, value - min(expected - rank, limit) / limit)
            bounds = f" If they vary, vci lies between {low:.4g} and {value:.4g}."
        text = (
            f"{expected - rank} of {expected} directions of Sigma_T are zero to the rounding of "
            f"the moments, and were cut.{bounds} {remedy}"
        )
        yield Caveat("directions_cut", _OF_TOTAL, text)
    reach = min(rank, classes - 1)
    if classes > 1 and facts["canonical_rank"] < reach:
        text = (
            f"{reach - int(facts['canonical_rank'])} of {reach} discriminant directions separate "
            "class means by no more than rounding, and count as not at all."
        )
        yield Caveat("indistinct_means", ("probe_mse_adjusted",), text)
    if classes > 1 and result["between_rank"] < limit and not facts["spanned"]:
        text = (
            f"{limit - result['between_rank']} of {limit} directions of Sigma_B are zero to the "
            f"rounding of the moments, and were cut. {remedy}"
        )
        yield Caveat("between_cut", _OF_BETWEEN, text)


def _precision(result: dict[str, Any], facts: dict[str, Any], data_eps: float) -> Iterator[Caveat]:
    in_float32 = data_eps > 1e-12
    promised = PROMISED[in_float32]
    doubtful = {
        name: float(error)
        for name, error in facts["errors"].items()
        if not float(error) <= promised and _is_number(result.get(name))
    }
    if doubtful:
        remedy = (
            "use dtype=float64"
            if in_float32
            else "features are nearly linear functions of others, or vary little beside their mean"
        )
        shown = ", ".join(
            f"{name} ({'all' if error > 1 else f'{error:.0e}'})" for name, error in doubtful.items()
        )
        text = f"Rounding may have changed, by about this part: {shown}; {remedy}."
        yield Caveat("precision", tuple(doubtful), text)


def _is_number(value: Any) -> bool:
    """Whether there is a value that may be wrong; a spectrum is one."""
    return isinstance(value, dict) or (isinstance(value, float) and math.isfinite(value))


def _undefined(result: dict[str, Any], facts: dict[str, Any]) -> Iterator[Caveat]:
    """Returns caveats about undefined values, with the reasons."""
    missing = tuple(
        name for name, value in result.items() if isinstance(value, float) and math.isnan(value)
    )
    if facts["overflowed"]:
        text = (
            "The scatter is not finite: squares of the features leave the range of the moments, or "
            "states of other class_counts were merged. Scale the features, or use dtype=float64."
        )
        concerned = (*missing, *TRACE, *MEANS, *_ADJUSTED_MEANS, *_OF_BETWEEN)
        yield Caveat("overflow", tuple(dict.fromkeys(concerned)), text)
    elif facts["underflowed"][0]:
        text = (
            "Features, or some of them, differ by so little that squares are lost: scale them, or "
            "use dtype=float64."
        )
        lost = ("effective_rank", "logme", "shrinkage_h_score", "spectrum")
        means = (*MEANS, *_ADJUSTED_MEANS) if facts["underflowed"][1] else DISTANCES
        yield Caveat("underflow", tuple(dict.fromkeys((*missing, *means, *lost))), text)
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
