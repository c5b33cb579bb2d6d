"""The scatter of a large batch on a CPU: a few rows at a time, and no entry twice.

A CPU waits for temporaries that leave its cache, and the system for every page of them that a
program touches first; so rows are made by ``CHUNK_SIZE`` numbers and written where the product
wants them. Of wide rows the product is taken by halves, and the lower of the two equal
off-diagonal blocks is a copy.

Legend: N samples in the batch, K classes, D feature dimension.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vci_jax import linalg
from vci_jax.batch import Batch, chunk_rows, rows_from
from vci_jax.placement import alike

_State = tuple[list[tuple[Array, Array]], Array, list[Array]]
_HALVED = 1536  # columns from which on products of halves are as fast as large ones


def add_in_pieces(
    scatter: Float[Array, "D D"],
    residual: Float[Array, "D D"],
    rows_of: Callable[[Batch], Float[Array, "N D"]],
    batch: Batch,
    num_classes: int,
) -> tuple[Float[Array, "D D"], Float[Array, "D D"], Float[Array, " K"]]:
    """Adds rows^T rows to a compensated sum; and the sums of squares of the rows by class.

    Pieces have about 2 D rows, so that the work on [D, D] sums stays small beside the product; but
    1024 at least, and no more than 4096 or D, of which float64 sums keep their digits. Any cut of
    the data gives the same sums, this one as well.

    Args:
      scatter: the sum so far.
      residual: its low-order part.
      rows_of: the rows of a part of the batch, zeros for those that are left out.
      batch: what to add.
      num_classes: K.
    """
    size, dim = batch.features.shape
    rows = chunk_rows(dim)
    pieces = -(-size // max(1024, dim, min(2 * dim, 4096)))
    chunks = -(-size // (pieces * rows))
    half = -(-dim // 2) if dim >= _HALVED else dim
    columns = [slice(low, min(low + half, dim)) for low in range(0, dim, half)]
    pairs = [(i, j) for i in range(len(columns)) for j in range(i, len(columns))]
    sums = [(scatter[columns[i], columns[j]], residual[columns[i], columns[j]]) for i, j in pairs]
    widths = [column.stop - column.start for column in columns]
    parts = [jnp.zeros((chunks * rows, width), scatter.dtype) for width in widths]
    labels = jnp.zeros(chunks * rows, jnp.int32)

    def add_piece(piece: Array, state: _State) -> _State:
        def write(chunk: Array, buffers: list[Array]) -> list[Array]:
            part = rows_from(batch, (piece * chunks + chunk) * rows, rows)
            made = rows_of(part)
            values = [*(made[:, column] for column in columns), part.labels]
            return [
                jax.lax.dynamic_update_slice_in_dim(buffer, value, chunk * rows, axis=0)
                for buffer, value in zip(buffers, values, strict=True)
            ]

        sums, squares, buffers = state
        buffers = jax.lax.fori_loop(0, chunks, write, buffers)
        *parts, labels = buffers
        sums = [
            linalg.add_gram(*total, parts[i], None if i == j else parts[j])
            for total, (i, j) in zip(sums, pairs, strict=True)
        ]
        square = sum(jnp.sum(part**2, axis=1) for part in parts)
        return sums, squares + jax.ops.segment_sum(square, labels, num_classes), buffers

    state = sums, jnp.zeros(num_classes, scatter.dtype), [*parts, labels]
    sums, squares, _ = jax.lax.fori_loop(0, pieces, add_piece, alike(state, batch, scatter))
    if len(sums) == 1:
        return *sums[0], squares
    scatter, residual = (jnp.block([[a, b], [b.T, c]]) for a, b, c in zip(*sums, strict=True))
    return scatter, residual, squares
