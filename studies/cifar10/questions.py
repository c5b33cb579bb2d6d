"""Three questions that the paper leaves open, answered with the same runs."""

from collections.abc import Sequence

import numpy as np

from probes.analysis import coefficients, correlation
from probes.analysis.cohorts import ALL, Study
from probes.analysis.resampling import Plan
from probes.analysis.runs import Row
from probes.analysis.tables import Table
from studies.cifar10.claims import layers
from studies.cifar10.records import Evidence
from studies.cifar10.small_samples import METRICS


def correction(evidence: Evidence) -> tuple[Table, dict[str, str]]:
    """Returns VCI of train and test with and without its correction, and what follows."""
    rows, gaps = [], {"vci": [], "vci_adjusted": []}
    small = {"vci": [], "vci_adjusted": []}
    outside = 0
    for run, samples in zip(evidence.runs, evidence.small, strict=True):
        train, test = run.last("train"), run.last("test")
        for name in gaps:
            gaps[name].append(test[name] - train[name])
        means = {name: _mean(samples, "train", name) for name in gaps}
        for name in small:
            small[name].append(means[name] - train["vci_adjusted"])
        outside += test["vci_interval"][0] > train["vci_interval"][1]
        rows.append(
            [
                run.name,
                *(f"{row[name]:.4f}" for name in gaps for row in (train, test)),
                *(f"{gaps[name][-1]:+.4f}" for name in gaps),
                *(f"{means[name]:.4f}" for name in gaps),
            ]
        )
    header = ["Run", "VCI train", "VCI test", "adjusted train", "adjusted test"]
    header += ["test - train", "adjusted", "VCI of 2,000 train images", "adjusted"]
    flips = sum(
        np.sign(a) != np.sign(b) for a, b in zip(gaps["vci"], gaps["vci_adjusted"], strict=True)
    )
    facts = {
        "gap": f"{np.mean(gaps['vci']):+.4f}",
        "gap_adjusted": f"{np.mean(gaps['vci_adjusted']):+.4f}",
        "gap_flips": f"{flips} of {len(rows)}",
        "gap_outside": f"{outside} of {len(rows)}",
        "small_bias": f"{np.mean(small['vci']):+.4f}",
        "small_bias_adjusted": f"{np.mean(small['vci_adjusted']):+.4f}",
    }
    return Table(
        "VCI of train and test images, with and without its correction", header, rows
    ), facts


def cheap_ranking(evidence: Evidence, compared: Study) -> tuple[Table, dict[str, str]]:
    """Returns how well each metric of 2,000 images orders the runs by their transfer.

    Args:
      evidence: the runs of ``compared``, in its order.
      compared: for their MLOG.
    """
    members = compared.members()
    measured: dict[str, dict[str, np.ndarray]] = {}
    rows = []
    for metric in METRICS:
        whole = np.array([run.last("train")[metric] for run in evidence.runs], np.float64)
        drawn = _draws(evidence, metric)
        cells, taus = [], {}
        for group, kept in members.items():
            y = compared.mlog[kept]
            taus[group] = np.array([float(coefficients.kendall(d[kept], y)) for d in drawn])
            full = float(coefficients.kendall(whole[kept], y))
            low, high = np.min(taus[group]), np.max(taus[group])
            cells.append(f"{full:+.2f}; {np.mean(taus[group]):+.2f} [{low:+.2f}, {high:+.2f}]")
        measured[metric] = taus
        groups = [group for group in members if group != ALL]
        signs = np.sign([taus[group] for group in groups])
        one_sign = np.mean(np.all(signs == signs[0], axis=0) & np.all(signs != 0, axis=0))
        rows.append([metric, *cells, f"{100 * one_sign:.0f} %"])
    strength = {m: float(np.mean(np.abs(taus[ALL]))) for m, taus in measured.items()}
    # Means that are equal but for rounding keep the order of METRICS.
    best = sorted(strength, key=lambda metric: -round(strength[metric], 9))
    facts = {
        "cheap_best": f"`{best[0]}`",
        "cheap_best_tau": f"{strength[best[0]]:.2f}",
        "cheap_second": f"`{best[1]}`",
        "cheap_second_tau": f"{strength[best[1]]:.2f}",
        "cheap_vci_tau": f"{strength['vci']:.2f}",
        "cheap_vci_rank": _ordinal(best.index("vci") + 1),
        "cheap_metrics": str(len(best)),
    }
    header = ["Metric (train)", *members, "one sign in both groups"]
    title = "Kendall's tau with MLOG: all train images; mean and range over 20 draws of 2,000"
    return Table(title, header, rows), facts


def inner_layers(evidence: Evidence, compared: Study) -> tuple[Table, dict[str, str]]:
    """Returns how the VCI of every depth goes with transfer, and whether one beats the last."""
    depths = list(layers(evidence.runs[0].last("train")))
    metrics = {
        name: np.array([layers(run.last("train"))[name]["vci"] for run in evidence.runs])
        for name in depths
    }
    by_depth = compared._replace(metrics=metrics)
    found = {(one.metric, one.group): one for one in correlation.correlate(by_depth, Plan())}
    rows = []
    for name in depths:
        cells = []
        for group in by_depth.members():
            one = found[name, group].pearson
            low, high = one.permutation.low, one.permutation.high
            interval = f" [{low:+.2f}, {high:+.2f}]" if np.isfinite(low) else ""
            cells.append(f"{one.value:+.3f}{interval}")
        spread = metrics[name]
        rows.append([name, f"{spread.min():.3f} to {spread.max():.3f}", *cells])
    comparisons = [
        one for one in correlation.compare(by_depth, "features", Plan()) if one.group == ALL
    ]
    facts = {
        "depth_differences": "; ".join(
            f"{one.other} {-one.value:+.3f} [{-one.interval.high:+.3f}, {-one.interval.low:+.3f}]"
            for one in comparisons
        ),
        "depth_better": ", ".join(o.other for o in comparisons if o.interval.high < 0) or "none",
        "depth_worse": ", ".join(o.other for o in comparisons if o.interval.low > 0) or "none",
    }
    header = ["Depth", "VCI, train", *(f"r, {group}" for group in by_depth.members())]
    return Table("Pearson's r of VCI at every depth with MLOG", header, rows), facts


def _mean(rows: Sequence[Row], split: str, metric: str) -> float:
    return float(np.mean([row[metric] for row in rows if row["split"] == split]))


def _draws(evidence: Evidence, metric: str) -> np.ndarray:
    """Returns a metric of every draw of train images and every run, ``[draws runs]``."""
    columns = [[row[metric] for row in rows if row["split"] == "train"] for rows in evidence.small]
    return np.array(columns, np.float64).T


def _ordinal(number: int) -> str:
    names: dict[int, str] = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}
    return names.get(number, f"{number}th")
