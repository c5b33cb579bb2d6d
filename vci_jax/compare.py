"""Comparison of two or more sets of features of the same samples, with intervals.

Sets that are made of the same samples share most of their noise: where an image is hard, it is so
for both networks. So their difference is taken block by block, and its error is far below that of
two independent samples. Known instances: the paired t-test, ``scipy.stats.ttest_rel``.

Legend: B blocks that the sets share, h_b = N / n_b, t the estimate from all data, t_b without
block b.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from vci_jax import _table, progress
from vci_jax._report import Report, as_json, check_options, finish
from vci_jax.catalogue import METRICS, ON_PRETRAINING, ON_TARGET
from vci_jax.errors import Caveat, VCIError, check_count, optional
from vci_jax.geometry import Weighting
from vci_jax.in_memory import deal
from vci_jax.interval import ESTIMATES, LeaveOneOut, holm
from vci_jax.moments import ClassMoments

_SHOWN = ("vci", "vci_adjusted", "vci_interval", "fuzziness")


class Difference(NamedTuple):
    """The difference of one metric between two sets of features of the same samples.

    Attributes:
      first: the name of a set.
      second: the name of the other.
      metric: a key of ``METRICS``.
      difference: first - second.
      low: the lower end of its interval.
      high: the upper end.
      p_value: of no difference, for this pair alone.
      p_holm: the same, corrected for all pairs of this metric (Holm 1979).
      apart: whether the two differ significantly, corrected for the number of pairs.
    """

    first: str
    second: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    apart: bool

    @property
    def verdict(self) -> str:
        """The result in words."""
        if math.isnan(self.p_value):
            return "undefined"
        if not self.apart:
            return "cannot be told apart"
        smaller = METRICS[self.metric].direction == "smaller"
        more = self.first if (self.difference < 0) == smaller else self.second
        return f"{more} is more collapsed"

    def to_dict(self) -> dict[str, Any]:
        """The same as a dictionary that JSON can hold, but for NaN."""
        values = {n: v for n, v in self._asdict().items() if n not in ("low", "high")}
        return values | {"interval": [self.low, self.high], "verdict": self.verdict}


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """Reports of sets of features by name, and the paired differences of all pairs of them."""

    reports: Mapping[str, Report]
    differences: tuple[Difference, ...]
    confidence: float

    def between(self, first: str, second: str, metric: str = "vci_adjusted") -> Difference:
        """Returns the difference of two sets, first minus second.

        Raises:
          VCIError: for sets or a metric that were not compared.
        """
        for entry in self.differences:
            if entry.metric == metric and entry[:2] == (first, second):
                return entry
            if entry.metric == metric and entry[:2] == (second, first):
                return entry._replace(first=first, second=second, difference=-entry.difference,
                                      low=-entry.high, high=-entry.low)  # fmt: skip
        metrics = ", ".join(dict.fromkeys(d.metric for d in self.differences))
        raise VCIError(
            f"{first!r} and {second!r} were not compared by {metric!r}; there are the sets "
            f"{', '.join(self.reports)} and the metrics {metrics}."
        )

    def __repr__(self) -> str:
        rows, caveats = self._sets()
        lines = [_table.summary(next(iter(self.reports.values()))), ""]
        lines += [f"  {line}" for line in _table.aligned([["set", *_SHOWN, ""], *rows])]
        title, pairs = self._pairs()
        lines += ["", f"  {title}", *(f"  {line}" for line in _table.aligned(pairs)), ""]
        lines += [line for note in self._notes() for line in _table.wrapped(note)]
        return "\n".join([*lines, *_table.footnotes(caveats)])

    def _repr_html_(self) -> str:
        rows, caveats = self._sets()
        title, pairs = self._pairs()
        sets = _table.html_table(["set", *_SHOWN, ""], rows, [])
        head = [title, f"difference, {100 * self.confidence:g} % interval", ""]
        return sets + _table.html_table(head, pairs, self._notes(), caveats)

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary: ``sets``, ``differences`` and ``confidence``."""
        return {
            "sets": {name: report.to_dict() for name, report in self.reports.items()},
            "differences": [entry.to_dict() for entry in self.differences],
            "confidence": self.confidence,
        }

    def to_json(self) -> str:
        """One JSON object on one line; undefined values are null."""
        return as_json(self.to_dict())

    def to_pandas(self) -> Any:
        """A ``DataFrame`` with a row for each difference.

        Raises:
          MissingPackageError: without pandas.
        """
        pandas = optional("pandas", "Comparison.to_pandas")
        return pandas.DataFrame([d._asdict() | {"verdict": d.verdict} for d in self.differences])

    def plot(self, ax: Any = None) -> Any:
        """Draws the adjusted VCI of each set with its interval; returns the axes of matplotlib.

        Raises:
          MissingPackageError: without matplotlib.
        """
        ax = optional("matplotlib.pyplot", "Comparison.plot").subplots()[1] if ax is None else ax
        for place, report in enumerate(self.reports.values()):
            ax.plot(report["vci_interval"], [place, place], color="C0")
            ax.plot(report["vci_adjusted"], place, "o", color="C0")
        ax.set_yticks(range(len(self.reports)), list(self.reports))
        for label in ax.get_yticklabels():
            label.set_parse_math(False)  # names are data, whatever stands in them
        ax.invert_yaxis()
        ax.set_xlabel(f"{METRICS['vci_adjusted'].title}, {100 * self.confidence:g} % interval")
        return ax

    def _sets(self) -> tuple[list[list[str]], list[Caveat]]:
        """A row for each set, and the caveats with the sets they are about."""
        about: dict[Caveat, list[str]] = {}
        for name, report in self.reports.items():
            for caveat in report.caveats:
                about.setdefault(caveat, []).append(name)
        order = list(about)
        rows = [
            [
                name,
                *(_table.number(report.get(key, math.nan)) for key in _SHOWN),
                "".join(f"[{order.index(caveat) + 1}]" for caveat in report.caveats),
            ]
            for name, report in self.reports.items()
        ]
        return rows, [
            c._replace(message=f"{', '.join(names)}: {c.message}") for c, names in about.items()
        ]

    def _pairs(self) -> tuple[str, list[list[str]]]:
        """A title and rows: of two sets all metrics, of more the first metric of all pairs."""
        shown, two = self.differences, len(self.reports) == 2
        if not two:
            shown = tuple(d for d in shown if d.metric == shown[0].metric)
        title = " - ".join(self.reports) if two else f"Differences of {shown[0].metric}"
        return title, [
            [
                d.metric if two else f"{d.first} - {d.second}",
                f"{d.difference:+.3g} {_table.number([d.low, d.high], 3)}",
                d.verdict,
            ]
            for d in shown
        ]

    def _notes(self) -> list[str]:
        notes = [f"{100 * self.confidence:g} % intervals of differences on the same samples."]
        pairs = math.comb(len(self.reports), 2)
        if pairs > 1:
            notes[0] += f" Verdicts hold for all {pairs} pairs together (Holm's correction)."
        return [*notes, ON_PRETRAINING, ON_TARGET]


def compare(
    sets: Mapping[str, Any],
    *,
    blocks: int = 16,
    metrics: Collection[str] | None = None,
    confidence: float = 0.95,
    weighting: Weighting = "sample",
) -> Comparison:
    """Compares sets of features of the same samples, with intervals of their differences.

    With u_b = h_b t - (h_b - 1) t_b of each set, over the root of what its own jackknife
    overstates (``adjusted.jackknife_inflation``), and d_b the difference of two sets' deviations
    u_b - mean u,

        se^2 = (1 / B) sum_b d_b^2 / (h_b - 1)

    and the interval is difference -+ q se, q the quantile of Student's t with B - 1 degrees of
    freedom. It is narrower than that of two samples by what the sets have in common;
    docs/error_bars.md has its coverage. Differences below the rounding of the moments count as
    none, so that an invertible map of the features changes nothing.

    Args:
      sets: by name, two or more of (features, labels), of moments with a leading axis of blocks, or
        of reports of such. They must hold the same samples in the same order.
      blocks: into how many blocks arrays are dealt, at least 2.
      metrics: names of those compared; by default all that estimate a quantity of the population,
        for reports the adjusted VCI.
      confidence: of each interval, and of the verdicts for all pairs of a metric together.
      weighting: see ``factorize``.

    Raises:
      VCIError: for fewer than two sets, sets that do not hold the same samples or were not made
        with blocks, unknown metrics, or anything ``measure_arrays`` refuses.

    Example:
      >>> import numpy as np, vci_jax
      >>> rng = np.random.default_rng(0)
      >>> labels = np.arange(400) % 4
      >>> features = np.eye(4)[labels] + 0.3 * rng.normal(size=(400, 4))
      >>> noisy = features + 0.3 * rng.normal(size=(400, 4))
      >>> found = vci_jax.compare({"clean": (features, labels), "noisy": (noisy, labels)})
      >>> found.between("clean", "noisy").verdict
      'clean is more collapsed'
      >>> turned = features @ np.array([[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]])
      >>> found = vci_jax.compare({"a": (features, labels), "b": (turned, labels)})
      >>> found.between("a", "b").verdict
      'cannot be told apart'

    Reference:
      Tukey (1958); Busing, Meijer & van der Leeden (1999), for unequal blocks; Holm (1979).
    """
    if not isinstance(sets, Mapping) or len(sets) < 2:
        raise VCIError('compare takes two or more sets by name: {"a": (features, labels), ...}.')
    check_count("blocks", blocks)
    check_options(weighting, metrics, blocks, confidence)
    named = {str(name): given for name, given in sets.items()}
    if len(named) < len(sets):
        raise VCIError(f"two sets have the same name: {', '.join(map(str, sets))}.")
    reports: dict[str, Report] = {}
    labels: dict[str, np.ndarray] = {}
    for name, given in named.items():
        try:
            reports[name] = _read(given, name, labels, blocks, confidence, weighting)
        except VCIError as error:
            raise VCIError(f"{name}: {error}") from None
    states = {name: _blocks_of(report, name) for name, report in reports.items()}
    _check_same(reports, states, labels)
    common = [n for n in ESTIMATES if all(n in state.whole for state in states.values())]
    wanted = common if metrics is None else list(metrics)
    if unknown := sorted(set(wanted) - set(common)):
        raise VCIError(f"These sets cannot be compared by {unknown}; by {', '.join(common)}.")
    differences = itertools.chain.from_iterable(
        paired_differences(states, metric, confidence) for metric in wanted
    )
    return Comparison(reports, tuple(differences), confidence)


def _read(
    given: Any,
    name: str,
    labels: dict[str, np.ndarray],
    blocks: int,
    confidence: float,
    weighting: Weighting,
) -> Report:
    """Returns the report of a set; adds the classes of its rows to ``labels`` if known."""
    if isinstance(given, Report):
        return given
    if not isinstance(given, ClassMoments):
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise VCIError(
                f"got {type(given).__name__}: pass (features, labels), e.g. of "
                "vci_jax.read_features(path), moments with a leading axis of blocks, or a report "
                "of such."
            )
        if blocks < 2:
            raise VCIError(f"blocks must be at least 2 for an interval, got {blocks}.")
        features, classes = given
        progress.about(name)
        given, _, labels[name] = deal(features, classes, blocks, weighting)
    return finish(given, weighting=weighting, confidence=confidence, estimates=tuple(ESTIMATES))


def _blocks_of(report: Report, name: str) -> LeaveOneOut:
    if report.jackknife is None or len(report.jackknife.counts) < 2:
        raise VCIError(
            f"{name} was measured in one block, which gives no interval: keep 10 blocks or more, "
            "e.g. with blocks=16."
        )
    return report.jackknife


def _check_same(
    reports: Mapping[str, Report],
    states: Mapping[str, LeaveOneOut],
    labels: Mapping[str, np.ndarray],
) -> None:
    """Refuses sets that cannot hold the same samples in the same order."""
    for (a, first), (b, second) in itertools.pairwise(labels.items()):
        if len(first) != len(second) or np.any(first != second):
            row = np.flatnonzero(first[: len(second)] != second[: len(first)])
            where = f"from row {row[0]} on" if row.size else f"{len(first)} and {len(second)} rows"
            raise VCIError(
                f"{a} and {b} have other labels ({where}): compare features of the same samples in "
                "the same order."
            )
    for (a, state), (b, other) in itertools.pairwise(states.items()):
        if not np.array_equal(state.counts, other.counts):
            raise VCIError(
                f"The blocks of {a} and {b} do not hold the same samples: {len(state.counts)} "
                f"blocks of {state.counts.sum(axis=1)[:3].tolist()} ... and {len(other.counts)} of "
                f"{other.counts.sum(axis=1)[:3].tolist()} ... samples, or other classes. Measure "
                "the same rows in the same order and the same blocks."
            )
        if reports[a]["weighting"] != reports[b]["weighting"]:
            raise VCIError(f"{a} and {b} have other weightings: measure both with the same.")


def paired_differences(
    states: Mapping[str, LeaveOneOut], metric: str, confidence: float
) -> list[Difference]:
    """All pairs of one metric, a family for Holm's correction."""
    deviations = {name: state.pseudo_deviations(metric) for name, state in states.items()}
    rows = []
    for (a, first), (b, second) in itertools.combinations(states.items(), 2):
        x, y, ratios = first.whole[metric], second.whole[metric], first.ratios
        square = np.mean((deviations[a] - deviations[b]) ** 2 / (ratios - 1))
        # Below the root of the roundoff a difference is none, nor is its error.
        eps = max(first.data_eps, second.data_eps)
        error = max(math.sqrt(square), math.sqrt(eps) * max(abs(x), abs(y)))
        freedom = len(ratios) - 1
        reach = float(stdtrit(freedom, (1 + confidence) / 2)) * error
        p_value = 1.0 if x == y else 2 * float(stdtr(freedom, -abs(x - y) / error))
        p_value = p_value if math.isfinite(error) else math.nan
        rows.append(Difference(a, b, metric, x - y, x - y - reach, x - y + reach,
                               p_value, math.nan, False))  # fmt: skip
    corrected = holm(np.array([row.p_value for row in rows])).tolist()
    return [
        row._replace(p_holm=p, apart=bool(p < 1 - confidence))
        for row, p in zip(rows, corrected, strict=True)
    ]
