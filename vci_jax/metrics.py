"""The metrics of "Quantifying the Variability Collapse of Neural Networks" (Xu & Liu, ICML 2023).

Each is a pure function of a ``Geometry``, which ``factorize`` computes once from the moments;
``collapse_metrics`` does both and returns them all. Everything is jittable. Undefined values are
NaN, never a number; ``report`` says why.

Legend: K classes present, D feature dimension, N samples, n_k of class k, p_k its weight (n_k / N
or 1 / K, see ``factorize``), mu_k its mean, mu_G = sum_k p_k mu_k, and

    Sigma_W = sum_k (p_k / n_k) sum_{i in k} (h_i - mu_k)(h_i - mu_k)^T
    Sigma_B = sum_k p_k (mu_k - mu_G)(mu_k - mu_G)^T,     Sigma_T = Sigma_W + Sigma_B   (Eq. 1-3, 7)
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax import adjusted, derivatives, linalg, structure
from vci_jax.derivatives import frozen
from vci_jax.geometry import Geometry, Weighting, factorize
from vci_jax.moments import ClassMoments, unit_means
from vci_jax.placement import anywhere

Scalar = Float[Array, ""]


@anywhere()
def collapse_metrics(
    moments: ClassMoments,
    *,
    weighting: Weighting = "sample",
    head: tuple[Float[Array, "D K"], Float[Array, " K"]] | None = None,
    data_eps: float | None = None,
) -> dict[str, Scalar]:
    """Returns every metric that one factorisation gives, by name, with the ranks that were kept.

    ``kept_rank`` is that of Sigma_T, ``between_rank`` that of Sigma_B, and ``discriminant_rank``
    the number of directions in which classes stand out from their own variance: where one is
    smaller than the data should have, directions were cut that float32 cannot tell from rounding,
    and if ``discriminant_rank`` is below ``between_rank``, VCI takes them for noise. ``report``
    says so in its caveats.

    Runs in the dtype of the moments on the device they are on. ``report`` runs this same function
    in float64 on the host, which is what to print; call this one inside jitted code.

    Args:
      moments: one state.
      weighting: ``"sample"`` or ``"class"``, see ``factorize``.
      head: kernel [D K] and bias [K] of the classifier (flax's layout); adds ``self_duality``.
      data_eps: see ``factorize``.

    Raises:
      VCIError: at trace time, for an unknown weighting, partial states, or a head of another
        shape.
    """
    geometry = factorize(moments, weighting=weighting, data_eps=data_eps)
    metrics = geometry_metrics(geometry, head)
    metrics["discriminant_rank"] = jnp.sum(geometry.canonical.kept)
    return metrics


def geometry_metrics(
    geometry: Geometry, head: tuple[Float[Array, "D K"], Float[Array, " K"]] | None = None
) -> dict[str, Scalar]:
    """The metrics of ``collapse_metrics``, for moments that are factorised already."""
    pairs = structure.cdnv_and_adjusted(geometry)
    metrics = {
        "vci": vci(geometry),
        "vci_adjusted": vci_adjusted(geometry),
        "fuzziness": fuzziness(geometry),
        "squared_distance": squared_distance(geometry),
        "squared_distance_adjusted": squared_distance_adjusted(geometry),
        "cosine_similarity": cosine_similarity(geometry),
        "class_separation": class_separation(geometry),
        "within_between_part": within_between_part(geometry),
        "within_orthogonal_part": within_orthogonal_part(geometry),
        "probe_mse": probe_mse(geometry),
        "probe_mse_adjusted": probe_mse_adjusted(geometry),
        "h_score": h_score(geometry),
        "h_score_adjusted": h_score_adjusted(geometry),
        "cdnv": pairs[0],
        "cdnv_adjusted": pairs[1],
        "equinorm": structure.equinorm(geometry),
        "equiangularity": structure.equiangularity(geometry),
        "etf_error": structure.etf_error(geometry),
    }
    metrics["kept_rank"] = geometry.canonical.rank
    metrics["between_rank"] = between_rank(geometry)
    if head is not None:
        metrics["self_duality"] = structure.self_duality(geometry, *head)
    return metrics


def vci(geometry: Geometry) -> Scalar:
    """Variability collapse index: the share of discriminant directions lost to variability.

        VCI = 1 - Tr[Sigma_T^+ Sigma_B] / rank,   rank = min(D, K - 1)
            = (1 / rank) sum_j 1 / (1 + c_j),     c_j the eigenvalues of Sigma_W^+ Sigma_B

    Between 0 (collapsed) and 1; invariant under invertible linear maps of the features. The
    second form, used here, has no subtraction and resolves VCI = 1e-9 and below.
    NaN for fewer than two classes or when all features are equal.

    Reference:
      Xu & Liu (2023), Definition 5.3. Equal to 1 - V / rank for the Pillai-Bartlett trace V of
      MANOVA (statsmodels ``MANOVA``, which refuses singular features), and for balanced classes
      and D >= K - 1 to one minus the R^2 of the least-squares probe (scikit-learn
      ``LinearRegression`` on one-hot labels).
    """
    canonical = geometry.canonical
    lost = jnp.sum(jnp.where(canonical.kept, canonical.lost, 0))
    unseen = geometry.rank - jnp.sum(canonical.kept)  # directions in which the means do not differ
    value = (lost + unseen) / jnp.maximum(geometry.rank, 1)
    return jnp.where((geometry.rank > 0) & (canonical.rank > 0), value, jnp.nan)


def vci_adjusted(geometry: Geometry) -> Scalar:
    """VCI with the bias of the sample size taken out: an estimate of the population's.

    The plug-in VCI of pure noise falls short of 1 by the factor 1 - D / (N - 1): 2048 random
    features score 0.795 at N = 10 000. That of real classes falls short by less, which
    ``vci_jax.adjusted`` derives; docs/error_bars.md says how well it works and where it ends.
    May exceed 1 by noise, as adjusted R^2 may fall below 0. NaN when N - 1 <= max(rank Sigma_T,
    K - 1): there are then more directions than samples, and the plug-in VCI says nothing.

    N is the number of samples, or for ``weighting="class"`` the effective number
    1 / sum_k p_k^2 / n_k, that of equal classes whose means are known as well on average.
    """
    value: Scalar = adjusted.adjusted_vci(sample(geometry), vci(geometry))
    return value


def sample(geometry: Geometry) -> adjusted.Sample:
    """What ``adjusted`` needs to know of a geometry."""
    canonical, dtype = geometry.canonical, geometry.offsets.dtype
    count = jnp.maximum(geometry.moments.count, 1).astype(dtype)
    number = jnp.sum(canonical.kept).astype(dtype)
    size = 1 / jnp.sum(jnp.where(geometry.present, geometry.proportion**2 / count, 0))
    # Exactly N where it is that: near the pole of the equation of ``adjusted`` the last bit counts.
    whole = jnp.abs(size - jnp.round(size)) <= 64 * float(np.finfo(dtype).eps) * size
    return adjusted.Sample(
        ratios=canonical.ratios,
        kept=canonical.kept,
        size=jnp.where(whole, jnp.round(size), size),
        classes=jnp.sum(geometry.present).astype(dtype),
        rank=jnp.maximum(canonical.rank.astype(dtype), number),
        limit=geometry.rank.astype(dtype),
    )


def fuzziness(geometry: Geometry) -> Scalar:
    """(1 / K) Tr[Sigma_W Sigma_B^+], the NC1 of the neural-collapse literature.

    The pseudo-inverse keeps at most min(D, K - 1) eigenvalues, and those above an explicit
    cutoff (``linalg.row_space``). Where the means span all dimensions it is an inverse, and the
    trace is sum_j 1 / c_j, whatever the units of the features. Not invariant under linear maps
    (Observation 4.2). NaN if all class means coincide.

    Reference:
      Papyan, Han & Donoho (2020), Fig. 6; Xu & Liu (2023), Section 3 and Table 2.
      ``variability_pinv`` of rhubarbwu/neural-collapse is D / K times this: it divides Sigma_B by
      D. A pinv with NumPy's default cutoff can invert rounding noise (docs/definitions.md).
    """
    ratios = jnp.where(geometry.canonical.kept, geometry.canonical.ratios, jnp.inf)
    total = jnp.where(spanned(geometry), jnp.sum(1 / ratios), _between_parts(geometry)[0])
    value = total / jnp.maximum(jnp.sum(geometry.present), 1)
    return jnp.where(jnp.any(geometry.between.kept), value, jnp.nan)


def spanned(geometry: Geometry) -> Bool[Array, ""]:
    """Whether the class means span all D dimensions, so that Sigma_B is invertible.

    By the discriminant directions, which no units of the features can hide.
    """
    return jnp.sum(geometry.canonical.kept) == geometry.offsets.shape[1]


def between_rank(geometry: Geometry) -> Int[Array, ""]:
    """Rank of Sigma_B: how many of its directions stand out from rounding."""
    rank = jnp.sum(geometry.between.kept, dtype=jnp.int32)
    return jnp.where(spanned(geometry), geometry.offsets.shape[1], rank)


def squared_distance(geometry: Geometry) -> Scalar:
    """Tr Sigma_W / Tr Sigma_B, within- over between-class squared distance.

    Invariant under rotation and scaling, not under other maps. NaN if all class means coincide.

    Reference:
      Xu & Liu (2023), Eq. 4. ``variability_ratio`` of rhubarbwu/neural-collapse is D / K times
      this: it divides Sigma_B by D.
    """
    between = jnp.sum(geometry.proportion[:, None] * geometry.offsets**2)
    return geometry.within_trace / jnp.where(between > 0, between, jnp.nan)


def squared_distance_adjusted(geometry: Geometry) -> Scalar:
    """``squared_distance`` of the population: both traces without the noise of the class means.

        sum_k p_k s_k / (Tr Sigma_B - sum_k p_k (1 - p_k) s_k / n_k),  s_k = n_k / (n_k - 1) var_k

    Numerator and denominator are unbiased for any distributions of the classes. NaN if a class has
    a single sample, or where class means differ by no more than noise would make them.
    """
    spread = _unbiased_variance(geometry)
    count = jnp.maximum(geometry.moments.count, 1).astype(spread.dtype)
    share = geometry.proportion
    between = jnp.sum(share[:, None] * geometry.offsets**2)
    between -= jnp.sum(share * (1 - share) * spread / count)
    return jnp.sum(share * spread) / jnp.where(between > 0, between, jnp.nan)


def cosine_similarity(geometry: Geometry) -> Scalar:
    """Mean cosine of two samples of one class, self-pairs included, averaged over classes.

        (1 / K) sum_k || (1 / n_k) sum_{i in k} h_i / ||h_i|| ||^2

    Features are not centred; larger is more collapsed; classes weigh equally whatever the
    weighting. A zero vector has no direction and counts with cosine 0 to everything.

    Reference:
      Kornblith et al. (2021), Appendix; Xu & Liu (2023), Section 3: 1 - d_within.
    """
    moments = geometry.moments
    means = jnp.where(geometry.present[:, None], moments.unit_pivot + unit_means(moments), 0)
    return jnp.sum(means**2) / _classes(geometry)


def class_separation(geometry: Geometry) -> Scalar:
    """1 - d_within / d_total in cosine distance; larger is more collapsed.

    d_within = 1 - ``cosine_similarity``; d_total = 1 - || (1 / K) sum_k u_k ||^2 with u_k the mean
    of h / ||h|| in class k. As d_total - d_within is the variance of the u_k, and 1 - ||u_k||^2
    that of the unit vectors of a class (and the share of zero vectors),

        d_between / (d_within + d_between)

    has no subtraction that loses small angles. NaN if all features point the same way.

    Reference:
      Kornblith, Chen, Lee & Norouzi (2021), Eq. 11, with classes weighted equally.
    """
    within, between = angles(geometry)
    total = within + between
    noise = (8 * geometry.data_eps) ** 2
    return between / jnp.where(total > noise, total, jnp.nan)


def angles(geometry: Geometry) -> tuple[Scalar, Scalar]:
    """d_within and d_total - d_within of ``class_separation``."""
    moments, classes = geometry.moments, _classes(geometry)
    count = jnp.maximum(moments.count, 1).astype(classes.dtype)
    means = unit_means(moments)
    spread = jnp.maximum(moments.unit_square / count - jnp.sum(means**2, axis=1), 0)
    spread += 1 - moments.directed.astype(classes.dtype) / count
    within = jnp.sum(jnp.where(geometry.present, spread, 0)) / classes
    centre = jnp.sum(means, axis=0) / classes
    offsets = jnp.where(geometry.present[:, None], means - centre, 0)
    return within, jnp.sum(offsets**2) / classes


def within_between_part(geometry: Geometry) -> Scalar:
    """Tr[P Sigma_W], P the projector on the column space of Sigma_B.

    The part of the variability that can blur classes; it falls over training.

    Reference:
      Xu & Liu (2023), Figure 1.
    """
    part = _between_parts(geometry)[1]
    return jnp.where(spanned(geometry), jnp.sum(jnp.diagonal(geometry.within)), part)


def within_orthogonal_part(geometry: Geometry) -> Scalar:
    """Tr[(I - P) Sigma_W], variability orthogonal to the class means; rises over training.

    Zero when D <= K - 1 and the means span everything.

    Reference:
      Xu & Liu (2023), Figure 1.
    """
    full = spanned(geometry) | (jnp.sum(geometry.between.kept) == geometry.offsets.shape[1])
    rest = jnp.sum(jnp.diagonal(geometry.within)) - within_between_part(geometry)
    return jnp.where(full, 0 * rest, jnp.maximum(rest, 0))


def probe_mse(geometry: Geometry) -> Scalar:
    """Loss of the best linear probe: min over (W, b) of the mean squared error, halved.

        (1 / 2) sum_i w_i ||W h_i + b - e_{y_i}||^2

    With w_i = p_k / n_k, canonical directions j and s_j = sum_k p_k q_jk^2, it equals

        (1 / 2) (1 - sum_k p_k^2) - (1 / 2) sum_j s_j c_j / (1 + c_j)

    which for balanced classes (p_k = s_j = 1 / K) is Theorem 5.1's
    (1 / 2)(1 - 1 / K) - Tr[Sigma_T^+ Sigma_B] / (2 K). Once every direction is kept the constants
    cancel, and only sum_j s_j / (1 + c_j) is left to add.

    Reference:
      Xu & Liu (2023), Theorem 5.1. Half the mean squared error, summed over outputs, of
      scikit-learn's ``LinearRegression`` on one-hot labels (``sample_weight`` = w_i).
    """
    missing, lost = _probe_parts(geometry)
    return jnp.where(jnp.sum(geometry.present) > 0, (missing + lost) / 2, jnp.nan)


def h_score(geometry: Geometry) -> Scalar:
    """Tr[Sigma_T^+ Sigma_B], between 0 and min(D, K - 1); larger is more collapsed.

    Reference:
      Bao et al. (2019). The Pillai-Bartlett trace, and rank (1 - VCI) when rank is that of
      Sigma_B (Xu & Liu 2023, Theorem 5.2). Agrees with ``h_score`` of
      thuml/Transfer-Learning-Library for floating features whose covariance has full rank; it
      takes a pinv cutoff of 1e-15.
    """
    canonical = geometry.canonical
    value = jnp.sum(jnp.where(canonical.kept, 1 - canonical.lost, 0))  # c / (1 + c)
    return jnp.where((geometry.rank > 0) & (canonical.rank > 0), value, jnp.nan)


def h_score_adjusted(geometry: Geometry) -> Scalar:
    """``h_score`` of the population, rank (1 - ``vci_adjusted``)."""
    return geometry.rank * (1 - vci_adjusted(geometry))


def probe_mse_adjusted(geometry: Geometry) -> Scalar:
    """``probe_mse`` of the best linear probe on the population, which new data would confirm.

    What each direction loses is taken to be biased alike, by ``vci`` / ``vci_adjusted``; for
    balanced classes that is exact. Equals (1/2)(1 - 1/K) - ``h_score_adjusted`` / (2 K) then.
    """
    plain = vci(geometry)
    ratio = vci_adjusted(geometry) / jnp.where(plain > 0, plain, 1)
    missing, lost = _probe_parts(geometry)
    return (missing + lost * ratio) / 2


def spectrum(geometry: Geometry) -> tuple[Float[Array, " r"], Float[Array, " D"]]:
    """Eigenvalues of Sigma_B (its min(D, K - 1) nonzero ones) and of Sigma_T, descending.

    Reference:
      Xu & Liu (2023), Figure 2.
    """
    return -jnp.sort(-geometry.between.squares), geometry.total.values


def _between_parts(geometry: Geometry) -> tuple[Scalar, Scalar]:
    """Tr[Sigma_W Sigma_B^+] and Tr[P Sigma_W], P the projector on the column space of Sigma_B."""
    space = geometry.between
    forms = jnp.maximum(linalg.quadratic_forms(frozen(geometry.within), space.basis), 0)
    terms = jnp.where(space.kept, forms / jnp.where(space.kept, space.squares, 1), 0)
    return derivatives.between_parts(
        space,
        (jnp.sum(terms), jnp.sum(forms)),
        geometry.within,
        jnp.sqrt(geometry.proportion)[:, None] * geometry.offsets,
    )


def _probe_parts(geometry: Geometry) -> tuple[Scalar, Scalar]:
    """The parts of twice ``probe_mse``: label variance out of reach, and lost to Sigma_W.

    With fewer features than K - 1, some of the labels' variance is out of reach of any probe.
    """
    canonical = geometry.canonical
    share = jnp.where(canonical.kept, canonical.share, 0)
    classes = jnp.sum(geometry.present)
    complete = jnp.sum(canonical.kept) == classes - 1
    seen, lost = derivatives.label_parts(
        canonical.directions,
        (jnp.sum(share), jnp.sum(share * canonical.directions.lost)),
        complete,
        geometry.within,
        jnp.sqrt(geometry.proportion)[:, None] * geometry.offsets,
        geometry.proportion,
    )
    rest = jnp.where(complete, 0, 1 - jnp.sum(geometry.proportion**2) - seen)
    few = canonical.rank < classes - 1
    return jnp.where(few, rest, 0), lost + jnp.where(few, 0, rest)


def _unbiased_variance(geometry: Geometry) -> Float[Array, " K"]:
    """s_k, the trace of each class' covariance over n_k - 1; NaN for a class of one sample."""
    count = geometry.moments.count.astype(geometry.variance.dtype)
    factor = jnp.where(count > 1, count / jnp.maximum(count - 1, 1), jnp.nan)
    return geometry.variance * jnp.where(geometry.present, factor, 0)


def _classes(geometry: Geometry) -> Scalar:
    """Number of classes present; NaN for none, so that means over no class are NaN."""
    classes = jnp.sum(geometry.present).astype(geometry.offsets.dtype)
    return jnp.where(classes > 0, classes, jnp.nan)
