"""``vci_adjusted`` without each block of the data, from quantities of all of the data.

Leaving out block b takes its scatter, and that of its class means about the others', off the whole:

    S_-b = S - S_b - sum_k w_k n_bk n_k / (n_k - n_bk) d_bk d_bk^T,    d_bk = mu_bk - mu_k

A Cholesky factor and the eigenvalues of one small matrix then do, without a program to compile.
That holds where nothing has to be cut and nothing cancels, which is checked; elsewhere
``without_each`` returns None, and ``interval`` merges and factors the other blocks instead.

Legend: B blocks, K classes, D feature dimension, n_bk samples of class k in block b.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.linalg import blas, eigvalsh, lapack

from vci_jax import adjusted
from vci_jax.canonical import magnitude, mean_rounding
from vci_jax.geometry import Geometry, Weighting
from vci_jax.moments import ClassMoments

# Ratios c_j are right to about this: far closer than leaving out a block changes them.
_PRECISION = 1e-9
_MARGIN = 10  # A value this far from a cutoff is clear of it: estimated norms are more accurate.


class Whole(NamedTuple):
    """Quantities of all of the data that ``without_each`` needs.

    ``scatter`` is the pooled S of all blocks, ``mean`` the class means about ``pivot``; ``varying``
    are the coordinates that are no constants. ``complete``: no direction was cut, and none is free
    of variance. ``least`` is the smallest ratio c_j, ``faintness`` that of ``Canonical``, and
    ``noise`` the largest part of a variance within classes that may be rounding of the means.
    """

    scatter: Float[Array, "D D"]
    mean: Float[Array, "K D"]
    pivot: Float[Array, " D"]
    class_weight: Float[Array, " K"]
    varying: Bool[Array, " D"]
    complete: Bool[Array, ""]
    least: Float[Array, ""]
    faintness: Float[Array, ""]
    noise: Float[Array, ""]


def whole(geometry: Geometry, data_eps: float) -> Whole:
    """Returns ``Whole`` from a geometry that has been factored."""
    moments, canonical = geometry.moments, geometry.canonical
    scatter = moments.scatter + moments.scatter_residual
    within = jnp.diagonal(scatter)
    samples = jnp.sum(moments.count).astype(scatter.dtype)
    varying = within > samples * (8 * data_eps * jnp.max(magnitude(moments), axis=0)) ** 2
    most = jnp.minimum(jnp.sum(varying), jnp.sum(geometry.present) - 1)
    finite = canonical.kept & jnp.isfinite(canonical.ratios)
    return Whole(
        scatter=scatter,
        mean=moments.mean,
        pivot=moments.pivot,
        class_weight=moments.class_weight,
        varying=varying,
        complete=(canonical.rank == jnp.sum(varying)) & (jnp.sum(finite) == most) & (most > 0),
        least=jnp.min(jnp.where(finite, canonical.ratios, jnp.inf)),
        faintness=canonical.faintness,
        noise=jnp.max(
            samples * mean_rounding(moments, data_eps) / jnp.where(varying, within, jnp.inf)
        ),
    )


def without_each(
    blocks: ClassMoments, of_all: Whole, *, weighting: Weighting, data_eps: float
) -> Float[np.ndarray, " B"] | None:
    """``vci_adjusted`` of all blocks but each, NaN for empty ones; None where it needs more care.

    Args:
      blocks: partial states with a leading axis of B, NumPy arrays.
      of_all: ``whole`` of them together, in float64.
      weighting: see ``factorize``.
      data_eps: see ``factorize``.
    """
    if not of_all.complete:
        return None
    count = np.asarray(blocks.count).astype(float)
    total, dim = count.sum(axis=0), of_all.mean.shape[1]
    varying = np.flatnonzero(of_all.varying)
    columns = np.s_[:] if len(varying) == dim else varying
    scatter = of_all.scatter[columns][:, columns]
    scale = 1 / np.sqrt(np.diagonal(scatter))
    square = scale * scale[:, None]
    correlation, size = scatter * square, len(scale)
    centre = of_all.mean[np.argmax(total)]
    means = np.where(total[:, None] > 0, of_all.mean - centre, 0)[:, columns] * scale
    # As ``whitening.whiten`` cuts; and far from where sums cancel.
    norm, eps = float(np.max(np.sum(np.abs(correlation), axis=0))), float(np.finfo(float).eps)
    cutoff = size * eps * norm + max(8.0, size**0.5) * data_eps + float(of_all.noise)
    cutoff = max(_MARGIN * cutoff, eps * norm / _PRECISION)
    faint = _MARGIN**2 * float(of_all.faintness) ** 2 * float(of_all.least)
    parts = []
    for b in np.flatnonzero(np.any(count, axis=1)):
        left = total - count[b]
        share = count[b] / np.maximum(left, 1)
        # A class that lies in this block alone leaves no mean, and adds nothing between classes.
        weight = np.where(left > 0, of_all.class_weight * share * total, 0)
        apart = (blocks.pivot[b].astype(float) - of_all.pivot) + blocks.mean[b] - of_all.mean
        apart = np.where(count[b][:, None] > 0, apart, 0)[:, columns] * scale
        block_scatter = blocks.scatter[b].astype(float) + blocks.scatter_residual[b]
        rest = correlation - block_scatter[columns][:, columns] * square
        rows = np.sqrt(weight)[:, None] * apart
        # Fortran's order, for LAPACK; it reads and writes one triangle of the symmetric matrix.
        rest = blas.dsyrk(-1.0, rows.T, beta=1.0, c=rest.T, overwrite_c=True, lower=True)
        proportion = left / left.sum() if weighting == "sample" else (left > 0) / np.sum(left > 0)
        offsets = np.where(left[:, None] > 0, means - share[:, None] * apart, 0)
        offsets = np.where(left[:, None] > 0, offsets - proportion @ offsets, 0)
        pooled = np.sqrt(proportion * np.sum(left * of_all.class_weight))
        ratios = _ratios(rest, pooled[:, None] * offsets, norm, cutoff, int(np.sum(left > 0)) - 1)
        if ratios is None or ratios[-1] < faint:
            return None
        parts.append(_sample(ratios, left, proportion, size, dim))
    values = np.full(len(count), np.nan)
    values[np.any(count, axis=1)] = _adjusted(parts)
    return values


def _ratios(
    scatter: np.ndarray, rows: np.ndarray, norm: float, cutoff: float, classes: int
) -> np.ndarray | None:
    """The ratios c_j, descending, of class means [K D] and the lower half of the scatter.

    None if an eigenvalue of the scatter may lie below ``cutoff`` (``norm`` bounds the largest), or
    if 1 / (1 + c_j) are not known to ``_PRECISION``.
    """
    number = min(len(scatter), classes)
    lower, failed = lapack.dpotrf(scatter, lower=True, clean=False, overwrite_a=True)
    if failed or number < 1:
        return None
    condition, _ = lapack.dpocon(lower, norm, uplo="L")
    if not condition * norm > cutoff:
        return None
    white = blas.dtrsm(1.0, lower, rows.T, lower=True)
    gram = blas.dsyrk(1.0, white, trans=len(rows) <= len(scatter), lower=True)
    if not np.all(np.isfinite(np.diagonal(gram))):
        return None
    ratios = eigvalsh(gram, lower=True, overwrite_a=True, check_finite=False)[::-1][:number]
    rounding = len(gram) * np.finfo(float).eps * ratios[0]
    return ratios if rounding < _PRECISION * (1 + ratios[-1]) else None


def _sample(
    ratios: np.ndarray, count: np.ndarray, proportion: np.ndarray, rank: int, dim: int
) -> tuple[dict[str, Any], float]:
    """What ``adjusted_vci`` takes if all directions are there: a ``Sample`` and the plug-in VCI."""
    classes, number = int(np.sum(count > 0)), len(ratios)
    size = 1 / np.sum(proportion**2 / np.maximum(count, 1))
    if abs(size - round(size)) <= 64 * np.finfo(float).eps * size:
        size = round(size)
    limit = min(dim, classes - 1)
    sample = {
        "ratios": ratios,
        "kept": np.ones(number, bool),
        "size": float(size),
        "classes": float(classes),
        "rank": float(max(min(rank, int(count.sum()) - 1), number)),
        "limit": float(limit),
    }
    return sample, (float(np.sum(1 / (1 + ratios))) + limit - number) / limit


def _adjusted(parts: list[tuple[dict[str, Any], float]]) -> np.ndarray:
    """``adjusted_vci`` of several samples in one call; shorter lists of ratios are filled up."""
    most = max(len(sample["ratios"]) for sample, _ in parts)
    stacked: Any = {
        name: np.array([_filled(sample[name], most) for sample, _ in parts])
        for name in adjusted.Sample._fields
    }
    plugin = np.array([value for _, value in parts])
    return np.asarray(_of_each(adjusted.Sample(**stacked), plugin))


def _filled(values: Any, size: int) -> Any:
    return np.pad(values, (0, size - len(values))) if np.ndim(values) else values


_of_each = jax.jit(jax.vmap(adjusted.adjusted_vci))
