"""Comparisons up to rounding, so that no statistic depends on the last digit.

The order of a sum and the unit of a sample can break or make ties: 0.7 x + 0.1 is equivalent to x,
but has other last digits. Every comparison of the statistics uses this file.
"""

import numpy as np

# Rounding of a number of order one such as a coefficient. In float64 the values of a sample are
# exact to 2^-53 of their size, hence to 2^-36 = 1.5e-11 of its range up to 10^5 ranges away from
# zero; a coefficient of some ten values adds up as many such errors.
SHARE = 2.0**-33

# Rounding relative to the largest value: that of the mean of up to a hundred values in any order,
# and of 0.7 x + 0.1. Samples may span ten decades, as VCI of collapsed and of ordinary networks
# does, without ties.
_SIZE = 2.0**-46


def is_constant(values: np.ndarray) -> np.ndarray:
    """Returns whether values ``[..., N]`` differ by no more than rounding, ``[...]``.

    >>> is_constant(np.array([0.1 + 0.2, 0.3, 0.3])).item()
    True
    """
    return np.ptp(values, axis=-1) <= _SIZE * np.max(np.abs(values), axis=-1)


def level(values: np.ndarray, share: float = 0.0) -> np.ndarray:
    """Returns values ``[..., N]`` in which values that differ by rounding alone are made equal.

    In order of size, each run of neighbours that are closer than rounding of the largest one, or
    than ``share`` of the range, takes its smallest value; ``SHARE`` is for statistics of order one.
    Rows that are not finite stay unchanged.

    >>> level(np.array([0.3, 1.0, 0.1 + 0.2])).tolist()
    [0.3, 1.0, 0.3]
    """
    values = np.asarray(values, np.float64)
    if values.shape[-1] < 2:
        return values
    order = np.argsort(values, axis=-1, kind="stable")
    rising = np.take_along_axis(values, order, axis=-1)
    with np.errstate(invalid="ignore", over="ignore"):
        span = rising[..., -1:] - rising[..., :1]
        size = np.maximum(np.abs(rising[..., -1:]), np.abs(rising[..., :1]))
        apart = ~(np.diff(rising, axis=-1) <= np.maximum(share * span, _SIZE * size))
    apart |= ~np.isfinite(span)
    begins = np.concatenate([np.ones_like(apart[..., :1]), apart], axis=-1)
    first = np.maximum.accumulate(np.where(begins, np.arange(values.shape[-1]), 0), axis=-1)
    levelled = np.empty_like(values)
    np.put_along_axis(levelled, order, np.take_along_axis(rising, first, axis=-1), axis=-1)
    return levelled


def snap(values: np.ndarray, target: float) -> np.ndarray:
    """Returns values of order one, with those within rounding of ``target`` replaced by it.

    >>> snap(np.array([1e-17, 0.5, -2e-12]), 0.0).tolist()
    [0.0, 0.5, 0.0]
    """
    return np.where(np.abs(values - target) <= SHARE, target, values)


def sign(value: float) -> int:
    """Returns the sign of a number of order one, or 0 within rounding of zero.

    >>> sign(0.3), sign(-1e-17)
    (1, 0)
    """
    return int(np.sign(snap(np.asarray(value), 0.0)))
