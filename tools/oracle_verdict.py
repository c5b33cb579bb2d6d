"""The verdict on every value: right, missing, said to be doubtful, or silently wrong.

Legend: K classes, D dimensions, sd the standard deviation within classes.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tools import oracle_exact
from tools.oracle_cases import Case
from tools.oracle_measure import concerned, is_nan, measure

OK, NAN, CAVEAT, SILENT = "ok", "NaN", "caveat", "silent"
VERDICTS = (OK, NAN, CAVEAT, SILENT)
TOLERANCE = {"float64": 1e-8, "float32": 1e-3}

# These caveats are about the sample or the data, not about digits: they excuse no wrong number.
STATISTICAL = frozenset(
    {
        "small_sample",
        "too_few_samples",
        "noisy_means",
        "unchecked_size",
        "unequal_classes",
        "few_directions",
        "label_out_of_range",
        "non_finite",
        "one_class",
        "no_variance",
        "class_counts",
    }
)

# Metrics whose smallness says nothing: an error counts in units of one. The others are compared
# relative to the truth, however small: 1e-9 and 1e-12 are different collapses.
UNIT_SCALE = frozenset(
    {
        "cosine_similarity",
        "class_separation",
        "h_score",
        "h_score_adjusted",
        "shrinkage_h_score",
        "logme",
        "equinorm",
        "equiangularity",
        "etf_error",
        "self_duality",
    }
)

TRACE = frozenset({"vci", "vci_adjusted", "probe_mse", "probe_mse_adjusted", "h_score",
                   "h_score_adjusted"})  # fmt: skip
OF_BETWEEN = frozenset({"fuzziness", "within_between_part", "within_orthogonal_part"})

# Of which metric of the report a caveat must speak to concern an entry of per_class.
PER_CLASS = {
    "variance": "squared_distance",
    "distance": "squared_distance",
    "squared_distance": "squared_distance",
    "cosine_similarity": "cosine_similarity",
    "nearest": "cdnv",
    "nearest_cdnv": "cdnv",
}


class Finding(NamedTuple):
    """One value of one case with its verdict; ``doubted`` says that a caveat names the metric."""

    metric: str
    verdict: str
    doubted: bool
    expected: float
    got: float


class Outcome(NamedTuple):
    """All findings of one case, and whether the case is an easy one."""

    case: Case
    easy: bool
    findings: list[Finding]
    broken: list[str]  # invariants
    caveats: list[dict[str, Any]]


def judge(case: Case) -> Outcome:
    """Measures one case with ``vci_jax``, computes it exactly, and compares."""
    pooled = not case.counted
    values, spectrum, data = oracle_exact.metrics(
        case.features, case.labels, case.weighting, case.kernel, pooled
    )
    got, lists, report, only = measure(case)
    named = concerned(report, STATISTICAL)
    named_by = {
        "": named,
        "collapse_metrics": named | _cut_on_device(got),
        "only": concerned(only, STATISTICAL),
    }
    findings = [
        _finding(case, name, values, value, named_by[name.rpartition(".")[0]], data)
        for name, value in got.items()
        if name.rpartition(".")[2] in values
    ]
    findings += _ranks(got, data, named)
    findings += _lists(case, lists, spectrum, data, named)
    return Outcome(case, easy(case), findings, broken_laws(got, data), report["caveats"])


def _cut_on_device(got: dict[str, float]) -> set[str]:
    """Metrics that a rank of ``collapse_metrics`` speaks of.

    Lower than that of the report, or a discriminant rank that is lower than that of Sigma_B.
    """
    ranks = {rank: got[f"collapse_metrics.{rank}"] for rank in ("kept_rank", "between_rank")}
    concerned_by = {"kept_rank": TRACE, "between_rank": OF_BETWEEN}
    cut = [metrics for rank, metrics in concerned_by.items() if ranks[rank] < got[rank]]
    if got["collapse_metrics.discriminant_rank"] < ranks["between_rank"]:
        cut.append(TRACE)
    return set().union(*cut)


def _finding(
    case: Case,
    name: str,
    values: oracle_exact.Values,
    got: float,
    named: set[str],
    data: oracle_exact.Summary,
) -> Finding:
    metric = name.rpartition(".")[2]
    expected = values[metric]
    scale = 1.0 if metric in UNIT_SCALE else 0.0
    if metric == "within_orthogonal_part":
        scale = oracle_exact.number(oracle_exact.trace(data.within))
    return compare(name, metric in named, expected, got, TOLERANCE[case.state], scale)


def compare(
    name: str, doubted: bool, expected: float | None, got: float, tolerance: float, scale: float
) -> Finding:
    """The verdict on one value: an error is relative to the truth, or to ``scale`` if larger."""
    if expected is None:
        right = is_nan(got)
    elif math.isinf(expected) or math.isinf(got):
        right = got == expected
    else:
        # A truth of zero has no digits: what is below the tolerance itself reads as zero.
        allowed = tolerance * (max(abs(expected), scale) if expected else max(scale, 1.0))
        right = abs(got - expected) <= allowed
    verdict = OK if right else NAN if is_nan(got) else CAVEAT if doubted else SILENT
    return Finding(name, verdict, doubted, math.nan if expected is None else expected, got)


def _ranks(got: dict[str, float], data: oracle_exact.Summary, named: set[str]) -> list[Finding]:
    """Directions kept; a caveat about any metric of theirs speaks of a cut."""
    ranks = {"kept_rank": (data.total, "vci"), "between_rank": (data.between, "fuzziness")}
    found = [
        compare(name, metric in named, float(matrix.rank()), got[name], 0.0, 0.0)
        for name, (matrix, metric) in ranks.items()
    ]
    # The caveat is the metric's, which may be right or not; a right rank needs no excuse.
    return [one._replace(doubted=one.doubted and one.verdict != OK) for one in found]


def _lists(
    case: Case,
    lists: dict[str, list[float]],
    spectrum: dict[str, list[float]],
    data: oracle_exact.Summary,
    named: set[str],
) -> list[Finding]:
    """Spectra, in units of the largest eigenvalue of Sigma_T, and the entries of each class."""
    findings, tolerance = [], TOLERANCE[case.state]
    scale = max(spectrum["total"], default=0.0)
    for name, exact in spectrum.items():
        key = f"spectrum.{name}"
        if any(map(is_nan, lists[key])):
            findings.append(Finding(key, NAN, "spectrum" in named, math.nan, math.nan))
            continue
        padded = exact + [0.0] * (len(lists[key]) - len(exact))
        pairs = zip(padded, lists[key], strict=False)
        findings.append(_worst([
            compare(key, "spectrum" in named, e, g, tolerance, scale) for e, g in pairs
        ]))  # fmt: skip
    truth = _classwise(data)
    for name, metric in PER_CLASS.items():
        key = f"per_class.{name}"
        doubted = bool({metric, key} & named)
        entries = lists[key]
        if name == "nearest":
            findings.append(_nearest(case, entries, data, doubted))
            continue
        floor = 1.0 if name == "cosine_similarity" else 0.0
        if name == "nearest_cdnv":
            exact = _pair_cdnv(case, lists["per_class.nearest"], data)
        else:
            exact = truth[name]
        findings.append(_worst([
            compare(key, doubted, e, g, tolerance, floor)
            for e, g in zip(exact, entries, strict=True)
        ]))  # fmt: skip
    return findings


def _worst(findings: list[Finding]) -> Finding:
    return max(findings, key=lambda finding: VERDICTS.index(finding.verdict))


def _classwise(data: oracle_exact.Summary) -> dict[str, list[float | None]]:
    """The entries of ``per_class``, but for the neighbours."""
    products = data.offsets * data.offsets.transpose()
    number = oracle_exact.number
    squares = [products[k, k] for k in range(len(data.counts))]
    return {
        "variance": [number(v) for v in data.variances],
        "distance": [number(oracle_exact.arb(s).sqrt()) for s in squares],
        "squared_distance": [
            number(v / s) if s else math.inf for v, s in zip(data.variances, squares, strict=True)
        ],
        "cosine_similarity": oracle_exact.class_cosines(data),
    }


def _nearest(
    case: Case, entries: list[float], data: oracle_exact.Summary, doubted: bool
) -> Finding:
    """The closest class, or one that is as close to the tolerance."""
    present = np.unique(case.labels).tolist()
    products = (data.offsets * data.offsets.transpose()).tolist()
    tolerance = TOLERANCE[case.state]
    for k, entry in enumerate(entries):
        gaps = {
            name: oracle_exact.number(products[k][k] + products[j][j] - 2 * products[k][j])
            for j, name in enumerate(present)
            if j != k
        }
        least = min(gaps.values(), default=None)
        right = (
            entry == -1
            if least is None
            else gaps.get(entry, math.inf) <= least * (1 + 4 * tolerance)
        )
        if not right:
            closest = min(gaps, key=lambda name: gaps[name])
            verdict = CAVEAT if doubted else SILENT
            return Finding("per_class.nearest", verdict, doubted, closest, entry)
    return Finding("per_class.nearest", OK, doubted, math.nan, math.nan)


def _pair_cdnv(case: Case, nearest: list[float], data: oracle_exact.Summary) -> list[float | None]:
    """The CDNV of each class with the neighbour that was named."""
    present = np.unique(case.labels).tolist()
    products = data.offsets * data.offsets.transpose()
    values: list[float | None] = []
    for k, name in enumerate(nearest):
        if name not in present:
            values.append(None)
            continue
        j = present.index(name)
        gap = products[k, k] + products[j, j] - 2 * products[k, j]
        blur = (data.variances[k] + data.variances[j]) / 2
        values.append(oracle_exact.number(blur / gap) if gap else math.inf)
    return values


def easy(case: Case) -> bool:
    """Whether the case is one that should be right without a word.

    The covariances, scaled to unit diagonal, have a condition number below 1e4 (float64) or 1e2
    (float32); all samples lie within 1e3 sd of the origin, for the sd of every column and of every
    class; any two class means differ by 1e-3 sd or more; squares stay in the range of float32; and
    the moments can give the weighting that is asked for.
    """
    rows = case.features.astype(np.float64)
    names, places, counts = np.unique(case.labels, return_inverse=True, return_counts=True)
    unknown = case.weighting == "class" and not case.counted and len(set(counts)) > 1
    largest = np.max(np.abs(rows))
    if "narrowed" in case.kinds or unknown or len(names) < 2 or not 1e-8 < largest < 1e8:
        return False
    means = np.stack([rows[places == k].mean(axis=0) for k in range(len(names))])
    away = rows - means[places]
    sd = np.sqrt(np.mean(away**2, axis=0))
    each = [np.sqrt(np.mean(away[places == k] ** 2)) for k in np.flatnonzero(counts > 1)]
    if largest > 1e3 * min([*sd, *each]):
        return False
    gaps = np.max(np.abs(means - means[:, None]) / sd, axis=2)
    if np.min(gaps[~np.eye(len(names), dtype=bool)]) < 1e-3:
        return False
    limit = 1e4 if case.state == "float64" else 1e2
    for part in (away, rows - rows.mean(axis=0)):
        values = np.linalg.svd(part / np.sqrt(np.mean(part**2, axis=0)), compute_uv=False)
        if len(values) < rows.shape[1] or values[0] ** 2 >= limit * values[-1] ** 2:
            return False
    return True


def broken_laws(got: dict[str, float], data: oracle_exact.Summary) -> list[str]:
    """Invariants that need no truth; the names of those that do not hold."""
    classes, dim = len(data.counts), data.total.nrows()
    most = min(dim, classes - 1)
    rank, slack = got["kept_rank"], 1e-9
    floor = max(0.0, 1 - rank / most) if most else 0.0
    laws = {
        "h_score is at most the kept rank": got["h_score"] <= rank + slack,
        "h_score is at most min(D, K - 1)": got["h_score"] <= most + slack,
        "h_score is not negative": got["h_score"] >= -slack,
        "vci is at most 1": got["vci"] <= 1 + slack,
        "vci is at least 1 - kept rank / min(D, K - 1)": got["vci"] >= floor - slack,
        "vci + h_score / rank = 1": most == 0
        or abs(got["vci"] + got["h_score"] / most - 1) <= slack,
        "kept_rank is at most D": rank <= dim,
        "between_rank is at most min(D, K - 1)": got["between_rank"] <= max(most, 0),
        "0 <= probe_mse <= 1/2": -slack <= got["probe_mse"] <= 0.5 + slack,
        "0 <= cosine_similarity <= 1": -slack <= got["cosine_similarity"] <= 1 + 1e-6,
        "1 <= effective_rank <= D": 1 - slack <= got["effective_rank"] <= dim + slack,
        "0 <= etf_error <= 2": -slack <= got["etf_error"] <= 2 + slack,
        "no negative distance": not any(
            got[name] < 0 for name in ("fuzziness", "squared_distance", "cdnv", "equinorm")
        ),
    }
    if "h_score_adjusted" in got:
        gap = abs(got["h_score_adjusted"] - most * (1 - got["vci_adjusted"]))
        laws["h_score_adjusted = rank (1 - vci_adjusted)"] = gap <= slack * max(most, 1)
    missing = {name for name, value in got.items() if is_nan(value)}
    return [
        law for law, holds in laws.items() if not holds and not any(name in law for name in missing)
    ]
