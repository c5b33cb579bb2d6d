"""How much of a difference in VCI is noise: a jackknife over blocks of the data.

Blocks come free: each is a partial state of the one pass. Leaving out block b means merging the
others, so the data are never seen again.

Legend: B blocks that hold samples, N samples, n_b of block b, K classes, D feature dimension.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import stdtrit

from vci_jax import _downdate, linalg, metrics, structure
from vci_jax._compile import quick_jit
from vci_jax.adjusted import jackknife_inflation
from vci_jax.errors import VCIError
from vci_jax.geometry import Geometry, Weighting, factorize
from vci_jax.moments import ClassMoments, merge, merge_axis

# Estimates of the population: those whose difference between two sets of features means something.
ESTIMATES = {
    "vci_adjusted": metrics.vci_adjusted,
    "squared_distance_adjusted": metrics.squared_distance_adjusted,
    "cosine_similarity": metrics.cosine_similarity,
    "class_separation": metrics.class_separation,
    "cdnv_adjusted": structure.cdnv_adjusted,
}


class LeaveOneOut(NamedTuple):
    """Estimates from all of the data, and without each of its blocks.

    ``counts`` is how many samples of each class a block holds, blocks without samples left out.
    ``whole`` and ``parts`` have an entry for each metric. ``inflation`` is by what factor the
    jackknife overstates the variance of ``vci_adjusted``; ``data_eps`` the roundoff of the moments.
    """

    counts: Int[np.ndarray, "B K"]
    whole: dict[str, float]
    parts: dict[str, Float[np.ndarray, " B"]]
    inflation: float
    data_eps: float

    def pseudo_deviations(self, name: str) -> Float[np.ndarray, " B"]:
        """u_b - mean u, over the root of the inflation: see ``jackknife_interval``, without logs.

        The difference of two sets' deviations is that of the difference, block by block. What
        scaling each by its own inflation leaves out of their covariance only widens intervals.
        """
        ratios = self.ratios
        pseudo = ratios * self.whole[name] - (ratios - 1) * self.parts[name]
        factor = self.inflation if name == "vci_adjusted" else 1.0
        deviations: np.ndarray = (pseudo - np.sum(pseudo / ratios)) / math.sqrt(factor)
        return deviations

    @property
    def ratios(self) -> Float[np.ndarray, " B"]:
        """h_b, the size of all the data over that of a block."""
        sizes = self.counts.sum(axis=1)
        ratios: np.ndarray = sizes.sum() / sizes
        return ratios


def jackknife_interval(
    blocks: ClassMoments,
    *,
    weighting: Weighting = "sample",
    confidence: float = 0.95,
    data_eps: float | None = None,
) -> tuple[float, float]:
    """Confidence interval of the population VCI around ``vci_adjusted``.

    With t_b the logarithm of the adjusted VCI without block b, t that of all the data, and
    h_b = N / n_b,

        se^2 = (1 / f) (1 / B) sum_b (u_b - mean u)^2 / (h_b - 1),    u_b = h_b t - (h_b - 1) t_b

    (the mean weighted by 1 / h_b), and the interval is exp(t -+ q se), q the quantile of Student's
    t with B - 1 degrees of freedom. The logarithm keeps it positive near collapse. For equal
    blocks the sum is the usual (B - 1) / B sum_b (t_b - mean t)^2. The factor f is by how much a
    jackknife overstates this variance, ``adjusted.jackknife_inflation``.

    Blocks of random samples answer for classes drawn at random; blocks with equal shares of every
    class (as the command line deals them) for fixed class counts. Use 10 blocks or more. Blocks
    without samples carry nothing and do not count. docs/error_bars.md has the measured coverage.

    Args:
      blocks: partial states with a leading axis of B >= 2.
      weighting: see ``factorize``.
      confidence: between 0 and 1.
      data_eps: see ``factorize``.

    Returns:
      (low, high); NaN if fewer than two blocks hold samples, or the adjusted VCI is undefined or
      zero for all data or without one of the blocks.

    Raises:
      VCIError: for fewer than two blocks, or a confidence outside (0, 1).

    Reference:
      Tukey (1958); Busing, Meijer & van der Leeden (1999), for unequal blocks; Efron & Stein
      (1981), for the factor.
    """
    if not 0 < confidence < 1:
        raise VCIError(f"confidence must lie between 0 and 1, got {confidence}.")
    whole = leave_one_out(blocks, weighting=weighting, data_eps=data_eps)
    return interval_of(whole, confidence)


def interval_of(estimates: LeaveOneOut, confidence: float) -> tuple[float, float]:
    """The interval of ``jackknife_interval``, from estimates that are there already."""
    whole, parts = estimates.whole["vci_adjusted"], estimates.parts["vci_adjusted"]
    if len(parts) < 2 or not (np.all(parts > 0) and whole > 0):  # NaN is not above zero either
        return math.nan, math.nan
    ratios = estimates.ratios
    pseudo = ratios * math.log(whole) - (ratios - 1) * np.log(parts)
    deviations = pseudo - np.sum(pseudo / ratios)
    error = math.sqrt(float(np.mean(deviations**2 / (ratios - 1))) / estimates.inflation)
    reach = math.exp(float(stdtrit(len(parts) - 1, (1 + confidence) / 2)) * error)
    return whole / reach, whole * reach


class Options(TypedDict):
    """What ``factorize`` is told, with all programs alike."""

    weighting: Weighting
    data_eps: float


class OfAll(NamedTuple):
    """What ``leave_one_out`` takes from a geometry of all blocks: see ``of_all``."""

    values: dict[str, Float[Array, ""]]
    inflation: Float[Array, ""]
    whole: _downdate.Whole


def of_all(geometry: Geometry, names: Sequence[str], data_eps: float) -> OfAll:
    """The part of ``leave_one_out`` that is of all the data, for the program that factored them."""
    adjusted = metrics.vci_adjusted(geometry)
    return OfAll(
        values={name: ESTIMATES[name](geometry) for name in names},
        inflation=jackknife_inflation(metrics.sample(geometry), geometry.moments.count, adjusted),
        whole=_downdate.whole(geometry, data_eps),
    )


def leave_one_out(
    blocks: ClassMoments,
    names: Sequence[str] = ("vci_adjusted",),
    *,
    weighting: Weighting = "sample",
    data_eps: float | None = None,
    known: OfAll | None = None,
) -> LeaveOneOut:
    """Computes estimates of all blocks, and of all but each, in float64 on the host.

    Args:
      blocks: partial states with a leading axis of B >= 2.
      names: of metrics among ``ESTIMATES``.
      weighting: see ``factorize``.
      data_eps: see ``factorize``.
      known: ``of_all`` of the blocks, where a program has factored them already.

    Raises:
      VCIError: for fewer than two blocks.
    """
    if blocks.count.ndim != 2 or blocks.count.shape[0] < 2:
        raise VCIError(f"The jackknife needs two blocks or more, got count {blocks.count.shape}.")
    if data_eps is None:
        data_eps = float(np.finfo(blocks.mean.dtype).eps)
    blocks, names = jax.device_get(blocks), tuple(names)
    options: Options = {"weighting": weighting, "data_eps": data_eps}
    with jax.enable_x64(True), jax.default_device(linalg.host()):
        if known is None:
            known = jax.device_get(_of_all(blocks, names, **options))
        parts = {}
        if "vci_adjusted" in names:
            adjusted: np.ndarray | None
            if np.isnan(known.values["vci_adjusted"]):  # Fewer samples are too few as well.
                adjusted = np.full(len(blocks.count), np.nan)
            else:
                adjusted = _downdate.without_each(blocks, known.whole, **options)
            parts = {} if adjusted is None else {"vci_adjusted": adjusted}
        if others := tuple(name for name in names if name not in parts):
            parts |= jax.device_get(_without_each(blocks, others, **options))
    counts = np.asarray(blocks.count).astype(np.int64)
    full = counts.sum(axis=1) > 0
    return LeaveOneOut(
        counts=counts[full],
        whole={name: float(value) for name, value in known.values.items()},
        parts={name: parts[name][full] for name in names},
        inflation=float(known.inflation),
        data_eps=data_eps,
    )


@quick_jit(static_argnames=("names", "weighting", "data_eps"))
def _of_all(
    blocks: ClassMoments, names: tuple[str, ...], *, weighting: Weighting, data_eps: float
) -> OfAll:
    geometry = factorize(merge_axis(linalg.widen(blocks)), weighting=weighting, data_eps=data_eps)
    return of_all(geometry, names, data_eps)


def without_each(
    blocks: ClassMoments, names: tuple[str, ...], *, weighting: Weighting, data_eps: float
) -> dict[str, Float[Array, " B"]]:
    """The estimates of all blocks but each, by 3 B merges in all: what any data can take."""
    blocks = linalg.widen(blocks)

    def of_rest(ends: tuple[ClassMoments, ClassMoments]) -> dict[str, Array]:
        rest = factorize(merge(*ends), weighting=weighting, data_eps=data_eps, part=True)
        return {name: ESTIMATES[name](rest) for name in names}

    empty = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), blocks)
    empty = empty._replace(class_weight=blocks.class_weight[0])

    def accumulate(total: ClassMoments, block: ClassMoments) -> tuple[ClassMoments, ClassMoments]:
        return merge(total, block), total  # the total before this block

    _, before = jax.lax.scan(accumulate, empty, blocks)
    _, after = jax.lax.scan(accumulate, empty, blocks, reverse=True)
    parts: dict[str, Array] = jax.lax.map(of_rest, (before, after))
    return parts


_without_each = quick_jit(static_argnames=("names", "weighting", "data_eps"))(without_each)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Returns p-values adjusted for their number by Holm's step-down rule; NaN stays out of it."""
    adjusted = np.full(len(p_values), np.nan)
    defined = np.flatnonzero(np.isfinite(p_values))
    order = defined[np.argsort(p_values[defined], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted
