"""The path solver: one compiled program that follows the optimum from large to small penalties.

Legend: N samples, Q columns of the design (rotated features and a one), K classes, P penalties.

It is L-BFGS, with five things that make the whole path cost a few products per penalty:

1. In the basis of the design's principal axes the bound of Boehning (1992) on the Hessian is the
   diagonal h s_j^2 + l2; it preconditions (``_inverse``).
2. A penalty starts at the best point of the span of the last three optima, whose logits are known
   (``span.best``): Newton in three dimensions, no product with the design.
3. The memory is carried along the path, exact for the new penalty (``memory.shift``).
4. Logits are carried too. Along a direction they are A + t B, so line search needs no product
   (``_search``), and a step costs one product each way.
5. The search looks for a zero of the derivative. Differences of the objective drown in rounding
   long before the derivative does, which is how float32 line searches come to stall.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from probes import memory as memories
from probes import span
from probes.memory import Memory
from probes.problem import Problem, dot
from probes.softmax import cross_entropy, probabilities

_PAIRS = 10
_HISTORY = 3
# A step is accepted once the derivative along it has fallen to this part of what it was.
_SLOPE = 0.5
_TRIALS = 10
# The predicted decrease -g.d/2 is trusted as an estimate of the gap to within this factor.
_SAFETY = 0.02


class Optimum(NamedTuple):
    """What was reached at a penalty; ``gap`` is ``ProbeFit``'s."""

    params: jax.Array
    gradient: jax.Array
    objective: jax.Array
    gap: jax.Array
    steps: jax.Array
    converged: jax.Array


class _Point(NamedTuple):
    params: jax.Array
    logits: jax.Array
    gradient: jax.Array
    objective: jax.Array
    direction: jax.Array
    slope: jax.Array
    memory: Memory
    steps: jax.Array
    failures: jax.Array


@partial(jax.jit, static_argnames=("tolerance", "max_steps"))
def follow(
    problem: Problem, l2s: jax.Array, start: jax.Array, *, tolerance: float, max_steps: int
) -> Optimum:
    """Returns the optimum at every penalty, with a leading axis P.

    Args:
      problem: the data.
      l2s: penalties from large to small, ``[P]``.
      start: parameters ``[Q K]`` for the first.
      tolerance: the relative excess of the objective to reach.
      max_steps: at each penalty.
    """
    logits = dot(problem.design, start)
    history = tuple(jnp.broadcast_to(x, (_HISTORY, *x.shape)) for x in (start, logits))
    memory = memories.init(_PAIRS, start)

    def step(carry: Any, l2: jax.Array) -> tuple[Any, Optimum]:
        history, memory, previous, first = carry
        params = jax.lax.cond(
            first, lambda: history[0][0], lambda: span.best(problem, *history, l2)
        )
        logits = dot(problem.design, params)  # Afresh: carried sums would drift along the path.
        point, optimum = _solve(problem, params, logits, memory, l2, previous, tolerance, max_steps)
        history = tuple(
            jnp.concatenate([new[None], old[:-1]])
            for new, old in zip((point.params, point.logits), history, strict=True)
        )
        return (history, point.memory, l2, jnp.bool_(False)), optimum

    _, optima = jax.lax.scan(step, (history, memory, l2s[0], jnp.bool_(True)), l2s)
    return optima


def _solve(
    problem: Problem,
    params: jax.Array,
    logits: jax.Array,
    memory: Memory,
    l2: jax.Array,
    previous: jax.Array,
    tolerance: float,
    max_steps: int,
) -> tuple[_Point, Optimum]:
    """Minimises at one penalty, by L-BFGS from ``params``."""
    ridge = (problem.penalised * l2)[:, None]
    losses, residual = cross_entropy(logits, problem.targets)
    spread = _spread(problem, residual)
    inverse = _inverse(problem, spread, ridge)
    memory = memories.shift(memory, problem.penalised * (l2 - previous), inverse)
    gradient = _gradient(problem, residual, params, ridge)
    direction, slope = _descent(memory, gradient, inverse)
    point = _Point(
        params,
        logits,
        gradient,
        _objective(problem, losses, params, ridge),
        direction,
        slope,
        memory,
        jnp.int32(0),
        jnp.int32(0),
    )

    def gap(point: _Point) -> jax.Array:
        square = jnp.sum(point.gradient**2, axis=1)
        penalised = jnp.sum(problem.penalised * square) / (2 * l2)
        return penalised + jnp.sum((1 - problem.penalised) * square) / (2 * spread)

    def reached(point: _Point) -> jax.Array:
        proven = gap(point) <= tolerance * point.objective
        predicted = -point.slope / 2 <= _SAFETY * tolerance * point.objective
        return proven | predicted

    def unfinished(point: _Point) -> jax.Array:
        return ~reached(point) & (point.steps < max_steps) & (point.failures < 3)

    point = jax.lax.while_loop(unfinished, partial(_step, problem, ridge, inverse), point)
    relative = gap(point) / point.objective
    return point, Optimum(
        point.params, point.gradient, point.objective, relative, point.steps, reached(point)
    )


def _step(problem: Problem, ridge: jax.Array, inverse: jax.Array, point: _Point) -> _Point:
    """One step of L-BFGS: two products with the design."""
    change = dot(problem.design, point.direction)
    length, losses, residual = _search(problem, ridge, point, change)
    move = length * point.direction
    params, logits = point.params + move, point.logits + length * change
    gradient = _gradient(problem, residual, params, ridge)
    objective = _objective(problem, losses, params, ridge)
    # The derivative decides about a step; this only refuses what rounding cannot explain.
    noise = 20 * float(jnp.finfo(params.dtype).eps)
    sound = (objective <= point.objective * (1 + noise)) & jnp.all(jnp.isfinite(gradient))
    memory, useful = memories.push(
        point.memory, move, jnp.where(sound, gradient - point.gradient, 0), inverse
    )
    new = (params, logits, gradient, objective)
    kept = [jnp.where(sound, a, b) for a, b in zip(new, point[:4], strict=True)]
    direction, slope = _descent(memory, kept[2], inverse)
    failures = jnp.where(useful, 0, point.failures + 1)
    return _Point(*kept, direction, slope, memory, point.steps + 1, failures)


class _Trial(NamedTuple):
    """A length, the bracket [low, high] around the zero of the derivative, and what is there."""

    length: jax.Array
    slope: jax.Array
    low: jax.Array
    low_slope: jax.Array
    high: jax.Array
    high_slope: jax.Array
    losses: jax.Array
    residual: jax.Array
    trials: jax.Array


def _search(
    problem: Problem, ridge: jax.Array, point: _Point, change: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns a length at which the derivative has fallen, with the losses and residual there.

    The objective is convex along the line, so its derivative rises: a positive one closes the
    bracket from above, a negative one from below, and the secant through both ends goes on.
    """
    linear = jnp.sum(ridge * point.params * point.direction)
    square = jnp.sum(ridge * point.direction**2)

    def at(length: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        losses, residual = cross_entropy(point.logits + length * change, problem.targets)
        slope = jnp.sum(problem.weights[:, None] * residual * change) + linear + length * square
        return losses, residual, slope

    def steep(trial: _Trial) -> jax.Array:
        return ~(jnp.abs(trial.slope) <= -_SLOPE * point.slope) & (trial.trials < _TRIALS)

    def refine(trial: _Trial) -> _Trial:
        over = ~(trial.slope <= 0)  # Not a number means too far, as well.
        high = jnp.where(over, trial.length, trial.high)
        high_slope = jnp.where(over, trial.slope, trial.high_slope)
        low = jnp.where(over, trial.low, trial.length)
        low_slope = jnp.where(over, trial.low_slope, trial.slope)
        width = high - low
        secant = low - low_slope * width / (high_slope - low_slope)
        secant = jnp.where(jnp.isfinite(secant), secant, low + width / 2)
        inside = jnp.clip(secant, low + width / 20, high - width / 20)
        growth = jnp.clip(point.slope / (point.slope - trial.slope), 1.5, 4)
        length = jnp.where(jnp.isfinite(high), inside, trial.length * growth)
        losses, residual, slope = at(length)
        return _Trial(
            length, slope, low, low_slope, high, high_slope, losses, residual, trial.trials + 1
        )

    one = jnp.ones_like(point.slope)
    losses, residual, slope = at(one)
    infinite = jnp.inf * one
    first = _Trial(
        one, slope, 0 * one, point.slope, infinite, infinite, losses, residual, jnp.int32(1)
    )
    best = jax.lax.while_loop(steep, refine, first)
    return best.length, best.losses, best.residual


def _spread(problem: Problem, residual: jax.Array) -> jax.Array:
    """Returns h, by which the mean Hessian of the softmax is about h (I - 11^T/K)."""
    p = probabilities(residual, problem.targets)
    impurity = jnp.sum(problem.weights * (1 - jnp.sum(p**2, axis=1)))
    return jnp.maximum(impurity / (p.shape[1] - 1), 1e-12)


def _inverse(problem: Problem, spread: jax.Array, ridge: jax.Array) -> jax.Array:
    return 1 / (spread * problem.squares[:, None] + ridge)


def _objective(
    problem: Problem, losses: jax.Array, params: jax.Array, ridge: jax.Array
) -> jax.Array:
    return jnp.sum(problem.weights * losses) + jnp.sum(ridge * params**2) / 2


def _gradient(
    problem: Problem, residual: jax.Array, params: jax.Array, ridge: jax.Array
) -> jax.Array:
    product = jax.lax.dot_general(
        problem.design,
        residual * problem.weights[:, None],
        (((0,), (0,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
    )
    return product + ridge * params


def _descent(
    memory: Memory, gradient: jax.Array, inverse: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the direction and the derivative along it, which is negative."""
    direction = memories.direction(memory, gradient, inverse)
    slope = jnp.sum(gradient * direction)
    plain = -gradient * inverse
    usable = slope < 0
    return (
        jnp.where(usable, direction, plain),
        jnp.where(usable, slope, jnp.sum(gradient * plain)),
    )
