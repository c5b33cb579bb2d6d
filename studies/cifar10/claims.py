"""The paper's statements, one by one, held against the runs: a verdict and the numbers behind it.

A verdict takes a test at 5 %. A statement is confirmed if the result is significant for it,
contradicted if it is significant against it, and not decidable if it is not significant.

A statement about single runs takes the exact sign test of the runs in which it holds; runs in which
nothing changes are in neither count. One about how a setting moves a quantity takes Spearman's
correlation and its exact permutation test. Runs of two seeds count as one setting, by their mean.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from probes.analysis import coefficients, cohorts, conclusions, correlation, resampling
from probes.analysis.cohorts import ALL, METRICS, Study
from probes.analysis.correlation import Correlation
from probes.analysis.resampling import Plan
from probes.analysis.runs import Row, Run
from probes.transfer import odds, rounding
from studies.cifar10.records import Evidence

CONFIRMED, REFUTED, OPEN = "confirmed", "contradicted", "not decidable"
PLAN = Plan(confidence=0.95)

# Which way each metric moves as features collapse.
COLLAPSE = {"fuzziness": -1, "squared_distance": -1, "cosine_similarity": 1, "vci": -1}
TITLES = {
    "fuzziness": "Fuzziness",
    "squared_distance": "squared distance",
    "cosine_similarity": "cosine similarity",
    "vci": "VCI",
}


class Claim(NamedTuple):
    """A statement of the paper and what became of it."""

    exhibit: str
    statement: str
    verdict: str
    numbers: str


def all_claims(evidence: Evidence, compared: Study, found: list[Correlation]) -> list[Claim]:
    """Returns every claim, in the order of the paper.

    Args:
      evidence: all runs.
      compared: those of the two groups.
      found: the correlations of those.
    """
    return [
        *_of_single_runs(evidence.runs),
        *_of_the_settings(evidence),
        *_of_transfer(compared, found),
    ]


def change(run: Run, metric: str, split: str) -> tuple[float, float]:
    """Returns a metric at the first pass after training began, and at the last."""
    rows = [row for row in run.rows if row["split"] == split and row["epoch"] > 0]
    return rows[0][metric], rows[-1][metric]


def _of_single_runs(runs: Sequence[Run]) -> list[Claim]:
    def moves(metric: str, sign: int, split: str = "train") -> list[bool | None]:
        return [_moves(*change(run, metric, split), sign) for run in runs]

    def parts(metric: str) -> str:
        ratios = [last / first for first, last in (change(run, metric, "train") for run in runs)]
        return f"{_range(ratios)} times its first value"

    claims = [
        _counted(
            "Figure 1",
            "Within-class variability inside C(Σ_B) falls over training",
            moves("within_between_part", -1),
            parts("within_between_part"),
        ),
        _counted(
            "Figure 1",
            "Within-class variability beside C(Σ_B) rises",
            moves("within_orthogonal_part", 1),
            parts("within_orthogonal_part"),
        ),
        _inside(runs),
        _gentler(runs),
    ]
    for split, exhibit in (("train", "Figure 3"), ("test", "Figures 6, 8")):
        for metric, sign in COLLAPSE.items():
            pairs = [change(run, metric, split) for run in runs]
            medians = np.median(pairs, axis=0)
            claims.append(
                _counted(
                    exhibit,
                    f"By {TITLES[metric]} the {split} features collapse over training",
                    moves(metric, sign, split),
                    f"median {medians[0]:.3g} to {medians[1]:.3g}",
                )
            )
    return claims


def _inside(runs: Sequence[Run]) -> Claim:
    """Figure 1 without the scale of the features, which grows while they are trained."""

    def share(run: Run) -> tuple[float, float]:
        inside, beside = (
            change(run, f"within_{part}_part", "train") for part in ("between", "orthogonal")
        )
        first, last = (a / (a + b) for a, b in zip(inside, beside, strict=True))
        return first, last

    shares = [share(run) for run in runs]
    medians = np.median(shares, axis=0)
    return _counted(
        "Figure 1, without scale",
        "The share of the within-class variability that lies inside C(Σ_B) falls",
        [_moves(first, last, -1) for first, last in shares],
        f"median {medians[0]:.2f} to {medians[1]:.2f}",
    )


def _gentler(runs: Sequence[Run]) -> Claim:
    """Of both spectra: how small the last eigenvalue of Sigma_B's rank is beside the first."""

    def decay(run: Run, name: str) -> float:
        values: list[float] = run.last("train")["spectrum"][name]
        return values[run.last("train")["between_rank"] - 1] / values[0]

    total, between = ([decay(run, name) for run in runs] for name in ("total", "between"))
    return _counted(
        "Figure 2",
        "The eigenvalues of Σ_T decay more gently than those of Σ_B",
        [_moves(b, t, 1) for t, b in zip(total, between, strict=True)],
        f"of the first eigenvalue, the ninth is {_range(total)} (Σ_T) and {_range(between)} (Σ_B)",
    )


def _of_the_settings(evidence: Evidence) -> list[Claim]:
    """What a knob of the loss moves, and which way."""
    cold, strong = ("temperature", "Table 2, rows 1-6"), ("cosine", "Table 2, rows 7-11")
    similarity, vci = _last("cosine_similarity"), _last("vci")
    statements: list[tuple[tuple[str, str], str, Callable[[Run], float], int]] = [
        (cold, "A lower temperature leaves features less collapsed (VCI)", vci, -1),
        (cold, "A lower temperature transfers better (MLOG)", _mlog, -1),
        (cold, "A lower temperature costs pretraining accuracy", _accuracy, 1),
        (
            strong,
            "A stronger regulariser lowers the cosine similarity",
            similarity,
            -1,
        ),
        (strong, "A stronger regulariser collapses the features (VCI)", vci, -1),
        (strong, "A stronger regulariser transfers worse (MLOG)", _mlog, -1),
    ]
    groups = {"temperature": evidence.of("temperature"), "cosine": evidence.of("regulariser")}
    return [
        _monotone(exhibit, said, groups[field].runs, _setting(field), outcome, sign)
        for (field, exhibit), said, outcome, sign in statements
    ]


def _setting(field: str) -> Callable[[Run], float]:
    return lambda run: float(run.config["loss"][field])


def _of_transfer(compared: Study, found: list[Correlation]) -> list[Claim]:
    vci = {one.group: one for one in found if one.metric == "vci"}
    claims = [
        _positive("Figure 7", f"VCI rises with MLOG, {group}", one) for group, one in vci.items()
    ]
    signs = {one.metric: one for one in conclusions.signs(found, PLAN)}
    kept = [TITLES[name] for name, one in signs.items() if one.consistent]
    lost = [name for name, one in signs.items() if not one.consistent and one.established]
    listing = "; ".join(
        f"{TITLES[name]} "
        + ", ".join(
            f"{'0+-'[sign]} in {group}{'' if one.significant[group] else ' (n.s.)'}"
            for group, sign in one.signs.items()
        )
        for name, one in signs.items()
    )
    others = [one.consistent and one.established for m, one in signs.items() if m != "vci"]
    ours = signs["vci"]
    if ours.consistent and ours.established and len(lost) == len(METRICS) - 1:
        verdict = CONFIRMED
    elif (ours.established and not ours.consistent) or any(others):
        verdict = REFUTED
    else:
        verdict = OPEN
    only = f"one sign: {', '.join(kept) or 'none'}; {listing}"
    claims.append(Claim("Figure 7", "Only VCI keeps its sign over the groups", verdict, only))
    comparisons = [one for one in correlation.compare(compared, "vci", PLAN) if one.group == ALL]
    stronger = [one.interval.low > 0 for one in comparisons]
    weaker = [one.interval.high < 0 for one in comparisons]
    listing = "; ".join(
        f"than {TITLES[one.other]} {one.value:+.3f} [{one.interval.low:+.3f}, "
        f"{one.interval.high:+.3f}]"
        for one in comparisons
    )
    verdict = CONFIRMED if all(stronger) else REFUTED if any(weaker) else OPEN
    claims.append(
        Claim("Table 2", "VCI has the strongest correlation over all runs", verdict, listing)
    )
    return claims


def _moves(first: float, last: float, sign: int) -> bool | None:
    """Whether a number moves as said; None if it does not move but for rounding."""
    first, last = rounding.level(np.array([first, last]))
    return None if first == last else bool(sign * (last - first) > 0)


def _counted(exhibit: str, statement: str, holds: Sequence[bool | None], numbers: str) -> Claim:
    decided = [one for one in holds if one is not None]
    count, size = sum(decided), len(decided)
    p = float(stats.binomtest(count, size).pvalue) if size else 1.0
    verdict = _verdict(p, 2 * count - size)
    return Claim(exhibit, statement, verdict, f"{count} of {size} runs ({_p(p)}); {numbers}")


def _verdict(p_value: float, direction: float) -> str:
    """Returns what a test says of a statement; the result is for it if ``direction`` > 0."""
    if not PLAN.rejects(p_value):
        return OPEN
    return CONFIRMED if direction > 0 else REFUTED


def _monotone(
    exhibit: str,
    statement: str,
    runs: Sequence[Run],
    knob: Callable[[Run], float],
    outcome: Callable[[Run], float],
    sign: int,
) -> Claim:
    """Whether an outcome moves with a knob; of several seeds the means count."""
    values: dict[float, list[float]] = {}
    for run in runs:
        values.setdefault(knob(run), []).append(outcome(run))
    x = np.array(sorted(values))
    y = np.array([np.mean(values[key]) for key in sorted(values)])
    if len(x) < 3:
        return Claim(exhibit, statement, OPEN, f"{len(x)} settings")
    test = resampling.permute(coefficients.spearman, x, y, PLAN)
    rho = float(coefficients.spearman(x, y))
    verdict = _verdict(test.p_value, rho * sign)
    ends = f"{y[0]:.4g} at {x[0]:g}, {y[-1]:.4g} at {x[-1]:g}"
    return Claim(
        exhibit,
        statement,
        verdict,
        f"Spearman {rho:+.2f} over {len(x)} settings ({_p(test.p_value)}); {ends}",
    )


def _positive(exhibit: str, statement: str, one: Correlation) -> Claim:
    if not one.estimates:
        return Claim(exhibit, statement, OPEN, f"{one.settings} settings")
    estimate = one.pearson
    test = estimate.permutation
    verdict = _verdict(test.p_value, estimate.value)
    interval = f" [{test.low:+.3f}, {test.high:+.3f}]" if math.isfinite(test.low) else ""
    return Claim(
        exhibit,
        statement,
        verdict,
        f"r = {estimate.value:+.3f}{interval}, {_p(test.p_value)}, n = {one.settings}",
    )


def _last(metric: str) -> Callable[[Run], float]:
    return lambda run: float(run.last("train")[metric])


def _accuracy(run: Run) -> float:
    return float(run.last("test")["accuracy"])


def _mlog(run: Run) -> float:
    scores, accuracy, _ = cohorts.shares(run)
    return odds.mlog(list(scores.values()), accuracy)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2g} to {max(values):.2g}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 1e-3 else f"p = {value:.3f}"


def layers(row: Row) -> dict[str, Row]:
    """Returns the metrics of every depth of a row, the features last."""
    return {**row["layers"], "features": row}
