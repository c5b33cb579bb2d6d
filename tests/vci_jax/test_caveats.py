"""No number without a word: cut directions, lost digits, small samples, and no word too many."""

import jax
import numpy as np
import pytest
from reference import gaussian_classes

import vci_jax

update = jax.jit(vci_jax.update)
FEATURES, LABELS = gaussian_classes(7, 400, 4, 6)


def report_of(features, labels=LABELS, dtype=np.float64, **options):
    with jax.enable_x64(dtype == np.float64):
        state = vci_jax.init(int(labels.max()) + 1, features.shape[1], dtype=dtype)
        return vci_jax.report(update(state, features, labels), **options)


def codes_of(result, metric):
    return {c["code"] for c in result["caveats"] if metric in c["metrics"]}


def rotation(seed, dim=6):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def test_a_caveat_is_a_code_with_metrics_of_the_report_and_a_sentence():
    result = report_of(FEATURES[:20], LABELS[:20], np.float32)
    assert {c["code"] for c in result["caveats"]} == {"small_sample", "noisy_means"}
    for caveat in result["caveats"]:
        assert set(caveat) == {"code", "metrics", "message"}
        assert set(caveat["metrics"]) <= set(result)
        assert caveat["message"][0].isupper() or caveat["message"][0].isdigit()
        assert caveat["message"].endswith(".")
    assert result["warnings"] == [c["message"] for c in result["caveats"]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ordinary_features_have_none(dtype):
    assert report_of(FEATURES, dtype=dtype)["caveats"] == []


def test_directions_that_float32_cuts_are_counted_with_bounds():
    """A map of condition 1e5, and a column that is another plus 1e-3 of itself."""
    truth = report_of(FEATURES)["vci"]
    near = FEATURES.copy()
    near[:, 1] = near[:, 0] + 1e-3 * near[:, 1]
    steep = FEATURES @ (rotation(0) * np.geomspace(1, 1e-5, 6)) @ rotation(1)
    for features, cut in ((steep, 2), (near, 1)):
        exact, rough = report_of(features), report_of(features, dtype=np.float32)
        np.testing.assert_allclose(exact["vci"], truth, rtol=1e-8)
        assert codes_of(exact, "vci") == set()
        assert 6 - cut <= rough["kept_rank"] <= 6
        if rough["kept_rank"] == 6:  # by the rounding of one program or another
            assert "precision" in codes_of(rough, "vci")
            continue
        assert "directions_cut" in codes_of(rough, "vci")
        (text,) = [c["message"] for c in rough["caveats"] if c["code"] == "directions_cut"]
        assert text.startswith(f"{6 - rough['kept_rank']} of 6 directions of Sigma_T")
        low, high = (float(p) for p in text.split("between ")[1].split(". ")[0].split(" and "))
        assert low <= truth <= high
        assert "dtype=float64" in text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unit", [1e5, 1e8])
def test_units_of_features_do_not_move_fuzziness_where_means_span_all(dtype, unit):
    plain = report_of(FEATURES[:, :2], dtype=dtype)
    scaled = report_of(FEATURES[:, :2] * [1, unit], dtype=dtype)
    np.testing.assert_allclose(scaled["fuzziness"], plain["fuzziness"], rtol=1e-5)
    assert scaled["between_rank"] <= 2
    assert codes_of(scaled, "fuzziness") == set()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_of_a_column_give_no_impossible_value(dtype):
    """Two columns alike to the bit, K = 8 > D = 4, mean 100, noise 1e-7: H-score was 3.73."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 8
    features = rng.standard_normal((8, 3))[labels] + 100 + 1e-7 * rng.standard_normal((80, 3))
    result = report_of(features[:, [0, 1, 2, 2]], labels, dtype)
    assert result["h_score"] <= result["kept_rank"] + 1e-9
    assert result["vci"] >= 1 - result["kept_rank"] / 4 - 1e-9
    assert "directions_cut" in codes_of(result, "vci")


def test_pure_noise_in_many_dimensions_warns_of_every_trace():
    """200 rows, D = 1024, K = 10: the H-score is 9.0, the most there is, and says nothing."""
    rng = np.random.default_rng(0)
    result = report_of(rng.standard_normal((200, 1024)), np.arange(200) % 10)
    for name in ("vci", "h_score", "probe_mse"):
        assert "too_few_samples" in codes_of(result, name)
    for name in ("fuzziness", "squared_distance", "cdnv"):
        assert "noisy_means" in codes_of(result, name)
    assert np.isnan(result["h_score_adjusted"])
    assert np.isnan(result["probe_mse_adjusted"])


def test_angles_and_second_moments_keep_their_digits_far_from_the_origin():
    """At 1e7 standard deviations, against long double; the metrics are smooth functions of both."""
    rng = np.random.default_rng(0)
    offset = 1e7 * rng.standard_normal(6)
    far = report_of(FEATURES + offset)
    rows = (FEATURES + offset).astype(np.longdouble)
    # Unit vectors about that of the offset, to first order: the part across it over its length.
    axis = rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0))
    across = rows - rows.mean(axis=0)
    across = (across - (across @ axis)[:, None] * axis) / np.linalg.norm(rows.mean(axis=0))
    means = np.stack([across[LABELS == k].mean(axis=0) for k in range(4)])
    within = np.mean([across[LABELS == k].var(axis=0).sum() for k in range(4)])
    between = means.var(axis=0).sum()
    np.testing.assert_allclose(
        far["class_separation"], float(between / (within + between)), rtol=1e-6
    )
    values = np.linalg.svd(FEATURES + offset, compute_uv=False)
    share = values / values.sum()
    np.testing.assert_allclose(
        far["effective_rank"] - 1, np.exp(-share @ np.log(share)) - 1, rtol=1e-6
    )
    turned = report_of((FEATURES + offset) @ rotation(3))  # the evidence has no preferred axes
    np.testing.assert_allclose(far["logme"], turned["logme"], rtol=1e-6)


def test_float32_gives_the_same_separation_for_every_cut():
    """It was 2.4e-4 apart between two cuts of one data set, a hundred deviations from zero."""
    features = (FEATURES + 100).astype(np.float32)
    whole = report_of(features, dtype=np.float32)["class_separation"]
    state = vci_jax.init(4, 6)
    order = np.argsort(LABELS, kind="stable")
    for rows in np.array_split(order, 16):
        state = vci_jax.update(state, features[rows], LABELS[rows])
    np.testing.assert_allclose(vci_jax.report(state)["class_separation"], whole, rtol=2e-5)


def test_unequal_classes_are_named():
    rng = np.random.default_rng(0)
    labels = np.repeat(range(4), [250, 80, 40, 30])
    wide = FEATURES * np.array([1, 1, 2, 3])[labels][:, None] + rng.standard_normal((400, 6))
    assert "unequal_classes" in codes_of(report_of(wide, labels), "vci_adjusted")
    assert "unequal_classes" not in codes_of(report_of(wide, LABELS), "vci_adjusted")


def test_class_weighting_has_an_interval_with_uneven_blocks():
    """Blocks of random rows have other shares of the classes than the whole; it was NaN."""
    rng = np.random.default_rng(0)
    labels = np.repeat(range(4), [200, 100, 60, 40])
    block = rng.integers(0, 10, 400)
    states = [
        update(vci_jax.init(4, 6, class_counts=np.bincount(labels)), FEATURES[block == b],
               labels[block == b])
        for b in range(10)
    ]  # fmt: skip
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    result = vci_jax.report(stack, weighting="class")
    low, high = result["vci_interval"]
    assert low < result["vci_adjusted"] < high
    assert high - low < 0.2
