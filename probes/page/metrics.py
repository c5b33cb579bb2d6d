"""Title, direction and axis scale of each metric on the page."""

from typing import Literal, NamedTuple

from vci_jax import METRICS


class MetricDisplay(NamedTuple):
    """One metric.

    Attributes:
      name: its key in ``metrics.jsonl``.
      title: as the page shows it.
      direction: an arrow and what it means, such as "↓ more collapsed".
      scale: ratios without an upper bound fall by orders of magnitude; an index with a zero that
        means something starts there.
    """

    name: str
    title: str
    direction: str = ""
    scale: Literal["linear", "zero", "log"] = "linear"


# The page has one VCI, adjusted for sample size: splits of different sizes are compared. The other
# is named in full wherever it stands.
_TITLES = {"vci_adjusted": "VCI", "vci": "VCI of the sample, not adjusted for its size"}
_WAYS = {"smaller": "↓ more collapsed", "larger": "↑ more collapsed", "": ""}


def _from_catalogue(name: str) -> MetricDisplay:
    metric = METRICS[name]
    return MetricDisplay(
        name, _TITLES.get(name, metric.title), _WAYS[metric.direction], metric.scale
    )


MAIN = (
    _from_catalogue("vci_adjusted"),
    MetricDisplay("accuracy", "Accuracy", "↑ better"),
    MetricDisplay("loss", "Loss", "↓ better", "log"),
    *map(
        _from_catalogue, ("fuzziness", "squared_distance", "cosine_similarity", "class_separation")
    ),
)

# An interval and a spectrum are not drawn as curves.
_NOT_FURTHER = {metric.name for metric in MAIN} | {"vci_interval", "spectrum"}
FURTHER = tuple(_from_catalogue(name) for name in METRICS if name not in _NOT_FURTHER)

BY_NAME = {metric.name: metric for metric in (*MAIN, *FURTHER)}

COLLAPSE = ("vci", "fuzziness", "squared_distance", "cosine_similarity")
