"""Multinomial cross-entropy, written so that float32 resolves it at any confidence.

Legend: n samples, K classes.

With the logits taken relative to that of the true class, u_k = z_k - z_y, the loss of a sample is
log(1 + sum of exp(u_k) over k != y). Where the true class is far ahead this is log1p of a small
number, which has all its digits, while logsumexp(z) - z_y is a difference of two large numbers with
none: at weak penalties on separable data the loss is 1e-7 and every sample is of that kind.
"""

import functools

import jax
import jax.numpy as jnp

from vci_jax.probe._problem import dot

# Classes up to which a maximum over them is written out.
_FEW = 16


def cross_entropy(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the loss of each sample ``[n]`` and its gradient, softmax - target, ``[K n]``.

    Both are right to a few units in the last place relative to themselves. The gradient of the true
    class is minus the sum of the others, never probability - 1. Logits and targets are ``[K n]``,
    and a target is true in the row of the sample's class.
    """
    own = over_classes(jnp.where(targets, logits, 0))
    peak = _largest(logits)
    ahead = peak - own
    others = jnp.where(targets, 0, jnp.exp((logits - own) - ahead))
    rest = over_classes(others)
    total = rest + jnp.exp(-ahead)
    loss = jnp.where(ahead == 0, jnp.log1p(rest), ahead + jnp.log(total))
    return loss, jnp.where(targets, -rest, others) * (1 / total)


def probabilities(residual: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the softmax from its difference to the target."""
    return jnp.where(targets, 1 + residual, residual)


def relative_to_target(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns logits minus the one of the true class, along the last axis but one."""
    return logits - over_classes(jnp.where(targets, logits, 0))[..., None, :]


def over_classes(x: jax.Array) -> jax.Array:
    """Returns the sum over the last axis but one, as a product with ones.

    XLA's sum along a short leading axis is ten times slower than that on a CPU.
    """
    return dot(jnp.ones((1, x.shape[-2]), x.dtype), x)[..., 0, :]


def _largest(logits: jax.Array) -> jax.Array:
    """Returns the maximum over the classes, of a few row by row: again for a CPU."""
    if len(logits) > _FEW:
        return jnp.max(logits, axis=0)
    return functools.reduce(jnp.maximum, list(logits))
