"""The two metrics that solve an equation: the adjusted VCI, and LogME.

Legend: N samples, K classes present, D dimensions, p rank of Sigma_T, c_j between/within ratios.
"""

import math
from collections.abc import Callable

import numpy as np
from flint import arb, fmpq


def adjusted(
    lost: list[arb], collapsed: int, features: int, classes: int, count: fmpq, rank: int, vci: fmpq
) -> arb | None:
    """VCI with the bias of the sample taken out: a root t of one increasing equation, and a sum.

    With T(t) = sum_j 1 / (t + c_j), z = p - q, e = K - 1 - q and w = N - K,

        y(t) = (N T + z e / t) / (w - z + (1 - t) T)
        t w + (1 - t)(z + t T) + y(t) + e = N
        r = min(p, K - 1),   v = (y + r - q) / r,   u = v - v^2 (1 - v) / N
        vci_adjusted = (r u + rank - r) / rank

    where the left side increases up to the first t at which the denominator of y vanishes;
    or what noise would give, VCI (N - 1) / (N - 1 - max(p, K - 1)), if that is less.

    Args:
      lost: the 1 / (1 + c_j) other than 0 and 1.
      collapsed: the number of infinite c_j.
      features: p.
      classes: K.
      count: N, the effective number of samples.
      rank: min(D, K - 1), of which VCI is the average.
      vci: of the sample.
    """
    found = len(lost) + collapsed
    spare, empty = features - found, classes - 1 - found
    size = arb(count)
    free = size - classes

    def tail(t: arb) -> arb:
        return sum((u / (1 + (t - 1) * u) for u in lost), arb(0))

    def average(t: arb) -> arb | None:
        total = tail(t)
        below = free - spare + (1 - t) * total
        return (size * total + spare * empty / t) / below if below > 0 else None

    def too_far(t: arb) -> bool:
        y = average(t)
        return y is None or t * free + (1 - t) * (spare + t * tail(t)) + y + empty > size

    y = average(_boundary(too_far))
    if y is None:
        return None
    inner = min(features, classes - 1)
    value = (y + inner - found) / inner
    bounded = value.max(arb(0)).min(arb(1))
    noise = arb(vci * (count - 1) / (count - 1 - max(features, classes - 1)))
    value -= bounded**2 * (1 - bounded) / size
    return ((inner * value + rank - inner) / rank).min(noise)


def _boundary(too_far: Callable[[arb], bool]) -> arb:
    """The largest t > 0 that is not too far, by halving on a logarithmic scale."""
    low, high = arb(-100), arb(100)
    for _ in range(200):
        middle = ((low + high) / 2).mid()
        low, high = (low, middle) if too_far(middle.exp().mid()) else (middle, high)
    return low.exp().mid()


def logme(
    repeated: np.ndarray,
    distinct: np.ndarray,
    energies: list[tuple[np.ndarray, fmpq]],
    counts: list[int],
    dim: int,
) -> float:
    """LogME of one-hot labels, averaged over classes; NaN where the fixed point is not reached.

    All terms of all sums are positive, so float64 keeps its digits from here on.

    Args:
      repeated: eigenvalues of F^T F, each as often as it occurs.
      distinct: each once.
      energies: for each class sum (u . y)^2 at every distinct eigenvalue, and the sum of all.
      counts: samples of each class.
      dim: D.
    """
    total = sum(counts)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN ends the iteration
        values = [
            _evidence(repeated, distinct, energy, _float(n - inside), total, dim)
            for (energy, inside), n in zip(energies, counts, strict=True)
        ]
    return sum(values) / len(values)


def _evidence(
    repeated: np.ndarray,
    distinct: np.ndarray,
    energy: np.ndarray,
    outside: float,
    count: int,
    dim: int,
) -> float:
    """The evidence of one class per sample, at the fixed point of a / b from 1."""
    ratio, before = 1.0, 0.0
    for _ in range(5000):
        if abs(ratio - before) <= 1e-13 * ratio or not 0 < ratio < 1e200:
            break
        prior, noise, _, _ = _fit(ratio, repeated, distinct, energy, outside, count)
        before, ratio = ratio, prior / noise if noise > 0 else math.inf
    else:
        return math.nan
    if not 0 < ratio < 1e200:
        return math.nan
    prior, noise, residual, norm = _fit(ratio, repeated, distinct, energy, outside, count)
    logs = np.sum(np.log(prior + noise * repeated)) + (dim - len(repeated)) * math.log(prior)
    value = dim * math.log(prior) + count * math.log(noise / (2 * math.pi))
    return float(value - logs - noise * residual - prior * norm) / (2 * count)


def _fit(
    ratio: float,
    repeated: np.ndarray,
    distinct: np.ndarray,
    energy: np.ndarray,
    outside: float,
    count: int,
) -> tuple[float, float, float, float]:
    residual = outside + float(np.sum(energy * (ratio / (ratio + distinct)) ** 2))
    norm = float(np.sum(distinct * energy / (ratio + distinct) ** 2))
    effective = float(np.sum(repeated / (ratio + repeated)))
    return effective / (norm + 1e-5), (count - effective) / (residual + 1e-5), residual, norm


def _float(value: fmpq) -> float:
    return int(value.p) / int(value.q)
