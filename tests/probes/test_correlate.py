"""Correlations, intervals and tests: against SciPy, by simulation, on the published tables."""

import itertools
import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests

from probes.analysis import coefficients, conclusions, correlation, published, resampling, tables
from probes.analysis.coefficients import COEFFICIENTS, pearson
from probes.analysis.cohorts import ALL
from probes.analysis.resampling import ResamplingPlan
from probes.figures import correlate_command
from vci_jax import interval

QUICK = ResamplingPlan(resamples=499)
SCIPY = {
    "pearson": stats.pearsonr,
    "spearman": stats.spearmanr,
    "kendall": stats.kendalltau,
    "weighted_kendall": stats.weightedtau,
}

# SPEC 2.3: Pearson's r with MLOG, in the order fuzziness, squared distance, cosine, VCI.
PRINTED = {
    "temperature": (0.986, 1.000, -0.989, 0.995),
    "regulariser": (-0.415, -0.996, 0.978, 0.975),
    ALL: (0.019, -0.847, 0.834, 0.956),
}


def normal(rng, r, *shape):
    """Pairs of a normal distribution with correlation r."""
    x, e = rng.standard_normal((2, *shape))
    return x, r * x + math.sqrt(1 - r * r) * e


@pytest.fixture(scope="module")
def judged():
    """The published tables, their correlations, and the comparisons of VCI."""
    runs = published.study()
    return (
        runs,
        correlation.correlate(runs, ResamplingPlan()),
        correlation.compare(runs, "vci", ResamplingPlan()),
    )


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("values", [None, 4])
def test_coefficients_are_scipys(name, values):
    """With and without ties; a stack of samples is each by itself."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 30, 9))
    if values:
        x, y = rng.integers(0, values, (2, 30, 9)).astype(float)
    expected = [SCIPY[name](a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(COEFFICIENTS[name](x, y), expected, atol=1e-14)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_a_constant_sample_has_no_coefficient(name):
    """Also where the mean of equal numbers is not that number: 0.1 six times."""
    y = np.arange(6.0)
    assert math.isnan(COEFFICIENTS[name](np.full(6, 0.1), y))
    assert math.isnan(COEFFICIENTS[name](y, np.full(6, 0.1)))
    assert COEFFICIENTS[name](y, y) == 1


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_the_bootstrap_is_scipys(name):
    """The same draws from the same seed, hence the same interval, where no resample is constant.

    SciPy draws from the sample as it comes, so it is given in the order that is drawn from here.
    """
    (x, y), _ = resampling.arrange(normal(np.random.default_rng(1), 0.6, 11), range(11))
    coefficient = COEFFICIENTS[name]
    theirs = stats.bootstrap(
        (x, y),
        lambda x, y, axis: coefficient(x, y),
        paired=True,
        vectorized=True,
        n_resamples=QUICK.resamples,
        rng=np.random.default_rng(QUICK.seed),
    ).confidence_interval
    ours = resampling.bootstrap(coefficient, (x, y), range(11), QUICK)
    np.testing.assert_allclose(ours, (*theirs, 0.0), atol=1e-14)


def test_constant_resamples_are_left_out_and_counted():
    """At n = 4 one resample in 64 repeats a single point; SciPy has no interval then."""
    x, y = normal(np.random.default_rng(2), 0.5, 4)
    found = resampling.bootstrap(pearson, (x, y), range(4), ResamplingPlan())
    assert found.undefined == pytest.approx(1 / 64, abs=4 * math.sqrt(63 / 64**2 / 9999))
    assert -1 <= found.low < found.high <= 1


def test_a_perfect_order_has_no_interval_and_the_smallest_p():
    x = np.arange(6.0)
    for name in ("spearman", "kendall", "weighted_kendall"):
        coefficient = COEFFICIENTS[name]
        assert math.isnan(resampling.bootstrap(coefficient, (x, x**3), range(6), QUICK).low)
        found = resampling.permute(coefficient, x, x**3, QUICK)
        assert math.isnan(found.low)
        assert found.p_value == pytest.approx(2 / 720)


@pytest.mark.parametrize("size", [5, 6])
def test_small_permutation_tests_are_exact(size):
    """All n! orders, by itertools; SciPy's exact test of Kendall's tau says the same."""
    x, y = normal(np.random.default_rng(3), 0.8, size)
    for coefficient in COEFFICIENTS.values():
        null = np.array([coefficient(np.array(o), y) for o in itertools.permutations(x)])
        tails = [np.mean(s * null >= s * coefficient(x, y) - 1e-12) for s in (-1, 1)]
        found = resampling.permute(coefficient, x, y, ResamplingPlan())
        assert found.exact
        assert found.p_value == pytest.approx(min(1, 2 * min(tails)))
    kendall = resampling.permute(coefficients.kendall, x, y, ResamplingPlan())
    exact = stats.kendalltau(x, y, method="exact")
    assert kendall.p_value == pytest.approx(exact.pvalue)


def test_random_permutation_tests_are_scipys():
    (x, y), _ = resampling.arrange(normal(np.random.default_rng(4), 0.5, 12), range(12))
    method = stats.PermutationMethod(n_resamples=999, rng=np.random.default_rng(0))
    found = resampling.permute(pearson, x, y, ResamplingPlan(resamples=999))
    assert not found.exact
    assert found.p_value == stats.pearsonr(x, y, method=method).pvalue


def test_p_values_are_uniform_under_the_null():
    """P(p <= a) = a for every a that the 120 permutations allow; 4 standard deviations of 800."""
    rng = np.random.default_rng(5)
    draws = [normal(rng, 0.0, 5) for _ in range(800)]
    p = np.array([resampling.permute(pearson, x, y, QUICK).p_value for x, y in draws])
    for level in (2 / 120, 6 / 120, 0.2, 0.5, 0.8):
        reach = 4 * math.sqrt(level * (1 - level) / len(p))
        assert np.mean(p <= level + 1e-9) == pytest.approx(level, abs=reach)


def test_the_interval_inverts_the_test():
    """Zero is inside exactly if p > 0.05, whatever the sample."""
    rng = np.random.default_rng(6)
    for _ in range(150):
        x, y = normal(rng, 0.75, 6)
        for coefficient in (pearson, coefficients.spearman):
            found = resampling.permute(coefficient, x, y, ResamplingPlan(resamples=99))
            if math.isfinite(found.low):
                assert (found.low <= 0 <= found.high) == (found.p_value > 0.05 + 1e-12)


def coverage(size, r, simulations, seed):
    """How often the intervals, BCa and permutation, hold the true r."""
    rng = np.random.default_rng(seed)
    held = []
    for index in range(simulations):
        x, y = normal(rng, r, size)
        plan = ResamplingPlan(resamples=499, permutations=720, seed=index)
        bca = resampling.bootstrap(pearson, (x, y), range(size), plan)
        permuted = resampling.permute(pearson, x, y, plan)
        held.append([one.low <= r <= one.high for one in (bca, permuted)])
    return np.mean(held, axis=0)


@pytest.mark.parametrize("size", [11, 30])
@pytest.mark.parametrize("r", [0.0, 0.9])
def test_intervals_cover(size, r):
    """95 % within 3.5 standard deviations of 400 simulations, BCa and what it is known to lack."""
    bca, permuted = coverage(size, r, 400, seed=size)
    reach = 3.5 * math.sqrt(0.95 * 0.05 / 400)
    assert permuted == pytest.approx(0.95, abs=reach)
    # 0.93 in 2000 simulations with 999 resamples, at both sizes.
    assert bca == pytest.approx(0.93, abs=3.5 * math.sqrt(0.93 * 0.07 / 400))


@pytest.mark.slow
@pytest.mark.parametrize("size", conclusions._COVERAGE)
def test_the_coverage_that_verdicts_quote_is_found_again(size):
    """To 4 standard deviations, and the rounding to a percent."""
    found = coverage(size, 0.95, 2000, seed=100 + size)
    for measured, quoted in zip(found, conclusions._COVERAGE[size], strict=True):
        reach = 4 * math.sqrt(quoted * (1 - quoted) / 2000) + 0.005
        assert measured == pytest.approx(quoted, abs=reach)


def test_seeds_are_averaged_and_no_evidence_about_settings():
    """Copies of a run change nothing: the test, the BCa interval and r are those without them."""
    x, y = normal(np.random.default_rng(7), 0.7, 7)
    settings, copied = np.arange(7), np.repeat(np.arange(7), 3)
    alone = resampling.bootstrap(pearson, (x, y), settings, QUICK)
    many = resampling.bootstrap(pearson, (x[copied], y[copied]), copied, QUICK)
    np.testing.assert_allclose(many, alone, atol=1e-12)
    runs = published.study()
    rows = np.repeat(np.arange(11), 4)
    tripled = runs._replace(
        groups=[runs.groups[i] for i in rows],
        settings=[runs.settings[i] for i in rows],
        metrics={name: values[rows] for name, values in runs.metrics.items()},
        accuracy=runs.accuracy[rows],
        mlog=runs.mlog[rows],
    )
    for one, other in zip(
        correlation.correlate(tripled, QUICK), correlation.correlate(runs, QUICK), strict=True
    ):
        assert (one.runs, one.settings) == (4 * other.runs, other.settings)
        assert one.pearson.permutation == pytest.approx(other.pearson.permutation)
        assert one.partial == pytest.approx(other.partial)
        # New seeds that are copies move nothing; one seed says nothing about seeds.
        assert (one.seeds.low, one.seeds.high) == pytest.approx([one.pearson.value] * 2)
        assert math.isnan(other.seeds.low)


def test_unequal_numbers_of_seeds_are_drawn_within_their_setting():
    """Settings of one, two and four seeds: every drawn mean is one that its own seeds can give."""
    settings = np.array([5, 5, 9, 2, 2, 2, 2])
    values = np.array([10.0, 20, 300, 1, 2, 3, 4])
    drawn = resampling.draw(settings, QUICK, seeds_only=True).means(values)
    assert set(drawn[:, 1]) == {10, 15, 20}
    assert set(drawn[:, 2]) == {300}
    assert np.mean(drawn[:, 0]) == pytest.approx(2.5, abs=4 * np.sqrt(1.25 / 4 / 499))
    np.testing.assert_allclose(resampling.means(values, settings), [2.5, 15, 300])
    both = resampling.draw(settings, QUICK, seeds_only=False).means(values)
    assert np.mean(both > 200) == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 3 / 499))


def test_the_interval_of_seeds_covers_what_new_seeds_give():
    """Ten settings, four seeds each: r of a second set of seeds falls inside, mostly.

    Both sets are as noisy, and the interval is the percentile one around the first, so that fewer
    than 95 % do; Phi(1.96 / sqrt(2)) = 83 % if nothing else were amiss, and the means of resampled
    seeds vary too little by sqrt(3/4), which leaves 77 %. Five standard deviations of 300.
    """
    rng = np.random.default_rng(8)
    settings, inside = np.repeat(np.arange(10), 4), []
    for seed in range(300):
        x, y = np.repeat(normal(rng, 0.8, 10), 4, axis=1)
        first, second = (
            (x + 0.3 * rng.standard_normal(40), y + 0.3 * rng.standard_normal(40)) for _ in "12"
        )
        plan = ResamplingPlan(resamples=199, seed=seed)
        found = resampling.bootstrap(pearson, first, settings, plan, seeds_only=True)
        again = pearson(*(resampling.means(values, settings) for values in second))
        inside.append(found.low <= again <= found.high)
    assert np.mean(inside) == pytest.approx(0.77, abs=5 * math.sqrt(0.77 * 0.23 / 300))


def test_partial_correlation_is_that_of_regression():
    """Its p-value is that of x in the regression of y on x and the third (statsmodels)."""
    rng = np.random.default_rng(9)
    z = rng.standard_normal(11)
    x, y = z + rng.standard_normal((2, 11))
    r, p = correlation.partial(x, y, z)
    design = sm.add_constant(np.stack([x, z], axis=1))
    fit = sm.OLS(y, design).fit()
    assert p == pytest.approx(fit.pvalues[1], rel=1e-9)
    rest = [sm.OLS(v, sm.add_constant(z)).fit().resid for v in (x, y)]
    assert r == pytest.approx(stats.pearsonr(*rest).statistic, rel=1e-12)
    assert correlation.partial(x, 2 * z, z) == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert math.isnan(correlation.partial(x[:3], y[:3], z[:3])[0])


def test_holm_is_statsmodels():
    p = np.random.default_rng(10).random(9) ** 3
    np.testing.assert_allclose(interval.holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(interval.holm(np.array([0.01, np.nan, 0.02])), [0.02, np.nan, 0.02])


def test_published_correlations_to_the_digits_given(judged):
    _, found, _ = judged
    values = {(one.group, one.metric): one.pearson.value for one in found}
    metrics = ("fuzziness", "squared_distance", "cosine_similarity", "vci")
    assert len(values) == 12
    for group, expected in PRINTED.items():
        assert [round(values[group, metric], 3) for metric in metrics] == list(expected)


def test_published_leave_one_out_by_hand(judged):
    runs, found, _ = judged
    one = next(c for c in found if (c.group, c.metric) == ("regulariser", "fuzziness"))
    x, y = runs.metrics["fuzziness"][6:], runs.mlog[6:]
    without = [np.corrcoef(np.delete(x, i), np.delete(y, i))[0, 1] for i in range(5)]
    assert one.pearson.leave_one_out == pytest.approx((min(without), max(without)))


def test_only_vci_keeps_its_sign(judged):
    """The claim of the paper, and which part of it is significant."""
    said = {one.metric: one for one in conclusions.signs(judged[1], ResamplingPlan())}
    assert [name for name, one in said.items() if one.consistent] == ["vci"]
    sure = {name: one.established for name, one in said.items()}
    assert sure == {
        "fuzziness": False,
        "squared_distance": True,
        "cosine_similarity": True,
        "vci": True,
    }


def test_published_verdicts_in_words(judged):
    _, found, comparisons = judged
    said = "\n".join(conclusions.statements(found, comparisons, ResamplingPlan()))
    assert "vci: + in temperature, + in regulariser: one sign in every group, each " in said
    assert (
        "significant by itself; only that in temperature survives Holm's correction for 12" in said
    )
    assert (
        "squared_distance: + in temperature, - in regulariser: the sign changes between groups, "
        "significantly, each by itself; only that in temperature survives Holm's correction"
    ) in said
    assert "fuzziness: + in temperature, - in regulariser (not significant)" in said
    assert "all: |r| of vci less that of squared_distance is +0.109" in said
    assert "10 of 12 correlations differ from zero at 0.05" in said
    assert "Corrected for 12 tests (Holm), 7 do" in said
    assert "regulariser: n = 5 is thin evidence (one seed each" in said
    assert "p below 0.017. Of 95 % intervals" in said
    assert "all: n =" not in said


def test_comparisons_find_a_difference_and_no_difference():
    """A metric that is MLOG with less noise is stronger; a copy is neither."""
    rng = np.random.default_rng(11)
    y = rng.standard_normal(30)
    near, far = y + 0.1 * rng.standard_normal(30), -y + 2 * rng.standard_normal(30)
    runs = published.study()._replace(
        groups=["one"] * 30,
        settings=list(range(30)),
        metrics={"far": far, "copy": near.copy(), "near": near},
        accuracy=np.full(30, 0.5),
        mlog=y,
    )
    found = {one.other: one for one in correlation.compare(runs, "near", QUICK)}
    assert found["far"].interval.low > 0.2
    assert found["far"].value == pytest.approx(abs(pearson(near, y)) - abs(pearson(far, y)))
    assert found["copy"].value == 0
    assert [one.group for one in correlation.correlate(runs, QUICK)] == ["one"] * 3


@pytest.mark.parametrize("size", [2, 3, 4])
def test_too_few_runs_are_said(size):
    """Two points have no correlation worth the name, three and four no significant one."""
    whole = published.study()
    runs = whole._replace(
        groups=whole.groups[:size],
        settings=whole.settings[:size],
        metrics={"vci": whole.metrics["vci"][:size]},
        accuracy=whole.accuracy[:size],
        mlog=whole.mlog[:size],
    )
    found = correlation.correlate(runs, QUICK)
    said = "\n".join(conclusions.statements(found, correlation.compare(runs, "vci", QUICK), QUICK))
    if size == 2:
        assert "2 setting(s) in temperature have vci: a correlation takes three." in said
        assert "undefined" in tables.markdown(tables.correlations(found))
    else:
        assert f"n = {size} is thin evidence" in said
        assert "so that none can be significant" in said
        assert "not measured below n = 5" in said


def test_missing_metrics_leave_their_runs_out():
    runs = published.study()
    runs.metrics["vci"][[0, 6, 7, 8]] = np.nan
    found = {(c.group, c.metric): c for c in correlation.correlate(runs, QUICK)}
    assert found["temperature", "vci"].runs == 5
    assert not found["regulariser", "vci"].estimates
    assert found["regulariser", "fuzziness"].runs == 5
    assert found[ALL, "vci"].runs == 7


def test_a_plan_without_resamples_is_refused():
    with pytest.raises(ValueError, match="resamples is 10"):
        ResamplingPlan(resamples=10)
    with pytest.raises(ValueError, match="confidence 95"):
        ResamplingPlan(confidence=95)


def test_the_command_prints_and_draws(tmp_path, capsys):
    """From the published numbers alone: the tables, the verdicts, and figure 7 as PNG and SVG."""
    arguments = ["--published", "--out", str(tmp_path), "--resamples", "199"]
    assert correlate_command.main([*arguments, "--tables"]) == 0
    said = capsys.readouterr().out
    assert "| all         | VCI        | 11 | +0.956" in said
    assert "| regulariser | lambda 3 | 90.51 | 90.03" in said
    assert "| temperature | tau 1       | 15.93     | 2.829      | 0.4634    | 0.7960" in said
    assert {path.name for path in tmp_path.iterdir()} == {
        "figure7_transfer.png",
        "figure7_transfer.svg",
    }
    assert correlate_command.main([*arguments, "--latex"]) == 0
    said = capsys.readouterr().out
    assert r"\begin{tabular}{ll" in said
    assert "$+0.956$" in said


def test_nothing_is_drawn_where_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert correlate_command.main(["--published", "--resamples", "199"]) == 0
    assert not list(tmp_path.iterdir())


def test_mistakes_on_the_command_line(tmp_path, capsys):
    for arguments in ([], ["--published", "run"], [str(tmp_path / "nowhere")]):
        assert correlate_command.main(arguments) == 2
        assert "error: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("size", [6, 30])
def test_comparisons_err_as_often_as_verdicts_say(size):
    """Of two equally good metrics one in ten is called the stronger; 4 sigma of 1000."""
    rng, wrong, noise = np.random.default_rng(200 + size), [], math.sqrt(1 / 0.95**2 - 1)
    for seed in range(1000):
        y, a, b = rng.standard_normal((3, size))
        runs = published.study()._replace(
            groups=["one"] * size,
            settings=list(range(size)),
            metrics={"a": y + noise * a, "b": y + noise * b},
            mlog=y,
        )
        interval = correlation.compare(runs, "a", ResamplingPlan(resamples=499, seed=seed))[
            0
        ].interval
        wrong.append(not interval.low <= 0 <= interval.high)
    assert np.mean(wrong) == pytest.approx(0.105, abs=4 * math.sqrt(0.105 * 0.895 / 1000) + 0.005)
