"""Pairs of classifiers on the same samples, and the ranking made of them."""

import itertools
import json
import os

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from statsmodels.stats.proportion import proportion_confint

from vci_jax import probe
from vci_jax.probe import _paired, baselines
from vci_jax.probe import ranking as ranking_module


def answers(rng, size, right, shared, gap=0.0):
    """Right answers of two models: probability ``right`` and ``right - gap``, correlated."""
    common = np.sqrt(shared) * rng.standard_normal(size)
    own = np.sqrt(1 - shared) * rng.standard_normal((2, size))
    return ((common + own) < norm.ppf([[right], [right - gap]])).astype(float)


@pytest.mark.parametrize(("right", "size"), [(0, 20), (13, 20), (20, 20), (371, 400)])
def test_an_accuracy_has_wilsons_interval(right, size):
    correct = np.arange(size) < right
    found = _paired.score(correct.astype(float), np.zeros(size, int))
    low, high = proportion_confint(right, size, method="wilson")
    np.testing.assert_allclose(found, (right / size, low, high), atol=1e-12)


def test_the_test_of_single_answers_is_mcnemars():
    a = np.repeat([1.0, 0, 1, 0], [50, 20, 14, 3])
    b = np.repeat([1.0, 0, 0, 1], [50, 20, 14, 3])
    found = _paired.difference(a, b, np.zeros(87, int))
    assert found.p_value == pytest.approx(binomtest(14, 17).pvalue, rel=1e-12)
    assert found.value == pytest.approx(11 / 87)
    # Agresti & Min (2005): the interval of Wald with half a sample added to each cell.
    n, b_, c_ = 87 + 2, 14.5, 3.5
    error = np.sqrt((b_ + c_) - (b_ - c_) ** 2 / n) / n
    np.testing.assert_allclose(
        (found.low, found.high), 11 / n + np.array([-1, 1]) * 1.98729 * error, rtol=1e-4
    )


def test_flipping_signs_is_the_count_over_all_signs():
    rng = np.random.default_rng(0)
    terms = rng.uniform(-0.2, 1, 10)
    signs = np.array(list(itertools.product([-1, 1], repeat=10)))
    exact = np.mean(np.abs(signs @ np.abs(terms)) >= abs(terms.sum()) * (1 - 1e-12))
    noise = np.sqrt(exact / _paired._FLIPS)
    assert _paired._p_value(terms, np.ones(10)) == pytest.approx(exact, abs=3 * noise)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize(("size", "draws"), [(100, 400), (400, 400), (4000, 100)])
def test_verdicts_are_calibrated(monkeypatch, size, draws, per_class):
    """Equally good models are told apart in 5 % of draws at most; intervals cover 92 to 98 %.

    The bounds allow three standard errors of the simulation, for 24 populations in all.
    """
    monkeypatch.setattr(_paired, "_FLIPS", 1000)
    rng = np.random.default_rng(size + per_class)
    for right, shared in itertools.product((0.5, 0.85), (0.0, 0.8)):
        rejected = covered = 0
        for _ in range(draws):
            labels = rng.integers(0, 8, size) // rng.integers(1, 3, size)
            same = answers(rng, size, right, shared)
            found = _paired.difference(*same, labels, per_class=per_class)
            rejected += found.p_value < 0.05
            apart = answers(rng, size, right, shared, 0.06)
            found = _paired.difference(*apart, labels, per_class=per_class)
            covered += found.low <= 0.06 <= found.high
        noise = 3 * np.sqrt(0.05 * 0.95 / draws)
        assert rejected / draws <= 0.05 + noise, (right, shared)
        assert 0.92 - noise <= covered / draws <= 0.98 + noise, (right, shared)


def test_samples_needed_do_tell_apart_in_four_of_five_cases():
    rng = np.random.default_rng(0)
    a, b = answers(rng, 200_000, 0.8, 0.7, 0.03)
    needed = int(_paired.difference(a, b, np.zeros(len(a), int)).samples_needed)
    told = [
        _paired.difference(*answers(rng, needed, 0.8, 0.7, 0.03), np.zeros(needed, int)).p_value
        < 0.05
        for _ in range(300)
    ]
    assert np.mean(told) == pytest.approx(0.8, abs=0.06)


def test_scores_of_logits_are_their_definitions():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((60, 4)), rng.integers(0, 3, 60)
    theta = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    total = 0.0
    for i in range(60):
        expected = sum(
            theta[labels == labels[i], z].sum() / theta[:, z].sum() * theta[i, z] for z in range(4)
        )
        total += np.log(expected) / 60
    assert baselines.leep(logits, labels) == pytest.approx(total, rel=1e-12)
    guessed = logits.argmax(axis=1)
    entropy = 0.0
    for z in range(4):
        for share in (np.mean(labels[guessed == z] == k) for k in range(3)):
            entropy -= np.mean(guessed == z) * share * np.log(share) if share else 0
    assert baselines.nce(logits, labels) == pytest.approx(-entropy, rel=1e-12)


@pytest.fixture(scope="module")
def ranking():
    rng = np.random.default_rng(0)
    labels = np.repeat(["ant", "bee", "cat"], 40)
    means = 3 * np.eye(4)[np.repeat([0, 1, 2], 40)]
    good = means + rng.standard_normal((120, 4))
    models = {
        "noise": rng.standard_normal((120, 4)),
        "good": good,
        "copy": good @ np.linalg.qr(rng.standard_normal((4, 4)))[0],
    }
    logits = {"good": good}
    return probe.rank(models, labels, values=np.geomspace(1e-2, 1e2, 5), logits=logits)


def test_the_best_come_first_and_copies_tie(ranking):
    assert [model.model for model in ranking.models][2] == "noise"
    assert [model.ties_with_best for model in ranking.models] == [True, True, False]
    assert ranking.test_size == 120
    first = ranking.models[0]
    low, high = first.accuracy_interval
    assert low < first.accuracy < high
    assert first.vci < ranking.models[2].vci
    assert {m.model: m.leep is None for m in ranking.models}["good"] is False
    apart = {(pair.better, pair.worse): pair.told_apart for pair in ranking.pairs}
    assert sum(apart.values()) == 2
    assert len(apart) == 3


def test_the_verdict_says_who_ties_and_what_it_would_take(ranking):
    said = ranking.verdict
    assert "cannot be told apart on these 120 samples" in said
    assert "noise is worse than" in said
    assert "points [" in said
    assert repr(ranking).splitlines()[0].split()[:2] == ["model", "probe"]
    assert said in repr(ranking)
    assert "<table>" in ranking._repr_html_()


def test_a_ranking_is_json_and_a_table(ranking):
    content = json.loads(ranking.to_json())
    assert [row["rank"] for row in content["models"]][-1] == 3
    assert {"model", "rank", "accuracy", "accuracy_interval", "ties_with_best", "vci"} <= set(
        content["models"][0]
    )
    assert content["verdict"] == ranking.verdict


def test_an_official_test_split_is_scored_once():
    rng = np.random.default_rng(0)
    labels, test_labels = np.arange(60) % 3, np.arange(30) % 3
    features = {"a": rng.standard_normal((60, 3)) + 3 * np.eye(3)[labels]}
    test = {"a": rng.standard_normal((30, 3)) + 3 * np.eye(3)[test_labels]}
    found = probe.rank(
        features, labels, test=(test, test_labels), values=np.geomspace(0.1, 10, 3), per_class=True
    )
    assert found.test_size == 30
    assert "fitted on 60 samples and scored once on 30 others" in found.protocol
    assert "alone was ranked" in found.verdict


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": {}}, "no features to rank"),
        ({"labels": np.zeros(60, int)}, "1 class"),
        ({"labels": np.arange(59) % 3}, "a: 60 rows of features for 59 labels"),
        (
            {"labels": np.r_[np.arange(58) % 3, 7, 7]},
            r"1 of 4 classes .*fewer than 3 samples \(7\)",
        ),
        ({"features": {"a": np.zeros((60, 2, 2))}}, r"a: features must be \[N, D\]"),
        ({"features": {"a": np.full((60, 2), np.nan)}}, "a: "),
        ({"test": ({"b": np.zeros((3, 2))}, np.arange(3))}, "test has no features of a"),
        ({"test": ({"a": np.zeros((3, 2))}, np.arange(3) + 1)}, r"never fitted: \[3\]"),
    ],
)
def test_what_cannot_be_ranked_is_named(change, message):
    rng = np.random.default_rng(0)
    given = {"features": {"a": rng.standard_normal((60, 2))}, "labels": np.arange(60) % 3}
    given |= change
    with pytest.raises(ValueError, match=message):
        probe.rank(given.pop("features"), given.pop("labels"), values=np.ones(1), **given)


def test_a_score_that_is_missing_has_its_reason():
    """Fewer samples than features: no adjusted VCI, and table, page and JSON say why, once."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    wide = {name: rng.normal(size=(60, 80)) + 3 * np.eye(80)[labels] for name in ("a", "b")}
    found = probe.rank(wide | {"c": wide["a"][:, :5]}, labels)
    scores = {model.model: model for model in found.models}
    assert np.isnan(scores["a"].vci)
    assert np.isfinite(scores["c"].vci)
    (reason,) = (said for said in scores["a"].warnings if "too few" in said)
    assert reason not in scores["c"].warnings
    assert str(found).count(reason) == 1
    assert reason in found.to_dict()["models"][found.models.index(scores["a"])]["warnings"]


def test_a_ranking_goes_on_with_the_models_that_are_not_done(tmp_path, monkeypatch):
    """What is kept is taken only for the same features, labels and settings; damage costs a fit."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 20)
    sets = {
        name: rng.standard_normal((60, 4)) + shift * np.eye(3, 4)[np.repeat(np.arange(3), 20)]
        for name, shift in (("one", 1.0), ("two", 3.0))
    }
    fitted = []

    def counted(name, done, of):
        fitted.append(name)

    options = {"values": np.geomspace(1e-2, 1e2, 3), "curve": (0.5,), "progress": counted}
    first = probe.rank(sets, labels, resume=tmp_path, **options)
    assert set(fitted) == {"one", "two"}
    fitted.clear()
    again = probe.rank(sets, labels, resume=tmp_path, **options)
    assert not fitted
    assert again.to_dict() == first.to_dict()
    probe.rank(sets | {"two": sets["two"] + 1e-9}, labels, resume=tmp_path, **options)
    assert set(fitted) == {"two"}
    fitted.clear()
    probe.rank(sets, labels, resume=tmp_path, seed=1, **options)
    assert set(fitted) == {"one", "two"}
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-200])
    fitted.clear()
    cut = probe.rank(sets, labels, resume=tmp_path, **options)
    assert set(fitted) == {"one", "two"}
    assert cut.models[0].accuracy == first.models[0].accuracy


def test_blas_leaves_half_of_the_processors_to_the_probe(monkeypatch):
    """Its idle threads wait in a loop, which takes time from what runs beside it."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="needs threadpoolctl")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    sets = {"a": rng.standard_normal((60, 4)), "b": rng.standard_normal((60, 4))}
    plain, seen = ranking_module._cheap_scores, []

    def threads():
        found = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in found if pool["user_api"] == "blas"}

    def watched(*given):
        seen.append(threads())
        return plain(*given)

    monkeypatch.setattr(ranking_module, "_cheap_scores", watched)
    before = threads()
    probe.rank(sets, labels, values=np.geomspace(1e-2, 1e2, 3))
    half = max(1, len(os.sched_getaffinity(0)) // 2)
    assert seen == [{half}, {half}]
    assert threads() == before


def test_confidence_is_the_level_at_which_models_are_told_apart():
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(2), 100)
    sets = {
        name: rng.standard_normal((200, 3)) + shift * np.eye(2, 3)[labels]
        for name, shift in (("a", 1.3), ("b", 1.0))
    }
    options = {"values": np.geomspace(1e-1, 1e1, 3)}
    strict, loose = (
        probe.rank(sets, labels, confidence=level, **options) for level in (0.999, 0.5)
    )
    assert strict.pairs[0].p_value == loose.pairs[0].p_value
    assert not strict.pairs[0].told_apart
    assert loose.pairs[0].told_apart == (loose.pairs[0].p_value < 0.5)
    assert strict.pairs[0].level == pytest.approx(0.001)
