"""How a run ends before its last step, and what it tells its caller by its exit code.

A run that is asked to end finishes the step it is at, saves, and can be gone on with. Schedulers
ask by SIGTERM, SIGUSR1 or SIGHUP, to the process or to its group, before they take a machine back.
A run whose loss is beyond repair saves nothing more, so that its last checkpoint is from before.
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
    """Notes a request to end: a context manager that puts the old handlers back.

    Python runs a handler between two of its own instructions, so a signal that comes while JAX
    compiles or Orbax writes is noted when that is done. Of several processes any may be told, and
    all stop at the same step: each question sends what this process has noted to the others, and
    gives what all had noted at the question before, so that nobody waits for an answer. (JAX's
    preemption service would do, but Orbax asks it at each save, and counts in another way: what it
    agrees on at such a moment is never reached.) A signal that is ignored, as nohup does with
    SIGHUP, stays so.
    """

    def __init__(self) -> None:
        """Nothing is noted yet."""
        self.noted = False
        self._before: dict[signal.Signals, Any] = {}
        self._here = False
        self._answer: jax.Array | bool = False

    def __enter__(self) -> Self:
        """Begins to listen, where signals can be listened to: in the main thread."""
        if threading.current_thread() is threading.main_thread():
            for request in REQUESTS:
                if signal.getsignal(request) is not signal.SIG_IGN:
                    self._before[request] = signal.signal(request, self._note)
        return self

    def __exit__(self, *unused: object) -> None:
        """Listens no more."""
        for request, handler in self._before.items():
            # None is a handler of JAX's own, which cannot be put back.
            signal.signal(request, signal.SIG_DFL if handler is None else handler)

    def now(self) -> bool:
        """Whether the run should end; the same in every process, if all ask equally often."""
        if jax.process_count() == 1:
            self.noted = self._here
        elif not self.noted:
            self.noted = bool(self._answer)
            self._answer = _in_any_process(self._here)
        return self.noted

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._here = True


def _in_any_process(flag: bool) -> jax.Array:
    """Whether the flag is set in any process: a sum of one number a device, not waited for.

    It is a program of its own, so that those of training and of the metrics stay as they are; but
    processes that ask cannot be further apart than one question.
    """
    sharding, any_of = _vote()
    flags = np.full(jax.local_device_count(), flag)
    return any_of(jax.make_array_from_process_local_data(sharding, flags))


@functools.cache
def _vote() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    """Returns where the flags of all devices lie, and the program that asks them."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("devices",))
    answer = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec("devices")), jax.jit(jnp.any, out_shardings=answer)


def ignore_requests() -> None:
    """Lets no further request change how a process ends that has nothing left to do.

    Schedulers ask more than once, and Python takes a while to leave.
    """
    for request in REQUESTS:
        signal.signal(request, signal.SIG_IGN)


class Guard:
    """Stops a run whose loss is not finite, or far above that of an untrained network."""

    def __init__(self, max_loss: float, lr: float, first: float | None = None) -> None:
        """Prepares to compare.

        Args:
          max_loss: how many times the first batch's loss is too much; 0 is any.
          lr: for the message.
          first: the first batch's loss, in a run that goes on.
        """
        self.first = first
        self._max_loss, self._lr = max_loss, lr

    def check(self, step: int, loss: float) -> None:
        """Raises ``Diverged`` if the loss of a step is beyond repair."""
        if not math.isfinite(loss):
            self.give_up(step, f"the loss is {loss}")
        self.first = loss if self.first is None else self.first
        if self._max_loss and loss > self._max_loss * abs(self.first):
            self.give_up(
                step,
                f"the loss is {loss:.4g}, over --log.max_loss {self._max_loss:g} times that of the "
                f"first batch, {self.first:.4g},",
            )

    def give_up(self, step: int, what: str) -> None:
        """Raises ``Diverged`` with what to do about it."""
        raise Diverged(
            f"{what} at step {step}: training diverged. Lower --optim.lr (it is {self._lr}) or "
            "raise --optim.warmup_epochs, in a new directory. Checkpoints are from before."
        )
