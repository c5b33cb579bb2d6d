"""The parts of the path solver, each against SciPy or its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimum import draw
from scipy import optimize, special

from vci_jax.probe import _intercept, _lbfgs, _precondition, _problem, _rotation, _warm_start, path
from vci_jax.probe._precondition import Inverse
from vci_jax.probe._softmax import cross_entropy, over_classes, relative_to_target


def made(features, labels):
    """A problem in one chunk, the design ``[Q N]``, and the rotation."""
    samples, classes = len(labels), labels.max() + 1
    found = _rotation.fit(features, np.full(samples, 1 / samples))
    design = np.ones((len(found.squares) + 1, samples))
    found.apply(features, design)
    data = _problem.Problem(
        design=jnp.asarray(design)[None, None],
        weights=jnp.full((1, 1, samples), 1 / samples),
        targets=jnp.asarray(labels == np.arange(classes)[:, None])[None, None],
        squares=jnp.append(found.squares, 1),
        penalised=jnp.append(np.ones(len(found.squares)), 0),
        tolerance=jnp.asarray(1e-9),
        max_steps=jnp.int32(100),
    )
    return data, design, found


def value(design, labels, params, l2):
    logits = params.T @ design
    losses = special.logsumexp(logits, axis=0) - logits[labels, np.arange(len(labels))]
    return np.mean(losses) + l2 / 2 * np.sum(params[:-1] ** 2)


@pytest.mark.parametrize("classes", [2, 16, 17, 40])
def test_cross_entropy_is_its_definition(classes):
    """Few classes and many take different ways; also for samples behind by 200, in float32."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % classes
    logits = (rng.normal(size=(classes, 80)) * np.geomspace(0.1, 200, 80)).astype(np.float32)
    targets = labels == np.arange(classes)[:, None]
    losses, residual = cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
    wide = logits.astype(np.float64)
    behind = np.sort(wide - wide[labels, np.arange(80)], axis=0)
    others = np.where(targets, -np.inf, wide - wide[labels, np.arange(80)])
    expected = np.logaddexp(0, special.logsumexp(others, axis=0))
    far = np.abs(behind).max(axis=0)
    assert (np.abs(losses - expected) <= 1e-6 * (expected + far * np.minimum(expected, 1))).all()
    np.testing.assert_allclose(residual, special.softmax(wide, axis=0) - targets, atol=2e-5)
    np.testing.assert_allclose(over_classes(residual), 0, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 0.5, 1e-3, 30])
def test_the_intercept_settles_where_scipy_finds_it(x64, factor):
    """And hands on loss and residual of that place, whose mean is zero there.

    The Hessian for the first step may be as wrong as it likes.
    """
    features, labels = draw(dim=6)
    data, design, _ = made(features, labels[np.argsort(labels % 3 == 0)])
    labels = np.argmax(data.targets[0, 0], axis=0)
    params = np.random.default_rng(0).normal(size=(7, 4))
    logits = params.T @ design
    p = special.softmax(logits, axis=0)
    slope = np.mean(p - np.asarray(data.targets[0, 0]), axis=1)
    hessian = factor * (np.diag(p.mean(axis=1)) - p @ p.T / p.shape[1])
    found = _intercept.solve(data, jnp.asarray(logits)[None, None], slope, hessian, 1e-20)
    moved = params + np.append(np.zeros((6, 4)), found.move[None], axis=0)
    best = optimize.minimize(
        lambda b: value(design, labels, np.append(params[:-1], [b], axis=0), 0), params[-1]
    )
    assert value(design, labels, moved, 0) <= best.fun * (1 + 1e-12)
    assert found.loss == pytest.approx(value(design, labels, moved, 0), rel=1e-12)
    assert found.rest <= 1e-20
    p = special.softmax(moved.T @ design, axis=0)
    np.testing.assert_allclose(found.residual[0, 0], p - np.asarray(data.targets[0, 0]), atol=1e-12)
    np.testing.assert_allclose(np.mean(found.residual[0, 0], axis=1), 0, atol=1e-10)


@pytest.mark.parametrize("ratio", [1.33, 10.0])
def test_the_best_of_the_span_is_found_and_never_worse_than_going_straight_on(x64, ratio):
    """From three optima, near each other and far: Newton's last step is not looked at."""
    features, labels = draw(dim=6)
    data, design, found = made(features, labels)
    penalties = 0.1 / ratio ** np.arange(4)
    fit = path.fit_path(features, labels, penalties[:3], dtype=np.float64)
    kernel = found.scale * np.einsum("dq,pdk->pqk", found.axes, fit.kernel)
    bias = fit.bias + np.einsum("d,pdk->pk", found.mean, fit.kernel)
    params = np.concatenate([kernel, bias[:, None]], axis=1)[::-1]
    images = [
        relative_to_target(jnp.asarray(one.T @ design)[None, None], data.targets) for one in params
    ]
    l2 = penalties[3] / found.scale**2
    best = np.asarray(jax.jit(_warm_start.best)(data, jnp.asarray(params), images, l2))
    reached = value(design, labels, best, l2)
    assert reached <= value(design, labels, 2 * params[0] - params[1], l2)

    def objective(coefficients):
        return value(design, labels, np.tensordot(coefficients, params, 1), l2)

    theirs = optimize.minimize(objective, [2, -1, 0], options={"gtol": 1e-9})
    # The last step may have promised a ten-thousandth, and Newton squares what is left.
    assert reached <= theirs.fun * (1 + 1e-6)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("pairs", [0, 2, 4, 7])
def test_the_direction_is_that_of_the_recursion_also_after_the_penalty_changed(x64, pairs, blocks):
    rng = np.random.default_rng(pairs)
    shape, size = (6, 3), 4
    penalised = np.append(np.ones(5), 0)[:, None] * np.ones(3)
    root = rng.normal(size=(18, 18))
    hessian = root @ root.T / 18 + 0.1 * np.diag(penalised.ravel())
    inverse, other = (Inverse(1 / rng.uniform(1, 2, size=(6, 1))) for _ in range(2))
    if blocks:  # Each class has its own, turned and far from its diagonal.
        turned = rng.normal(size=(3, 6, 6))
        other = Inverse(other.diagonal, turned @ turned.mT / 6 + np.eye(6), jnp.bool_(True))
    remembered, steps = _lbfgs.init(size, jnp.zeros(shape)), []
    for step in rng.normal(size=(pairs, *shape)):
        change = (hessian @ step.ravel()).reshape(shape)
        remembered, useful = _lbfgs.push(remembered, step, change, inverse)
        assert useful
        steps = [*steps, step.ravel()][-size:]
    # More penalty: the pairs are now those of another Hessian, with another preconditioner.
    remembered = _lbfgs.shift(remembered, 0.4 * penalised[:, :1], other)
    hessian += 0.4 * np.diag(penalised.ravel())
    gradient = rng.normal(size=shape)
    units = np.eye(18).reshape(18, *shape)
    scaling = np.asarray(other(units)).reshape(18, 18)
    if steps:
        change = hessian @ steps[-1]
        scaling = scaling * (steps[-1] @ change) / (change @ scaling @ change)
    estimate = scaling
    for step in steps:  # BFGS, as in every textbook.
        change = hessian @ step
        turn = np.eye(18) - np.outer(step, change) / (step @ change)
        estimate = turn @ estimate @ turn.T + np.outer(step, step) / (step @ change)
    found = _lbfgs.direction(remembered, gradient, other)
    np.testing.assert_allclose(found.ravel(), -estimate @ gradient.ravel(), rtol=1e-10)


@pytest.mark.parametrize("change", [-1.0, 0.0, np.nan])
def test_a_pair_without_curvature_empties_the_memory_and_leaves_nothing_behind(change):
    rng = np.random.default_rng(0)
    shape, inverse = (4, 3), Inverse(jnp.ones((4, 1)))
    step, gradient = rng.normal(size=(2, *shape)).astype(np.float32)
    remembered, _ = _lbfgs.push(_lbfgs.init(3, jnp.zeros(shape)), step, 2 * step, inverse)
    remembered, useful = _lbfgs.push(remembered, step, change * step, inverse)
    assert not useful
    assert remembered.count == 0
    again = _lbfgs.shift(remembered, jnp.zeros((4, 1)), inverse)
    for one in (remembered, again):
        np.testing.assert_allclose(_lbfgs.direction(one, gradient, inverse), -gradient, rtol=1e-6)
    grown, useful = _lbfgs.push(remembered, step, 2 * step, inverse)
    assert useful
    assert grown.count == 1
    assert np.isfinite(grown.products[0, 0])
    found = _lbfgs.direction(grown, step, inverse)
    np.testing.assert_allclose(found, -step / 2, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 8, 10, 31, 33, 70])
def test_products_over_samples_are_their_definitions(x64, rows):
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(5, 40)), rng.normal(size=(rows, 40))
    np.testing.assert_allclose(_problem.outer(a, b), a @ b.T, rtol=0, atol=1e-13)
    np.testing.assert_allclose(_problem.gram(a.reshape(5, 8, 5), 2 * a), 2 * a @ a.T, atol=1e-13)


def test_blocks_are_the_inverse_hessians_of_the_classes(x64):
    """With every sample and little of the diagonal; where they are off, the diagonal is used."""
    features, labels = draw(200, 5, 3)[:2]
    data, design, _ = made(features, labels)
    data = data._replace(sampled=jnp.arange(200))
    l2, rng = 1e-3, np.random.default_rng(2)
    size = len(design)
    params = rng.normal(size=(size, 3))
    here = jnp.asarray(params.T @ design)[None, None]
    hessian = jnp.eye(3) / 3 - 1 / 9
    ridge = l2 * data.penalised[:, None]
    given = _precondition.inverse(data, hessian, ridge, here, jnp.bool_(True))
    p = special.softmax(params.T @ design, axis=0)
    vectors = rng.normal(size=(4, size, 3))
    expected = np.empty_like(vectors)
    shrunk = _precondition._SHRINKAGE
    for k in range(3):
        full = design * (p[k] * (1 - p[k]) / 200) @ design.T
        np.testing.assert_allclose(
            _precondition.diagonal_of_hessian(data, here)[:, k], np.diag(full), rtol=1e-10
        )
        mixed = (1 - shrunk) * full + shrunk * np.diag(np.diag(full)) + np.diag(ridge[:, 0])
        expected[..., k] = np.linalg.solve(mixed, vectors[..., k].T).T
    np.testing.assert_allclose(given(vectors), expected, rtol=1e-8)
    off = _precondition.inverse(data, hessian, ridge, here, jnp.bool_(False))
    np.testing.assert_allclose(off(vectors), off.diagonal * vectors)


@pytest.mark.parametrize(
    ("samples", "classes", "columns", "there"),
    [
        (20_000, 100, 65, True),
        (4_000, 100, 65, False),  # 65^2 > 4,000: more memory than logits
        (20_000, 10, 65, False),  # a step takes no time
        (1_280_000, 1000, 513, True),
    ],
)
def test_blocks_are_made_where_they_cost_no_more_than_a_few_steps(samples, classes, columns, there):
    found = _precondition.sampled(samples, classes, columns, samples // 4)
    assert (found is not None) == there
    if there:
        assert len(set(found)) == len(found)
        assert 4 * len(found) == pytest.approx(32 * columns, abs=4)
        assert max(found) < samples // 4


def collapsed(rng, samples=1500, dim=24, classes=12):
    """Features of a network that other classes were taught to: few axes have nearly all."""
    kinds = rng.integers(0, 6, classes)
    centres = 3 * rng.normal(size=(6, dim))[kinds] + 0.2 * rng.normal(size=(classes, dim))
    labels = np.arange(samples) % classes
    noise = rng.normal(size=(samples, dim)) * np.geomspace(1, 0.01, dim)
    return (centres[labels] + noise).astype(np.float32), labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_save_most_steps_and_change_no_optimum(monkeypatch, dtype):
    features, labels = collapsed(np.random.default_rng(0))
    penalties = np.geomspace(1, 1e-6, 13)
    options = {"dtype": dtype, "tolerance": 1e-6}
    plain = path.fit_path(features, labels, penalties, **options)
    monkeypatch.setattr(_precondition, "_LEAST_WORK", 0)
    blocks = path.fit_path(features, labels, penalties, **options)
    assert plain.converged.all()
    assert blocks.converged.all()
    np.testing.assert_allclose(blocks.objective, plain.objective, rtol=3e-6)
    hard = plain.steps > 24
    assert hard.sum() >= 3
    assert blocks.steps[hard].sum() < plain.steps[hard].sum() / 2


def test_blocks_are_the_same_over_eight_devices(monkeypatch):
    monkeypatch.setattr(_precondition, "_LEAST_WORK", 0)
    features, labels = collapsed(np.random.default_rng(3))
    penalties = np.geomspace(1, 1e-5, 6)
    alone = path.fit_path(features, labels, penalties)
    mesh = jax.make_mesh((8,), ("data",))
    spread = path.fit_path(features, labels, penalties, mesh=mesh)
    np.testing.assert_allclose(spread.objective, alone.objective, rtol=2e-6)
    assert spread.converged.all()
