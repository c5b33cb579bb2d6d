"""Metrics of each class: which have collapsed, and which still overlap.

The other metrics are averages; these are what is averaged, one entry a class. Sort by
``squared_distance`` to see the loosest classes; look up ``nearest`` to see what they blur into.

Legend: K classes, D feature dimension, n_k samples of class k, mu_k its mean, mu_G the centre.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from vci_jax import linalg, pairs
from vci_jax.geometry import Geometry, Weighting, factorize
from vci_jax.moments import ClassMoments, unit_means
from vci_jax.placement import anywhere
from vci_jax.structure import lengths, mean_rounding, scaled_offsets

_PAIRS = 2**22  # pairs of classes compared at once: 32 MiB in float64


@functools.partial(jax.jit, static_argnames="weighting")  # so that no eigenproblem is ever solved
@anywhere()
def per_class(
    moments: ClassMoments, *, weighting: Weighting = "sample"
) -> dict[str, Num[Array, " K"]]:
    """Returns the spread, the position and the closest neighbour of every class.

    Args:
      moments: one state.
      weighting: which centre mu_G distances are measured from, see ``factorize``.

    Returns:
      A dictionary of arrays with one entry a class:
        ``count``: n_k;
        ``variance``: (1 / n_k) sum_i ||h_i - mu_k||^2, the trace of the class' covariance, NaN
        where it is no larger than the rounding of the class mean, or below the range of squares;
        ``distance``: ||mu_k - mu_G||;
        ``squared_distance``: variance / distance^2, infinite for a class mean that is at the
        centre to rounding (``structure.mean_rounding``);
        ``cosine_similarity``: ||(1 / n_k) sum_i h_i / ||h_i|| ||^2, the mean cosine of two of its
        samples, self-pairs included;
        ``nearest``: the other class whose mean is closest, the lower index among equals;
        ``nearest_cdnv``: (var_k + var_j) / (2 ||mu_k - mu_j||^2) for j = ``nearest``, infinite if
        the means coincide to rounding.
      A class without samples has count 0, nearest -1 and NaN elsewhere; so have ``nearest`` and
      ``nearest_cdnv`` if no other class is present.

      They add up: with p_k the weight of a class, sum_k p_k variance = Tr Sigma_W,
      sum_k p_k distance^2 = Tr Sigma_B, and the mean of ``cosine_similarity`` over the classes
      present is the metric of that name.

    Raises:
      VCIError: at trace time, for an unknown weighting or for a stack of partial states.
    """
    geometry = factorize(moments, weighting=weighting)
    geometry = geometry._replace(variance=_resolved(geometry))
    distance = lengths(geometry.offsets)
    away = distance > mean_rounding(geometry)
    nearest = _nearest(geometry)
    values = {
        "variance": geometry.variance,
        "distance": distance,
        "squared_distance": jnp.where(
            away, geometry.variance / jnp.where(away, distance, 1) ** 2, jnp.inf
        ),
        "cosine_similarity": _cosine_similarity(moments),
        "nearest_cdnv": _cdnv(geometry, nearest),
    }
    masked = {name: jnp.where(geometry.present, v, jnp.nan) for name, v in values.items()}
    return {"count": moments.count, "nearest": nearest, **masked}


def _resolved(geometry: Geometry) -> Float[Array, " K"]:
    """Variances, NaN where the class mean's own rounding is as large, or squares were lost.

    A variance may lack the smallest number for each feature; where the class means lie so near to
    each other that this could show, zero is not a value.
    """
    rounding = (geometry.data_eps * lengths(geometry.moments.mean)) ** 2
    variance, dim = geometry.variance, geometry.offsets.shape[1]
    lost = (variance > 0) & (variance < 2 * rounding)
    lacking = dim * linalg.smallest(geometry.data_eps, variance.dtype)
    apart = jnp.max(jnp.sum(geometry.offsets**2, axis=1))
    near = (apart > 0) & (apart < 1e14 * lacking) & (geometry.moments.count > 1)
    lost |= jnp.where(variance > 0, variance < 1e4 * lacking, near)
    return jnp.where(lost, jnp.nan, variance)


def _cosine_similarity(moments: ClassMoments) -> Float[Array, " K"]:
    return jnp.sum((moments.unit_pivot + unit_means(moments)) ** 2, axis=1)


def _nearest(geometry: Geometry) -> Int[Array, " K"]:
    """Index of the closest other class mean; -1 where there is none. Takes O(K D) memory."""
    size, offsets = geometry.present.shape[0], scaled_offsets(geometry)
    classes = (offsets, jnp.arange(size))

    def closest(products: Array, rows: Array, own: Array, squares: Array) -> Array:
        # ||m_j - m_k||^2 less ||m_k||^2, which is the same for all j.
        others = geometry.present & (classes[1] != own[:, None])
        distance = jnp.where(others, squares - 2 * products, jnp.inf)
        first = pairs.nearest(rows, offsets, distance)
        return jnp.where(jnp.any(others, axis=1), first, -1)

    if size**2 <= _PAIRS:
        products = linalg.matmul(offsets, offsets.T)
        # XLA for CPU would sum the squares of the offsets anew for every pair.
        nearest = closest(products, *classes, jnp.diagonal(products))
    else:
        squares = jnp.sum(offsets**2, axis=1)
        blocks, _ = pairs.split(classes, max(1, _PAIRS // size))
        nearest = jax.lax.map(
            lambda block: closest(linalg.matmul(block[0], offsets.T), block[0], block[1], squares),
            blocks,
        ).reshape(-1)[:size]
    return jnp.where(geometry.present, nearest, -1)


def _cdnv(geometry: Geometry, other: Int[Array, " K"]) -> Float[Array, " K"]:
    """CDNV of each class with the one named; distances from differences, so nothing cancels."""
    gap = jnp.sum((geometry.offsets - geometry.offsets[other]) ** 2, axis=1)
    rounding = mean_rounding(geometry)
    apart = gap > rounding**2 + rounding[other] ** 2
    variance = (geometry.variance + geometry.variance[other]) / 2
    value = jnp.where(apart, variance / jnp.where(apart, gap, 1), jnp.inf)
    return jnp.where(other >= 0, value, jnp.nan)
