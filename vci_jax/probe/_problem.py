"""The data of a probe in the solver's layout, and sums over them.

Samples lie along the last axis: long rows are what processors add, multiply and exponentiate
fastest, also where there are only ten classes. They are cut into C chunks of S parts of n. Chunks
are taken one after the other, so that temporaries have the size of one; parts are divided among
devices, and added up once all chunks are done: one reduction per pass.

Legend: N = C S n samples, padding included, Q columns, K classes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Numbers in a temporary of a chunk, n K: 16 MB in float32.
_LARGEST_TEMPORARY = 2**22
# Numbers a processor multiplies at once, and how many rows are too few to hide a part of that; for
# many, the other order of a product is faster.
_REGISTER, _FEW, _MANY = 8, 32, 64


class Problem(NamedTuple):
    """Data and settings that all penalties share.

    Attributes:
      design: ``[C S Q n]``; the columns are uncorrelated, and the last is one, the intercept's; or
        zero, without an intercept.
      weights: weights of the samples, ``[C S n]``; their sum is one, and zero is padding.
      targets: true in the row of the sample's class, ``[C S K n]``.
      squares: weighted mean squares of the columns, ``[Q]``.
      penalised: one, and zero for an intercept, ``[Q]``.
      tolerance: relative excess of the objective at which a penalty is solved.
      max_steps: maximum number of steps of L-BFGS at a penalty.
      uneven: not None if L-BFGS cannot predict the remaining decrease, since samples, classes or
        columns have very different weights, and an optimum has to be proved.
      sampled: the samples of each part that ``_precondition`` makes blocks from; None for none.
    """

    design: jax.Array
    weights: jax.Array
    targets: jax.Array
    squares: jax.Array
    penalised: jax.Array
    tolerance: jax.Array
    max_steps: jax.Array
    uneven: jax.Array | None = None
    sampled: jax.Array | None = None


def shape(samples: int, num_classes: int, parts: int) -> tuple[int, int, int]:
    """Returns C, S and n for a number of samples, and of devices to divide them among."""
    chunks = -(-samples * num_classes // (_LARGEST_TEMPORARY * parts))
    return chunks, parts, -(-samples // (chunks * parts))


def logits(problem: Problem, params: jax.Array) -> jax.Array:
    """Returns the logits of all samples, ``[C S K n]``, for parameters ``[Q K]``."""

    def chunk(design: jax.Array) -> jax.Array:
        return jax.vmap(lambda part: dot(params.T, part))(design)

    if len(problem.design) == 1:
        return chunk(problem.design[0])[None]
    return jax.lax.map(chunk, problem.design)


def total(function: Callable[..., Any], problem: Problem, *rows: jax.Array) -> Any:
    """Returns the sum of a function over all parts of all chunks.

    Its arguments are design ``[Q n]``, weights ``[n]``, targets ``[K n]`` and the part of each of
    ``rows [C S ... n]``; it returns arrays, or a tuple of them.
    """
    arrays = (problem.design, problem.weights, problem.targets, *rows)
    chunk = jax.vmap(function)
    first = tuple(array[0] for array in arrays)
    if len(problem.design) == 1:
        sums = chunk(*first)
    else:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(chunk, *first))

        def add(sums: Any, parts: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, chunk(*parts)), None

        sums, _ = jax.lax.scan(add, zeros, arrays)
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


def each(function: Callable[..., Any], problem: Problem, *rows: jax.Array) -> Any:
    """Returns the results of a function of ``total`` for each part of each chunk, ``[C S ...]``."""
    chunk = jax.vmap(function)
    arrays = (problem.design, problem.weights, problem.targets, *rows)
    if len(problem.design) == 1:
        return jax.tree.map(lambda x: x[None], chunk(*(array[0] for array in arrays)))
    return jax.lax.map(lambda parts: chunk(*parts), arrays)


def between_classes(params: jax.Array) -> jax.Array:
    """Returns parameters ``[Q K]``, or a direction of them, less what all classes share.

    No difference of logits depends on that. It is rounding alone, and would grow where the unit of
    a column makes its penalty next to nothing.
    """
    return params - jnp.mean(params, axis=1, keepdims=True)


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns a matrix product in full precision, on accelerators too."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def outer(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns a b^T, the sum over samples, in full precision.

    For XLA's products on a CPU. A few rows of ``b`` are filled up to whole registers: of ten, it
    takes eight at once and two one by one, which costs half as much again as sixteen. Many it takes
    faster as b a^T, by a sixth.
    """
    if len(b) >= _MANY:
        # Without the barrier XLA would undo it.
        return jax.lax.optimization_barrier(_along_samples(b, a)).T
    few = len(b) < _FEW
    filled = jnp.pad(b, ((0, -len(b) % _REGISTER), (0, 0))) if few else b
    return _along_samples(a, filled)[:, : len(b)]


def _along_samples(a: jax.Array, b: jax.Array) -> jax.Array:
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST)


def gram(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the inner products of the few, but long, elements of two stacks, ``[m m]``.

    One matrix-vector product an element: XLA's matrix product on a CPU would first bring the long
    rows into another order, which takes three times as long as to multiply them.
    """
    rows, others = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return jax.lax.map(partial(dot, rows), others).T
