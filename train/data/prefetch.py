"""Batches on their way to the devices, one ahead of the step that uses them."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

HostBatch = TypeVar("HostBatch", covariant=True)
DeviceBatch = TypeVar("DeviceBatch")

_AHEAD = 1


class Stateful(Protocol[HostBatch]):
    """An iterator with a position that can be saved and restored."""

    def __next__(self) -> HostBatch:
        """Returns the next batch."""

    def get_state(self) -> dict[str, Any]:
        """Returns the position."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position."""


class DevicePrefetcher(Generic[DeviceBatch]):
    """Begins the transfer of the next batch before the step on this one is computed.

    The position it reports is that behind the batch it handed out last: those on their way are not
    taken yet. It keeps no reference to a batch that it handed out, so a step may have it donated.
    An error in the making of a batch appears when that batch is due.
    """

    def __init__(self, batches: Stateful, put: Callable[[Any], DeviceBatch]) -> None:
        """Takes the host batches, and what sends one to the devices without waiting."""
        self._batches, self._put = batches, put
        self._waiting: deque[tuple[DeviceBatch | Exception, dict[str, Any]]] = deque()
        self._state = batches.get_state()

    def __iter__(self) -> Iterator[DeviceBatch]:
        """Returns itself."""
        return self

    def __next__(self) -> DeviceBatch:
        """Returns the next batch, and begins the transfer of those after it."""
        while len(self._waiting) <= _AHEAD:
            self._waiting.append(self._fetch())
        batch, self._state = self._waiting.popleft()
        if isinstance(batch, Exception):
            raise batch
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the position behind the batch that was handed out last."""
        return self._state

    def _fetch(self) -> tuple[DeviceBatch | Exception, dict[str, Any]]:
        try:
            return self._put(next(self._batches)), self._batches.get_state()
        except Exception as error:
            return error, self._state
