"""The device programs compile for a TPU, where its compiler is installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from vci_jax import linalg

COMMAND = [sys.executable, "-m", "tools.compile_tpu"]
ROOT = pathlib.Path(__file__).parents[2]

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


@pytest.mark.parametrize("rows", [1, 128, 300])
def test_a_product_in_tiles_is_the_product(rows):
    """The loop that only a TPU runs, on whole tiles and on a ragged last one."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows, 20)), rng.normal(size=(20, 7))
    with jax.enable_x64(True):
        product = jax.jit(linalg._matmul_tiled)(a, b)
    np.testing.assert_allclose(product, a @ b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("matrix", ["definite", "indefinite", "singular", "zero"])
def test_an_eigenproblem_filled_up_to_tiles_is_the_same(matrix):
    """What fills it up never reaches the result, wherever the spectrum lies."""
    dim, rng = 11, np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    spectrum = {
        "definite": np.arange(1.0, dim + 1),
        "indefinite": np.arange(dim) - 1e3,
        "singular": np.where(np.arange(dim) < 4, np.arange(dim), 0),
        "zero": np.zeros(dim),
    }[matrix]

    def solve(symmetric):
        assert symmetric.shape == (16, 16)
        return jax.numpy.linalg.eigh(symmetric)

    with jax.enable_x64(True):
        symmetric = basis * spectrum @ basis.T
        values, vectors = jax.tree.map(np.asarray, linalg._eigh_jacobi(symmetric, solve, tile=8))
    np.testing.assert_allclose(values, np.sort(spectrum)[::-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(dim), atol=1e-12)
    np.testing.assert_allclose(vectors * values @ vectors.T, symmetric, rtol=1e-12, atol=1e-11)
