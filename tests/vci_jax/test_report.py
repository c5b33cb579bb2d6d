"""The float64 report: plain numbers, intervals, and a reason for everything undefined."""

import json
import math
import os

import jax
import numpy as np
import pytest
import reference
from reference import gaussian_classes

import vci_jax
from vci_jax import _compile
from vci_jax.interval import jackknife_interval

update = jax.jit(vci_jax.update)
FEATURES, LABELS = gaussian_classes(11, 400, 4, 6)


def moments_of(features, labels, classes=None, **options):
    state = vci_jax.init(classes or int(labels.max()) + 1, features.shape[1], **options)
    return update(state, features, labels)


def blocks_of(features, labels, size):
    parts = [moments_of(features[b::size], labels[b::size], classes=4) for b in range(size)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


def test_report_is_plain_and_complete():
    """JSON can hold it; the values are those of the reference, from a float32 stream."""
    result = vci_jax.report(moments_of(FEATURES, LABELS))
    json.dumps(result, allow_nan=False)
    for name, value in reference.metrics(FEATURES, LABELS).items():
        assert isinstance(result[name], float)
        np.testing.assert_allclose(result[name], value, rtol=1e-5, err_msg=name)
    within, between, _, _ = reference.covariances(FEATURES, LABELS)
    total = np.linalg.eigvalsh(within + between)[::-1]
    np.testing.assert_allclose(result["spectrum"]["total"], total, rtol=1e-5)
    np.testing.assert_allclose(
        result["spectrum"]["between"], np.linalg.eigvalsh(between)[::-1][:3], rtol=1e-5
    )
    facts = {"samples": 400, "classes": 4, "dim": 6, "kept_rank": 6, "between_rank": 3,
             "label_out_of_range": 0, "non_finite": 0, "weighting": "sample",
             "caveats": [], "warnings": []}  # fmt: skip
    assert {name: result[name] for name in facts} == facts
    assert not jax.config.jax_enable_x64  # the caller's precision is left alone


def test_head_adds_self_duality():
    head = (np.ones((6, 4)), np.zeros(4))
    assert 0 < vci_jax.report(moments_of(FEATURES, LABELS), head=head)["self_duality"] <= 2


def test_only_the_metrics_asked_for():
    """The same values, and the ranks and warnings that judge them."""
    whole = vci_jax.report(blocks_of(FEATURES[:20], LABELS[:20], 2))
    for only in (["vci", "fuzziness"], ["spectrum"], {"vci_interval"}, ["logme"], []):
        result = vci_jax.report(blocks_of(FEATURES[:20], LABELS[:20], 2), only=only)
        facts = {"samples", "classes", "dim", "kept_rank", "between_rank", "label_out_of_range",
                 "non_finite", "weighting", "caveats", "warnings"}  # fmt: skip
        assert result.keys() == facts | set(only)
        for name, value in result.items():  # Eigenvectors and solves differ in the last bits.
            near = isinstance(value, float)
            assert value == (pytest.approx(whole[name], rel=1e-13) if near else whole[name])


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("vci", r"write \['vci'\]"),
        (["vci", "vcj"], r"no metric \['vcj'\]"),
        (["self_duality"], "no metric"),  # which needs a head
        (["vci_interval"], "at least two partial states"),
    ],
)
def test_names_that_cannot_be_computed_are_refused(only, words):
    with pytest.raises(ValueError, match=words):
        vci_jax.report(moments_of(FEATURES, LABELS), only=only)


def test_a_stack_of_states_is_merged_and_gives_the_interval():
    whole = vci_jax.report(moments_of(FEATURES, LABELS))
    result = vci_jax.report(blocks_of(FEATURES, LABELS, 8))
    low, high = result["vci_interval"]
    assert low < result["vci_adjusted"] < high
    np.testing.assert_allclose(result["vci"], whole["vci"], rtol=1e-6)
    assert "vci_interval" not in whole


@pytest.mark.parametrize(
    "blocks_at",
    [np.arange(400) % 8, np.repeat(range(8), [80, 70, 60, 55, 45, 40, 30, 20])],
    ids=["equal", "unequal"],
)
def test_interval_is_the_jackknife_of_its_docstring(x64, blocks_at):
    """Block by block, by leaving samples out and starting again; an empty block adds nothing."""
    logs, size = [], 8
    states = [
        moments_of(FEATURES[blocks_at == b], LABELS[blocks_at == b], classes=4, dtype=np.float64)
        for b in range(size)
    ]
    states.append(vci_jax.init(4, 6, dtype=np.float64))
    blocks = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    for b in range(size):
        kept = blocks_at != b
        logs.append(math.log(reference.metrics(FEATURES[kept], LABELS[kept])["vci_adjusted"]))
    centre = reference.metrics(FEATURES, LABELS)["vci_adjusted"]
    h = 400 / np.bincount(blocks_at)
    pseudo = h * math.log(centre) - (h - 1) * np.array(logs)
    square = np.mean((pseudo - np.sum(pseudo / h)) ** 2 / (h - 1))
    if len(set(h)) == 1:  # the textbook's form
        textbook = (size - 1) / size * np.sum((logs - np.mean(logs)) ** 2)
        np.testing.assert_allclose(square, textbook)
    reach = math.exp(2.364624251 * math.sqrt(square / inflation(centre, 3, 6, 400)))  # t, 7 degrees
    got = jackknife_interval(blocks)
    np.testing.assert_allclose(got, (centre / reach, centre * reach), rtol=1e-8)
    narrow = jackknife_interval(blocks, confidence=0.5)
    assert got[0] < narrow[0] < narrow[1] < got[1]


def inflation(v, rank, dim, samples):
    """``adjusted.jackknife_inflation`` for rank = K - 1 < D, each pair of directions by itself."""
    directions = np.where(np.arange(dim) < rank, v, 1)
    linear, quadratic = 2 * np.sum(directions**2 * (1 - directions**2)), 0
    for j in range(rank):
        for i in [i for i in range(dim) if i > j]:
            a, b = directions[i], directions[j]
            e = np.array([1, math.sqrt((1 - b) / b), math.sqrt((1 - a) / a)])  # g, x, y
            g = np.array([1, 0, 0])
            form = a * b * ((a + b) * np.outer(e, e) - np.outer(e, g) - np.outer(g, e))
            form -= np.diag([0, a**2, b**2 if i < rank else 0])
            form[0, 0] *= i < rank  # otherwise what leverage counts
            quadratic += 2 * np.sum(form**2) / samples
    twice = (linear + 2 * quadratic) / (linear + quadratic)
    return twice * (samples - 1) / (samples - 1 - dim)


def test_interval_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="two blocks or more"):
        jackknife_interval(moments_of(FEATURES, LABELS))
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        jackknife_interval(blocks_of(FEATURES, LABELS, 2), confidence=95)


@pytest.mark.parametrize(
    ("features", "labels", "undefined", "words"),
    [
        (FEATURES, np.zeros(400, int), "vci", "Only one class"),
        (np.ones((400, 6)), LABELS, "vci", "All features are equal"),
        (np.tile(FEATURES[:100], (4, 1)), np.repeat(range(4), 100), "fuzziness", "coincide"),
        (FEATURES[:7], LABELS[:7], "vci_adjusted", "7 samples are too few for 6 directions"),
        (FEATURES[:20], LABELS[:20], None, "vci of pure noise would be 0.68"),
        (FEATURES[:, :1], LABELS, "cdnv_adjusted", "Undefined here: cdnv_adjusted."),
        (FEATURES, LABELS, None, None),
        (FEATURES[:, [0, 0, 0]], LABELS, None, "span 1 directions, fewer than the 3"),
    ],
)
def test_doubtful_values_come_with_a_reason(features, labels, undefined, words):
    result = vci_jax.report(moments_of(features, labels))
    assert undefined is None or math.isnan(result[undefined])
    assert (words is None and not result["warnings"]) or any(
        words in warning for warning in result["warnings"]
    ), result["warnings"]


def test_refused_rows_are_reported():
    features, labels = FEATURES.copy(), LABELS.copy()
    features[:3, 0], labels[5:7] = np.nan, 9
    result = vci_jax.report(moments_of(features, labels, classes=4))
    assert (result["samples"], result["non_finite"], result["label_out_of_range"]) == (395, 3, 2)
    assert any("3 rows with NaN" in warning for warning in result["warnings"])
    assert any("2 rows with a label" in warning for warning in result["warnings"])


def test_class_weighting_is_exact_with_counts_and_says_so_without():
    labels = np.minimum(np.random.default_rng(0).geometric(0.5, 400) - 1, 3)
    expected = reference.metrics(FEATURES, labels, "class")
    counted = moments_of(FEATURES, labels, class_counts=np.bincount(labels))
    result = vci_jax.report(counted, weighting="class")
    for name in ("vci", "fuzziness", "probe_mse", "squared_distance"):
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-5, err_msg=name)
    plain = vci_jax.report(moments_of(FEATURES, labels), weighting="class")
    assert math.isnan(plain["vci"])
    assert any("class_counts" in warning for warning in plain["warnings"])


def test_no_samples_and_overflowed_counts_are_errors():
    with pytest.raises(ValueError, match="hold no samples"):
        vci_jax.report(vci_jax.init(3, 2))
    state = moments_of(FEATURES, LABELS)
    with pytest.raises(ValueError, match="overflowed"):
        vci_jax.report(state._replace(count=state.count.at[0].set(-5)))


def test_the_published_features_give_the_published_values(resnet20):
    """A ResNet-20 on CIFAR-10 (10 000 x 64): to 1e-9 from float64, 1e-6 from float32."""
    expected = {
        "vci": 0.301204280625, "fuzziness": 0.495592642358,
        "squared_distance": 0.574297429295, "cosine_similarity": 0.854874460485,
        "class_separation": 0.650567863090, "within_between_part": 8.309222076384,
        "within_orthogonal_part": 3.603634840221, "probe_mse": 0.135541926281,
    }  # fmt: skip
    for dtype, tolerance in ((np.float32, 1e-6), (np.float64, 1e-11)):
        with jax.enable_x64(dtype == np.float64):
            result = vci_jax.report(
                moments_of(resnet20["features"], resnet20["labels"], dtype=dtype)
            )
        for name, value in expected.items():
            np.testing.assert_allclose(result[name], value, rtol=tolerance, err_msg=name)


@pytest.mark.parametrize(("scale", "words"), [(1e-20, "differ by so little"), (1e25, "not finite")])
def test_features_beyond_float32_are_undefined_with_the_reason(scale, words):
    """Their squares are lost, or infinite: noise must not pass for collapse."""
    result = vci_jax.report(moments_of(np.float32(FEATURES * scale), LABELS))
    assert math.isnan(result["vci"])
    assert math.isnan(result["fuzziness"])
    assert not result["squared_distance"] < 1e6  # neither a small number
    assert [words in warning for warning in result["warnings"]].count(True) == 1
    assert not any(
        "equal" in warning or "class_counts=" in warning for warning in result["warnings"]
    )
    assert "vci" in result["warnings"][-1]


def test_shrinkage_is_undefined_where_fourth_powers_are_lost():
    whole = vci_jax.report(moments_of(FEATURES, LABELS))["shrinkage_h_score"]
    for scale in (1e-15, 1e-5, 1e5, 1e12):
        got = vci_jax.report(moments_of(np.float32(FEATURES * scale), LABELS))
        near = abs(got["shrinkage_h_score"] / whole - 1) < 1e-3
        assert near or math.isnan(got["shrinkage_h_score"]), scale
        assert near or "shrinkage_h_score" in got["warnings"][-1]


def test_every_undefined_value_is_named():
    collapsed = np.repeat(np.eye(4, 6), 100, axis=0)
    result = vci_jax.report(blocks_of(collapsed, np.repeat(range(4), 100), 4))
    assert result["vci"] == 0
    assert any("vci_interval is undefined" in warning for warning in result["warnings"])


def test_the_finish_is_compiled_with_the_options_that_xla_has(monkeypatch):
    """Those it does not know are left out, and the program is the same function."""
    flags = os.environ.get("XLA_FLAGS", "")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    _compile._understood.cache_clear()
    known = _compile._understood()
    assert "xla_backend_optimization_level" in known
    monkeypatch.setattr(_compile, "_QUICK", {**known, "xla_no_such_option": "1"})
    _compile._understood.cache_clear()
    asked = []
    monkeypatch.setattr(
        jax, "jit", lambda *of, jit=jax.jit, **options: asked.append(options) or jit(*of, **options)
    )
    power = _compile.quick_jit(static_argnames="n")(lambda x, n: x**n)
    assert float(power(3.0, n=2)) == 9
    assert asked[-1] == {"compiler_options": known, "static_argnames": "n"}
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")  # The user's own choice.
    _compile._understood.cache_clear()
    assert "xla_backend_optimization_level" not in _compile._understood()
    monkeypatch.setenv("XLA_FLAGS", flags)
    _compile._understood.cache_clear()
