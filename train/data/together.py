"""The shift and the flip of a whole batch at once, for small images that are in memory.

NumPy spends more on handing out one generator per image than on the pixels of a CIFAR image. Here
the first block of every generator's Philox is computed in one go, and turned into the same numbers
that ``Generator.integers`` and ``Generator.random`` would have made of it, so the batch is bit for
bit the one that ``augment.training_transform`` makes image by image.

Reference: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011 (Philox4x64-10);
Lemire, Fast Random Integer Generation in an Interval, ACM TOMACS 2019 (bounded integers).
"""

import numpy as np

from train.config import DataConfig

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_ROUNDS = 10


def applies(config: DataConfig, image_shape: tuple[int, ...]) -> bool:
    """Whether shift and flip are all that happens to stored images of this shape in training."""
    return (
        config.crop in ("none", "pad")
        and config.policy == "none"
        and not config.erasing
        and (not config.image_size or image_shape[:2] == (config.image_size,) * 2)
    )


def augmented(
    images: np.ndarray, config: DataConfig, key: np.ndarray, numbers: np.ndarray
) -> np.ndarray:
    """Returns ``images [B H W C]`` shifted and flipped.

    Args:
      images: whose training transform is no more than that, see ``applies``.
      config: with the transform.
      key: of the Philox generators.
      numbers: ``uint64 [B]``, of the places where the images stand.
    """
    words = first_words(key, numbers)
    if config.crop == "pad" and config.crop_padding:
        offsets, sure = two_integers(words[0], 2 * config.crop_padding + 1)
        for row in np.flatnonzero(~sure):
            counter = np.array((0, 0, 0, numbers[row]), np.uint64)
            rng = np.random.Generator(np.random.Philox(key=key, counter=counter))
            offsets[row] = rng.integers(0, 2 * config.crop_padding + 1, size=2)
            words[1][row] = np.uint64(rng.random() * 2**53) << np.uint64(11)
        images, flip_word = _shifted(images, config.crop_padding, offsets), words[1]
    else:
        images, flip_word = images.copy(), words[0]
    if config.flip:
        rows = np.flatnonzero(flip_word < np.uint64(2**63))  # random() < 0.5
        images[rows] = images[rows, :, ::-1]
    return images


def first_words(key: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """Returns the first four words, ``uint64 [B]`` each, that the generators draw."""
    zeros = np.zeros_like(numbers)
    counter = [zeros + np.uint64(1), zeros, zeros, numbers]  # NumPy counts before it draws.
    keys = [int(word) for word in key]
    for _ in range(_ROUNDS):
        (high0, low0), (high1, low1) = (
            _multiply(word, by) for word, by in zip(counter[::2], _MULTIPLIERS, strict=True)
        )
        first, second = (np.uint64(word) for word in keys)
        counter = [high1 ^ counter[1] ^ first, low1, high0 ^ counter[3] ^ second, low0]
        keys = [(word + by) % 2**64 for word, by in zip(keys, _KEY_STEPS, strict=True)]
    return counter


def two_integers(word: np.ndarray, below: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what ``integers(0, below, size=2)`` makes of a first word, and where that is sure.

    The halves of the word, lower first, are scaled to the interval. In fewer than ``below`` out of
    2**32 cases the generator rejects one of them, to stay uniform, and draws again: not sure.
    """
    halves = np.stack([word & _LOW, word >> _HALF], axis=1)
    scaled = halves * np.uint64(below)
    rejected = (scaled & _LOW) < np.uint64((2**32 - below) % below)
    return (scaled >> _HALF).astype(np.int64), ~np.any(rejected, axis=1)


def _multiply(a: np.ndarray, b: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Returns the high and the low word of a 128-bit product, by halves of 32 bits."""
    a_low, a_high, b_low, b_high = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    cross = a_low * b_high
    middle = ((a_low * b_low) >> _HALF) + (cross & _LOW) + a_high * b_low
    return a_high * b_high + (cross >> _HALF) + (middle >> _HALF), a * b


def _shifted(images: np.ndarray, padding: int, offsets: np.ndarray) -> np.ndarray:
    """Returns the window of each zero-padded image that begins at its ``(top, left)``."""
    count, height, width, channels = images.shape
    padded = np.zeros((count, height + 2 * padding, width + 2 * padding, channels), images.dtype)
    padded[:, padding : padding + height, padding : padding + width] = images
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    windows = windows.transpose(0, 1, 2, 4, 5, 3)
    return windows[np.arange(count), offsets[:, 0], offsets[:, 1]]
