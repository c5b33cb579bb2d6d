"""Real processes that are killed: what the same command makes of what they leave."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_run
from processes import free_port

from train import checkpoint, loop
from train.config import CheckpointConfig, EvalConfig
from train.errors import Preempted, ProcessLostError
from train.mesh import MeshConfig

ROOT = pathlib.Path(__file__).parents[2]
KILLS = 20

PREEMPTED = Preempted.exit_code


def config(distributed=False, workers=0):
    base = tiny_run.tiny_config()
    return tiny_run.tiny_config(
        epochs=30,
        data=dataclasses.replace(base.data, workers=workers),
        eval=EvalConfig(every_epochs=2, batch_size=100),
        checkpoint=CheckpointConfig(every_epochs=1),
        mesh=MeshConfig(distributed=distributed),
    )


def start(workdir, log, devices=1, **variables):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, __file__, str(workdir)]
    with open(log, "ab") as stream:
        return subprocess.Popen(
            command,
            env=environment | variables,
            stdout=stream,
            stderr=stream,
            cwd=ROOT,
            start_new_session=True,
        )


def finish(process, log, seconds=200):
    code = process.wait(seconds)
    assert code == 0, pathlib.Path(log).read_text()[-3000:]


def final_state(workdir):
    run = loop.prepare(config())
    with checkpoint.open_manager(workdir / "checkpoints", config().checkpoint, 9) as manager:
        return checkpoint.restore(manager, run.program.shapes, run.program.inspect, pytest.fail)


def assert_same_run(workdir, expected):
    assert tiny_run.rows(workdir) == tiny_run.rows(expected)
    (state, notes, step), (other, other_notes, last) = final_state(workdir), final_state(expected)
    assert (step, notes) == (last, other_notes)
    assert step == 30 * tiny_run.STEPS_PER_EPOCH
    for a, b in zip(*(loop.jax.tree.leaves(s) for s in (state, other)), strict=True):
        assert np.array_equal(a, b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, begun = tmp_path_factory.mktemp("whole"), time.monotonic()
    finish(start(folder / "run", folder / "log"), folder / "log")
    (folder / "seconds").write_text(str(time.monotonic() - begun))
    return folder / "run"


def lines_of(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
def test_killed_at_twenty_random_moments(whole, tmp_path):
    """Training, metrics pass or save; each kill comes after some progress, so all are in the run.

    Every second signal is SIGTERM, after which the process must end by itself, with its exit code.
    """
    moments, workdir, log = random.Random(0), tmp_path / "run", tmp_path / "log"
    for kill in range(KILLS):
        process = start(workdir, log)
        # A kill undoes what came after the last checkpoint: wait for more rows than there were.
        goal, deadline = 1 + 30 * kill // KILLS, time.monotonic() + 100
        while process.poll() is None and lines_of(workdir) < goal and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.random() * 0.5)
        if process.poll() is not None:
            assert process.returncode == 0, log.read_text()[-3000:]
            continue
        if kill % 2:
            process.terminate()
            assert process.wait(60) in (PREEMPTED, 0, -signal.SIGTERM), log.read_text()[-3000:]
        else:
            process.kill()
            process.wait()
    finish(start(workdir, log), log)
    assert log.read_text().count("Resuming from step") >= KILLS // 2
    assert_same_run(workdir, whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_request_to_the_group_saves_whenever_it_comes(workers, whole, tmp_path):
    """As SLURM and Kubernetes send it: input workers do not die of it before the run has saved.

    Spread over import, compilation, start of workers, passes, training and saves, VCI_REQUESTS of
    them. Before a process owns the directory, it may end by the signal itself: nothing is lost.
    """
    moments, workdir, log = random.Random(workers), tmp_path / "run", tmp_path / "log"
    last = float((whole.parent / "seconds").read_text())
    saved = 0
    for request in range(int(os.environ.get("VCI_REQUESTS", "4"))):
        log.write_bytes(b"")
        process = start(workdir, log, WORKERS=str(workers))
        time.sleep(moments.random() * last)
        kind = signal.SIGUSR1 if request % 2 else signal.SIGTERM
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        code = process.wait(100)
        owner = (workdir / "lock").read_text() if (workdir / "lock").exists() else ""
        unowned = f"process {process.pid} " not in owner
        assert code in (PREEMPTED, 0) or (unowned and code == -kind), log.read_text()[-3000:]
        assert "Traceback" not in log.read_text()
        saved += code == PREEMPTED
        if code == 0:  # It was over before the request: begin again.
            assert tiny_run.rows(workdir) == tiny_run.rows(whole)
            shutil.rmtree(workdir)
    assert saved > 0
    finish(start(workdir, log, WORKERS=str(workers)), log)
    assert_same_run(workdir, whole)


@pytest.mark.slow
def test_of_two_processes_one_trains_and_the_other_is_told(whole, tmp_path):
    """Started 0 to 30 s apart, VCI_PAIRS times: one ends with all rows, the other with 2.

    The run waits at its saves, to last longer than that. Where the second process starts at least
    five seconds later, it is the one that is told.
    """
    moments, pairs = random.Random(0), int(os.environ.get("VCI_PAIRS", "3"))
    for pair in range(pairs):
        workdir, logs = tmp_path / f"run{pair}", [tmp_path / f"log{pair}{i}" for i in range(2)]
        distance = 30 * (pair + moments.random()) / pairs
        processes = [start(workdir, logs[0], SECONDS_A_SAVE="1.5")]
        time.sleep(distance)
        processes.append(start(workdir, logs[1], SECONDS_A_SAVE="1.5"))
        codes = [process.wait(200) for process in processes]
        said = [log.read_text() for log in logs]
        assert sorted(codes) == [0, 2], (distance, codes, said[0][-500:], said[1][-500:])
        assert distance < 5 or codes == [0, 2]
        told = said[codes.index(2)]
        assert "is training in" in told
        assert "Traceback" not in told
        assert tiny_run.rows(workdir) == tiny_run.rows(whole)


def together(workdir, log, **variables):
    """Two processes of two devices each, which are one run."""
    address = f"127.0.0.1:{free_port()}"
    return [
        start(
            workdir,
            f"{log}{index}",
            devices=2,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
            **variables,
        )
        for index in range(2)
    ]


def end(processes):
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_one_of_two_processes_is_killed(killed, tmp_path):
    """The other cannot go on alone, ends within a minute, and says why.

    Both started again end as two that nobody killed.
    """
    expected, workdir, log = tmp_path / "whole", tmp_path / "run", tmp_path / "log"
    processes = together(expected, tmp_path / "log_whole")
    for index, process in enumerate(processes):
        finish(process, tmp_path / f"log_whole{index}")
    assert len(tiny_run.rows(expected)) == 2 * 16
    processes = together(workdir, log)
    try:
        while lines_of(workdir) < 12 and not any(p.poll() is not None for p in processes):
            time.sleep(0.02)
        processes[killed].kill()
        code = processes[1 - killed].wait(60)
    finally:
        end(processes)
    said = pathlib.Path(f"{log}{1 - killed}").read_text()
    assert code == ProcessLostError.exit_code, said[-3000:]
    assert "error: another process of the run has ended: see what it said." in said
    assert 12 <= lines_of(workdir) < 2 * 16
    for index, process in enumerate(together(workdir, log)):
        finish(process, f"{log}{index}")
    assert "Resuming from step" in pathlib.Path(f"{log}0").read_text()
    assert tiny_run.rows(workdir) == tiny_run.rows(expected)


@pytest.mark.slow
def test_two_processes_with_two_directories_end(tmp_path):
    """Both say so before the first step; the second directory stays as it was."""
    address = f"127.0.0.1:{free_port()}"
    variables = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [
        start(tmp_path / f"run{i}", tmp_path / f"log{i}", JAX_PROCESS_ID=str(i), **variables)
        for i in range(2)
    ]
    try:
        codes = [process.wait(60) for process in processes]
    finally:
        end(processes)
    said = [(tmp_path / f"log{index}").read_text() for index in range(2)]
    assert codes == [2, 2], said
    assert all("is not the directory of the first process" in text for text in said)
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "run1").exists()
    assert not (tmp_path / "run0" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "request_", "seconds_a_save"),
    [(1, signal.SIGUSR1, "0"), (0, signal.SIGTERM, "2")],
)
def test_two_processes_are_asked_to_end(told, request_, seconds_a_save, tmp_path):
    """One of them is told; both stop after the same step, saved, with the exit code.

    A save follows the metrics pass whose rows are waited for: where it takes long, it is then that
    the request comes.
    """
    workdir, log = tmp_path / "run", tmp_path / "log"
    processes = together(workdir, log, SECONDS_A_SAVE=seconds_a_save)
    try:
        while lines_of(workdir) < 8 and not any(p.poll() is not None for p in processes):
            time.sleep(0.02)
        time.sleep(float(seconds_a_save) / 4)
        processes[told].send_signal(request_)
        codes = [process.wait(100) for process in processes]
    finally:
        end(processes)
    said = "\n".join(pathlib.Path(f"{log}{i}").read_text()[-2000:] for i in range(2))
    assert codes == [PREEMPTED, PREEMPTED], said
    for index, process in enumerate(together(workdir, log)):
        finish(process, f"{log}{index}")
    assert len(tiny_run.rows(workdir)) == 2 * 16
    steps = [row["step"] for row in tiny_run.rows(workdir)]
    assert steps == sorted(steps)
    assert all(len(list(group)) == 2 for _, group in itertools.groupby(steps))


if __name__ == "__main__":
    from train import __main__ as entry

    made = config("JAX_NUM_PROCESSES" in os.environ, workers=int(os.environ.get("WORKERS", "0")))
    entry.configs.get = lambda name: made
    seconds, save = float(os.environ.get("SECONDS_A_SAVE", "0")), checkpoint.save

    def slowly(*args, **kwargs):
        save(*args, **kwargs)
        time.sleep(seconds)

    checkpoint.save = slowly
    entry.program(["digits", sys.argv[1]])
