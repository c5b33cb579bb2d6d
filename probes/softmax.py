"""Multinomial cross-entropy, written so that float32 resolves it at any confidence.

Legend: n samples, K classes.

With the logits taken relative to that of the true class, u_k = z_k - z_y, the loss of a sample is
log(1 + sum of exp(u_k) over k != y). Where the true class is far ahead this is log1p of a small
number, which has all its digits, while logsumexp(z) - z_y is a difference of two large numbers with
none: at weak penalties on separable data the loss is 1e-7 and every sample is of that kind.
"""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the loss of each sample ``[n]`` and its gradient, softmax - target, ``[K n]``.

    Both are right to a few units in the last place relative to themselves. The gradient of the true
    class is minus the sum of the others, never probability - 1.

    Args:
      logits: ``[K n]``.
      targets: true in the row of each sample's class, ``[K n]``.
    """
    u = relative_to_target(logits, targets)
    peak = jnp.maximum(jnp.max(jnp.where(targets, -jnp.inf, u), axis=0), 0)
    others = jnp.where(targets, 0, jnp.exp(u - peak))
    rest, own = jnp.sum(others, axis=0), jnp.exp(-peak)
    total = rest + own
    loss = jnp.where(peak == 0, jnp.log1p(rest), peak + jnp.log(total))
    return loss, jnp.where(targets, -rest, others) / total


def probabilities(residual: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the softmax from its difference to the target."""
    return jnp.where(targets, 1 + residual, residual)


def relative_to_target(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns logits minus the one of the true class, along the last axis but one."""
    own = jnp.sum(jnp.where(targets, logits, 0), axis=-2, keepdims=True)
    return logits - own
