"""Vision transformers as in DeiT: class token, pre-norm blocks, stochastic depth.

An image becomes a grid of patches, each a token of D numbers, with a learned class token in front.
The features are the class token after the last LayerNorm; there is no distillation token.

Legend: B images, N tokens (the class token included), D width, H heads.

Reference: A. Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; H. Touvron et al.,
Training data-efficient image transformers, ICML 2021, table 1; G. Huang et al., Deep Networks with
Stochastic Depth, ECCV 2016 (drop-path).
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

# DeiT truncates this normal distribution at a hundred standard deviations, which has no effect.
_INIT = nn.initializers.normal(0.02)


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns x kernel, ``[... D]`` times ``[D E]``.

    The gradient of the kernel is x^T g. Autodiff would take the transpose of g^T x, which moves
    more memory, on TPU (docs/compile.md) as on CPU.
    """
    return x @ kernel


def _product_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(
    operands: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = operands
    rows, ins, outs = x.size // len(kernel), *kernel.shape
    return g @ kernel.T, x.reshape(rows, ins).T @ g.reshape(rows, outs)


_product.defvjp(_product_forward, _product_backward)

_Dense = partial(
    nn.Dense, kernel_init=_INIT, dot_general=lambda x, kernel, *_, **__: _product(x, kernel)
)
_LayerNorm = partial(nn.LayerNorm, epsilon=1e-6)


@jax.checkpoint  # The backward pass, bound by memory, reads x alone and not the erf as well.
def _gelu(x: jax.Array) -> jax.Array:
    """Returns x times the normal distribution function of x, computed in float32.

    ``jax.nn.gelu`` takes an erfc, which XLA:CPU computes in twice the time of an erf.
    """
    whole = x.astype(jnp.float32)
    return (whole * (1 + jax.lax.erf(whole * np.sqrt(0.5).astype(np.float32))) / 2).astype(x.dtype)


class Block(nn.Module):
    """Attention, then a network on each token, each with a residual connection.

    Attributes:
      heads: number of heads of the attention.
      tokens: number of tokens to compute, from the first on; all of them are attended to.
      drop: probability that a sample skips a branch, which is scaled up for the other samples.
      dtype: dtype of the computation.
    """

    heads: int
    tokens: int
    drop: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B N D]`` to ``[B tokens D]``."""
        branch = self._attend(_LayerNorm(dtype=self.dtype, name="norm1")(x))
        x = x[:, : self.tokens] + self._drop_path(branch)
        branch = self._transform(_LayerNorm(dtype=self.dtype, name="norm2")(x))
        return x + self._drop_path(branch)

    def _attend(self, x: jax.Array) -> jax.Array:
        batch, length, width = x.shape
        qkv = _Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        # The gradient of a split is one concatenation; that of three slices would be three sums.
        query, key, value = (
            part.reshape(batch, length, self.heads, width // self.heads)
            for part in jnp.split(qkv, 3, axis=-1)
        )
        x = jax.nn.dot_product_attention(query[:, : self.tokens], key, value)
        return _Dense(width, dtype=self.dtype, name="proj")(x.reshape(batch, -1, width))

    def _transform(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = _Dense(4 * width, dtype=self.dtype, name="mlp_in")(x)
        return _Dense(width, dtype=self.dtype, name="mlp_out")(_gelu(x))

    def _drop_path(self, branch: jax.Array) -> jax.Array:
        if not self.drop:
            return branch
        keep = 1 - self.drop
        kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, (len(branch), 1, 1))
        return jnp.where(kept, branch / keep, 0)


class ViT(nn.Module):
    """Patches, transformer blocks, and a linear head on the class token.

    Attributes:
      width: size D of a token.
      depth: number of blocks.
      patch, drop_path, remat: see ``ModelConfig``.
      dtype: dtype of the blocks. Parameters, the last LayerNorm and the head are float32.
    """

    num_classes: int
    width: int
    depth: int
    heads: int
    patch: int
    drop_path: float
    remat: bool
    dtype: jnp.dtype

    def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the logits ``[B K]`` and features ``[B D]`` of normalised images ``[B H W C]``.

        Their size is that of the initialisation. In training, branches are dropped by the random
        key "drop_path".

        Raises:
          ValueError: a side of the images is not a multiple of the patch's.
        """
        layers = self.layers(images, train)
        return layers["logits"], layers["features"]

    @nn.compact
    def layers(self, images: jax.Array, train: bool) -> OrderedDict[str, jax.Array]:
        """Returns the class token after every block by name, ``block1 [B D]`` and so on.

        Then come ``features`` and ``logits``. Under ``jit``, unused ones are not computed, and an
        OrderedDict keeps its order.
        """
        block = nn.remat(Block) if self.remat else Block
        drops = np.linspace(0, self.drop_path if train else 0, self.depth)
        x = self._embed(images)
        tokens = {}
        for index, drop in enumerate(drops, start=1):
            # After the last block only the class token is used.
            length = x.shape[1] if index < self.depth else 1
            x = block(self.heads, length, float(drop), self.dtype, name=f"block{index}")(x)
            tokens[f"block{index}"] = x[:, 0].astype(jnp.float32)
        features = _LayerNorm(name="norm")(tokens[f"block{self.depth}"])
        logits = _Dense(self.num_classes, name="head")(features)
        return OrderedDict(tokens, features=features, logits=logits)

    def _embed(self, images: jax.Array) -> jax.Array:
        """Returns the tokens ``[B N D]``: the class token, then the patches row by row."""
        batch, height, width, _ = images.shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"images of {height} x {width} cannot be cut into patches of {self.patch} x "
                f"{self.patch}; change --data.image_size or --model.patch."
            )
        side = (self.patch, self.patch)
        embed = nn.Conv(
            self.width, side, side, "VALID", dtype=self.dtype, kernel_init=_INIT, name="patches"
        )
        x = embed(images).reshape(batch, -1, self.width)
        token = self.param("class_token", _INIT, (self.width,), jnp.float32)
        position = self.param("position", _INIT, (x.shape[1] + 1, self.width), jnp.float32)
        token = jnp.broadcast_to(token, (batch, 1, self.width))
        return (jnp.concatenate([token, x], axis=1) + position).astype(self.dtype)


MEMBERS: dict[str, Callable[..., nn.Module]] = {
    "_vit_nano": partial(ViT, width=16, depth=2, heads=2),  # Compiles fast, for tests.
    "deit_ti": partial(ViT, width=192, depth=12, heads=3),
    "deit_s": partial(ViT, width=384, depth=12, heads=6),
    "deit_b": partial(ViT, width=768, depth=12, heads=12),
}
