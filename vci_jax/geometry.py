"""What every metric needs, computed once: ``factorize(moments)``, then ask.

The expensive part (one D x D and two small eigenproblems) is apart from the cheap one (sums over
what they found). Under ``jit`` whatever a metric does not use is never computed.

Legend: K classes, D feature dimension, r = min(D, K - 1), p_k the weight of class k,
mu_k its mean, mu_G = sum_k p_k mu_k.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax import derivatives, linalg
from vci_jax.derivatives import frozen
from vci_jax.moments import ClassMoments
from vci_jax.placement import alike, anywhere

Weighting = Literal["sample", "class"]

_PROBES = 8  # vectors of the estimate of a trace: right to a factor of two


class Canonical(NamedTuple):
    """The discriminant directions of the features.

    ``ratios`` are the between/within variance ratios c_j, the eigenvalues of Sigma_W^+ Sigma_B,
    infinite for directions without any variance within; c_j / (1 + c_j) are the squared canonical
    correlations of features and labels, the eigenvalues of Sigma_T^+ Sigma_B. Only entries that
    are ``kept`` count. ``share`` is sum_k p_k q_k^2 for the direction's unit vector q over the
    classes. ``rank`` is that of Sigma_T, of ``varying`` coordinates that may not be constant.
    ``lost`` is 1 / (1 + c_j), and ``directions`` what its derivative needs (``derivatives.py``).
    ``doubt`` is about by how much rounding may have changed sum_j 1 / (1 + c_j), and
    ``doubt_inverse`` by which part it may have changed sum_j 1 / c_j. ``faintness`` is
    the largest part of the length of a direction that may be rounding of the class means.
    """

    ratios: Float[Array, " 2r"]
    lost: Float[Array, " 2r"]
    directions: derivatives.Directions
    share: Float[Array, " 2r"]
    kept: Bool[Array, " 2r"]
    rank: Int[Array, ""]
    varying: Int[Array, ""]
    doubt: Float[Array, ""]
    doubt_inverse: Float[Array, ""]
    faintness: Float[Array, ""]


class Geometry(NamedTuple):
    """Means, covariances and their factors under one weighting of the classes.

    ``proportion`` is p_k; ``offsets`` is mu_k - mu_G, zero for absent classes; ``variance`` is
    the trace of each class' own covariance; ``within`` is Sigma_W (NaN if the moments cannot
    give it under this weighting) and ``within_trace`` its trace, which they always can.
    ``between`` spans the columns of Sigma_B, whose nonzero eigenvalues are ``between.squares``;
    ``total`` holds the axes of Sigma_T.
    ``rank`` = min(D, classes present - 1); ``data_eps`` is the roundoff of the accumulation, and
    ``noise`` the variance that it leaves in each coordinate of the class means, summed over the
    classes with their weights.
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
    constant: ClassMoments = frozen(moments)
    pooled, usable = _pooled_weight(constant, proportion, part)
    lost = underflows(frozen(offsets), data_eps)
    usable, variance = usable & ~lost, jnp.where(lost, jnp.nan, variance)
    within = (moments.scatter + moments.scatter_residual) / pooled
    within = jnp.where(usable, within, jnp.nan)
    live = (within, jnp.sqrt(proportion)[:, None] * offsets)
    _, rows = frozen(live)
    variances = jnp.diagonal(constant.scatter + constant.scatter_residual) / pooled
    noise = _noise(constant, rows, variances, data_eps)
    vanishing = (variances > 0) & (variances <= _mean_rounding(constant, data_eps))
    canonical = _canonical(constant, rows, pooled, proportion, usable, noise, data_eps)
    return Geometry(
        moments=moments,
        present=present,
        proportion=proportion,
        offsets=offsets,
        variance=variance,
        within=within,
        within_trace=jnp.sum(proportion * variance),
        between=_first(
            linalg.row_space(rows, min(dim, max(num_classes - 1, 1)), data_eps, noise),
            jnp.sum(present) - 1,
        ),
        total=linalg.principal_axes(frozen(within) + linalg.matmul(rows.T, rows)),
        canonical=_differentiable(canonical, *live),
        rank=jnp.minimum(dim, jnp.sum(present, dtype=jnp.int32) - 1),
        data_eps=jnp.asarray(data_eps, offsets.dtype),
        noise=noise,
        within_noise=_within_noise(constant, variances, data_eps),
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


def _first(space: linalg.RowSpace, number: Int[Array, ""]) -> linalg.RowSpace:
    """The first directions alone: K means less their mean span K - 1, what is beyond is noise."""
    kept = space.kept & (jnp.arange(space.kept.shape[0]) < number)
    return space._replace(
        basis=jnp.where(kept, space.basis, 0), squares=jnp.where(kept, space.squares, 0), kept=kept
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
        noise += (data_eps * jnp.max(_magnitude(moments), axis=0)) ** 2
    return jnp.where(jnp.isfinite(noise), noise, 0)


def _mean_rounding(moments: ClassMoments, data_eps: float) -> Float[Array, " D"]:
    """Largest squared rounding of a class mean about the pivot, in each coordinate."""
    means = jnp.where(moments.count[:, None] > 0, moments.mean, 0)
    return (data_eps * jnp.max(jnp.abs(means), axis=0)) ** 2


def _within_noise(
    moments: ClassMoments, within: Float[Array, " D"], data_eps: float
) -> Float[Array, " D"]:
    """By how much each diagonal entry of Sigma_W may be off: by what means and features lost.

    Moments in float32 may stand for features of more digits, each off by one roundoff of its size.
    """
    noise = _mean_rounding(moments, data_eps)
    if data_eps > 1e-12:
        lost = data_eps * jnp.max(_magnitude(moments), axis=0)
        size = jnp.maximum(jnp.sum(moments.count), 1).astype(lost.dtype)
        noise += lost**2 + 2 * lost * jnp.sqrt(jnp.maximum(within, 0) / size)
    return noise


def _magnitude(moments: ClassMoments) -> Float[Array, "K D"]:
    """|mu_k|, zero for classes without samples."""
    return jnp.abs(moments.pivot + moments.mean) * (moments.count > 0)[:, None]


def _canonical(
    moments: ClassMoments,
    rows: Float[Array, "K D"],
    pooled: Float[Array, ""],
    proportion: Float[Array, " K"],
    usable: Bool[Array, ""],
    noise: Float[Array, " D"],
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
    rows, noise = jnp.sqrt(pooled) * rows, pooled * noise
    scatter = jnp.where(usable, moments.scatter, 0)
    samples = jnp.sum(moments.count.astype(rows.dtype))
    # A variance this small is the rounding of a constant.
    floor = samples * (8 * data_eps * jnp.max(_magnitude(moments), axis=0)) ** 2
    within, between = jnp.diagonal(scatter), jnp.sum(rows**2, axis=0)
    of_means = samples * _mean_rounding(moments, data_eps)  # and one within classes, of their means
    scale = _scale(within, between, floor, of_means)
    noise_within = jnp.max(jnp.where(within > of_means, of_means * scale**2, 0))
    whitener = linalg.whiten(scatter, moments.scatter_residual, scale, data_eps, noise_within)
    white = linalg.matmul(rows, whitener.map)
    white_noise = linalg.matmul(noise, whitener.map**2)
    classes = jnp.sum(moments.count > 0)
    fixed, fixed_axes, beyond, unsure = _without_variance(
        white, whitener.kept, size, classes, white_noise, data_eps
    )
    components = linalg.matmul(fixed.T, white)
    white -= linalg.matmul(fixed, components)
    space = linalg.row_space(white, size, data_eps, white_noise)
    scores = _class_directions(white, space, proportion)
    # Of their features, less what the fixed directions explain.
    axes = jnp.where(whitener.kept[:, None], space.basis, 0)
    axes -= linalg.matmul(fixed_axes, linalg.matmul(components, axes))
    unsure += whitener.grey
    is_fixed = jnp.sum(fixed**2, axis=0) > 0
    # N samples span N - 1 directions.
    rank = jnp.minimum(jnp.sum(whitener.kept, dtype=jnp.int32) + beyond, jnp.sum(moments.count) - 1)
    room = jnp.minimum(rank, classes - 1) - jnp.sum(is_fixed)
    kept = space.kept & (jnp.arange(size) < room)
    # Beside a direction of enormous c_j, others of ordinary ones may be lost in its rounding; or in
    # that of the class means.
    hidden = jnp.maximum(space.floor, jnp.max(white_noise))
    unsure += (room - jnp.sum(kept)) * hidden / (1 + hidden)
    ratios = jnp.concatenate([jnp.where(is_fixed, jnp.inf, 0), space.squares])
    directions = jnp.concatenate([fixed, scores], axis=1)
    axes = jnp.concatenate([fixed_axes, axes * jax.lax.rsqrt(1 + space.squares)], axis=1)
    found = jnp.concatenate([is_fixed, kept])
    lost = jnp.where(usable, 1 / (1 + ratios), jnp.nan)
    inverses = jnp.where(kept, 1 / jnp.where(kept, space.squares, 1), 0)
    usual = jnp.where(within > of_means, within, jnp.inf)
    sums = data_eps * (4 if data_eps > 1e-12 else 4 * 2.0**-20)
    entries = sums + _within_noise(moments, within / samples, data_eps) * samples / usual
    doubt = partial(_doubt, whitener.map, scale, space, white_noise, entries)
    return Canonical(
        ratios=jnp.where(usable, ratios, jnp.nan),
        lost=lost,
        directions=derivatives.Directions(
            axes=jnp.sqrt(pooled) * linalg.matmul(whitener.map, axes),
            classes=directions,
            lost=lost,
            kept=found,
        ),
        share=linalg.matmul(proportion, directions**2),
        kept=found,
        rank=rank,
        varying=jnp.sum((scale > 0) | (within + between > floor / 4096), dtype=jnp.int32),
        doubt=unsure + doubt(jnp.where(kept, space.squares / (1 + space.squares) ** 2, 0)),
        doubt_inverse=unsure + doubt(inverses / jnp.where(jnp.any(kept), jnp.sum(inverses), 1)),
        faintness=jnp.max(
            jnp.where(kept, jnp.sqrt(linalg.matmul(white_noise, space.basis**2) * inverses), 0),
            initial=0,
        ),
    )


def _class_directions(
    white: Float[Array, "K D"], space: linalg.RowSpace, proportion: Float[Array, " K"]
) -> Float[Array, "K r"]:
    """The unit vectors q_j over the classes.

    Weighted means are zero, and directions orthogonal; in one that is nearly none, rounding may say
    otherwise.
    """
    scores = linalg.matmul(white, space.basis)
    length = jnp.sqrt(jnp.sum(scores**2, axis=0))
    scores = scores / jnp.where(length > 0, length, 1)
    if len(scores) == 1:
        return scores
    least = jnp.min(jnp.where(space.kept, space.squares, jnp.inf))
    graded = least < 100 * float(np.sqrt(np.finfo(scores.dtype).eps)) * jnp.max(space.squares)
    columns = jnp.concatenate([jnp.sqrt(proportion)[:, None], scores], axis=1)
    columns = jax.lax.cond(graded, linalg.orthonormal, lambda same: same, columns)
    directions: Array = columns[:, 1:]
    return directions


def _doubt(
    whitening: Float[Array, "D D"],
    scale: Float[Array, " D"],
    space: linalg.RowSpace,
    noise: Float[Array, " D"],
    entries: Float[Array, " D"],
    weight: Float[Array, " r"],
) -> Float[Array, ""]:
    """About how large the rounding of sum_j w_j log c_j may be.

    A direction x_j, in units of the coordinates' standard deviations, has x_j^T Sigma_W x_j = 1;
    relative errors e_d of the rows of Sigma_W change that by sum_d e_d x_jd^2, and errors nu_j of
    the class means along x_j change c_j by 2 nu_j c_j^(1/2), so it is

        sum_j w_j (sum_d e_d x_jd^2 + 2 nu_j c_j^(-1/2)).

    The first sum is a trace, estimated with a few vectors of signs (Hutchinson 1990) for the cost
    of as many products of a matrix and a vector. Entries are sums with 20 more bits in float64.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (space.squares.shape[0], _PROBES))
    probes = jnp.sqrt(weight)[:, None] * jnp.asarray(signs, weight.dtype)
    unscaled = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)
    lengths = linalg.matmul(whitening, linalg.matmul(space.basis, probes)) * unscaled[:, None]
    of_scatter = jnp.sum(entries[:, None] * lengths**2) / _PROBES
    along = jnp.sqrt(linalg.matmul(noise, space.basis**2))
    of_means = 2 * along / jnp.sqrt(jnp.where(space.kept, space.squares, 1))
    return of_scatter + jnp.sum(weight * of_means)


def _without_variance(
    white: Float[Array, "K D"],
    kept: Bool[Array, " D"],
    size: int,
    classes: Int[Array, ""],
    noise: Float[Array, " D"],
    data_eps: float,
) -> tuple[Float[Array, "K r"], Float[Array, "D r"], Int[Array, ""], Float[Array, ""]]:
    """Directions over the classes that features without variance within a class tell apart.

    Returns their orthonormal columns (others are zero), the combinations of whitened features that
    give them, how many features carry more than rounding
    there, and by how much sum_j 1 / (1 + c_j) is unsure for that. Whitened rows have squared norm
    one at the rounding of Sigma_W, so that their square is the least that c_j can be; at 1e4 a
    direction is taken as free of variance, which changes VCI by less than 1e-4 / rank.
    Rounding of the class means counts as well: features that are copies of each other differ by it.
    """
    zero = jnp.zeros((), white.dtype)
    none = (
        jnp.zeros((white.shape[0], size), white.dtype),
        jnp.zeros((white.shape[1], size), white.dtype),
        jnp.zeros((), jnp.int32),
        zero,
    )

    def find() -> tuple[Array, ...]:
        # The row space of the transpose, so that its basis lies in the space of the classes.
        cut = jnp.where(kept, 0, white)
        space = _first(linalg.row_space(cut.T, size, data_eps), classes - 1)
        rounding = jnp.sum(jnp.where(kept, 0, noise))
        visible = space.squares > jnp.maximum(1, rounding)
        free = space.squares > jnp.maximum(1e4, 4 * rounding)
        unsure = jnp.sum(jnp.where(visible, 1 / (1 + space.squares), 0))
        axes = linalg.matmul(cut.T, space.basis) / jnp.where(free, space.squares, jnp.inf)
        columns = jnp.where(free, space.basis, 0)
        return columns, axes, jnp.sum(visible, dtype=jnp.int32), unsure

    found: tuple[Array, Array, Array, Array] = jax.lax.cond(
        jnp.all(kept), lambda: alike(none, white, kept, noise), find
    )
    return found


def _scale(
    within: Float[Array, " D"],
    between: Float[Array, " D"],
    floor: Float[Array, " D"],
    of_means: Float[Array, " D"],
) -> Float[Array, " D"]:
    """About (variance of each coordinate)^(-1/2), as a power of two; zero if it is constant.

    The variance within classes, or between them if there is none within but rounding.
    """
    constant = within + between <= floor
    usual = (within > of_means) | (between <= 0)
    variance = jnp.where(constant, 1, jnp.where(usual, within, between))
    return jnp.where(constant, 0, linalg.power_of_two(jax.lax.rsqrt(variance)))
