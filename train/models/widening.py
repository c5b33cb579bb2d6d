"""A 1x1 convolution that widens, and the BatchNorm after it, without ever storing what is between.

On an accelerator a ResNet waits for its main memory, and the widest arrays are those between the
last convolution of a bottleneck and its normalisation. But with x = a W at each position, all that
the normalisation wants of x follows from products of its narrow input a:

    mean x        = (mean a) W
    var x         = diag(W^T Cov(a) W)
    sum dy * x    = diag(W^T G),  G = sum over positions of a^T dy

So the statistics are known before x is computed, the convolution writes its result normalised, and
the way back reads a, which is a quarter as wide, where it would read x. With r = 1/sqrt(var + eps),
s = r * scale, b = sum dy / n, c = r^2 (sum dy * (x - mean x)) / n, the gradient of x is

    dx = s * (dy - b - c * (x - mean x))

hence, again without x, and with Q = sum over positions of a^T (a - mean a) = n Cov(a),

    da = dy (s W)^T - a W (s c W)^T + [(s c mean x - s b) W^T]
    dW = s * (G - (sum a)^T b - c * Q W)

Legend: G groups, P positions of a group (B/G images times H W), n = P, I and O channels.

Reference: S. Ioffe and C. Szegedy, Batch Normalization, ICML 2015, algorithm 1 and section 3 (the
gradients, here written in terms of a).
"""

from functools import partial

import jax
import jax.numpy as jnp

_F32 = jnp.float32
_POSITIONS = (1, 2, 3)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalised(
    inputs: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the normalised 1x1 convolution in float32, and each group's mean and variance.

    The latter two are for running averages: no gradient comes back through them.

    Args:
      inputs: a, ``[G B/G H W I]``.
      kernel: W, ``[I O]``, of the same dtype.
      scale: of the normalisation, ``[O]``.
      bias: likewise.
      epsilon: added to the variance.
    """
    return _forward(inputs, kernel, scale, bias, epsilon)[0]


def _forward(
    inputs: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    wide = kernel.astype(_F32)
    count = inputs.shape[1] * inputs.shape[2] * inputs.shape[3]
    centre = jnp.mean(inputs, axis=_POSITIONS, dtype=_F32)  # [G I]
    gram = _contract("gbhwi,gbhwj->gij", inputs, inputs) / count
    covariance = gram - centre[:, :, None] * centre[:, None, :]
    spread = _contract("gij,jo->gio", covariance, wide)
    mean = _contract("gi,io->go", centre, wide)
    var = jnp.maximum(0.0, jnp.sum(wide * spread, axis=1))  # [G O]
    root = jax.lax.rsqrt(var + epsilon)
    x = jnp.einsum("gbhwi,io->gbhwo", inputs, kernel)
    y = (x.astype(_F32) - _spread(mean)) * _spread(root * scale) + bias
    return (y, _spread(mean), _spread(var)), (inputs, kernel, scale, centre, spread, mean, root)


def _backward(
    epsilon: float, saved: tuple[jax.Array, ...], gradients: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    del epsilon
    inputs, kernel, scale, centre, spread, mean, root = saved
    dy, wide = gradients[0].astype(inputs.dtype), kernel.astype(_F32)
    count = inputs.shape[1] * inputs.shape[2] * inputs.shape[3]
    total = jnp.sum(dy, axis=_POSITIONS, dtype=_F32)  # [G O]
    product = jnp.einsum("gbhwi,gbhwo->gio", inputs, dy, preferred_element_type=_F32)
    aligned = jnp.sum(wide * product, axis=1) - mean * total
    slope, offset, tilt = root * scale, total / count, jnp.square(root) * aligned / count
    d_kernel = slope[:, None] * (
        product - count * (centre[:, :, None] * offset[:, None] + tilt[:, None] * spread)
    )
    back = _contract("io,go,jo->gij", wide, slope * tilt, wide).astype(inputs.dtype)
    constant = _contract("go,io->gi", slope * (tilt * mean - offset), wide)
    weighted = (slope[:, None] * wide).astype(inputs.dtype)
    d_inputs = (
        jnp.einsum("gbhwo,gio->gbhwi", dy, weighted)
        - jnp.einsum("gbhwj,gij->gbhwi", inputs, back)
        + _spread(constant)
    )
    d_scale, d_bias = jnp.sum(root * aligned, axis=0), jnp.sum(total, axis=0)
    return d_inputs.astype(inputs.dtype), jnp.sum(d_kernel, 0).astype(kernel.dtype), d_scale, d_bias


normalised.defvjp(_forward, _backward)


def _contract(formula: str, *arrays: jax.Array) -> jax.Array:
    """A contraction of which variances are made: all digits of float32, on any device."""
    return jnp.einsum(
        formula, *arrays, precision=jax.lax.Precision.HIGHEST, preferred_element_type=_F32
    )


def _spread(channels: jax.Array) -> jax.Array:
    return channels[:, None, None, None, :]
