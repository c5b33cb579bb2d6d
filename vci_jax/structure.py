"""How the class means are arranged: NC2 and NC3 of neural collapse, and CDNV.

A collapsed network's centred class means form a simplex equiangular tight frame (ETF): equal
norms, all cosines -1 / (K - 1); and the classifier points along them. Each function is zero there.

Legend: K classes present, D feature dimension, m_k = mu_k - mu_G, M the K x D matrix of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vci_jax import linalg
from vci_jax.errors import VCIError
from vci_jax.geometry import Geometry
from vci_jax.pairs import sum_over_pairs

Scalar = Float[Array, ""]

_BLOCK = 2048  # classes; a block of products takes 32 MiB in float64


def cdnv(geometry: Geometry) -> Scalar:
    """Class-distance normalised variance, averaged over pairs of classes.

        mean over j < k of (var_j + var_k) / (2 ||mu_j - mu_k||^2)

    with var_k the trace of the covariance of class k.

    Invariant under rotation and scaling; smaller is more collapsed. Infinite if two class means
    coincide to rounding (``mean_rounding``), NaN for fewer than two classes. Takes O(K D) memory.

    Reference:
      Galanti, György & Hutter (2021), Definition 1. Agrees with ``variability_cdnv`` of
      rhubarbwu/neural-collapse; ``nc1_cdnv`` of felixsh/nc-toolbox is the coefficient of
      variation over the pairs instead.
    """
    return cdnv_and_adjusted(geometry)[0]


def cdnv_adjusted(geometry: Geometry) -> Scalar:
    """CDNV with the bias of the sample size taken out of its variances and distances.

        mean over j < k of (s_j + s_k) / (2 (||mu_j - mu_k||^2 - s_j / n_j - s_k / n_k))

    with s_k = var_k n_k / (n_k - 1), the unbiased trace of the covariance of class k. Numerators
    and denominators are unbiased for the classes drawn from, whatever their sizes, variances and
    distributions: var_k falls short by the factor 1 - 1 / n_k, and sample means are farther apart
    than the means they estimate, by s_j / n_j + s_k / n_k on average. What is left is the bias of
    a ratio, of second order: 10 classes of 5 samples in 32 dimensions fall short by 32 % in
    ``cdnv`` and exceed by 3 % here; of 20 samples, by 9 % and 0.4 %.

    NaN if a class has one sample, if the difference in a denominator is not positive (the data
    cannot tell the two class means apart), or for fewer than two classes. Takes O(K D) memory.

    Reference:
      The distance is the unbiased estimator of Bai & Saranadasa (1996), Eq. 3.4.
    """
    return cdnv_and_adjusted(geometry)[1]


class _Class(NamedTuple):
    """Quantities of a class that pairs are compared by, also with a leading axis of classes."""

    present: Bool[Array, "..."]
    offset: Float[Array, "... D"]
    norm: Float[Array, "..."]  # squared, of the offset
    rounding: Float[Array, "..."]
    variance: Float[Array, "..."]
    unbiased: Float[Array, "..."]  # s_k
    error: Float[Array, "..."]  # s_k / n_k, the variance of the class mean


def _classes(geometry: Geometry) -> _Class:
    count = geometry.moments.count.astype(geometry.offsets.dtype)
    spare = jnp.where(count > 1, count - 1, jnp.nan)
    unbiased = geometry.variance * count / spare
    return _Class(
        present=geometry.present,
        offset=geometry.offsets,
        norm=jnp.sum(geometry.offsets**2, axis=1),
        rounding=mean_rounding(geometry),
        variance=geometry.variance,
        unbiased=unbiased,
        error=geometry.variance / spare,
    )


def _cdnv_of(square: Array, first: _Class, second: _Class) -> tuple[Array, Array]:
    """Returns CDNV and adjusted CDNV of two classes from the squared distance of their means."""
    apart = square > first.rounding**2 + second.rounding**2
    variance = (first.variance + second.variance) / 2
    plain = jnp.where(apart, variance / jnp.where(apart, square, 1), jnp.inf)
    unbiased = square - first.error - second.error
    resolved = apart & (unbiased > 0)
    adjusted = (first.unbiased + second.unbiased) / 2 / jnp.where(resolved, unbiased, 1)
    return plain, jnp.where(resolved, adjusted, jnp.nan)


def cdnv_and_adjusted(geometry: Geometry) -> tuple[Scalar, Scalar]:
    """``cdnv`` and ``cdnv_adjusted``, in one pass over the pairs; apart they take two."""

    def term(left: _Class, right: _Class, different: Array) -> tuple[Array, Array, Array]:
        column: _Class = jax.tree.map(lambda leaf: leaf[:, None], left)
        chosen = different & column.present & right.present
        plain, adjusted = _cdnv_of(_squared_distances(left, right, chosen), column, right)
        return (
            jnp.sum(jnp.where(chosen, plain, 0)),
            jnp.sum(jnp.where(chosen, adjusted, 0)),
            jnp.sum(chosen.astype(plain.dtype)),
        )

    # A block of 256 classes stays in the cache of a core.
    plain, adjusted, pairs = sum_over_pairs(term, _classes(geometry), block=256)
    pairs = jnp.where(pairs > 0, pairs, jnp.nan)
    return plain / pairs, adjusted / pairs


def cdnv_adjusted_rounding(geometry: Geometry) -> Scalar:
    """By how much the rounding of distances may change ``cdnv_adjusted``, to first order.

    Of two classes with mean distance d, its square off by 2 rho d + 8 ``data_eps`` (d^2 + e), and
    e the noise that is subtracted from it, the term changes by that over d^2 - e of itself: by much
    where the data can barely tell the means apart.
    """

    def term(left: _Class, right: _Class, different: Array) -> tuple[Array, Array]:
        column: _Class = jax.tree.map(lambda leaf: leaf[:, None], left)
        chosen = different & column.present & right.present
        square = _squared_distances(left, right, chosen)
        noise = column.error + right.error
        off = 2 * jnp.sqrt(jnp.maximum(square, 0)) * (column.rounding + right.rounding)
        off += 8 * geometry.data_eps * (square + noise)
        resolved = chosen & (square > noise)
        part = jnp.where(resolved, off / jnp.where(resolved, square - noise, 1), 0)
        _, adjusted = _cdnv_of(square, column, right)
        return (
            jnp.sum(jnp.where(resolved, adjusted * part, 0)),
            jnp.sum(chosen.astype(square.dtype)),
        )

    total, pairs = sum_over_pairs(term, _classes(geometry), block=256)
    return total / jnp.where(pairs > 0, pairs, jnp.nan)


def _squared_distances(left: _Class, right: _Class, chosen: Bool[Array, "B B"]) -> Array:
    """||m_j - m_k||^2 for all pairs of two blocks; those not chosen may be anything.

    As ||m_j||^2 + ||m_k||^2 - 2 m_j.m_k, a matrix product, unless that cancels for a chosen pair:
    where it loses a factor of 8, and so 3 bits, all of the block is summed from differences.
    """
    norms = left.norm[:, None] + right.norm
    square = norms - 2 * linalg.matmul(left.offset, right.offset.T)
    cancelled = jnp.any(chosen & (square < norms / 8))
    exact: Array = jax.lax.cond(
        cancelled, lambda: _differences(left.offset, right.offset), lambda: square
    )
    return exact


def _differences(left: Float[Array, "B D"], right: Float[Array, "B D"]) -> Float[Array, "B B"]:
    squares: Array = jax.lax.map(lambda row: jnp.sum((right - row) ** 2, axis=1), left)
    return squares


def pairwise_cdnv(geometry: Geometry) -> Float[Array, "K K"]:
    """CDNV of every pair of classes; zero on the diagonal, infinite where means coincide."""
    row = _classes(geometry)
    column: _Class = jax.tree.map(lambda leaf: leaf[:, None], row)
    value, _ = _cdnv_of(_differences(row.offset, row.offset), column, row)
    return jnp.where(jnp.eye(value.shape[0], dtype=bool), 0, value)


def mean_rounding(geometry: Geometry) -> Float[Array, " K"]:
    """Length below which the offset of a class mean, or a difference of two, may be rounding.

        data_eps (||mu_k|| + 4 max_j ||mu_j - mu_G|| + sd_k)

    The first term is the rounding of the features themselves, the second that of their differences
    from the pivot and the centre, the third that of sums over a class, sd_k^2 the trace of its
    covariance. Two means coincide if the square of their distance does not
    exceed the sum of the squares of both lengths.
    """
    means = jnp.where(geometry.present[:, None], geometry.moments.pivot + geometry.moments.mean, 0)
    size, offset = lengths(means), lengths(geometry.offsets)
    spread = jnp.sqrt(jnp.where(jnp.isfinite(geometry.variance), geometry.variance, 0))
    return geometry.data_eps * (size + 4 * jnp.max(offset) + spread)


def scaled_offsets(geometry: Geometry) -> Float[Array, "K D"]:
    """Offsets over a power of two near the largest: their squares stay in the range of float32."""
    return geometry.offsets / _unit(geometry.offsets)


def lengths(rows: Float[Array, "K D"]) -> Float[Array, " K"]:
    """Euclidean norms of rows whose squares may leave the range of the dtype."""
    unit = _unit(rows)
    return unit * root(jnp.sum((rows / unit) ** 2, axis=1))


def root(values: Array) -> Array:
    """The square root, whose derivative is taken to be zero where it is zero itself."""
    positive = values > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, values, 1)), 0 * values)


def _unit(rows: Float[Array, "K D"]) -> Scalar:
    largest = jnp.max(jnp.abs(rows))
    return linalg.power_of_two(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1))


def equinorm(geometry: Geometry) -> Scalar:
    """Coefficient of variation of ||m_k|| over classes (population standard deviation / mean).

    NaN if all class means coincide to rounding (``mean_rounding``).

    Reference:
      Papyan, Han & Donoho (2020), Fig. 2.
    """
    norms = root(jnp.sum(scaled_offsets(geometry) ** 2, axis=1))
    mean = _mean_over(norms, geometry.present)
    variance = _mean_over((norms - mean) ** 2, geometry.present)
    return root(variance) / jnp.where(_apart(geometry), mean, jnp.nan)


def equiangularity(geometry: Geometry) -> Scalar:
    """Standard deviation of the cosines between centred class means, over pairs.

    NaN for fewer than two classes, or if a class mean sits at the centre to rounding
    (``mean_rounding``) and has no direction. Takes O(K D) memory.

    Reference:
      Papyan, Han & Donoho (2020), Fig. 3. Zero for K = 2, where there is one pair.
    """
    norms = lengths(geometry.offsets)
    resolved = norms > mean_rounding(geometry)
    safe = jnp.where(resolved, norms, jnp.where(geometry.present, jnp.nan, 1))
    classes = (geometry.present, geometry.offsets / safe[:, None])

    def mean(of: Callable[[Array], Array]) -> Array:
        def term(
            left: tuple[Array, Array], right: tuple[Array, Array], different: Array
        ) -> tuple[Array, Array]:
            pairs = different & left[0][:, None] & right[0]
            values = of(linalg.matmul(left[1], right[1].T))
            return jnp.sum(jnp.where(pairs, values, 0)), jnp.sum(pairs.astype(values.dtype))

        total, pairs = sum_over_pairs(term, classes, _BLOCK)
        return total / jnp.where(pairs > 0, pairs, jnp.nan)

    if norms.size <= _BLOCK:
        average = mean(lambda cosines: cosines)
    else:  # The same without a second pass: (||sum of units||^2 - their squares) / pairs.
        units = jnp.where(geometry.present[:, None], classes[1], 0)
        size = jnp.sum(geometry.present).astype(units.dtype)
        average = jnp.sum(jnp.sum(units, axis=0) ** 2) - jnp.sum(units**2)
        average = average / jnp.where(size > 1, size * (size - 1), jnp.nan)
    return root(mean(lambda cosines: (cosines - average) ** 2))


def etf_error(geometry: Geometry) -> Scalar:
    """|| M M^T / ||M M^T||_F - (I - 1 1^T / K) / sqrt(K - 1) ||_F over the classes present.

    Zero exactly for a simplex ETF, at most 2. NaN for one class, or if all class means coincide to
    rounding (``mean_rounding``). Takes O(K D) memory.

    Reference:
      Zhu et al. (2021), Section 4, with the class means in place of the classifier.
    """
    classes = (geometry.present.astype(geometry.offsets.dtype), scaled_offsets(geometry))
    size = jnp.maximum(jnp.sum(classes[0]), 1)

    # || M M^T ||_F = || M^T M ||_F: from the smaller of the two.
    num_classes, dim = geometry.offsets.shape
    rows = classes[1] if num_classes <= dim else classes[1].T
    norm = root(jnp.sum(linalg.matmul(rows, rows.T) ** 2))
    norm = jnp.where(_apart(geometry), norm, jnp.nan)
    scale = jnp.sqrt(jnp.maximum(size - 1, 1))

    def term(left: tuple[Array, Array], right: tuple[Array, Array], different: Array) -> Array:
        both = left[0][:, None] * right[0]
        simplex = (jnp.where(different, 0, both) - both / size) / scale
        # Entry by entry: expanded, the square is 2 - 2 <.,.>, which cancels near an ETF.
        return jnp.sum((linalg.matmul(left[1], right[1].T) / norm - simplex) ** 2)

    return root(sum_over_pairs(term, classes, _BLOCK))


def self_duality(
    geometry: Geometry, kernel: Float[Array, "D K"], bias: Float[Array, " K"] | None = None
) -> Scalar:
    """|| W / ||W||_F - M / ||M||_F ||_F with W = kernel^T, over the classes present (NC3).

    Zero when the classifier points along the centred class means, at most 2. The bias plays no
    part; it is accepted so that a whole head can be passed. NaN if all class means coincide to
    rounding (``mean_rounding``), or if the kernel is zero for the classes present.

    Raises:
      VCIError: at trace time, if the kernel is not [D, K].

    Reference:
      Papyan, Han & Donoho (2020), Fig. 5.
    """
    del bias
    num_classes, dim = geometry.offsets.shape
    if jnp.shape(kernel) != (dim, num_classes):
        raise VCIError(
            f"The head's kernel must be [D, K] = [{dim}, {num_classes}], got "
            f"{list(jnp.shape(kernel))}. torch.nn.Linear keeps [K, D]: pass weight.T."
        )
    weights = jnp.asarray(kernel, geometry.offsets.dtype).T * geometry.present[:, None]

    def unit(matrix: Array) -> Array:
        norm = root(jnp.sum(matrix**2))
        return matrix / jnp.where(norm > 0, norm, jnp.nan)

    offsets = jnp.where(_apart(geometry), scaled_offsets(geometry), jnp.nan)
    return root(jnp.sum((unit(weights) - unit(offsets)) ** 2))


def _apart(geometry: Geometry) -> Bool[Array, ""]:
    """Whether any class mean is farther from the centre than rounding puts it."""
    return jnp.any(lengths(geometry.offsets) > mean_rounding(geometry))


def _mean_over(values: Array, where: Array) -> Scalar:
    """Mean over the selected entries; NaN without any."""
    size = jnp.sum(where).astype(values.dtype)
    return jnp.sum(jnp.where(where, values, 0)) / jnp.where(size > 0, size, jnp.nan)
