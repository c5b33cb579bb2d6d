"""Correlation of metrics with transfer over groups of runs: its strength, certainty and sign.

A few points need more than a coefficient: intervals of two kinds, an exact test, values without
each setting, the partial correlation given the pretraining accuracy, and the sign in every group.
The sign is the claim of the paper: within a group one hyperparameter moves the metrics and the
transfer together, so that |r| is near 1 for almost any metric, and only the sign shows whether a
metric orders networks that were trained differently.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from probes.analysis import coefficients, resampling
from probes.analysis.coefficients import COEFFICIENTS, Coefficient
from probes.analysis.cohorts import Study
from probes.analysis.resampling import Interval, Permutation, ResamplingPlan
from probes.transfer import rounding


class Estimate(NamedTuple):
    """One coefficient.

    Attributes:
      value: coefficient of the settings' means.
      bootstrap: BCa interval, over settings and seeds.
      permutation: the test of no association, and the interval that inverts it.
      leave_one_out: smallest and largest value without one setting.
    """

    value: float
    bootstrap: Interval
    permutation: Permutation
    leave_one_out: tuple[float, float]


class Correlation(NamedTuple):
    """A metric against MLOG in a group.

    Attributes:
      group: the name of the group, or ``cohorts.ALL``.
      runs: number of runs that have the metric.
      settings: number of settings of these runs.
      estimates: estimates by the names of ``coefficients.COEFFICIENTS``.
      partial: Pearson's correlation given the log odds of the pretraining accuracy, and its
        two-sided p-value by Student's t; NaN below four settings.
      seeds: interval of Pearson's coefficient if the same settings were trained with new seeds;
        NaN where every setting has one seed.
      warnings: sentences.
    """

    metric: str
    group: str
    runs: int
    settings: int
    estimates: dict[str, Estimate]
    partial: tuple[float, float]
    seeds: Interval
    warnings: list[str]

    @property
    def pearson(self) -> Estimate:
        """The estimate that the paper gives."""
        return self.estimates["pearson"]


class CorrelationGap(NamedTuple):
    """The difference |r| - |r'| of two metrics' correlations in a group.

    Resamples keep the signs of the sample: a bootstrap fails at the kink of |r| at 0.
    """

    metric: str
    other: str
    group: str
    value: float
    interval: Interval


def correlate(study: Study, plan: ResamplingPlan) -> list[Correlation]:
    """Returns every metric against MLOG in every group, and over all runs of several groups."""
    mlog, log_odds, settings = study.mlog, study.log_odds(), np.array(study.settings)
    correlations = []
    for group, rows in study.members().items():
        for metric, values in study.metrics.items():
            defined = rows[np.isfinite(values[rows])]
            samples = [sample[defined] for sample in (values, mlog, log_odds)]
            correlations.append(_correlation(metric, group, samples, settings[defined], plan))
    return correlations


def compare(study: Study, metric: str, plan: ResamplingPlan) -> list[CorrelationGap]:
    """Returns the difference of |r| between a metric and each other metric, in every group.

    The same resamples serve both, so what is common to the two metrics cancels.
    """
    mlog, settings = study.mlog, np.array(study.settings)
    gaps = []
    for group, rows in study.members().items():
        for other in study.metrics:
            pair = [study.metrics[name] for name in (metric, other)]
            defined = rows[np.all(np.isfinite(pair), axis=0)[rows]]
            if other == metric or len(set(settings[defined])) < 3:
                continue
            samples = [*(values[defined] for values in pair), mlog[defined]]
            gap = _gap(samples, settings[defined], plan)
            gaps.append(CorrelationGap(metric, other, group, *gap))
    return gaps


def partial(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> tuple[float, float]:
    """Returns Pearson's correlation of x and y given a third sample, and its p-value.

    It is the correlation of the residuals of two least-squares lines, tested by Student's t with
    S - 3 degrees of freedom. NaN below four settings, where the third sample is constant, and where
    x or y is a linear function of it to six digits.
    """
    if len(x) < 4:
        return math.nan, math.nan
    r = float(coefficients.pearson(*(_residuals(sample, given) for sample in (x, y))))
    freedom = len(x) - 3
    t = r * math.sqrt(freedom / max(1 - r * r, 1e-300))
    return r, 2 * float(stats.t.sf(abs(t), freedom))


def _residuals(sample: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Returns the residuals of a least-squares line; zeros where fewer than six digits are left.

    The unit of a sample may cost four of its sixteen digits, see ``rounding.SHARE``.
    """
    sample, given = coefficients.centred(sample), coefficients.centred(given)
    square = np.sum(given * given)
    rest = sample - np.sum(sample * given) / square * given if square > 0 else np.zeros_like(sample)
    return np.where(np.max(np.abs(rest)) > 1e-6, rest, 0.0)


def _gap(
    samples: list[np.ndarray], settings: np.ndarray, plan: ResamplingPlan
) -> tuple[float, Interval]:
    whole = [resampling.means(sample, settings) for sample in samples]
    signs = [rounding.sign(float(coefficients.pearson(mean, whole[-1]))) for mean in whole[:-1]]

    def gap(x: np.ndarray, other: np.ndarray, y: np.ndarray) -> np.ndarray:
        first, second = coefficients.pearson(x, y), coefficients.pearson(other, y)
        return rounding.snap(signs[0] * first - signs[1] * second, 0.0)

    return float(gap(*whole)), resampling.bootstrap(gap, samples, settings, plan)


def _correlation(
    metric: str, group: str, samples: list[np.ndarray], settings: np.ndarray, plan: ResamplingPlan
) -> Correlation:
    """Returns the correlation of the first two samples, partial given the third."""
    x, y, _ = samples
    size, several = len(set(settings)), len(set(settings)) < len(settings)
    no_interval = Interval(math.nan, math.nan, math.nan)
    if size < 3:
        warnings = [f"{size} setting(s) in {group} have {metric}: a correlation takes three."]
        undefined = (math.nan, math.nan)
        return Correlation(metric, group, len(x), size, {}, undefined, no_interval, warnings)
    averages = [resampling.means(sample, settings) for sample in samples]
    return Correlation(
        metric=metric,
        group=group,
        runs=len(x),
        settings=size,
        estimates={
            name: _estimate(coefficient, x, y, settings, plan)
            for name, coefficient in COEFFICIENTS.items()
        },
        partial=partial(*averages),
        seeds=resampling.bootstrap(coefficients.pearson, (x, y), settings, plan, seeds_only=True)
        if several
        else no_interval,
        warnings=[],
    )


def _estimate(
    coefficient: Coefficient,
    x: np.ndarray,
    y: np.ndarray,
    settings: np.ndarray,
    plan: ResamplingPlan,
) -> Estimate:
    whole = [resampling.means(sample, settings) for sample in (x, y)]
    without = coefficient(*(resampling.without_each(sample) for sample in whole))
    return Estimate(
        value=float(coefficient(*whole)),
        bootstrap=resampling.bootstrap(coefficient, (x, y), settings, plan),
        permutation=resampling.permute(coefficient, whole[0], whole[1], plan),
        leave_one_out=(float(np.min(without)), float(np.max(without))),
    )
