"""Transfers batches to the devices, one ahead of the step that uses them."""

from collections import deque
from collections.abc import Callable
from typing import Any, Self

from train.data.pipeline import TrainingBatches

_AHEAD = 1


class DevicePrefetcher:
    """An iterator that starts the transfer of the next batch before it returns one.

    Its state is the position after the batch returned last, whatever was fetched ahead. It keeps no
    reference to a returned batch, which a step may donate. An error in the making of a batch is
    raised in place of that batch.
    """

    def __init__(self, batches: TrainingBatches, put: Callable[[Any], Any]) -> None:
        self._batches, self._put = batches, put
        self._ahead: deque[tuple[Any, dict[str, Any]]] = deque()
        self._state = batches.get_state()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Returns the next batch, and starts the transfer of the one after it."""
        while len(self._ahead) <= _AHEAD:
            self._ahead.append(self._fetch())
        batch, self._state = self._ahead.popleft()
        if isinstance(batch, Exception):
            raise batch
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the batch returned last."""
        return self._state

    def _fetch(self) -> tuple[Any, dict[str, Any]]:
        """Returns the next batch, or the error in its place, with the position after it."""
        try:
            return self._put(next(self._batches)), self._batches.get_state()
        except Exception as error:
            return error, self._state
