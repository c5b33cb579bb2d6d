"""Grain pipelines from a split to host batches ``{"image", "label"}`` or ``{..., "mask"}``.

A batch is a function of its number alone: ``order`` decides its images and their random numbers.
Grain calls that function ahead of time, in threads or in worker processes, and returns the batches
in order; the state of a stream is the number of batches taken. Grain's own shuffling and sharding
would give another order for another number of processes.

Images in memory are augmented one by one like all others: 23,000 to 29,000 a second of 32 x 32
pixels, with two threads on two busy cores.

Several processes divide each batch: process p of P makes the rows from ``p / P`` to ``(p + 1) / P``
of it, so together they make the batch of a single process.

An image that cannot be read is counted and replaced by the next readable one of the epoch's order,
with the random numbers of its position; in evaluation it is masked.
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

# Number of batches of an endless stream.
_ENDLESS = 2**48


class Share(NamedTuple):
    """The part of every batch that a process makes."""

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
        """Starts at the first batch; ``make`` returns a batch and its unreadable images."""
        self._unreadable, self._config, self._make = split.unreadable, config, make
        self._taken = 0
        self._stream: grain.DatasetIterator | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
          DataError: too many images cannot be read.
          WorkerError: a worker process died.
        """
        starting = 0
        if self._stream is None:
            self._stream = _stream(self._make, range(self._taken, _ENDLESS), self._config)
            starting = self._config.processes
        with _worker_errors(), blocked_requests(starting):
            batch, unreadable = next(self._stream)
        self._unreadable.add(unreadable)
        self._taken += 1
        return _copied(batch)

    def get_state(self) -> dict[str, Any]:
        """Returns, as JSON, the number of batches taken and the unreadable images."""
        return {"taken": self._taken, "unreadable": dict(self._unreadable.reasons)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to the position of ``get_state``."""
        self.close()
        self._taken = state["taken"]
        self._unreadable.add(state["unreadable"])

    def close(self) -> None:
        """Ends threads and worker processes; the next batch starts them again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def training_batches(
    split: Split, config: DataConfig, seed: int, share: Share | None = None
) -> TrainingBatches:
    """Returns the batches of a run, from its first step on.

    An epoch has ``N // batch_size`` batches and leaves out the rest of its permutation. With
    ``repeats`` R, R neighbouring positions of an epoch hold one image, augmented independently, so
    an epoch of as many steps has 1/R of the images.

    Args:
      split: the images.
      config: the batch size, the transform, workers and threads.
      seed: seed of the order and the transforms.
      share: the share of this process; by default that of its JAX process index.

    Raises:
      ConfigError: the split has fewer images than a batch.
    """
    steps_per_epoch(split, config)
    return TrainingBatches(split, config, _TrainingBatch(split, config, seed, share or own_share()))


def steps_per_epoch(split: Split, config: DataConfig) -> int:
    """Returns the number of batches of an epoch; raises ConfigError if an epoch has no batch."""
    if config.batch_size > split.size:
        raise ConfigError(
            f"--data.batch_size is {config.batch_size}, more than the {split.size} training "
            "images; lower it."
        )
    return split.size // config.batch_size


def evaluation_batches(
    split: Split, config: DataConfig, batch_size: int, padded_size: int, share: Share | None = None
) -> Generator[Batch, None, None]:
    """Yields every image of the split once, in order, in batches of equal shape.

    Args:
      split: the images.
      config: the transform, workers and threads.
      batch_size: images per batch, of all processes; the last one may have fewer.
      padded_size: rows of every batch, at least ``batch_size``; rows without an image are zeros
        with ``mask`` 0, and all others have ``mask`` 1.
      share: the share of this process; by default that of its JAX process index.
    """
    if isinstance(split.records, Arrays) and not config.image_size:
        config = dataclasses.replace(config, workers=0)  # Too little work for a process.
    make = _EvaluationBatch(split, config, (batch_size, padded_size), share or own_share())
    numbers = range(-(-split.size // batch_size))
    with contextlib.closing(made_in_order(make, numbers, config)) as results:
        for batch, unreadable in results:
            split.unreadable.add(unreadable)
            yield _copied(batch)


def made_in_order(
    make: Callable[[int], Any], numbers: range, config: DataConfig
) -> Generator[Any, None, None]:
    """Yields ``make(number)`` for each number, by the workers and threads of the config.

    Raises:
      WorkerError: a worker process died.
    """
    with contextlib.closing(_stream(make, numbers, config)) as stream, _worker_errors():
        with blocked_requests(config.processes):
            made = next(stream, None)
        while made is not None:
            yield made
            made = next(stream, None)


def _stream(
    make: Callable[[int], Any], numbers: range, config: DataConfig
) -> grain.DatasetIterator:
    """Returns the results of ``make`` in order, made ahead of time by threads or workers.

    Batches of photographs are large (150 MB for 1024), so a worker holds no more than one batch a
    thread, and one that is finished.
    """
    ahead = config.threads if config.processes else 2 * config.threads
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=ahead)
    batches = grain.MapDataset.range(numbers.start, numbers.stop).map(make)
    stream = batches.to_iter_dataset(options)
    if config.processes:
        workers = grain.MultiprocessingOptions(
            num_workers=config.processes, per_worker_buffer_size=1
        )
        if not flags.FLAGS.is_parsed():  # Grain's worker processes read the flags.
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(workers, worker_init_fn=_start_worker)
    return iter(stream)


def _copied(batch: Batch) -> Batch:
    """Returns the batch in memory of this process instead of memory shared with a worker.

    Grain frees shared memory with the last reference to it. On a CPU, JAX may hold one until the
    program ends, when Grain can no longer free it.
    """
    return {
        name: rows if type(rows) is np.ndarray else np.array(rows) for name, rows in batch.items()
    }


class _TrainingBatch:
    """Makes the training batch of a number; can be pickled."""

    def __init__(self, split: Split, config: DataConfig, seed: int, share: Share) -> None:
        self._records, self._image_shape = split.records, split.image_shape
        self._config, self._share = config, share
        self._order = Order(split.size, seed)
        self._reader = _Reader(split, config)
        self._transform = training_transform(config)

    def __call__(self, number: int) -> tuple[Batch, dict[str, str]]:
        size = self._config.batch_size
        epoch, batch = divmod(number, self._records.size // size)
        positions = [batch * size + row for row in self._share.of(size)]
        images, labels = self._reader.empty(len(positions))
        unreadable: dict[str, str] = {}
        for row, position in enumerate(positions):
            images[row], labels[row] = self._first_readable(epoch, position, unreadable)
        return {"image": images, "label": labels}, unreadable

    def _first_readable(
        self, epoch: int, position: int, unreadable: dict[str, str]
    ) -> tuple[np.ndarray, int]:
        """Returns the image at a position, or the first readable one after it."""
        number = self._order.number(epoch, position)

        def transform(stored: Stored) -> np.ndarray:
            return self._transform(stored, self._order.generator(number))

        first = position // self._config.repeats
        for step in range(self._records.size):
            index = self._order.image(epoch, first + step)
            sample = self._reader.read(index, transform, unreadable)
            if sample is not None:
                return sample
        raise DataError("not one of the training images can be read.")


class _EvaluationBatch:
    """Makes the evaluation batch of a number; can be pickled."""

    def __init__(
        self, split: Split, config: DataConfig, sizes: tuple[int, int], share: Share
    ) -> None:
        self._size, self._sizes, self._share = split.size, sizes, share
        self._reader = _Reader(split, config)
        self._transform = test_transform(config)

    def __call__(self, number: int) -> tuple[Batch, dict[str, str]]:
        batch_size, padded_size = self._sizes
        start, end = number * batch_size, min((number + 1) * batch_size, self._size)
        rows = self._share.of(padded_size)
        images, labels = self._reader.empty(len(rows))
        mask = np.zeros(len(rows), np.float32)
        unreadable: dict[str, str] = {}
        for row, index in enumerate(range(start + rows.start, min(start + rows.stop, end))):
            sample = self._reader.read(index, self._transform, unreadable)
            if sample is not None:
                images[row], labels[row] = sample
                mask[row] = 1
        return {"image": images, "label": labels, "mask": mask}, unreadable


class _Reader:
    """Reads and transforms single images of a split, and collects the unreadable ones."""

    def __init__(self, split: Split, config: DataConfig) -> None:
        self._records, self._shape = split.records, split.image_shape
        self._limit = config.max_unreadable

    def empty(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels of zeros."""
        return np.zeros((rows, *self._shape), np.uint8), np.zeros(rows, np.int32)

    def read(
        self, index: int, transform: Callable[[Stored], np.ndarray], unreadable: dict[str, str]
    ) -> tuple[np.ndarray, int] | None:
        """Returns a transformed image and its label, or None and an entry in ``unreadable``.

        Raises:
          ConfigError: the image is of another size than the rest.
          DataError: too many are broken.
        """
        try:
            stored, label = self._records.read(index)
            image = transform(stored)
        except (UnreadableImage, OSError) as error:
            unreadable[self._records.name_of(index)] = unreadable_reason(error)
            check_unreadable(unreadable, self._limit)
            return None
        if image.shape != self._shape:
            raise ConfigError(
                f"{self._records.name_of(index)} is {image.shape[0]} x {image.shape[1]} pixels, "
                f"and the first image is {self._shape[0]} x {self._shape[1]}; a batch needs one "
                "size: set --data.image_size."
            )
        return image, label


_CHECK_PARENT_SECONDS = 1.0
_GRAIN_MESSAGE = "Worker process was terminated unexpectedly"


def _start_worker(index: int, count: int) -> None:
    """Runs first in each worker process: makes it end with the training process, and only then.

    A training process killed with SIGKILL cannot stop its workers, which would wait forever.
    Ctrl-C and requests to end reach the whole group, but training needs its workers until it has
    saved, and stops them itself.
    """
    del index, count
    for request in (signal.SIGINT, *REQUESTS):
        signal.signal(request, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)
    parent = os.getppid()

    def exit_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(_CHECK_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True, name="parent-watch").start()


@contextlib.contextmanager
def blocked_requests(workers: int) -> Iterator[None]:
    """Blocks requests to end while workers start; they inherit the mask, and then ignore them.

    The first thread to start a process also starts multiprocessing's resource tracker, which would
    unblock SIGTERM in that thread: so the tracker comes first. Without workers nothing is done.
    """
    if not workers:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _worker_errors() -> Iterator[None]:
    """Turns Grain's report of a dead worker into WorkerError with the remedy."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(_GRAIN_MESSAGE):
            raise
        code = str(error).removeprefix(_GRAIN_MESSAGE).strip().partition(".")[0]
        raise WorkerError(
            f"a worker process that reads images died {code}. Often -9 means that memory was short "
            "(lower --data.workers, which a resumed run may change), and -7 that /dev/shm was "
            "(docker run --shm-size=16g). The same command resumes from the last checkpoint."
        ) from error
