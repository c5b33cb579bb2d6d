"""Invariance laws: transformations of features and labels that leave metrics unchanged.

A law names the metrics that must keep their value under its transformation. Every other metric
must change, which catches an implementation that normalises away what it should measure.

Legend: N samples, K classes, D dimensions, A an invertible map.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vci_jax.conformance.cases import METRICS

Data = tuple[NDArray[Any], NDArray[np.int64]]
Transform = Callable[[NDArray[Any], NDArray[np.int64]], Data]

# Golden cases the laws start from: K - 1 < D, K = D imbalanced, K - 1 > D.
_ALL = ("fewer_classes_than_dimensions", "imbalanced", "more_classes_than_dimensions")
_SPANNED = "more_classes_than_dimensions"
_WIDE = _ALL[:2]  # D >= K - 1, so that another coordinate leaves min(D, K - 1) alone

_AFFINE = frozenset({"vci", "vci_adjusted", "probe_mse", "h_score"})
_SHAPE = frozenset({"fuzziness", "squared_distance", "cdnv", "equinorm", "equiangularity",
                    "etf_error"})  # fmt: skip
_PARTS = frozenset({"within_between_part", "within_orthogonal_part"})
_COSINE = frozenset({"cosine_similarity", "class_separation"})
_INVERTIBLE = frozenset({"within_orthogonal_part", "fuzziness"})
_RIDGE = frozenset({"shrinkage_h_score"})
_EVERY = frozenset(METRICS)


class Law(NamedTuple):
    """``transform`` leaves the metrics in ``same`` alone to ``rtol``, and changes all others.

    Where the class means span all dimensions (K > D), those in ``spanned`` stay as well.
    """

    name: str
    statement: str
    transform: Transform
    same: frozenset[str]
    spanned: frozenset[str] = frozenset({"within_orthogonal_part"})  # it is zero there
    rtol: float = 1e-8
    data: tuple[str, ...] = _ALL

    def keeps(self, metric: str, name: str) -> bool:
        """Whether the metric must stay on the golden case of that name, or else change."""
        return metric in self.same or (name == _SPANNED and metric in self.spanned)


def laws() -> tuple[Law, ...]:
    """All of them, the most forgiving transformations first."""
    return (*_reorderings(), *_rigid_motions(), *_linear_maps(), *_coordinates())


def _reorderings() -> tuple[Law, ...]:
    return (
        Law("permuted samples", "The order of the samples does not matter.",
            lambda h, y: (h[::-1], y[::-1]), _EVERY),
        Law("renamed classes", "The names of the classes do not matter.",
            lambda h, y: (h, y.max() - y), _EVERY),
        Law("duplicated data", "Every sample twice is the same distribution; only what corrects "
            "for the number of samples may notice.",
            lambda h, y: (np.concatenate([h, h]), np.concatenate([y, y])),
            _EVERY - {"vci_adjusted"} - _RIDGE),
        Law("shuffled labels", "Only what ignores the labels stays.",
            lambda h, y: (h, y[7 * np.arange(len(y)) % len(y)]), frozenset({"effective_rank"})),
    )  # fmt: skip


def _rigid_motions() -> tuple[Law, ...]:
    return (
        Law("rotated", "Orthogonal maps about the origin change nothing.",
            lambda h, y: (h @ _rotation(h.shape[1]), y), _EVERY),
        Law("scaled", "One positive factor for all features changes only variances themselves.",
            lambda h, y: (3.0 * h, y), _EVERY - _PARTS),
        Law("translated", "One vector added to all samples changes only views from the origin.",
            lambda h, y: (h + np.arange(5.0, 5.0 + h.shape[1]), y),
            _EVERY - _COSINE - {"effective_rank"}),
        Law("samples scaled", "A positive factor for each sample changes all but the cosines.",
            lambda h, y: (h * (1.0 + np.arange(len(y)) % 3)[:, None], y), _COSINE),
    )  # fmt: skip


def _linear_maps() -> tuple[Law, ...]:
    # Where Sigma_B is invertible, fuzziness is Tr[Sigma_W Sigma_B^-1] / K: it stays as well.
    return (
        Law("sheared", "A = I + N, N nilpotent: what a linear probe can undo does not move VCI; "
            "distances and angles do change.",
            lambda h, y: (h + 2.0 * _before(h), y), _AFFINE, _INVERTIBLE),
        Law("condition number 1e3", "An invertible map of condition number 1e3.",
            lambda h, y: (h @ _map(h.shape[1], 1e3), y), _AFFINE, _INVERTIBLE),
        Law("condition number 1e6", "An invertible map of condition number 1e6; the covariance "
            "has 1e12.",
            lambda h, y: (h @ _map(h.shape[1], 1e6), y), _AFFINE, data=_WIDE),
    )  # fmt: skip


def _coordinates() -> tuple[Law, ...]:
    return (
        Law("zero coordinate", "A coordinate that is always zero says nothing; only the average "
            "variance a coordinate, to which shrinkage shrinks, falls.",
            lambda h, y: (np.column_stack([h, np.zeros(len(y))]), y), _EVERY - _RIDGE, data=_WIDE),
        Law("repeated coordinate", "A coordinate given twice says nothing to a linear probe.",
            lambda h, y: (np.column_stack([h, h[:, :1]]), y), _AFFINE, data=_WIDE),
    )  # fmt: skip


def _rotation(dim: int) -> NDArray[np.float64]:
    """Two Householder reflections, so a proper rotation mixing every coordinate."""
    ones, rising = np.ones(dim), np.arange(1.0, dim + 1)
    return _reflection(ones) @ _reflection(rising)


def _reflection(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.eye(len(normal)) - 2 * np.outer(normal, normal) / (normal @ normal)


def _map(dim: int, condition: float) -> NDArray[np.float64]:
    """An invertible matrix with singular values from 1 down to 1 / condition."""
    first = _rotation(dim)
    return first @ np.diag(np.geomspace(1, 1 / condition, dim)) @ first @ first


def _before(features: NDArray[Any]) -> NDArray[Any]:
    """For each coordinate the one before it, and zero for the first."""
    return np.pad(features, ((0, 0), (1, 0)))[:, :-1]
