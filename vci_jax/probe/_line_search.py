"""A line search for a zero of the derivative, along a direction in which the objective is convex.

Differences of the objective drown in rounding long before its derivative does, which is how float32
line searches that ask for a decrease come to stall.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# A length is accepted once the derivative has fallen to this part of what it was.
_SLOPE = 0.5
_TRIALS = 10


class _Trial(NamedTuple):
    """The bracket [low, high] around the zero of the derivative, the next length, and the last."""

    next: jax.Array
    low: jax.Array
    low_slope: jax.Array
    high: jax.Array
    high_slope: jax.Array
    length: jax.Array
    slope: jax.Array
    objective: jax.Array
    gradient: jax.Array
    trials: jax.Array


def search(
    along: Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]],
    slope: jax.Array,
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns a length at which the derivative has fallen, with objective and gradient there.

    If there is none among ten trials, it returns the last one.

    The objective is convex along the line, so its derivative rises: a positive one closes the
    bracket from above, a negative one from below, and the secant gives the next trial.

    Args:
      along: returns objective, gradient, and the derivative along the line, at a length.
      slope: the derivative at the start, which is negative.
      gradient: an array of the gradient's shape.
    """

    def steep(trial: _Trial) -> jax.Array:
        """Whether the derivative is still too large."""
        return ~(jnp.abs(trial.slope) <= -_SLOPE * slope) & (trial.trials < _TRIALS)

    def attempt(trial: _Trial) -> _Trial:
        """Evaluates the next length, tightens the bracket, and proposes the length after it."""
        length = trial.next
        objective, gradient, here = along(length)
        over = ~(here <= 0)  # Not a number means too far, as well.
        high = jnp.where(over, length, trial.high)
        high_slope = jnp.where(over, here, trial.high_slope)
        low = jnp.where(over, trial.low, length)
        low_slope = jnp.where(over, trial.low_slope, here)
        width = high - low
        secant = low - low_slope * width / (high_slope - low_slope)
        secant = jnp.where(jnp.isfinite(secant), secant, low + width / 2)
        inside = jnp.clip(secant, low + width / 20, high - width / 20)
        growth = jnp.clip(slope / (slope - here), 1.5, 4)
        following = jnp.where(jnp.isfinite(high), inside, length * growth)
        bracket = following, low, low_slope, high, high_slope
        return _Trial(*bracket, length, here, objective, gradient, trial.trials + 1)

    ones = jnp.ones_like(slope)
    infinite = jnp.inf * ones
    bracket = ones, 0 * ones, slope, infinite, infinite
    unknown = 0 * ones, infinite, infinite, jnp.zeros_like(gradient), jnp.int32(0)
    last = jax.lax.while_loop(steep, attempt, _Trial(*bracket, *unknown))
    return last.length, last.objective, last.gradient
