"""The best point in the span of earlier optima, found without a product with the design.

Legend: H optima, n samples of a part, Q columns, K classes.

Along the path the optimum is a smooth function of log l2, so the span of the last three holds a
point close to the next one. Its logits are combinations of known logits, and Newton's method works
on three numbers.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vci_jax.probe._problem import Problem, dot, each, gram, total
from vci_jax.probe._softmax import cross_entropy, over_classes

_ITERATIONS = 4
# Newton is quadratic: a step that promises less than this part of the objective is the last of use,
# and too short to need a check of the objective at its end.
_ENOUGH = 1e-4


def best(
    problem: Problem, params: jax.Array, images: Sequence[jax.Array], l2: jax.Array
) -> jax.Array:
    """Returns the best parameters at a penalty in the span of earlier optima.

    ``params [H Q K]`` are those optima, the latest first, and ``images`` their logits relative to
    those of the targets, H times ``[C S K n]``. It takes a few Newton steps.
    """
    basis, images = _differences(list(params)), _differences(images)
    size = len(basis)
    # The columns are uncorrelated, so that the images' mean squares are known without them.
    rms = jnp.stack([jnp.sqrt(jnp.sum(problem.squares[:, None] * v**2)) for v in basis])
    used = rms > 1e-6 * rms[0]
    unit = jnp.where(used, 1 / jnp.where(used, rms, 1), 0)
    basis = [vector * scale for vector, scale in zip(basis, unit, strict=True)]
    images = [image * scale for image, scale in zip(images, unit, strict=True)]
    vectors = jnp.stack(basis)
    penalty = l2 * gram(vectors, vectors * problem.penalised[:, None])

    def at(coefficients: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The objective, and the residual, which carried is computed once for all that need it."""
        values, residual = each(partial(_losses, coefficients), problem, *images)
        return jnp.sum(values) + coefficients @ dot(penalty, coefficients) / 2, residual

    def newton(carry: Any) -> Any:
        """Takes one Newton step in the coefficients of the span."""
        coefficients, objective, residual, _, count = carry
        gradient, hessian = total(_derivatives, problem, residual, *images)
        gradient += dot(penalty, coefficients)
        move = -_solve_scaled(hessian + penalty, gradient, used)
        promised = -jnp.vdot(gradient, move) / 2
        return jax.lax.cond(
            jnp.abs(promised) <= _ENOUGH * objective,
            lambda: (coefficients + move, objective, residual, jnp.bool_(False), count + 1),
            lambda: (*longest(coefficients, objective, residual, move), count + 1),
        )

    def longest(
        coefficients: jax.Array, objective: jax.Array, residual: jax.Array, move: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Tries the whole move, then a third of it, down to 1/27; returns whether one helped."""

        def shorter(trial: Any) -> Any:
            length = trial[0] / 3
            return length, *at(coefficients + length * move)

        def too_far(trial: Any) -> jax.Array:
            return ~(trial[1] < objective) & (trial[0] > 0.05)

        untried = (3 * jnp.ones_like(objective), jnp.inf * objective, jnp.zeros_like(residual))
        length, *there = jax.lax.while_loop(too_far, shorter, untried)
        better = there[0] < objective
        new, old = (coefficients + length * move, *there), (coefficients, objective, residual)
        return *(jnp.where(better, a, b) for a, b in zip(new, old, strict=True)), better

    # The line through the last two optima, as far beyond the last as they are apart.
    straight = jnp.where(used & (jnp.arange(size) < 2), rms, 0)
    start = (straight, *at(straight), jnp.bool_(True), jnp.int32(0))
    coefficients, *_ = jax.lax.while_loop(lambda c: c[3] & (c[4] < _ITERATIONS), newton, start)
    return _combine(coefficients, basis)


def _losses(
    coefficients: jax.Array,
    design: jax.Array,
    weights: jax.Array,
    targets: jax.Array,
    *images: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns the loss, and the residual ``[K n]``, at a combination of the images."""
    del design
    losses, residual = cross_entropy(_combine(coefficients, images), targets)
    return jnp.sum(weights * losses), residual


def _derivatives(
    design: jax.Array,
    weights: jax.Array,
    targets: jax.Array,
    residual: jax.Array,
    *images: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns gradient ``[H]`` and Hessian ``[H H]`` in the coefficients of the images.

    The images are zero for the true class, and for the others the residual is the probability: so
    that it does for both. Plain sums are what a CPU is fast at: three rows of n K numbers make a
    slow matrix product.
    """
    del design, targets
    parts = [residual * weights * image for image in images]
    means = jnp.stack([over_classes(part) for part in parts])
    pairs = itertools.combinations_with_replacement(range(len(images)), 2)
    second = {(i, j): jnp.sum(parts[i] * images[j]) for i, j in pairs}
    size = range(len(images))
    hessian = jnp.array([[second[min(i, j), max(i, j)] for j in size] for i in size])
    inverse = jnp.where(weights > 0, 1 / jnp.where(weights > 0, weights, 1), 0)
    return jnp.sum(means, axis=1), hessian - dot(means * inverse, means.T)


def _combine(coefficients: jax.Array, images: Sequence[jax.Array]) -> jax.Array:
    return sum(c * image for c, image in zip(coefficients, images, strict=True))


def _differences(latest_first: Sequence[jax.Array]) -> list[jax.Array]:
    """Returns the last element, its first difference, its second, and so on: the same span."""
    result, rest = [latest_first[0]], list(latest_first)
    while len(rest) > 1:
        rest = [a - b for a, b in itertools.pairwise(rest)]
        result.append(rest[0])
    return result


def _solve_scaled(hessian: jax.Array, gradient: jax.Array, used: jax.Array) -> jax.Array:
    """Returns H^-1 g over the rows in use, with H scaled to a unit diagonal and a small ridge."""
    diagonal = jnp.diag(hessian)
    sound = used & (diagonal > 0)
    scale = jnp.where(sound, jax.lax.rsqrt(jnp.where(sound, diagonal, 1)), 0)
    unit = hessian * scale[:, None] * scale
    ridge = jnp.where(sound, 1e-5, 1).astype(hessian.dtype)
    return scale * jnp.linalg.solve(unit + jnp.diag(ridge), scale * gradient)
