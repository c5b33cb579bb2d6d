"""Paired differences: what they equal, what they refuse, and how they read."""

import json
import math

import jax
import numpy as np
import pytest
from reference import gaussian_classes
from scipy import stats

import vci_jax
from vci_jax import VCIError
from vci_jax.compare import paired_differences
from vci_jax.interval import holm, leave_one_out

FEATURES, LABELS = gaussian_classes(5, 400, 4, 6)
RNG = np.random.default_rng(0)
NOISY = FEATURES + 0.5 * RNG.normal(size=FEATURES.shape)
NEAR = FEATURES + 0.05 * RNG.normal(size=FEATURES.shape)
PAIR = {"clean": (FEATURES, LABELS), "noisy": (NOISY, LABELS)}


@pytest.fixture(scope="module")
def pair():
    return vci_jax.compare(PAIR)


@pytest.fixture(scope="module")
def three():
    return vci_jax.compare(PAIR | {"near": (NEAR, LABELS)})


def test_the_difference_is_that_of_the_reports(pair):
    reports = {name: vci_jax.measure_arrays(*given) for name, given in PAIR.items()}
    for metric in ("vci_adjusted", "squared_distance_adjusted", "cosine_similarity"):
        one = pair.between("clean", "noisy", metric)
        wanted = reports["clean"][metric] - reports["noisy"][metric]
        assert one.difference == pytest.approx(wanted, rel=1e-9)
        assert one.low < one.difference < one.high
        back = pair.between("noisy", "clean", metric)
        assert (back.difference, back.low, back.high) == (-one.difference, -one.high, -one.low)
    assert pair.between("clean", "noisy").verdict == "clean is more collapsed"
    cosines = pair.between("clean", "noisy", "cosine_similarity")
    assert cosines.difference > 0
    assert cosines.verdict == "clean is more collapsed"
    assert pair.reports["clean"] == reports["clean"]


def test_the_interval_is_the_jackknife_of_its_docstring(pair):
    """Equal blocks: the textbook's variance of the pseudo-values, of both sets' differences."""
    states = {name: report.jackknife for name, report in pair.reports.items()}
    a, b = (states[name] for name in ("clean", "noisy"))
    size = len(a.counts)
    leaves = [s.parts["vci_adjusted"] / math.sqrt(s.inflation) for s in (a, b)]
    rest = leaves[0] - leaves[1]
    square = (size - 1) / size * np.sum((rest - rest.mean()) ** 2)
    one = pair.between("clean", "noisy")
    reach = stats.t.ppf(0.975, size - 1) * math.sqrt(square)
    assert one.high - one.difference == pytest.approx(reach, rel=1e-9)
    p_value = 2 * stats.t.sf(abs(one.difference) / math.sqrt(square), size - 1)
    assert one.p_value == pytest.approx(p_value, rel=1e-9)
    narrow = paired_differences(states, "vci_adjusted", 0.5)[0]
    assert one.low < narrow.low < narrow.high < one.high


def test_pairing_narrows_the_interval(three):
    """By how much the sets have in common."""
    widths = [high - low for low, high in (r.vci_interval for r in three.reports.values())]
    apart = math.hypot(widths[0], widths[1])
    noisy, near = (three.between("clean", name) for name in ("noisy", "near"))
    assert noisy.high - noisy.low < 0.7 * apart
    assert near.high - near.low < 0.3 * math.hypot(widths[0], widths[2])


def test_an_invertible_map_changes_nothing():
    turned = FEATURES @ RNG.normal(size=(6, 6)) + 3
    found = vci_jax.compare({"a": (FEATURES, LABELS), "b": (turned, NAMES[LABELS])})
    one = found.between("a", "b")
    assert one.verdict == "cannot be told apart"
    assert one.low < 0 < one.high
    assert one.high < 1e-6
    same = vci_jax.compare({"a": (FEATURES, LABELS), "b": (FEATURES, LABELS)}).between("a", "b")
    assert (same.difference, same.p_value, same.apart) == (0, 1, False)


NAMES = np.array(["cat", "dog", "eel", "fox"])


def moments(features, size=8):
    parts = []
    for b in range(size):
        state = vci_jax.init(4, 6)
        parts.append(vci_jax.jit_update(state, features[b::size], LABELS[b::size]))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


def test_moments_and_reports_compare_as_well(pair):
    states = {"clean": moments(FEATURES), "noisy": moments(NOISY)}
    found = vci_jax.compare(states)
    one, other = found.between("clean", "noisy"), pair.between("clean", "noisy")
    assert one.difference == pytest.approx(other.difference, rel=1e-4)
    assert found.between("clean", "noisy", "cdnv_adjusted").apart
    reports = {name: vci_jax.report(state) for name, state in states.items()}
    again = vci_jax.compare(reports)
    assert again.between("clean", "noisy") == one
    assert {d.metric for d in again.differences} == {"vci_adjusted"}
    measured = {n: vci_jax.measure_arrays(*given) for n, given in PAIR.items()}
    assert vci_jax.compare(measured).between("clean", "noisy") == other


def test_holm_is_that_of_the_step_down_procedure(three):
    """Known values, and a family of three pairs."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, math.nan, 0.6])), [1.0, math.nan, 1.0])
    family = [d for d in three.differences if d.metric == "vci_adjusted"]
    assert len(family) == 3
    assert [d.p_holm for d in family] == holm(np.array([d.p_value for d in family])).tolist()
    assert all(d.apart == (d.p_holm < 0.05) for d in family)


def test_sets_that_cannot_be_told_apart_are_said_to_be():
    """Two noisy copies of one quality: over many draws, 5 % at most are told apart."""
    rng, apart = np.random.default_rng(4), 0
    for _ in range(30):
        copies = {name: FEATURES + 0.3 * rng.normal(size=FEATURES.shape) for name in "ab"}
        states = {name: leave_one_out(moments(h, 16)) for name, h in copies.items()}
        apart += paired_differences(states, "vci_adjusted", 0.95)[0].apart
    assert apart <= 4  # P[more] = 1.6 % at a level of 5 %


@pytest.mark.parametrize(
    ("sets", "options", "words"),
    [
        ({"a": (FEATURES, LABELS)}, {}, "two or more sets by name"),
        ([(FEATURES, LABELS)] * 2, {}, "two or more sets by name"),
        (PAIR | {"c": FEATURES}, {}, "c: got ndarray: pass"),
        (PAIR | {"c": (FEATURES, LABELS / 3)}, {}, "c: labels are real numbers"),
        (PAIR | {"c": (NOISY, LABELS[::-1])}, {}, r"noisy and c have other labels \(from row 0 on"),
        (PAIR | {"c": (NOISY[:399], LABELS[:399])}, {}, "400 and 399 rows"),
        (PAIR, {"blocks": 1}, "at least 2 for an interval, got 1"),
        (PAIR, {"metrics": ["fuzziness"]}, r"compared by \['fuzziness'\]; by vci_adjusted"),
        (PAIR, {"blocks": "8"}, "blocks must be an integer of at least 1, got '8'"),
        (PAIR, {"metrics": "vci_adjusted"}, r"write \['vci_adjusted'\]"),
        (PAIR | {"c": "c.npz"}, {}, "c: got str: pass .* vci_jax.read_features"),
        ({1: (FEATURES, LABELS), "1": (NOISY, LABELS)}, {}, "two sets have the same name: 1, 1"),
        (PAIR, {"confidence": 95}, "between 0 and 1, got 95"),
        ({n: vci_jax.measure_arrays(*g, blocks=1) for n, g in PAIR.items()}, {}, "in one block"),
        ({"a": moments(FEATURES), "b": moments(NOISY, 5)}, {}, "do not hold the same samples"),
    ],
)
def test_what_cannot_be_compared_is_refused(sets, options, words):
    with pytest.raises(VCIError, match=words):
        vci_jax.compare(sets, **options)


def test_names_may_be_numbers():
    """Epochs, for one; they are text in tables."""
    found = vci_jax.compare({10: (FEATURES, LABELS), 20: (NOISY, LABELS)}, metrics=["vci_adjusted"])
    assert list(found.reports) == ["10", "20"]
    assert "10 is more collapsed" in repr(found)


def test_pairs_that_were_not_compared_are_named(pair):
    with pytest.raises(VCIError, match="'clean' and 'other' were not compared"):
        pair.between("clean", "other")


def test_undefined_differences_say_so():
    """One class: no difference, no verdict, and JSON without NaN."""
    found = vci_jax.compare({n: (h, 0 * LABELS) for n, (h, _) in PAIR.items()})
    one = found.between("clean", "noisy")
    assert (one.verdict, one.apart) == ("undefined", False)
    assert json.loads(found.to_json())["differences"][0]["difference"] is None


def test_tables_for_people(pair, three):
    text = repr(pair)
    assert max(map(len, text.splitlines())) <= 80
    assert "clean - noisy" in text
    assert "cosine_similarity" in text
    assert "clean is more collapsed" in text
    text = repr(three)
    assert "Differences of vci_adjusted" in text
    assert "all 3 pairs together" in " ".join(text.split())
    assert "400 samples, 4 classes, 6 dimensions" in text
    assert pair._repr_html_().count("<table>") == 2


def test_tables_for_programs(pair):
    values = json.loads(pair.to_json())
    assert set(values["sets"]) == {"clean", "noisy"}
    first = values["differences"][0]
    assert first["metric"] == "vci_adjusted"
    assert first["interval"][0] < first["difference"] < first["interval"][1]
    pytest.importorskip("pandas")
    assert pair.to_pandas()["verdict"][0] == first["verdict"]
    import matplotlib as mpl

    mpl.use("agg")
    assert len(pair.plot().lines) == 4
