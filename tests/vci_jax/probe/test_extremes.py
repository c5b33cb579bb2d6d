"""Features in any units, outliers and rare classes: the optimum of what was given, or a refusal.

The oracle is Newton's method in float64 on columns of unit scale, whose penalty is a diagonal.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from optimum import objective
from scipy import linalg, special

from vci_jax.probe import _intercept, _newton, _precondition, _prepared, _problem, _rotation, path
from vci_jax.probe.estimator import LogisticProbe

WITHIN = {np.float32: 1e-6, np.float64: 1e-9}
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def optimum(features, labels, l2, weights=None):
    """Returns the minimum, and the kernel and bias, by dense Newton on columns of unit scale."""
    samples, classes = len(labels), labels.max() + 1
    weights = np.full(samples, 1 / samples) if weights is None else weights / weights.sum()
    mean = weights @ (features - features[0]) + features[0]
    centred = features - mean
    unit = np.sqrt(weights @ centred**2)
    unit[unit == 0] = 1
    design = np.column_stack([centred / unit, np.ones(samples)])
    ridge = np.repeat(np.append(l2 / unit**2, 0), classes)
    params = np.zeros((design.shape[1], classes))
    target = np.eye(classes)[labels]

    def value(params):
        logits = design @ params
        losses = special.logsumexp(logits - logits[np.arange(samples), labels][:, None], axis=1)
        return weights @ losses + ridge @ params.ravel() ** 2 / 2

    for _ in range(200):
        p = special.softmax(design @ params, axis=1)
        gradient = (design.T @ (weights[:, None] * (p - target))).ravel() + ridge * params.ravel()
        curved = (p[:, :, None] * np.eye(classes) - p[:, :, None] * p[:, None]) * weights[
            :, None, None
        ]
        hessian = np.einsum("ia,ib,ikl->akbl", design, design, curved, optimize=True)
        hessian = hessian.reshape(2 * [params.size]) + np.diag(ridge)
        scale = 1 / np.sqrt(np.diag(hessian))
        step = scale * linalg.lstsq(hessian * scale[:, None] * scale, -scale * gradient, 1e-14)[0]
        length, here = 1.0, value(params)
        while length > 1e-10 and value(params + length * step.reshape(params.shape)) > here:
            length /= 2
        params = params + length * step.reshape(params.shape)
        if -gradient @ step < 1e-13 * here:
            break
    kernel = params[:-1] / unit[:, None]
    return value(params), kernel, params[-1] - mean @ kernel


def excess(features, labels, fit, l2, weights=None):
    best, *_ = optimum(features, labels, l2, weights)
    reached = objective(features, labels, fit.kernel, fit.bias, l2, weights)
    return reached / best - 1


def overlapping(size=200, dim=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    return rng.normal(size=(classes, dim))[labels] + rng.normal(size=(size, dim)), labels


def two_columns():
    """One column of huge unit that says nothing, and one that decides the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    noise = 2e6 * rng.normal(size=400)
    return np.stack([noise, 2.0 * labels - 1 + 0.3 * rng.normal(size=400)], axis=1), labels


@both
@pytest.mark.parametrize("unit", [1, 1e-2, 1e4])
def test_a_column_of_huge_unit_hides_no_other(dtype, unit):
    features, labels = two_columns()
    features[:, 0] *= unit
    fit = path.fit(features, labels, 1e-3, dtype=dtype)
    assert fit.converged
    if unit >= 1:
        assert fit.gap <= (5e-7 if dtype == np.float32 else 3e-10)
    assert excess(features, labels, fit, 1e-3) <= WITHIN[dtype]
    assert LogisticProbe(dtype=dtype.__name__).fit(features, labels).score(features, labels) == 1


@both
def test_unix_time_is_a_feature_like_any_other(dtype):
    """In seconds, over a month, beside ordinary ones."""
    features, labels = overlapping()
    times = 1.7e9 + np.random.default_rng(1).integers(0, 2_600_000, 200)
    features = np.column_stack([times, features])
    for l2 in (1e-2, 1e-4):
        fit = path.fit(features, labels, l2, dtype=dtype)
        assert fit.converged or dtype == np.float32  # Whose rounding no proof survives here.
        if fit.converged:
            assert excess(features, labels, fit, l2) <= WITHIN[dtype]


@both
@pytest.mark.parametrize("decades", [2, 4, 8])
def test_columns_of_mixed_units(dtype, decades):
    """Up to 1e-8 and 1e8, where the smallest matter least."""
    features, labels = overlapping(dim=5)
    features *= 10.0 ** np.linspace(-decades, decades, 5)
    fit = path.fit(features, labels, 1e-3, dtype=dtype)
    assert fit.converged or (dtype, decades) == (np.float32, 8)  # Said to be beyond float32.
    if fit.converged:
        assert excess(features, labels, fit, 1e-3) <= WITHIN[dtype]


@both
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_any_unit_is_right_or_refused(dtype, unit):
    features, labels = overlapping()
    best, *_ = optimum(features, labels, 1e-2)
    fit = path.fit(unit * features, labels, 1e-2 * unit**2, dtype=dtype)
    assert fit.converged
    reached = objective(unit * features, labels, fit.kernel, fit.bias, 1e-2 * unit**2)
    assert reached / best - 1 <= WITHIN[dtype]
    if dtype == np.float32:
        with pytest.raises(ValueError, match="beyond the range of float32"):
            path.fit(unit * features, labels, 1e-2, dtype=dtype)


@both
@pytest.mark.parametrize("case", ["duplicated", "constant", "N < D", "offset", "one far column"])
def test_collinear_wide_and_far(dtype, case):
    features, labels = overlapping()
    if case == "duplicated":
        features = np.column_stack([features, 1e5 * features])
    if case == "constant":
        features = np.column_stack([features, np.full(200, 1e9 / 3)])
    if case == "N < D":
        features, labels = overlapping(size=24, dim=40)
        features *= 10.0 ** np.linspace(-5, 5, 40)
    if case == "offset":
        features += 1e8
    if case == "one far column":
        features = np.column_stack([features, 1e12 + features[:, 0]])
    fit = path.fit(features, labels, 1e-2, dtype=dtype)
    # At 1e12 a bias in float64 has four digits after the point; and l2 is 1e-12 of the variance.
    if case == "one far column" and dtype == np.float64:
        assert not fit.converged
    else:
        assert fit.converged
    # Of 1e10 times the features' own variance, l2 = 1e-2 is 1e-12: less than float32 resolves.
    allowed = 1e-5 if (case, dtype) == ("duplicated", np.float32) else WITHIN[dtype]
    if fit.converged:
        assert excess(features, labels, fit, 1e-2) <= allowed


def outlier():
    features, labels = overlapping(size=400, dim=8, classes=5)
    features[7] *= 3000
    return features, labels, None


def rare_class():
    features, labels = overlapping(size=400, dim=8, classes=5)
    labels[labels == 4] = 0
    labels[3] = 4
    return features, labels, None


def light_classes():
    features, labels = overlapping(size=400, dim=8, classes=5)
    return features, labels, np.array([1, 1, 1, 1e-6, 1e-6])[labels]


def light_samples():
    features, labels = overlapping(size=400, dim=8, classes=5)
    return features, labels, np.where(np.random.default_rng(4).random(400) < 0.5, 1e-6, 1)


@both
@pytest.mark.parametrize("draw", [outlier, rare_class, light_classes, light_samples])
def test_uneven_samples_converge_with_a_proof(dtype, draw):
    """L-BFGS alone predicts nothing left to gain where there is 1e-3 of the objective."""
    features, labels, weights = draw()
    penalties = np.geomspace(1e2, 1e-6, 9)
    tolerance = 5e-7 if dtype == np.float32 else 3e-10
    fit = path.fit_path(features, labels, penalties, sample_weight=weights, dtype=dtype)
    # Where logits are large, rounding may keep float64 from its proof of 3e-10 at the end.
    assert fit.converged[:-1].all()
    assert (fit.gap <= 5 * tolerance)[fit.converged].all()
    for i in np.flatnonzero(fit.converged)[[3, 5, 7, -1]]:
        one = path.ProbeFit(*(field[i] for field in fit))
        assert excess(features, labels, one, penalties[i], weights) <= WITHIN[dtype]


def test_what_is_left_out_counts_in_the_gap(monkeypatch):
    """Were the small column dropped, the fit would say so."""
    features, labels = two_columns()
    whole = _rotation.fit(features, np.full(400, 1 / 400))
    assert (len(whole.squares), whole.dropped, whole.lost) == (2, 0, 0)
    cut = whole._replace(
        axes=whole.axes[:, :1],
        squares=whole.squares[:1],
        dropped=1,
        lost=float(whole.squares[1]),
    )
    monkeypatch.setattr(_prepared._rotation, "fit", lambda *_, **__: cut)
    with pytest.warns(UserWarning, match="1 of 2 directions"):
        fit = path.fit(features, labels, 1e-3, dtype=np.float64)
    best, *_ = optimum(features, labels, 1e-3)
    assert not fit.converged
    assert fit.gap >= 1 - best / fit.objective


@pytest.mark.parametrize("decades", [0, 3, 6, 8])
def test_axes_are_orthonormal_and_columns_uncorrelated_at_any_scale(decades):
    """And exactly dependent columns leave the others as they are."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 12)) * 10.0 ** np.linspace(-decades, decades, 12)
    if decades < 8:
        features = np.column_stack([features, features[:, -3:]])
    found = _rotation.fit(features, np.full(300, 1 / 300))
    assert (len(found.squares), found.dropped) == (12, 3 * (decades < 8))
    np.testing.assert_allclose(found.axes.T @ found.axes, np.eye(12), atol=1e-13)
    rotated = np.empty((12, 300))
    found.apply(features, rotated)
    rotated /= np.sqrt(found.squares)[:, None]
    np.testing.assert_allclose(rotated @ rotated.T / 300, np.eye(12), atol=1e-8)


def test_newtons_step_proves_what_the_gradient_alone_cannot(x64):
    """Near the optimum: the step is Newton's, and the bound lies above the true excess, not far."""
    features, labels = overlapping()
    found = _rotation.fit(features, np.full(200, 1 / 200))
    design = np.ones((5, 200))
    found.apply(features, design)
    data = _problem.Problem(
        design=jnp.asarray(design)[None, None],
        weights=jnp.full((1, 1, 200), 1 / 200),
        targets=jnp.asarray(labels == np.arange(3)[:, None])[None, None],
        squares=jnp.append(found.squares, 1),
        penalised=jnp.append(jnp.ones(4), 0),
        tolerance=jnp.asarray(1e-9),
        max_steps=jnp.int32(100),
    )
    l2 = 1e-6
    best, kernel, bias = optimum(features, labels, l2 * found.scale**2)
    params = np.vstack([found.scale * found.axes.T @ kernel, bias + found.mean @ kernel])
    moved = params + 1e-4 * np.random.default_rng(0).normal(size=params.shape)
    logits = jnp.asarray(moved.T @ design)[None, None]
    p = special.softmax(moved.T @ design, axis=0) - np.asarray(data.targets[0, 0])
    gradient = design @ p.T / 200 + l2 * np.append(np.ones(4), 0)[:, None] * moved
    curvature = _precondition.diagonal_of_hessian(data, logits)
    inverse = _precondition.Inverse(1 / (curvature + l2 * data.penalised[:, None]))
    kernel = found.axes @ moved[:4] / found.scale
    reached = objective(
        features, labels, kernel, moved[4] - found.mean @ kernel, l2 * found.scale**2
    )
    proof = _newton.prove(data, logits, jnp.asarray(gradient), inverse, l2, 5 * (reached - best))
    assert reached - best <= proof.excess <= 5 * (reached - best)
    plain = _intercept.excess(data, jnp.asarray(gradient), 0.0, l2)
    assert plain > 100 * proof.excess
