"""Features in the basis of their principal axes: found once, shared by every penalty.

The penalty ||W||^2 does not change under rotations, so logistic regression may be solved in any
orthonormal basis. In this one the columns are uncorrelated, which makes a diagonal preconditioner a
good one; directions in which the features do not vary are left out, and where N < D only N - 1 of
them are left. Centring moves the mean to the intercept, which is free.

Legend: N samples, D features, Q kept directions.
"""

from typing import NamedTuple

import jax
import numpy as np

from vci_jax import linalg

# A direction is kept if its variance is at least this part of the largest one's: below it, float64
# cannot tell the direction from the rounding of the second moments.
_CUTOFF = 1e-12
_CHUNK = 4096


class Rotation(NamedTuple):
    """``(features - mean) @ axes / scale``.

    Attributes:
      mean: of the features, ``[D]``.
      axes: orthonormal columns, ``[D Q]``.
      scale: the largest standard deviation, so that the features' unit does not matter.
      squares: the variances after rotation, ``[Q]``, from 1 down.
    """

    mean: np.ndarray
    axes: np.ndarray
    scale: float
    squares: np.ndarray

    def apply(self, features: np.ndarray, out: np.ndarray) -> None:
        """Writes the rotated features into ``out[:Q, :N]``, in float64 a chunk at a time."""
        kept = len(self.squares)
        for rows in _chunks(len(features)):
            centred = features[rows].astype(np.float64) - self.mean
            out[:kept, rows][:, : len(centred)] = (centred @ self.axes / self.scale).T

    def undo(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernel ``[P D K]`` and bias ``[P K]`` for the features as they came."""
        kernel = np.matmul(self.axes / self.scale, kernel)
        return kernel, bias - np.einsum("d,pdk->pk", self.mean, kernel)


def fit(features: np.ndarray, weights: np.ndarray) -> Rotation:
    """Returns the rotation to the principal axes of weighted samples.

    Args:
      features: ``[N D]``; may be memory-mapped, and is read a chunk at a time.
      weights: ``[N]``, whose sum is one.

    Raises:
      ValueError: squares of the features overflow.
    """
    mean = np.zeros(features.shape[1])
    for rows in _chunks(len(features)):
        mean += weights[rows] @ features[rows].astype(np.float64)
    peak = float(np.abs(mean).max(initial=0))
    if len(features) < features.shape[1]:
        variances, axes = _from_samples(features, weights, mean)
    else:
        variances, axes = _eigh(_covariance(features, weights, mean))
    largest = variances.max(initial=0)
    # The second bound is the rounding of the mean: constant features vary no less than that.
    noise = features.shape[1] * (8 * np.finfo(np.float64).eps * peak) ** 2
    kept = variances > max(_CUTOFF * largest, noise)
    scale = float(np.sqrt(largest)) if kept.any() else 1.0
    return Rotation(mean, axes[:, kept], scale, variances[kept] / scale**2)


def _covariance(features: np.ndarray, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    total = np.zeros((len(mean), len(mean)))
    for rows in _chunks(len(features)):
        centred = (features[rows] - mean) * np.sqrt(weights[rows])[:, None]
        total += centred.T @ centred
    return total


def _from_samples(
    features: np.ndarray, weights: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns variances and axes by way of the N x N inner products: X = U S V^T, V = X^T U / S."""
    centred = (features - mean) * np.sqrt(weights)[:, None]
    variances, left = _eigh(centred @ centred.T)
    kept = variances > _CUTOFF * variances.max(initial=0)
    axes = centred.T @ (left[:, kept] / np.sqrt(variances[kept]))
    return variances[kept], axes


def _eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns eigenvalues from large to small, and eigenvectors, in float64 on the host."""
    if not np.isfinite(matrix).all():
        raise ValueError(
            "the squares of the features leave the range of float64: divide them by a constant."
        )
    with jax.enable_x64(True), jax.default_device(linalg.host()):
        values, vectors = map(np.asarray, jax.jit(linalg.eigh)(matrix))
    order = np.argsort(values)[::-1]
    return values[order], vectors[:, order]


def _chunks(size: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, size, _CHUNK)]
