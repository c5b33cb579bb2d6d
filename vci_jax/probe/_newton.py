"""Newton's step by conjugate gradients, and the proof of an optimum that comes with it.

If samples or classes have very different weights, L-BFGS overestimates the curvature, and so
underestimates the remaining decrease. Here the Hessian is exact.

Legend: Q columns of the design, K classes, n samples of a part, p_i the softmax of sample i.

The dual of ``_intercept.py`` bounds the minimum by any distributions q_i with the right mean.
Tilted along a step D, q_i = p_i (1 + B_i - p_i.B_i) with B_i = D^T x_i, they give

    P(W, b) - min P <= D^T L D + ||g + L D||^2 / (2 l2)     (norm over the kernel)

for the gradient g of P and the Hessian L of the loss, if the intercept's part of g + L D is zero
and no B_i spans more than 1. For D = 0 it is the bound that L-BFGS ends by, which is pessimistic
where l2 is far below the curvature; for Newton's step it is at most twice what the step promises.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vci_jax.probe import _intercept
from vci_jax.probe._precondition import Inverse
from vci_jax.probe._problem import Problem, between_classes, logits, outer, total
from vci_jax.probe._softmax import cross_entropy, probabilities, relative_to_target

_ITERATIONS = 100
# A step is good enough once this part of its squared residual is left.
_RESIDUAL = 1e-4


class Proof(NamedTuple):
    """A step ``[Q K]``, and a bound on the objective's excess over its minimum before the step."""

    step: jax.Array
    excess: jax.Array


class _Iterate(NamedTuple):
    step: jax.Array
    residual: jax.Array
    search: jax.Array
    square: jax.Array
    gained: jax.Array
    count: jax.Array  # type: ignore[assignment]  # shadows tuple.count, on purpose


def prove(
    problem: Problem,
    here: jax.Array,
    gradient: jax.Array,
    inverse: Inverse,
    l2: jax.Array,
    enough: jax.Array,
) -> Proof:
    """Returns Newton's step, and the bound that it proves.

    ``here`` are the logits ``[C S K n]`` at the gradient ``[Q K]``. The iterations end once the
    bound is at most ``enough``.
    """
    penalised = problem.penalised[:, None]
    ridge = l2 * penalised

    def kernel_part(vector: jax.Array) -> jax.Array:
        return jnp.sum(penalised * (vector / jnp.sqrt(l2)) ** 2) / 2

    def is_finished(carry: _Iterate) -> jax.Array:
        """Whether the bound is reached, or cannot be reached by further iterations."""
        left = carry.residual - ridge * carry.step
        curved = jnp.sum(carry.step * (carry.residual - gradient - ridge * carry.step))
        free = jnp.sum((1 - penalised) * carry.residual**2 * inverse.diagonal)
        proved = kernel_part(left) + curved + free <= enough / 2
        first = jnp.sum(gradient * inverse(gradient))
        solved = (carry.gained > 2 * enough) & (carry.square <= _RESIDUAL * first)
        return proved | solved | ~(carry.square > 0)

    def iterate(carry: _Iterate) -> _Iterate:
        """One iteration of preconditioned conjugate gradients."""
        product, _ = _curved(problem, here, carry.search)
        product += ridge * carry.search
        length = carry.square / jnp.sum(carry.search * product)
        length = jnp.where(jnp.isfinite(length) & (length > 0), length, 0)
        residual = carry.residual + length * product
        scaled = between_classes(inverse(residual))
        square = jnp.where(length > 0, jnp.sum(residual * scaled), 0)
        search = square / carry.square * carry.search - scaled
        gained = carry.gained + length * carry.square
        step = carry.step + length * carry.search
        return _Iterate(step, residual, search, square, gained, carry.count + 1)

    scaled = between_classes(inverse(gradient))
    square = jnp.sum(gradient * scaled)
    start = _Iterate(0 * gradient, gradient, -scaled, square, 0 * square, jnp.int32(0))
    end = jax.lax.while_loop(lambda c: ~is_finished(c) & (c.count < _ITERATIONS), iterate, start)
    # The intercept exactly: the bound is sharp only where the mean of the q_i is right.
    hessian = _intercept_hessian(problem, here)
    step, product = end.step, _curved(problem, here, end.step)[0]
    step = step.at[-1].add(_intercept.tilt(hessian, (gradient + product)[-1])[0])
    return Proof(step, _excess(problem, here, gradient, step, l2, hessian))


def _excess(
    problem: Problem,
    here: jax.Array,
    gradient: jax.Array,
    step: jax.Array,
    l2: jax.Array,
    hessian: jax.Array,
) -> jax.Array:
    """Returns the bound above; what the step leaves of the mean is taken by the intercept's."""
    product, curved = _curved(problem, here, step)
    left = gradient + product
    tilt, rest = _intercept.tilt(hessian, left[-1])
    moves = jnp.where(problem.weights[..., None, :] > 0, logits(problem, step), 0)
    width = jnp.max(jnp.max(moves, axis=-2) - jnp.min(moves, axis=-2)) + jnp.max(tilt)
    width -= jnp.min(tilt)
    together = (jnp.sqrt(jnp.maximum(curved, 0)) + jnp.sqrt(rest)) ** 2
    excess = together + _intercept.excess(problem, left, rest, l2) - rest
    return jnp.where(width <= 1, excess, jnp.inf)


def _curved(problem: Problem, here: jax.Array, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the product of the loss' Hessian with a vector ``[Q K]``, and the square it makes."""

    def part(design: Any, weights: Any, targets: Any, here: Any, move: Any) -> Any:
        _, residual = cross_entropy(here, targets)
        p = probabilities(residual, targets)
        # Relative to the true class, whose probability is near one, nothing cancels.
        move = relative_to_target(move, targets)
        curved = p * (move - jnp.sum(p * move, axis=0))
        return outer(design, weights * curved), jnp.sum(weights * jnp.sum(curved * move, axis=0))

    return total(part, problem, here, logits(problem, vector))


def _intercept_hessian(problem: Problem, here: jax.Array) -> jax.Array:
    def part(design: Any, weights: Any, targets: Any, here: Any) -> jax.Array:
        del design
        p = probabilities(cross_entropy(here, targets)[1], targets)
        return outer(weights * p, p)

    return _intercept.laplacian(total(part, problem, here))
