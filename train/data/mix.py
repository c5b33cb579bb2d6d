"""Mixup, cutmix and label smoothing of one batch on the device.

Both mix image i with a partner j. Mixup: ``lam x_i + (1 - lam) x_j``, lam from Beta(alpha, alpha).
Cutmix: x_i with a box of area (1 - lam) HW taken from x_j; the box is centred anywhere and clipped
at the border, and lam becomes the share that remains. Targets follow: ``lam y_i + (1 - lam) y_j``.
As in timm, one draw holds for the whole batch: lam, the box, and which of the two it is.

Pixels are mixed as float32 before they are normalised, which gives the same as after, since the
shares of two images add up to 1 in every pixel.

timm pairs a batch with its reverse, which sends every image to another device. Here the partner
lies in a small block of consecutive images, so nothing leaves a device that holds whole blocks, and
the number of devices changes nothing; the order of the images is random in any case. With repeated
augmentation, a batch holds ``repeats`` versions of an image in a row. As in timm, no two versions
are mixed with each other, nor with versions of one other image.

References: Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019, Eq. 1-2; Szegedy et al.,
Rethinking the Inception architecture, CVPR 2016 (label smoothing).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from train.config import ConfigError, MixConfig

Batch = dict[str, jax.Array]


def build(config: MixConfig, num_classes: int, repeats: int) -> Callable[[jax.Array, Batch], Batch]:
    """Returns a pure function of a random key and a batch, to be called inside ``jit``.

    It adds ``target``, float32 ``[B K]`` with rows that add up to 1, and leaves ``label``. If
    mixup or cutmix is on, ``image`` becomes float32, in the same units.

    Raises:
      ConfigError: a setting is out of range; when traced, a batch is not divisible into blocks.
    """
    for field in ("mixup", "cutmix"):
        alpha = getattr(config, field)
        if not 0 <= alpha < float("inf"):
            raise ConfigError(f"--data.mix.{field} is {alpha}; it must be 0 (off) or positive.")
    for field in ("switch_prob", "prob", "label_smoothing"):
        chance = getattr(config, field)
        if not 0 <= chance <= 1:
            raise ConfigError(f"--data.mix.{field} is {chance}; it must be from 0 to 1.")
    return partial(_mix, config, num_classes, repeats)


def _mix(config: MixConfig, num_classes: int, repeats: int, key: jax.Array, batch: Batch) -> Batch:
    targets = _smoothed(batch["label"], num_classes, config.label_smoothing)
    if not config.mixup and not config.cutmix:
        return {**batch, "target": targets}
    images = batch["image"].astype(jnp.float32)
    size, height, width, _ = images.shape
    block = 2 * _side(repeats) ** 2
    if size % block:
        raise ConfigError(
            f"--data.mix pairs images in blocks of {block} where --data.repeats is {repeats}, and "
            f"a batch of {size} has no whole number of them; make --data.batch_size a multiple of "
            f"{block}."
        )
    share, pixel_share = _draw_shares(config, key, height, width)
    pixel_share = pixel_share[:, :, None]
    return {
        **batch,
        "image": pixel_share * images + (1 - pixel_share) * _partners(images, repeats),
        "target": share * targets + (1 - share) * _partners(targets, repeats),
    }


def _smoothed(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    onehot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    return (1 - smoothing) * onehot + smoothing / num_classes


def _side(repeats: int) -> int:
    """Returns the side q of the pairing: at least ``repeats + 1``, or 1 without repeats."""
    return 1 if repeats == 1 else 2 ** repeats.bit_length()


def _partners(rows: jax.Array, repeats: int) -> jax.Array:
    """Returns the partner of each row.

    Within a block of two squares of q x q rows, row (a, b) of one has row (b, a) of the other.
    These are at least 2q - 1 rows apart. The partners of rows that are d < q apart are dq apart,
    or q (q - d) - 1 if the first two lie on two lines: at least q for d < q - 1.
    """
    side = _side(repeats)
    blocks = rows.reshape(-1, 2, side, side, *rows.shape[1:])
    return blocks[:, ::-1].swapaxes(2, 3).reshape(rows.shape)


def _draw_shares(
    config: MixConfig, key: jax.Array, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the share of an image in its target, and in each of its pixels ``[H W]``."""
    if_key, cut_key, lam_key, box_key = jax.random.split(key, 4)
    cut_prob = config.switch_prob if config.mixup and config.cutmix else float(config.cutmix > 0)
    cut = jax.random.bernoulli(cut_key, cut_prob)
    alpha = jnp.where(cut, jnp.float32(config.cutmix), jnp.float32(config.mixup))
    lam = jax.random.beta(lam_key, alpha, alpha)
    lam = jnp.where(jax.random.bernoulli(if_key, config.prob), lam, 1.0)
    box, area = _draw_box(box_key, lam, height, width)
    share = jnp.where(cut, 1 - area / (height * width), lam)
    return share, jnp.where(cut, jnp.where(box, 0.0, 1.0), lam)


def _draw_box(
    key: jax.Array, lam: jax.Array, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Returns a mask ``[H W]`` that is true in cutmix's box, and the number of its pixels."""
    sides = jnp.array([height, width], jnp.int32)
    half = (sides * jnp.sqrt(1 - lam)).astype(jnp.int32) // 2
    centre = jax.random.randint(key, (2,), 0, sides)
    low, high = jnp.maximum(centre - half, 0), jnp.minimum(centre + half, sides)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= low[0]) & (rows < high[0]) & (columns >= low[1]) & (columns < high[1])
    return inside, jnp.prod(high - low)
