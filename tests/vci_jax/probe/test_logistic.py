"""The path solver against float64 SciPy, the definition, and the cases that break solvers."""

import jax.numpy as jnp
import numpy as np
import pytest
from optimum import draw, objective, scipy_optimum
from scipy import special
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from train import mesh as meshes
from train.config import MeshConfig
from vci_jax.probe import _problem, _progress, _rotation, _solver, path
from vci_jax.probe._softmax import cross_entropy

L2S = np.geomspace(1e3, 1e-6, 10)


def gradient(features, labels, kernel, bias, l2):
    residual = special.softmax(features @ kernel + bias, axis=1)
    residual[np.arange(len(labels)), labels] -= 1
    return features.T @ residual / len(labels) + l2 * kernel, residual.mean(axis=0)


@pytest.fixture(scope="module")
def exact():
    features, labels = draw()
    fit = path.fit_path(features, labels, L2S, dtype=np.float64, tolerance=1e-12)
    return features, labels, fit


@pytest.mark.parametrize("index", [0, 3, 6, 7])
def test_the_optimum_is_scipys(exact, index):
    """Objective to 1e-9; the kernel itself to what that allows, sqrt(2 f 1e-10 / l2)."""
    features, labels, fit = exact
    l2 = L2S[index]
    kernel, bias = scipy_optimum(features, labels, l2)
    best = objective(features, labels, kernel, bias, l2)
    ours = objective(features, labels, fit.kernel[index], fit.bias[index], l2)
    assert ours <= best * (1 + 1e-9)
    slack = np.sqrt(2 * best * 1e-9 / l2)
    np.testing.assert_allclose(fit.kernel[index], kernel, atol=max(slack, 1e-7))


def test_what_is_reported_is_what_the_parameters_have(exact):
    """Objective, gradient norm and gap against float64 NumPy at the returned point."""
    features, labels, fit = exact
    for i, l2 in enumerate(L2S):
        value = objective(features, labels, fit.kernel[i], fit.bias[i], l2)
        assert fit.objective[i] == pytest.approx(value, rel=1e-12)
        parts = gradient(features, labels, fit.kernel[i], fit.bias[i], l2)
        norm = np.sqrt(sum(np.sum(part**2) for part in parts))
        assert fit.grad_norm[i] == pytest.approx(norm, rel=1e-3, abs=1e-13)
        # |g|^2 <= 2 L (f - min f), and the softmax's Hessian is at most half the second moments.
        ones = np.concatenate([features, np.ones((len(labels), 1))], axis=1)
        steepest = np.linalg.eigvalsh(ones.T @ ones / len(labels))[-1] / 2 + l2
        assert norm <= np.sqrt(2 * steepest * 1e-12 * value)
        mean = features.mean(axis=0)
        bias = fit.bias[i] + mean @ fit.kernel[i]
        centred, _ = gradient(features - mean, labels, fit.kernel[i], bias, l2)
        # At most the bound that the gradient gives; a proof by Newton's step may give a better one.
        assert 0 <= fit.gap[i] <= np.sum(centred**2) / (2 * l2 * value) * 1.01 + 1e-12
    assert fit.converged.all()


def test_float32_reaches_one_part_in_a_million(exact):
    """At every penalty of a path, on real digits as well, over the float64 optimum."""
    data = load_digits()
    rng = np.random.default_rng(0)
    digits = np.maximum((data.data - 8) / 16 @ rng.normal(size=(64, 100)), 0)
    for features, labels in [exact[:2], (digits, data.target)]:
        best = path.fit_path(features, labels, L2S, dtype=np.float64, tolerance=1e-11)
        ours = path.fit_path(features.astype(np.float32), labels, L2S)
        assert ours.converged.all()
        for i, l2 in enumerate(L2S):
            value = objective(features, labels, ours.kernel[i], ours.bias[i], l2)
            assert value <= best.objective[i] * (1 + 1e-6), l2


@pytest.mark.parametrize("penalties", [10, 73])
def test_a_slow_end_is_not_taken_for_the_end(penalties):
    """Of few, overlapping samples at weak penalties, where a step gains little for dozens of steps.

    The predicted decrease is then far below what is left, and has to be believed less.
    """
    penalties = np.geomspace(1e3, 1e-6, penalties)
    for seed in range(1000, 1012):
        features, labels = draw(seed=seed, noise=[0.5, 1, 2][seed % 3])
        features = features.astype(np.float32)
        best = path.fit_path(features, labels, penalties, dtype=np.float64, tolerance=1e-10)
        ours = path.fit_path(features, labels, penalties)
        assert ours.converged.all()
        reached = [
            objective(features, labels, *one) for one in zip(*ours[:2], penalties, strict=True)
        ]
        assert np.max(reached / best.objective) - 1 < 1e-6, seed


def test_it_is_scikit_learns_with_c_one_over_n_l2(exact):
    features, labels, fit = exact
    theirs = LogisticRegression(C=1 / (len(labels) * L2S[3]), tol=1e-10, max_iter=10_000)
    theirs.fit(features, labels)
    np.testing.assert_allclose(theirs.coef_.T, fit.kernel[3], atol=1e-5)


def test_order_of_penalties_and_gaps_between_them_do_not_matter(exact):
    """Shuffled and thinned penalties give the same optima; fit is fit_path with one."""
    features, labels, fit = exact
    some = path.fit_path(features, labels, L2S[[7, 0, 7]], dtype=np.float64, tolerance=1e-12)
    np.testing.assert_allclose(some.objective, fit.objective[[7, 0, 7]], rtol=1e-10)
    one = path.fit(features, labels, L2S[7], dtype=np.float64, tolerance=1e-12)
    assert one.kernel.shape == (6, 4)
    # Two points within 1e-12 f of the optimum are this far apart at most, by strong convexity.
    apart = 2 * np.sqrt(2 * 1e-12 * one.objective / L2S[7])
    np.testing.assert_allclose(one.kernel, some.kernel[0], atol=apart)


def test_weights_are_repetitions(exact):
    """A sample of weight 2 is the sample twice; of weight 0, none; class weights multiply."""
    features, labels, _ = exact
    counts = np.arange(len(labels)) % 3
    repeated = np.repeat(np.arange(len(labels)), counts)
    options = {"dtype": np.float64, "tolerance": 1e-12}
    twice = path.fit(features[repeated], labels[repeated], 0.01, **options)
    weighted = path.fit(features, labels, 0.01, sample_weight=counts, **options)
    np.testing.assert_allclose(weighted.kernel, twice.kernel, atol=1e-6)
    by_class = np.array([1.0, 2.0, 0.5, 3.0])
    classes = path.fit(features, labels, 0.01, class_weight=by_class, **options)
    samples = path.fit(features, labels, 0.01, sample_weight=by_class[labels], **options)
    np.testing.assert_array_equal(classes.kernel, samples.kernel)


def test_eight_devices_follow_the_path_of_one():
    """Also where the samples do not divide among them: padding has no weight."""
    features, labels = draw(size=123)
    mesh = meshes.make_mesh(MeshConfig())
    assert mesh.size == 8
    one = path.fit_path(features, labels, L2S)
    eight = path.fit_path(features, labels, L2S, mesh=mesh)
    np.testing.assert_allclose(eight.objective, one.objective, rtol=1e-6)
    for i, l2 in enumerate(L2S):
        value = objective(features, labels, eight.kernel[i], eight.bias[i], l2)
        assert value == pytest.approx(one.objective[i], rel=1e-5)
    # The kernels too, as far as an excess determines them: to sqrt(2 excess / l2).
    one, eight = (
        path.fit_path(features, labels, L2S[:8], dtype=np.float64, tolerance=1e-13, mesh=some)
        for some in (None, mesh)
    )
    apart = np.linalg.norm(eight.kernel - one.kernel, axis=(1, 2))
    assert np.all(apart <= 1e-5 * np.linalg.norm(one.kernel, axis=(1, 2)))


@pytest.mark.parametrize("unit", [1e6, 1e-6])
def test_the_unit_of_the_features_does_not_matter(exact, unit):
    features, labels, _ = exact
    ours = path.fit_path(features * unit, labels, L2S * unit**2)
    plain = path.fit_path(features, labels, L2S)
    np.testing.assert_allclose(ours.objective, plain.objective, rtol=1e-6)


@pytest.mark.parametrize(("unit", "l2"), [(1e6, 1e-6), (1, 1e-17)])
def test_a_penalty_far_below_the_variance_is_reached(exact, unit, l2):
    """By way of more penalties than a block has, none of which was asked for."""
    features, labels, _ = exact
    fit = path.fit(features * unit, labels, l2, dtype=np.float64, tolerance=1e-6)
    assert fit.kernel.shape == (6, 4)
    value = objective(features * unit, labels, fit.kernel, fit.bias, l2)
    assert value == pytest.approx(fit.objective, rel=1e-6)


def test_integers_keep_their_digits():
    rng = np.random.default_rng(0)
    features, labels = rng.integers(0, 5, (60, 3)), rng.integers(0, 3, 60)
    expected = path.fit(features.astype(float), labels, 0.01, dtype=np.float64)
    fit = path.fit(features + 10**9, labels, 0.01, dtype=np.float64)
    assert fit.objective == pytest.approx(expected.objective, rel=1e-8)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.ones((4, 0)), {}, "D > 0"),
        (np.ones((4, 2)) * 1j, {}, "real numbers"),
        (np.eye(4), {"dtype": np.float16}, "dtype is float16"),
        (np.eye(4), {"tolerance": -1.0}, "tolerance is -1"),
        (np.eye(4), {"tolerance": np.nan}, "tolerance is nan"),
        (np.eye(4), {"max_steps": 2**31}, "max_steps is 2147483648"),
        (np.eye(4) * 1e-30, {}, "beyond the range of float32"),
        (np.eye(4) * 1e25, {}, "beyond the range of float32"),
    ],
)
def test_what_the_path_cannot_do_is_said_at_once(features, options, message):
    with pytest.raises(ValueError, match=message):
        path.fit(features, [0, 1, 0, 1], 1.0, **options)


def test_absent_classes_can_never_be_predicted(exact):
    """Labels with holes: the absent class has a bias of -inf, the others what they had."""
    features, labels, fit = exact
    holes = path.fit_path(features, labels * 2, L2S, num_classes=9, dtype=np.float64)
    np.testing.assert_array_equal(np.isneginf(holes.bias[0]), ~np.isin(np.arange(9), [0, 2, 4, 6]))
    np.testing.assert_allclose(holes.objective, fit.objective, rtol=1e-8)
    assert not holes.kernel[..., 1::2].any()


def test_features_whose_squares_overflow_are_refused(exact):
    features, labels, _ = exact
    with pytest.raises(ValueError, match="leave the range of float64: divide them"):
        path.fit_path(1e200 * features, labels, L2S)


def test_one_class_is_no_problem():
    fit = path.fit_path(np.eye(3), [1, 1, 1], [0.1, 1.0])
    assert fit.converged.all()
    assert not fit.objective.any()
    np.testing.assert_array_equal(fit.bias, [[-np.inf, 0]] * 2)


@pytest.mark.parametrize(
    "features",
    [
        np.ones((9, 4)),
        np.concatenate([draw(9, 4, 3)[0], np.ones((9, 1))], axis=1),
        np.repeat(draw(9, 4, 3)[0], 2, axis=1),
        draw(9, 30, 3)[0],
        draw(9, 4, 9)[0],
    ],
    ids=["constant", "one constant", "duplicated", "N < D", "one sample a class"],
)
def test_degenerate_features(features):
    """Each reaches the optimum SciPy finds."""
    labels = np.arange(9) % (9 if features.shape == (9, 4) and np.ptp(features) else 3)
    fit = path.fit(features, labels, 0.01, dtype=np.float64)
    best = objective(features, labels, *scipy_optimum(features, labels, 0.01), 0.01)
    ours = objective(features, labels, fit.kernel, fit.bias, 0.01)
    assert ours == pytest.approx(best, rel=1e-8)


def test_more_classes_than_samples():
    features = np.random.default_rng(0).normal(size=(3, 5))
    fit = path.fit(features, [0, 5, 9], 1e-3, num_classes=10)
    np.testing.assert_array_equal(np.argmax(features @ fit.kernel + fit.bias, axis=1), [0, 5, 9])


def test_separable_data_at_the_smallest_penalty():
    """The loss is nearly nothing, and float32 still finds its minimum to 1e-6."""
    features, labels = draw(size=60, dim=20, noise=0.1)
    best = path.fit(features, labels, 1e-6, dtype=np.float64, tolerance=1e-11)
    ours = path.fit(features, labels, 1e-6)
    assert best.objective < 1e-3
    value = objective(features, labels, ours.kernel, ours.bias, 1e-6)
    assert value <= best.objective * (1 + 1e-6)


def test_a_path_cut_short_says_so():
    features, labels = draw()
    said = r"1 of 1 penalties .*l2 = 1e-06.* within 1 steps"
    with pytest.warns(path.ConvergenceWarning, match=said):
        fit = path.fit(features, labels, 1e-6, max_steps=1)
    assert not fit.converged


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.full((4, 2), np.nan)}, "8 of 8 feature values are NaN"),
        ({"features": np.ones(4)}, r"shape \(4,\)"),
        ({"labels": [0, 1, 2, 3], "num_classes": 3}, r"1 labels lie outside \[0, 3\)"),
        ({"labels": [0.0, 1, 1, 0]}, "float64; expected integers"),
        ({"penalties": [1.0, 0.0]}, "positive finite"),
        ({"penalties": []}, "positive finite"),
        ({"sample_weight": [1, 1, -1, 1]}, "not negative"),
        ({"sample_weight": [1, 1]}, r"\(2,\)"),
        ({"class_weight": [1.0]}, r"expected \(2,\)"),
    ],
)
def test_bad_input(change, message):
    good = {"features": np.eye(4, 2), "labels": [0, 1, 0, 1], "penalties": [1.0]}
    with pytest.raises(ValueError, match=message):
        path.fit_path(**(good | change))


def test_confident_losses_keep_their_digits():
    """A sample right by 30 has the loss exp(-30) in float32, not zero; and its gradient."""
    losses, residual = cross_entropy(
        jnp.array([[30.0, 0.0], [0.0, 90.0]], jnp.float32), jnp.array([[True] * 2, [False] * 2])
    )
    np.testing.assert_allclose(losses, [np.exp(-30), 90], rtol=1e-6)
    np.testing.assert_allclose(residual, np.array([[-1, -1], [1, 1]]) * [np.exp(-30), 1], 1e-5)


def test_rotation_keeps_distances_and_undoes_itself():
    features, _ = draw(30, 5)
    found = _rotation.fit(features, np.full(30, 1 / 30))
    written = np.full((6, 31), np.nan)
    found.apply(features, written)
    assert np.isnan(written[5]).all()
    assert np.isnan(written[:, 30]).all()
    rotated = written[:5, :30].T
    np.testing.assert_allclose(np.cov(rotated.T, bias=True), np.diag(found.squares), atol=1e-12)
    assert found.squares[0] == pytest.approx(1)
    kernel, bias = np.ones((1, 5, 2)), np.ones((1, 2))
    there = rotated @ kernel[0] + bias[0]
    kernel, bias = found.undo(kernel, bias)
    np.testing.assert_allclose(features @ kernel[0] + bias[0], there, rtol=1e-12)


@pytest.mark.parametrize("dim", [6, 30])
def test_the_gradient_norm_is_for_the_features_as_they_came(dim):
    """Far from the optimum, with a mean; for N < D it is partly outside the span of the rows."""
    features, labels = draw(20, dim)
    with pytest.warns(path.ConvergenceWarning):
        fit = path.fit(features, labels, 1e-4, dtype=np.float64, max_steps=1)
    parts = gradient(features, labels, fit.kernel, fit.bias, 1e-4)
    norm = np.sqrt(sum(np.sum(part**2) for part in parts))
    assert norm > 1e-5
    assert fit.grad_norm == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 1e4 / 3])
def test_constant_features_have_no_direction_to_fit(constant):
    """What is left of them after centring is rounding, and must not become a feature."""
    rotated = _rotation.fit(np.full((30, 3), constant), np.full(30, 1 / 30))
    assert not len(rotated.squares)


@pytest.mark.parametrize("dim", [6, 150])
def test_the_gap_bounds_the_excess_wherever_a_path_is_cut(dim):
    """Also where the intercept is far from its optimum: classes of very different sizes."""
    features, labels = draw(dim=dim)
    weights = np.array([1, 30, 0.1, 5])[labels]
    options = {"sample_weight": weights, "dtype": np.float64}
    best = path.fit_path(features, labels, L2S, tolerance=1e-12, **options)
    for max_steps in (0, 1, 2, 3):
        with pytest.warns(path.ConvergenceWarning):
            cut = path.fit_path(features, labels, L2S, max_steps=max_steps, **options)
        excess = 1 - best.objective / cut.objective
        assert excess.max() > 1e-6
        assert (excess <= cut.gap + 1e-12).all()
    assert (best.gap[L2S > 1e-2] <= 1e-11).all()


def test_the_intercept_is_solved_for_apart_from_the_kernel(exact):
    """Its gradient d obeys d^T H^+ d <= 0.02 tolerance l2 f, and H <= 1/2, where f is loose."""
    features, labels, _ = exact
    loose = path.fit_path(features, labels, L2S, dtype=np.float64, tolerance=1e-3)
    scale = _rotation.fit(features, np.full(len(labels), 1 / len(labels))).scale
    for i, l2 in enumerate(L2S):
        _, free = gradient(features, labels, loose.kernel[i], loose.bias[i], l2)
        enough = 0.02 * 1e-3 * l2 / scale**2 * loose.objective[i]
        assert np.linalg.norm(free) <= np.sqrt(enough / 2) + 1e-14


def test_samples_in_chunks_follow_the_same_path(exact, monkeypatch):
    """Here of 43 samples, the last one padded; alone and with a part of each on eight devices."""
    features, labels = draw(size=129)
    whole = path.fit_path(features, labels, L2S, dtype=np.float64)
    monkeypatch.setattr(_problem, "_LARGEST_TEMPORARY", 43 * 4)
    assert _problem.shape(129, 4, 1) == (3, 1, 43)
    chunks = path.fit_path(features, labels, L2S, dtype=np.float64)
    np.testing.assert_allclose(chunks.objective, whole.objective, rtol=1e-9)
    monkeypatch.setattr(_problem, "_LARGEST_TEMPORARY", 6 * 4)
    assert _problem.shape(129, 4, 8) == (3, 8, 6)
    mesh = meshes.make_mesh(MeshConfig())
    both = path.fit_path(features, labels, L2S, dtype=np.float64, mesh=mesh)
    np.testing.assert_allclose(both.objective, whole.objective, rtol=1e-9)


def test_one_program_serves_all_data_of_a_shape(exact):
    """Whatever their unit, their dead features, and the number of penalties on the way."""
    features, labels, _ = exact
    wide = np.tile(features, 8) ** 2 + np.random.default_rng(0).normal(size=(120, 48))
    path.fit_path(wide, labels, L2S)
    programs = _solver.follow._cache_size()
    dead = wide * (np.arange(48) > 1)
    path.fit_path(1e3 * dead, labels, L2S[:3], tolerance=1e-4)
    assert _solver.follow._cache_size() == programs


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_data_sets_at_once_have_the_optima_that_each_has_alone(dtype):
    """Of different units, so that one needs more penalties on the way; of other shapes; trivial."""
    features, labels = draw(size=90)
    other = np.random.default_rng(1).normal(size=features.shape) + features[:, ::-1]
    data = [
        (features, labels),
        (1e3 * other, labels[::-1]),
        (features[:60], labels[:60]),
        (features, np.zeros_like(labels)),
    ]
    programs = _solver.follow_together._cache_size()
    together = path.fit_paths(*zip(*data, strict=True), L2S, num_classes=4, dtype=dtype)
    assert _solver.follow_together._cache_size() == programs + 2
    assert len(together) == 4
    for (its, own), fit in zip(data, together, strict=True):
        alone = path.fit_path(its, own, L2S, num_classes=4, dtype=dtype)
        assert fit.converged.all()
        assert fit.kernel.shape == alone.kernel.shape
        rtol = 1e-6 if dtype == np.float32 else 1e-9
        reached, expected = (
            [objective(its, own, *one) for one in zip(some.kernel, some.bias, L2S, strict=True)]
            for some in (fit, alone)
        )
        # Logits of a hundred round the objective that float32 reports, wherever the optimum is.
        np.testing.assert_allclose(fit.objective, alone.objective, rtol=5 * rtol)
        if own.any():  # A single class has biases of -inf.
            np.testing.assert_allclose(reached, expected, rtol=rtol)
    spoilt = np.where(np.arange(features.size).reshape(features.shape) == 7, np.inf, features)
    with pytest.raises(ValueError, match="data set 1: 1 of"):
        path.fit_paths([features, spoilt], [labels, labels], L2S, num_classes=4)


class Stopped(Exception):
    """As Ctrl-C would."""


def test_an_interrupted_path_goes_on_to_the_same_numbers(exact, tmp_path, monkeypatch):
    features, labels, _ = exact
    penalties = np.geomspace(1e3, 1e-6, 40)
    whole = path.fit_path(features, labels, penalties)
    calls, follow = [], _solver.follow

    def fail_at_the_third(*arguments):
        calls.append(len(calls))
        if len(calls) == 3:
            raise Stopped
        return follow(*arguments)

    monkeypatch.setattr(_solver, "follow", fail_at_the_third)
    file = tmp_path / "path.npz"
    with pytest.raises(Stopped):
        path.fit_path(features, labels, penalties, resume=file)
    resumed = path.fit_path(features, labels, penalties, resume=file)
    assert len(calls) == 4  # The third block alone was left.
    for a, b in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(a, b)
    again = path.fit_path(features, labels, penalties, resume=file)
    assert len(calls) == 4
    np.testing.assert_array_equal(again.kernel, whole.kernel)
    with pytest.raises(_progress.Unusable, match="other features, labels"):
        path.fit_path(features + 1, labels, penalties, resume=file)
    kept = file.read_bytes()
    wrong = bytearray(kept)
    wrong[kept.rfind(b"NUMPY") + 150] ^= 1  # A number of the last array.
    for damaged in (b"mine", b"", kept[:-100], bytes(wrong)):
        file.write_bytes(damaged)
        with pytest.raises(_progress.Unusable, match="keeps no path"):
            path.fit_path(features, labels, penalties, resume=file)


def test_a_class_without_weight_is_absent(exact):
    features, labels, _ = exact
    fit = path.fit(features, labels, 0.1, class_weight=[1, 1, 1, 0])
    three = path.fit(features[labels < 3], labels[labels < 3], 0.1)
    assert np.isneginf(fit.bias[3])
    assert fit.objective == pytest.approx(three.objective, rel=1e-6)
