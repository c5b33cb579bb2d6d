"""Grain pipelines from a split to host batches ``{"image", "label"}`` or ``{..., "mask"}``.

A batch is a function of its number alone: see ``order`` for which images it holds and what is drawn
for them. Grain calls that function for the numbers to come, in threads or in worker processes, and
hands the batches over in order; how many of them were taken is the whole state of a stream.
Grain's own shuffling and sharding would give each process a part of the epoch, and so another order
for another number of processes.

Images in memory are augmented one by one like all others: of 32 x 32 pixels, 23,000 to 29,000 a
second with two threads on two busy cores, which no training on that machine waits for.

Several processes divide each batch: process p of P makes the rows from ``p / P`` to ``(p + 1) / P``
of it, so their shares, put together in the order of the processes, are the batch that one process
would have made.

An image that cannot be read is counted, and its place is taken by the next image of the epoch's
order that can be, under the random numbers of the place; in evaluation the place is masked.
"""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing import resource_tracker
from typing import Any, NamedTuple, Self

import grain
import jax
import numpy as np
from absl import flags

from train.config import ConfigError, DataConfig
from train.data.arrays import Arrays
from train.data.augment import Stored, test_transform, training_transform
from train.data.decode import UnreadableImage
from train.data.order import Order
from train.data.sources import Split, check_unreadable, unreadable_reason
from train.errors import DataError, WorkerError
from train.preemption import REQUESTS

Batch = dict[str, np.ndarray]

# More batches than any run takes.
_ENDLESS = 2**48


class Share(NamedTuple):
    """Which part of every batch a process makes."""

    index: int  # type: ignore[assignment]  # shadows tuple.index, on purpose
    count: int  # type: ignore[assignment]  # shadows tuple.count, on purpose

    def of(self, rows: int) -> range:
        """Returns the rows of this process among ``rows`` that the processes share equally."""
        return range(rows * self.index // self.count, rows * (self.index + 1) // self.count)


def own_share() -> Share:
    """Returns the share of this process in a run of ``jax.process_count()``."""
    return Share(jax.process_index(), jax.process_count())


class TrainingBatches:
    """An endless iterator of augmented batches; ``get_state`` and ``set_state`` move it exactly."""

    def __init__(self, split: Split, config: DataConfig, make: Callable[[int], Any]) -> None:
        """Starts at the first batch; nothing is read before it is asked for.

        Args:
          split: for the count of its unreadable images.
          config: with what reads.
          make: returns the batch of a number, and the images that could not be read for it.
        """
        self._unreadable, self._config, self._make = split.unreadable, config, make
        self._taken = 0
        self._stream: grain.DatasetIterator | None = None

    def __iter__(self) -> Self:
        """Returns itself."""
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
          DataError: too many images cannot be read.
        WorkerError: a worker process died.
        """
        first = self._stream is None
        if self._stream is None:
            self._stream = _stream(self._make, range(self._taken, _ENDLESS), self._config)
        with translate_death(), spared() if first else contextlib.nullcontext():
            batch, found = next(self._stream)
        self._unreadable.add(found)
        self._taken += 1
        return _own(batch)

    def get_state(self) -> dict[str, Any]:
        """Returns, as JSON, how many batches were taken and which images could not be read."""
        return {"taken": self._taken, "unreadable": dict(self._unreadable.reasons)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to where ``get_state`` was called."""
        self.close()
        self._taken = state["taken"]
        self._unreadable.add(state["unreadable"])

    def close(self) -> None:
        """Ends threads and worker processes; the next batch would start them again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def training_batches(
    split: Split, config: DataConfig, seed: int, share: Share | None = None
) -> TrainingBatches:
    """Returns the batches of a run, from its first step on.

    An epoch has ``N // batch_size`` batches; the rest of its permutation is left out, another rest
    in each epoch. With ``repeats`` R, R neighbouring places of an epoch hold one image, each time
    augmented anew, so an epoch sees 1/R of the images, in as many steps.

    Args:
      split: with the images.
      config: with the batch size, the transform, and what reads.
      seed: of the order and the transforms.
      share: of this process; by default its own among those of the run.

    Raises:
      ConfigError: the split has fewer images than a batch.
    """
    steps_per_epoch(split, config)
    return TrainingBatches(split, config, _Training(split, config, seed, share or own_share()))


def steps_per_epoch(split: Split, config: DataConfig) -> int:
    """Returns how many batches an epoch has.

    Raises:
      ConfigError: none, for want of images.
    """
    if config.batch_size > split.size:
        raise ConfigError(
            f"--data.batch_size is {config.batch_size}, more than the {split.size} training "
            "images; lower it."
        )
    return split.size // config.batch_size


def evaluation_batches(
    split: Split,
    config: DataConfig,
    batch_size: int,
    padded_size: int,
    share: Share | None = None,
) -> Generator[Batch, None, None]:
    """Yields every image of the split once, in order, in batches of equal shape.

    Args:
      split: what to go through.
      config: with the transform, and what reads.
      batch_size: images taken per batch, by all processes; the last one may have fewer.
      padded_size: rows of every batch, at least ``batch_size``; rows that hold no image are zeros
        with ``mask`` 0, and all others have ``mask`` 1.
      share: of this process in the rows; by default its own among those of the run.
    """
    if isinstance(split.records, Arrays) and not config.image_size:
        config = dataclasses.replace(config, workers=0)  # Nothing to do that is worth a process.
    make = _Evaluation(split, config, (batch_size, padded_size), share or own_share())
    numbers = range(-(-split.size // batch_size))
    with contextlib.closing(_stream(make, numbers, config)) as stream, translate_death():
        with spared():
            made = next(stream, None)
        while made is not None:
            batch, found = made
            split.unreadable.add(found)
            yield _own(batch)
            made = next(stream, None)


def _stream(
    make: Callable[[int], Any], numbers: range, config: DataConfig
) -> grain.DatasetIterator:
    """Returns what ``make`` returns for each number, in order, made ahead by threads or workers.

    Batches of photographs are large (150 MB for 1024), so a worker holds no more of them than those
    its threads are at, and one that is done.
    """
    ahead = config.threads if config.workers else 2 * config.threads
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=ahead)
    batches = grain.MapDataset.range(numbers.start, numbers.stop).map(make)
    stream = batches.to_iter_dataset(options)
    if config.workers:
        workers = grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=1)
        if not flags.FLAGS.is_parsed():  # Grain's worker processes read its flags' defaults.
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(workers, worker_init_fn=start_worker)
    return iter(stream)


def _own(batch: Batch) -> Batch:
    """Returns the batch in memory of this process, not in that shared with a worker.

    Grain frees shared memory with the last reference to it. JAX may hold one, on a CPU, for as long
    as the program runs, and longer than Grain can still free anything.
    """
    return {
        name: rows if type(rows) is np.ndarray else np.array(rows) for name, rows in batch.items()
    }


class _Training:
    """Makes the training batch of a number."""

    def __init__(self, split: Split, config: DataConfig, seed: int, share: Share) -> None:
        self._records, self._image_shape = split.records, split.image_shape
        self._config, self._share = config, share
        self._order = Order(split.size, seed)
        self._reader = _Reader(split, config)
        self._transform = training_transform(config)

    def __call__(self, number: int) -> tuple[Batch, dict[str, str]]:
        size = self._config.batch_size
        epoch, batch = divmod(number, self._records.size // size)
        places = [batch * size + row for row in self._share.of(size)]
        numbers = [self._order.number(epoch, place) for place in places]
        images, labels = self._reader.space(len(places))
        found: dict[str, str] = {}
        for row, (place, number) in enumerate(zip(places, numbers, strict=True)):
            images[row], labels[row] = self._first_readable(epoch, place, number, found)
        return {"image": images, "label": labels}, found

    def _first_readable(
        self, epoch: int, place: int, number: int, found: dict[str, str]
    ) -> tuple[np.ndarray, int]:
        """Returns the image that belongs at a place, or the first one after it."""

        def transform(stored: Stored) -> np.ndarray:
            return self._transform(stored, self._order.generator(number))

        first = place // self._config.repeats
        for step in range(self._records.size):
            index = self._order.image(epoch, first + step)
            read = self._reader.read(index, transform, found)
            if read is not None:
                return read
        raise DataError("not one of the training images can be read.")


class _Evaluation:
    """Makes the evaluation batch of a number."""

    def __init__(
        self, split: Split, config: DataConfig, sizes: tuple[int, int], share: Share
    ) -> None:
        self._size, self._sizes, self._share = split.size, sizes, share
        self._reader = _Reader(split, config)
        self._transform = test_transform(config)

    def __call__(self, number: int) -> tuple[Batch, dict[str, str]]:
        batch_size, padded_size = self._sizes
        start, end = number * batch_size, min((number + 1) * batch_size, self._size)
        own = self._share.of(padded_size)
        images, labels = self._reader.space(len(own))
        mask = np.zeros(len(own), np.float32)
        found: dict[str, str] = {}
        for row, index in enumerate(range(start + own.start, min(start + own.stop, end))):
            read = self._reader.read(index, self._transform, found)
            if read is not None:
                images[row], labels[row] = read
                mask[row] = 1
        return {"image": images, "label": labels, "mask": mask}, found


class _Reader:
    """Reads and transforms single images of a split, and notes those that it cannot."""

    def __init__(self, split: Split, config: DataConfig) -> None:
        self._records, self._shape = split.records, split.image_shape
        self._limit = config.max_unreadable

    def space(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns room for images and labels, all zeros."""
        return np.zeros((rows, *self._shape), np.uint8), np.zeros(rows, np.int32)

    def read(
        self, index: int, transform: Callable[[Stored], np.ndarray], found: dict[str, str]
    ) -> tuple[np.ndarray, int] | None:
        """Returns a transformed image and its label; None, with a note in ``found``, if broken.

        Raises:
          ConfigError: the image is of another size than the rest.
        DataError: too many are broken.
        """
        try:
            stored, label = self._records.read(index)
            image = transform(stored)
        except (UnreadableImage, OSError) as error:
            found[self._records.name_of(index)] = unreadable_reason(error)
            check_unreadable(found, self._limit)
            return None
        if image.shape != self._shape:
            raise ConfigError(
                f"{self._records.name_of(index)} is {image.shape[0]} x {image.shape[1]} pixels, "
                f"and the first image is {self._shape[0]} x {self._shape[1]}; a batch needs one "
                "size: set --data.image_size."
            )
        return image, label


_LOOK_EVERY_SECONDS = 1.0
_GRAIN_SAYS = "Worker process was terminated unexpectedly"


def start_worker(index: int, count: int) -> None:
    """Runs first in each worker process: lets it end when the training process is gone, only then.

    Killed with SIGKILL, that process cannot stop its workers, and they would wait forever for it to
    take their batches. Signals that reach the whole group, Ctrl-C and requests to end, are its own
    affair: it needs its workers until it has saved, and stops them itself.
    """
    del index, count
    for request in (signal.SIGINT, *REQUESTS):
        signal.signal(request, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


@contextlib.contextmanager
def spared() -> Iterator[None]:
    """Holds requests to end back while workers start, until they can ignore them.

    A process begins with the signal mask of the thread that starts it. The first thread to start
    one starts multiprocessing's resource tracker too, which would let SIGTERM in there: so the
    tracker comes first.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def translate_death() -> Iterator[None]:
    """Turns Grain's report of a dead worker into a WorkerError that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(_GRAIN_SAYS):
            raise
        code = str(error).removeprefix(_GRAIN_SAYS).strip().partition(".")[0]
        raise WorkerError(
            f"a worker process that reads images died {code}. Often -9 means that memory was short "
            "(lower --data.workers, which a resumed run may change), and -7 that /dev/shm was "
            "(docker run --shm-size=16g). The same command resumes from the last checkpoint."
        ) from error
