"""The protocol: splits, choice, refit, score; and the estimator."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.utils.estimator_checks import parametrize_with_checks

from vci_jax import probe
from vci_jax.probe import _solver, path, selection
from vci_jax.probe.estimator import LogisticProbe

VALUES = np.geomspace(1e-3, 1e6, 10)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    rows = np.random.default_rng(0).permutation(len(data.target))
    splits = np.split(rows, [300, 500, 1000])
    return [selection.Samples(data.data[part], data.target[part]) for part in splits[:3]]


def test_the_grid_is_the_papers():
    assert len(selection.VALUES) == 97
    np.testing.assert_allclose(selection.VALUES[[0, 8, 96]], [1e-6, 1e-5, 1e6])


def test_a_sweep_is_scikit_learns_loop(digits):
    """Validation curve, choice, refit on both and test score against the loop people write."""
    train, validation, test = digits
    found = selection.sweep(train, test, validation=validation, values=VALUES, dtype=np.float64)

    def accuracy(value, fitted, scored):
        model = LogisticRegression(C=1 / value, tol=1e-9, max_iter=20_000)
        return model.fit(*fitted).score(*scored)

    for index in (3, 6, 9):  # Weak penalties take scikit-learn minutes.
        expected = accuracy(VALUES[index], train, validation)
        assert found.curve[index] == pytest.approx(expected, abs=1e-12)
    assert found.value == VALUES[np.flatnonzero(found.curve == found.curve.max())[-1]]
    assert found.validation_score == found.curve.max()
    assert found.l2 == found.value / 500
    both = [np.concatenate(parts) for parts in zip(train, validation, strict=True)]
    assert found.score == pytest.approx(accuracy(found.value, both, test), abs=1e-12)
    assert not found.warnings


def test_ties_go_to_the_larger_penalty():
    assert selection.choose(np.array([0.1, 1.0, 10.0, 100.0]), np.array([0.5, 0.9, 0.9, 0.1])) == 10


@pytest.mark.parametrize(
    ("curve", "patience", "over"),
    [
        ([np.nan, np.nan, 0.5, 0.9, 0.3], 1, True),  # 0.9 - 3 sqrt(0.09 / 100) = 0.81.
        ([np.nan, np.nan, 0.82, 0.9, 0.3], 1, False),
        ([np.nan, 0.82, 0.5, 0.9, 0.3], 2, False),
        ([np.nan, 0.5, 0.8, 0.9, 0.3], 2, True),
        ([np.nan, np.nan, np.nan, 0.1, 0.9], 2, False),
        ([np.nan, np.nan, np.nan, 1.0, 0.9], 9, True),  # Nothing is better than right.
    ],
)
def test_a_path_is_left_once_smaller_penalties_cannot_win(curve, patience, over):
    values = np.geomspace(1e-4, 1, 5)
    assert selection.settled(values, np.array(curve), 100, patience) == over


def test_an_early_end_changes_nothing_but_the_rest_of_the_curve(digits, tmp_path):
    """One feature gives the class away: all is right long before the smallest penalty."""
    train, validation, test = digits
    values = np.geomspace(1e-6, 1e6, 49)
    easy = [selection.Samples(s.features, s.labels % 2) for s in (train, validation, test)]
    easy = [selection.Samples(np.c_[s.features, 200.0 * s.labels], s.labels) for s in easy]
    options = {"validation": easy[1], "values": values}
    whole = selection.sweep(easy[0], easy[2], **options)
    early = selection.sweep(easy[0], easy[2], patience=4, resume=tmp_path / "p.npz", **options)
    assert not np.isnan(whole.curve).any()
    visited = ~np.isnan(early.curve)
    assert 0 < visited.sum() < 49
    np.testing.assert_array_equal(early.curve[visited], whole.curve[visited])
    assert (early.value, early.score) == (whole.value, whole.score)
    assert (tmp_path / "p.npz").exists()


def test_an_interrupted_sweep_goes_on_where_it_was(digits, tmp_path, monkeypatch):
    train, validation, test = digits
    options = {"validation": validation, "values": np.geomspace(1e-6, 1e6, 40)}
    follow, calls, fatal = _solver.follow, [], []

    def counted(*arguments):
        calls.append(0)
        if len(calls) in fatal:
            raise KeyboardInterrupt
        return follow(*arguments)

    monkeypatch.setattr(_solver, "follow", counted)
    whole = selection.sweep(train, test, **options)
    needed = len(calls)
    fatal.append(needed + 3)
    file = tmp_path / "path.npz"
    with pytest.raises(KeyboardInterrupt):
        selection.sweep(train, test, resume=file, **options)
    resumed = selection.sweep(train, test, resume=file, **options)
    assert len(calls) == 2 * needed + 1  # The killed call alone was made again.
    assert (resumed.value, resumed.score) == (whole.value, whole.score)
    np.testing.assert_array_equal(resumed.curve, whole.curve)
    np.testing.assert_array_equal(resumed.fit.kernel, whole.fit.kernel)


@pytest.mark.parametrize("name", ["train", "test", "validation"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda s: s._replace(features=np.where(s.labels[:, None] == 1, np.nan, s.features)),
            "NaN",
        ),
        (lambda s: s._replace(labels=s.labels - 1), "lie outside"),
        (lambda s: selection.Samples(s.features[:0], s.labels[:0]), "N > 0"),
        (lambda s: s._replace(features=s.features[:, :9]), "different sizes"),
    ],
)
def test_a_bad_split_is_named_before_any_work(digits, name, spoil, message):
    splits = dict(zip(("train", "validation", "test"), digits, strict=True))
    splits[name] = spoil(splits[name])
    with pytest.raises(ValueError, match=f"{name}.*{message}|{message}.*{name}"):
        selection.sweep(**splits)


def test_an_end_of_the_grid_is_warned_about(digits):
    with pytest.warns(UserWarning, match="penalty 1e\\+06 is at an end"):
        found = selection.sweep(digits[0], digits[2], values=np.array([1e6]))
    assert len(found.warnings) == 1


def test_held_out_samples_are_a_stratified_fifth():
    labels = np.repeat([0, 1, 2], [10, 20, 70])
    samples = selection.Samples(np.arange(100)[:, None], labels)
    kept, held = selection.hold_out(samples, seed=3)
    np.testing.assert_array_equal(np.bincount(held.labels), [2, 4, 14])
    together = np.concatenate([kept.features, held.features]).ravel()
    np.testing.assert_array_equal(np.sort(together), np.arange(100))
    again, other = selection.hold_out(samples, seed=3)[1], selection.hold_out(samples, seed=4)[1]
    np.testing.assert_array_equal(held.features, again.features)
    assert (held.features != other.features).any()


@pytest.mark.parametrize("seed", range(20))
def test_the_held_out_samples_are_scikit_learns(seed):
    """Row by row, for classes of any size: recorded scores are found again."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(2 + seed), rng.integers(2, 30, 2 + seed) + 3))
    rows = np.arange(len(labels))
    theirs = train_test_split(rows, test_size=0.2, random_state=seed, stratify=labels)
    ours = selection.hold_out(selection.Samples(rows[:, None], labels), seed)
    for part, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(part.features.ravel(), np.sort(expected))


@pytest.mark.parametrize(
    ("labels", "said"),
    [([0, 0, 0, 1], "class 1 has one training sample"), ([0, 0, 1, 1], "is 1, fewer than the 2")],
)
def test_what_cannot_be_divided_is_refused(labels, said):
    with pytest.raises(ValueError, match=said):
        selection.hold_out(selection.Samples(np.zeros((4, 1)), np.array(labels)), 0)


def test_the_probe_needs_no_scikit_learn():
    """Only its estimator does, which is imported when it is asked for."""
    program = "import sys, vci_jax.probe; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert probe.LogisticProbe is LogisticProbe


def test_the_estimator_warns_as_scikit_learn_does():
    features, labels = np.eye(6) + np.arange(6)[:, None], [0, 1] * 3
    with pytest.warns(ConvergenceWarning, match="1 of 1 penalties"):
        LogisticProbe(C=1e3, max_iter=0).fit(features, labels)


def test_a_class_that_is_only_in_test_counts_as_wrong(digits):
    train, _, test = digits
    few = selection.Samples(train.features[train.labels < 9], train.labels[train.labels < 9])
    found = selection.sweep(few, test, values=VALUES[5:8])
    assert np.isneginf(found.fit.bias[9])
    assert found.score <= np.mean(test.labels < 9)


def test_mean_per_class_weights_classes_equally():
    labels, predicted = np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2])
    assert selection.mean_per_class(predicted, labels) == pytest.approx((2 / 3 + 1) / 2)
    assert selection.top1(predicted, labels) == 0.75


@pytest.mark.slow
@parametrize_with_checks([LogisticProbe()])
def test_the_estimator_is_scikit_learns(estimator, check):
    # This check compares probabilities to 1e-7 between two data sets with one optimum. Near it the
    # objective's excess, which `tol` bounds, is their error squared: so at most 1e-14 is asked for.
    if "sample_weight_equivalence" in str(check):
        estimator = clone(estimator).set_params(tol=1e-18)
    check(estimator)


def test_the_estimator_agrees_with_logistic_regression(digits):
    train, _, test = digits
    names = np.array(list("abcdefghij"))
    ours = LogisticProbe(C=0.01).fit(train.features, names[train.labels])
    theirs = LogisticRegression(C=0.01, tol=1e-9, max_iter=10_000)
    theirs.fit(train.features, names[train.labels])
    np.testing.assert_allclose(
        ours.predict_proba(test.features), theirs.predict_proba(test.features), atol=1e-4
    )
    assert ours.score(test.features, names[test.labels]) == theirs.score(
        test.features, names[test.labels]
    )
    direct = path.fit(train.features, train.labels, 1 / (0.01 * 300), dtype=np.float64)
    np.testing.assert_array_equal(ours.coef_, direct.kernel.T)
