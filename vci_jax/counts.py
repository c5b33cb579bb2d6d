"""Counts of samples: int32 sums that saturate, which stop at 2^31 - 1 instead of wrapping around.

JAX has no int64 unless it is asked to. A wrapped sum may look like any count; a saturated one is
the value ``MAX_COUNT``, which no sum below it gives, so that ``report`` can refuse it. Known
instance: Rust's ``saturating_add``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vci_jax.arrays import as_native
from vci_jax.errors import VCIError

MAX_COUNT = 2**31 - 1


def add_counts(a: Int[Array, "..."], b: Int[Array, "..."]) -> Int[Array, "..."]:
    """Returns min(a + b, 2^31 - 1) for int32 counts.

    A negative count can only be one that wrapped around before: it gives 2^31 - 1 as well.
    """
    total = a + b  # Two int32 that are not negative sum to less than 2^32: too large is negative.
    return jnp.where((a < 0) | (b < 0) | (total < 0), MAX_COUNT, total)


def sum_counts(counts: Int[Array, "P ..."]) -> Int[Array, "..."]:
    """Returns min(sum over the first axis, 2^31 - 1) for int32 counts, P up to 65 536.

    Halves of 16 bits are summed apart, so that sums alone cross the axis: if it is sharded, they
    become all-reduces. A negative count gives 2^31 - 1.
    """
    bits = counts.astype(jnp.uint32)  # A negative count has the highest bit set: 2^31 and more.
    low = jnp.sum(bits & 0xFFFF, axis=0, dtype=jnp.uint32)
    high = jnp.sum(bits >> 16, axis=0, dtype=jnp.uint32) + (low >> 16)
    total = (high << 16) | (low & 0xFFFF)
    return jnp.where(high < 2**15, total, MAX_COUNT).astype(jnp.int32)


def class_weight(
    class_counts: jax.typing.ArrayLike, num_classes: int, dtype: jax.typing.DTypeLike
) -> Float[Array, " K"]:
    """The weights mean(counts) / counts of ``moments.init``; one for classes without samples.

    Raises:
      VCIError: for counts of another shape, that are not integers, or that are negative.
    """
    counts = as_native("class_counts", class_counts)
    if counts.shape != (num_classes,) or not jnp.issubdtype(counts.dtype, jnp.integer):
        raise VCIError(
            f"class_counts must be integers of shape ({num_classes},), "
            f"got {counts.dtype} of shape {counts.shape}."
        )
    if isinstance(counts, np.ndarray):
        if np.any(counts < 0):
            raise VCIError(f"class_counts must not be negative, got {counts.min()}.")
        counts = counts.astype(np.float64)  # JAX would fold integers of 64 bits.
    present, counts = jnp.asarray(counts > 0), jnp.asarray(counts).astype(dtype)
    mean = jnp.sum(counts) / jnp.maximum(jnp.sum(present), 1).astype(dtype)
    return jnp.where(present, mean / jnp.where(present, counts, 1), 1)
