"""Linear probes for a path of penalties, under the name they had before ``vci_jax.probe.path``."""

from vci_jax.probe.path import (
    ConvergenceWarning,
    ProbeFit,
    fit,
    fit_path,
    fit_paths,
    iter_path,
    join,
    warn,
)

__all__ = [
    "ConvergenceWarning",
    "ProbeFit",
    "fit",
    "fit_path",
    "fit_paths",
    "iter_path",
    "join",
    "warn",
]
