"""Residual networks, "v1.5": in a bottleneck the stride sits in the 3x3 convolution.

The features are the global average of the last stage, ``D = width * 2**(stages - 1)`` times the
block's expansion. Members with four stages are those of He et al. (2016), section 4.1; those with
three stages, meant for small images, follow section 4.2 with projection shortcuts.

Reference: K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Layer = Callable[..., Any]


def _conv(channels: int, size: int, stride: int = 1, name: str | None = None) -> nn.Conv:
    # Explicit padding, as torch has it: SAME would shift the windows of stride 2 by a pixel.
    return nn.Conv(
        channels,
        (size, size),
        stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        name=name,
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    channels: int
    stride: int
    norm: Layer
    expansion = 1

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps ``[B H W C]`` to ``[B H/stride W/stride channels]``."""
        x = _conv(self.channels, 3, self.stride)(inputs)
        x = nn.relu(self.norm()(x))
        x = _conv(self.channels, 3)(x)
        x = self.norm()(x)
        return nn.relu(x + _shortcut(inputs, x, self.stride, self.norm))


class BottleneckBlock(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the channels, around a shortcut."""

    channels: int
    stride: int
    norm: Layer
    expansion = 4

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps ``[B H W C]`` to ``[B H/stride W/stride 4*channels]``."""
        x = _conv(self.channels, 1)(inputs)
        x = nn.relu(self.norm()(x))
        x = _conv(self.channels, 3, self.stride)(x)
        x = nn.relu(self.norm()(x))
        x = _conv(self.channels * self.expansion, 1)(x)
        x = self.norm()(x)
        return nn.relu(x + _shortcut(inputs, x, self.stride, self.norm))


def _shortcut(inputs: jax.Array, outputs: jax.Array, stride: int, norm: Layer) -> jax.Array:
    if inputs.shape == outputs.shape:
        return inputs
    projected = _conv(outputs.shape[-1], 1, stride, name="shortcut_conv")(inputs)
    return norm(name="shortcut_norm")(projected)


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the average over positions and a linear head."""

    num_classes: int
    stage_sizes: Sequence[int]
    block: type[BasicBlock] | type[BottleneckBlock]
    width: int
    stem: str

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the logits ``[B K]`` and the features ``[B D]`` that the head reads.

        Args:
          images: normalised, ``[B H W C]``.
          train: whether BatchNorm uses, and records, the statistics of this batch.
        """
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        x = self._stem(images, norm)
        for stage, blocks in enumerate(self.stage_sizes):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"stage{stage + 1}_block{index + 1}"
                x = self.block(self.width * 2**stage, stride, norm, name=name)(x)
        features = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="head")(features)
        return logits, features

    def _stem(self, images: jax.Array, norm: Layer) -> jax.Array:
        if self.stem == "cifar":
            x = _conv(self.width, 3, name="stem_conv")(images)
            return nn.relu(norm(name="stem_norm")(x))
        x = _conv(self.width, 7, 2, name="stem_conv")(images)
        x = nn.relu(norm(name="stem_norm")(x))
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


resnet18 = partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
resnet34 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
resnet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BottleneckBlock)
resnet101 = partial(ResNet, stage_sizes=(3, 4, 23, 3), block=BottleneckBlock)
resnet152 = partial(ResNet, stage_sizes=(3, 8, 36, 3), block=BottleneckBlock)
resnet8 = partial(ResNet, stage_sizes=(1, 1, 1), block=BasicBlock)
resnet20 = partial(ResNet, stage_sizes=(3, 3, 3), block=BasicBlock)
_resnet6 = partial(ResNet, stage_sizes=(1, 1), block=BasicBlock)  # For tests: compiles fast.
