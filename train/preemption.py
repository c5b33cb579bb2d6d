"""How a run ends before its last step: requests of a scheduler, and divergence.

A run that is asked to end finishes its step and saves, and can be resumed. Schedulers ask by
SIGTERM, SIGUSR1 or SIGHUP, to the process or to its group, before they take a machine back. A run
that diverges saves nothing more, so its last checkpoint is from before.
"""

import functools
import math
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from train.errors import Diverged

REQUESTS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that ask a run to end."""


class PreemptionHandler:
    """Notes a request to end; a context manager that restores the old handlers.

    Python runs a handler between two of its own instructions, so a signal that comes while JAX
    compiles or Orbax writes is noted afterwards. Any process of a run may get the signal, and all
    stop at the same step: each call of ``now`` sends this process' flag to the others and returns
    the result of the call before, so that nobody waits. (JAX's preemption service does not serve:
    Orbax asks it at each save as well, and the step that it then agrees on is never reached.) A
    signal that is ignored, as nohup does with SIGHUP, stays ignored. Only the main thread can
    listen to signals; in another one nothing is noted.
    """

    def __init__(self) -> None:
        self.noted = False
        self._old_handlers: dict[signal.Signals, Any] = {}
        self._received = False
        self._answer: jax.Array | bool = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for request in REQUESTS:
                if signal.getsignal(request) is not signal.SIG_IGN:
                    self._old_handlers[request] = signal.signal(request, self._note)
        return self

    def __exit__(self, *unused: object) -> None:
        for request, handler in self._old_handlers.items():
            # None is a handler that was not set from Python and cannot be restored.
            signal.signal(request, signal.SIG_DFL if handler is None else handler)

    def now(self) -> bool:
        """Whether the run should end; the same in every process, if all ask equally often."""
        if jax.process_count() == 1:
            self.noted = self._received
        elif not self.noted:
            self.noted = bool(self._answer)
            self._answer = _in_any_process(self._received)
        return self.noted

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._received = True


def _in_any_process(flag: bool) -> jax.Array:
    """Whether the flag is set in any process: the "any" of one number a device, not waited for."""
    sharding, any_of = _vote()
    flags = np.full(jax.local_device_count(), flag)
    return any_of(jax.make_array_from_process_local_data(sharding, flags))


@functools.cache
def _vote() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    """Returns the sharding of the flags, one a device, and the program that combines them."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("devices",))
    answer = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec("devices")), jax.jit(jnp.any, out_shardings=answer)


def ignore_requests() -> None:
    """Ignores further requests: schedulers ask more than once, while Python shuts down."""
    for request in REQUESTS:
        signal.signal(request, signal.SIG_IGN)


class Guard:
    """Stops a run whose loss is not finite, or far above that of an untrained network."""

    def __init__(self, max_loss: float, lr: float, first: float | None = None) -> None:
        """Takes --log.max_loss, the learning rate, and in a resumed run the first batch's loss."""
        self.first = first
        self._max_loss, self._lr = max_loss, lr

    def check(self, step: int, loss: float) -> None:
        """Raises ``Diverged`` if a loss is not finite, or over ``max_loss`` times the first one."""
        if not math.isfinite(loss):
            self.give_up(step, f"the loss is {loss}")
        self.first = loss if self.first is None else self.first
        if self._max_loss and loss > self._max_loss * abs(self.first):
            self.give_up(
                step,
                f"the loss is {loss:.4g}, over --log.max_loss {self._max_loss:g} times that of the "
                f"first batch, {self.first:.4g},",
            )

    def give_up(self, step: int, problem: str) -> None:
        """Raises ``Diverged`` with the remedy."""
        raise Diverged(
            f"{problem} at step {step}: training diverged. Lower --optim.lr (it is {self._lr}) or "
            "raise --optim.warmup_epochs, in a new directory. Checkpoints are from before."
        )
