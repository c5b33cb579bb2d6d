"""What the probes are given: converted without loss, or refused with the remedy."""

import ml_dtypes
import numpy as np
import pytest

from vci_jax.probe import _inputs, baselines, path, selection
from vci_jax.probe.estimator import LogisticProbe

FEATURES, LABELS = np.eye(6, 4) + 1, np.arange(6) % 2


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", np.longdouble, np.float16, "bfloat16"])
def test_other_number_types_are_converted(dtype):
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    features, labels, classes = _inputs.samples(FEATURES.astype(dtype), LABELS.astype(">i8"), None)
    assert features.dtype.isnative
    assert labels.dtype == np.int64
    assert classes == 2
    np.testing.assert_array_equal(features, FEATURES)


def test_probes_take_big_endian_arrays():
    features, labels = FEATURES.astype(">f8"), LABELS.astype(">i4")
    plain = path.fit(FEATURES, LABELS, 0.1, dtype=np.float64)
    swapped = path.fit(features, labels, 0.1, dtype=np.float64)
    np.testing.assert_array_equal(swapped.kernel, plain.kernel)
    near = baselines.knn_predict(features, labels, features, k=1, num_classes=2)
    expected = baselines.knn_predict(FEATURES, LABELS, FEATURES, k=1, num_classes=2)
    np.testing.assert_array_equal(near, expected)
    theirs = LogisticProbe().fit(features, labels).coef_
    np.testing.assert_array_equal(theirs, LogisticProbe().fit(FEATURES, LABELS).coef_)


@pytest.mark.parametrize("labels", [LABELS + 100_000, LABELS * 2**40, LABELS * 5_000_000])
def test_labels_far_apart_are_refused_before_anything_is_allocated(labels):
    with pytest.raises(ValueError, match=r"numpy\.unique.*num_classes"):
        path.fit(FEATURES, labels, 0.1)
    split = selection.Samples(FEATURES, labels)
    with pytest.raises(ValueError, match=r"numpy\.unique.*num_classes"):
        selection.sweep(split, split, validation=split)
    assert LogisticProbe().fit(FEATURES, labels).coef_.shape == (2, 4)


@pytest.mark.parametrize(
    ("features", "labels", "num_classes", "message"),
    [
        (FEATURES, LABELS, 2**40, "num_classes is 1099511627776"),
        (FEATURES, LABELS, 0, "num_classes is 0"),
        (FEATURES, LABELS * 2**40, 4, r"3 labels lie outside \[0, 4\)"),
        (FEATURES.astype(str), LABELS, 2, "expected real numbers"),
        (FEATURES * np.longdouble("1e400"), LABELS, 2, "24 of 24 feature values"),
        (FEATURES[:5], LABELS, 2, r"\(5, 4\) and labels \(6,\)"),
        (FEATURES, LABELS / 1, 2, "labels are float64"),
        (np.where(FEATURES > 1, np.nan, 1), LABELS, 2, "4 of 24 feature values"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_every_probe(features, labels, num_classes, message):
    with pytest.raises(ValueError, match=message):
        path.fit(features, labels, 0.1, num_classes=num_classes)
    with pytest.raises(ValueError, match=message):
        baselines.knn_predict(features, labels, FEATURES, k=1, num_classes=num_classes)
    with pytest.raises(ValueError, match=message):
        baselines.nearest_mean_predict(features, labels, FEATURES, num_classes=num_classes)
    with pytest.raises(ValueError, match=message):
        baselines.least_squares(features, labels, num_classes)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (FEATURES[:, :3], "queries have 3 features and the samples 4"),
        (FEATURES[0], "queries have shape"),
        (FEATURES * np.inf, "24 of 24 querie"),
    ],
)
def test_queries_are_checked(queries, message):
    with pytest.raises(ValueError, match=message):
        baselines.knn_predict(FEATURES, LABELS, queries, k=1, num_classes=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("power", [-100, -67, 63, 100])
def test_neighbours_do_not_depend_on_the_unit(dtype, power):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 5
    features = (rng.normal(size=(5, 8))[labels] + rng.normal(size=(60, 8))).astype(dtype)
    queries = rng.normal(size=(40, 8)).astype(dtype)
    plain = baselines.knn_predict(features, labels, queries, k=7, num_classes=5)
    unit = dtype(2.0**power)
    scaled = baselines.knn_predict(unit * features, labels, queries / unit, k=7, num_classes=5)
    np.testing.assert_array_equal(scaled, plain)


def test_neighbours_keep_the_digits_of_float64():
    """Two samples 1e-9 apart in angle, which float32 cannot tell from each other."""
    angles = np.array([0.5 + 1e-6, 0.5 - 1e-6])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    query = np.array([[np.cos(0.5 - 2e-7), np.sin(0.5 - 2e-7)]])
    assert baselines.knn_predict(features, [0, 1], query, k=1, num_classes=2) == [1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_go_by_count_then_similarity_then_label(dtype):
    """Counts never yield to similarities; a difference of 1e-6 in them decides; then the label."""
    features = np.array([[1, 0], [1, 0], [1, 0.1], [1, 0.1], [1, 0.1]], dtype)
    query = np.array([[1, 0]], dtype)

    def winner(labels, features=features, k=5):
        return baselines.knn_predict(features, labels, query, k=k, num_classes=5)[0]

    assert winner([4, 4, 1, 1, 1]) == 1
    assert winner([4, 4, 1, 1, 3]) == 4
    assert winner([4, 2, 2, 4, 0]) == 2
    assert winner([3, 1, 1, 3, 0], np.ones((5, 2), dtype)) == 1
    # Among 2001 neighbours, three parts in ten million of one vote.
    many = np.repeat(np.array([[1, 0.001], [1, 0]], dtype), 1000, axis=0)
    assert winner(np.repeat([0, 3], 1000), many, 2000) == 3


@pytest.mark.parametrize("unit", [1, 1e6, 1e-6])
def test_least_squares_sees_a_column_beside_one_of_huge_unit(unit):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    features = np.stack([2e6 * rng.normal(size=400), labels + 0.15 * rng.normal(size=400)], axis=1)
    scaled = features * [unit, 1]
    kernel, bias, error = baselines.least_squares(scaled, labels, 2)
    centred = (features - features.mean(axis=0)) / features.std(axis=0)
    target = np.eye(2)[labels]
    expected = np.linalg.lstsq(centred, target - 0.5, rcond=None)[0]
    best = np.mean(np.sum((centred @ expected + 0.5 - target) ** 2, axis=1)) / 2
    assert error == pytest.approx(best, rel=1e-9)
    np.testing.assert_allclose(kernel * (scaled.std(axis=0)[:, None]), expected, atol=1e-9)
    reached = np.mean(np.sum((scaled @ kernel + bias - target) ** 2, axis=1)) / 2
    assert reached == pytest.approx(best, rel=1e-9)


def test_least_squares_has_the_least_norm_and_no_class_it_never_saw():
    rng = np.random.default_rng(1)
    labels = np.arange(50) % 3
    features = rng.normal(size=(50, 4)) + np.eye(3, 4)[labels]
    features = np.column_stack([features, 1e3 * features[:, :2]])
    kernel, bias, _ = baselines.least_squares(features, labels, 4)
    # The copies are a thousand times as long, and so are their parts of the kernel.
    np.testing.assert_allclose(kernel[4:], 1e3 * kernel[:2], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(kernel[:, 3], 0, atol=1e-12)
    assert abs(bias[3]) < 1e-12
