"""The device programs compile for a TPU, where its compiler is installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

COMMAND = [sys.executable, str(pathlib.Path(__file__).with_name("compile_tpu.py"))]
ROOT = pathlib.Path(__file__).parents[1]

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason='needs the TPU compiler: pip install "jax[tpu]"',
)


def compile_tpu(*options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(
        [*COMMAND, *options], env=environment, capture_output=True, text=True, timeout=240
    )


@needs_compiler
@pytest.mark.slow
def test_update_needs_no_collective_and_little_memory_on_a_tpu():
    """Partial states on eight chips: no collective per batch, and memory within 3 D^2 + 3 K D."""
    result = compile_tpu("--dim", "128", "--classes", "100", "--rows", "64")
    assert result.returncode == 0, result.stdout + result.stderr
    _, update, finish = result.stdout.splitlines()
    program, dim, classes, _, collectives, floats, of_bound = update.split()
    assert (program, dim, classes, collectives) == ("update", "128", "100", "0")
    held, bound = int(floats.replace(",", "")), 3 * 128**2 + 3 * 100 * 128
    assert 2 * 128**2 + 2 * 100 * 128 <= held <= bound
    assert float(of_bound) == pytest.approx(held / bound, abs=0.005)
    assert finish.split()[0] == "finish"
    assert finish.split()[4] == "0"


@needs_compiler
@pytest.mark.slow
def test_the_command_fails_when_a_program_compiles_too_slowly():
    """The exit code is a verdict, not a decoration."""
    result = compile_tpu("--dim", "8", "--classes", "3", "--rows", "8", "--seconds", "0")
    assert result.returncode == 1, result.stdout + result.stderr
