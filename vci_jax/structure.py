"""How the class means are arranged: NC2 and NC3 of neural collapse, and CDNV.

A collapsed network's centred class means form a simplex equiangular tight frame (ETF): equal
norms, all cosines -1 / (K - 1); and the classifier points along them. Each function is zero there.

Legend: K classes present, D feature dimension, m_k = mu_k - mu_G, M the K x D matrix of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vci_jax import linalg
from vci_jax.geometry import Geometry

Scalar = Float[Array, ""]


def cdnv(geometry: Geometry) -> Scalar:
    """Class-distance normalised variance, averaged over pairs of classes.

        mean over j < k of (var_j + var_k) / (2 ||mu_j - mu_k||^2)

    with var_k the trace of the covariance of class k.

    Invariant under rotation and scaling; smaller is more collapsed. Infinite if two class means
    coincide, NaN for fewer than two classes.

    Reference:
      Galanti, György & Hutter (2021), Definition 1. Agrees with ``variability_cdnv`` of
      rhubarbwu/neural-collapse; ``nc1_cdnv`` of felixsh/nc-toolbox is the coefficient of
      variation over the pairs instead.
    """
    return _mean_over(pairwise_cdnv(geometry), _pairs(geometry))


def pairwise_cdnv(geometry: Geometry) -> Float[Array, "K K"]:
    """CDNV of every pair of classes; zero on the diagonal, infinite where means coincide."""
    distance = _squared_distances(geometry.offsets)
    norms = jnp.sum(geometry.offsets**2, axis=1)
    noise = (8 * geometry.data_eps) ** 2 * (norms[:, None] + norms)
    variance = (geometry.variance[:, None] + geometry.variance) / 2
    apart = distance > noise
    value = jnp.where(apart, variance / jnp.where(apart, distance, 1), jnp.inf)
    return jnp.where(jnp.eye(norms.shape[0], dtype=bool), 0, value)


def _squared_distances(points: Float[Array, "K D"]) -> Float[Array, "K K"]:
    """From differences, class by class: ||a||^2 + ||b||^2 - 2 a.b cancels for near neighbours."""
    squares: Array = jax.lax.map(lambda point: jnp.sum((points - point) ** 2, axis=1), points)
    return squares


def equinorm(geometry: Geometry) -> Scalar:
    """Coefficient of variation of ||m_k|| over classes (population standard deviation / mean).

    Reference:
      Papyan, Han & Donoho (2020), Fig. 2.
    """
    norms = jnp.sqrt(jnp.sum(geometry.offsets**2, axis=1))
    mean = _mean_over(norms, geometry.present)
    variance = _mean_over((norms - mean) ** 2, geometry.present)
    return jnp.sqrt(variance) / jnp.where(mean > 0, mean, jnp.nan)


def equiangularity(geometry: Geometry) -> Scalar:
    """Standard deviation of the cosines between centred class means, over pairs.

    NaN for fewer than two classes, or if a class mean sits at the centre and has no direction.

    Reference:
      Papyan, Han & Donoho (2020), Fig. 3. Zero for K = 2, where there is one pair.
    """
    norms = jnp.sqrt(jnp.sum(geometry.offsets**2, axis=1))
    safe = jnp.where(norms > 0, norms, jnp.where(geometry.present, jnp.nan, 1))
    units = geometry.offsets / safe[:, None]
    cosines = linalg.matmul(units, units.T)
    pairs = _pairs(geometry)
    mean = _mean_over(cosines, pairs)
    return jnp.sqrt(_mean_over((cosines - mean) ** 2, pairs))


def etf_error(geometry: Geometry) -> Scalar:
    """|| M M^T / ||M M^T||_F - (I - 1 1^T / K) / sqrt(K - 1) ||_F over the classes present.

    Zero exactly for a simplex ETF, at most 2. NaN for one class or coinciding means.

    Reference:
      Zhu et al. (2021), Section 4, with the class means in place of the classifier.
    """
    present = geometry.present.astype(geometry.offsets.dtype)
    classes = jnp.sum(present)
    products = linalg.matmul(geometry.offsets, geometry.offsets.T)
    norm = jnp.sqrt(jnp.sum(products**2))
    simplex = jnp.diag(present) - present[:, None] * present / jnp.maximum(classes, 1)
    simplex = simplex / jnp.sqrt(jnp.maximum(classes - 1, 1))
    return jnp.sqrt(jnp.sum((products / jnp.where(norm > 0, norm, jnp.nan) - simplex) ** 2))


def self_duality(
    geometry: Geometry, kernel: Float[Array, "D K"], bias: Float[Array, " K"] | None = None
) -> Scalar:
    """|| W / ||W||_F - M / ||M||_F ||_F with W = kernel^T, over the classes present (NC3).

    Zero when the classifier points along the centred class means, at most 2. The bias plays no
    part; it is accepted so that a whole head can be passed.

    Raises:
      ValueError: at trace time, if the kernel is not [D, K].

    Reference:
      Papyan, Han & Donoho (2020), Fig. 5.
    """
    del bias
    num_classes, dim = geometry.offsets.shape
    if jnp.shape(kernel) != (dim, num_classes):
        raise ValueError(
            f"The head's kernel must be [D, K] = [{dim}, {num_classes}], got "
            f"{list(jnp.shape(kernel))}. torch.nn.Linear keeps [K, D]: pass weight.T."
        )
    weights = jnp.asarray(kernel, geometry.offsets.dtype).T * geometry.present[:, None]

    def unit(matrix: Array) -> Array:
        norm = jnp.sqrt(jnp.sum(matrix**2))
        return matrix / jnp.where(norm > 0, norm, jnp.nan)

    return jnp.sqrt(jnp.sum((unit(weights) - unit(geometry.offsets)) ** 2))


def _pairs(geometry: Geometry) -> Bool[Array, "K K"]:
    """The pairs of different present classes, each in both orders."""
    both = geometry.present & geometry.present[:, None]
    return both & ~jnp.eye(both.shape[0], dtype=bool)


def _mean_over(values: Array, where: Array) -> Scalar:
    """Mean over the entries asked for; NaN if there are none."""
    size = jnp.sum(where).astype(values.dtype)
    return jnp.sum(jnp.where(where, values, 0)) / jnp.where(size > 0, size, jnp.nan)
