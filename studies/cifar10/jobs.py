"""Trains and probes what is missing, some runs side by side, and says how much is left.

On two cores a run of this network is 1.05 times as fast as on one, and two runs on a core each are
together 1.9 times as fast. So each job gets one core, where the system can say so; on the CPU,
unless ``JAX_PLATFORMS`` names something else.

Every step of a job is a command of this project in a process of its own, which goes on where it
was: this program may be stopped at any moment, and the same command finishes the rest.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from studies.cifar10 import records
from train.stop import PREEMPTED

# Disjoint from the data of pretraining, so that each is transfer.
TASKS = (
    "cifar100",
    "cifar100_coarse",
    "cifar100_living",
    "cifar100_made",
    "digits",
    "sign_digits",
)


class Job(NamedTuple):
    """One pretraining with its probes: a run of a group, with a seed, and its epochs."""

    group: str
    name: str
    seed: int
    epochs: int

    @property
    def place(self) -> str:
        """The directory of its files, below that of the runs."""
        return f"seed_{self.seed}/{self.name}"


class Places(NamedTuple):
    """Directories: of the study's raw files, of the networks, of the images."""

    study: Path
    work: Path
    data: Path


class Failed(Exception):
    """A command of a job did not end well; says which and what it printed last."""


def work_off(jobs: Sequence[Job], places: Places, at_once: int, console: Console) -> int:
    """Does what is missing and returns the exit code: 0, 1 for failures, 75 if asked to stop.

    Args:
      jobs: in the order in which they are begun.
      places: where everything is.
      at_once: jobs side by side.
      console: told of every job's end and of what is left.
    """
    missing = [job for job in jobs if not is_done(job, places)]
    if not missing:
        console.print(f"All {len(jobs)} runs are there.")
        return 0
    console.print(f"{len(missing)} of {len(jobs)} runs are missing; {at_once} at a time.")
    crew = _Crew(places, missing, len(jobs), console)
    before = signal.signal(signal.SIGTERM, lambda *_: crew.stop())
    threads = [
        threading.Thread(target=crew.work, args=(core,), daemon=True)
        for core in _cores(min(at_once, len(missing)))
    ]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.5)
    except KeyboardInterrupt:
        crew.stop()
        for thread in threads:
            thread.join()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if crew.stopped:
        console.print("Stopped; the same command goes on.")
        return PREEMPTED
    for said in crew.failures:
        console.print(f"Failed: {said}", markup=False)
    return 1 if crew.failures else 0


def is_done(job: Job, places: Places) -> bool:
    """Whether the study has all raw files of a job."""
    return records.is_complete(places.study / "runs" / job.place, job.epochs, TASKS)


def commands(job: Job, places: Places) -> list[list[str]]:
    """Returns the arguments of ``python`` that make a job, in order; each skips what is done."""
    work = places.work / job.place
    train = ["-m", "train", job.group, str(work.parent), "--run", job.name, "--seed", str(job.seed)]
    probe = ["-m", "probes", "transfer", str(work), "--threads", "1", "--task", *TASKS]
    return [
        [*train, "--data.data_dir", str(places.data), "--data.threads", "1"],
        [*probe, "--data-dir", str(places.data)],
        ["-m", "studies.cifar10.small_samples", str(work), "--data-dir", str(places.data)],
    ]


class _Crew:
    """Threads that take jobs from one queue."""

    def __init__(
        self, places: Places, missing: Sequence[Job], total: int, console: Console
    ) -> None:
        self.failures: list[str] = []
        self.stopped = False
        self._places, self._console, self._total = places, console, total
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in missing:
            self._queue.put(job)
        self._left, self._seconds = len(missing), list[float]()
        self._running: set[subprocess.Popen[Any]] = set()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Asks every process to save and end."""
        self.stopped = True
        for process in list(self._running):
            process.terminate()

    def work(self, core: int | None) -> None:
        """Does jobs until there are none."""
        while not self.stopped:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return
            start = time.monotonic()
            try:
                self._do(job, core)
            except Failed as error:
                self.failures.append(f"{job.place}: {error}")
            if not self.stopped:
                self._report(job, time.monotonic() - start)

    def _do(self, job: Job, core: int | None) -> None:
        work = self._places.work / job.place
        work.parent.mkdir(parents=True, exist_ok=True)
        log = work.parent / f"{job.name}.log"
        for command in commands(job, self._places):
            with log.open("a") as stream:
                process = subprocess.Popen(
                    [sys.executable, *command],
                    stdout=stream,
                    stderr=stream,
                    env=os.environ | {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")},
                )
            if core is not None:  # Before Python has begun to import what asks for the cores.
                os.sched_setaffinity(process.pid, {core})
            self._running.add(process)
            if self.stopped:
                process.terminate()
            code = process.wait()
            self._running.discard(process)
            if self.stopped:
                return
            if code:
                last = " ".join(log.read_text(errors="replace").splitlines()[-3:])
                raise Failed(f"exit code {code} of python {' '.join(command)}: {last} (see {log})")
        records.collect(work, self._places.study / "runs" / job.place)

    def _report(self, job: Job, seconds: float) -> None:
        with self._lock:
            self._left -= 1
            self._seconds.append(seconds)
            mean = sum(self._seconds) / len(self._seconds)
            crew = max(1, len(self._running) + 1)
            left = f"about {self._left * mean / crew / 60:.0f} min" if self._left else "nothing"
            self._console.print(
                f"{job.place}: {seconds / 60:.1f} min. {self._total - self._left} of "
                f"{self._total} runs are through; {left} left."
            )


def _cores(count: int) -> list[int | None]:
    """Returns a core for each job, or none where there are too few or the system has no say."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * count
    cores = sorted(os.sched_getaffinity(0))
    return [cores[i] if count <= len(cores) else None for i in range(count)]
