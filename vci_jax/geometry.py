"""What every metric needs, computed once: ``factorize(moments)``, then ask.

The expensive part (one D x D and two small eigenproblems) is apart from the cheap one (sums over
what they found). Under ``jit`` whatever a metric does not use is never computed.

Legend: K classes, D feature dimension, r = min(D, K - 1), p_k the weight of class k,
mu_k its mean, mu_G = sum_k p_k mu_k.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax import linalg
from vci_jax.moments import ClassMoments

Weighting = Literal["sample", "class"]


class Canonical(NamedTuple):
    """The discriminant directions of the features.

    ``ratios`` are the between/within variance ratios c_j, the eigenvalues of Sigma_W^+ Sigma_B,
    infinite for directions without any variance within; c_j / (1 + c_j) are the squared canonical
    correlations of features and labels, the eigenvalues of Sigma_T^+ Sigma_B. Only entries that
    are ``kept`` count. ``share`` is sum_k p_k q_k^2 for the direction's unit vector q over the
    classes. ``rank`` is that of Sigma_T.
    """

    ratios: Float[Array, " 2r"]
    share: Float[Array, " 2r"]
    kept: Bool[Array, " 2r"]
    rank: Int[Array, ""]


class Geometry(NamedTuple):
    """Means, covariances and their factors under one weighting of the classes.

    ``proportion`` is p_k; ``offsets`` is mu_k - mu_G, zero for absent classes; ``variance`` is
    the trace of each class' own covariance; ``within`` is Sigma_W (NaN if the moments cannot
    give it under this weighting) and ``within_trace`` its trace, which they always can.
    ``between`` spans the columns of Sigma_B, whose nonzero eigenvalues are ``between.squares``;
    ``total`` holds the axes of Sigma_T.
    ``rank`` = min(D, classes present - 1); ``data_eps`` is the roundoff of the accumulation.
    """

    moments: ClassMoments
    present: Bool[Array, " K"]
    proportion: Float[Array, " K"]
    offsets: Float[Array, "K D"]
    variance: Float[Array, " K"]
    within: Float[Array, "D D"]
    within_trace: Float[Array, ""]
    between: linalg.RowSpace
    total: linalg.Axes
    canonical: Canonical
    rank: Int[Array, ""]
    data_eps: Float[Array, ""]


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
      ValueError: for an unknown weighting, or for a stack of partial states.
    """
    if weighting not in ("sample", "class"):
        raise ValueError(f'weighting must be "sample" or "class", got {weighting!r}.')
    if moments.count.ndim != 1:
        raise ValueError(
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
    pooled, usable = _pooled_weight(moments, proportion, part)
    lost = underflows(offsets, data_eps)
    usable, variance = usable & ~lost, jnp.where(lost, jnp.nan, variance)
    rows = jnp.sqrt(proportion)[:, None] * offsets
    within = (moments.scatter + moments.scatter_residual) / pooled
    within = jnp.where(usable, within, jnp.nan)
    return Geometry(
        moments=moments,
        present=present,
        proportion=proportion,
        offsets=offsets,
        variance=variance,
        within=within,
        within_trace=jnp.sum(proportion * variance),
        between=linalg.row_space(rows, min(dim, max(num_classes - 1, 1)), data_eps),
        total=linalg.principal_axes(within + linalg.matmul(rows.T, rows)),
        canonical=_canonical(moments, jnp.sqrt(pooled) * rows, proportion, usable, data_eps),
        rank=jnp.minimum(dim, jnp.sum(present, dtype=jnp.int32) - 1),
        data_eps=jnp.asarray(data_eps, offsets.dtype),
    )


def underflows(offsets: Float[Array, "K D"], data_eps: float) -> Bool[Array, ""]:
    """Whether squares of the features were lost, as those of float32 below about 1e-16 are.

    Class means that differ by so little may differ by more than their samples do, or less: the
    scatter that would tell is zero.
    """
    info = np.finfo(np.float32 if data_eps > 1e-12 else np.float64)
    largest = jnp.max(jnp.abs(offsets))
    return (largest > 0) & (largest < float(np.sqrt(info.tiny / info.eps)))


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


def _canonical(
    moments: ClassMoments,
    rows: Float[Array, "K D"],
    proportion: Float[Array, " K"],
    usable: Bool[Array, ""],
    data_eps: float,
) -> Canonical:
    """Discriminant directions, from the class means whitened by the within-class scatter.

    With S = c Sigma_W and rows^T rows = c Sigma_B, the squared singular values of rows S^(-1/2)
    are c_j, and 1 - c_j / (1 + c_j) = 1 / (1 + c_j) has no subtraction, however collapsed the
    features are. Where S vanishes to rounding but the means differ, c_j is infinite: by the
    Woodbury identity the limit is exact once these directions q are projected out of the rest.
    """
    num_classes, dim = rows.shape
    size = min(dim, max(num_classes - 1, 1))
    scatter = jnp.where(usable, moments.scatter, 0)
    magnitude = jnp.abs(moments.pivot + moments.mean) * (moments.count > 0)[:, None]
    # A variance this small is the rounding of a constant.
    floor = (
        jnp.sum(moments.count.astype(rows.dtype)) * (8 * data_eps * jnp.max(magnitude, axis=0)) ** 2
    )
    scale = _scale(jnp.diagonal(scatter), jnp.sum(rows**2, axis=0), floor)
    whitener = linalg.whiten(scatter, moments.scatter_residual, scale, data_eps)
    white = linalg.matmul(rows, whitener.map)
    fixed, beyond = _without_variance(white, whitener.kept, size, data_eps)
    white -= linalg.matmul(fixed, linalg.matmul(fixed.T, white))
    space = linalg.row_space(white, size, data_eps)
    scores = linalg.matmul(white, space.basis) * jax.lax.rsqrt(
        jnp.where(space.kept, space.squares, 1)
    )
    is_fixed = jnp.sum(fixed**2, axis=0) > 0
    room = jnp.minimum(dim, jnp.sum(moments.count > 0) - 1) - jnp.sum(is_fixed)
    ratios = jnp.concatenate([jnp.where(is_fixed, jnp.inf, 0), space.squares])
    directions = jnp.concatenate([fixed, scores], axis=1)
    return Canonical(
        ratios=jnp.where(usable, ratios, jnp.nan),
        share=linalg.matmul(proportion, directions**2),
        kept=jnp.concatenate([is_fixed, space.kept & (jnp.arange(size) < room)]),
        rank=jnp.sum(whitener.kept, dtype=jnp.int32) + beyond,
    )


def _without_variance(
    white: Float[Array, "K D"], kept: Bool[Array, " D"], size: int, data_eps: float
) -> tuple[Float[Array, "K r"], Int[Array, ""]]:
    """Directions over the classes that features without variance within a class tell apart.

    Returns their orthonormal columns (others are zero) and how many features carry more than
    rounding there. Whitened rows have squared norm one at the rounding of Sigma_W; at 1e4 times
    that a direction is taken as free of variance, which changes VCI by less than 1e-4 / rank.
    """
    none = jnp.zeros((white.shape[0], size), white.dtype), jnp.zeros((), jnp.int32)

    def find() -> tuple[Array, Array]:
        # The row space of the transpose, so that its basis lies in the space of the classes.
        space = linalg.row_space(jnp.where(kept, 0, white).T, size, data_eps)
        beyond = jnp.sum(space.squares > 1, dtype=jnp.int32)
        return jnp.where(space.squares > 1e4, space.basis, 0), beyond

    found: tuple[Array, Array] = jax.lax.cond(jnp.all(kept), lambda: none, find)
    return found


def _scale(
    within: Float[Array, " D"], between: Float[Array, " D"], floor: Float[Array, " D"]
) -> Float[Array, " D"]:
    """About (variance of each coordinate)^(-1/2), as a power of two; zero if it is constant.

    The variance within classes, or between them if there is none within.
    """
    constant = within + between <= floor
    variance = jnp.where(constant, 1, jnp.where(within > 0, within, between))
    return jnp.where(constant, 0, linalg.power_of_two(jax.lax.rsqrt(variance)))
