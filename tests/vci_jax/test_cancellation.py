"""Numbers that once lost their digits, each by the smallest data that showed it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vci_jax
from vci_jax import adjusted, linalg, precision

INFINITE = np.inf


@pytest.mark.parametrize(
    ("ratios", "size", "classes", "rank", "plugin", "expected"),
    [
        ([INFINITE, 107.54, 38.07, 6.653, 1.884, 0.7678, 0.3538], 22, 8, 15, 0.2595, 0.840),
        ([INFINITE] * 4 + [73.16, 5.328, 1.386], 20, 8, 16, 0.08437, 0.421),
        ([INFINITE] * 5 + [1.6905, 0.005754], 11, 8, 8, 0.19514, 0.840),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_adjusted_equation_keeps_its_digits_near_its_pole(
    ratios, size, classes, rank, plugin, expected, dtype, x64
):
    """With hardly more samples than directions; float32 gave 1e-20, 1e-19 and 0.51."""
    value = adjusted.adjusted_vci(
        adjusted.Sample(
            ratios=jnp.asarray(ratios, dtype),
            kept=jnp.ones(7, bool),
            size=jnp.asarray(size, dtype),
            classes=jnp.asarray(classes, dtype),
            rank=jnp.asarray(rank, dtype),
            limit=jnp.asarray(7, dtype),
        ),
        jnp.asarray(plugin, dtype),
    )
    assert float(value) == pytest.approx(expected, abs=2e-3)


def test_a_basis_of_rows_in_very_different_units_is_orthonormal(x64):
    """Columns from 1e-8 to 1e8: what the large directions leave in the others was 1e-3."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10, 16)) * 10.0 ** rng.uniform(-8, 8, 16)
    space = linalg.row_space(jnp.asarray(rows), 10, 2.2e-16)
    assert bool(space.kept.sum() > 5)
    basis = np.asarray(space.basis)[:, np.asarray(space.kept)]
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-13)


def evidence(features, labels, classes):
    """LogME by its fixed point from the singular values of the features."""
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    squares, (size, dim), total = singular**2, features.shape, 0.0
    for k in range(classes):
        target = (labels == k).astype(float)
        energy = (left.T @ target) ** 2
        outside, ratio = target.sum() - energy.sum(), 1.0
        for _ in range(2000):
            norm = np.sum(squares * energy / (ratio + squares) ** 2)
            residual = outside + np.sum(energy * (ratio / (ratio + squares)) ** 2)
            effective = np.sum(squares / (ratio + squares))
            a, b = effective / (norm + 1e-5), (size - effective) / (residual + 1e-5)
            ratio = a / b
        total += dim * np.log(a) + size * np.log(b / (2 * np.pi)) - np.sum(np.log(a + b * squares))
        total -= b * residual + a * norm
    return total / (2 * size * classes)


@pytest.mark.parametrize("unit", [1.0, 1e-10, 1e-20])
def test_logme_of_tiny_features(unit, x64):
    """1 - r / (r + s) is zero for s below 1e-16 r, where its fixed point begins."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    features = unit * (rng.normal(size=(3, 2))[labels] + rng.normal(size=(40, 2)))
    state = vci_jax.update(vci_jax.init(3, 2, dtype=jnp.float64), features, labels)
    wanted = evidence(features, labels, 3)
    assert vci_jax.report(state)["logme"] == pytest.approx(wanted, rel=1e-6)


def test_probe_mse_beside_a_collapsed_feature():
    """Other directions came out turned by 1e-5, which VCI does not feel and the labels do."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(9), [8, 3, 2, 4, 5, 7, 5, 8, 4])
    features = rng.normal(size=(9, 16))[labels] + rng.normal(size=(46, 16))
    features[:, 0] = rng.normal(size=9)[labels] + 2e-6 * rng.normal(size=46)
    with jax.enable_x64(True):
        state = vci_jax.jit_update(vci_jax.init(9, 16, dtype=jnp.float64), features, labels)
    columns = np.column_stack([np.ones(46), features])
    targets = np.eye(9)[labels]
    solution = np.linalg.lstsq(columns, targets)[0]
    wanted = np.mean(np.sum((columns @ solution - targets) ** 2, axis=1)) / 2
    assert vci_jax.report(state)["probe_mse"] == pytest.approx(wanted, rel=1e-9)


def test_directions_in_which_samples_cannot_vary_are_free_of_variance():
    """N - K < D: float32 saw c_j of some hundreds or thousands, and they are infinite."""
    finish = jax.jit(vci_jax.collapse_metrics)
    for seed, size in enumerate([17, 18, 22, 22, 22, 22]):
        rng = np.random.default_rng(seed)
        labels = np.arange(size) % 6
        means = 0.5 * rng.normal(size=(6, 18))
        features = (means[labels] + rng.normal(size=(size, 18))).astype(np.float32)
        got = finish(vci_jax.jit_update(vci_jax.init(6, 18), features, labels))
        with jax.enable_x64(True):
            empty = vci_jax.init(6, 18, dtype=jnp.float64)
            wanted = vci_jax.report(vci_jax.jit_update(empty, features, labels))
        for name in ("vci", "vci_adjusted", "h_score_adjusted"):
            assert float(got[name]) == pytest.approx(wanted[name], rel=1e-3, abs=1e-9, nan_ok=True)


def test_the_doubt_of_probe_mse_weighs_directions_as_the_labels_do():
    """One class of nine tenths, known in one poor direction: five times the error of VCI."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(9), [920] + [10] * 8)
    features = rng.normal(size=(9, 8))[labels] * 0.2 + rng.normal(size=(1000, 8))
    features[:, 1] = features[:, 0] + 3e-3 * (rng.normal(size=1000) + 2 * (labels == 0))
    features = features.astype(np.float32)
    single = vci_jax.jit_update(vci_jax.init(9, 8), features, labels)
    with jax.enable_x64(True):
        double = vci_jax.jit_update(vci_jax.init(9, 8, dtype=jnp.float64), features, labels)
        errors = jax.jit(_errors)(single)
    assert float(errors["probe_mse"]) > 3 * float(errors["vci"])
    wanted = vci_jax.report(double)["probe_mse"]
    assert vci_jax.report(single)["probe_mse"] == pytest.approx(
        wanted, rel=float(errors["probe_mse"])
    )


def _errors(single):
    """The relative errors of float32 moments, as ``report`` has them."""
    wide = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, single
    )
    eps = float(np.finfo(np.float32).eps)
    return precision.relative_errors(vci_jax.factorize(wide, data_eps=eps))
