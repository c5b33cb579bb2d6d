"""The best point in the span of earlier optima, found without a product with the design.

Legend: H optima, N samples, Q columns, K classes.

Along the path the optimum is a smooth function of log l2, so the span of the last three holds a
point close to the next one. Its logits are combinations of known logits, and Newton's method works
on three numbers.
"""

from typing import Any

import jax
import jax.numpy as jnp

from probes.problem import Problem, dot
from probes.softmax import cross_entropy, probabilities, relative_to_target

_ITERATIONS = 4
# Newton is quadratic: a promised decrease below this part of the objective is the last of use.
_ENOUGH = 1e-5


def best(problem: Problem, params: jax.Array, logits: jax.Array, l2: jax.Array) -> jax.Array:
    """Returns the best parameters in the span of earlier optima, by a few steps of Newton.

    Args:
      problem: the data.
      params: of the earlier optima, the latest first, ``[H Q K]``.
      logits: theirs, ``[H N K]``.
      l2: the new penalty.
    """
    basis, images = _differences(params), _differences(logits)
    images = relative_to_target(images, problem.targets)
    size = basis.shape[0]
    rms = jnp.sqrt(jnp.einsum("n,hnk->h", problem.weights, images**2, precision="highest"))
    used = rms > 1e-6 * rms[0]
    unit = jnp.where(used, 1 / jnp.where(used, rms, 1), 0)
    basis, images = basis * unit[:, None, None], images * unit[:, None, None]
    flat = basis.reshape(size, -1)
    penalty = l2 * dot((basis * problem.penalised[:, None]).reshape(size, -1), flat.T)
    weighted = (images * problem.weights[:, None]).reshape(size, -1)

    def at(coefficients: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses, residual = cross_entropy(
            jnp.tensordot(coefficients, images, 1, precision="highest"), problem.targets
        )
        ridge = coefficients @ penalty @ coefficients / 2
        return jnp.sum(problem.weights * losses) + ridge, residual

    def newton(carry: Any) -> Any:
        coefficients, objective, residual, _, count = carry
        p = probabilities(residual, problem.targets)
        gradient = dot(weighted, residual.ravel()) + dot(penalty, coefficients)
        shares = p * images
        mean = jnp.sum(shares, axis=2)
        hessian = dot(weighted, shares.reshape(size, -1).T) + penalty
        hessian -= dot(mean * problem.weights, mean.T)
        move = -_solve_scaled(hessian, gradient, used)
        promised = -jnp.vdot(gradient, move) / 2

        def shorter(trial: Any) -> Any:
            length = trial[0] / 3
            return length, *at(coefficients + length * move)

        def too_far(trial: Any) -> jax.Array:
            return ~(trial[1] < objective) & (trial[0] > 0.05)

        one = jnp.ones_like(objective)
        length, value, there = jax.lax.while_loop(too_far, shorter, (one, *at(coefficients + move)))
        better = value < objective
        new = (coefficients + length * move, value, there)
        old = (coefficients, objective, residual)
        kept = [jnp.where(better, a, b) for a, b in zip(new, old, strict=True)]
        return *kept, better & (promised > _ENOUGH * objective), count + 1

    # The line through the last two optima, as far beyond the last as they are apart.
    straight = jnp.where(used & (jnp.arange(size) < 2), rms, 0)
    start = (straight, *at(straight), jnp.bool_(True), jnp.int32(0))
    coefficients, *_ = jax.lax.while_loop(lambda c: c[3] & (c[4] < _ITERATIONS), newton, start)
    return jnp.tensordot(coefficients, basis, 1, precision="highest")


def _differences(latest_first: jax.Array) -> jax.Array:
    """Returns the last element, its first difference, its second, and so on: the same span."""
    result, rest = [latest_first[0]], latest_first
    while rest.shape[0] > 1:
        rest = rest[:-1] - rest[1:]
        result.append(rest[0])
    return jnp.stack(result)


def _solve_scaled(hessian: jax.Array, gradient: jax.Array, used: jax.Array) -> jax.Array:
    """Returns H^-1 g over the rows in use, with H scaled to a unit diagonal and a small ridge."""
    diagonal = jnp.diag(hessian)
    sound = used & (diagonal > 0)
    scale = jnp.where(sound, jax.lax.rsqrt(jnp.where(sound, diagonal, 1)), 0)
    unit = hessian * scale[:, None] * scale
    ridge = jnp.where(sound, 1e-5, 1).astype(hessian.dtype)
    return scale * jnp.linalg.solve(unit + jnp.diag(ridge), scale * gradient)
