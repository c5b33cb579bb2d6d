"""What was once wrong without a word, each by the smallest data that showed it."""

import warnings

import jax
import numpy as np
import pytest

import vci_jax
from probes.analysis import coefficients
from vci_jax import agreement, in_memory
from vci_jax.probe import fit, knn_predict, least_squares, nearest_mean_predict, rank, selection


def classes(samples=90, dim=4, kinds=3, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % kinds
    return noise * rng.standard_normal((samples, dim)) + 2 * np.eye(kinds, dim)[labels], labels


def test_rows_of_equal_classes_are_dealt_by_class_and_others_at_random():
    features, labels = classes(120)
    states, _, _ = in_memory.deal(features, labels, 10)
    assert np.ptp(states.count, axis=0).max() == 0
    rng = np.random.default_rng(1)
    drawn = rng.choice(3, 120, p=[0.6, 0.3, 0.1])
    states, _, _ = in_memory.deal(features, drawn, 10)
    np.testing.assert_array_equal(states.count.sum(axis=1), 12)
    assert np.ptp(states.count, axis=0).max() > 2
    near = np.repeat(np.arange(3), [39, 41, 40])  # a design from which two rows are missing
    states, _, _ = in_memory.deal(features, near, 10)
    assert np.ptp(states.count, axis=0).max() <= 1


@pytest.mark.slow
def test_the_interval_of_arrays_covers_classes_that_are_drawn_at_random():
    """Classes of shares 1 / rank. By class, blocks would hold the truth in 78 % of the draws."""
    kinds, dim, samples, draws = 10, 16, 400, 200
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, kinds + 1)
    share /= share.sum()
    means = rng.standard_normal((kinds, dim)) * np.arange(1, dim + 1) ** -0.25
    offsets = means - share @ means
    between = (offsets.T * share) @ offsets
    truth = 1 - np.trace(np.linalg.solve(between + np.eye(dim), between)) / (kinds - 1)
    held = 0
    for _ in range(draws):
        labels = rng.choice(kinds, samples, p=share)
        features = means[labels] + rng.standard_normal((samples, dim))
        report = vci_jax.measure_arrays(features, labels, metrics=("vci_adjusted", "vci_interval"))
        low, high = report["vci_interval"]
        held += low <= truth <= high
    assert 0.90 <= held / draws <= 0.99


def test_logits_that_are_nan_are_no_answers():
    features, labels = classes()
    logits = np.eye(3)[labels]
    logits[labels == 0] = np.nan
    rows = []
    monitor = vci_jax.Monitor(3, write=rows.append)
    monitor.add("test", features, labels, logits=logits)
    with pytest.warns(UserWarning, match="30 rows have logits that are NaN"):
        monitor.log(1)
    assert rows[0]["logits_non_finite"] == 30
    assert rows[0]["accuracy"] == 1.0  # of the other 60
    logits[:] = np.nan
    monitor.add("test", features, labels, logits=logits)
    with pytest.warns(UserWarning, match="90 rows"):
        monitor.log(2)
    assert "accuracy" not in rows[1]


@pytest.mark.parametrize("none", [-1, -100, np.nan, None])
def test_rows_without_a_label_are_no_class_of_a_ranking(none):
    features, labels = classes()
    labels = labels.astype(object if none is None else type(none))
    labels[5] = none
    with pytest.raises(vci_jax.VCIError, match="1 of 90 labels are none"):
        rank({"a": features}, labels)


def test_a_number_alone_warns_of_rows_without_a_label():
    features, labels = classes()
    labels[:20] = -1
    with pytest.warns(UserWarning, match="20"):
        vci_jax.vci(features, labels)


def test_names_are_drawn_as_they_are():
    features, labels = classes()
    pytest.importorskip("matplotlib").use("agg")
    names = ("a$\\frac{$b", "lr$0.1$")
    axes = vci_jax.compare(dict.fromkeys(names, (features, labels))).plot()
    axes.figure.canvas.draw()
    assert [label.get_text() for label in axes.get_yticklabels()] == list(names)


def test_neighbours_keep_their_digits_near_collapse():
    """Rows of float32 that point almost the same way: as right as the same numbers in float64."""
    rng = np.random.default_rng(3)
    labels = np.arange(600) % 3
    features = 10 * rng.standard_normal(8) + 1e-4 * (
        rng.standard_normal((3, 8))[labels] + 0.5 * rng.standard_normal((600, 8))
    )
    narrow = features.astype(np.float32)
    wide = narrow.astype(np.float64)
    found, wanted = (
        knn_predict(rows[:400], labels[:400], rows[400:], num_classes=3) for rows in (narrow, wide)
    )
    assert np.mean(wanted == labels[400:]) > 0.8
    assert np.mean(found == wanted) > 0.98


def test_nearest_means_are_told_apart_far_from_the_origin():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    for far, dtype in ((3e3, np.float32), (3e8, np.float64)):
        places = np.array([0, far, far + 0.2, far + 0.5])
        features = np.stack([places[labels], np.zeros(200)], axis=1)
        features = features + 1e-3 * rng.standard_normal((200, 2))
        predicted = nearest_mean_predict(features, labels, features, num_classes=4)
        np.testing.assert_array_equal(predicted, labels)
        with jax.enable_x64(dtype == np.float64):
            moments = vci_jax.jit_update(vci_jax.init(4, 2, dtype=dtype), features, labels)
            start = agreement.init(moments)
            ended = agreement.jit_update(start, features, np.eye(4)[labels])
            assert float(agreement.ncc_agreement(ended)) == 1
            assert vci_jax.per_class(moments)["nearest"].tolist() == [1, 2, 1, 2]


def test_ranks_tie_by_rounding_alone():
    order = np.arange(1.0, 8)
    for values in ([1, 2, 3, 4, 5, 6, 1e10], [1e-12, 3e-12, 1e-11, 5e-11, 0.3, 0.5, 0.9]):
        assert coefficients.spearman(np.array(values), order) == pytest.approx(1, abs=1e-12)
        assert coefficients.kendall(np.array(values), order) == pytest.approx(1, abs=1e-12)
    sums = np.array([0.1 + 0.2, 0.3, 1.0, 2.0])
    assert coefficients.kendall(sums, sums[[1, 0, 2, 3]]) == pytest.approx(1)


def test_masked_entries_do_not_count():
    features, labels = classes()
    masked = np.ma.masked_greater(features, 2.5)
    for call in (lambda: least_squares(masked, labels, 3), lambda: fit(masked, labels, 0.1)):
        with pytest.raises(vci_jax.VCIError, match="masked entries, which would count"):
            call()
    with pytest.raises(vci_jax.VCIError, match="labels have 30 masked"):
        fit(features, np.ma.masked_equal(labels, 1), 0.1)


def test_least_squares_says_what_it_left_out():
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    shared = rng.standard_normal(100)
    features = np.stack([shared, shared + 1e-6 * labels], axis=1)
    features[0] *= 1e12
    with pytest.warns(UserWarning, match="1 of 2 directions"):
        least_squares(features, labels, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        least_squares(*classes(), 3)
        least_squares(rng.standard_normal((6, 20)), np.arange(6) % 2, 2)  # fewer rows than features


def test_numbers_of_a_probe_are_checked():
    features, labels = classes()
    found = fit(features, labels, 0.1, sample_weight=np.full(90, 1e308))
    np.testing.assert_allclose(found.kernel, fit(features, labels, 0.1).kernel, rtol=1e-6)
    features[7] = np.nan
    with pytest.raises(vci_jax.VCIError, match=r"1 of 90 samples .* row 7"):
        selection.predict(found.kernel, found.bias, features)
    with pytest.raises(vci_jax.VCIError, match="shape"):
        selection.top1(labels, labels[:, None])
