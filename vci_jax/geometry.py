"""What every metric needs, computed once: ``factorize(moments)``, then ask.

The expensive part (whitening a D x D matrix, and eigenproblems) is apart from the cheap one, sums
over its results. Under ``jit`` whatever a metric does not use is never computed.

Legend: K classes, D feature dimension, r = min(D, K - 1), p_k the weight of class k,
mu_k its mean, mu_G = sum_k p_k mu_k.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax import derivatives, linalg
from vci_jax.canonical import (
    Canonical,
    Scaled,
    canonical_directions,
    first_directions,
    magnitude,
    mean_rounding,
    scaled,
    within_noise,
)
from vci_jax.derivatives import frozen
from vci_jax.errors import VCIError, check_moments
from vci_jax.moments import ClassMoments
from vci_jax.placement import anywhere

Weighting = Literal["sample", "class"]


class Geometry(NamedTuple):
    """Means, covariances and their factors under one weighting of the classes.

    ``proportion`` is p_k; ``offsets`` is mu_k - mu_G, zero for absent classes; ``variance`` is
    the trace of each class' own covariance; ``within`` is Sigma_W (NaN if the moments cannot
    give it under this weighting), ``variances`` its diagonal without derivatives, and
    ``within_trace`` its trace, which they always can.
    ``between`` spans the columns of Sigma_B, whose nonzero eigenvalues are ``between.squares``;
    ``total`` holds the axes of Sigma_T, and ``scaled`` is what ``canonical`` was found from.
    ``rank`` = min(D, classes present - 1); ``data_eps`` is the roundoff of the accumulation,
    ``noise`` the variance that it leaves in each coordinate of the class means, summed over the
    classes with their weights, ``within_noise`` by how much it may change each of ``variances``,
    and ``vanishing`` how many of these are no larger than that rounding.
    """

    moments: ClassMoments
    present: Bool[Array, " K"]
    proportion: Float[Array, " K"]
    offsets: Float[Array, "K D"]
    variance: Float[Array, " K"]
    within: Float[Array, "D D"]
    within_trace: Float[Array, ""]
    variances: Float[Array, " D"]
    between: linalg.RowSpace
    total: linalg.Axes
    scaled: Scaled
    canonical: Canonical
    rank: Int[Array, ""]
    data_eps: Float[Array, ""]
    noise: Float[Array, " D"]
    within_noise: Float[Array, " D"]
    vanishing: Int[Array, ""]


@anywhere()
def factorize(
    moments: ClassMoments,
    *,
    weighting: Weighting = "sample",
    data_eps: float | None = None,
    part: bool = False,
) -> Geometry:
    """Factors the moments for the metrics of this package.

    Args:
      moments: one state; fold partial states with ``merge_axis`` first.
      weighting: ``"sample"`` weights class k by n_k / N (MANOVA, H-score); ``"class"`` by 1 / K,
        with the mean of the class means as centre. Balanced data make no difference.
        ``"class"`` on imbalanced data needs moments from ``init(..., class_counts=...)``.
      data_eps: unit roundoff with which the moments were accumulated, which sets the cutoffs;
        by default that of their dtype. Say it if they were converted since.
      part: the moments are a part of a pass whose ``class_counts`` were those of all. Its classes
        are then pooled in about the proportions wanted, and no check demands that they are exact.

    Raises:
      VCIError: for an unknown weighting, or for a stack of partial states.
    """
    check_moments(moments)
    if weighting not in ("sample", "class"):
        raise VCIError(f'weighting must be "sample" or "class", got {weighting!r}.')
    if moments.count.ndim != 1:
        raise VCIError(
            f"The metrics take one state, got partial states with count {moments.count.shape}. "
            "Fold them with merge_axis first."
        )
    if data_eps is None:
        data_eps = float(np.finfo(moments.mean.dtype).eps)
    num_classes, dim = moments.mean.shape
    present = moments.count > 0
    votes = (moments.count if weighting == "sample" else present).astype(moments.mean.dtype)
    proportion = votes / jnp.maximum(jnp.sum(votes), 1)
    offsets = _offsets(moments, present, proportion)
    variance = moments.class_scatter / jnp.maximum(moments.count, 1).astype(offsets.dtype)
    constant: ClassMoments = frozen(moments)
    pooled, usable = _pooled_weight(constant, proportion, part)
    some, every = underflows(constant, frozen(offsets), data_eps)
    over = _overflows(frozen(offsets), constant.count)
    usable, variance = usable & ~(some | over), jnp.where(every | over, jnp.nan, variance)
    within = (moments.scatter + moments.scatter_residual) / pooled
    within = jnp.where(usable, within, jnp.nan)
    live = (within, jnp.sqrt(proportion)[:, None] * offsets)
    _, rows = frozen(live)
    variances = jnp.diagonal(constant.scatter + constant.scatter_residual) / pooled
    noise = _noise(constant, rows, variances, data_eps)
    vanishing = (variances > 0) & (variances <= mean_rounding(constant, data_eps))
    data = scaled(constant, rows, pooled, usable, noise, data_eps)
    canonical = canonical_directions(constant, data, proportion, pooled, usable, data_eps)
    return Geometry(
        moments=moments,
        present=present,
        proportion=proportion,
        offsets=offsets,
        variance=variance,
        within=within,
        within_trace=jnp.sum(proportion * variance),
        variances=jnp.where(usable, variances, jnp.nan),
        between=first_directions(
            linalg.row_space(rows, min(dim, max(num_classes - 1, 1)), data_eps, noise),
            jnp.sum(present) - 1,
        ),
        total=linalg.principal_axes(frozen(within) + linalg.matmul(rows.T, rows)),
        scaled=data,
        canonical=_differentiable(canonical, *live),
        rank=jnp.minimum(dim, jnp.sum(present, dtype=jnp.int32) - 1),
        data_eps=jnp.asarray(data_eps, offsets.dtype),
        noise=noise,
        within_noise=within_noise(constant, variances, data_eps),
        vanishing=jnp.sum(vanishing, dtype=jnp.int32),
    )


def _differentiable(
    canonical: Canonical, within: Float[Array, "D D"], rows: Float[Array, "K D"]
) -> Canonical:
    """Gives the ratios, and what is lost, their derivatives."""
    lost = derivatives.lost(canonical.directions, within, rows)
    # Beyond, a change of c_j changes nothing by more than rounding, and the square overflows.
    near = jnp.where(canonical.ratios < 2.0**60, 1 + canonical.ratios, 0)
    linear = -(near**2) * lost
    ratios = derivatives.attach(canonical.ratios, linear, (within, rows))
    return canonical._replace(lost=lost, ratios=ratios)


def underflows(
    moments: ClassMoments, offsets: Float[Array, "K D"], data_eps: float
) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether squares of some of the features that vary were lost, and whether of every one.

    As those of float32 below about 1e-16 are. Class means that differ by so little may differ by
    more than their samples do, or less: the scatter that would tell is zero.
    """
    info = np.finfo(np.float32 if data_eps > 1e-12 else np.float64)
    size = jnp.maximum(jnp.sum(moments.count), 1).astype(offsets.dtype)
    within = jnp.diagonal(moments.scatter + moments.scatter_residual) / size
    spread = jnp.maximum(jnp.max(jnp.abs(offsets), axis=0), jnp.sqrt(jnp.maximum(within, 0)))
    varies = spread > 8 * data_eps * jnp.max(magnitude(moments), axis=0)
    lost = varies & (spread < float(np.sqrt(info.tiny / info.eps)))
    return jnp.any(lost), jnp.any(lost) & ~jnp.any(varies & ~lost)


def _overflows(offsets: Float[Array, "K D"], count: Int[Array, " K"]) -> Bool[Array, ""]:
    """Whether sums of squares over all samples, of differences of means, may leave the range."""
    terms = 4.0 * offsets.shape[1] * jnp.sum(count.astype(offsets.dtype))
    return ~jnp.isfinite(terms * jnp.max(jnp.abs(offsets)) ** 2)


def _offsets(
    moments: ClassMoments, present: Bool[Array, " K"], proportion: Float[Array, " K"]
) -> Float[Array, "K D"]:
    """mu_k - mu_G. Measured from one class first, so that equal means give exact zeros."""
    origin = moments.mean[jnp.argmax(present)]
    relative = jnp.where(present[:, None], moments.mean - origin, 0)
    centre = linalg.matmul(proportion, relative)
    return jnp.where(present[:, None], relative - centre, 0)


def _pooled_weight(
    moments: ClassMoments, proportion: Float[Array, " K"], part: bool
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The factor c of Sigma_W = (1/c) sum_k w_k S_k, and whether there is one.

    Sigma_W = sum_k (p_k / n_k) S_k needs p_k = n_k w_k / c for all classes. Both sides sum to
    one, so they agree to rounding or differ by whole samples; 1e-5 tells these apart for classes
    of fewer than 100 000 samples, and errs by less than 1e-5 beyond. Where the classes were
    pooled in other proportions, or overflowed, Sigma_W is not a function of the moments.
    """
    pooled = moments.count.astype(proportion.dtype) * moments.class_weight
    total = jnp.sum(pooled)
    total = jnp.where(total > 0, total, 1)
    agrees = part | jnp.all(jnp.abs(pooled / total - proportion) <= 1e-5 * proportion)
    return total, agrees & jnp.isfinite(jnp.sum(moments.scatter))


def _noise(
    moments: ClassMoments,
    rows: Float[Array, "K D"],
    within: Float[Array, " D"],
    data_eps: float,
) -> Float[Array, " D"]:
    """Variance of the rounding of sqrt(p_k) mu_k in each coordinate, summed over the classes.

    Sums round relative to what is added, the deviations from the pivot: 8 ``data_eps`` of the
    coordinate's spread between classes, and one of that within, which averages out. Moments in
    float32 may stand for features of more digits, which were lost where features lie far from the
    origin: one roundoff of the largest mean.
    """
    noise = data_eps**2 * (64 * jnp.sum(rows**2, axis=0) + jnp.maximum(within, 0))
    if data_eps > 1e-12:
        noise += (data_eps * jnp.max(magnitude(moments), axis=0)) ** 2
    return jnp.where(jnp.isfinite(noise), noise, 0)
