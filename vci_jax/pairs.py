"""Sums over pairs of classes in O(K D) memory, block by block.

The class means of ImageNet-21k have 4.8e8 pairs: a matrix of them takes 3.8 GB, their blocks a few
megabytes. Known instances: KeOps, and ``metrics.pairwise_distances_chunked`` of scikit-learn.

Legend: K classes, B classes in a block.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax.placement import alike

_Classes = TypeVar("_Classes")
_Sums = TypeVar("_Sums")


def sum_over_pairs(
    term: Callable[[_Classes, _Classes, Bool[Array, "B B"]], _Sums], classes: _Classes, block: int
) -> _Sums:
    """Returns the sum of a symmetric function of two classes, over all K x K ordered pairs.

    Args:
      term: (left, right, different) -> pytree of sums over the pairs of one block, where ``left``
        and ``right`` are rows of ``classes`` and ``different`` is False for a class with itself.
        Only blocks on and above the diagonal are asked for; those above count twice.
      classes: pytree of arrays with a leading axis of K; rows of zeros are appended, which
        ``term`` must leave out.
      block: the most classes in a block; with K or more there is one block and no loop.
    """
    size = jax.tree.leaves(classes)[0].shape[0]
    if size <= block:
        return term(classes, classes, ~jnp.eye(size, dtype=bool))
    blocked, blocks = split(classes, block)
    width = jax.tree.leaves(blocked)[0].shape[1]
    itself = jnp.eye(width, dtype=bool)

    def of_blocks(first: Any, second: Any) -> _Sums:
        left: _Classes = jax.tree.map(lambda leaf: leaf[first], blocked)
        right: _Classes = jax.tree.map(lambda leaf: leaf[second], blocked)
        return term(left, right, ~itself | (first != second))

    def add(total: _Sums, pair: tuple[Array, ...]) -> tuple[_Sums, None]:
        value = of_blocks(*pair)
        times = jnp.where(pair[0] == pair[1], 1, 2)
        return jax.tree.map(lambda t, v: t + times.astype(v.dtype) * v, total, value), None

    shapes = jax.eval_shape(of_blocks, 0, 0)
    zero: _Sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    pairs = tuple(jnp.asarray(index, jnp.int32) for index in np.triu_indices(blocks))
    return jax.lax.scan(add, alike(zero, classes), pairs)[0]


def split(classes: _Classes, block: int) -> tuple[_Classes, int]:
    """Returns the rows in blocks of equal size, [K, ...] -> [blocks, B, ...], and how many blocks.

    The last block is filled up with zeros.
    """
    size = jax.tree.leaves(classes)[0].shape[0]
    blocks = -(-size // block)
    width = -(-size // blocks)

    def cut(leaf: Array) -> Array:
        filling = [(0, blocks * width - size)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, filling).reshape(blocks, width, *leaf.shape[1:])

    parts: _Classes = jax.tree.map(cut, classes)
    return parts, blocks


def nearest(
    rows: Float[Array, "N D"], means: Float[Array, "K D"], squares: Float[Array, "N K"]
) -> Int[Array, " N"]:
    """Returns the class whose mean is nearest to each row; of equals, the lower index.

    ``squares`` are their squared distances, but for a term of the row; infinite for classes that do
    not count. Those are sums of products, whose rounding hides what lies near to each other and far
    from the origin; so differences decide between the first few.
    """
    _, order = jax.lax.top_k(-squares, min(4, squares.shape[1]))
    exact = jnp.stack([jnp.sum((rows - means[place]) ** 2, axis=1) for place in order.T], axis=1)
    counts = jnp.take_along_axis(squares, order, axis=1) < jnp.inf
    exact = jnp.where(counts, exact, jnp.inf)
    first = exact == jnp.min(exact, axis=1, keepdims=True)
    return jnp.min(jnp.where(first, order, squares.shape[1] - 1), axis=1).astype(jnp.int32)
