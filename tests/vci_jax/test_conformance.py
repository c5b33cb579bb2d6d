"""The suite judges vci_jax, and must catch the mistakes of wrong.py."""

import json
import math

import numpy as np
import pytest
import wrong

from tools.conformance.__main__ import recompute
from vci_jax import conformance
from vci_jax.conformance import own
from vci_jax.conformance.cases import GOLDEN

# implementation, metric, precision, cases and laws that must catch it
MISTAKES = [
    (wrong.default_pinv_fuzziness, "fuzziness", "float32",
     {"imbalanced", "far_from_the_origin", "equal_means"}),
    (wrong.fuzziness_without_classes, "fuzziness", "float64",
     {"two_classes_on_a_line", "collinear_means"}),
    (wrong.fuzziness_over_dimensions, "fuzziness", "float64",
     {"two_classes_on_a_line", "more_classes_than_dimensions", "dead_features",
      "zero coordinate: imbalanced"}),
    (wrong.second_moment_vci, "vci", "float32", {"far_from_the_origin", "deep_collapse"}),
    (wrong.cut_vci, "vci", "float32", {"unequal_scales", "deep_collapse"}),
    (wrong.cancelled_vci, "vci", "float64", {"deep_collapse"}),
    (wrong.too_many_ranks_vci, "vci", "float64", {"more_classes_than_dimensions"}),
    (wrong.trusting_squared_distance, "squared_distance", "float64", {"unlabelled_rows"}),
    (wrong.empty_class_cosine, "cosine_similarity", "float64", {"absent_classes"}),
    (wrong.other_pairs_cosine, "cosine_similarity", "float64",
     {"two_classes_on_a_line", "duplicated data: imbalanced"}),
    (wrong.centred_cosine, "cosine_similarity", "float64",
     {"dead_features", "translated: imbalanced"}),
    (wrong.mixed_squared_distance, "squared_distance", "float64", {"imbalanced"}),
    (wrong.unbiased_squared_distance, "squared_distance", "float64",
     {"two_classes_on_a_line", "duplicated data: imbalanced"}),
    (wrong.elementwise_h_score, "h_score", "float64",
     {"correlated", "imbalanced", "rotated: imbalanced"}),
    (wrong.varying_cdnv, "cdnv", "float64", {"observation_4_2"}),
    (wrong.squared_effective_rank, "effective_rank", "float64", {"orthogonal_columns"}),
    (wrong.float16_mean_squared_distance, "squared_distance", "float64", {"half_precision"}),
]  # fmt: skip


def failures(results):
    return conformance.table([result for result in results if not result.passed])


@pytest.mark.parametrize("metric", conformance.METRICS)
def test_vci_jax_meets_its_own_golden_cases_and_laws(metric):
    """Every metric of vci_jax is exact to tolerance, streamed in padded float64 batches."""
    function = own.implementation(metric)
    results = conformance.check(metric, function) + conformance.check_laws(metric, function)
    assert len(results) > 30
    assert all(result.passed for result in results), failures(results)


@pytest.mark.slow
def test_vci_jax_meets_the_cases_in_float32_and_with_equal_classes():
    """The same with float32 accumulation, and with classes weighted equally."""
    results = []
    for metric in conformance.METRICS:
        single = own.implementation(metric, precision="float32")
        results += conformance.check(metric, single, precision="float32")
        equal = own.implementation(metric, weighting="class")
        results += conformance.check(metric, equal, weighting="class")
    assert len(results) > 850
    assert all(result.passed for result in results), failures(results)


@pytest.mark.parametrize(
    ("implementation", "metric", "precision", "caught_by"),
    MISTAKES,
    ids=[mistake[0].__name__ for mistake in MISTAKES],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_known_mistake_is_caught(implementation, metric, precision, caught_by):
    """Each mistake fails where it must, and passes elsewhere: it is the mistake that is caught."""
    results = conformance.check(metric, implementation, precision=precision)
    results += conformance.check_laws(metric, implementation)
    failed = {result.name for result in results if not result.passed}
    assert caught_by <= failed, conformance.table(results)
    assert any(result.passed for result in results), conformance.table(results)


def test_the_bound_that_could_not_notice():
    """One-hot features score below D and random ones near 0, with either kind of product."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 3000)
    noise = rng.normal(size=(3000, 16))
    for features, low, high in ((np.eye(16)[labels], 0.5, 16), (noise, 0, 0.1)):
        score = wrong.elementwise_h_score(features, labels)
        assert low < score < high


def test_golden_values_are_what_exact_arithmetic_gives():
    """The stored file is reproduced, byte for byte, from the scenarios in rational numbers."""
    assert recompute() == GOLDEN.read_text()


def test_golden_inputs_are_exact_in_float32():
    """So the same numbers reach implementations of every precision; reasons are given."""
    entries = json.loads(GOLDEN.read_text())["cases"]
    assert len(entries) == len({entry["name"] for entry in entries}) == len(conformance.cases())
    for entry in entries:
        features = np.array(entry["features"])
        assert np.array_equal(features, features.astype(np.float32).astype(np.float64))
        assert np.array_equal(features, features.astype(entry["dtype"]).astype(np.float64))
        assert len(entry["reason"]) > 20


@pytest.mark.parametrize(
    ("case", "metric", "value"),
    [
        ("simplex_etf", "vci", 0),
        ("simplex_etf", "etf_error", 0),
        ("two_classes_on_a_line", "vci", 1 / 5),
        ("two_classes_on_a_line", "squared_distance", 1 / 4),
        ("two_classes_on_a_line", "probe_mse", (1 - 1 / 2) / 2 - 0.8 / 4),
        ("observation_4_2", "fuzziness", 1 / 2),
        ("observation_4_2_sheared", "fuzziness", 2 / 2),
        ("observation_4_2_sheared", "vci", 1 / 2),
        ("proposition_4_1_apart", "vci", 1 / 2),
        ("proposition_4_1_apart", "squared_distance", 2 + 2e6 / 16),
        ("fewer_samples_than_dimensions", "vci", 0),
        ("one_direction_collapsed", "vci", 1 / (1 + 2 / 2.5) / 2),
        ("zero_vectors", "cosine_similarity", 4 / 9),
        ("one_class", "vci", math.nan),
        ("equal_means", "cdnv", math.inf),
    ],
)
def test_golden_values_that_can_be_seen_by_eye(case, metric, value):
    """Closed forms a reader can check without a computer agree with the stored values."""
    (entry,) = [entry for entry in conformance.cases() if entry.name == case]
    assert entry.value(metric) == pytest.approx(value, rel=1e-15, abs=1e-15, nan_ok=True)


def test_refusals_and_crashes():
    """A ValueError is an answer where a value is undefined, and nowhere else; nothing escapes."""

    def refuse(features, labels):
        raise ValueError("one class only")

    results = {result.name: result for result in conformance.check("vci", refuse)}
    assert results["one_class"].passed
    assert results["unlabelled_rows"].passed
    assert not results["imbalanced"].passed
    assert results["imbalanced"].note == "ValueError: one class only"
    results = conformance.check("vci", lambda features, labels: 1 / 0)
    assert not any(result.passed for result in results)
    assert "ZeroDivisionError" in conformance.table(results)
    with pytest.raises(ValueError, match=r"Unknown metric 'vic'.*vci, "):
        conformance.check("vic", refuse)


def test_command_prints_failures_and_counts(monkeypatch, capsys):
    """The command shows what failed, counts the rest, and says so in its exit code."""
    good = conformance.Result("vci", "simplex_etf", 0.0, 0.0, True, "")
    bad = conformance.Result("vci", "imbalanced", 0.5, 0.75, False, "")
    monkeypatch.setattr(own, "everything", lambda: [good, bad])
    assert own.main([]) == 1
    shown = capsys.readouterr().out
    assert "imbalanced" in shown
    assert "simplex_etf" not in shown
    assert shown.endswith("1 passed, 1 failed\n")
    monkeypatch.setattr(own, "everything", lambda: [good])
    assert own.main(["--verbose"]) == 0
    assert "simplex_etf" in capsys.readouterr().out
