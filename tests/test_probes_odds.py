"""Scores put together, and the probes in closed form."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import vci_jax
from probes import neighbours, odds

# Xu & Liu (2023), tables 1 and 2: ten scores, MLO | pretraining accuracy, MLOG.
PUBLISHED = """
90.80 95.03 58.85 64.73 74.47 93.10 75.45 77.14 84.90 62.44 1.445 | 75.40 0.3250
91.52 95.25 57.50 64.10 74.41 92.89 75.41 77.65 85.58 63.28 1.459 | 76.64 0.2704
91.64 94.66 57.67 64.42 74.63 92.58 74.97 77.10 85.59 63.30 1.441 | 77.53 0.2029
91.74 94.14 57.54 61.56 76.22 92.42 74.86 76.60 85.20 63.51 1.421 | 77.72 0.1711
92.35 93.52 55.64 61.60 75.37 92.37 74.20 76.07 84.49 62.74 1.390 | 77.83 0.1343
91.70 93.68 55.37 60.14 73.99 91.90 74.42 75.96 85.82 62.98 1.375 | 77.88 0.1161
90.86 92.01 51.07 55.14 74.36 91.79 72.90 75.44 85.19 62.01 1.282 | 77.52 0.0440
90.87 90.79 47.81 50.44 76.01 91.89 72.19 75.31 82.97 60.98 1.220 | 77.31 -0.0063
90.51 90.03 45.12 50.52 74.41 91.63 71.84 74.64 82.63 60.38 1.174 | 77.29 -0.0507
89.33 86.54 44.52 46.87 73.14 91.64 71.19 74.13 81.23 58.55 1.080 | 77.46 -0.1539
89.92 83.60 43.39 43.55 72.50 91.43 70.29 73.76 78.25 56.90 1.008 | 77.65 -0.2375
"""


@pytest.mark.parametrize("line", PUBLISHED.strip().splitlines())
def test_published_values_follow_from_the_published_accuracies(line):
    """To the digits given: scores have four, of which the log odds keep three."""
    left, right = ([float(word) for word in half.split()] for half in line.split("|"))
    scores, accuracy = np.array(left[:10]) / 100, right[0] / 100
    assert odds.mlo(scores) == pytest.approx(left[10], abs=6e-4)
    assert odds.mlog(scores, accuracy) == pytest.approx(right[1], abs=6e-4)


@pytest.mark.parametrize("scores", [[], [0.5, 1.0], [0.0], [91.7]])
def test_scores_without_odds_are_refused(scores):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        odds.mlo(scores)


def draw(size, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 4
    return 2 + np.eye(4, 6)[labels] + 0.5 * rng.normal(size=(size, 6)), labels


@pytest.mark.parametrize("k", [1, 7])
def test_neighbours_are_scikit_learns(k):
    """With its cosine distance; where votes are tied the two may differ, and here none are."""
    features, labels = draw(200, 0)
    queries, _ = draw(1100, 1)
    theirs = KNeighborsClassifier(k, metric="cosine").fit(features, labels)
    votes = np.sort(theirs.predict_proba(queries), axis=1)
    clear = votes[:, -1] > votes[:, -2]
    ours = neighbours.knn_predict(features, labels, queries, k=k, num_classes=4)
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(ours[clear], theirs.predict(queries)[clear])


def test_votes_count_before_similarity():
    """Two distant neighbours outvote a near one; of one vote each, the nearer wins."""
    features, query = np.array([[1.0, 0.01], [1, 2], [1, -2]]), [[1.0, 0.0]]
    options = {"k": 3, "num_classes": 3}
    assert neighbours.knn_predict(features, [2, 1, 1], query, **options) == [1]
    assert neighbours.knn_predict(features, [2, 1, 0], query, **options) == [2]


def test_neighbours_must_be_there():
    with pytest.raises(ValueError, match="between 1 and the 2 samples"):
        neighbours.knn_predict(np.eye(2), [0, 1], np.eye(2), k=3, num_classes=2)


@pytest.mark.parametrize("collinear", [False, True])
def test_least_squares_is_numpys_and_its_error_is_probe_mse(collinear):
    """Theorem 5.1, from the samples on one side and from the moments on the other."""
    features, labels = draw(200, 0)
    if collinear:
        features = np.concatenate([features, features[:, :2]], axis=1)
    kernel, bias, error = neighbours.least_squares(features, labels, 4)
    centred = features - features.mean(axis=0)
    expected = np.linalg.lstsq(centred, np.eye(4)[labels] - 0.25, rcond=1e-10)[0]
    np.testing.assert_allclose(kernel, expected, atol=1e-12)
    np.testing.assert_allclose(bias, 0.25 - features.mean(axis=0) @ expected, atol=1e-12)
    moments = vci_jax.update(vci_jax.init(4, features.shape[1]), features, labels)
    assert error == pytest.approx(vci_jax.report(moments)["probe_mse"], rel=1e-5)
