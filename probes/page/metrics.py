"""How each metric is called on the page, which way it goes, and on what scale it is drawn."""

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """One metric.

    Attributes:
      name: its key in ``metrics.jsonl``.
      title: for people.
      direction: what a change means.
      scale: ratios without an upper bound fall by orders of magnitude; an index with a zero that
        means something starts there.
    """

    name: str
    title: str
    direction: str = ""
    scale: Literal["linear", "zero", "log"] = "linear"


_LESS, _MORE = "↓ more collapsed", "↑ more collapsed"

MAIN = (
    Metric("vci_adjusted", "VCI, adjusted for sample size", _LESS, "zero"),
    Metric("vci", "VCI", _LESS, "zero"),
    Metric("accuracy", "Accuracy", "↑ better"),
    Metric("loss", "Loss", "↓ better", "log"),
    Metric("fuzziness", "Fuzziness", _LESS, "log"),
    Metric("squared_distance", "Squared distance", _LESS, "log"),
    Metric("cosine_similarity", "Cosine similarity", _MORE),
    Metric("class_separation", "Class separation", _MORE),
)

FURTHER = (
    Metric("cdnv", "CDNV", _LESS, "log"),
    Metric("within_between_part", "Within-class variance along the class means", _LESS, "log"),
    Metric("within_orthogonal_part", "Within-class variance across them", "", "log"),
    Metric("probe_mse", "Error of the least-squares probe", _LESS, "log"),
    Metric("equinorm", "NC2: unequal norms of the class means", _LESS),
    Metric("equiangularity", "NC2: unequal angles of the class means", _LESS),
    Metric("etf_error", "NC2: distance to the simplex", _LESS),
    Metric("self_duality", "NC3: distance of classifier and class means", _LESS),
    Metric("effective_rank", "Effective rank"),
    Metric("h_score", "H-score", _MORE),
    Metric("shrinkage_h_score", "H-score, shrunk", _MORE),
    Metric("logme", "LogME"),
)

BY_NAME = {metric.name: metric for metric in (*MAIN, *FURTHER)}

COLLAPSE = ("vci", "fuzziness", "squared_distance", "cosine_similarity")
