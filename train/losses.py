"""Training objectives, one number per sample: ``loss(logits, labels) -> [B]``.

The mean, or a masked sum, is the caller's: training averages a batch, evaluation adds up a split.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from train.config import LossConfig

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array, *, temperature: float) -> jax.Array:
    """Returns ``-log softmax(logits / temperature)[label]``."""
    return optax.softmax_cross_entropy_with_integer_labels(logits / temperature, labels)


def squared_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns ``||logits - onehot(label)||^2 / K``."""
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return jnp.mean(optax.squared_error(logits, targets), axis=-1)


def build(config: LossConfig) -> Loss:
    """Returns the objective of a config."""
    if config.name == "mse":
        return squared_error
    return partial(cross_entropy, temperature=config.temperature)
