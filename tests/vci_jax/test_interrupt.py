"""Ctrl-C in the commands, as processes: one line and exit code 130, also while JAX is imported."""

import os
import signal
import subprocess
import sys

import pytest

# Sends Ctrl-C to a process at the moment it imports a module.
CUSTOMIZE = """
import os, signal, sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
"""
COMMANDS = {
    "vci_jax": ["-m", "vci_jax", "--help"],
    "vci_jax.conformance": ["-m", "vci_jax.conformance"],
    "probes": ["-m", "probes", "transfer"],
    "train": ["-m", "train", "digits", "run"],
    "train.data": ["-m", "train.data", "digits"],
    "vci": ["vci"],
}


@pytest.fixture
def interrupted_at(tmp_path):
    """Runs a command that gets Ctrl-C as it imports a module."""
    (tmp_path / "sitecustomize.py").write_text(CUSTOMIZE)
    (tmp_path / "vci").write_text("from vci_jax.__main__ import run\nrun()\n")
    (tmp_path / "mine.py").write_text("import vci_jax\n")

    def run(arguments, module):
        paths = os.pathsep.join([str(tmp_path), os.getcwd()])
        environment = os.environ | {"INTERRUPT_AT": module, "PYTHONPATH": paths}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.mark.parametrize(
    ("command", "module"),
    [
        *((command, "jax") for command in COMMANDS),
        ("vci_jax", "jaxlib.xla_client"),
        ("vci", "vci_jax.cli"),
        ("probes", "probes.transfer.commands"),
        ("train", "train.config"),
        ("train", "optax"),
    ],
)
def test_ctrl_c_while_modules_are_imported(interrupted_at, command, module):
    ended = interrupted_at(COMMANDS[command], module)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted.\n")


def test_programs_that_import_the_library_keep_their_own_ctrl_c(interrupted_at):
    ended = interrupted_at(["mine.py"], "jax")
    assert ended.stderr.endswith("KeyboardInterrupt\n")


def test_ctrl_c_in_a_training_is_one_line(tmp_path):
    """Twice, as people do; what was saved is told, and no thread crashes on the way out."""
    arguments = ["train", "digits", str(tmp_path / "run")]
    running = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with running:
        while "state" not in running.stdout.readline():  # Of the check, before it compiles.
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        said = running.stderr.readline()
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
    assert said == "interrupted; the same command resumes from the last checkpoint.\n"
    assert rest in ("", "interrupted.\n")
    assert running.returncode == 130
