"""The discriminant directions of labelled features, and how sure they are.

They are found from the class means whitened by the within-class scatter, as singular vectors of
few rows: no eigenproblem of a matrix that is not symmetric, and no inverse.

Legend: K classes, D feature dimension, r = min(D, K - 1), p_k the weight of class k.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax import derivatives, linalg, whitening
from vci_jax.moments import ClassMoments
from vci_jax.placement import alike

PROBES = 8  # vectors of the estimate of a trace: right to a factor of two


class Canonical(NamedTuple):
    """The discriminant directions of the features.

    ``ratios`` are the between/within variance ratios c_j, the eigenvalues of Sigma_W^+ Sigma_B,
    infinite for directions without any variance within; c_j / (1 + c_j) are the squared canonical
    correlations of features and labels, the eigenvalues of Sigma_T^+ Sigma_B. Only entries that
    are ``kept`` count. ``share`` is sum_k p_k q_k^2 for the direction's unit vector q over the
    classes. ``rank`` is that of Sigma_T.
    ``lost`` is 1 / (1 + c_j), and ``directions`` what its derivative needs (``derivatives.py``).
    ``doubt`` is about by how much rounding may have changed sum_j 1 / (1 + c_j), ``doubt_labels``
    the same sum weighted with ``share``, and ``doubt_inverse`` by which part it may have changed
    sum_j 1 / c_j. ``faintness`` is the largest part of the length of a direction that may be
    rounding of the class means.
    """

    ratios: Float[Array, " 2r"]
    lost: Float[Array, " 2r"]
    directions: derivatives.Directions
    share: Float[Array, " 2r"]
    kept: Bool[Array, " 2r"]
    rank: Int[Array, ""]
    doubt: Float[Array, ""]
    doubt_labels: Float[Array, ""]
    doubt_inverse: Float[Array, ""]
    faintness: Float[Array, ""]


class Scaled(NamedTuple):
    """Moments as ``canonical_directions`` takes them: rows^T rows = c Sigma_B, S = c Sigma_W.

    ``scale`` is about S_dd^(-1/2), zero for a constant coordinate, as are ``rows`` and S there but
    for rounding; ``noise`` is the variance that rounding leaves in a coordinate of the rows, summed
    over them, and ``noise_within`` what that of the means leaves in the scaled S.
    Its entries are off by a part ``entries`` of the diagonal, and samples by ``lost``. ``varying``
    coordinates may not be constant.
    """

    rows: Float[Array, "K D"]
    noise: Float[Array, " D"]
    scatter: Float[Array, "D D"]
    residual: Float[Array, "D D"]
    scale: Float[Array, " D"]
    noise_within: Float[Array, ""]
    entries: Float[Array, " D"]
    lost: Float[Array, " D"]
    varying: Int[Array, ""]

    @property
    def covariance(self) -> tuple[Array, Array, Array]:
        """S as a sum of two matrices, and its scale."""
        return self.scatter, self.residual, self.scale


def scaled(
    moments: ClassMoments,
    rows: Float[Array, "K D"],
    pooled: Float[Array, ""],
    usable: Bool[Array, ""],
    noise: Float[Array, " D"],
    data_eps: float,
) -> Scaled:
    """Returns what the discriminant directions are found from, and how well it is known."""
    rows, noise = jnp.sqrt(pooled) * rows, pooled * noise
    scatter = jnp.where(usable, moments.scatter, 0)
    samples = jnp.sum(moments.count.astype(rows.dtype))
    # A variance this small is the rounding of a constant.
    floor = samples * (8 * data_eps * jnp.max(magnitude(moments), axis=0)) ** 2
    within, between = jnp.diagonal(scatter), jnp.sum(rows**2, axis=0)
    of_means = samples * mean_rounding(moments, data_eps)  # and one within classes, of their means
    scale = _scale(within, between, floor, of_means)
    usual = jnp.where(within > of_means, within, jnp.inf)
    sums = data_eps * (4 if data_eps > 1e-12 else 4 * 2.0**-20)
    lost = _lost(moments, data_eps)
    lacking = linalg.smallest(data_eps, rows.dtype)
    return Scaled(
        rows=rows,
        noise=noise,
        scatter=scatter,
        residual=moments.scatter_residual,
        scale=scale,
        noise_within=jnp.max(jnp.where(within > of_means, of_means * scale**2, 0)),
        entries=sums + samples * (lost**2 + lacking) / usual,
        lost=lost,
        varying=jnp.sum((scale > 0) | (within + between > floor * data_eps), dtype=jnp.int32),
    )


def canonical_directions(
    moments: ClassMoments,
    data: Scaled,
    proportion: Float[Array, " K"],
    pooled: Float[Array, ""],
    usable: Bool[Array, ""],
    data_eps: float,
) -> Canonical:
    """Discriminant directions, from the class means whitened by the within-class scatter.

    With S = c Sigma_W and rows^T rows = c Sigma_B, the squared singular values of rows S^(-1/2)
    are c_j, and 1 - c_j / (1 + c_j) = 1 / (1 + c_j) has no subtraction, however collapsed the
    features are. Where S vanishes to rounding but the means differ, c_j is infinite: by the
    Woodbury identity the limit is exact once these directions q are projected out of the rest.
    """
    rows, noise = data.rows, data.noise
    num_classes, dim = rows.shape
    size = min(dim, max(num_classes - 1, 1))
    whitener = whitening.whiten(*data.covariance, data_eps, data.noise_within)
    white = linalg.matmul(rows, whitener.map)
    white_noise = linalg.matmul(noise, whitener.map**2)
    classes = jnp.sum(moments.count > 0)
    # Samples vary within classes in N - K directions at most.
    empty = jnp.sum(whitener.kept) >= jnp.sum(moments.count) - classes
    free = _without_variance(white, whitener.kept, size, classes, white_noise, data_eps, empty)
    space = linalg.row_space(free.rest, size, data_eps, white_noise)
    scores = _class_directions(free.rest, space, proportion)
    # Of their features, less what the fixed directions explain.
    axes = jnp.where(whitener.kept[:, None], space.basis, 0)
    axes -= linalg.matmul(free.axes, linalg.matmul(free.components, axes))
    is_fixed = jnp.sum(free.columns**2, axis=0) > 0
    # N samples span N - 1 directions.
    rank = jnp.sum(whitener.kept, dtype=jnp.int32) + free.visible
    rank = jnp.minimum(rank, jnp.sum(moments.count) - 1)
    room = jnp.minimum(rank, classes - 1) - jnp.sum(is_fixed)
    kept = space.kept & (jnp.arange(size) < room)
    # Ordinary c_j may be lost in the rounding of an enormous one, or in that of the class means.
    hidden = jnp.maximum(space.floor, jnp.max(white_noise))
    unsure = free.unsure + whitener.grey + (room - jnp.sum(kept)) * hidden / (1 + hidden)
    ratios = jnp.concatenate([jnp.where(is_fixed, jnp.inf, 0), space.squares])
    directions = jnp.concatenate([free.columns, scores], axis=1)
    axes = jnp.concatenate([free.axes, axes * jax.lax.rsqrt(1 + space.squares)], axis=1)
    counted = jnp.concatenate([is_fixed, kept])
    lost = jnp.where(usable, 1 / (1 + ratios), jnp.nan)
    unsure += _could_vanish(jnp.where(kept, 1 / (1 + space.squares), 0), free.nearly)
    inverses = jnp.where(kept, 1 / jnp.where(kept, space.squares, 1), 0)
    rounding = partial(_rounding, whitener.map, data, space, white_noise)
    doubt = partial(_doubt, rounding, jnp.where(kept, space.squares, 1))
    explained = jnp.where(counted, 1 - lost, 0)
    strength = jnp.where(kept, jnp.sqrt(space.squares) / (1 + space.squares), 0)
    doubt_labels = _doubt_labels(rounding, strength, scores, directions, explained, proportion)
    return Canonical(
        ratios=jnp.where(usable, ratios, jnp.nan),
        lost=lost,
        directions=derivatives.Directions(
            axes=jnp.sqrt(pooled) * linalg.matmul(whitener.map, axes),
            classes=directions,
            lost=lost,
            kept=counted,
        ),
        share=linalg.matmul(proportion, directions**2),
        kept=counted,
        rank=rank,
        doubt=unsure + doubt(jnp.where(kept, space.squares / (1 + space.squares) ** 2, 0)),
        doubt_labels=jnp.max(proportion) * unsure + doubt_labels,
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


def _rounding(
    whitening: Float[Array, "D D"],
    data: Scaled,
    space: linalg.RowSpace,
    noise: Float[Array, " D"],
    probes: Float[Array, "r n"],
    of_means: Float[Array, " r"],
) -> Float[Array, ""]:
    """About how large the rounding of a function of the discriminant directions may be.

    Let it change by Tr[A X^T dW X] with W = N Sigma_W, for directions x_j with x_j^T W x_j = 1,
    and by 2 m_j with an error of the class means of length one along x_j. If sums are off by a part
    e_d of the variance in each coordinate, samples by l_d, class means by nu_j along x_j, and
    Y = X A^(1/2) R for any orthogonal R, it changes by

        sum_dj e_d W_dd Y_dj^2 + 2 sum_j ||r_j|| (sum_d l_d^2 Y_dj^2)^(1/2) + 2 sum_j nu_j m_j.

    The first sum is a trace, estimated with a few ``probes`` A^(1/2) z, z a vector of signs
    (Hutchinson 1990), for the cost of as many products of a matrix and a vector; so is the second.
    Entries are sums with 20 more bits in float64.
    """
    mapped = linalg.matmul(whitening, linalg.matmul(space.basis, probes))
    along = jnp.sqrt(linalg.matmul(noise, space.basis**2))
    of_scatter = scatter_rounding(data, mapped, jnp.sum(probes**2, axis=0))
    return of_scatter + 2 * jnp.sum(along * of_means)


def scatter_rounding(
    data: Scaled, mapped: Float[Array, "D n"], squares: Float[Array, " n"]
) -> Float[Array, ""]:
    """The first two sums of ``_rounding``, from Y z and ||A^(1/2) z||^2 for each probe z."""
    unscaled = jnp.where(data.scale > 0, 1 / jnp.where(data.scale > 0, data.scale, 1), 0)
    of_sums = jnp.sum(data.entries[:, None] * (mapped * unscaled[:, None]) ** 2)
    across = jnp.sqrt(linalg.matmul(data.lost**2, mapped**2) * squares)
    return (of_sums + 2 * jnp.sum(across)) / PROBES


def trace_probes(size: int, dtype: Any) -> Float[Array, "n probes"]:
    """Vectors of signs z; the mean of z^T A z estimates the trace of A."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (size, PROBES))
    return jnp.asarray(signs, dtype)


def _doubt(
    rounding: Callable[..., Array], ratios: Float[Array, " r"], weight: Float[Array, " r"]
) -> Array:
    """The rounding of sum_j w_j log c_j: A = diag(w), m_j = w_j c_j^(-1/2)."""
    probes = jnp.sqrt(weight)[:, None] * trace_probes(weight.shape[0], weight.dtype)
    return rounding(probes, weight / jnp.sqrt(ratios))


def _doubt_labels(
    rounding: Callable[..., Array],
    strength: Float[Array, " r"],
    scores: Float[Array, "K r"],
    directions: Float[Array, "K m"],
    explained: Float[Array, " m"],
    proportion: Float[Array, " K"],
) -> Array:
    """The rounding of sum_j s_j / (1 + c_j), which feels how directions are turned as well.

    It is Tr[p N] but for a constant, with N = 1 - sum_j (1 - d_j) q_j q_j^T. With t_j =
    c_j^(1/2) / (1 + c_j), A = diag(t) Q^T p Q diag(t) and m_j = t_j || N p q_j ||; errors of the
    class means have weighted mean zero.
    """
    centre = jnp.sqrt(proportion)
    signs = trace_probes(proportion.shape[0], proportion.dtype)
    probes = strength[:, None] * linalg.matmul((centre[:, None] * scores).T, signs)
    turned = proportion[:, None] * scores
    turned -= centre[:, None] * linalg.matmul(centre, turned)
    turned -= linalg.matmul(directions * explained, linalg.matmul(directions.T, turned))
    return rounding(probes, strength * jnp.sqrt(jnp.sum(turned**2, axis=0)))


class _Free(NamedTuple):
    """Directions over the classes that features without variance within a class tell apart.

    ``columns`` are orthonormal (others are zero), ``axes`` the combinations of whitened features
    that give them, ``components`` the whitened means along them and ``rest`` what is left of those.
    ``visible`` features carry more than rounding there, ``unsure`` is about how much
    of sum_j 1 / (1 + c_j) that leaves open, and ``nearly`` may be free of variance as well.
    """

    columns: Float[Array, "K r"]
    axes: Float[Array, "D r"]
    components: Float[Array, "r D"]
    rest: Float[Array, "K D"]
    visible: Int[Array, ""]
    unsure: Float[Array, ""]
    nearly: Int[Array, ""]


def _without_variance(
    white: Float[Array, "K D"],
    kept: Bool[Array, " D"],
    size: int,
    classes: Int[Array, ""],
    noise: Float[Array, " D"],
    data_eps: float,
    empty: Bool[Array, ""],
) -> _Free:
    """Finds directions without variance within classes.

    Whitened rows have squared norm one at the rounding of Sigma_W, so that their square is the
    least that c_j can be; at 1e4 a direction is taken as free of variance, which changes VCI by
    less than 1e-4 / rank; at 100 if the samples are too few to vary there (``empty``), so that only
    rounding could be more. Rounding of the class means counts as well: features that are copies of
    each other differ by it.
    """
    none = _Free(
        columns=jnp.zeros((white.shape[0], size), white.dtype),
        axes=jnp.zeros((white.shape[1], size), white.dtype),
        components=jnp.zeros((size, white.shape[1]), white.dtype),
        rest=white,
        visible=jnp.zeros((), jnp.int32),
        unsure=jnp.zeros((), white.dtype),
        nearly=jnp.zeros((), jnp.int32),
    )

    def find() -> _Free:
        # The row space of the transpose, so that its basis lies in the space of the classes.
        cut = jnp.where(kept, 0, white)
        space = first_directions(linalg.row_space(cut.T, size, data_eps), classes - 1)
        rounding = jnp.sum(jnp.where(kept, 0, noise))
        visible = space.squares > jnp.maximum(1, rounding)
        least = jnp.where(empty, 100.0, 1e4).astype(white.dtype)
        free = space.squares > jnp.maximum(least, 4 * rounding)
        columns = jnp.where(free, space.basis, 0)
        components = linalg.matmul(columns.T, white)
        return _Free(
            columns=columns,
            axes=linalg.matmul(cut.T, space.basis) / jnp.where(free, space.squares, jnp.inf),
            components=components,
            rest=white - linalg.matmul(columns, components),
            visible=jnp.sum(visible, dtype=jnp.int32),
            unsure=jnp.sum(jnp.where(free, 1 / (1 + space.squares), 0)),
            nearly=jnp.sum(visible & ~free, dtype=jnp.int32),
        )

    directions: _Free = jax.lax.cond(jnp.all(kept), lambda: alike(none, white, kept, noise), find)
    return directions


def _could_vanish(lost: Float[Array, " r"], number: Int[Array, ""]) -> Float[Array, ""]:
    """The most of sum_j 1 / (1 + c_j) that is gone if so many c_j are infinite, by interlacing."""
    return jnp.sum(jnp.where(jnp.arange(lost.shape[0]) < number, -jnp.sort(-lost), 0))


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


def first_directions(space: linalg.RowSpace, number: Int[Array, ""]) -> linalg.RowSpace:
    """The first directions alone: K means less their mean span K - 1, what is beyond is noise."""
    kept = space.kept & (jnp.arange(space.kept.shape[0]) < number)
    return space._replace(
        basis=jnp.where(kept, space.basis, 0), squares=jnp.where(kept, space.squares, 0), kept=kept
    )


def mean_rounding(moments: ClassMoments, data_eps: float) -> Float[Array, " D"]:
    """Largest squared rounding of a class mean about the pivot, in each coordinate."""
    means = jnp.where(moments.count[:, None] > 0, moments.mean, 0)
    return (data_eps * jnp.max(jnp.abs(means), axis=0)) ** 2


def within_noise(
    moments: ClassMoments, within: Float[Array, " D"], data_eps: float
) -> Float[Array, " D"]:
    """By how much each diagonal entry of Sigma_W may be off: by what means and features lost."""
    noise, lost = mean_rounding(moments, data_eps), _lost(moments, data_eps)
    noise += jnp.where(data_eps > 1e-12, lost**2, 0)
    size = jnp.maximum(jnp.sum(moments.count), 1).astype(lost.dtype)
    return noise + 2 * lost * jnp.sqrt(jnp.maximum(within, 0) / size)


def _lost(moments: ClassMoments, data_eps: float) -> Float[Array, " D"]:
    """What each coordinate of a sample may have lost when it was added.

    Batches are added by how far their class means lie from those before, which are rounded.
    Moments in float32 may stand for features of more digits, each off by one roundoff of its size.
    """
    if data_eps > 1e-12:
        return data_eps * jnp.max(magnitude(moments), axis=0)
    return jnp.sqrt(mean_rounding(moments, data_eps))


def magnitude(moments: ClassMoments) -> Float[Array, "K D"]:
    """|mu_k|, zero for classes without samples."""
    return jnp.abs(moments.pivot + moments.mean) * (moments.count > 0)[:, None]
