"""Batch normalisation over fixed groups of the batch.

The statistics of a network's training must not depend on how many devices share a batch. So they
are taken over groups of ``group`` consecutive samples, wherever those samples lie: the paper's
batch of 1024 is four groups of 256, on one device or on thirty-two. This is "ghost" batch
normalisation with the group size a property of the experiment, not of the machine.

Legend: G groups, B samples, C channels.

Reference: S. Ioffe and C. Szegedy, Batch Normalization, ICML 2015, algorithms 1 and 2; E. Hoffer
et al., Train longer, generalize better, NeurIPS 2017, algorithm 1 (ghost batch normalisation).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

# Both as torch has them; its momentum of 0.1 is the weight of the new value.
_MOMENTUM = 0.9
_EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Normalises each channel, in training by the statistics of each group of samples.

    The running averages move by a tenth towards the mean over groups of the groups' means, and of
    their variances, at every step. These are population variances, divided by n as in the
    normalisation itself, so that a batch seen for ever is normalised alike in both modes. torch
    records n/(n-1) times as much, which differs by less than 1/4000 where 256 samples have 4 x 4
    positions.

    Attributes:
      group: samples per group; 0 makes the whole batch one group.
      train: whether to use, and record, the statistics of this batch, or the running averages.
      dtype: of the result; statistics and parameters are float32 in any case.
    """

    group: int
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps ``[B H W C]`` to the same shape.

        Raises:
          ValueError: in training, if the batch is not a whole number of groups.
        """
        shape = inputs.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if self.train:
            x = _split(inputs, self.group).astype(jnp.float32)
            mean, var = _moments(x)
            if not self.is_initializing():
                running_mean.value = _follow(running_mean.value, mean)
                running_var.value = _follow(running_var.value, var)
        else:
            x, mean, var = inputs, running_mean.value, running_var.value
        x = _affine(x, mean, var, scale, bias)
        return x.reshape(inputs.shape).astype(self.dtype)


def _affine(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    return (x - mean) * (jax.lax.rsqrt(var + _EPSILON) * scale) + bias


def _split(x: jax.Array, group: int) -> jax.Array:
    """Returns ``[B H W C]`` as ``[G B/G H W C]``, which moves no data; group 0 is all of it."""
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

    Both come out of one reading of x, which is what training on an accelerator waits for. The
    difference of squares costs digits only where a channel's mean is many times its deviation.
    """
    square = jnp.square(x)
    mean, mean_square = (jnp.mean(y, axis=(-4, -3, -2), keepdims=True) for y in (x, square))
    return mean, jnp.maximum(0.0, mean_square - jnp.square(mean))


def _follow(running: jax.Array, groups: jax.Array) -> jax.Array:
    new = jnp.mean(groups.reshape(-1, *running.shape), axis=0)
    return _MOMENTUM * running + (1 - _MOMENTUM) * new
