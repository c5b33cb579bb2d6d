"""A short run of the exact oracle: random cases of every kind against rational arithmetic.

``python -m tools.oracle --cases 20000`` is the long one.
"""

import collections
import math

import numpy as np
import pytest

pytest.importorskip("flint", reason="needs python-flint, exact rational arithmetic")

from tools import oracle, oracle_cases, oracle_exact, oracle_verdict
from vci_jax import conformance

# Of one width, for which few programs are compiled.
SHORT = [seed for seed in range(500) if oracle_cases.draw(seed).features.shape[1] == 4][:80]
LONG = range(1000, 1400)


@pytest.fixture(scope="module")
def short():
    return oracle.run(SHORT)


def faults(tally):
    return "\n".join(["", *oracle.examples(tally), *oracle.summary(tally)])


def test_nothing_is_silently_wrong(short):
    """Every number is right, missing, or named by a caveat; no invariant is broken."""
    assert short.silent == 0, faults(short)
    assert not short.broken, faults(short)


def test_easy_cases_are_right_without_a_word(short):
    """Where nothing is ill-conditioned, neither errors nor caveats: they would be of no use."""
    easy = collections.Counter()
    for (_, verdict), count in short.easy.items():
        easy[verdict] += count
    assert sum(easy.values()) >= 15
    assert easy[oracle_verdict.OK] == sum(easy.values()), dict(easy)


@pytest.mark.slow
def test_nothing_is_silently_wrong_in_a_long_run():
    """The same for a few hundred other cases."""
    tally = oracle.run(LONG)
    assert tally.silent == 0, faults(tally)
    assert not tally.broken, faults(tally)


def test_short_run_covers_every_kind_and_cut():
    """All kinds, dtypes, weightings, routes and batches of one row occur in the short run."""
    cases = [oracle_cases.draw(seed) for seed in SHORT]
    kinds = {kind for case in cases for kind in case.kinds}
    assert {kind.name for kind in oracle_cases.KINDS} <= kinds
    assert {"plain", "integer rows", "float16 rows", "narrowed"} <= kinds
    assert {case.state for case in cases} == {"float32", "float64"}
    assert {case.weighting for case in cases} == {"sample", "class"}
    assert {case.route for case in cases} == {"update", "merge", "merge_axis"}
    widths = {oracle_cases.draw(seed).features.shape[1] for seed in range(40)}
    assert widths == set(oracle_cases.DIMS)
    assert any(len(batch) == 1 for case in cases for batch in case.batches)
    for case in cases:
        rows = np.concatenate(case.batches)
        assert sorted(rows) == list(range(len(case.labels)))
        assert np.all(np.isfinite(case.features.astype(float)))


MENDED = [
    1962, 3294, 40546, 41317, 41360, 41600, 50691, 51262, 51383, 51696, 53113, 52163, 52225, 61734,
    61161, 61358, 62217, 119201, 119957, 119216]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", MENDED)
def test_what_was_once_wrong_in_silence_is_not(seed):
    """Each was the first of its kind: see the log of the code that it made better."""
    found = oracle.judge(oracle_cases.draw(seed)).findings
    assert [one.metric for one in found if one.verdict == oracle.SILENT] == []


def test_a_seed_is_a_case():
    """The reproducer of a report gives the same bits again."""
    one, two = oracle_cases.draw(7), oracle_cases.draw(7)
    assert one.features.tobytes() == two.features.tobytes()
    assert one.kinds == two.kinds
    assert oracle_cases.describe(one) == oracle_cases.describe(two)


@pytest.mark.parametrize("weighting", ["sample", "class"])
def test_oracle_agrees_with_the_golden_values(weighting):
    """Two exact programs, by different methods, give the same 15 digits."""
    compared = 0
    for case in conformance.cases():
        rows = case.labels >= 0
        found, _, _ = oracle_exact.metrics(case.features[rows], case.labels[rows], weighting)
        for metric in conformance.METRICS:
            expected = case.value(metric, weighting)
            if expected is None or metric not in found:
                continue
            got = math.nan if found[metric] is None else found[metric]
            assert got == pytest.approx(expected, rel=1e-14, abs=1e-40, nan_ok=True), (
                case.name, metric)  # fmt: skip
            compared += 1
    assert compared > 300


@pytest.mark.parametrize(
    ("expected", "got", "doubted", "scale", "verdict"),
    [
        (1e-9, 1e-9 * (1 + 1e-9), False, 0.0, oracle_verdict.OK),
        (1e-9, 1e-9 * (1 + 1e-7), False, 0.0, oracle_verdict.SILENT),
        (1e-9, 1e-9 * (1 + 1e-7), True, 0.0, oracle_verdict.CAVEAT),
        (1e-9, 2e-9, False, 1.0, oracle_verdict.OK),
        (0.5, math.nan, False, 0.0, oracle_verdict.NAN),
        (0.5, math.inf, False, 0.0, oracle_verdict.SILENT),
        (math.inf, math.inf, False, 0.0, oracle_verdict.OK),
        (None, math.nan, False, 0.0, oracle_verdict.OK),
        (None, 0.5, False, 0.0, oracle_verdict.SILENT),
        (0.0, 1e-9, False, 0.0, oracle_verdict.OK),
        (0.0, 1e-7, False, 0.0, oracle_verdict.SILENT),
    ],
)
def test_verdicts(expected, got, doubted, scale, verdict):
    """What counts as right, missing, doubtful and silently wrong."""
    found = oracle_verdict.compare("vci", doubted, expected, got, 1e-8, scale)
    assert found.verdict == verdict


def test_a_wrong_number_is_found(monkeypatch):
    """A metric that is off by a millionth is a silent error, with a command that shows it."""
    measure = oracle_verdict.measure

    def wrong(case):
        measured = measure(case)
        off = measured.values["squared_distance"] * (1 + 1e-6)
        return measured._replace(values=measured.values | {"squared_distance": off})

    monkeypatch.setattr(oracle_verdict, "measure", wrong)
    seed = next(s for s in SHORT if (c := oracle_cases.draw(s)).state == "float64"
                and oracle_verdict.easy(c))  # fmt: skip
    tally = oracle.run([seed])
    found = {metric for metric, *_ in tally.examples}
    assert "squared_distance" in found
    assert any(f"--case {seed}" in line for line in oracle.examples(tally))


def test_command_prints_tables_and_says_what_failed(monkeypatch, capsys):
    """Exit code 1 for a silent error, 0 for none; every table is printed."""
    case = oracle_cases.draw(0)
    bad = oracle_verdict.Finding("vci", oracle_verdict.SILENT, False, 0.5, 0.75)
    good = oracle_verdict.Finding("vci", oracle_verdict.OK, True, 0.5, 0.5)
    for finding, code in ((bad, 1), (good, 0)):
        outcome = oracle_verdict.Outcome(case, True, [finding], [], [])
        monkeypatch.setattr(oracle, "judge", lambda case, outcome=outcome: outcome)
        assert oracle.main(["--cases", "2"]) == code
        shown = capsys.readouterr().out
        assert "needless" in shown
        assert f"{2 * code} silent errors" in shown
    broken = oracle_verdict.Outcome(case, True, [good], ["vci is at most 1"], [])
    monkeypatch.setattr(oracle, "judge", lambda case: broken)
    assert oracle.main(["--cases", "1"]) == 1
    assert "broken 1 times: vci is at most 1" in capsys.readouterr().out
