"""The statistics are functions of the points: no unit, sign, order or name moves a number.

Each law compares every number of every function to 1e-9. A sample in another unit, a x + b, keeps
its values to 2^-53 of their size, which the maps below make at most 1e4 times its range: 1e-12,
times some hundred for what adds up.
"""

import math
import pathlib

import numpy as np
import pytest

from probes.analysis import coefficients, conclusions, correlation, published, resampling
from probes.analysis.coefficients import COEFFICIENTS, pearson
from probes.analysis.cohorts import ALL
from probes.analysis.resampling import ResamplingPlan
from probes.transfer import escape, rounding
from vci_jax import interval

QUICK = ResamplingPlan(resamples=499, permutations=720)
CLOSE = {"rtol": 0, "atol": 1e-9}

MAPS = {
    "0.7 x + 0.1": lambda x: 0.7 * x + 0.1,
    "1e-8 x": lambda x: 1e-8 * x,
    "1e8 x": lambda x: 1e8 * x,
    "x / 3 + 1000": lambda x: x / 3 + 1000,
    "-x": lambda x: -x,
    "-2.3 x + 7": lambda x: -2.3 * x + 7,
}

# By name: x, y and settings. Five points of which permutations are a tie; equally spaced ones, that
# mirror themselves; ties; what random permutations are drawn for; seeds, as many and not as many.
_RNG = np.random.default_rng(20)
_X, _Y = _RNG.standard_normal((2, 14))
SAMPLES = {
    "five": (
        np.array([-1.738, -1.337, -1.361, -0.352, -2.313]),
        np.array([-1.814, -1.72, -1.004, 0.031, -1.756]),
        range(5),
    ),
    "spaced": (np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), np.array([1.0, 0, 3, 2, 5, 4]), range(6)),
    "ties": (np.array([0.1, 0.1, 0.3, 0.3, 0.3, 0.7]), np.array([0.2, 0.4, 0.4, 0.1, 0.9, 0.9]),
             range(6)),
    "ten": (_X[:10], (_X + _Y)[:10], range(10)),
    "seeds": (_X, _X + _Y, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]),
    "unequal": (_X, _X + _Y, [0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 5, 6]),
}  # fmt: skip


def numbers_of(x, y, settings, coefficient):
    """Everything about one coefficient of one pair of samples, the ends by their names."""
    whole = [resampling.means(sample, settings) for sample in (x, y)]
    without = coefficient(*(resampling.without_each(sample) for sample in whole))
    bca = resampling.bootstrap(coefficient, (x, y), settings, QUICK)
    test = resampling.permute(coefficient, *whole, QUICK)
    found = {
        "value": float(coefficient(*whole)),
        "bca": (bca.low, bca.high),
        "permutation": (test.low, test.high),
        "without": (float(np.min(without)), float(np.max(without))),
    }
    if len(set(settings)) < len(settings):
        seeds = resampling.bootstrap(coefficient, (x, y), settings, QUICK, seeds_only=True)
        found["seeds"] = (seeds.low, seeds.high)
    return found, [bca.undefined, test.p_value, test.exact]


def negated(found):
    """The same numbers of minus the coefficient: other signs, and the ends the other way round."""
    return {
        name: -value if isinstance(value, float) else (-value[1], -value[0])
        for name, value in found.items()
    }


def assert_same(found, expected):
    (signed, rest), (expected_signed, expected_rest) = found, expected
    for name, value in expected_signed.items():
        np.testing.assert_allclose(signed[name], value, **CLOSE, err_msg=name)
    np.testing.assert_allclose(rest, expected_rest, **CLOSE)


# tau_h looks at the top of the ranking, so that turning a sample round asks another question.
SIGNED = [name for name in COEFFICIENTS if name != "weighted_kendall"]


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize(
    ("name", "unit"),
    [(name, unit) for name in COEFFICIENTS for unit in MAPS if name in SIGNED or unit[0] != "-"],
)
def test_no_unit_moves_a_number(name, unit, sample):
    """Of x, of y and of both; a negative factor turns signs and swaps ends."""
    x, y, settings = SAMPLES[sample]
    there = MAPS[unit]
    signed, rest = numbers_of(x, y, settings, COEFFICIENTS[name])
    turned = negated(signed) if there(1.0) < there(0.0) else signed
    coefficient = COEFFICIENTS[name]
    assert_same(numbers_of(there(x), y, settings, coefficient), (turned, rest))
    assert_same(numbers_of(x, there(y), settings, coefficient), (turned, rest))
    assert_same(numbers_of(there(x), there(y), settings, coefficient), (signed, rest))


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("name", COEFFICIENTS)
def test_no_order_of_runs_moves_a_number(name, sample):
    """Nor do the numbers that settings are given."""
    x, y, settings = SAMPLES[sample]
    expected = numbers_of(x, y, settings, COEFFICIENTS[name])
    rng = np.random.default_rng(0)
    for _ in range(4):
        order = rng.permutation(len(x))
        renamed = rng.permutation(1 + max(settings))[np.array(settings)[order]]
        assert_same(numbers_of(x[order], y[order], renamed, COEFFICIENTS[name]), expected)


def test_the_interval_of_the_example_is_the_same_in_two_units():
    """BCa of five points: +0.035 to 1 in both, where a count of ties by == gave -1 in one."""
    x, y, _ = SAMPLES["five"]
    for sample in (x, 0.7 * x + 0.1):
        found = resampling.bootstrap(pearson, (sample, y), range(5), ResamplingPlan())
        assert (found.low, found.high) == pytest.approx((0.0354387, 1.0), abs=1e-6)


def study_of(change=lambda name, x: x, order=None, group=lambda name: name):
    """The published study with four seeds of two settings, in other units, orders or names."""
    runs = published.study()
    rng = np.random.default_rng(1)
    rows = np.concatenate([np.arange(11), [2, 2, 2, 8, 8, 8]])
    noise = 1 + 0.02 * rng.standard_normal((6, 17)) * (np.arange(17) > 10)
    rows = rows if order is None else rows[order]
    noise = noise if order is None else noise[:, order]
    metrics = {m: v[rows] * n for (m, v), n in zip(runs.metrics.items(), noise, strict=False)}
    return runs._replace(
        names=[f"{runs.names[i]} {k}" for k, i in enumerate(rows)],
        groups=[group(runs.groups[i]) for i in rows],
        settings=[runs.settings[i] for i in rows],
        metrics={name: change(name, values) for name, values in metrics.items()},
        accuracy=runs.accuracy[rows],
        mlog=runs.mlog[rows] * noise[5],
    )


def everything(runs):
    """Correlations and comparisons as flat numbers, by group and metric."""
    found = {}
    for one in correlation.correlate(runs, QUICK):
        estimates = [
            [e.value, *e.bootstrap, *e.permutation, *e.leave_one_out]
            for e in one.estimates.values()
        ]
        rest = [one.runs, one.settings, *one.partial, *one.seeds]
        found[one.group, one.metric] = np.concatenate([*estimates, rest])
    for one in correlation.compare(runs, "vci", QUICK):
        found[one.group, one.other, "less"] = np.array([one.value, *one.interval])
    p_values = [found[key][6] for key in found if len(key) == 2]
    found["holm"] = np.sort(interval.holm(np.array(p_values)))
    return found


def assert_equal_studies(found, expected, name=lambda group: group):
    for key, values in expected.items():
        other = key if isinstance(key, str) else (name(key[0]), *key[1:])
        np.testing.assert_allclose(found[other], values, **CLOSE, err_msg=str(key))


@pytest.fixture(scope="module")
def plain():
    return everything(study_of())


@pytest.mark.parametrize("unit", [unit for unit in MAPS if not unit.startswith("-")])
def test_no_unit_of_a_metric_moves_a_number_of_the_study(unit, plain):
    """Partial correlations, Holm's p-values, comparisons and seeds, too."""
    assert_equal_studies(everything(study_of(lambda _, x: MAPS[unit](x))), plain)


def test_no_sign_of_a_metric_moves_a_comparison(plain):
    """Comparisons are of sizes: all other numbers are in the tests above."""
    turned = everything(study_of(lambda name, x: -x if name == "squared_distance" else x))
    for key, values in plain.items():
        if "less" in key:
            np.testing.assert_allclose(turned[key], values, **CLOSE, err_msg=str(key))


def test_no_order_and_no_name_moves_a_number_of_the_study(plain):
    order = np.random.default_rng(2).permutation(17)
    assert_equal_studies(everything(study_of(order=order)), plain)
    for renamed in (
        {"temperature": ALL, "regulariser": "|"},
        {"temperature": "", "regulariser": "b"},
    ):
        found = everything(study_of(order=order, group=renamed.__getitem__))
        shown = {old: 'group "all"' if new == ALL else new for old, new in renamed.items()}
        assert_equal_studies(found, plain, (shown | {ALL: ALL}).__getitem__)


def test_a_group_called_all_is_a_group():
    """It is drawn and judged by itself, and is not taken for all runs together."""
    runs = published.study()
    alone = runs._replace(groups=[ALL] * 11)
    assert list(alone.members()) == ['group "all"']
    (found,) = {one.group for one in correlation.correlate(alone, QUICK)}
    assert found == 'group "all"'
    beside = runs._replace(groups=[ALL] * 6 + ["b"] * 5)
    assert {key: len(rows) for key, rows in beside.members().items()} == {
        'group "all"': 6, "b": 5, ALL: 11,
    }  # fmt: skip


# ---- what rounding may not decide ----------------------------------------------------------------


def test_values_that_differ_by_rounding_are_ties():
    """0.1 + 0.2 and 0.3; a coefficient of ranks is that of the exact values."""
    near, exact = np.array([0.1 + 0.2, 0.3, 0.5, 0.1]), np.array([0.3, 0.3, 0.5, 0.1])
    y = np.array([1.0, 2, 3, 0])
    for name in ("spearman", "kendall", "weighted_kendall"):
        assert COEFFICIENTS[name](near, y) == COEFFICIENTS[name](exact, y)
    assert coefficients.kendall(exact + np.array([1e-6, 0, 0, 0]), y) < coefficients.kendall(
        exact, y
    )


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("size", [1e-300, 1e-8, 1.0, 1e8, 1e300])
def test_a_sample_that_varies_by_rounding_is_constant(name, size):
    """And one that varies by a millionth is not; whatever the size of the numbers."""
    near = size * np.array([0.1 + 0.2, 0.3, 0.3, 0.1 * 3])
    assert math.isnan(COEFFICIENTS[name](near, np.arange(4.0)))
    rising = size * (1 + 1e-6 * np.arange(4.0))
    assert COEFFICIENTS[name](rising, np.arange(4.0)) == pytest.approx(1, abs=1e-9)


def test_level_is_exact_where_nothing_is_near():
    rng = np.random.default_rng(3)
    values = rng.standard_normal((5, 30))
    np.testing.assert_array_equal(rounding.level(values), values)
    odd = np.array([[np.nan, 1.0, 1.0], [np.inf, 1.0, 2.0]])
    np.testing.assert_array_equal(rounding.level(odd), odd)


def test_resamples_of_one_setting_in_any_order_of_its_seeds_are_constant():
    """The mean of three seeds depends on their order, by rounding: half of the resamples of two
    settings are of one of them alone, each with its seeds drawn in another order.
    """
    x, settings = np.array([0.1, 0.2, 0.3, 5.1, 5.2, 5.3]), [0, 0, 0, 1, 1, 1]
    taken = resampling.draw(settings, ResamplingPlan(), seeds_only=False)
    drawn = np.sort(taken.rows, axis=-1)
    alike = np.all(drawn[:, 0] == drawn[:, 1], axis=-1)
    shuffled = alike & np.any(taken.rows[:, 0] != taken.rows[:, 1], axis=-1)
    assert np.ptp(taken.means(x)[shuffled], axis=-1).max() > 0
    assert np.all(np.isnan(pearson(taken.means(x), taken.means(x**2))[alike]))


def test_a_zero_correlation_has_no_sign():
    """Rounding gives 1e-17 a sign; a symmetric sample has none, in any unit."""
    x, y = np.array([-0.3, -0.1, 0.1, 0.3]), np.array([0.7, 0.2, 0.2, 0.7])
    for there in MAPS.values():
        assert rounding.sign(float(pearson(there(x), y))) == 0
    one = conclusions.Signs("m", {"a": 0, "b": 0}, {"a": False, "b": False}, {}, 2)
    assert not one.consistent
    assert "0 in a (not significant)" in conclusions._say_signs(one)


def test_copies_in_other_units_cannot_be_told_apart():
    """|r| of x less that of 2 x + 1 is 0, not a rounding error with an interval of its own."""
    runs = published.study()
    x = runs.metrics["vci"]
    copies = runs._replace(metrics={"vci": x, "copy": 0.3 * x + 0.1, "back": -x})
    for one in correlation.compare(copies, "vci", QUICK):
        assert one.value == 0
        assert math.isnan(one.interval.low)


def test_a_partial_correlation_of_a_copy_is_undefined():
    """x = z in another unit leaves nothing but rounding, in every unit."""
    z = np.random.default_rng(4).standard_normal(8)
    y = np.random.default_rng(5).standard_normal(8)
    for there in MAPS.values():
        assert math.isnan(correlation.partial(there(z), y, z)[0])
    assert math.isnan(correlation.partial(z, y, np.full(8, 0.1))[0])
    near = z + 1e-4 * y
    expected = correlation.partial(near, y, z)
    assert math.isfinite(expected[0])
    for there in list(MAPS.values())[:3]:
        np.testing.assert_allclose(correlation.partial(there(near), y, z), expected, **CLOSE)


def test_the_level_itself_is_significant():
    """p = 0.05 is, at 95 %, where 1 - 0.95 is more than 0.05 by rounding; and at 90 and 99 %."""
    for confidence, p in ((0.95, 0.05), (0.9, 0.1), (0.99, 0.01), (0.7, 0.3)):
        plan = ResamplingPlan(confidence=confidence)
        assert plan.rejects(p)
        assert plan.rejects(1 - confidence)
        assert not plan.rejects(p + 1 / 40320)
    assert not ResamplingPlan().rejects(math.nan)


def test_a_run_is_found_under_any_name_and_order(tmp_path):
    """Of runs whose directories have one name, as many parents as it takes."""
    paths = [tmp_path / p / s / "run" for p in ("p", "q") for s in ("a", "b")]
    assert escape.short_paths(paths) == ["p/a/run", "p/b/run", "q/a/run", "q/b/run"]
    assert escape.short_paths([pathlib.Path("/x"), pathlib.Path("/x")]) == ["//x", "//x"]
