"""Probes without an intercept, against scikit-learn's, which shares nothing with ours."""

import numpy as np
import pytest
from optimum import draw, objective
from sklearn.linear_model import LogisticRegression

from train import mesh as meshes
from train.config import MeshConfig
from vci_jax import probe

L2S = np.geomspace(1e2, 1e-4, 7)


def scikit_learns(features, labels, l2, weights=None):
    model = LogisticRegression(
        C=1 / (l2 * (len(labels) if weights is None else weights.sum())),
        fit_intercept=False,
        tol=1e-11,
        max_iter=100_000,
    ).fit(features, labels, sample_weight=weights)
    return objective(features, labels, model.coef_.T, 0, l2, weights)


@pytest.mark.parametrize("offset", [0.0, 3.0, 100.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_optimum_is_scikit_learns(dtype, offset):
    """The excess is in the tolerance and under its bound, and features count from their origin."""
    features, labels = draw()
    features = features + offset
    fit = probe.fit_path(features, labels, L2S, dtype=dtype, intercept=False)
    tolerance = 5e-7 if dtype == np.float32 else 3e-10
    assert fit.converged.all()
    assert not fit.bias.any()
    for l2, kernel, gap in zip(L2S, fit.kernel, fit.gap, strict=True):
        excess = (
            objective(features, labels, kernel, 0, l2) / scikit_learns(features, labels, l2) - 1
        )
        assert excess <= 2 * tolerance
        assert excess <= gap + tolerance / 10
        # A kernel that has to undo a large mean leaves float32 no small gradient to prove it by.
        assert gap <= (20 * tolerance if offset < 100 else 1e-3 if dtype == np.float32 else 1e-8)


def test_it_is_another_problem_than_with_one():
    features, labels = draw()
    without = probe.fit_path(features, labels, L2S, intercept=False)
    assert (probe.fit_path(features, labels, L2S).objective < without.objective).all()


def test_a_constant_column_is_a_penalised_intercept():
    """Which centring would have taken for nothing."""
    features, labels = draw()
    extended = np.column_stack([features, np.ones(len(features))])
    fit = probe.fit_path(extended, labels, L2S, dtype=np.float64, intercept=False)
    for l2, value in zip(L2S, fit.objective, strict=True):
        assert value == pytest.approx(scikit_learns(extended, labels, l2), rel=1e-8)
    assert np.abs(fit.kernel[-1][-1]).max() > 0.01


def test_weights_few_samples_and_absent_classes():
    features, labels = draw(size=20, dim=40)
    weights = np.linspace(0.2, 2, len(labels))
    fit = probe.fit_path(
        features, labels, L2S, num_classes=6, sample_weight=weights, dtype=np.float64,
        intercept=False,
    )  # fmt: skip
    assert (fit.bias[:, :4] == 0).all()
    assert (fit.bias[:, 4:] == -np.inf).all()
    for l2, value in zip(L2S, fit.objective, strict=True):
        assert value == pytest.approx(scikit_learns(features, labels, l2, weights), rel=1e-7)


def test_devices_and_data_sets_at_once_agree():
    sets = [draw(seed=seed) for seed in range(2)]
    alone = [probe.fit_path(*pair, L2S, intercept=False) for pair in sets]
    together = probe.fit_paths(*zip(*sets, strict=True), L2S, num_classes=4, intercept=False)
    mesh = meshes.make_mesh(MeshConfig())
    divided = [probe.fit_path(*pair, L2S, intercept=False, mesh=mesh) for pair in sets]
    for fits in (together, divided):
        for fit, expected in zip(fits, alone, strict=True):
            np.testing.assert_allclose(fit.objective, expected.objective, rtol=1e-6)


def test_a_file_of_a_path_with_an_intercept_is_another_path(tmp_path):
    features, labels = draw()
    for first in (True, False):
        file = tmp_path / f"{first}.npz"
        probe.fit_path(features, labels, L2S, resume=file, intercept=first)
        with pytest.raises(ValueError, match="another file"):
            probe.fit_path(features, labels, L2S, resume=file, intercept=not first)


def test_the_estimator_has_scikit_learns_name_for_it():
    features, labels = draw()
    model = probe.LogisticProbe(C=0.5, fit_intercept=False).fit(features, labels)
    theirs = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=10_000)
    theirs.fit(features, labels)
    np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-4)
    assert not model.intercept_.any()
    np.testing.assert_array_equal(model.predict(features), theirs.predict(features))


def test_all_zero_features_leave_classes_equally_likely():
    fit = probe.fit_path(np.zeros((6, 3)), [0, 0, 0, 0, 1, 2], [1.0], intercept=False)
    assert fit.objective[0] == pytest.approx(np.log(3), rel=1e-6)
    assert not fit.kernel.any()
