"""Which image stands at which place of an epoch, and the random numbers that belong to the place.

Both are functions of (seed, epoch, place) and of nothing else: no process, worker or thread, and no
batch drawn before, has a part in them. This is what makes a run the same on any number of
processes, and a resumed one go on where it stopped.

The permutation is Grain's ``index_shuffle``, a cipher on the numbers below N, so any place can be
asked for alone. The generators are NumPy's Philox, with one key per seed and the number of the
place, ``epoch * N + place``, as the top word of the counter: 2**192 blocks for each place.
"""

import numpy as np
from grain.experimental import index_shuffle


class Order:
    """The order of ``images`` images under a seed."""

    def __init__(self, images: int, seed: int) -> None:
        """Derives the seeds of the permutations and of the generators."""
        self._images = images
        self._shuffle_seed = _derived(seed, 1)
        self.key: np.ndarray = np.random.Philox(_derived(seed, 2)).state["state"]["key"]

    def image(self, epoch: int, place: int) -> int:
        """Returns the image at a place of the epoch's permutation, which goes round."""
        return index_shuffle(
            place % self._images,
            max_index=self._images - 1,
            seed=(self._shuffle_seed + epoch) % 2**32,
            rounds=4,
        )

    def number(self, epoch: int, place: int) -> int:
        """Returns the number of the place in the whole run."""
        return epoch * self._images + place

    def generator(self, number: int) -> np.random.Generator:
        """Returns a new generator at the start of the random numbers of a place."""
        counter = np.array((0, 0, 0, number), np.uint64)
        return np.random.Generator(np.random.Philox(key=self.key, counter=counter))


def _derived(seed: int, part: int) -> int:
    return int(np.random.SeedSequence((seed, part)).generate_state(1)[0])
