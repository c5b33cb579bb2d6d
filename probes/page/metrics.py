"""Title, direction and axis scale of each metric on the page."""

from typing import Literal, NamedTuple

from vci_jax import METRICS


class MetricDisplay(NamedTuple):
    """A metric on the page.

    Attributes:
      name: its key in ``metrics.jsonl``.
      direction: an arrow with its meaning, such as "↓ more collapsed".
      scale: "log" for ratios without an upper bound, "zero" for an axis that starts at zero.
    """

    name: str
    title: str
    direction: str = ""
    scale: Literal["linear", "zero", "log"] = "linear"


# "VCI" alone is the adjusted one, so that splits of different sizes can be compared.
_TITLES = {"vci_adjusted": "VCI", "vci": "VCI of the sample, not adjusted for its size"}
_DIRECTIONS = {"smaller": "↓ more collapsed", "larger": "↑ more collapsed", "": ""}


def _from_catalogue(name: str) -> MetricDisplay:
    metric = METRICS[name]
    title = _TITLES.get(name, metric.title)
    return MetricDisplay(name, title, _DIRECTIONS[metric.direction], metric.scale)


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
