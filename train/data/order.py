"""The order of the images in each epoch, and the random numbers of each position.

Both are functions of (seed, epoch, position) alone, and independent of processes, workers, threads
and earlier batches. So a run is the same on any number of processes, and a resumed run continues
exactly.

The permutation is Grain's ``index_shuffle``, a cipher on the numbers below N, so each position can
be computed alone. The generators are NumPy's Philox, with one key per seed and the number of the
position, ``epoch * N + position``, as the top word of the counter: 2**192 blocks for each.
"""

import numpy as np
from grain.experimental import index_shuffle


class Order:
    """The order of ``images`` images under a seed."""

    def __init__(self, images: int, seed: int) -> None:
        self._images = images
        self._shuffle_seed = _derived(seed, 1)
        self._key: np.ndarray = np.random.Philox(_derived(seed, 2)).state["state"]["key"]

    def image(self, epoch: int, position: int) -> int:
        """Returns the image at a position of the epoch's permutation, modulo N."""
        return index_shuffle(
            position % self._images,
            max_index=self._images - 1,
            seed=(self._shuffle_seed + epoch) % 2**32,
            rounds=4,
        )

    def number(self, epoch: int, position: int) -> int:
        """Returns the number of a position in the whole run."""
        return epoch * self._images + position

    def generator(self, number: int) -> np.random.Generator:
        """Returns a new generator at the start of the random numbers of a position."""
        counter = np.array((0, 0, 0, number), np.uint64)
        return np.random.Generator(np.random.Philox(key=self._key, counter=counter))


def _derived(seed: int, part: int) -> int:
    return int(np.random.SeedSequence((seed, part)).generate_state(1)[0])
