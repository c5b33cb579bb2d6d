"""The path solver: one compiled program that follows the optimum from large to small penalties.

Legend: Q columns of the design (rotated features and a one), K classes, P penalties, H optima of
the span; samples lie in C chunks of S parts of n (``_problem.py``).

It is L-BFGS, with five things that make the whole path cost a few products per penalty:

1. In the basis of the design's principal axes the bound of Boehning (1992) on the Hessian is the
   diagonal h s_j^2 + l2; it preconditions, and where it does badly, blocks of the Hessian do
   (``_precondition.py``).
2. A penalty starts at the best point of the span of the last three optima, whose logits are known
   (``_warm_start.best``): Newton in three dimensions, no product with the design.
3. The memory is carried along the path, exact for the new penalty (``_lbfgs.shift``).
4. Logits are carried too. Along a direction they are A + t B, so a trial of the line search needs
   one product, that of the gradient, and the first trial mostly does.
5. The search looks for a zero of the derivative (``_line_search.py``).

The state of a path, ``State``, has no number per sample, so that a small file is enough to resume.
Penalties are taken in blocks of one length, whatever their number: the program is compiled once for
all data sets of a shape.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vci_jax.probe import _intercept, _lbfgs, _newton, _precondition, _warm_start
from vci_jax.probe._lbfgs import Memory
from vci_jax.probe._line_search import search
from vci_jax.probe._precondition import Inverse
from vci_jax.probe._problem import Problem, between_classes, logits, outer, total
from vci_jax.probe._softmax import cross_entropy, relative_to_target

_PAIRS = 10
_HISTORY = 3
# The predicted decrease -g.d/2 is trusted as an estimate of the gap to within this factor. The more
# steps it takes, the less the memory knows of what is left: it is believed in proportion to 2 over
# the steps, and of one more point in a row for every two of them, up to seven. More doubt than this
# float32 cannot dispel, for rounding: it would take hundreds of steps, while its logits drift.
_SAFETY = 0.02
_SLOW, _MOST_POINTS = 2, 6
_MOST_DOUBT = {"float32": 4, "float64": 16}
# After more steps than this the logits of an optimum are computed afresh: as sums of all the steps'
# they would show in the sixth digit of the objective.
_FRESH = 8
# After more than this the preconditioner gets blocks, from the next penalty on.
_HARD = 12
# After more than this an optimum is doubtful, and has to be proved, as those of uneven data are;
# or, if they are even and float32 is too coarse for a proof, Newton's step has to promise less than
# this part of what may be left.
_LONG, _PROMISE = 24, 0.1
# The intercept may spoil this part of the certificate that the tolerance asks for.
_INTERCEPT = 0.02


class State(NamedTuple):
    """The state of a path between two penalties.

    Attributes:
      params: the latest optima, the latest first, ``[H Q K]``.
      memory: of L-BFGS.
      l2: the latest penalty.
      hessian: of the loss in the intercept there, ``[K K]``.
      hard: whether a penalty took so many steps that the preconditioner is to have blocks.
    """

    params: jax.Array
    memory: Memory
    l2: jax.Array
    hessian: jax.Array
    hard: jax.Array


class Optimum(NamedTuple):
    """The result at a penalty, on a device or in NumPy; ``gap`` as in ``ProbeFit``."""

    params: Any
    gradient: Any
    objective: Any
    gap: Any
    steps: Any
    converged: Any


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
    confirmed: jax.Array  # Points in a row whose predicted decrease is within tolerance.


def begin(prior: jax.Array, hessian: jax.Array, l2: jax.Array) -> State:
    """Returns the state before the first penalty; ``prior`` is the optimum at an infinite one."""
    params = jnp.broadcast_to(prior, (_HISTORY, *prior.shape))
    return State(params, _lbfgs.init(_PAIRS, prior), l2, hessian, jnp.bool_(False))


@jax.jit
def follow(problem: Problem, state: State, penalties: jax.Array) -> tuple[State, Optimum]:
    """Returns the state of the path after penalties ``[P]``, and the optima at them.

    Penalties go from large to small; zeros are skipped, and their optima are zero.
    """
    relative = partial(relative_to_target, targets=problem.targets)
    images = tuple(relative(logits(problem, params)) for params in state.params)

    def visit(carry: Any, l2: jax.Array) -> tuple[Any, Optimum]:
        """Solves at one penalty, and puts its logits before the earlier ones."""
        state, images = carry
        state, here, optimum = _solve(problem, state, images, l2)
        return (state, (relative(here), *images[:-1])), optimum

    def either(carry: Any, l2: jax.Array) -> tuple[Any, Optimum]:
        """Solves at a penalty, or skips a zero, the padding of the last block."""
        nothing = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(visit, carry, l2)[1]
        )
        return jax.lax.cond(l2 > 0, visit, lambda carry, _: (carry, nothing), carry, l2)

    (state, _), optima = jax.lax.scan(either, (state, images), penalties)
    return state, optima


@jax.jit
def follow_together(
    problems: Problem, states: State, penalties: jax.Array
) -> tuple[State, Optimum]:
    """Returns ``follow`` of several data sets in step, each array with one more axis in front."""
    return jax.vmap(follow)(problems, states, penalties)


def _solve(
    problem: Problem, state: State, images: tuple[jax.Array, ...], l2: jax.Array
) -> tuple[State, jax.Array, Optimum]:
    """Minimises at one penalty: warm start, L-BFGS, intercept. Returns the logits as well."""
    ridge = (problem.penalised * l2)[:, None]
    params = _warm_start.best(problem, state.params, images, l2)
    here = logits(problem, params)  # Afresh: carried sums would drift along the path.
    inverse = _precondition.inverse(problem, state.hessian, ridge, here, state.hard)
    memory = _lbfgs.shift(state.memory, (l2 - state.l2) * problem.penalised[:, None], inverse)
    objective, gradient = _evaluate(problem, ridge, params, _as_is, here)
    direction, slope = _descent(memory, gradient, inverse)
    zero = jnp.int32(0)
    confirmed = _is_confirmed(problem, slope, objective, 0).astype(jnp.int32)
    point = _Point(
        params, here, objective, gradient, direction, slope, memory, zero, zero, confirmed
    )

    def bound(point: _Point) -> jax.Array:
        """Bounds the remaining decrease; the intercept's part is taken to second order."""
        kernel = problem.penalised[:, None]
        square = kernel * (point.gradient / jnp.sqrt(l2)) ** 2
        return jnp.sum(square + (1 - kernel) * point.gradient**2 * inverse.diagonal) / 2

    def reached(point: _Point) -> jax.Array:
        """Whether the bound or the prediction is within tolerance."""
        believed = point.confirmed > jnp.minimum(point.steps // _SLOW, _MOST_POINTS)
        return (bound(point) <= problem.tolerance * point.objective) | believed

    def unfinished(point: _Point) -> jax.Array:
        # A batch cannot skip a penalty of zero, but ends it at once.
        """Whether L-BFGS takes another step."""
        going = (l2 > 0) & ~reached(point)
        return going & (point.steps < problem.max_steps) & (point.failures < 3)

    step = partial(_step, problem, ridge, inverse)
    point = jax.lax.while_loop(unfinished, step, point)
    doubtful = (point.steps > _LONG) | (problem.uneven is not None)
    converged = reached(point)
    point, excess, proved = _prove(problem, inverse, l2, point, unfinished, step, doubtful)
    converged = jnp.where(doubtful, proved, converged)
    optimum, here, hessian = _optimum(problem, ridge, l2, state.hessian, point, converged)
    optimum = optimum._replace(gap=jnp.minimum(optimum.gap, excess / optimum.objective))
    params = jnp.concatenate([optimum.params[None], state.params[:-1]])
    state = State(params, point.memory, l2, hessian, state.hard | (point.steps > _HARD))
    return state, here, optimum


def _prove(
    problem: Problem,
    inverse: Inverse,
    l2: jax.Array,
    point: _Point,
    unfinished: Callable[[_Point], jax.Array],
    step: Callable[[_Point], _Point],
    doubtful: jax.Array,
) -> tuple[_Point, jax.Array, jax.Array]:
    """Continues by Newton steps and L-BFGS until a doubtful optimum is proved.

    It gives up once neither the bound nor the objective improves three times in a row. On even
    data, a Newton step that promises almost no decrease counts as a proof.

    Returns:
      The point, a bound on its excess (infinite if there is no doubt), and whether it is proved.
    """
    promise = _PROMISE if problem.uneven is None else 0

    def unproven(carry: Any) -> jax.Array:
        """Whether to try another proof."""
        point, _, _, stalled, proved = carry
        going = doubtful & (l2 > 0) & ~proved
        return going & (stalled < 3) & (point.steps < problem.max_steps)

    def attempt(carry: Any) -> Any:
        """Tries a proof, then steps along Newton's direction and by L-BFGS."""
        point, best, before, stalled, _ = carry
        enough = problem.tolerance * point.objective
        move, excess = _newton.prove(problem, point.logits, point.gradient, inverse, l2, enough)
        gained = (excess < best / 2) | (point.objective < before - _SAFETY * enough)
        slope = jnp.sum(point.gradient * move)
        promised = jnp.where(slope < 0, -slope / 2, jnp.inf)
        proved = (excess <= enough) | (promised <= promise * enough)
        point = point._replace(
            direction=jnp.where(slope < 0, move, point.direction),
            slope=jnp.where(slope < 0, slope, point.slope),
            failures=jnp.int32(0),
            confirmed=jnp.int32(0),
        )
        before = point.objective
        point, _ = jax.lax.while_loop(
            lambda c: ~proved & (c[1] | unfinished(c[0])),
            lambda c: (step(c[0]), jnp.bool_(False)),
            (point, jnp.bool_(True)),
        )
        return point, jnp.minimum(excess, best), before, jnp.where(gained, 0, stalled + 1), proved

    infinite = jnp.inf * point.objective
    carry = (point, infinite, infinite, jnp.int32(0), jnp.bool_(False))
    point, excess, *_, proved = jax.lax.while_loop(unproven, attempt, carry)
    return point, excess, proved


def _optimum(
    problem: Problem,
    ridge: jax.Array,
    l2: jax.Array,
    hessian: jax.Array,
    point: _Point,
    converged: jax.Array,
) -> tuple[Optimum, jax.Array, jax.Array]:
    """Returns the optimum with its best intercept, its logits, and the Hessian in the intercept."""
    long = point.steps > _FRESH
    here = jax.lax.cond(long, lambda: logits(problem, point.params), lambda: point.logits)
    enough = _INTERCEPT * problem.tolerance * jnp.minimum(l2, 1) * point.objective
    solution = _intercept.solve(problem, here, point.gradient[-1], hessian, enough)
    params = point.params.at[-1].add(solution.move)
    objective = solution.loss + jnp.sum(ridge * params**2) / 2
    gradient = jax.lax.cond(
        long | jnp.any(solution.move != 0),
        lambda: total(_pulled, problem, solution.residual) + ridge * params,
        lambda: point.gradient,
    )
    gap = _intercept.excess(problem, gradient, solution.rest, l2) / objective
    optimum = Optimum(params, gradient, objective, gap, point.steps, converged)
    return optimum, here + solution.move[:, None], solution.hessian


def _is_confirmed(
    problem: Problem, slope: jax.Array, objective: jax.Array, steps: jax.Array | int
) -> jax.Array:
    """Whether the predicted decrease at a point, after ``steps`` steps, is within tolerance."""
    predicted = -slope / 2 * jnp.clip(steps / _SLOW, 1, _MOST_DOUBT[slope.dtype.name])
    return predicted <= _SAFETY * problem.tolerance * objective


def _step(problem: Problem, ridge: jax.Array, inverse: Inverse, point: _Point) -> _Point:
    """One step of L-BFGS: two products with the design."""
    change = logits(problem, point.direction)

    def along(length: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns objective, gradient and derivative at a length of the direction."""
        params = point.params + length * point.direction
        objective, gradient = _evaluate(
            problem, ridge, params, lambda a, b: a + length * b, point.logits, change
        )
        return objective, gradient, jnp.sum(gradient * point.direction)

    length, objective, gradient = search(along, point.slope, point.gradient)
    move = length * point.direction
    # The derivative decides about a step; this refuses increases beyond rounding.
    noise = 20 * float(jnp.finfo(move.dtype).eps)
    sound = (objective <= point.objective * (1 + noise)) & jnp.all(jnp.isfinite(gradient))
    memory, useful = _lbfgs.push(
        point.memory, move, jnp.where(sound, gradient - point.gradient, 0), inverse
    )
    new = (point.params + move, point.logits + length * change, objective, gradient)
    params, here, objective, gradient = (
        jnp.where(sound, a, b) for a, b in zip(new, point[:4], strict=True)
    )
    direction, slope = _descent(memory, gradient, inverse)
    failures = jnp.where(useful, 0, point.failures + 1)
    small = _is_confirmed(problem, slope, objective, point.steps + 1)
    confirmed = jnp.where(small, point.confirmed + 1, 0)
    reached = params, here, objective, gradient, direction, slope
    return _Point(*reached, memory, point.steps + 1, failures, confirmed)


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


def _descent(memory: Memory, gradient: jax.Array, inverse: Inverse) -> tuple[jax.Array, jax.Array]:
    """Returns the direction and the derivative along it, which is negative."""
    direction = between_classes(_lbfgs.direction(memory, gradient, inverse))
    slope = jnp.sum(gradient * direction)
    plain = between_classes(-inverse(gradient))
    usable = slope < 0
    return (
        jnp.where(usable, direction, plain),
        jnp.where(usable, slope, jnp.sum(gradient * plain)),
    )
