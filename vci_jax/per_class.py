"""Which classes have collapsed, and which are still mixed up with which.

The other metrics are averages; these are what is averaged, one entry a class. Sort by
``squared_distance`` to see the loosest classes; look up ``nearest`` to see what they blur into.

Legend: K classes, D feature dimension, n_k samples of class k, mu_k its mean, mu_G the centre.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from vci_jax import linalg
from vci_jax.geometry import Geometry, Weighting, factorize
from vci_jax.moments import ClassMoments, unit_means


@functools.partial(jax.jit, static_argnames="weighting")  # so that no eigenproblem is ever solved
def per_class(
    moments: ClassMoments, *, weighting: Weighting = "sample"
) -> dict[str, Num[Array, " K"]]:
    """Returns the spread, place and closest neighbour of every class.

    Args:
      moments: one state.
      weighting: which centre mu_G distances are measured from, see ``factorize``.

    Returns:
      A dictionary of arrays with one entry a class:
        ``count``: n_k;
        ``variance``: (1 / n_k) sum_i ||h_i - mu_k||^2, the trace of the class' covariance;
        ``distance``: ||mu_k - mu_G||;
        ``squared_distance``: variance / distance^2, infinite for a class mean at the centre;
        ``cosine_similarity``: ||(1 / n_k) sum_i h_i / ||h_i|| ||^2, the mean cosine of two of its
        samples, self-pairs included;
        ``nearest``: the other class whose mean is closest, the lower index among equals;
        ``nearest_cdnv``: (var_k + var_j) / (2 ||mu_k - mu_j||^2) for j = ``nearest``, infinite if
        the means coincide.
      A class without samples has count 0, nearest -1 and NaN elsewhere; so have ``nearest`` and
      ``nearest_cdnv`` if no other class is present.

      They add up: with p_k the weight of a class, sum_k p_k variance = Tr Sigma_W,
      sum_k p_k distance^2 = Tr Sigma_B, and the mean of ``cosine_similarity`` over the classes
      present is the metric of that name.

    Raises:
      ValueError: at trace time, for an unknown weighting or for a stack of partial states.
    """
    geometry = factorize(moments, weighting=weighting)
    distance = jnp.sqrt(jnp.sum(geometry.offsets**2, axis=1))
    nearest = _nearest(geometry)
    values = {
        "variance": geometry.variance,
        "distance": distance,
        "squared_distance": geometry.variance / distance**2,
        "cosine_similarity": _cosine_similarity(moments),
        "nearest_cdnv": _cdnv(geometry, nearest),
    }
    masked = {name: jnp.where(geometry.present, v, jnp.nan) for name, v in values.items()}
    return {"count": moments.count, "nearest": nearest, **masked}


def _cosine_similarity(moments: ClassMoments) -> Float[Array, " K"]:
    return jnp.sum((moments.unit_pivot + unit_means(moments)) ** 2, axis=1)


def _nearest(geometry: Geometry) -> Int[Array, " K"]:
    """Index of the closest other class mean; -1 where there is none."""
    # ||m_j - m_k||^2 less ||m_k||^2, which is the same for all j.
    products = linalg.matmul(geometry.offsets, geometry.offsets.T)
    distance = jnp.diagonal(products) - 2 * products
    others = geometry.present & ~jnp.eye(products.shape[0], dtype=bool)
    nearest = jnp.argmin(jnp.where(others, distance, jnp.inf), axis=1).astype(jnp.int32)
    return jnp.where(geometry.present & jnp.any(others, axis=1), nearest, -1)


def _cdnv(geometry: Geometry, other: Int[Array, " K"]) -> Float[Array, " K"]:
    """CDNV of each class with the one named; distances from differences, so nothing cancels."""
    gap = jnp.sum((geometry.offsets - geometry.offsets[other]) ** 2, axis=1)
    variance = (geometry.variance + geometry.variance[other]) / 2
    return jnp.where(other >= 0, variance / gap, jnp.nan)
