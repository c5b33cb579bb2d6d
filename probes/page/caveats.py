"""Caveats of the page: sentences, each beside the metric it concerns.

A caveat of ``vci_jax.report`` names its metrics; rows of older versions have sentences alone, whose
metrics are found by their words. The page adds caveats on missing intervals and small samples.
"""

import math
from typing import Any

Row = dict[str, Any]
Notes = dict[str, list[str]]

# Fewer images a class than this are reported as thin evidence.
_THIN = 50

_WORDS = {
    "vci": ("VCI", "vci", "variance"),
    "fuzziness": ("fuzziness",),
    "squared_distance": ("squared distance",),
    "samples": ("rows with",),
}


def notes(row: Row) -> Notes:
    """Returns the sentences on each metric of a row of ``metrics.jsonl``."""
    pairs = [(metric, c["message"]) for c in row.get("caveats", []) for metric in c["metrics"]]
    if "caveats" not in row:  # An older version.
        pairs += [
            (metric, sentence)
            for sentence in row.get("warnings", [])
            for metric in _metrics_named(sentence)
        ]
    own = {"vci": _rank_cut(row), "vci_adjusted": _interval(row), "samples": _thin(row)}
    sentences: Notes = {}
    for metric, sentence in [*pairs, *own.items()]:
        if sentence:
            sentences.setdefault(metric, []).append(sentence)
    return sentences


def why_undefined(metric: str, row: Row) -> str:
    """Returns the reason why a row has no value of a metric."""
    if metric not in row:
        return "this run did not record it"
    sentences = notes(row)
    reasons = sentences.get(metric) or (sentences.get("vci") if metric.startswith("vci") else None)
    return reasons[0] if reasons else "undefined for these features: NaN or infinite"


def accuracy_interval(row: Row) -> tuple[float, float] | None:
    """Returns the 95 % interval of an accuracy over independent images (Wilson, 1927)."""
    share, count = row.get("accuracy"), row.get("samples")
    if share is None or not count:
        return None
    z2 = 1.959964**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = share * (1 - share) / count + z2 / (4 * count**2)
    reach = math.sqrt(z2 * spread) / (1 + z2 / count)
    return middle - reach, middle + reach


def _metrics_named(sentence: str) -> list[str]:
    named = [m for m, words in _WORDS.items() if any(word in sentence for word in words)]
    return named or ["vci"]


def _rank_cut(row: Row) -> str | None:
    rank, dim = row.get("kept_rank"), row.get("dim")
    if rank is None or dim is None or rank >= dim:
        return None
    return (
        f"Rank cut: {rank:,} of {dim:,} directions are kept; the others hold no variance above "
        "rounding, and VCI is computed without them."
    )


def _interval(row: Row) -> str | None:
    if row.get("vci_adjusted") is None:
        return None
    if "vci_interval" not in row:
        return (
            "No interval: the pass kept its data in one block (--eval.blocks below 2, or an older "
            "version)."
        )
    if None in row["vci_interval"]:
        return "No interval: VCI is undefined without one of the blocks of data."
    return None


def _thin(row: Row) -> str | None:
    samples, classes = row.get("samples"), row.get("classes")
    if not samples or not classes or samples / classes >= _THIN:
        return None
    return (
        f"Thin evidence: {samples / classes:.0f} images a class on average, {samples:,} in all; "
        "the spread of a single class is uncertain."
    )
