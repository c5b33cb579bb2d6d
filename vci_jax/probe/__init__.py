r"""Linear probes of features: a whole path of penalties, each solved to its optimum.

    fits = probe.fit_path(features, labels, penalties)  # kernel [P D K], bias [P K], gap [P], ...
    choice = probe.sweep(train, test)  # choose a penalty on validation, refit, score once
    ranking = probe.rank({"a": features, "b": others}, labels)  # which suits best, and how sure

``LogisticProbe``, the same for scikit-learn's pipelines, is imported when it is asked for; it alone
needs scikit-learn: ``pip install vci_jax[probe]``.
"""

from typing import Any

from vci_jax.probe._verdict import ModelScore, Pair, Ranking
from vci_jax.probe.baselines import knn_predict, least_squares, leep, nce, nearest_mean_predict
from vci_jax.probe.path import (
    ConvergenceWarning,
    ProbeFit,
    fit,
    fit_path,
    fit_paths,
    iter_path,
)
from vci_jax.probe.ranking import rank
from vci_jax.probe.selection import Samples, Sweep, mean_per_class, sweep, top1

__all__ = [
    "ConvergenceWarning",
    "LogisticProbe",
    "ModelScore",
    "Pair",
    "ProbeFit",
    "Ranking",
    "Samples",
    "Sweep",
    "fit",
    "fit_path",
    "fit_paths",
    "iter_path",
    "knn_predict",
    "least_squares",
    "leep",
    "mean_per_class",
    "nce",
    "nearest_mean_predict",
    "rank",
    "sweep",
    "top1",
]


def __getattr__(name: str) -> Any:
    if name != "LogisticProbe":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vci_jax.probe.estimator import LogisticProbe

    return LogisticProbe
