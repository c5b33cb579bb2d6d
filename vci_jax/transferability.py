"""Scores of the transferability literature, from the same moments as VCI.

Legend: K classes, D feature dimension, N samples, F the N x D matrix of features (not centred),
s_i and v_i the eigenvalues and eigenvectors of F^T F.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax import linalg
from vci_jax.geometry import Geometry
from vci_jax.moments import rebase
from vci_jax.placement import alike, anywhere

Scalar = Float[Array, ""]


class RawAxes(NamedTuple):
    """Eigenvalues of F^T F, descending, and the sums F^T y_k along its eigenvectors.

    Only values that are ``kept`` are above rounding; ``rounding`` is about by how much a value may
    be off, and ``cut`` how many of them were not kept that may not be zero.
    """

    values: Float[Array, " D"]
    sums: Float[Array, "K D"]
    kept: Bool[Array, " D"]
    rounding: Float[Array, ""]
    cut: Int[Array, ""]


@anywhere()
def transferability_metrics(geometry: Geometry) -> dict[str, Scalar]:
    """Returns the scores of this module by name; one D x D eigenproblem beyond ``geometry``."""
    return scores_and_errors(geometry)[0]


def scores_and_errors(geometry: Geometry) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Returns the scores of this module, and estimates of their rounding errors."""
    axes = raw_axes(geometry)
    rank, rank_error = _effective_rank(axes)
    evidence, evidence_error = _logme(geometry, axes)
    values = {
        "shrinkage_h_score": shrinkage_h_score(geometry),
        "effective_rank": rank,
        "logme": evidence,
    }
    return values, {"effective_rank": rank_error, "logme": evidence_error}


def raw_axes(geometry: Geometry) -> RawAxes:
    """Axes of F^T F, the second moment about the origin; NaN if the pass was class-weighted.

    F^T F = S + N m m^T, S the scatter about the mean m. Far from the origin N ||m||^2 is so much
    larger than S that eigenvalues of the sum are lost to its rounding. In a basis whose first
    axis is m, the sum is [[l, b^T], [b, C]], and its first eigenvector [1; y] solves

        b + C y = (l + b^T y) y

    by iteration where l is far above C. The others lie in the complement, spanned by the columns
    of [-y^T; I] R with R = (I + y y^T)^(-1/2), where the matrix is
    R (C - b y^T - y b^T + l y y^T) R, all of the size of S. Elsewhere the whole matrix is solved.
    """
    moments = geometry.moments
    dtype, dim = moments.mean.dtype, moments.mean.shape[1]
    count = moments.count.astype(dtype)
    size = jnp.maximum(jnp.sum(count), 1)
    inner = linalg.matmul(count, moments.mean) / size
    offsets = jnp.where(geometry.present[:, None], moments.mean - inner, 0)
    scatter = moments.scatter + moments.scatter_residual
    scatter += linalg.matmul((count[:, None] * offsets).T, offsets)
    usable = jnp.all(moments.class_weight == 1) & jnp.isfinite(jnp.sum(scatter))
    scatter = jnp.where(usable, scatter, jnp.nan)
    spread = jnp.diagonal(scatter)
    mean = moments.pivot + inner
    far = size * jnp.sum(mean**2) > 16 * jnp.sum(spread)

    def near() -> tuple[Array, Array, Array]:
        return scatter + size * jnp.outer(mean, mean), offsets + mean, jnp.zeros((), dtype)

    whole, along, largest = jax.lax.cond(
        far, partial(_deflated, scatter, offsets, mean, size), lambda: alike(near(), scatter)
    )
    values, vectors = linalg.principal_axes(whole)
    scale = values[jnp.where(far & (dim > 1), 1, 0)]
    eps = jnp.maximum(dim * float(np.finfo(dtype).eps), 8 * geometry.data_eps)
    kept = values > eps * scale
    nonzero = jnp.sum((jnp.abs(mean) > 0) | (spread > 0), dtype=jnp.int32)
    return RawAxes(
        values=values.at[0].set(jnp.where(far, largest, values[0])),
        sums=count[:, None] * linalg.matmul(along, vectors),
        kept=kept,
        # The reflection rounds relative to the scatter along the mean as well.
        rounding=4 * geometry.data_eps * scale
        + jnp.where(far, 4 * float(np.finfo(dtype).eps) * jnp.sum(spread), 0)
        + _narrowed(geometry, scale, size)
        + size * dim * linalg.smallest(geometry.data_eps, dtype),
        cut=jnp.maximum(jnp.minimum(nonzero, jnp.sum(moments.count)) - jnp.sum(kept), 0),
    )


def _deflated(
    scatter: Float[Array, "D D"],
    offsets: Float[Array, "K D"],
    mean: Float[Array, " D"],
    size: Scalar,
) -> tuple[Float[Array, "D D"], Float[Array, "K D"], Scalar]:
    """The matrix in the basis of [1; y] / root and the columns of [-y^T; I] R.

    And in that basis the class means, and the first eigenvalue. For that the matrix has any number
    that lies above the others.
    """
    dtype = scatter.dtype
    length = jnp.sqrt(jnp.sum(mean**2))
    # The reflection x - 2 (w.x) w takes m to -sign(m_1) ||m|| e_1.
    first = jnp.where(mean[0] >= 0, 1, -1).astype(dtype)
    normal = (mean / jnp.where(length > 0, length, 1)).at[0].add(first)
    normal /= jnp.sqrt(jnp.sum(normal**2))
    turned = linalg.matmul(scatter, normal)
    turned = 2 * turned - 2 * jnp.dot(normal, turned, precision="highest") * normal
    scatter -= jnp.outer(normal, turned) + jnp.outer(turned, normal)
    offsets -= 2 * jnp.outer(linalg.matmul(offsets, normal), normal)
    top = scatter[0, 0] + size * length**2
    border, core = scatter[0, 1:], scatter[1:, 1:]

    def refine(_: int, y: Array) -> Array:
        return (border + linalg.matmul(core, y)) / (top + jnp.sum(border * y))

    y = jax.lax.fori_loop(0, 16, refine, alike(jnp.zeros_like(border), border, top))
    root = jnp.sqrt(1 + jnp.sum(y**2))
    shrink = 1 / (root * (1 + root))  # R = I - shrink y y^T
    rest = core - jnp.outer(border, y) - jnp.outer(y, border) + top * jnp.outer(y, y)
    pulled = shrink * (
        linalg.matmul(rest, y) - shrink / 2 * jnp.sum(y * linalg.matmul(rest, y)) * y
    )
    rest = rest - jnp.outer(pulled, y) - jnp.outer(y, pulled)  # R (.) R, without its products
    above = 2 * jnp.max(jnp.sum(jnp.abs(rest), axis=1), initial=0) + jnp.asarray(1e-30, dtype)
    edge = jnp.zeros_like(border)
    whole = jnp.block([[above, edge[None]], [edge[:, None], rest]])
    lead, tail = offsets[:, 0] - first * length, offsets[:, 1:]
    along_y = linalg.matmul(tail, y)
    tail = tail - (lead / root + shrink * along_y)[:, None] * y
    along = jnp.concatenate([((lead + along_y) / root)[:, None], tail], axis=1)
    return whole, along, top + jnp.sum(border * y)


def _narrowed(geometry: Geometry, scale: Array, size: Array) -> Array:
    """Returns the error of eigenvalues of F^T F if features had more digits than the moments."""
    means = jnp.abs(geometry.moments.pivot + geometry.moments.mean) * geometry.present[:, None]
    lost = geometry.data_eps * jnp.sqrt(jnp.sum(jnp.max(means, axis=0) ** 2))
    lost = jnp.where(geometry.data_eps > 1e-12, lost, 0)
    return size * lost**2 + 2 * lost * jnp.sqrt(scale)


def effective_rank(axes: RawAxes) -> Scalar:
    """Exponential of the entropy of F's singular values, exp(-sum_i p_i log p_i).

    With p_i = s_i^(1/2) / sum_j s_j^(1/2).

    Between 1 and D. Singular values below the rounding of F^T F count as zero.

    Reference:
      Roy & Vetterli (2007); RankMe of Garrido et al. (2023), which adds 1e-7 to every p_i.
    """
    return _effective_rank(axes)[0]


def _effective_rank(axes: RawAxes) -> tuple[Scalar, Scalar]:
    """Returns the rank, and an estimate of its relative rounding error."""
    singular = jnp.sqrt(jnp.where(axes.kept, axes.values, 0))
    total = jnp.sum(singular)
    share = singular / jnp.where(total > 0, total, jnp.nan)
    logs = jnp.log(jnp.where(share > 0, share, 1))
    entropy = -jnp.sum(share * logs)
    # A value off by d takes its root off by d / (2 s^(1/2)), at most d^(1/2), and the entropy by
    # |log p + entropy| times that over the sum.
    safe = jnp.where(axes.kept, singular, 1)
    off = jnp.where(axes.kept, axes.rounding / (2 * safe), 0) * jnp.abs(logs + entropy)
    least = jnp.sqrt(axes.rounding) / jnp.where(total > 0, total, 1)
    cut = axes.cut * least * (1 + jnp.abs(jnp.log(jnp.maximum(least, 1e-30))))
    return jnp.exp(entropy), jnp.sum(off) / jnp.where(total > 0, total, 1) + cut


def shrinkage_h_score(geometry: Geometry) -> Scalar:
    """H-score with the Ledoit-Wolf covariance, which is stable for D close to N.

        (1 - a) Tr[((1 - a) Sigma_T + a t I)^-1 Sigma_B],   t = Tr Sigma_T / D

    with a the Ledoit-Wolf shrinkage, which needs sum_i ||h_i - mu_G||^4; the moments carry it.
    NaN for ``weighting="class"`` on imbalanced data, where Sigma_T is not a sample covariance, and
    where fourth powers leave the range of float32 (features beyond about 1e9, or below 1e-9).

    Reference:
      Ibrahim, Ponomareva & Mazumder (2021), Eq. 5; Ledoit & Wolf (2004). The shrinkage equals
      ``sklearn.covariance.ledoit_wolf``. ``regularized_h_score`` of
      thuml/Transfer-Learning-Library is N / (N - 1) times this: it divides Sigma_B by N - 1.
    """
    moments, (values, vectors) = geometry.moments, geometry.total
    dim, dtype = values.shape[0], values.dtype
    count = jnp.sum(moments.count).astype(dtype)
    size = jnp.maximum(count, 1)
    votes = moments.count.astype(dtype) / size
    sampled = jnp.all(jnp.abs(votes - geometry.proportion) <= 1e-5 * votes)
    sampled &= jnp.all(moments.class_weight == 1)
    # Relative to the pivot: far from the origin, the sum of both would be rounded.
    relative = moments._replace(pivot=jnp.zeros_like(moments.pivot))
    quartic = rebase(relative, linalg.matmul(votes, moments.mean)).radial_quartic
    mean, square = jnp.sum(values) / dim, jnp.sum(values**2)
    # By Jensen's inequality, unless fourth powers left the range of the moments' dtype. Those that
    # are below it may lack as much as the smallest number there is, each.
    least = (1 - 1e-3) * jnp.sum(values) ** 2
    least = jnp.maximum(least, 1e4 * linalg.smallest(geometry.data_eps, dtype))
    sampled &= jnp.isfinite(quartic) & (quartic >= size * least)
    spread = (square - dim * mean**2) / dim
    noise = jnp.clip((quartic / size - square) / (dim * size), 0, spread)
    shrinkage = noise / jnp.where(spread > 0, spread, jnp.inf)
    rows = jnp.sqrt(geometry.proportion)[:, None] * geometry.offsets
    between = jnp.sum(linalg.matmul(rows, vectors) ** 2, axis=0)
    shrunk = (1 - shrinkage) * values + shrinkage * mean
    floor = dim * np.finfo(dtype).eps * shrunk[0]
    terms = jnp.where(shrunk > floor, between / jnp.where(shrunk > floor, shrunk, 1), 0)
    value = (1 - shrinkage) * jnp.sum(terms)
    return jnp.where(sampled & (geometry.rank > 0) & (mean > 0), value, jnp.nan)


def logme(geometry: Geometry, axes: RawAxes) -> Scalar:
    """Log maximum evidence of Bayesian linear regression on one-hot labels, per sample and class.

    For each class, weights have prior N(0, I / a) and targets noise 1 / b; the evidence

        (D/2) log a + (N/2) log b - (1/2) sum_i log(a + b s_i) - (b/2) e - (a/2) m - (N/2) log 2 pi

    (e the residual, m the squared norm of the posterior mean) is maximised over a and b by the
    fixed point a = g / m, b = (N - g) / e, g = sum_i b s_i / (a + b s_i). Larger is better.

    Reference:
      You, Liu, Wang & Long (2021), Algorithm 3; the constants 1e-5 in both denominators are those
      of thuml/LogME, which stops at a relative change of 1e-3 in a / b, here 1e-6 before its
      limit. It agrees to 1e-5 for features of full rank; below, it omits
      (D - rank) / 2 log a (docs/definitions.md).
    """
    return _logme(geometry, axes)[0]


def _logme(geometry: Geometry, axes: RawAxes) -> tuple[Scalar, Scalar]:
    """Returns the evidence, and an estimate of its rounding error."""
    moments, dtype = geometry.moments, axes.values.dtype
    class_count = moments.count.astype(dtype)
    count = jnp.sum(class_count)
    kept = axes.kept
    squares = jnp.where(kept, axes.values, 0)
    # (u_i . y_k)^2 for the left singular vectors u_i of F: (v_i^T F^T y_k)^2 / s_i.
    energy = jnp.where(kept, axes.sums**2 / jnp.where(kept, squares, 1), 0)
    outside = jnp.maximum(class_count - jnp.sum(energy, axis=1), 0)

    def fit(ratio: Array) -> tuple[Array, Array, Array, Array]:
        """Returns prior and noise precision, residual and squared norm, at a ratio of the two."""
        damped = ratio[:, None] / (ratio[:, None] + squares)
        residual = outside + jnp.sum(energy * damped**2, axis=1)
        norm = jnp.sum(squares * energy / (ratio[:, None] + squares) ** 2, axis=1)
        # Not 1 - damped, which is zero for features far below one.
        effective = jnp.sum(squares / (ratio[:, None] + squares), axis=1)
        return effective / (norm + 1e-5), (count - effective) / (residual + 1e-5), residual, norm

    def refine(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        """Takes one fixed-point step in the logarithm of the ratio."""
        steps, logs, before, _ = state
        prior, noise, _, _ = fit(jnp.exp(logs))
        following = jnp.where(geometry.present, jnp.log(prior / noise), 0)
        change = jnp.abs(following - logs)
        # What is left to go if changes keep shrinking as they did.
        rate = jnp.clip(change / jnp.where(before > 0, before, 1), 0, 1 - 1e-6)
        return steps + 1, following, change, jnp.max(change * rate / (1 - rate))

    def moving(state: tuple[Array, Array, Array, Array]) -> Array:
        return (state[0] < 5000) & ((state[0] < 3) | (state[3] > tolerance))

    # The evidence is stationary here, so that an error of the ratio enters squared.
    tolerance = 1e-6 if dtype == jnp.float64 else 1e-4
    zeros = jnp.zeros_like(class_count)
    start = (jnp.zeros((), jnp.int32), zeros, zeros, jnp.asarray(jnp.inf, dtype))
    start = alike(start, energy)
    steps, logs, _, left = jax.lax.while_loop(moving, refine, start)
    ratio = jnp.exp(logs)
    prior, noise, residual, norm = fit(ratio)
    determinant = jnp.sum(jnp.log(prior[:, None] + noise[:, None] * squares), axis=1)
    evidence = squares.shape[0] * jnp.log(prior) + count * jnp.log(noise / (2 * jnp.pi))
    evidence = (evidence - determinant - noise * residual - prior * norm) / (2 * count)
    classes = jnp.sum(geometry.present)
    value = jnp.sum(jnp.where(geometry.present, evidence, 0)) / classes
    explained = jnp.sum(jnp.where(geometry.present[:, None], noise[:, None] * energy, 0), axis=0)
    off = jnp.where(kept, axes.rounding / jnp.where(kept, squares, 1), 0)
    error = jnp.sum(off * (1 + explained / classes)) / (2 * count)
    unsure = (axes.cut > 0) | (steps > 300) | ~(left <= tolerance)  # slower than geometric, then
    return value, jnp.where(unsure, jnp.inf, error)
