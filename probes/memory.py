"""What L-BFGS remembers, as arrays: the last m steps and the changes of the gradient along them.

Legend: m pairs, Q rows (features and intercept) and K columns of the parameters.

The inverse Hessian is used in the compact form of Byrd, Nocedal and Schnabel (1994), theorem 2.2:
with S, Y [m QK], H0 the diagonal preconditioner times gamma, R the upper triangle of S Y^T in order
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

from probes.problem import dot

# A pair is of use if its curvature s.y is at least this part of the largest it could be, given the
# lengths of s and y in the preconditioner's norm; float32 noise lies around 1e-6.
_LEAST_CURVATURE = 1e-4


class Memory(NamedTuple):
    """Pairs in a ring: ``count`` of them are filled, the next goes to ``place``."""

    steps: jax.Array
    changes: jax.Array
    products: jax.Array
    scaled: jax.Array
    count: jax.Array
    place: jax.Array


def init(size: int, like: jax.Array) -> Memory:
    """Returns a memory for ``size`` pairs shaped ``like`` the parameters ``[Q K]``."""
    pairs = jnp.zeros((size, *like.shape), like.dtype)
    gram = jnp.zeros((size, size), like.dtype)
    return Memory(pairs, pairs, gram, gram, jnp.int32(0), jnp.int32(0))


def shift(memory: Memory, change: jax.Array, inverse: jax.Array) -> Memory:
    """Returns the memory after the Hessian changed by the diagonal ``change [Q]``.

    If a pair has lost its curvature by that, all are forgotten.

    Args:
      memory: before.
      change: of the penalty, zero for the intercept.
      inverse: the preconditioner from now on, ``[Q 1]``.
    """
    size = memory.steps.shape[0]
    changes = memory.changes + change[:, None] * memory.steps
    flat, rows = changes.reshape(size, -1), memory.steps.reshape(size, -1)
    products = dot(rows, flat.T)
    scaled = dot((changes * inverse).reshape(size, -1), flat.T)
    lengths = jnp.sum(memory.steps**2 / inverse, axis=(1, 2)) * jnp.diag(scaled)
    filled = jnp.arange(size) < memory.count
    sound = jnp.all(jnp.where(filled, jnp.diag(products) > _threshold(lengths), True))
    count, place = (jnp.where(sound, n, 0) for n in (memory.count, memory.place))
    return Memory(memory.steps, changes, products, scaled, count, place)


def push(
    memory: Memory, step: jax.Array, change: jax.Array, inverse: jax.Array
) -> tuple[Memory, jax.Array]:
    """Returns the memory with one more pair, and whether the pair was of use.

    A pair without curvature is refused, and the memory emptied: what it holds did not describe the
    function where the step went.
    """
    size, place = memory.steps.shape[0], memory.place
    # Only the ratio matters; lengths near 1 keep the squares within float32's range.
    norm = jax.lax.rsqrt(jnp.maximum(jnp.sum(step**2), jnp.finfo(step.dtype).tiny))
    step, change = step * norm, change * norm
    lengths = jnp.sum(step**2 / inverse) * jnp.sum(change**2 * inverse)
    useful = jnp.vdot(step, change) > _threshold(lengths)

    def put(pairs: jax.Array, new: jax.Array) -> jax.Array:
        kept = jax.lax.dynamic_index_in_dim(pairs, place, 0, keepdims=False)
        new = jnp.where(useful, new, kept)
        return jax.lax.dynamic_update_index_in_dim(pairs, new, place, 0)

    steps, changes = put(memory.steps, step), put(memory.changes, change)
    rows, flat = steps.reshape(size, -1), changes.reshape(size, -1)
    products = memory.products.at[place].set(dot(flat, step.ravel()))
    products = products.at[:, place].set(dot(rows, change.ravel()))
    cross = dot(flat, (change * inverse).ravel())
    scaled = memory.scaled.at[place].set(cross).at[:, place].set(cross)
    grown = Memory(
        steps,
        changes,
        jnp.where(useful, products, memory.products),
        jnp.where(useful, scaled, memory.scaled),
        jnp.where(useful, jnp.minimum(memory.count + 1, size), 0),
        jnp.where(useful, (place + 1) % size, 0),
    )
    return grown, useful


def direction(memory: Memory, gradient: jax.Array, inverse: jax.Array) -> jax.Array:
    """Returns -H g, the step that the remembered curvature proposes; -H0 g without any.

    Args:
      memory: the pairs.
      gradient: where the step starts, ``[Q K]``.
      inverse: the diagonal preconditioner, ``[Q 1]``.
    """
    size = memory.steps.shape[0]
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
    rows, flat = memory.steps.reshape(size, -1), memory.changes.reshape(size, -1)
    along = jnp.where(filled, dot(rows, gradient.ravel())[order], 0)
    across = jnp.where(filled, dot(flat, (gradient * inverse).ravel())[order], 0)
    solve = jax.scipy.linalg.solve_triangular
    p = solve(upper, along)
    inner = jnp.diag(products) * p + gamma * (dot(scaled, p) - across)
    q = solve(upper, inner, trans=1)
    back = jnp.argsort(order)
    p, q = jnp.where(filled, p, 0)[back], jnp.where(filled, q, 0)[back]
    remainder = gradient - dot(p, flat).reshape(gradient.shape)
    return -gamma * inverse * remainder - dot(q, rows).reshape(gradient.shape)


def _threshold(lengths: jax.Array) -> jax.Array:
    return _LEAST_CURVATURE * jnp.sqrt(lengths)
