"""What a run finds wrong before its first step, and who owns its directory."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from PIL import Image

from train import __main__ as entry
from train import check, loop
from train.config import CheckpointConfig, Config, ConfigError, LogConfig, OptimConfig
from train.errors import LockedError
from train.workdir import owned

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--checkpoint.keep-best", "1", "--checkpoint.best", "acc"], "known metrics: accuracy"),
        (["--optim.accumulate", "100000"], "but the run has 1760 steps"),
        (["--model.name", "deit_ti", "--model.width", "64", "--model.stem", "imagenet",
          "--model.patch", "5"], "cannot be cut into patches of 5 x 5"),
        (["--loss.cosine", "0.1", "--loss.cosine_group", "7"], "does not divide --data.batch"),
        (["--loss.vci", "0.1", "--data.batch_size", "16"], "VCI of a batch of 16 rows"),
    ],
)  # fmt: skip
def test_mistakes_come_out_before_anything_is_written(overrides, message, tmp_path, capsys):
    """In the check as in the run itself."""
    for arguments in (["check", "digits"], ["digits"]):
        assert entry.main([*arguments, str(tmp_path / "run"), *overrides]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_check_shows_the_run_and_writes_nothing(tmp_path, capsys):
    assert entry.main(["check", "digits", str(tmp_path / "run"), "--optim.accumulate", "4"]) == 0
    shown = capsys.readouterr().out
    assert "1,437 to train on, 360 to measure; 8 x 8 x 1, 10 classes" in shown
    assert "22 an epoch, 1,760 in all, 440 updates" in shown
    assert "with activations, of" in shown
    assert "No mistake was found" in shown
    assert not (tmp_path / "run").exists()


def test_a_run_says_where_its_memory_is_shown(tmp_path):
    """In its first lines; the directory of this one is in use."""
    console = tiny_run.console()
    with owned(tmp_path, "training in"), pytest.raises(LockedError):
        loop.train(tiny_run.tiny_config(), tmp_path, console)
    shown = " ".join(console.file.getvalue().split())
    assert "a device (weights and optimiser) memory python -m train check, with these" in shown


def test_the_memory_of_a_step_counts_activations(monkeypatch):
    """It grows with the batch, and an accelerator that has less is refused."""
    run = loop.prepare(tiny_run.tiny_config())
    monkeypatch.setattr(check, "_size", lambda count: f"{count:.0f} bytes")

    def needed(rows):
        ((title, value),) = check.step_memory(run.program, run.dataset.image_shape, rows)
        assert title == "memory"
        return int(value.split()[0])

    small, large = needed(144), needed(1440)
    # A stem of 8 channels over 8 x 8 positions is the least that is kept of an image for later.
    images = (1440 - 144) // run.mesh.size
    assert large - small > images * 8 * 8 * 8 * 4
    assert small > check.size_of(run.program.shapes)
    monkeypatch.setattr(check, "device_bytes", lambda: small - 1)
    needed(144)
    monkeypatch.setattr(check.jax, "default_backend", lambda: "gpu")
    with pytest.raises(ConfigError, match=rf"takes {small} bytes .*lower --data.batch_size"):
        needed(144)


@pytest.mark.parametrize(
    ("decay", "said"), [(0.0, None), (0.9, None), (0.9999, "still 99% what it began with")]
)
def test_an_average_that_is_mostly_its_start_is_named(decay, said):
    """With a decay that leaves a hundredth of it: 66 updates."""
    config = tiny_run.tiny_config(epochs=3, optim=OptimConfig(warmup_epochs=1, ema=decay))
    dataset = loop.prepare(config).dataset
    facts = dict(check.facts(config, dataset, 22, 1000, 1))
    assert "66 updates" in facts["steps"]
    assert (said in facts["average"]) if said else "average" not in facts
    if said:
        advised = float(facts["average"].split("--optim.ema ")[1].split()[0])
        assert 0.009 < advised**66 <= 0.01


def test_a_check_decodes_images_of_every_split(tmp_path, capsys):
    """A broken image among those to measure is named before the first step."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
    (tmp_path / "data" / "test" / "dog" / "2.png").write_bytes(b"not an image")
    arguments = ["check", "digits", str(tmp_path / "run"), f"--data.source=folder:{tmp_path}/data"]
    arguments += ["--data.mean", "0", "0", "0", "--data.std", "1", "1", "1"]
    arguments += ["--data.batch_size", "8", "--data.image_size", "8"]
    assert entry.main(arguments) == 2
    assert "dog/2.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "free", "message"),
    [
        (Config(checkpoint=CheckpointConfig(keep=3)), 4.0e9, "4 checkpoints need 4.4 GB"),
        (Config(optim=OptimConfig(accumulate=11)), 1e12, "no weight would ever change"),
        (Config(log=LogConfig(wandb="p")), 1e12, "wandb"),
    ],
)
def test_settings_are_held_against_what_the_run_finds(config, free, message, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", os.devnull)
    with pytest.raises(ConfigError, match=message):
        check.settings(config, steps=10, free_bytes=int(free), state_bytes=10**9)
    check.settings(Config(), steps=10, free_bytes=10**12, state_bytes=10**9)


def test_a_run_that_goes_on_has_the_space_of_its_own_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(check.shutil, "disk_usage", lambda path: type("U", (), {"free": 10})())
    assert check.free_bytes(tmp_path / "new" / "run") == 10
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "checkpoints" / "7" / "state").write_bytes(b"x" * 1000)
    assert check.free_bytes(tmp_path) == 1010


def test_a_directory_has_one_owner(tmp_path):
    """The second is told who the first is; the first is unharmed."""
    with (
        owned(tmp_path, "training in"),
        pytest.raises(LockedError, match=rf"process {os.getpid()} on .* is training in {tmp_path}"),
        owned(tmp_path, "training in"),
    ):
        pass
    with owned(tmp_path, "training in"):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_a_file_system_without_locks_costs_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*unused):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with owned(tmp_path, "training in"):
        pass
    assert "start one process there only" in caplog.text


@pytest.mark.slow
def test_a_second_process_leaves_the_first_alone(tmp_path):
    """Whenever it comes: exit code 2, and the first ends with all its rows."""
    command = [sys.executable, "-m", "train", "digits", str(tmp_path), "--epochs=4"]
    command += ["--eval.every-epochs=2", "--optim.warmup-epochs=1"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    first = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while not (tmp_path / "lock").exists() and first.poll() is None:
        time.sleep(0.05)
    while first.poll() is None:
        second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        # The first may have ended in between: then the second has a finished run before it.
        assert second.returncode == 2 or first.poll() is not None
        if second.returncode == 2:
            assert "is training in" in second.stderr
            assert "Traceback" not in second.stderr
    assert first.returncode == 0
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6
