"""How right ``vci_adjusted`` and ``vci_interval`` are, on populations whose VCI is known.

    python -m tools.error_bars gaussian --draws 400      # classes of one covariance
    python -m tools.error_bars other --draws 400         # unequal covariances, heavy tails, ...
    python -m tools.error_bars gaussian --classes 62 --dims 128 --blocks 16

Each row draws many samples of one population and prints, for the plug-in VCI, the adjusted VCI and
its 95 % interval: the error of the mean with its own standard error, and how many intervals held
the truth. The tables of docs/error_bars.md are its output.

Samples are drawn as the sums that a pass leaves behind (class means and scatter of each block), of
which those of Gaussian classes have known distributions; the other populations draw every sample.

Legend: N samples, K classes, p features, n_k samples of class k.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from scipy.stats import norm

import vci_jax
from vci_jax import metrics
from vci_jax.geometry import factorize
from vci_jax.interval import jackknife_interval

# Inputs are exact to float64, but a second eigenproblem is not needed to know that.
_EPS = 1e-11


class Population(NamedTuple):
    """A population of classes: its VCI, and a function that draws partial states of a sample."""

    vci: float
    draw: Callable[[np.random.Generator], vci_jax.ClassMoments]


class Row(NamedTuple):
    """What many draws of one population gave."""

    truth: float
    plugin: float
    bias: float
    error: float
    coverage: float
    undefined: int


def measure(
    population: Population, draws: int, rng: np.random.Generator, weighting: Any = "sample"
) -> Row:
    """Returns the errors of the estimates, and the coverage of the intervals, over many draws."""
    plain, adjusted, held, undefined = [], [], [], 0
    for _ in range(draws):
        blocks = population.draw(rng)
        values = _estimates(blocks, weighting)
        low, high = jackknife_interval(blocks, weighting=weighting, data_eps=_EPS)
        plain.append(float(values[0]))
        adjusted.append(float(values[1]))
        undefined += not np.isfinite(low)
        held.append(low <= population.vci <= high)
    bias = np.array(adjusted) - population.vci
    return Row(
        truth=population.vci,
        plugin=float(np.mean(plain)) - population.vci,
        bias=float(bias.mean()),
        error=float(bias.std(ddof=1) / np.sqrt(draws)),
        coverage=float(np.mean(held)),
        undefined=undefined,
    )


def gaussian(
    num_classes: int, dim: int, samples: int, spread: float, blocks: int, rng: np.random.Generator
) -> Population:
    """Balanced Gaussian classes of covariance I, whose means lie ``spread`` i^(-1/4) along axis i.

    Block b holds every B-th sample in the order of the labels, so that classes are dealt equally.
    """
    means = rng.standard_normal((num_classes, dim)) * spread * np.arange(1, dim + 1) ** -0.25
    labels = np.sort(np.arange(samples) % num_classes)
    counts = np.stack(
        [np.bincount(labels[b::blocks], minlength=num_classes) for b in range(blocks)]
    )

    def draw(generator: np.random.Generator) -> vci_jax.ClassMoments:
        centres, scatters = [], []
        for count in counts:
            noise = generator.standard_normal((num_classes, dim))
            centres.append(means + noise / np.sqrt(np.maximum(count, 1))[:, None])
            scatters.append(_wishart(dim, int(np.sum(np.maximum(count - 1, 0))), generator))
        return _states(counts, np.stack(centres), np.stack(scatters))

    share = np.bincount(labels, minlength=num_classes) / samples
    return Population(_vci(means, np.eye(dim), share), draw)


def other(
    kind: str, num_classes: int, dim: int, samples: int, blocks: int, rng: np.random.Generator
) -> Population:
    """Populations that break an assumption each; every sample is drawn.

    ``covariances``: each class has its own, with eigenvalues up to 30 times apart. ``heavy tails``:
    Student's t with 5 degrees of freedom. ``relu``: rectified Gaussians, one unit in eight dead,
    whose classes differ in covariance as well. ``zipf``: Gaussian classes with shares as 1 / rank,
    drawn at random. ``all``: t5, own covariances and Zipf together.
    """
    spread = 1.0 * np.arange(1, dim + 1) ** -0.25
    means = rng.standard_normal((num_classes, dim)) * spread
    share = np.ones(num_classes) / num_classes
    if kind in ("zipf", "all"):
        share = 1 / np.arange(1, num_classes + 1)
        share = share / share.sum()
    scales = np.ones((num_classes, dim))
    if kind in ("covariances", "all"):
        scales = np.exp(rng.uniform(-0.5, 0.5, (num_classes, dim)) * np.log(30) / 2)
        scales *= np.exp(rng.uniform(-0.5, 0.5, (num_classes, 1)) * np.log(4) / 2)
    if kind == "relu":
        means[:, : dim // 8] = -40.0
        tail, density = norm.cdf(means), norm.pdf(means)
        population_means = means * tail + density
        variances = (means**2 + 1) * tail + means * density - population_means**2
    else:
        population_means = means
        variances = scales**2 * (5 / 3 if kind in ("heavy tails", "all") else 1)

    def draw(generator: np.random.Generator) -> vci_jax.ClassMoments:
        labels = np.sort(np.arange(samples) % num_classes)
        if kind in ("zipf", "all"):
            labels = np.sort(generator.choice(num_classes, samples, p=share))
        shape = (samples, dim)
        noise = (
            generator.standard_t(5, shape)
            if kind in ("heavy tails", "all")
            else generator.standard_normal(shape)
        )
        features = means[labels] + noise * scales[labels]
        if kind == "relu":
            features = np.maximum(features, 0)
        return _accumulated(features, labels, num_classes, blocks)

    return Population(_vci(population_means, np.diag(share @ variances), share), draw)


def _vci(means: np.ndarray, within: np.ndarray, share: np.ndarray) -> float:
    """The definition, on the directions that vary."""
    offsets = means - share @ means
    between = (offsets.T * share) @ offsets
    alive = np.diag(within + between) > 1e-12
    grid = np.ix_(alive, alive)
    trace = np.trace(np.linalg.solve((within + between)[grid], between[grid]))
    return float(1 - trace / min(len(within), len(means) - 1))


def _wishart(dim: int, freedom: int, rng: np.random.Generator) -> np.ndarray:
    """Scatter of ``freedom`` standard normal rows (Bartlett's decomposition)."""
    if freedom < dim:
        rows = rng.standard_normal((freedom, dim))
        return rows.T @ rows
    lower = np.tril(rng.standard_normal((dim, dim)), -1)
    lower[np.diag_indices(dim)] = np.sqrt(rng.chisquare(freedom - np.arange(dim)))
    return lower @ lower.T


def _states(counts: np.ndarray, means: np.ndarray, scatter: np.ndarray) -> vci_jax.ClassMoments:
    """Partial states with what VCI needs; the other statistics stay zero."""
    blocks, num_classes, dim = means.shape
    with jax.enable_x64(True):
        empty = vci_jax.init(num_classes, dim, dtype=np.float64)
        stack = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * blocks), empty)
    present = counts > 0
    return stack._replace(
        count=counts.astype(np.int32),
        mean=np.where(present[:, :, None], means, 0),
        scatter=scatter,
    )


def _accumulated(
    features: np.ndarray, labels: np.ndarray, num_classes: int, blocks: int
) -> vci_jax.ClassMoments:
    counts, means, scatters = [], [], []
    for b in range(blocks):
        rows, names = features[b::blocks], labels[b::blocks]
        count = np.bincount(names, minlength=num_classes)
        sums = np.zeros((num_classes, features.shape[1]))
        np.add.at(sums, names, rows)
        centre = sums / np.maximum(count, 1)[:, None]
        rest = rows - centre[names]
        counts.append(count)
        means.append(centre)
        scatters.append(rest.T @ rest)
    return _states(np.stack(counts), np.stack(means), np.stack(scatters))


def _estimates(blocks: vci_jax.ClassMoments, weighting: str) -> tuple[Any, Any]:
    return _jitted(blocks, weighting)


def _both(blocks: vci_jax.ClassMoments, weighting: Any) -> tuple[Any, Any]:
    geometry = factorize(vci_jax.merge_axis(blocks), weighting=weighting, data_eps=_EPS)
    return metrics.vci(geometry), metrics.vci_adjusted(geometry)


_jitted = jax.jit(_both, static_argnums=1)


def _gaussian_rows(options: argparse.Namespace) -> Iterator[tuple[list[Any], Row]]:
    for dim in options.dims:
        for num_classes in options.classes:
            for factor in options.factors:
                samples = factor * dim
                if samples < 4 * num_classes / 3 or samples - num_classes <= dim // 4:
                    continue  # fewer samples than this, and most classes have one
                for spread in options.spreads:
                    rng = np.random.default_rng([dim, num_classes, factor, int(100 * spread)])
                    population = gaussian(num_classes, dim, samples, spread, options.blocks, rng)
                    row = measure(population, options.draws, rng)
                    yield [num_classes, dim, samples], row


def _other_rows(options: argparse.Namespace) -> Iterator[tuple[list[Any], Row]]:
    for kind in ("covariances", "heavy tails", "relu", "zipf", "all"):
        for dim in options.dims:
            for num_classes in options.classes:
                for factor in options.factors:
                    samples = factor * dim
                    if samples < 2 * num_classes:
                        continue
                    rng = np.random.default_rng([dim, num_classes, factor])
                    population = other(kind, num_classes, dim, samples, options.blocks, rng)
                    row = measure(population, options.draws, rng)
                    yield [kind, num_classes, dim, samples], row


def main() -> None:
    """Prints a Markdown table, a row at a time."""
    parser = argparse.ArgumentParser(prog="python -m tools.error_bars", description=__doc__)
    parser.add_argument("populations", choices=("gaussian", "other"))
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 10, 62, 100, 300])
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 128, 300])
    parser.add_argument("--factors", type=int, nargs="+", default=[3, 5, 12, 25])
    parser.add_argument("--spreads", type=float, nargs="+", default=[0, 0.3, 1, 3])
    options = parser.parse_args()
    of_gaussian = options.populations == "gaussian"
    names = ["K", "p", "N"] if of_gaussian else ["population", "K", "p", "N"]
    heads = [*names, "VCI", "plug-in", "adjusted", "its standard error", "coverage"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), flush=True)
    with jax.enable_x64(True):
        for cells, row in (_gaussian_rows if of_gaussian else _other_rows)(options):
            shown = [*cells, f"{row.truth:.3f}", f"{row.plugin:+.4f}", f"{row.bias:+.4f}",
                     f"{row.error:.4f}", f"{100 * row.coverage:.1f} %"]  # fmt: skip
            print("| " + " | ".join(map(str, shown)) + " |", flush=True)


if __name__ == "__main__":
    main()
