"""Intervals and p-values by resampling, where a run is one seed of one setting.

Runs that differ in the seed alone are no further evidence about the settings. So a statistic takes
the means of the settings, and the bootstrap draws settings, then seeds within each. With one seed a
setting this is the ordinary bootstrap of pairs, and equals ``scipy.stats.bootstrap``.

Results do not depend on the units and signs of the samples or on the order of the runs: numbers
that differ by rounding are ties, and samples are sorted before they are drawn from (``arrange``).

Legend: N runs, S settings, R resamples, Q seeds of the setting that has most.

Reference: B. Efron & R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 14 (BCa);
A. Davison & D. Hinkley, Bootstrap Methods and their Application (1997), section 3.8 (two stages).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from probes.analysis.coefficients import Coefficient
from probes.transfer import rounding

# Largest intermediate array of a statistic, in numbers: 80 MB.
_BATCH = 10_000_000


@dataclass(frozen=True)
class ResamplingPlan:
    """Settings of resampling."""

    resamples: int = 9999
    """Resamples of the bootstrap, and of a permutation test that is not exact."""
    permutations: int = 40320
    """Largest number of permutations for an exact test; 8! by default."""
    confidence: float = 0.95
    """Confidence level of every interval."""
    seed: int = 0
    """Seed of the resampling."""

    def __post_init__(self) -> None:
        if self.resamples < 99 or not 0 < self.confidence < 1:
            raise ValueError(
                f"resamples is {self.resamples} and confidence {self.confidence}; there must be 99 "
                "resamples or more, and the confidence must lie between 0 and 1."
            )

    def rejects(self, p_value: float) -> bool:
        """Whether a p-value is significant: at most 1 - confidence."""
        return p_value <= 1 - self.confidence + 1e-9  # 1 - confidence has a rounding error.


class Draw(NamedTuple):
    """Rows of the resampled settings, ``[R S Q]``, and the number of them that count, ``[R S]``."""

    rows: np.ndarray
    sizes: np.ndarray

    def means(self, values: np.ndarray) -> np.ndarray:
        """Returns the means of values ``[N]`` over the drawn seeds, ``[R S]``."""
        counted = np.arange(self.rows.shape[-1]) < self.sizes[..., None]
        return np.sum(np.where(counted, values[self.rows], 0.0), axis=-1) / self.sizes


class Interval(NamedTuple):
    """Ends of an interval, NaN if undefined, and the share of resamples without a value."""

    low: float
    high: float
    undefined: float


def means(values: np.ndarray, settings: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the mean of values ``[N]`` over the runs of each setting, ``[S]``."""
    _, index, sizes = np.unique(settings, return_inverse=True, return_counts=True)
    return np.bincount(index, values) / sizes


def arrange(
    samples: Sequence[np.ndarray], settings: Sequence[int] | np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns samples and settings, each ``[N]``, sorted by the values of the points.

    Settings are sorted by the distance of their means from the centre, by the last sample first,
    and seeds within a setting likewise. This order is the same for ``a x + b`` with any ``a`` but 0
    (unless a sample is its own mirror image in one axis alone). Values that differ by rounding
    alone are made equal.
    """
    _, index = np.unique(settings, return_inverse=True)
    samples = [rounding.level(sample) for sample in samples]
    whole = [means(sample, index) for sample in samples]
    rank = np.empty(len(whole[0]), int)
    rank[np.lexsort(_sort_keys(whole, whole))] = np.arange(len(rank))
    rows = np.lexsort([*_sort_keys(samples, whole), rank[index]])
    return [sample[rows] for sample in samples], rank[index][rows]


def _sort_keys(samples: Sequence[np.ndarray], whole: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the keys of ``arrange``, the most important last, from the settings' means."""
    scales = [float(np.max(np.abs(values - np.mean(values)))) or 1.0 for values in whole]
    points, centred = (
        [(v - np.mean(w)) / scale for v, w, scale in zip(values, whole, scales, strict=True)]
        for values in (samples, whole)
    )
    odd = (_direction(*(z * other**2 for other in (z, *centred))) or 1 for z in centred)
    alike = (_direction(z * centred[-1]) for z in centred[:-1])
    keys = [sign * z for sign, z in zip(odd, points, strict=True)]
    keys += [sign * z * points[-1] for sign, z in zip(alike, points, strict=False)]
    return [rounding.level(key, rounding.SHARE) for key in [*keys, *map(np.abs, points)]]


def _direction(*several: np.ndarray) -> int:
    """Returns the sign of the first sum that is not within rounding of zero, or 0."""
    for terms in several:
        if abs(np.sum(terms)) > rounding.SHARE * np.sum(np.abs(terms)):
            return int(np.sign(np.sum(terms)))
    return 0


def draw(settings: Sequence[int] | np.ndarray, plan: ResamplingPlan, *, seeds_only: bool) -> Draw:
    """Returns the rows of resampled runs, whose ``settings`` are numbers ``[N]``.

    ``seeds_only`` keeps every setting once and redraws its seeds.
    """
    rng = np.random.default_rng(plan.seed)
    _, index, sizes = np.unique(settings, return_inverse=True, return_counts=True)
    members = np.argsort(index, kind="stable")
    starts = np.cumsum(sizes) - sizes
    if seeds_only:
        drawn = np.broadcast_to(np.arange(len(sizes)), (plan.resamples, len(sizes)))
    else:
        drawn = rng.integers(0, len(sizes), (plan.resamples, len(sizes)))
    count = sizes[drawn]
    seeds = (rng.random((*drawn.shape, sizes.max())) * count[..., None]).astype(int)
    return Draw(members[starts[drawn][..., None] + seeds], count)


def bca(
    distribution: np.ndarray, estimate: float, jackknife: np.ndarray, plan: ResamplingPlan
) -> Interval:
    """Returns the bias-corrected and accelerated bootstrap interval.

    Resamples without a value (a single point) are left out and counted; SciPy's interval would be
    NaN. Resamples within rounding of the estimate, as permutations of the sample are, count half
    below it. If no resample lies to one side of the estimate, or the jackknife never changes it (a
    perfect order of ranks), there is no interval.

    Args:
      distribution: the statistic of every resample, ``[R]``.
      estimate: the statistic of the sample.
      jackknife: the statistic without each setting, ``[S]``.
      plan: has the confidence level.
    """
    values = distribution[np.isfinite(distribution)]
    undefined = 1 - len(values) / len(distribution)
    jackknife = jackknife[np.isfinite(jackknife)]
    no_interval = Interval(math.nan, math.nan, undefined)
    if not len(values) or len(jackknife) < 2 or not np.isfinite(estimate):
        return no_interval
    same = rounding.SHARE * max(float(np.max(np.abs(values))), abs(estimate))
    below = (np.mean(values < estimate - same) + np.mean(values <= estimate + same)) / 2
    if not 0 < below < 1 or np.ptp(jackknife) <= same:
        return no_interval
    influence = np.mean(jackknife) - jackknife
    spread = float(np.sum(influence**2))
    bias = special.ndtri(below)
    acceleration = float(np.sum(influence**3)) / (6 * spread**1.5)
    tails = np.array([(1 - plan.confidence) / 2, (1 + plan.confidence) / 2])
    shifted = bias + special.ndtri(tails)
    levels = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    low, high = np.quantile(values, levels)
    return Interval(float(low), float(high), undefined)


def bootstrap(
    statistic: Callable[..., np.ndarray],
    samples: Sequence[np.ndarray],
    settings: Sequence[int] | np.ndarray,
    plan: ResamplingPlan,
    *,
    seeds_only: bool = False,
) -> Interval:
    """Returns the BCa interval of a statistic of paired samples.

    Args:
      statistic: a function of arrays ``[..., S]``, one per sample.
      samples: paired samples, each ``[N]``.
      settings: see ``draw``.
      plan: resamples, confidence, seed.
      seeds_only: see ``draw``; the interval is then the percentile interval, as a jackknife over
        settings does not apply.
    """
    samples, settings = arrange(samples, settings)
    drawn = draw(settings, plan, seeds_only=seeds_only)
    resampled = [drawn.means(sample) for sample in samples]
    whole = [means(sample, settings) for sample in samples]
    distribution = _in_batches(statistic, resampled)
    if seeds_only:
        defined = distribution[np.isfinite(distribution)]
        tails = [(1 - plan.confidence) / 2, (1 + plan.confidence) / 2]
        low, high = np.quantile(defined, tails) if len(defined) else (math.nan, math.nan)
        return Interval(float(low), float(high), 1 - len(defined) / len(distribution))
    jackknife = statistic(*(without_each(sample) for sample in whole))
    return bca(distribution, float(statistic(*whole)), jackknife, plan)


def without_each(values: np.ndarray) -> np.ndarray:
    """Returns the values ``[S]`` without each of them, ``[S S-1]``."""
    size = len(values)
    return np.broadcast_to(values, (size, size))[~np.eye(size, dtype=bool)].reshape(size, size - 1)


class Permutation(NamedTuple):
    """A permutation test.

    Attributes:
      p_value: two-sided, twice the smaller tail; a random test counts the sample as well.
      low, high: ends of the interval that inverts the test, see ``permute``.
      exact: whether all permutations were taken.
    """

    p_value: float
    low: float
    high: float
    exact: bool


def permute(
    coefficient: Coefficient, x: np.ndarray, y: np.ndarray, plan: ResamplingPlan
) -> Permutation:
    """Returns the permutation test of no association, and the interval that inverts it.

    The p-value is that of ``scipy.stats.permutation_test``, except that coefficients which differ
    by rounding alone count as equal.

    For the interval, the permutation distribution of Fisher's z = atanh(r) is taken as that of
    z - zeta for any true zeta (z stabilises the variance). The interval holds every zeta that the
    test does not reject, so it contains 0 exactly if p > 1 - confidence. A perfect order of ranks
    has no z, hence no interval. The samples are ``[S]``.
    """
    (x, y), _ = arrange((x, y), range(len(x)))
    estimate, size = float(coefficient(x, y)), len(x)
    if not np.isfinite(estimate):
        return Permutation(math.nan, math.nan, math.nan, False)
    exact = math.factorial(size) <= plan.permutations
    test = stats.permutation_test(
        (y,),
        lambda y, axis: coefficient(x, np.moveaxis(y, axis, -1)),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=plan.permutations if exact else plan.resamples,
        batch=max(1, _BATCH // size**2),
        rng=np.random.default_rng(plan.seed),
    )
    null = rounding.snap(test.null_distribution, estimate)
    null = null if exact else np.append(null, estimate)
    p_value = min(1.0, 2 * float(min(np.mean(null <= estimate), np.mean(null >= estimate))))
    with np.errstate(divide="ignore", invalid="ignore"):
        null, z = np.sort(np.arctanh(_snap_to_one(null))), np.arctanh(_snap_to_one(estimate))
        # At most this many of the null distribution are in each rejected tail.
        outside = math.floor(len(null) * (1 - plan.confidence) / 2 + 1e-9)
        low, high = np.tanh([z - null[-1 - outside], z - null[outside]])
    if not np.isfinite(z):
        low, high = math.nan, math.nan
    return Permutation(p_value, float(low), float(high), exact)


def _snap_to_one(r: np.ndarray | float) -> np.ndarray:
    """Rounds a coefficient within rounding of 1 to 1, where z is undefined."""
    return np.where(np.abs(r) > 1 - 1e-12, np.sign(r), r)


def _in_batches(statistic: Callable[..., np.ndarray], samples: Sequence[np.ndarray]) -> np.ndarray:
    rows, size = samples[0].shape
    batch = max(1, _BATCH // size**2)
    return np.concatenate(
        [
            statistic(*(sample[start : start + batch] for sample in samples))
            for start in range(0, rows, batch)
        ]
    )
