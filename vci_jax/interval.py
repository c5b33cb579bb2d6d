"""How much of a difference in VCI is noise: a jackknife over blocks of the data.

Blocks come free: each is a partial state of the one pass. Leaving out block b means merging the
others, so the data are never seen again.

Legend: B blocks that hold samples, N samples, n_b of block b, K classes, D feature dimension.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import stdtrit

from vci_jax import metrics
from vci_jax.adjusted import jackknife_inflation
from vci_jax.geometry import Weighting, factorize
from vci_jax.moments import ClassMoments, merge


def jackknife_interval(
    blocks: ClassMoments,
    *,
    weighting: Weighting = "sample",
    confidence: float = 0.95,
    data_eps: float | None = None,
) -> tuple[float, float]:
    """Confidence interval of the population VCI around ``vci_adjusted``.

    With t_b the logarithm of the adjusted VCI without block b, t that of all the data, and
    h_b = N / n_b,

        se^2 = (1 / f) (1 / B) sum_b (u_b - mean u)^2 / (h_b - 1),    u_b = h_b t - (h_b - 1) t_b

    (the mean weighted by 1 / h_b), and the interval is exp(t -+ q se), q the quantile of Student's
    t with B - 1 degrees of freedom. The logarithm keeps it positive near collapse. For equal
    blocks the sum is the usual (B - 1) / B sum_b (t_b - mean t)^2. The factor f is by how much a
    jackknife overstates this variance, ``adjusted.jackknife_inflation``.

    Blocks of random samples answer for classes drawn at random; blocks with equal shares of every
    class (as the command line deals them) for fixed class counts. Use 10 blocks or more. Blocks
    without samples carry nothing and do not count. docs/error_bars.md has the measured coverage.

    Args:
      blocks: partial states with a leading axis of B >= 2.
      weighting: see ``factorize``.
      confidence: between 0 and 1.
      data_eps: see ``factorize``.

    Returns:
      (low, high); NaN if fewer than two blocks hold samples, or the adjusted VCI is undefined or
      zero for all data or without one of the blocks.

    Raises:
      ValueError: for fewer than two blocks, or a confidence outside (0, 1).

    Reference:
      Tukey (1958); Busing, Meijer & van der Leeden (1999), for unequal blocks; Efron & Stein
      (1981), for the factor.
    """
    if blocks.count.ndim != 2 or blocks.count.shape[0] < 2:
        raise ValueError(f"The jackknife needs two blocks or more, got count {blocks.count.shape}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    inflation, whole, parts = jax.device_get(
        _leave_one_out(blocks, weighting=weighting, data_eps=data_eps)
    )
    sizes = np.asarray(blocks.count).astype(np.int64).sum(axis=1)
    parts, sizes = parts[sizes > 0], sizes[sizes > 0]
    if len(parts) < 2 or not (np.all(parts > 0) and whole > 0):  # NaN is not above zero either
        return math.nan, math.nan
    ratios = sizes.sum() / sizes
    pseudo = ratios * math.log(whole) - (ratios - 1) * np.log(parts)
    deviations = pseudo - np.sum(pseudo / ratios)
    error = math.sqrt(float(np.mean(deviations**2 / (ratios - 1))) / float(inflation))
    reach = math.exp(float(stdtrit(len(parts) - 1, (1 + confidence) / 2)) * error)
    return float(whole) / reach, float(whole) * reach


@functools.partial(jax.jit, static_argnames=("weighting", "data_eps"))
def _leave_one_out(
    blocks: ClassMoments, *, weighting: Weighting, data_eps: float | None
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " B"]]:
    """The jackknife's inflation, the adjusted VCI of all blocks, and that without each.

    It takes 3 B merges in all.
    """

    def without(ends: tuple[ClassMoments, ClassMoments]) -> Array:
        return metrics.vci_adjusted(
            factorize(merge(*ends), weighting=weighting, data_eps=data_eps, part=True)
        )

    empty = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), blocks)
    empty = empty._replace(class_weight=blocks.class_weight[0])

    def accumulate(total: ClassMoments, block: ClassMoments) -> tuple[ClassMoments, ClassMoments]:
        return merge(total, block), total  # the total before this block

    whole, before = jax.lax.scan(accumulate, empty, blocks)
    _, after = jax.lax.scan(accumulate, empty, blocks, reverse=True)
    geometry = factorize(whole, weighting=weighting, data_eps=data_eps)
    value = metrics.vci_adjusted(geometry)
    inflation = jackknife_inflation(metrics.sample(geometry), whole.count, value)
    return inflation, value, jax.lax.map(without, (before, after))
