"""The free intercept: its optimum given the kernel, and its part in the certificate.

Legend: n samples of a part, K classes, p_i the softmax of sample i, w_i its weight.

The problem has a dual. For any distributions q_i over the classes whose weighted mean is that of
the targets e_i (the intercept is free, so this must hold exactly),

    min P >= sum_i w_i H(q_i) - ||sum_i w_i x_i (q_i - e_i)^T||^2 / (2 l2),

and the distance of P(W, b) from that bound is, without a cancellation,

    sum_i w_i KL(q_i || p_i) + ||sum_i w_i x_i (q_i - e_i)^T + l2 W||^2 / (2 l2).

With q = p the first term is nothing and the second is ||grad_W P||^2 / (2 l2); but the means agree
only where the intercept is optimal. ``solve`` makes it so, by Newton's method on K numbers.
The rounding error d of the gradient in b is removed by tilting p: with H c = -d for the Hessian H
in b, q_i = p_i (1 + c - p_i.c) has the right mean, and is a distribution if max c - min c <= 1.
Then KL <= chi^2 sums to at most t = c^T H c, and the x_i, whose covariance is at most s^2, to at
most s sqrt(t) more, so that

    P(W, b) - min P <= t + (||grad_W P|| + s sqrt(t))^2 / (2 l2)                     (``excess``).

Without an intercept the q_i need no mean, q = p is exact, and t is zero.

Reference: H.-F. Yu, F.-L. Huang and C.-J. Lin, Dual coordinate descent methods for logistic
regression and maximum entropy models, Machine Learning 85, 2011; for the dual, less the intercept.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vci_jax.probe._problem import Problem, dot, each, outer
from vci_jax.probe._softmax import cross_entropy, probabilities

_ITERATIONS = 6


class Solution(NamedTuple):
    """The optimal intercept given the kernel.

    Attributes:
      move: the change of the intercept, ``[K]``.
      rest: t above, the remaining decrease; infinite if no tilt is a distribution.
      hessian: H there, ``[K K]``.
      loss: the loss there.
      residual: softmax - target of the samples there, ``[C S K n]``; it saves an evaluation.
    """

    move: jax.Array
    rest: jax.Array
    hessian: jax.Array
    loss: jax.Array
    residual: jax.Array


def solve(
    problem: Problem,
    logits: jax.Array,
    gradient: jax.Array,
    hessian: jax.Array,
    enough: jax.Array,
) -> Solution:
    """Returns the best intercept, by Newton's method.

    Args:
      problem: the data.
      logits: logits with the present intercept, ``[C S K n]``.
      gradient: gradient of the loss in that intercept, ``[K]``.
      hessian: the Hessian nearby, ``[K K]``; it makes the first step free, which is often the last.
      enough: remaining decrease at which to stop.
    """
    free = 1 - problem.penalised[-1]  # Zero without an intercept, which then stays where it is.

    def at(move: jax.Array) -> Any:
        """Returns loss, Newton step, remaining decrease, Hessian and residual after a move."""

        def part(design: Any, weights: jax.Array, targets: jax.Array, logits: jax.Array) -> Any:
            del design
            losses, residual = cross_entropy(logits + move[:, None], targets)
            p = probabilities(residual, targets)
            gradient = free * dot(residual, weights)
            return residual, jnp.sum(weights * losses), gradient, outer(weights * p, p)

        residual, *parts = each(part, problem, logits)
        loss, gradient, products = (jnp.sum(x, axis=(0, 1)) for x in parts)
        hessian = laplacian(products)
        step = _newton(gradient, hessian)
        rest = -jnp.vdot(gradient, step)
        return move, loss, step, rest, hessian, residual

    def iterate(carry: Any) -> Any:
        """Takes one Newton step, and returns the better of both points."""
        (move, loss, step, rest, *_), _, count = carry
        new = at(move + step / jnp.maximum(_range(step), 1))
        # Near the optimum both change by rounding alone, and the iteration ends.
        better = (new[3] < rest / 2) & (new[1] <= loss * (1 + 20 * jnp.finfo(loss.dtype).eps))
        better |= count == 0
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, carry[0])
        return best, better & (best[3] > enough), count + 1

    first = _newton(gradient, hessian)
    first = jnp.where(-jnp.vdot(gradient, first) > enough, first, 0)
    infinite = jnp.inf * jnp.ones_like(enough)
    unknown = (0 * first, infinite, first, infinite, hessian, jnp.zeros_like(logits))
    (move, loss, step, rest, hessian, residual), *_ = jax.lax.while_loop(
        lambda c: c[1] & (c[2] <= _ITERATIONS), iterate, (unknown, jnp.bool_(True), jnp.int32(0))
    )
    rest = jnp.where(_range(step) <= 1, jnp.maximum(rest, 0), jnp.inf)
    return Solution(move, rest, hessian, loss, residual)


def spread(hessian: jax.Array) -> jax.Array:
    """Returns the s by which the mean Hessian of the softmax is about s (I - 11^T/K)."""
    return jnp.maximum(jnp.trace(hessian) / (len(hessian) - 1), 1e-12)


def excess(problem: Problem, gradient: jax.Array, rest: jax.Array, l2: jax.Array) -> jax.Array:
    """Returns the certificate: a bound on the objective's excess over its minimum."""
    norm = jnp.sqrt(jnp.sum(problem.penalised[:, None] * gradient**2))
    largest = jnp.sqrt(jnp.max(problem.penalised * problem.squares))
    return rest + ((norm + largest * jnp.sqrt(rest)) / jnp.sqrt(l2)) ** 2 / 2


def tilt(hessian: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns c and t above for a gradient in b; t is infinite if no tilt is a distribution."""
    step = _newton(gradient, hessian)
    rest = -jnp.vdot(gradient, step)
    return step, jnp.where(_range(step) <= 1, jnp.maximum(rest, 0), jnp.inf)


def laplacian(products: jax.Array) -> jax.Array:
    """Returns the Hessian H = sum_i w_i (diag(p_i) - p_i p_i^T), from the sum of w_i p_i p_i^T.

    The rows of H sum to zero, as those of a graph's Laplacian: its diagonal is the sum of the
    others, which have all their digits where p - p^2 has none.
    """
    others = products * (1 - jnp.eye(len(products), dtype=products.dtype))
    degree = jnp.maximum(jnp.sum(others, axis=1), jnp.finfo(products.dtype).tiny)
    return jnp.diag(degree) - others


def _newton(gradient: jax.Array, hessian: jax.Array) -> jax.Array:
    """Returns -H^+ g; H is scaled to a unit diagonal, and its null vector, the ones, filled in."""
    root = jnp.sqrt(jnp.diag(hessian))
    null = root / jnp.linalg.norm(root)
    unit = hessian / (root[:, None] * root)
    step = -jnp.linalg.solve(unit + null[:, None] * null, gradient / root) / root
    return step - jnp.mean(step)


def _range(step: jax.Array) -> jax.Array:
    return jnp.max(step) - jnp.min(step)
