"""Populations of labelled features whose VCI is known, and samples of them.

Samples come as the partial states that a pass over blocks of the data leaves behind: for Gaussian
classes class means and scatter have known distributions and are drawn themselves; the other
populations draw every sample.

Legend: N samples, K classes, p features, n_k samples of class k.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

import vci_jax

KINDS = ("covariances", "heavy tails", "relu", "zipf", "all")


class Population(NamedTuple):
    """A population of classes: its VCI, and a function that draws partial states of a sample."""

    vci: float
    draw: Callable[[np.random.Generator], vci_jax.ClassMoments]


def gaussian(
    num_classes: int, dim: int, samples: int, vci: float, blocks: int, rng: np.random.Generator
) -> Population:
    """Balanced Gaussian classes of covariance I and the VCI wanted, to 1e-9.

    Their means lie s i^(-1/4) along axis i, for the s that gives it. Block b holds every B-th
    sample in the order of the labels, so that classes are dealt equally.
    """
    means = rng.standard_normal((num_classes, dim)) * np.arange(1, dim + 1) ** -0.25
    share = np.bincount(np.arange(samples) % num_classes, minlength=num_classes) / samples
    means *= _spread(means, share, vci)
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

    return Population(exact_vci(means, np.eye(dim), share), draw)


def other(
    kind: str, num_classes: int, dim: int, samples: int, blocks: int, rng: np.random.Generator
) -> Population:
    """Populations that break an assumption each; every sample is drawn.

    ``covariances``: each class has its own, with eigenvalues up to 30 times apart. ``heavy tails``:
    Student's t with 5 degrees of freedom. ``relu``: rectified Gaussians, one unit in eight dead,
    whose classes differ in covariance as well. ``zipf``: Gaussian classes with shares as 1 / rank,
    drawn at random, as blocks are then. ``all``: t5, own covariances and Zipf together.
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
            labels = generator.choice(num_classes, samples, p=share)  # and so are the blocks
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

    return Population(exact_vci(population_means, np.diag(share @ variances), share), draw)


def _spread(means: np.ndarray, share: np.ndarray, vci: float) -> float:
    """The factor of the class means that gives ``vci`` if Sigma_W = 1."""
    if vci == 1:
        return 0.0
    ratios = np.linalg.svd(np.sqrt(share)[:, None] * (means - share @ means), compute_uv=False) ** 2
    ratios = ratios[: min(means.shape[1], len(means) - 1)]
    return float(np.exp(brentq(lambda log: np.mean(1 / (1 + np.exp(2 * log) * ratios)) - vci,
                               -20, 20, xtol=1e-12)))  # fmt: skip


def exact_vci(means: np.ndarray, within: np.ndarray, share: np.ndarray) -> float:
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


def _states(
    counts: np.ndarray,
    means: np.ndarray,
    scatter: np.ndarray,
    class_scatter: np.ndarray | float = 0.0,
) -> vci_jax.ClassMoments:
    """Partial states with what VCI and its caveats need; the other statistics stay zero."""
    blocks, num_classes, dim = means.shape
    with jax.enable_x64(True):
        empty = vci_jax.init(num_classes, dim, dtype=np.float64)
        stack = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * blocks), empty)
    present = counts > 0
    return stack._replace(
        count=counts.astype(np.int32),
        mean=np.where(present[:, :, None], means, 0),
        scatter=scatter,
        class_scatter=np.broadcast_to(class_scatter, counts.shape).astype(float),
    )


def _accumulated(
    features: np.ndarray, labels: np.ndarray, num_classes: int, blocks: int
) -> vci_jax.ClassMoments:
    counts, means, scatters, of_classes = [], [], [], []
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
        of_classes.append(np.bincount(names, np.sum(rest**2, axis=1), minlength=num_classes))
    return _states(np.stack(counts), np.stack(means), np.stack(scatters), np.stack(of_classes))
