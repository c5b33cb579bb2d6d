"""The eigen work on matrices of known spectrum, and the cutoffs at work."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vci_jax import linalg, whitening

EPS32, EPS64 = np.finfo(np.float32).eps, np.finfo(np.float64).eps


def orthogonal(seed, dim):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def with_spectrum(values, seed=0):
    basis = orthogonal(seed, len(values))
    return (basis * values) @ basis.T


def test_eigh_is_descending(x64):
    values, vectors = linalg.eigh(jnp.asarray(with_spectrum([3.0, 1.0, 7.0])))
    np.testing.assert_allclose(values, [7, 3, 1], rtol=1e-13)
    np.testing.assert_allclose((vectors * values) @ vectors.T, with_spectrum([3.0, 1.0, 7.0]))


@pytest.mark.parametrize("condition", [1e2, 1e8, 1e12, 1e15])
def test_whiten_reaches_the_identity(x64, condition):
    """W^T A W = I even where eps times the condition number is one tenth.

    The truth itself is good to 2^-64, the roundoff of the long doubles it is made with.
    """
    dim = 24
    factor = orthogonal(0, dim) * np.logspace(0, -np.log10(condition) / 2, dim)
    exact = factor.astype(np.longdouble) @ factor.T.astype(np.longdouble)
    matrix = exact.astype(float)
    tail = (exact - matrix).astype(float)
    scale = linalg.power_of_two(1 / jnp.sqrt(jnp.diagonal(matrix)))
    whitener = whitening.whiten(jnp.asarray(matrix), jnp.asarray(tail), scale, EPS64)
    assert whitener.kept.all()
    tolerance = 1e-11 + dim * condition * 2.0**-64
    image = np.asarray(whitener.map).T.astype(np.longdouble) @ factor
    np.testing.assert_allclose((image @ image.T).astype(float), np.eye(dim), atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("samples", "dim"), [(40, 64), (200, 256), (1000, 96)])
def test_rank_survives_rounding(x64, dtype, samples, dim):
    """Sums in either precision: true rank found, noise eigenvalues all below the cutoff."""
    rng = np.random.default_rng(samples)
    rank = min(samples, dim // 2)
    rows = (rng.standard_normal((samples, rank)) @ rng.standard_normal((rank, dim))).astype(dtype)
    matrix, tail = (jnp.asarray(part, float) for part in linalg.gram(jnp.asarray(rows)))
    scale = linalg.power_of_two(1 / jnp.sqrt(jnp.diagonal(matrix)))
    eps = float(np.finfo(dtype).eps)
    whitener = whitening.whiten(matrix, jnp.broadcast_to(tail, matrix.shape), scale, eps)
    assert int(whitener.kept.sum()) == rank


def test_spectrum_of_real_networks_survives_float32(x64):
    """Eigenvalues falling as i^-1.5 over 1280 directions: all are kept."""
    values = np.arange(1, 1281.0) ** -1.5
    matrix = jnp.asarray(with_spectrum(values))
    scale = linalg.power_of_two(1 / jnp.sqrt(jnp.diagonal(matrix)))
    assert whitening.whiten(matrix, jnp.zeros_like(matrix), scale, EPS32).kept.all()


def test_zero_matrix_keeps_nothing(x64):
    zeros = jnp.zeros((4, 4))
    whitener = whitening.whiten(zeros, zeros, jnp.zeros(4), EPS64)
    assert not whitener.kept.any()
    space = linalg.row_space(jnp.zeros((3, 4)), 2, EPS64)
    assert not space.kept.any()
    assert np.all(space.basis == 0)


@pytest.mark.parametrize(("rows", "dim"), [(3, 7), (7, 3), (5, 5)])
def test_row_space_is_the_svd(x64, rows, dim):
    """Singular values to full relative accuracy, graded over 8 decades, and the right basis."""
    size = min(rows, dim)
    singular = np.logspace(0, -6, size)
    left, right = orthogonal(1, rows)[:, :size], orthogonal(2, dim)[:, :size]
    matrix = (left * singular) @ right.T
    space = linalg.row_space(jnp.asarray(matrix), size, EPS64)
    assert space.kept.all()
    np.testing.assert_allclose(np.sqrt(space.squares), singular, rtol=1e-8)
    np.testing.assert_allclose(np.abs(np.sum(space.basis * right, axis=0)), 1, rtol=1e-8)


@pytest.mark.parametrize(
    ("dtype", "least", "turned"), [("float64", 1e-5, 1e-8), ("float32", 5e-3, 1e-4)]
)
def test_row_space_turns_no_direction_beside_a_far_larger_one(x64, dtype, least, turned):
    """Squares that differ by just what one round resolved leave vectors right to their eps / t."""
    singular = np.array([1, *(least * np.array([1.7, 1.5, 1.3, 1.1]))])
    left, right = orthogonal(1, 8)[:, :5], orthogonal(2, 12)[:, :5]
    matrix = jnp.asarray((left * singular) @ right.T, dtype)
    space = jax.jit(linalg.row_space, static_argnums=(1, 2))(matrix, 5, EPS64)
    between = np.abs(np.asarray(space.basis, float).T @ right)[1:, 1:]
    assert np.max(between - np.diag(np.diagonal(between))) < turned


def test_row_space_drops_rounding_noise(x64):
    """Two equal class means leave a singular value of float32 noise, which is not inverted."""
    rows = np.random.default_rng(0).standard_normal((4, 9))
    rows[3] = rows[2] * (1 + 4 * EPS32)
    centred = rows - rows.mean(axis=0)
    assert int(linalg.row_space(jnp.asarray(centred), 3, EPS32).kept.sum()) == 2
    assert int(linalg.row_space(jnp.asarray(centred), 3, EPS64).kept.sum()) == 3


def test_gram_is_exact_far_below_eps(x64):
    """The pair of matrices holds the product to 1e-20, checked in integer arithmetic."""
    rng = np.random.default_rng(0)
    whole = rng.integers(-(2**50), 2**50, (300, 5))
    rows = whole * 2.0**-40  # exact in float64
    product, tail = jax.jit(linalg.gram)(jnp.asarray(rows))
    exact = whole.astype(object).T @ whole.astype(object)
    for i in range(5):
        for j in range(5):
            high, low = (int(float(part[i, j]) * 2.0**80) for part in (product, tail))
            assert abs(high + low - exact[i, j]) <= 2e-20 * abs(exact[i, i])


def test_gram_of_two_is_a_block_of_the_whole(x64):
    """Halves of the columns give the blocks of one product, to 1e-20 as well."""
    rows = jnp.asarray(np.random.default_rng(0).standard_normal((300, 6)))
    whole, tail = linalg.gram(rows)
    block, block_tail = linalg.gram(rows[:, :2], rows[:, 2:])
    assert np.abs((whole[:2, 2:] - block) + (tail[:2, 2:] - block_tail)).max() < 300 * 1e-20


def test_power_of_two_is_below_and_exact(x64):
    """Of any size: a GPU's 2**-15 was a number just below."""
    for dtype, largest in ((np.float64, 1e300), (np.float32, 1e37)):
        ends = -np.log10(largest), np.log10(largest)
        values = np.append(np.logspace(*ends, 1000), [1, 1.5, 2, 2 - np.finfo(dtype).eps])
        values = values.astype(dtype)
        powers = np.asarray(jax.jit(linalg.power_of_two)(values))
        assert powers.dtype == dtype
        assert np.all((powers <= values) & (values < 2 * powers))
        assert np.all(np.frexp(powers)[0] == 0.5)
    assert linalg.power_of_two(jnp.float32(1e-45)) == np.finfo(np.float32).tiny


def test_float64_is_for_the_cpu_or_what_there_is_without_one(monkeypatch):
    """JAX_PLATFORMS=cuda leaves the CPU out, and works; a TPU has no float64, and that is said."""
    assert linalg.host().platform == "cpu"
    there = jax.local_devices()

    def none_but(device):
        def local_devices(backend=None):
            if backend == "cpu":
                raise RuntimeError("Unknown backend cpu")
            return [device]

        return local_devices

    monkeypatch.setattr(jax, "local_devices", none_but(there[3]))
    assert linalg.host() == there[3]
    monkeypatch.setattr(jax, "local_devices", none_but(types.SimpleNamespace(platform="tpu")))
    with pytest.raises(RuntimeError, match=r"JAX_PLATFORMS='cpu' leaves it out: set .*cpu,cpu"):
        linalg.host()


def test_every_contraction_asks_for_full_precision():
    """Accelerators otherwise multiply float32 in bfloat16 or TF32."""
    text = jax.jit(linalg.matmul).lower(jnp.ones((2, 2)), jnp.ones((2, 2))).as_text()
    assert "precision = [HIGHEST, HIGHEST]" in text


def _solves(function, *arguments):
    """The eigenproblems a compiled call has run, counted by a host callback."""
    count = 0
    solve = linalg.eigh

    def counted(matrix):
        def tick(_):
            nonlocal count
            count += 1

        jax.debug.callback(tick, matrix[0, 0])
        return solve(matrix)

    linalg.eigh = counted
    try:
        result = jax.block_until_ready(jax.jit(function)(*arguments))
        jax.effects_barrier()
    finally:
        linalg.eigh = solve
    return count, result


@pytest.mark.parametrize(
    ("smallest", "dead", "solves"), [(1e-2, 0, 0), (1e-2, 5, 0), (1e-9, 0, 1), (0.0, 0, 1)]
)
def test_full_rank_is_proven_without_an_eigensolver(x64, smallest, dead, solves):
    """Both ways give the same projector-weighted inverse; only doubtful ranks cost an eigh."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    matrix = np.zeros((20 + dead, 20 + dead))
    matrix[:20, :20] = (basis * np.geomspace(1, max(smallest, 1e-30), 20)) @ basis.T
    scale = jnp.ones(20 + dead)
    whiten = lambda a: whitening.whiten(a, jnp.zeros_like(a), scale, EPS32)  # noqa: E731
    count, whitener = _solves(whiten, jnp.asarray(matrix))
    assert count == solves
    values, vectors = np.linalg.eigh(matrix)
    kept = values > len(matrix) * EPS64 * values[-1] + 8 * EPS32
    assert int(whitener.kept.sum()) == kept.sum()
    columns = np.asarray(whitener.map)[:, np.asarray(whitener.kept)]
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    np.testing.assert_allclose(columns @ columns.T, inverse, rtol=1e-9, atol=1e-9 / 1e-6)
