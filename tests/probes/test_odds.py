"""Scores put together, and the probes in closed form."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import vci_jax
from probes.analysis import cohorts, published
from probes.transfer import odds
from vci_jax.probe import baselines


def test_published_values_follow_from_the_published_accuracies():
    """To the digits given: scores have four, of which the log odds keep three."""
    runs = published.study()
    mlo, mlog = cohorts.gains(runs.scores, runs.accuracy)
    np.testing.assert_allclose(mlo, runs.mlo, atol=6e-4)
    np.testing.assert_allclose(mlog, runs.mlog, atol=6e-4)
    scores = [column[0] for column in runs.scores.values()]
    assert odds.mlo(scores) == mlo[0]
    assert odds.mlog(scores, runs.accuracy[0]) == mlog[0]


@pytest.mark.parametrize("scores", [[], [0.5, 1.0], [0.0], [91.7]])
def test_scores_without_odds_are_refused(scores):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        odds.mlo(scores)


@pytest.mark.parametrize("size", [1, 7, 50, 360, 10_000, 1_281_167])
def test_half_of_one_image_from_the_end(size):
    """1 - 1/2n and 1/2n; the sentence has as many digits as tell the number from 1."""
    high, note = odds.inside(1.0, size, "pets", "n")
    low, _ = odds.inside(0.0, size, "pets", "n")
    assert (high, low) == (pytest.approx(1 - 1 / (2 * size), rel=1e-15), 1 / (2 * size))
    said = float(note.partition("taken as ")[2].partition(":")[0])
    assert said < 1
    assert said == pytest.approx(high, abs=0.1 / (2 * size))
    assert f"half of one of its {size} images below 1" in note


def test_only_the_ends_are_moved():
    """What differs from 1 by rounding is 1; the last count below n is not."""
    assert odds.inside(49 / 50, 50, "pets", "n") == (0.98, "")
    assert odds.inside(1 / 50, None, "pets", "n") == (0.02, "")
    for one in (1 - 2**-53, 1 + 2**-52, sum([0.1] * 10)):
        assert odds.inside(one, 50, "pets", "n")[0] == 0.99


@pytest.mark.parametrize(
    ("score", "size", "message"),
    [
        (1.0, None, "pets is 1, which has no log odds.*but n is not recorded; write it as N"),
        (0.0, 0, "pets is 0, which has no log odds"),
        (91.7, 50, "pets is 91.7, which is no share of images; divide per cent by 100"),
        (-0.1, 50, "pets is -0.1, which is no share"),
        (float("nan"), 50, "pets is nan, which is no share"),
    ],
)
def test_what_has_no_log_odds_is_refused_with_the_remedy(score, size, message):
    with pytest.raises(ValueError, match=message):
        odds.inside(score, size, "pets", "N")


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
    ours = baselines.knn_predict(features, labels, queries, k=k, num_classes=4)
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(ours[clear], theirs.predict(queries)[clear])


def test_votes_count_before_similarity():
    """Two distant neighbours outvote a near one; of one vote each, the nearer wins."""
    features, query = np.array([[1.0, 0.01], [1, 2], [1, -2]]), [[1.0, 0.0]]
    options = {"k": 3, "num_classes": 3}
    assert baselines.knn_predict(features, [2, 1, 1], query, **options) == [1]
    assert baselines.knn_predict(features, [2, 1, 0], query, **options) == [2]


def test_neighbours_must_be_there():
    with pytest.raises(ValueError, match="between 1 and the 2 samples"):
        baselines.knn_predict(np.eye(2), [0, 1], np.eye(2), k=3, num_classes=2)


@pytest.mark.parametrize("collinear", [False, True])
def test_least_squares_is_numpys_and_its_error_is_probe_mse(collinear):
    """Theorem 5.1, from the samples on one side and from the moments on the other."""
    features, labels = draw(200, 0)
    if collinear:
        features = np.concatenate([features, features[:, :2]], axis=1)
    kernel, bias, error = baselines.least_squares(features, labels, 4)
    centred = features - features.mean(axis=0)
    expected = np.linalg.lstsq(centred, np.eye(4)[labels] - 0.25, rcond=1e-10)[0]
    np.testing.assert_allclose(kernel, expected, atol=1e-12)
    np.testing.assert_allclose(bias, 0.25 - features.mean(axis=0) @ expected, atol=1e-12)
    moments = vci_jax.update(vci_jax.init(4, features.shape[1]), features, labels)
    assert error == pytest.approx(vci_jax.report(moments)["probe_mse"], rel=1e-5)
