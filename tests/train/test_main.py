"""The command line, as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train import __main__ as entry
from train import errors
from train.writer import TIMING_FIELDS

ROOT = Path(__file__).parents[2]
SHORT = ("--epochs=8", "--optim.warmup-epochs=1", "--eval.every-epochs=2")


def _start(workdir, *overrides):
    command = [sys.executable, "-m", "train", "digits", str(workdir), *overrides]
    pipe = subprocess.PIPE
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def _finish(workdir, *overrides):
    process = _start(workdir, *overrides)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return out


def _rows(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _timeless(rows):
    return [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in rows]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "\n  digits: "),
        (["digit", "run"], "Did you mean 'digits'?"),
        (["digits"], "no work directory given"),
        (["digits", "--epochs", "9"], "no work directory given"),
        (["digits", "run", "--epochs", "0"], "--epochs is 0"),
        (["cifar10_losses", "run", "--run", "ce"], "cifar10_losses has ce_cosine, ce_step"),
        (["cifar10_losses"], "no work directory given"),
        (["digits", "run", "--optim.lr", "nan"], "--optim.lr is nan"),
    ],
)
def test_mistakes_cost_a_message_and_exit_code_2(arguments, message, capsys):
    """No traceback, and nothing on stdout."""
    assert entry.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err


def test_help_names_the_configs(capsys):
    """Asked for, it is no error."""
    assert entry.main(["--help"]) == 0
    assert "digits: " in capsys.readouterr().out


@pytest.mark.slow
def test_kill_9_loses_nothing(tmp_path):
    """Killed with SIGKILL while it trains, the same command ends with the same rows.

    Another config is then refused, with the field that differs and without a traceback.
    """
    _finish(tmp_path / "whole", *SHORT, "--checkpoint.every-epochs=1")
    process = _start(tmp_path / "killed", *SHORT, "--checkpoint.every-epochs=1")
    deadline = time.monotonic() + 200
    while len(_rows(tmp_path / "killed")) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "it finished, or failed, before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    out = _finish(tmp_path / "killed", *SHORT, "--checkpoint.every-epochs=1")
    assert "Resuming from step" in out
    assert _timeless(_rows(tmp_path / "killed")) == _timeless(_rows(tmp_path / "whole"))
    other = _start(tmp_path / "killed", *SHORT, "--checkpoint.every-epochs=1", "--seed=1")
    _, err = other.communicate(timeout=100)
    assert other.returncode == 2
    assert "seed: 0 there, 1 now" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_digits_keeps_its_promises(tmp_path):
    """Above 97 % on test, train VCI down by more than half, and a clean terminal."""
    process = _start(tmp_path / "run")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert err == ""
    rows = _rows(tmp_path / "run")
    train, test = ([row for row in rows if row["split"] == name] for name in ("train", "test"))
    assert test[-1]["accuracy"] > 0.97
    assert train[-1]["vci"] < train[0]["vci"] / 2
    assert f"python -m probes figures {tmp_path / 'run'}" in out


def test_a_group_runs_its_members_in_their_own_directories(monkeypatch, tmp_path, capsys):
    """All, or the one asked for; overrides reach each; one that fails does not stop the next."""
    seen = []

    def run(config, workdir):
        seen.append((config.name, config.epochs, workdir.name))
        if config.loss.temperature == 0.1:
            raise entry.config_lib.ConfigError("the loss is nan")

    monkeypatch.setattr(entry, "_run", run)
    group = "cifar10_small_temperature"
    assert entry.main([group, str(tmp_path), "--run", "tau_0.25", "--epochs", "7"]) == 0
    assert seen == [(f"{group}/tau_0.25", 7, "tau_0.25")]
    seen.clear()
    assert entry.main([group, str(tmp_path)]) == 2
    assert [run for _, _, run in seen] == list(entry.configs.runs(group))
    error = capsys.readouterr().err
    assert "1 of 6 run(s) failed" in error
    assert f"{group}/tau_0.1: the loss is nan" in error


@pytest.mark.parametrize(
    ("kind", "code"), [("Diverged", 3), ("WorkerError", 75), ("Preempted", 75)]
)
def test_a_group_ends_with_the_code_of_its_runs(monkeypatch, tmp_path, capsys, kind, code):
    """One that diverged does not stop the next; being asked to end is meant for all."""
    begun = []

    def run(config, workdir):
        begun.append(config.name)
        raise getattr(errors, kind)("why")

    monkeypatch.setattr(entry, "_run", run)
    assert entry.main(["cifar10_small_temperature", str(tmp_path)]) == code
    assert len(begun) == (1 if kind == "Preempted" else 6)
    assert "why" in capsys.readouterr().err


LATE = """
import atexit, os, signal
from train import __main__ as entry
entry.main = lambda arguments: 75
for request in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
    atexit.register(os.kill, os.getpid(), request)
entry.program([])
"""


def test_a_request_that_comes_late_does_not_change_the_exit_code():
    """While Python leaves; schedulers ask more than once."""
    done = subprocess.run([sys.executable, "-c", LATE], cwd=ROOT, timeout=100)
    assert done.returncode == 75
