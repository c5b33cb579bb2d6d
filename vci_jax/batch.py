"""Checks of one batch: rows that count, padding, and rows that are refused.

Every accumulator of the library takes its rows through ``vet``, so that a wrong label or a NaN
means the same everywhere: it is left out, and counted.

Legend: N samples in the batch, K classes, D feature dimension.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Num

from vci_jax import linalg
from vci_jax.arrays import canonicalize_labels, canonicalize_mask, canonicalize_reals
from vci_jax.errors import VCIError
from vci_jax.placement import alike

_State = TypeVar("_State")
_NO_CLASS = np.iinfo(np.int32).max  # not -1, which would be the last class


class Batch(NamedTuple):
    """A vetted batch. Rows left out are not ``used``, and their label is that of no class.

    Rows that are not zero are ``directed``; ``scale`` (a power of two) and ``inverse_norm`` are the
    two factors that make unit vectors of rows.

    Their features are what they were, NaN perhaps: a masked copy would be one more pass over the
    batch. Segment sums drop that label; any other sum must ask for ``used``.
    """

    features: Float[Array, "N D"]
    labels: Int[Array, " N"]
    used: Bool[Array, " N"]
    directed: Bool[Array, " N"]
    scale: Float[Array, " N"]
    inverse_norm: Float[Array, " N"]
    label_out_of_range: Int[Array, ""]
    non_finite: Int[Array, ""]


def vet(
    features: Num[Array, "N D"],
    labels: Integer[Array, " N"],
    mask: Num[Array, " N"] | None,
    like: Float[Array, "K D"],
) -> Batch:
    """Separates rows that count from padding and from rows that cannot be used.

    Args:
      features: any real dtype, converted to that of ``like``.
      labels: integers 0 .. K-1; rows with others are left out.
      mask: nonzero where a row counts; None for all.
      like: any [K D] array of the accumulator, for its widths and dtype.

    Returns:
      The batch, with the two counts of refused rows. A row with a wrong label and a NaN is counted
      once, as a wrong label.

    Raises:
      VCIError: at trace time, for ranks, widths or dtypes that do not fit, and for host arrays
        that ``canonicalize_batch`` refuses.
    """
    num_classes, dim = like.shape
    features = canonicalize_reals("features", features, like.dtype)
    labels, mask = canonicalize_labels(labels, num_classes), canonicalize_mask(mask)
    _check_features(features, dim)
    _check_column("labels", labels, features.shape[0])
    if mask is not None:
        _check_column("mask", mask, features.shape[0])
    features, labels = jnp.asarray(features).astype(like.dtype), jnp.asarray(labels)
    if labels.dtype.itemsize <= 4:  # a narrow label type may not be able to hold it
        labels = labels.astype(jnp.int32)
    offered = jnp.ones_like(labels, bool) if mask is None else jnp.asarray(mask) != 0
    in_range = (labels >= 0) & (labels < num_classes)
    lengths = _lengths(features, offered & in_range)
    used = offered & in_range & lengths.finite
    return Batch(
        features=features,
        labels=jnp.where(used, labels, _NO_CLASS).astype(jnp.int32),
        used=used,
        directed=used & lengths.directed,
        scale=lengths.scale,
        # Without the derivative of a root of zero.
        inverse_norm=1 / jnp.sqrt(jnp.where(lengths.square > 0, lengths.square, 1)),
        label_out_of_range=jnp.sum(offered & ~in_range, dtype=jnp.int32),
        non_finite=jnp.sum(offered & in_range & ~used, dtype=jnp.int32),
    )


def in_pieces(add: Callable[[_State, Batch], _State], state: _State, batch: Batch) -> _State:
    """Adds a batch in pieces of a few rows, whose temporaries stay in the cache of a CPU."""
    size, dim = batch.features.shape
    rows = chunk_rows(dim)

    def add_piece(index: Array, state: _State) -> _State:
        return add(state, rows_from(batch, index * rows, rows))

    added: _State = jax.lax.fori_loop(0, -(-size // rows), add_piece, alike(state, batch))
    return added


def chunk_rows(dim: int) -> int:
    """Returns the number of rows whose temporaries stay in the cache of a CPU."""
    return min(max(2**19 // dim, 128), 1024)


def rows_from(batch: Batch, first: Array, rows: int) -> Batch:
    """The next rows, beginning with number ``first``.

    Where the batch ends, rows before ``first`` come along, and are left out. The counts of refused
    rows are those of the whole batch.
    """
    start = jnp.minimum(first, batch.labels.shape[0] - rows)
    cut: Batch = batch._replace(
        **{
            name: jax.lax.dynamic_slice_in_dim(getattr(batch, name), start, rows)
            for name in ("features", "labels", "used", "scale", "inverse_norm")
        }
    )
    used = cut.used & (start + jnp.arange(rows) >= first)
    return cut._replace(used=used, labels=jnp.where(used, cut.labels, _NO_CLASS))


def per_class(values: Array, batch: Batch, num_classes: int) -> Array:
    """Sums over the rows of each class, without those left out."""
    total: Array = jax.ops.segment_sum(values, batch.labels, num_classes)
    return total


def add_per_class(
    table: Float[Array, "K D"], rows: Float[Array, "N D"], batch: Batch
) -> Float[Array, "K D"]:
    """Adds rows to their classes; many rows of a class are first summed, to round less."""
    if 4 * table.shape[0] > rows.shape[0]:
        return table.at[batch.labels].add(rows, mode="drop")
    return table + per_class(rows, batch, table.shape[0])


def of_class(table: Array, batch: Batch) -> Array:
    """The entry of each row's class; rows left out get anything."""
    return jnp.take(table, batch.labels, axis=0, mode="clip")


def unit_rows(batch: Batch) -> Float[Array, "N D"]:
    """Unit vectors h / ||h||, zero for h = 0; rows left out hold anything."""
    return batch.features * batch.scale[:, None] * batch.inverse_norm[:, None]


class _Lengths(NamedTuple):
    """Which rows are finite, which are not zero, and their squared lengths after ``scale``."""

    finite: Bool[Array, " N"]
    directed: Bool[Array, " N"]
    scale: Float[Array, " N"]
    square: Float[Array, " N"]


def _lengths(features: Float[Array, "N D"], wanted: Bool[Array, " N"]) -> _Lengths:
    """Lengths of rows, in one pass over a batch of which every square is an ordinary number.

    If some square could leave the range of the dtype, rows are divided by a power of two first,
    which is exact, and costs one more pass. Rows that are not ``wanted`` do not ask for it.
    """
    info = np.finfo(features.dtype)
    low, high = 2.0 ** -(info.maxexp / 4), 2.0 ** (info.maxexp / 4)
    square = jnp.sum(features**2, axis=1)
    ordinary = jnp.all((square > features.shape[1] * low**2) & (square < high**2))  # no NaN

    def looked_at() -> _Lengths:
        # A sum loses no NaN, as a compiled maximum may on CPU (openxla/xla#21461).
        finite = jnp.sum(features - features, axis=1) == 0
        peak = jnp.where(wanted & finite, jnp.max(jnp.abs(features), axis=1), 0)
        safe = jnp.all((peak == 0) | ((low < peak) & (peak < high)))
        largest = 2.0 ** (info.maxexp - 2)  # whose inverse is no subnormal
        power = jnp.where(safe | (peak == 0), 1, jnp.minimum(linalg.power_of_two(peak), largest))
        scale = 1 / power
        scaled: Array = jax.lax.cond(
            safe, lambda: square, lambda: jnp.sum((features * scale[:, None]) ** 2, axis=1)
        )
        return _Lengths(finite, peak > 0, scale, scaled)

    every = jnp.ones_like(square, bool)
    usual = _Lengths(every, every, jnp.ones_like(square), square)
    lengths: _Lengths = jax.lax.cond(
        ordinary, lambda: alike(usual, features, wanted), lambda: alike(looked_at(), wanted)
    )
    return lengths


def _check_features(features: Any, dim: int) -> None:
    if features.ndim != 2 or features.shape[1] != dim:
        raise VCIError(
            f"features must be [N, {dim}], got {tuple(features.shape)}. Pool or flatten feature "
            "maps to one vector a sample, and give init the width of that vector."
        )


def _check_column(name: str, column: jax.typing.ArrayLike, size: int) -> None:
    if jnp.shape(column) != (size,):
        raise VCIError(
            f"{name} must have one entry for each of the {size} feature rows, "
            f"got shape {tuple(jnp.shape(column))}."
        )
