"""How much of a difference in VCI is noise: a jackknife over blocks of the data.

Blocks come free: each is a partial state of the one pass. Leaving out block b means merging the
others, so the data are never seen again.

Legend: B blocks, K classes, D feature dimension.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import stdtrit

from vci_jax.geometry import Weighting, factorize
from vci_jax.metrics import vci, vci_adjusted
from vci_jax.moments import ClassMoments, merge


def jackknife_interval(
    blocks: ClassMoments,
    *,
    weighting: Weighting = "sample",
    confidence: float = 0.95,
    data_eps: float | None = None,
) -> tuple[float, float]:
    """Confidence interval of the population VCI around ``vci_adjusted``.

    With t_b the logarithm of the adjusted VCI without block b and t that of all the data,

        se^2 = (1 - d / (N - 1)) (B - 1) / B sum_b (t_b - mean t)^2,     exp(t -+ q se)

    with d = max(rank Sigma_T, K - 1) and q the quantile of Student's t with B - 1 degrees of
    freedom. The logarithm keeps the interval positive near collapse. The first factor is the
    jackknife's own bias: a sample's influence on a residual variance that spends d degrees of
    freedom is e^2 / (1 - leverage), so that the squares sum to N / (N - d) times the variance.

    Blocks of random samples answer for classes drawn at random; blocks with equal shares of every
    class (as the command line deals them) for fixed class counts. Use 10 blocks or more.

    Args:
      blocks: partial states with a leading axis of B >= 2.
      weighting: see ``factorize``.
      confidence: between 0 and 1.
      data_eps: see ``factorize``.

    Returns:
      (low, high); NaN if the adjusted VCI is undefined for all data or without one of the blocks.

    Raises:
      ValueError: for fewer than two blocks, or a confidence outside (0, 1).

    Reference:
      Tukey (1958); Efron & Tibshirani (1993), Section 11.5, in blocks.
    """
    if blocks.count.ndim != 2 or blocks.count.shape[0] < 2:
        raise ValueError(f"The jackknife needs two blocks or more, got count {blocks.count.shape}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    plain, whole, parts = jax.device_get(
        _leave_one_out(blocks, weighting=weighting, data_eps=data_eps)
    )
    if not (np.all(np.isfinite(parts)) and np.all(parts > 0) and whole > 0):
        return math.nan, math.nan
    size, logs = len(parts), np.log(parts)
    spare = float(plain / whole)  # 1 - d / (N - 1), by the definition of vci_adjusted
    error = math.sqrt(spare * (size - 1) / size * float(np.sum((logs - logs.mean()) ** 2)))
    reach = math.exp(float(stdtrit(size - 1, (1 + confidence) / 2)) * error)
    return float(whole) / reach, float(whole) * reach


@jax.jit(static_argnames=("weighting", "data_eps"))
def _leave_one_out(
    blocks: ClassMoments, *, weighting: Weighting, data_eps: float | None
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " B"]]:
    """VCI and adjusted VCI of all blocks, and the latter without each: 3 B merges in all."""

    def both(moments: ClassMoments) -> tuple[Array, Array]:
        geometry = factorize(moments, weighting=weighting, data_eps=data_eps)
        return vci(geometry), vci_adjusted(geometry)

    empty = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), blocks)
    empty = empty._replace(class_weight=blocks.class_weight[0])

    def accumulate(total: ClassMoments, block: ClassMoments) -> tuple[ClassMoments, ClassMoments]:
        return merge(total, block), total  # the total before this block

    whole, before = jax.lax.scan(accumulate, empty, blocks)
    _, after = jax.lax.scan(accumulate, empty, blocks, reverse=True)
    _, parts = jax.lax.map(lambda ends: both(merge(*ends)), (before, after))
    return *both(whole), parts
