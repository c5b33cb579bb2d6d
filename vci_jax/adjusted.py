r"""VCI of the population, from the discriminant directions of a sample.

The sample overstates how well D features tell K classes apart, the more so the closer D and K come
to N. Let c_j be the between/within variance ratios of the population and VCI = (1/r) sum_j
1 / (1 + c_j). With D, K and N of one order, random matrix theory says what a sample shows of them:
for Gaussian features of one covariance and any t > 0

    T(t) = Tr[(t S_W + S_B)^-1 S_W] = sum_j 1 / (t + c'_j)        c'_j the ratios of the sample

tends to (1 - K/N) sum_j 1 / (l + c_j), to the leading order, where

    l = s (t w s / (1 + (s - 1) t) + K - 1 - D) / N,   s = 1 + T / (w - t T),   w = N - K.

At t = 1 the sample so shows the population at some l < 1, which is the bias of the plug-in VCI.
``adjusted_vci`` takes the t at which l = 1. Nothing is assumed of the c_j: few or many directions,
alike or not. For features without classes it is the adjusted R^2, VCI (N - 1) / (N - 1 - D).

The derivation: [t^(1/2) Q + P] (A + Z), with Z a Gaussian N x D matrix and A, Q, P the class means,
the residual and the between-class projector, is an information-plus-noise matrix whose rows have
two variances. Its deterministic equivalent, as the ridge goes to zero, gives Tr Q Proj = t T.

Legend: N samples (or their effective number), K classes, p = rank Sigma_T, r = min(p, K - 1).

Reference: Hachem, Loubaton & Najim, Deterministic equivalents for certain functionals of large
random matrices, Annals of Applied Probability 17, 2007.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vci_jax.placement import alike

Scalar = Float[Array, ""]

_HALVINGS = 64


class Sample(NamedTuple):
    """Statistics of a sample: sizes, and the ratios c'_j of all directions.

    ``ratios`` are infinite for directions without variance within classes; only those ``kept``
    count. ``size`` is N, ``classes`` K, ``rank`` p, and ``limit`` the number of directions that
    VCI is the mean over, min(D, K - 1).
    """

    ratios: Float[Array, " R"]
    kept: Bool[Array, " R"]
    size: Scalar
    classes: Scalar
    rank: Scalar
    limit: Scalar


@jax.jit  # The finish calls it eight times, and this way traces it once.
def adjusted_vci(sample: Sample, plugin: Scalar) -> Scalar:
    """VCI of the population; NaN if N - 1 <= max(p, K - 1).

    With q directions kept, z = p - q of the features without differences between the means,
    e = K - 1 - q of the means without features, and T the sum over the q directions, l = 1 reads

        t w + (1 - t)(z + t T) + y + e = N,     y = (N T + z e / t) / (w - z + (1 - t) T)

    and y is the sum over the q directions of 1 / (1 + c_j), without a subtraction that would lose
    the last digits of collapse. Of the next order in 1 / N, the part v^2 (1 - v) / N is known.

    What noise would give, VCI (N - 1) / (N - 1 - max(p, K - 1)), is the largest value returned:
    class means closer than noise makes them have no population.
    """
    spent = jnp.maximum(sample.rank, sample.classes - 1)
    spare = sample.size - 1 - spent
    noise = plugin * (sample.size - 1) / jnp.where(spare > 0, spare, 1)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        far = _at(sample, jnp.exp(middle))[0] > 0
        return jnp.where(far, low, middle), jnp.where(far, middle, high)

    end = alike(jnp.full_like(plugin, 100 if plugin.dtype == jnp.float64 else 80), noise)

    def along(slope: Callable[[Array], Array], change: Array) -> Array:
        rise = slope(jnp.ones_like(change))
        return jnp.where(rise == 0, 0, change / jnp.where(rise == 0, 1, rise))

    root = jax.lax.custom_root(
        lambda log: _at(sample, jnp.exp(log))[0],
        -end,
        lambda _, start: jax.lax.fori_loop(0, _HALVINGS, halve, (start, end))[0],
        along,
    )
    _, total = _at(sample, jnp.exp(root))
    inner = jnp.minimum(sample.rank, sample.classes - 1)
    mean = (total + (inner - jnp.sum(sample.kept))) / jnp.maximum(inner, 1)
    share = jnp.clip(mean, 0, 1)
    mean -= share**2 * (1 - share) / sample.size
    missing = sample.limit - inner  # apart, or collapse would be lost in the sum
    value = (mean * inner + missing) / jnp.maximum(sample.limit, 1)
    return jnp.where(spare > 0, jnp.minimum(value, noise), jnp.nan)


def jackknife_inflation(sample: Sample, count: Int[Array, " K"], vci: Scalar) -> Scalar:
    """The factor by which a jackknife over blocks overstates the variance of ``adjusted_vci``.

    Two causes. A sample's influence on a residual is that on its error over one minus its
    leverage, on average p / (N - 1) for the features and (K' - 1) / (N - 1) for the class means,
    with K' classes of two or more samples (one sample alone has no residual): a factor of one
    over one minus the larger. And a jackknife counts the part of the
    variance that is quadratic in the data twice (Efron & Stein 1981), V1 + 2 V2 / N for
    V1 + V2 / N; near VCI = 1 nothing but that part is left. For Gaussian classes with all
    between-class directions alike, d = v and c = (1 - v) / v,

        V1 = 2 r v^2 (1 - v^2),     V2 = sum over pairs i < j of 2 Tr M_ij^2

    where M_ij is the quadratic form, in the three Gaussians that meet there, of the second-order
    term of Tr[S_T^-1 S_W].

    Reference: B. Efron and C. Stein, The jackknife estimate of variance, Annals of Statistics 9.
    """
    v = jnp.clip(vci, 1e-9, 1)
    ones, zeros = jnp.ones_like(v), jnp.zeros_like(v)
    inner = jnp.minimum(sample.rank, sample.classes - 1)
    outer = sample.rank - inner  # directions in which no class mean differs
    linear = 2 * inner * v**2 * (1 - v**2)
    both = _pair_variance(v, v, ones)
    mixed = _pair_variance(ones, v, zeros)
    beyond = jnp.maximum(sample.classes - 1 - sample.rank, 0)  # between-class noise, no direction
    quadratic = inner * ((inner - 1) / 2 * both + outer * mixed + beyond * 2 * v**4) / sample.size
    twice = (linear + 2 * quadratic) / (linear + quadratic)
    spent = jnp.maximum(sample.rank, jnp.sum(count > 1) - 1)
    spare = sample.size - 1 - spent
    return twice * (sample.size - 1) / jnp.where(spare > 0, spare, 1)


def _at(sample: Sample, t: Scalar) -> tuple[Scalar, Scalar]:
    """How much the left side of the equation of ``adjusted_vci`` exceeds N, and y.

    The excess grows with t up to the pole of y, and is infinite beyond. With

        B = t (w - z + (1 - t) T) = t (w - p) + sum_j t (1 + c_j) / (t + c_j)   (t for infinite c_j)

    it is z + B + y + e - N, and y = (N t T + z e) / B: terms that are large for large t, and cancel
    there, do not occur.
    """
    number = jnp.sum(sample.kept)
    free = sample.kept & jnp.isfinite(sample.ratios)
    ratios = jnp.where(free, sample.ratios, 0)
    trace = jnp.sum(jnp.where(free, t / (t + ratios), 0))  # t T
    rise = jnp.sum(jnp.where(free, t * (1 + ratios) / (t + ratios), 0))
    z, e = sample.rank - number, sample.classes - 1 - number
    left = sample.size - sample.classes - sample.rank + (number - jnp.sum(free))
    below = t * left + rise
    y = (sample.size * trace + z * e) / jnp.where(below > 0, below, 1)
    excess = z + below + y + e - sample.size
    return jnp.where(below > 0, excess, jnp.inf), y


def _pair_variance(a: Scalar, b: Scalar, between: Scalar) -> Scalar:
    """2 Tr M^2 for directions i, j with d_i = a and d_j = b, which class means tell apart.

    With g the noise of S_W in (i, j), x that of the mean along j in i and y the other way round,
    and e = g + x c_j^(1/2) + y c_i^(1/2), the second-order term is

        d_i d_j [(d_i + d_j) e^2 - 2 e g] - d_i^2 x^2 - d_j^2 y^2;

    ``between`` is zero if i is no between-class direction, for which there is no y. The square of g
    alone then is the loss of degrees of freedom to the features, which leverage counts already.
    """
    alpha, beta = (1 - b) / b, between * (1 - a) / a
    s, t = a * b * (a + b), a * b
    squares = (s - 2 * t) ** 2 + (s * beta - b**2) ** 2
    diagonal = (s * alpha - a**2) ** 2 + between * squares
    return 2 * (diagonal + 2 * (alpha + beta) * (s - t) ** 2 + 2 * s**2 * alpha * beta)
