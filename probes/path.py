"""The path solver: one compiled program that follows the optimum from large to small penalties.

Legend: Q columns of the design (rotated features and a one), K classes, P penalties, H optima of
the span; samples lie in C chunks of S parts of n (``probes/problem.py``).

It is L-BFGS, with five things that make the whole path cost a few products per penalty:

1. In the basis of the design's principal axes the bound of Boehning (1992) on the Hessian is the
   diagonal h s_j^2 + l2; it preconditions (``_inverse``).
2. A penalty starts at the best point of the span of the last three optima, whose logits are known
   (``span.best``): Newton in three dimensions, no product with the design.
3. The memory is carried along the path, exact for the new penalty (``memory.shift``).
4. Logits are carried too. Along a direction they are A + t B, so a trial of the line search needs
   one product, that of the gradient, and the first trial mostly does (``_search``).
5. The search looks for a zero of the derivative. Differences of the objective drown in rounding
   long before the derivative does, which is how float32 line searches come to stall.

Where a path stands is a ``State`` without a number per sample, so that it can be kept in a file and
gone on from. Penalties are taken in blocks of one length, whatever their number: the program is
compiled once for all data sets of a shape.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from probes import intercept, span
from probes import memory as memories
from probes.memory import Memory
from probes.problem import Problem, logits, outer, total
from probes.softmax import cross_entropy, relative_to_target

_PAIRS = 10
_HISTORY = 3
# A step is accepted once the derivative along it has fallen to this part of what it was.
_SLOPE = 0.5
_TRIALS = 10
# The predicted decrease -g.d/2 is trusted as an estimate of the gap to within this factor.
_SAFETY = 0.02
# The intercept may spoil this part of the certificate that the tolerance asks for.
_INTERCEPT = 0.02


class State(NamedTuple):
    """Where a path stands.

    Attributes:
      params: the latest optima, the latest first, ``[H Q K]``.
      memory: of L-BFGS.
      l2: the latest penalty.
      spread: there, that of ``intercept.Settled``.
    """

    params: jax.Array
    memory: Memory
    l2: jax.Array
    spread: jax.Array


class Stop(NamedTuple):
    """When a penalty is done with: at a relative excess, or after so many steps."""

    tolerance: jax.Array
    max_steps: jax.Array


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
    objective: jax.Array
    gradient: jax.Array
    direction: jax.Array
    slope: jax.Array
    memory: Memory
    steps: jax.Array
    failures: jax.Array


def begin(prior: jax.Array, spread: jax.Array, l2: jax.Array) -> State:
    """Returns the state before the first penalty.

    Args:
      prior: the optimum at an infinite penalty, ``[Q K]``.
      spread: there.
      l2: the first penalty.
    """
    params = jnp.broadcast_to(prior, (_HISTORY, *prior.shape))
    return State(params, memories.init(_PAIRS, prior), l2, spread)


@jax.jit
def follow(problem: Problem, state: State, l2s: jax.Array, stop: Stop) -> tuple[State, Optimum]:
    """Returns where the path stands after some penalties, and the optima at them.

    Args:
      problem: the data.
      state: where it stood.
      l2s: penalties from large to small; those that are zero are passed over, and their optima are
        zero, ``[P]``.
      stop: when to go on to the next.
    """
    relative = partial(relative_to_target, targets=problem.targets)
    images = tuple(relative(logits(problem, params)) for params in state.params)

    def visit(carry: Any, l2: jax.Array) -> tuple[Any, Optimum]:
        state, images = carry
        point, optimum, settled = _solve(problem, state, images, l2, stop)
        params = jnp.concatenate([point.params[None], state.params[:-1]])
        state = State(params, point.memory, l2, settled.spread)
        return (state, (relative(point.logits), *images[:-1])), optimum

    def either(carry: Any, l2: jax.Array) -> tuple[Any, Optimum]:
        nothing = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(visit, carry, l2)[1]
        )
        return jax.lax.cond(l2 > 0, visit, lambda carry, _: (carry, nothing), carry, l2)

    (state, _), optima = jax.lax.scan(either, (state, images), l2s)
    return state, optima


@jax.jit
def follow_together(
    problems: Problem, states: State, l2s: jax.Array, stop: Stop
) -> tuple[State, Optimum]:
    """Returns ``follow`` of several data sets in step, each array with one more axis in front."""
    return jax.vmap(follow, in_axes=(0, 0, 0, None))(problems, states, l2s, stop)


def _solve(
    problem: Problem, state: State, images: tuple[jax.Array, ...], l2: jax.Array, stop: Stop
) -> tuple[_Point, Optimum, intercept.Settled]:
    """Minimises at one penalty: the span, L-BFGS, and the intercept exactly."""
    ridge = (problem.penalised * l2)[:, None]
    inverse = _inverse(problem, state.spread, ridge)
    memory = memories.shift(state.memory, (l2 - state.l2) * problem.penalised[:, None], inverse)
    params = span.best(problem, state.params, images, l2)
    here = logits(problem, params)  # Afresh: carried sums would drift along the path.
    objective, gradient = _evaluate(problem, ridge, params, _as_is, here)
    direction, slope = _descent(memory, gradient, inverse)
    zero = jnp.int32(0)
    point = _Point(params, here, objective, gradient, direction, slope, memory, zero, zero)

    def reached(point: _Point) -> jax.Array:
        """By the bound, where the intercept's part is taken to second order; or by prediction."""
        square = jnp.sum(point.gradient**2, axis=1)
        bound = jnp.sum(problem.penalised * square) / (2 * l2)
        bound += jnp.sum((1 - problem.penalised) * square) / (2 * state.spread)
        predicted = -point.slope / 2 / _SAFETY
        return jnp.minimum(bound, predicted) <= stop.tolerance * point.objective

    def unfinished(point: _Point) -> jax.Array:
        # In a batch a penalty of zero is not passed over; it ends at once.
        going = (l2 > 0) & ~reached(point)
        return going & (point.steps < stop.max_steps) & (point.failures < 3)

    point = jax.lax.while_loop(unfinished, partial(_step, problem, ridge, inverse), point)
    converged = reached(point)
    enough = _INTERCEPT * stop.tolerance * jnp.minimum(l2, 1) * point.objective
    settled = intercept.settle(problem, point.logits, enough)
    params = point.params.at[-1].add(settled.move)
    here = point.logits + settled.move[:, None]
    objective = settled.loss + jnp.sum(ridge * params**2) / 2
    gradient = jax.lax.cond(
        jnp.any(settled.move != 0),
        lambda: total(_pulled, problem, settled.residual) + ridge * params,
        lambda: point.gradient,
    )
    gap = intercept.excess(problem, gradient, settled.rest, l2) / objective
    optimum = Optimum(params, gradient, objective, gap, point.steps, converged)
    return point._replace(params=params, logits=here), optimum, settled


def _step(problem: Problem, ridge: jax.Array, inverse: jax.Array, point: _Point) -> _Point:
    """One step of L-BFGS: two products with the design."""
    change = logits(problem, point.direction)
    length, objective, gradient = _search(problem, ridge, point, change)
    move = length * point.direction
    # The derivative decides about a step; this only refuses what rounding cannot explain.
    noise = 20 * float(jnp.finfo(move.dtype).eps)
    sound = (objective <= point.objective * (1 + noise)) & jnp.all(jnp.isfinite(gradient))
    memory, useful = memories.push(
        point.memory, move, jnp.where(sound, gradient - point.gradient, 0), inverse
    )
    new = (point.params + move, point.logits + length * change, objective, gradient)
    kept = [jnp.where(sound, a, b) for a, b in zip(new, point[:4], strict=True)]
    direction, slope = _descent(memory, kept[3], inverse)
    failures = jnp.where(useful, 0, point.failures + 1)
    return _Point(*kept, direction, slope, memory, point.steps + 1, failures)


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


def _search(
    problem: Problem, ridge: jax.Array, point: _Point, change: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns a length at which the derivative has fallen, with objective and gradient there.

    The objective is convex along the line, so its derivative rises: a positive one closes the
    bracket from above, a negative one from below, and the secant through both ends goes on.
    """

    def steep(trial: _Trial) -> jax.Array:
        return ~(jnp.abs(trial.slope) <= -_SLOPE * point.slope) & (trial.trials < _TRIALS)

    def attempt(trial: _Trial) -> _Trial:
        length = trial.next
        params = point.params + length * point.direction
        objective, gradient = _evaluate(
            problem, ridge, params, lambda a, b: a + length * b, point.logits, change
        )
        slope = jnp.sum(gradient * point.direction)
        over = ~(slope <= 0)  # Not a number means too far, as well.
        high = jnp.where(over, length, trial.high)
        high_slope = jnp.where(over, slope, trial.high_slope)
        low = jnp.where(over, trial.low, length)
        low_slope = jnp.where(over, trial.low_slope, slope)
        width = high - low
        secant = low - low_slope * width / (high_slope - low_slope)
        secant = jnp.where(jnp.isfinite(secant), secant, low + width / 2)
        inside = jnp.clip(secant, low + width / 20, high - width / 20)
        growth = jnp.clip(point.slope / (point.slope - slope), 1.5, 4)
        following = jnp.where(jnp.isfinite(high), inside, length * growth)
        bracket = following, low, low_slope, high, high_slope
        return _Trial(*bracket, length, slope, objective, gradient, trial.trials + 1)

    one = jnp.ones_like(point.slope)
    infinite = jnp.inf * one
    bracket = one, 0 * one, point.slope, infinite, infinite
    unknown = 0 * one, infinite, infinite, jnp.zeros_like(point.gradient), jnp.int32(0)
    best = jax.lax.while_loop(steep, attempt, _Trial(*bracket, *unknown))
    return best.length, best.objective, best.gradient


def _evaluate(
    problem: Problem,
    ridge: jax.Array,
    params: jax.Array,
    here: Callable[..., jax.Array],
    *rows: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns objective and gradient at ``params``, whose logits are ``here(*rows)``."""

    def part(
        design: jax.Array, weights: jax.Array, targets: jax.Array, *rows: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        losses, residual = cross_entropy(here(*rows), targets)
        return jnp.sum(weights * losses), _pulled(design, weights, targets, residual)

    loss, gradient = total(part, problem, *rows)
    return loss + jnp.sum(ridge * params**2) / 2, gradient + ridge * params


def _pulled(
    design: jax.Array, weights: jax.Array, targets: jax.Array, residual: jax.Array
) -> jax.Array:
    """Returns the gradient of the loss in the parameters, from that in the logits."""
    del targets
    return outer(design, weights * residual)


def _as_is(logits: jax.Array) -> jax.Array:
    return logits


def _inverse(problem: Problem, spread: jax.Array, ridge: jax.Array) -> jax.Array:
    return 1 / (spread * problem.squares[:, None] + ridge)


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
