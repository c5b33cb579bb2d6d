"""Four coefficients of correlation, along the last axis of arrays of any shape.

Each equals its namesake in ``scipy.stats`` (``pearsonr``, ``spearmanr``, ``kendalltau``,
``weightedtau``), which takes one pair of samples a call; resampling takes ten thousand. A
coefficient of a constant sample is NaN. Values that differ by rounding alone are ties
(``rounding.level``), so that a coefficient is the same in every unit.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from probes.transfer import rounding

Coefficient = Callable[[np.ndarray, np.ndarray], np.ndarray]


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the linear correlation of ``[..., N]`` and ``[..., N]``, ``[...]``."""
    x, y = centred(x), centred(y)
    squares = np.sum(x * x, axis=-1) * np.sum(y * y, axis=-1)
    safe = np.where(squares > 0, squares, 1.0)
    return np.where(squares > 0, np.clip(np.sum(x * y, axis=-1) / np.sqrt(safe), -1, 1), np.nan)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the correlation of the ranks; equal values share their mean rank."""
    x, y = rounding.level(x), rounding.level(y)
    return pearson(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns tau-b: concordant less discordant pairs, over the geometric mean of untied ones."""
    x, y = rounding.level(x), rounding.level(y)
    return _tau(x, y, np.ones(np.broadcast_shapes(x.shape, y.shape)))


def weighted_kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns Vigna's tau_h: a pair weighs 1/rank + 1/rank, and the largest value has rank 1.

    It is the mean over the ranking by x (ties by y) and that by y (ties by x).

    Reference: S. Vigna, A weighted correlation index for rankings with ties, WWW 2015.
    """
    x, y = np.broadcast_arrays(rounding.level(x), rounding.level(y))
    return (_tau(x, y, 1 / _descending(x, y)) + _tau(x, y, 1 / _descending(y, x))) / 2


COEFFICIENTS: dict[str, Coefficient] = {
    "pearson": pearson,
    "spearman": spearman,
    "kendall": kendall,
    "weighted_kendall": weighted_kendall,
}


def centred(x: np.ndarray) -> np.ndarray:
    """Returns ``[..., N]`` less its mean, over the largest deviation; zeros for a constant."""
    x = np.asarray(x, np.float64)
    deviations = x - np.mean(x, axis=-1, keepdims=True)
    largest = np.max(np.abs(deviations), axis=-1, keepdims=True)
    constant = rounding.is_constant(x)[..., None]
    return np.where(constant, 0.0, deviations / np.where(constant, 1.0, largest))


def _tau(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(weights.shape[-1], k=1)
    sign_x = np.sign(x[..., first] - x[..., second])
    sign_y = np.sign(y[..., first] - y[..., second])
    pairs = weights[..., first] + weights[..., second]
    untied = np.sum(pairs * abs(sign_x), axis=-1) * np.sum(pairs * abs(sign_y), axis=-1)
    safe = np.where(untied > 0, untied, 1.0)
    agreement = np.sum(pairs * sign_x * sign_y, axis=-1)
    return np.where(untied > 0, np.clip(agreement / np.sqrt(safe), -1, 1), np.nan)


def _descending(major: np.ndarray, minor: np.ndarray) -> np.ndarray:
    """Returns the ranks 1 .. N in descending order."""
    order = np.flip(np.lexsort((minor, major), axis=-1), axis=-1)
    ranks = np.empty(order.shape)
    positions = np.broadcast_to(np.arange(1.0, order.shape[-1] + 1), order.shape)
    np.put_along_axis(ranks, order, positions, axis=-1)
    return ranks
