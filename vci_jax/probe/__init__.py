r"""Linear probes of features: a whole path of penalties, each solved to its optimum.

    fits = probe.fit_path(features, labels, l2s)  # kernel [P D K], bias [P K], gap [P], ...
    choice = probe.sweep(train, test)  # choose a penalty on validation, refit, score once

``LogisticProbe``, the same for scikit-learn's pipelines, is imported when it is asked for; it alone
needs scikit-learn: ``pip install vci_jax[probe]``.
"""

from typing import Any

from vci_jax.probe.baselines import knn_predict, least_squares
from vci_jax.probe.path import ConvergenceWarning, ProbeFit, fit, fit_path, fit_paths
from vci_jax.probe.selection import Samples, Sweep, mean_per_class, sweep, top1

__all__ = [
    "ConvergenceWarning",
    "LogisticProbe",
    "ProbeFit",
    "Samples",
    "Sweep",
    "fit",
    "fit_path",
    "fit_paths",
    "knn_predict",
    "least_squares",
    "mean_per_class",
    "sweep",
    "top1",
]


def __getattr__(name: str) -> Any:
    if name != "LogisticProbe":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vci_jax.probe.estimator import LogisticProbe

    return LogisticProbe
