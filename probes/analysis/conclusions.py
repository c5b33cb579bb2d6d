"""Conclusions from correlations, in sentences: signs, differences, and the limits of evidence.

The claims of Xu & Liu (2023), section 6, become three questions. Has a metric one sign in every
group, and is each of them established? Which correlations differ from zero, one by one and after
correcting for their number? Is one metric's correlation stronger than another's?
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from probes.analysis.cohorts import ALL
from probes.analysis.correlation import Correlation, CorrelationGap
from probes.analysis.resampling import ResamplingPlan
from probes.transfer import rounding
from vci_jax.interval import holm

# Fewer settings than this are reported as thin evidence.
_ENOUGH = 10

# Share of 95 % intervals of Pearson's r that held the true value, normal data with r = 0.95, 2000
# simulations of each size (tests/probes/test_correlate.py repeats them): BCa, permutation.
_COVERAGE = {5: (0.87, 0.97), 6: (0.93, 0.97), 11: (0.93, 0.96)}


# Normal data, two metrics with one true r = 0.95, 1000 simulations of 999 resamples at each of
# n = 5, 6, 11 and 30: 0.10 to 0.12 of the intervals of |r| - |r'| were without zero.
_ABOUT_COMPARISONS = (
    "These differences are easily taken for real: of metrics that are in truth equally good, with "
    "r = 0.95, one comparison in ten found a stronger one at 5 %, from n = 5 to n = 30."
)


class Signs(NamedTuple):
    """The sign of a metric's correlation in each group.

    Attributes:
      signs: +1, -1, or 0 within rounding of zero, by group; groups without a coefficient are
        omitted.
      significant: whether the permutation test rejects "no correlation", by group.
      surviving: whether it still rejects after Holm's correction, by group.
      tests: number of tests that Holm's correction is for.
    """

    metric: str
    signs: dict[str, int]
    significant: dict[str, bool]
    surviving: dict[str, bool]
    tests: int

    @property
    def consistent(self) -> bool:
        """Whether all groups have the same sign, which 0 is not."""
        return set(self.signs.values()) in ({1}, {-1})

    @property
    def established(self) -> bool:
        """Whether the answer of ``consistent`` is significant, without a correction.

        One sign in all groups needs every group to be significant; a change of sign needs one
        significant group of either sign.
        """
        significant_signs = {self.signs[group] for group in self.signs if self.significant[group]}
        if self.consistent:
            return all(self.significant.values())
        return len(significant_signs) == 2


def signs(correlations: Sequence[Correlation], plan: ResamplingPlan) -> list[Signs]:
    """Returns the signs of every metric in the groups; ``ALL`` is not among them."""
    tested, survivors = _holm(correlations, plan)
    by_metric: dict[str, list[Correlation]] = {}
    for each in tested:
        if each.group != ALL:
            by_metric.setdefault(each.metric, []).append(each)
    surviving = set(map(id, survivors))
    return [
        Signs(
            metric=metric,
            signs={each.group: rounding.sign(each.pearson.value) for each in members},
            significant={each.group: _rejects(each, plan) for each in members},
            surviving={each.group: id(each) in surviving for each in members},
            tests=len(tested),
        )
        for metric, members in by_metric.items()
    ]


def statements(
    correlations: Sequence[Correlation], comparisons: Sequence[CorrelationGap], plan: ResamplingPlan
) -> list[str]:
    """Returns every verdict as a sentence, the limits of the evidence last."""
    sentences = [_say_signs(each) for each in signs(correlations, plan) if len(each.signs) > 1]
    sentences += _say_tests(correlations, plan)
    sentences += [_say_comparison(gap) for gap in comparisons]
    if comparisons:
        sentences.append(_ABOUT_COMPARISONS)
    sentences += [warning for each in correlations for warning in each.warnings]
    largest = _largest_of_groups(correlations)
    sentences += [_say_thin(each, plan) for each in largest if _is_thin(each)]
    if any(each.group == ALL for each in correlations):
        sentences.append(
            "all: runs of different groups are taken as draws from one population, which they are "
            "not; the p-value over all runs says less than those within the groups."
        )
    sentences.append(
        "Within a group one knob moves the metrics and the transfer together, so that |r| near 1 "
        "says that both follow the knob; what tells metrics apart is the sign, and all runs."
    )
    return sentences


def _say_signs(verdicts: Signs) -> str:
    listing = ", ".join(
        f"{'0+-'[sign]} in {group}" + ("" if verdicts.significant[group] else " (not significant)")
        for group, sign in verdicts.signs.items()
    )
    if verdicts.consistent:
        verdict = "one sign in every group"
        established, open_ = "each significant by itself", "but not every one is significant"
    else:
        verdict = "the sign changes between groups"
        established, open_ = "significantly, each by itself", "but the change is not significant"
    evidence = established if verdicts.established else open_
    return f"{verdicts.metric}: {listing}: {verdict}, {evidence}{_say_survivors(verdicts)}."


def _say_survivors(verdicts: Signs) -> str:
    """Returns which significant correlations survive correction; "" if none is significant."""
    significant = [group for group, rejected in verdicts.significant.items() if rejected]
    surviving = [group for group in significant if verdicts.surviving[group]]
    if not significant:
        return ""
    correction = f"Holm's correction for {verdicts.tests} tests"
    if not surviving:
        return f"; none in {' or '.join(significant)} survives {correction}"
    only = "" if surviving == significant else "only "
    verb = "survives" if len(surviving) == 1 else "survive"
    return f"; {only}that in {' and that in '.join(surviving)} {verb} {correction}"


def _say_tests(correlations: Sequence[Correlation], plan: ResamplingPlan) -> list[str]:
    tested, survivors = _holm(correlations, plan)
    level = 1 - plan.confidence
    rejected = [each for each in tested if _rejects(each, plan)]
    return [
        f"{len(rejected)} of {len(tested)} correlations differ from zero at {level:.2g}, each by "
        f"itself: {_names(rejected)}.",
        f"Corrected for {len(tested)} tests (Holm), {len(survivors)} do: {_names(survivors)}.",
    ]


def _say_comparison(gap: CorrelationGap) -> str:
    interval = gap.interval
    start = f"{gap.group}: |r| of {gap.metric} less that of {gap.other} is {gap.value:+.3f}"
    if not math.isfinite(interval.low):
        return f"{start}; there is no interval."
    if interval.low <= 0 <= interval.high:
        verdict = "the two cannot be told apart"
    else:
        verdict = f"{gap.metric if gap.value > 0 else gap.other} is the stronger"
    return f"{start} (BCa {interval.low:+.3f} to {interval.high:+.3f}): {verdict}."


def _say_thin(correlation: Correlation, plan: ResamplingPlan) -> str:
    smallest = 2 / math.factorial(correlation.settings)
    seeds = (
        "one seed each, so that noise of the seed cannot be told from the effect"
        if correlation.runs == correlation.settings
        else f"{correlation.runs} runs"
    )
    sentence = (
        f"{correlation.group}: n = {correlation.settings} is thin evidence ({seeds}). "
        f"No permutation test can give p below {smallest:.2g}"
    )
    if not plan.rejects(smallest):
        sentence += ", so that none can be significant"
    size = max((size for size in _COVERAGE if size <= correlation.settings), default=None)
    if size is None:
        return f"{sentence}; how often the intervals hold the truth was not measured below n = 5."
    bca, permutation = _COVERAGE[size]
    return (
        f"{sentence}. Of 95 % intervals of simulated normal data with r = 0.95 and n = {size}, "
        f"{100 * bca:.0f} % (BCa) and {100 * permutation:.0f} % (permutation) held the truth; and "
        "points along a curve are not normal data."
    )


def _largest_of_groups(correlations: Sequence[Correlation]) -> list[Correlation]:
    """Returns the correlation with the most settings of each group."""
    groups: dict[str, list[Correlation]] = {}
    for each in correlations:
        groups.setdefault(each.group, []).append(each)
    return [max(members, key=lambda each: each.settings) for members in groups.values()]


def _is_thin(correlation: Correlation) -> bool:
    return _is_defined(correlation) and correlation.settings < _ENOUGH


def _is_defined(correlation: Correlation) -> bool:
    return bool(correlation.estimates) and math.isfinite(correlation.pearson.value)


def _holm(
    correlations: Sequence[Correlation], plan: ResamplingPlan
) -> tuple[list[Correlation], list[Correlation]]:
    """Returns the defined correlations, and those that differ from zero by Holm's correction."""
    tested = [each for each in correlations if _is_defined(each)]
    adjusted = holm(np.array([each.pearson.permutation.p_value for each in tested]))
    return tested, [each for each, p in zip(tested, adjusted, strict=True) if plan.rejects(p)]


def _rejects(correlation: Correlation, plan: ResamplingPlan) -> bool:
    return plan.rejects(correlation.pearson.permutation.p_value)


def _names(correlations: Sequence[Correlation]) -> str:
    return ", ".join(f"{each.metric} in {each.group}" for each in correlations) or "none"
