"""Which numbers are the same but for rounding, so that no statistic hangs on the last digit.

A tie is broken, or made, by the order of a sum and by the unit of a sample: 0.7 x + 0.1 says the
same as x, but of its 16 digits it keeps other ones. Every comparison of the statistics goes
through this file.
"""

import numpy as np

# Of a number of order one such as a coefficient. In float64 a sample keeps its values to 2^-53 of
# their size, hence to 2^-36 = 1.5e-11 of its range where it lies up to 10^5 ranges away from zero;
# a coefficient of some ten values adds up as many such errors.
SHARE = 2.0**-33

# Of the size of the largest value: the mean of up to a hundred values, in any order, is within
# this, and so is 0.7 x + 0.1 of values that are. A sample may well span ten decades, as VCI of
# collapsed and of ordinary networks does: those are not ties.
_SIZE = 2.0**-46


def is_constant(values: np.ndarray) -> np.ndarray:
    """Returns whether values ``[..., N]`` differ by no more than rounding, ``[...]``.

    >>> is_constant(np.array([0.1 + 0.2, 0.3, 0.3])).item()
    True
    """
    return np.ptp(values, axis=-1) <= _SIZE * np.max(np.abs(values), axis=-1)


def level(values: np.ndarray, share: float = 0.0) -> np.ndarray:
    """Returns values ``[..., N]`` of which those that are the same but for rounding are equal.

    Each run of neighbours in order of size that are closer than rounding of the largest one, or
    than ``share`` of the range, takes its smallest value: ``SHARE`` where they are statistics of
    order one, made from samples. Rows that are not finite stay as they are.

    >>> level(np.array([0.3, 1.0, 0.1 + 0.2])).tolist()
    [0.3, 1.0, 0.3]
    """
    values = np.asarray(values, np.float64)
    if values.shape[-1] < 2:
        return values
    order = np.argsort(values, axis=-1, kind="stable")
    rising = np.take_along_axis(values, order, axis=-1)
    with np.errstate(invalid="ignore", over="ignore"):
        reach = rising[..., -1:] - rising[..., :1]
        size = np.maximum(np.abs(rising[..., -1:]), np.abs(rising[..., :1]))
        apart = ~(np.diff(rising, axis=-1) <= np.maximum(share * reach, _SIZE * size))
    apart |= ~np.isfinite(reach)
    begins = np.concatenate([np.ones_like(apart[..., :1]), apart], axis=-1)
    places = np.where(begins, np.arange(values.shape[-1]), 0)
    first = np.maximum.accumulate(places, axis=-1)
    levelled = np.empty_like(values)
    np.put_along_axis(levelled, order, np.take_along_axis(rising, first, axis=-1), axis=-1)
    return levelled


def snap(values: np.ndarray, target: float) -> np.ndarray:
    """Returns values of order one, of which those that are ``target`` but for rounding equal it.

    >>> snap(np.array([1e-17, 0.5, -2e-12]), 0.0).tolist()
    [0.0, 0.5, 0.0]
    """
    return np.where(np.abs(values - target) <= SHARE, target, values)


def sign(value: float) -> int:
    """Returns the sign of a number of order one: 0 where rounding alone gives it one.

    >>> sign(0.3), sign(-1e-17)
    (1, 0)
    """
    return int(np.sign(snap(np.asarray(value), 0.0)))
