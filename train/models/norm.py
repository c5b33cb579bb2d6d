"""Batch normalisation over fixed groups of the batch.

Statistics are taken over groups of ``group`` consecutive samples, so that they do not depend on the
number of devices: the paper's batch of 1024 is four groups of 256, on one device or on thirty-two.
This is "ghost" batch normalisation.

Legend: G groups, B samples, C channels.

Reference: S. Ioffe and C. Szegedy, Batch Normalization, ICML 2015, algorithms 1 and 2; E. Hoffer
et al., Train longer, generalize better, NeurIPS 2017, algorithm 1 (ghost batch normalisation).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

# As in torch, whose momentum of 0.1 is the weight of the new value.
_MOMENTUM = 0.9
_EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Normalises each channel, in training by the statistics of each group of samples.

    At every step the running averages move by a tenth towards the mean of the groups' means and
    variances. These are population variances, divided by n as in the normalisation itself; torch
    records n/(n-1) times as much, a difference below 1/4000 for 256 samples of 4 x 4 positions.

    Attributes:
      group: samples per group; 0 makes the whole batch one group.
      train: whether to use, and record, the statistics of this batch, or the running averages.
      dtype: dtype of the result; statistics and parameters are float32.
    """

    group: int
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps ``[B H W C]`` to the same shape, in training by whole groups of samples."""
        shape = inputs.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if self.train:
            x = _split(inputs, self.group).astype(jnp.float32)
            mean, var = _moments(x)
            if not self.is_initializing():
                running_mean.value = _moving_average(running_mean.value, mean)
                running_var.value = _moving_average(running_var.value, var)
        else:
            x, mean, var = inputs, running_mean.value, running_var.value
        x = (x - mean) * (jax.lax.rsqrt(var + _EPSILON) * scale) + bias
        return x.reshape(inputs.shape).astype(self.dtype)


def _split(x: jax.Array, group: int) -> jax.Array:
    """Reshapes ``[B H W C]`` to ``[G B/G H W C]``; group 0 is the whole batch."""
    batch = x.shape[0]
    group = group or batch
    if batch % group:
        raise ValueError(
            f"BatchNorm cannot divide a batch of {batch} into groups of {group}; make the batch "
            "a multiple of --model.bn_group, or set that to 0 for one group."
        )
    return x.reshape(batch // group, group, *x.shape[1:])


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the variance of each group and channel, with axes of size one.

    Both take one pass over x, which bounds the speed on an accelerator. The difference of squares
    loses digits only if the mean of a channel is many times its standard deviation.
    """
    square = jnp.square(x)
    mean, mean_square = (jnp.mean(y, axis=(-4, -3, -2), keepdims=True) for y in (x, square))
    return mean, jnp.maximum(0.0, mean_square - jnp.square(mean))


def _moving_average(running: jax.Array, groups: jax.Array) -> jax.Array:
    new = jnp.mean(groups.reshape(-1, *running.shape), axis=0)
    return _MOMENTUM * running + (1 - _MOMENTUM) * new
