"""Residual networks, "v1.5": in a bottleneck the stride sits in the 3x3 convolution.

The features are the global average of the last stage, ``D = width * 2**(stages - 1)`` times the
block's expansion. Members with four stages are those of He et al. (2016), section 4.1; those with
three stages, meant for small images, follow section 4.2 with projection shortcuts.

Reference: K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from train.models.norm import BatchNorm

Layer = Callable[..., Any]


_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(
    channels: int, size: int, stride: int = 1, *, dtype: jnp.dtype, name: str | None = None
) -> nn.Conv:
    # Explicit padding as in torch: SAME would shift the windows of stride 2 by a pixel.
    return nn.Conv(
        channels,
        (size, size),
        stride,
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=_INIT,
        name=name,
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    channels: int
    stride: int
    conv: Layer
    norm: Layer
    expansion = 1

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps ``[B H W C]`` to ``[B H/stride W/stride channels]``."""
        x = self.conv(self.channels, 3, self.stride)(inputs)
        x = nn.relu(self.norm()(x))
        x = self.conv(self.channels, 3)(x)
        x = self.norm()(x)
        if inputs.shape != x.shape:
            inputs = self.conv(self.channels, 1, self.stride, name="shortcut_conv")(inputs)
            inputs = self.norm(name="shortcut_norm")(inputs)
        return nn.relu(x + inputs)


class BottleneckBlock(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the channels, around a shortcut."""

    channels: int
    stride: int
    conv: Layer
    norm: Layer
    expansion = 4

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps ``[B H W C]`` to ``[B H/stride W/stride 4*channels]``."""
        x = self.conv(self.channels, 1)(inputs)
        x = nn.relu(self.norm()(x))
        x = self.conv(self.channels, 3, self.stride)(x)
        x = nn.relu(self.norm()(x))
        x = self.conv(self.channels * self.expansion, 1)(x)
        x = self.norm()(x)
        if inputs.shape != x.shape:
            channels = self.channels * self.expansion
            inputs = self.conv(channels, 1, self.stride, name="shortcut_conv")(inputs)
            inputs = self.norm(name="shortcut_norm")(inputs)
        return nn.relu(x + inputs)


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the average over positions and a linear head.

    Attributes:
      stage_sizes: numbers of residual blocks of the stages.
      width, stem, dropout, bn_group: see ``ModelConfig``; dropout takes the random key "dropout".
      dtype: dtype of convolutions and activations. Parameters, statistics, averages over positions
        and the head are float32.
    """

    num_classes: int
    stage_sizes: Sequence[int]
    block: type[BasicBlock] | type[BottleneckBlock]
    width: int
    stem: str
    dropout: float
    bn_group: int
    dtype: jnp.dtype

    def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns logits ``[B K]`` and features ``[B D]`` of normalised images ``[B H W C]``."""
        layers = self.layers(images, train)
        return layers["logits"], layers["features"]

    @nn.compact
    def layers(self, images: jax.Array, train: bool) -> OrderedDict[str, jax.Array]:
        """Returns the activations of every depth by name, averaged over positions.

        These are ``stem [B width]``, ``stage1_block1`` and so on, with ``features`` in place of the
        last block's name, and ``logits``. Under ``jit``, unused ones are not computed, and an
        OrderedDict keeps its order.
        """
        conv = partial(_conv, dtype=self.dtype)
        norm = partial(BatchNorm, group=self.bn_group, train=train, dtype=self.dtype)
        x = self._stem(images, conv, norm)
        pooled = {"stem": _average(x)}
        for stage, blocks in enumerate(self.stage_sizes):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"stage{stage + 1}_block{index + 1}"
                x = self.block(self.width * 2**stage, stride, conv, norm, name=name)(x)
                pooled[name] = _average(x)
        features = pooled.pop(name)
        read = nn.Dropout(self.dropout, deterministic=not train)(features)
        logits = nn.Dense(self.num_classes, name="head")(read)
        return OrderedDict(pooled, features=features, logits=logits)

    def _stem(self, images: jax.Array, conv: Layer, norm: Layer) -> jax.Array:
        if self.stem in ("cifar", "half"):
            x = conv(self.width, 3, 2 if self.stem == "half" else 1, name="stem_conv")(images)
            return nn.relu(norm(name="stem_norm")(x))
        x = conv(self.width, 7, 2, name="stem_conv")(images)
        x = nn.relu(norm(name="stem_norm")(x))
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def _average(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


MEMBERS: dict[str, Callable[..., nn.Module]] = {
    "_resnet6": partial(ResNet, stage_sizes=(1, 1), block=BasicBlock),  # Compiles fast, for tests.
    "resnet8": partial(ResNet, stage_sizes=(1, 1, 1), block=BasicBlock),
    "resnet20": partial(ResNet, stage_sizes=(3, 3, 3), block=BasicBlock),
    "resnet18": partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock),
    "resnet34": partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock),
    "resnet50": partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BottleneckBlock),
    "resnet101": partial(ResNet, stage_sizes=(3, 4, 23, 3), block=BottleneckBlock),
    "resnet152": partial(ResNet, stage_sizes=(3, 8, 36, 3), block=BottleneckBlock),
}
