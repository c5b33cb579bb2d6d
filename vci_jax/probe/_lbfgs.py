"""The history of L-BFGS as arrays: the last m steps and the changes of the gradient along them.

Legend: m pairs, Q rows (features and intercept) and K columns of the parameters, QK numbers in all.

The inverse Hessian is used in the compact form of Byrd, Nocedal and Schnabel (1994), theorem 2.2:
with S, Y [m QK], H0 the preconditioner times gamma, R the upper triangle of S Y^T in order
of time and E its diagonal,

    H g = H0 (g - Y^T p) + S^T q,   R p = S g,   R^T q = E p + Y H0 Y^T p - Y H0 g.

It takes two passes over the pairs, where the two-loop recursion takes 2m dependent ones. The small
matrices S Y^T and Y H0 Y^T are kept up to date by a row and a column per pair.

Pairs survive a change of the penalty: the Hessian is that of the data plus l2 on the penalised
rows, so its product with a step s changes by exactly (new - old) s there (``shift``).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vci_jax.probe._precondition import Inverse
from vci_jax.probe._problem import dot, gram

# A pair is useful if its curvature s.y is at least this part of the largest one possible, given the
# lengths of s and y in the preconditioner's norm; float32 noise is around 1e-6.
_LEAST_CURVATURE = 1e-4


class Memory(NamedTuple):
    """Pairs in a ring: ``count`` of them are filled, the next goes to ``place``.

    Steps and changes are flat, ``[m QK]``. XLA writes a pair into them in place, which it does not
    if they must take another shape afterwards.
    """

    steps: jax.Array
    changes: jax.Array
    products: jax.Array
    scaled: jax.Array
    count: jax.Array  # type: ignore[assignment]  # shadows tuple.count, on purpose
    place: jax.Array


def init(size: int, like: jax.Array) -> Memory:
    """Returns a memory for ``size`` pairs shaped ``like`` the parameters ``[Q K]``."""
    pairs = jnp.zeros((size, like.size), like.dtype)
    gram = jnp.zeros((size, size), like.dtype)
    return Memory(pairs, pairs, gram, gram, jnp.int32(0), jnp.int32(0))


def shift(memory: Memory, change: jax.Array, inverse: Inverse) -> Memory:
    """Returns the memory after the Hessian changed by the diagonal ``change [Q 1]``.

    That is the change of the penalty, zero for the intercept, and ``inverse`` is the preconditioner
    from now on. If a pair loses its curvature, all are dropped.
    """
    size, columns = len(memory.steps), memory.steps.shape[1] // len(change)
    form = (size, len(change), columns)
    steps = memory.steps.reshape(form)
    changes = memory.changes.reshape(form) + change * steps
    scaled = gram(changes, inverse(changes))
    lengths = jnp.sum(steps**2 / inverse.diagonal, axis=(1, 2))
    lengths *= jnp.sum(changes**2 * inverse.diagonal, axis=(1, 2))
    changes = changes.reshape(memory.changes.shape)
    products = gram(memory.steps, changes)
    filled = jnp.arange(size) < memory.count
    sound = jnp.all(jnp.where(filled, jnp.diag(products) > _threshold(lengths), True))
    count, place = (jnp.where(sound, n, 0) for n in (memory.count, memory.place))
    return Memory(memory.steps, changes, products, scaled, count, place)


def push(
    memory: Memory, step: jax.Array, change: jax.Array, inverse: Inverse
) -> tuple[Memory, jax.Array]:
    """Returns the memory with one more pair, a step and the change of the gradient ``[Q K]``.

    A pair without curvature is refused, and the memory emptied, since it did not describe the
    function along the step. The second result is whether the pair was useful.
    """
    size, place = len(memory.steps), memory.place
    # Only the ratio matters; lengths near 1 keep the squares within float32's range.
    norm = jax.lax.rsqrt(jnp.maximum(jnp.sum(step**2), jnp.finfo(step.dtype).tiny))
    step, change = step * norm, change * norm
    lengths = jnp.sum(step**2 / inverse.diagonal) * jnp.sum(change**2 * inverse.diagonal)
    useful = jnp.vdot(step, change) > _threshold(lengths)

    def put(pairs: jax.Array, new: jax.Array) -> jax.Array:
        new = jnp.where(useful, new, 0).ravel()
        return jax.lax.dynamic_update_index_in_dim(pairs, new, place, 0)

    steps, changes = put(memory.steps, step), put(memory.changes, change)
    products = memory.products.at[place].set(dot(changes, step.ravel()))
    products = products.at[:, place].set(dot(steps, change.ravel()))
    cross = dot(changes, inverse(change).ravel())
    grown = Memory(
        steps,
        changes,
        products,
        memory.scaled.at[place].set(cross).at[:, place].set(cross),
        jnp.where(useful, jnp.minimum(memory.count + 1, size), 0),
        jnp.where(useful, (place + 1) % size, 0),
    )
    return grown, useful


def direction(memory: Memory, gradient: jax.Array, inverse: Inverse) -> jax.Array:
    """Returns the step -H g for a gradient ``[Q K]``; -H0 g without pairs."""
    size = len(memory.steps)
    oldest = jnp.where(memory.count < size, 0, memory.place)
    order = (oldest + jnp.arange(size)) % size
    filled = jnp.arange(size) < memory.count  # In order of time these come first.
    both = filled[:, None] & filled
    products = jnp.where(both, memory.products[order][:, order], 0)
    scaled = jnp.where(both, memory.scaled[order][:, order], 0)
    newest = (memory.place - 1) % size
    length = memory.scaled[newest, newest]
    gamma = jnp.where(
        memory.count > 0, memory.products[newest, newest] / jnp.where(length > 0, length, 1), 1
    )
    upper = jnp.triu(products) + jnp.diag(jnp.where(filled, 0, 1).astype(gradient.dtype))
    along = jnp.where(filled, dot(memory.steps, gradient.ravel())[order], 0)
    across = jnp.where(filled, dot(memory.changes, inverse(gradient).ravel())[order], 0)
    solve = jax.scipy.linalg.solve_triangular
    p = solve(upper, along)
    inner = jnp.diag(products) * p + gamma * (dot(scaled, p) - across)
    q = solve(upper, inner, trans=1)
    back = jnp.argsort(order)
    p, q = jnp.where(filled, p, 0)[back], jnp.where(filled, q, 0)[back]
    remainder = gradient - dot(p, memory.changes).reshape(gradient.shape)
    return -gamma * inverse(remainder) - dot(q, memory.steps).reshape(gradient.shape)


def _threshold(lengths: jax.Array) -> jax.Array:
    return _LEAST_CURVATURE * jnp.sqrt(lengths)
