"""The pictures of the documentation's concepts, drawn from what the library computes.

python -m tools.pictures docs/pictures [NAME ...]    # a minute or two on 2 cores
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import vci_jax
from probes import figures
from probes.figures import style
from vci_jax import probe
from vci_jax.probe import selection


def _three_classes(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """300 points of a plane in three classes, whose means are the corners of a triangle."""
    rng = np.random.default_rng(3)
    labels = np.arange(300) % 3
    angles = 2 * np.pi * (np.arange(3) / 3 + 0.25)
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return corners[labels] + spread * rng.normal(size=(300, 2)) * [1.5, 0.5], labels


def collapse() -> style.Figure:
    """Less and less collapsed features, and a linear map that VCI does not see."""
    late, labels = _three_classes(0.2)
    turned = late @ np.array([[1.0, 0.5], [0.0, 0.2]])
    panels = (
        ("before training", _three_classes(0.9)[0]),
        ("collapsing", _three_classes(0.45)[0]),
        ("collapsed", late),
        ("the same, linearly mapped", turned),
    )
    figure = style.figure(style.PAGE, 1.6)
    for axes, (title, features) in zip(figure.subplots(1, 4), panels, strict=True):
        report = vci_jax.measure_arrays(
            features, labels, metrics=["vci", "squared_distance"], blocks=1
        )
        for k in range(3):
            rows = features[labels == k]
            axes.plot(*rows.T, style.MARKERS[k], color=style.COLOURS[k], ms=2, alpha=0.6)
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.set_title(title, fontsize=style.TEXT)
        axes.set_xlabel(
            f"VCI {report.vci:.3f}\nsquared distance {report.squared_distance:.3f}",
            fontsize=style.SMALL,
        )
    return figure


def bias() -> style.Figure:
    """VCI of features without classes, whose true value is 1, against the number of samples."""
    rng = np.random.default_rng(0)
    sizes = np.array([700, 1000, 1500, 2500, 4000, 7000, 10_000])
    figure = style.figure(style.PAGE, 2.4)
    for axes, dim in zip(figure.subplots(1, 2, sharey=True), (64, 512), strict=True):
        values = {"vci": [], "vci_adjusted": []}
        for size in sizes:
            labels = rng.permutation(np.arange(size) % 10)
            report = vci_jax.measure_arrays(
                rng.normal(size=(size, dim)), labels, metrics=list(values), blocks=1
            )
            for name, row in values.items():
                row.append(report[name])
        axes.plot(sizes, values["vci"], "o-", color=style.COLOURS[1], ms=3, label="vci")
        axes.plot(
            sizes, values["vci_adjusted"], "s-", color=style.COLOURS[0], ms=3, label="vci_adjusted"
        )
        axes.axhline(1, color=style.GREY, lw=0.6, ls=":")
        axes.axvline(3 * dim, color=style.GREY, lw=0.6, ls="--")
        axes.set(xscale="log", ylim=(0, 1.25), xlabel="samples", title=f"{dim} features of noise")
        axes.text(3 * dim, 0.05, " three a feature", fontsize=style.SMALL, color=style.GREY)
    figure.axes[0].legend(frameon=False, loc="lower right")
    return figure


def cutoffs() -> style.Figure:
    """VCI by a pseudo-inverse, against its cutoff, of features in different units."""
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 5
    features = 2 * rng.normal(size=(5, 8))[labels] + rng.normal(size=(2000, 8))
    features *= 10.0 ** -np.arange(8)
    offsets = np.stack([features[labels == k].mean(axis=0) for k in range(5)]) - features.mean(0)
    between, total = offsets.T @ offsets / 5, np.cov(features.T, bias=True)
    tried = np.logspace(-17, -1, 65)
    values = [1 - np.trace(np.linalg.pinv(total, rcond=c) @ between) / 4 for c in tried]
    figure = style.figure(style.PAGE, 2.4)
    axes = figure.subplots()
    axes.plot(tried, values, color=style.COLOURS[1], label="pseudo-inverse of the covariance")
    truth = vci_jax.measure_arrays(features, labels, metrics=["vci"], blocks=1).vci
    axes.axhline(truth, color=style.COLOURS[0], label="vci_jax")
    for cutoff, name in ((1e-15, "NumPy, thuml"), (1e-5, "stable_transfer")):
        axes.axvline(cutoff, color=style.GREY, lw=0.6, ls="--")
        axes.text(cutoff, 0.98, f" {name}", fontsize=style.SMALL, color=style.GREY, va="top")
    axes.set(xscale="log", ylim=(0, 1), xlabel="relative cutoff", ylabel="VCI")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _by_second_moments(features: np.ndarray, labels: np.ndarray) -> float:
    """VCI in float32, from sums of h and of h h^T."""
    features = features.astype(np.float32)
    size, classes = np.float32(len(features)), int(labels.max()) + 1
    mean = features.sum(axis=0) / size
    total = features.T @ features / size - np.outer(mean, mean)
    means = np.stack([features[labels == k].mean(axis=0) for k in range(classes)])
    between = (means - mean).T @ (means - mean) / classes
    return float(1 - np.trace(np.linalg.pinv(total, hermitian=True) @ between) / (classes - 1))


def one_pass() -> style.Figure:
    """Relative errors of VCI in float32 as features move away from the origin."""
    rng = np.random.default_rng(0)
    labels = np.arange(4096) % 10
    features = rng.normal(size=(10, 32))[labels] + rng.normal(size=(4096, 32))
    offsets = 10.0 ** np.arange(0, 4.5, 0.5)
    naive, streamed = [], []
    for offset in offsets:
        moved = (features + offset).astype(np.float32)
        truth = vci_jax.measure_arrays(moved, labels, metrics=["vci"], blocks=1).vci
        moments = vci_jax.init(num_classes=10, dim=32)
        for rows in np.array_split(np.arange(4096), 16):
            moments = vci_jax.jit_update(moments, moved[rows], labels[rows])
        naive.append(abs(_by_second_moments(moved, labels) / truth - 1))
        streamed.append(abs(vci_jax.report(moments, only=["vci"]).vci / truth - 1))
    figure = style.figure(style.PAGE, 2.4)
    axes = figure.subplots()
    axes.plot(offsets, naive, "o-", color=style.COLOURS[1], ms=3, label="sums of h and h hᵀ")
    axes.plot(offsets, streamed, "s-", color=style.COLOURS[0], ms=3, label="vci_jax, 16 batches")
    axes.set(
        xscale="log", yscale="log", ylabel="relative error of VCI, float32",
        xlabel="mean of the features, in standard deviations",
    )  # fmt: skip
    axes.legend(frameon=False)
    return figure


def path() -> style.Figure:
    """Steps to the optimum of each penalty, along the path and alone."""
    features, labels = load_digits(return_X_y=True)
    features = ((features - features.mean(axis=0)) / 16).astype(np.float32)
    penalties = selection.VALUES
    along = probe.fit_path(features, labels, penalties)
    alone = [int(probe.fit(features, labels, l2).steps) for l2 in penalties[::8]]
    figure = style.figure(style.PAGE, 2.4)
    axes = figure.subplots()
    axes.plot(penalties[::8], alone, "o", color=style.COLOURS[1], label="alone, from zero")
    axes.plot(penalties, along.steps, ".-", color=style.COLOURS[0], label="along the path")
    axes.set(xscale="log", xlabel="penalty", ylabel="steps", ylim=(0, None))
    axes.invert_xaxis()
    axes.legend(frameon=False)
    return figure


PICTURES: dict[str, Callable[[], style.Figure]] = {
    one.__name__: one for one in (collapse, bias, cutoffs, one_pass, path)
}


def main(directory: Path, names: Sequence[str]) -> None:
    """Draws pictures, all unless some are named, into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        print(figures.save(PICTURES[name](), directory / f"{name}.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
