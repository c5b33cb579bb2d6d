"""The data of a probe, as the path solver takes them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Problem(NamedTuple):
    """What all penalties share; N samples, Q columns, K classes.

    Attributes:
      design: ``[N Q]``; the columns are uncorrelated, and the last is one, the intercept's.
      weights: of the samples, ``[N]``; their sum is one, and zero is padding.
      targets: true in the column of the sample's class, ``[N K]``.
      squares: weighted mean squares of the columns, ``[Q]``.
      penalised: one, and zero for the intercept, ``[Q]``.
    """

    design: jax.Array
    weights: jax.Array
    targets: jax.Array
    squares: jax.Array
    penalised: jax.Array


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns a matrix product in full precision, on accelerators too."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
