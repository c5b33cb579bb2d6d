"""Vetting of one batch: what counts, what is padding, what is refused, and why.

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

_State = TypeVar("_State")
_NO_CLASS = np.iinfo(np.int32).max  # not -1, which would be the last class


class Batch(NamedTuple):
    """A vetted batch. Rows left out are not ``used``, and their label is that of no class.

    Their features are what they were, NaN perhaps: a masked copy would be one more pass over the
    batch. Segment sums drop that label; any other sum must ask for ``used``.
    """

    features: Float[Array, "N D"]
    labels: Int[Array, " N"]
    used: Bool[Array, " N"]
    peak: Float[Array, " N"]
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
      The batch, with ``peak`` = max_d |h_d| and the two counts of refused rows. A row with a
      wrong label and a NaN is counted once, as a wrong label.

    Raises:
      ValueError: at trace time, for ranks, widths or dtypes that do not fit, and for host arrays
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
    peak = jnp.max(jnp.abs(features), axis=1)
    # Not by the peak: a compiled maximum may lose NaN on CPU (openxla/xla#21461).
    finite = jnp.all(jnp.isfinite(features), axis=1)
    offered = jnp.ones_like(peak, bool) if mask is None else jnp.asarray(mask) != 0
    in_range = (labels >= 0) & (labels < num_classes)
    used = offered & in_range & finite
    return Batch(
        features=features,
        labels=jnp.where(used, labels, _NO_CLASS).astype(jnp.int32),
        used=used,
        peak=jnp.where(used, peak, 0),
        label_out_of_range=jnp.sum(offered & ~in_range, dtype=jnp.int32),
        non_finite=jnp.sum(offered & in_range & ~used, dtype=jnp.int32),
    )


def in_pieces(add: Callable[[_State, Batch], _State], state: _State, batch: Batch) -> _State:
    """Adds a batch by a few rows at a time: a CPU waits for temporaries that leave its cache.

    Pieces have D rows, so that the work on the state stays small beside their product, and at least
    1024. Any cut of the data gives the same moments, this one as well.
    """
    size, dim = batch.features.shape
    rows = max(1024, dim)
    if size <= rows:
        return add(state, batch)

    def add_piece(index: Array, state: _State) -> _State:
        return add(state, _piece(batch, index, rows))

    added: _State = jax.lax.fori_loop(0, -(-size // rows), add_piece, state)
    return added


def _piece(batch: Batch, index: Array, rows: int) -> Batch:
    """The rows from index * rows on.

    The last piece begins early enough to be as long as the others, and leaves out what it shares
    with the one before. The counts of refused rows are those of the whole batch.
    """
    start = jnp.minimum(index * rows, batch.labels.shape[0] - rows)
    cut: Batch = batch._replace(
        **{
            name: jax.lax.dynamic_slice_in_dim(getattr(batch, name), start, rows)
            for name in ("features", "labels", "used", "peak")
        }
    )
    used = cut.used & (start + jnp.arange(rows) >= index * rows)
    return cut._replace(
        used=used,
        labels=jnp.where(used, cut.labels, _NO_CLASS),
        peak=jnp.where(used, cut.peak, 0),
    )


def unit_rows(batch: Batch) -> Float[Array, "N D"]:
    """Unit vectors h / ||h||, zero for h = 0; rows left out hold anything.

    If some square could leave the range of the dtype, rows are divided by a power of two first,
    which is exact, and costs one more pass over the batch.
    """
    extreme = float(np.finfo(batch.features.dtype).maxexp) / 4
    low, high = 2.0**-extreme, 2.0**extreme
    peak = batch.peak
    safe = jnp.all((peak == 0) | ((low < peak) & (peak < high)))
    largest = 2.0 ** (np.finfo(batch.features.dtype).maxexp - 2)  # whose inverse is no subnormal
    scale = jnp.where(safe | (peak == 0), 1, jnp.minimum(linalg.power_of_two(peak), largest))

    def squares(divisor: Array | None) -> Array:
        rows = batch.features if divisor is None else batch.features / divisor[:, None]
        return jnp.sum(rows**2, axis=1)

    square = jax.lax.cond(safe, lambda: squares(None), lambda: squares(scale))
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))  # without the derivative of a root of zero
    # Products with inverses, a third of the time of quotients; that of a power of two is exact.
    return batch.features * (1 / scale)[:, None] * (1 / norm)[:, None]


def _check_features(features: Any, dim: int) -> None:
    if features.ndim != 2 or features.shape[1] != dim:
        raise ValueError(
            f"features must be [N, {dim}], got {tuple(features.shape)}. Pool or flatten feature "
            "maps to one vector a sample, and give init the width of that vector."
        )


def _check_column(name: str, column: jax.typing.ArrayLike, size: int) -> None:
    if jnp.shape(column) != (size,):
        raise ValueError(
            f"{name} must have one entry for each of the {size} feature rows, "
            f"got shape {tuple(jnp.shape(column))}."
        )
