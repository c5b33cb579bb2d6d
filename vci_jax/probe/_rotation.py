"""Features in the basis of their principal axes: found once, shared by every penalty.

The penalty ||W||^2 does not change under rotations, so logistic regression may be solved in any
orthonormal basis. In this one the columns are uncorrelated, which makes a diagonal preconditioner a
good one; directions in which the features do not vary are left out, and where N < D only N - 1 of
them are left. Centring moves the mean to the intercept, which is free; without an intercept the
features stay where they are, and the variances below are second moments about zero.

Columns in different units make a covariance whose small eigenvalues drown in the rounding of its
large ones. They are found one scale after another (``_by_scales``): the directions that the
covariance cannot tell from nothing are a basis of their own, in which the features are small, and
so is the rounding of their covariance.

Legend: N samples, D features, Q kept directions.
"""

from typing import NamedTuple

import jax
import numpy as np

from vci_jax import linalg
from vci_jax.errors import VCIError

# Below this part of the largest variance the rounding of second moments shows in a direction.
_RESOLVED = 1e-12
# The same between the scales of ``_by_scales``: what is clear of the rounding of the rest.
_CLEAR, _TURN = 1e-8, 1e-7
# Axes made from N x N inner products are orthonormal to eps over this.
_ORTHONORMAL = 1e-6
# Rounding of an inner product of features with an axis, in units of the sizes of its terms.
_ROUNDING = 16 * np.finfo(np.float64).eps
_CHUNK = 4096


class Rotation(NamedTuple):
    """``(features - mean) @ axes / scale``.

    Attributes:
      mean: of the features, ``[D]``.
      axes: orthonormal columns, ``[D Q]``.
      scale: the largest standard deviation, so that the features' unit does not matter.
      squares: the variances after rotation, ``[Q]``, from 1 down.
      dropped: the number of directions left out of features that are not constant.
      lost: a bound on the variance in all those directions together, in units of ``scale``^2.
    """

    mean: np.ndarray
    axes: np.ndarray
    scale: float
    squares: np.ndarray
    dropped: int
    lost: float

    def apply(self, features: np.ndarray, out: np.ndarray) -> None:
        """Writes the rotated features into ``out[:Q, :N]``, in float64 a chunk at a time."""
        directions = len(self.squares)
        for rows in _chunks(len(features)):
            centred = features[rows].astype(np.float64) - self.mean
            out[:directions, rows][:, : len(centred)] = (centred @ self.axes / self.scale).T

    def undo(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernel ``[P D K]`` and bias ``[P K]`` for the original features."""
        kernel = np.matmul(self.axes / self.scale, kernel)
        return kernel, bias - np.einsum("d,pdk->pk", self.mean, kernel)


def fit(features: np.ndarray, weights: np.ndarray, centred: bool = True) -> Rotation:
    """Returns the rotation to the principal axes of features ``[N D]``, whose weights sum to one.

    Memory-mapped features are read a chunk at a time. Unless ``centred``, the mean counts as zero.

    Raises:
      VCIError: squares of the features leave the range of float64.
    """
    mean, unit, varying = _centre(features, weights, centred)
    count, dim = int(np.count_nonzero(weights)), int(varying.sum())
    if not dim:
        return Rotation(mean, np.zeros((len(mean), 0)), 1.0, np.zeros(0), 0, 0.0)
    table = _Centred(features, weights, mean, unit, varying)
    rank = min(count - centred, dim)
    variances, axes = table.axes_by_samples() if len(features) < dim else table.axes(None)
    lost = 0.0 if rank == dim else dim * _ROUNDING**2 * np.sum(variances)
    if variances[rank - 1] > _RESOLVED * variances[0]:
        variances, axes = variances[:rank], axes[:, :rank]
    else:
        variances, axes, missed = _by_scales(table)
        lost += missed
    whole = np.zeros((len(mean), len(variances)))
    whole[varying] = axes
    scale = float(np.sqrt(variances[0]))
    dropped = dim - len(variances)
    return Rotation(mean, whole, scale * unit, variances / scale**2, dropped, lost / scale**2)


def _centre(
    features: np.ndarray, weights: np.ndarray, centred: bool
) -> tuple[np.ndarray, float, np.ndarray]:
    """Returns the mean, a power of two near the largest deviation from it, and what varies.

    Relative to one of the samples, so that a constant column has exactly its value for a mean.
    """
    counted = weights > 0
    pivot = features[np.argmax(counted)].astype(np.float64) * centred
    mean, reach = np.zeros(len(pivot)), np.zeros(len(pivot))
    for rows in _chunks(len(features)):
        moved = (features[rows] - pivot)[counted[rows]]
        mean += weights[rows][counted[rows]] @ moved
        reach = np.maximum(reach, np.abs(moved).max(axis=0, initial=0))
    peak = float(reach.max())
    if peak > 1e150 or 0 < peak < 1e-150:
        what = "divide" if peak > 1 else "multiply"
        raise VCIError(
            "the squares of the features leave the range of float64: "
            f"{what} them by a constant (they vary by {peak:.3g})."
        )
    return (pivot + mean) * centred, 2.0 ** np.frexp(peak)[1], reach > 0


class _Centred(NamedTuple):
    """The columns that vary, less their mean, in one unit; read a chunk at a time."""

    features: np.ndarray
    weights: np.ndarray
    mean: np.ndarray
    unit: float
    varying: np.ndarray

    def rows(self, rows: slice) -> np.ndarray:
        """Returns samples ``[n D']``, times the roots of their weights."""
        centred = (self.features[rows] - self.mean)[:, self.varying] / self.unit
        return centred * np.sqrt(self.weights[rows])[:, None]

    def products(self, some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Returns the covariances of two sets of directions, ``[D' a]`` and ``[D' b]``."""
        total = np.zeros((some.shape[1], others.shape[1]))
        for rows in _chunks(len(self.features)):
            part = self.rows(rows)
            left = part @ some
            total += left.T @ (left if others is some else part @ others)
        return total

    def axes(self, basis: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns variances and principal axes in the span of a basis ``[D' m]``, or of all."""
        if basis is not None:
            variances, vectors = _eigh(self.products(basis, basis))
            return variances, basis @ vectors
        parts = map(self.rows, _chunks(len(self.features)))
        return _eigh(sum(part.T @ part for part in parts))

    def axes_by_samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the same by way of N x N inner products: X = U S V^T, V = X^T U / S."""
        rows = self.rows(slice(None))
        variances, left = _eigh(rows @ rows.T)
        resolved = variances > _RESOLVED * variances[0]
        axes = rows.T @ (left[:, resolved] / np.sqrt(variances[resolved]))
        if not (variances[resolved] > _ORTHONORMAL * variances[0]).all():
            axes, signs = np.linalg.qr(axes)
            axes *= np.sign(np.diag(signs))
        return np.where(resolved, variances, 0), axes

    def deviations(self) -> np.ndarray:
        """Returns the standard deviation of each column."""
        squares = np.zeros(int(self.varying.sum()))
        for rows in _chunks(len(self.features)):
            squares += np.sum(self.rows(rows) ** 2, axis=0)
        return np.sqrt(squares)


def _by_scales(table: _Centred) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns variances, axes, and a bound on the variance in the directions left out.

    A direction is left out where its deviation is no more than the rounding of inner products with
    its axis, which is small where the axis avoids the columns of large units.
    """
    deviations = table.deviations()
    dim, lost = len(deviations), 0.0
    basis, axes, variances = np.eye(dim), np.zeros((dim, 0)), np.zeros(0)
    if len(table.features) < dim:
        basis, _ = np.linalg.qr(table.rows(slice(None)).T)
    while basis.shape[1]:
        # Turned until what is left is uncorrelated with what was found: by the rounding of axes, of
        # eps / _CLEAR at most. More than that is what the features have of it, where they are zero.
        turn = table.products(axes, basis) / variances[:, None]
        turn[np.abs(turn) > _TURN] = 0
        axes, basis = axes + basis @ turn.T, basis - axes @ turn
        here, new = table.axes(basis)
        floor = (_ROUNDING * (deviations @ np.abs(new))) ** 2
        clear = here > _CLEAR * max(here[0], 0)
        clear[0] = True
        sound = clear & (here > floor)
        lost += float(np.sum((np.maximum(here, 0) + floor)[clear & ~sound]))
        axes = np.concatenate([axes, new[:, sound]], axis=1)
        variances = np.concatenate([variances, here[sound]])
        basis = new[:, ~clear]
    order = np.argsort(-variances)
    return variances[order], axes[:, order], lost


def _eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns eigenvalues from large to small, and eigenvectors, in float64 on the host."""
    with jax.enable_x64(True), jax.default_device(linalg.host()):
        values, vectors = map(np.asarray, jax.jit(linalg.eigh)(matrix))
    return values, vectors


def _chunks(size: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, size, _CHUNK)]
