"""The processes of one run: how they meet, agree, and end.

What one process cannot do, none does: each tries, they exchange what went wrong, and all raise the
same sentence. What no vote foresees (a kill, a lost machine) ends the others by the first of two
ways: the collective that they are in fails, or JAX's coordination service, which hears from each
process every few seconds, aborts them. Alone, a process does none of this.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from train.config import ConfigError, MeshConfig
from train.errors import ProcessLostError

_SILENT_SECONDS = 40  # After which a process that says nothing is taken for dead.
_LAST_WORDS_SECONDS = 2.0
_WEEK = 7 * 24 * 3600
_LOST = "another process of the run has ended"
_NEVER_MET = (
    "the processes of the run did not find each other within --mesh.wait: start the same command "
    "on every host, with one JAX_COORDINATOR_ADDRESS."
)
# What the collectives of CPUs and the coordination service say when a process is gone.
_SIGNS = ("Gloo", "oordination", "heartbeat", "Barrier failed", "Connection reset by peer")


def join(config: MeshConfig) -> None:
    """Joins the other processes of the run, if there are any; before anything else of JAX.

    On TPU pods, Slurm and Kubernetes JAX finds them by itself. Elsewhere JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID say where the first process listens, how many there are,
    and which this is. A process whose others do not come, or end, ends with a sentence and exit
    code 75; one that is done waits for the others.

    Raises:
      ConfigError: they are not found.
    """
    if not config.distributed or jax.distributed.is_initialized():
        return
    if jax.config.values["jax_platforms"] == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    count, index = (_number(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", ":0")
    if not address.rpartition(":")[2].isdecimal() or ":" not in address:
        raise ConfigError(f"JAX_COORDINATOR_ADDRESS is {address!r}; it must be HOST:PORT.")
    _on_abort(_NEVER_MET)
    on_request = signal.getsignal(signal.SIGTERM)
    try:
        jax.distributed.initialize(
            num_processes=count,
            process_id=index,
            initialization_timeout=config.wait,
            heartbeat_timeout_seconds=_SILENT_SECONDS,
            shutdown_timeout_seconds=_WEEK,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--mesh.distributed is on, but the other processes were not found: {error} Set "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        ) from error
    _on_abort(str(ProcessLostError(_LOST)))
    # JAX's own handler notes a request that nobody here asks it for.
    signal.signal(signal.SIGTERM, on_request or signal.SIG_DFL)


def _number(name: str) -> int | None:
    """Returns a variable of the environment as a number, None without one."""
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise ConfigError(f"{name} is {text!r}; it must be a whole number, or not be set.")
    return None if text is None else int(text)


def is_first() -> bool:
    """Whether this process writes for all."""
    return jax.process_index() == 0


def gather(own: np.ndarray) -> np.ndarray:
    """Returns an array of every process, ``[P ...]``; their shapes and types are the same.

    Raises:
      ProcessLostError: a process has ended.
    """
    with explained():
        return np.asarray(multihost_utils.process_allgather(own)).reshape(-1, *own.shape)


def texts(own: str) -> list[str]:
    """Returns a text of every process.

    >>> texts("no mistake")
    ['no mistake']
    """
    content = np.frombuffer(own.encode(), np.uint8)
    sizes = gather(np.array(content.size, np.int32))
    padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
    padded[: content.size] = content
    rows = gather(padded)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Raises in every process what the body raises in any; the body waits for no other process.

    Every process comes here. Those in which the body did well raise a ConfigError that says in
    which process it did not, and why.
    """
    problem: Exception | None = None
    try:
        yield
    except Exception as error:  # Whatever it is, the others must not wait.
        problem = error
    if jax.process_count() > 1:
        problems = texts("" if problem is None else str(problem) or type(problem).__name__)
        if problem is None and any(problems):
            index = next(index for index, why in enumerate(problems) if why)
            raise ConfigError(f"in process {index} of {len(problems)}: {problems[index]}")
    if problem is not None:
        raise problem


def same(about: Mapping[str, Any]) -> None:
    """Raises an error in every process unless all have equal values, as JSON, by name.

    Raises:
      ConfigError: they differ; names one of the values.
    """
    if jax.process_count() == 1:
        return
    everyone = [json.loads(text) for text in texts(json.dumps(about, default=list))]
    for name, value in everyone[0].items():
        for index, other in enumerate(everyone):
            if other[name] != value:
                raise ConfigError(
                    f"the processes of the run differ: {name} is {value!r} in process 0 and "
                    f"{other[name]!r} in process {index}. Start the same command on every host, "
                    "on the same files."
                )


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns what JAX raises where another process has ended into a ProcessLostError."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if jax.process_count() == 1 or not any(sign in str(error) for sign in _SIGNS):
            raise
        raise ProcessLostError(_LOST) from error


def leave(code: int) -> int:
    """Returns an exit code; where there are other processes, ends this one with it at once.

    A process that ended as usual would wait for the others, which may be waiting for it. The first
    one ends last, as the others abort where it is gone, whatever they were about to say.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        if is_first():
            time.sleep(_LAST_WORDS_SECONDS)
        os._exit(code)
    return code


def _on_abort(sentence: str) -> None:
    """Lets an abort by JAX's coordination service end in a sentence and exit code 75.

    JAX offers no other way: the client's callback cannot be one of Python. The handler runs in the
    thread that aborts, outside of any lock, so it may do what a signal handler of C must not.
    """

    def end(number: int) -> None:
        del number
        os.write(2, f"error: {sentence}\n".encode())
        os._exit(ProcessLostError.exit_code)

    global _handler
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _handler)


_handler: Any = None  # Lives as long as the process.
