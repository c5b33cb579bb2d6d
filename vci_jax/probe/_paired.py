"""Two classifiers on the same samples: their difference, its interval, and the samples needed.

Every test and interval is paired: what both get right, or both get wrong, cancels, so that two
classifiers that agree on most samples are compared as sharply as those samples allow.

Legend: N samples, K classes, M classifiers; ``correct`` holds 1 where a sample is classified right
and 0 where not, or the share of repeats in which it was, for cross-fitted predictions.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import binomtest

# More differences than this have the normal distribution that random flips would estimate.
_FLIPS, _MANY = 20_000, 500
_POWER = 0.8


class Accuracy(NamedTuple):
    """An accuracy and its interval."""

    value: float
    low: float
    high: float


class AccuracyDifference(NamedTuple):
    """Accuracy of a minus accuracy of b, its interval, and what a test says of it.

    Attributes:
      low, high: ends of its interval.
      p_value: two-sided, of the hypothesis that a and b are equally good.
      samples_needed: number of samples with which a difference of this size would be significant in
        four of five cases; infinite for a difference of zero.
    """

    value: float
    low: float
    high: float
    p_value: float
    samples_needed: float


def sample_weights(labels: np.ndarray, *, per_class: bool) -> np.ndarray:
    """Returns weights ``[N]`` that sum to one: 1 / N, or 1 / (K n_k) for the mean over classes."""
    if not per_class:
        return np.full(len(labels), 1 / len(labels))
    _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return 1 / (len(sizes) * sizes[index])


def score(
    correct: np.ndarray, labels: np.ndarray, *, per_class: bool = False, confidence: float = 0.95
) -> Accuracy:
    """Returns the accuracy of ``correct`` ``[N]`` with Wilson's interval.

    For the mean over classes, its size is the number of samples that would give the estimate its
    variance; shares of repeats count as one answer a sample, which widens the interval.

    Reference:
      E. B. Wilson (1927); R. G. Newcombe (1998), method 3.
    """
    weights = sample_weights(labels, per_class=per_class)
    value = float(weights @ correct)
    size = 1 / float(np.sum(weights**2))
    if per_class and 0 < value < 1:
        _, index = np.unique(labels, return_inverse=True)
        rates = (np.bincount(index, correct) / np.bincount(index))[index]
        variance = float(np.sum(weights**2 * rates * (1 - rates)))
        # The variance of a class without errors is unknown; n p (1 - p) bounds it.
        size = min(value * (1 - value) / variance, len(labels)) if variance > 0 else size
    z = float(ndtri((1 + confidence) / 2))
    centre = (value + z**2 / (2 * size)) / (1 + z**2 / size)
    reach = z / (1 + z**2 / size) * np.sqrt(value * (1 - value) / size + z**2 / (4 * size**2))
    return Accuracy(value, float(max(0, centre - reach)), float(min(1, centre + reach)))


def difference(
    a: np.ndarray,
    b: np.ndarray,
    labels: np.ndarray,
    *,
    per_class: bool = False,
    confidence: float = 0.95,
) -> AccuracyDifference:
    """Returns how much better a is than b, by their ``correct`` ``[N]`` on the same samples.

    The interval is that of the mean of paired differences, with half a sample added to each of the
    four outcomes (right or wrong, twice), which keeps its coverage where few samples differ
    (Agresti & Min 2005). The test flips the signs of the differences: for single answers of equal
    weight it is the exact test of McNemar (1947); otherwise 20 000 random flips with a fixed seed,
    or their limit, the normal distribution, beyond 500 differences.
    """
    weights = sample_weights(labels, per_class=per_class)
    gaps = np.asarray(a, float) - np.asarray(b, float)
    size = len(gaps)
    value = float(weights @ gaps)
    if np.all(weights == weights[0]):
        centre = float(np.sum(gaps)) / (size + 2)
        square = float(np.sum(gaps**2) + 1) / (size + 2) - centre**2
        variance, added = square / (size + 2), float(size + 2)
    else:
        centre, variance, added = _stratified(gaps, labels)
    reach = float(stdtrit(max(added - 1, 1), (1 + confidence) / 2)) * np.sqrt(variance)
    spread = float(np.sum(weights**2 * (gaps - value) ** 2)) * size
    quantiles = float(ndtri((1 + confidence) / 2) + ndtri(_POWER))
    needed = quantiles**2 * spread / value**2 if value else np.inf
    return AccuracyDifference(
        value,
        float(max(-1, centre - reach)),
        float(min(1, centre + reach)),
        _p_value(gaps, weights),
        float(np.ceil(needed)),
    )


def _stratified(gaps: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Returns the mean over classes of the mean difference, its variance, and its samples."""
    _, index = np.unique(labels, return_inverse=True)
    sizes = np.bincount(index)
    classes = len(sizes)
    # The half samples of Agresti & Min, shared among the classes by size.
    extra = 2 * sizes / sizes.sum()
    means = np.bincount(index, gaps) / (sizes + extra)
    squares = (np.bincount(index, gaps**2) + extra / 2) / (sizes + extra)
    spreads = squares - means**2
    # The variance of a class of few samples is taken from all classes.
    pooled = float(np.sum(sizes * spreads) / sizes.sum())
    spreads = (sizes * spreads + 2 * pooled) / (sizes + 2)
    variance = float(np.sum(spreads / (sizes + extra))) / classes**2
    return float(np.mean(means)), variance, float(sizes.sum() + 2)


def _p_value(gaps: np.ndarray, weights: np.ndarray) -> float:
    """Returns the two-sided p-value of the sign-flip test on weighted differences."""
    terms = (weights * gaps)[gaps != 0]
    if not len(terms):
        return 1.0
    sizes = np.abs(terms)
    if np.allclose(sizes, sizes[0], rtol=1e-12):
        return float(binomtest(int(np.sum(terms > 0)), len(terms)).pvalue)
    observed, extreme = abs(float(terms.sum())), 0
    if len(terms) > _MANY:
        return float(2 * ndtr(-observed / np.sqrt(np.sum(terms**2))))
    rng = np.random.default_rng(0)
    for start in range(0, _FLIPS, 1000):
        signs = rng.integers(0, 2, (min(1000, _FLIPS - start), len(terms)), np.int8) * 2 - 1
        extreme += int(np.sum(np.abs(signs @ sizes) >= observed * (1 - 1e-12)))
    return (1 + extreme) / (1 + _FLIPS)
