"""How many digits of each metric rounding has left, to first order.

Sums round relative to what is added up, and eigenvalues relative to the largest; what a metric
makes of that depends on the data. A metric that divides by a small eigenvalue, or subtracts two
numbers that are nearly equal, has fewer digits than its inputs. ``report`` warns of those that
have fewer than promised.

Legend: e the roundoff of the moments, eps that of the arithmetic, K classes, D features.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vci_jax import adjusted, linalg, metrics, structure
from vci_jax.geometry import Geometry

Scalar = Float[Array, ""]


def relative_errors(geometry: Geometry) -> dict[str, Scalar]:
    """About how large the relative errors of the metrics may be, by name.

    For the cosines, and for what is an angle or a ratio below one (NC2), errors are absolute.
    Infinity stands for a value that is all rounding.
    """
    errors = {**_of_trace(geometry), **_of_means(geometry), **_of_angles(geometry)}
    # Without any variance within classes that is seen, both are zero, and as sure.
    nothing = metrics.fuzziness(geometry) == 0
    errors["fuzziness"] = jnp.where(nothing, errors["vci"], errors["fuzziness"])
    return errors


def of_distances(geometry: Geometry, cdnv: Scalar, adjusted: Scalar) -> dict[str, Scalar]:
    """The relative errors of ``cdnv`` and of ``cdnv_adjusted``, from their values."""
    rounding = _ratio(structure.cdnv_adjusted_rounding(geometry), adjusted)
    return {
        "cdnv": _of_cdnv(geometry, cdnv),
        "cdnv_adjusted": jnp.maximum(_of_cdnv(geometry, adjusted), rounding),
    }


def _of_cdnv(geometry: Geometry, value: Scalar) -> Scalar:
    """The relative error of ``cdnv``, from its value: 2 rho / d for the closest pair of means.

    The term of the closest pair is at most the sum of all P pairs, so d^2 >= var / (P ``cdnv``)
    with the smallest variance of a class that has one.
    """
    rounding = jnp.max(jnp.where(geometry.present, structure.mean_rounding(geometry), 0))
    classes = jnp.sum(geometry.present).astype(value.dtype)
    spread = jnp.where(geometry.variance > 0, geometry.variance, jnp.inf)
    pairs = classes * (classes - 1) / 2
    shortest = jnp.sqrt(jnp.min(spread) / jnp.maximum(pairs * value, 1e-300))
    of_within = _ratio(jnp.sum(geometry.within_noise), geometry.within_trace)
    finite = jnp.isfinite(value) & (value > 0)
    apart = jnp.where(finite, 2 * rounding / shortest, 0)
    return apart + of_within + 8 * geometry.data_eps


def _of_trace(geometry: Geometry) -> dict[str, Scalar]:
    """From the errors of the sums of d_j = 1 / (1 + c_j), and of d_j by the labels' share."""
    canonical, limit = geometry.canonical, geometry.rank
    lost = jnp.where(canonical.kept, 1 / (1 + canonical.ratios), 0)
    explained = jnp.sum(jnp.where(canonical.kept, 1, 0) - lost)
    missed = jnp.sum(lost) + limit - jnp.sum(canonical.kept)
    # Where ratios may have changed by a part that is not small, the second order counts as well.
    part = jnp.minimum(_ratio(canonical.doubt, jnp.sum(lost * (1 - lost))), 1)
    vci, score = _ratio(canonical.doubt, missed), _ratio(canonical.doubt, explained) + part**2
    labels = _ratio(canonical.doubt_labels, 2 * metrics.probe_mse(geometry))
    estimate, off = metrics.vci_adjusted(geometry), _of_adjusted(geometry)
    off = jnp.maximum(off, vci * jnp.abs(estimate))
    plain = jnp.where(missed > 0, missed / limit, 1)
    return {
        "vci": vci,
        "probe_mse": labels,
        "h_score": score,
        "vci_adjusted": _ratio(off, jnp.abs(estimate)),
        "probe_mse_adjusted": jnp.maximum(_ratio(off, jnp.abs(estimate)), labels)
        + canonical.faintness * jnp.abs(estimate / plain - 1),
        "h_score_adjusted": part**2
        + _ratio(limit * off, jnp.abs(metrics.h_score_adjusted(geometry))),
    }


def _of_adjusted(geometry: Geometry) -> Scalar:
    """By how much ``vci_adjusted`` changes if all ratios are off by as much as they may be.

    Near the pole of its equation a small error of the ratios is a large one of the root.
    """
    canonical, plain = geometry.canonical, metrics.vci(geometry)
    lost = jnp.where(canonical.kept, 1 / (1 + canonical.ratios), 0)
    weight = jnp.sum(lost * (1 - lost))
    part = jnp.minimum(_ratio(canonical.doubt, weight), 0.5) + 4 * geometry.data_eps
    sample = metrics.sample(geometry)
    value = adjusted.adjusted_vci(sample, plain)
    moved = [
        adjusted.adjusted_vci(sample._replace(ratios=sample.ratios * (1 + sign * part)), plain)
        for sign in (-1, 1)
    ]
    return jnp.maximum(jnp.abs(moved[0] - value), jnp.abs(moved[1] - value))


def _of_means(geometry: Geometry) -> dict[str, Scalar]:
    """From the rounding of the class means, relative to how far apart they are."""
    between, canonical = geometry.between, geometry.canonical
    dtype = geometry.offsets.dtype
    eps = float(np.finfo(dtype).eps)
    kept, squares = between.kept, jnp.where(between.kept, between.squares, 1)
    largest = jnp.max(jnp.where(kept, squares, 0), initial=0)
    rounding = jnp.sqrt(linalg.matmul(geometry.noise, between.basis**2)) + 4 * eps * jnp.sqrt(
        largest
    )
    size_of = jnp.sqrt(squares)
    relative = jnp.where(kept, rounding / size_of, 0)
    variances = jnp.maximum(geometry.variances, 0)
    forms = jnp.maximum(linalg.quadratic_forms(geometry.within, between.basis), 0)
    diagonal = 8 * geometry.data_eps * variances + geometry.within_noise
    entries = linalg.matmul(diagonal, between.basis**2)
    # A basis vector is turned towards another by its rounding over the larger of both lengths, and
    # out of the span by that over its own. The eigenvectors of a Gram matrix are turned by eps over
    # the larger of both squares, relative to the largest, which ``row_space`` keeps below a bound.
    worst = 4e-9 if dtype == jnp.float64 else 4e-4

    def angle(length: Array) -> Array:
        return rounding[:, None] / length + jnp.minimum(4 * eps * largest / length**2, worst)

    pairs = angle(jnp.maximum(size_of, size_of[:, None])) ** 2
    inside = jnp.sqrt(linalg.matmul(pairs, jnp.where(kept, forms, 0)))
    outside = angle(size_of[:, None])[:, 0] * jnp.sqrt(metrics.within_orthogonal_part(geometry))
    turned = (4 * jnp.sqrt(forms) + inside + outside) * (inside + outside)
    part = jnp.sum(jnp.where(kept, turned + entries, 0))
    along = metrics.within_between_part(geometry)
    across = metrics.within_orthogonal_part(geometry)
    terms = jnp.where(kept, forms / squares, 0)
    of_terms = jnp.where(kept, (2 * relative * forms + turned + entries) / squares, 0)
    noise = jnp.sqrt(jnp.sum(geometry.noise))
    size = jnp.sqrt(jnp.sum(geometry.proportion[:, None] * geometry.offsets**2))
    of_within = _ratio(jnp.sum(diagonal), geometry.within_trace)
    traces = _ratio(2 * noise, size) + of_within
    norms = jnp.sqrt(jnp.sum(geometry.offsets**2, axis=1))
    shortest = jnp.min(jnp.where(geometry.present, norms, jnp.inf))
    smallest = jnp.sqrt(jnp.min(jnp.where(geometry.present, geometry.proportion, 1)))
    return {
        "fuzziness": jnp.where(
            metrics.spanned(geometry),
            canonical.doubt_inverse,
            _ratio(jnp.sum(of_terms), jnp.sum(terms)),
        ),
        "within_between_part": _ratio(part, along),
        "within_orthogonal_part": jnp.where(
            across > 0,
            _ratio(part + jnp.sum(diagonal), across),
            jnp.where(metrics.spanned(geometry) | (geometry.within_trace > 0), 0, of_within),
        ),
        "squared_distance": traces,
        "squared_distance_adjusted": _adjusted(geometry, traces),
        "shrinkage_h_score": traces,
        "spectrum": traces,
        "equinorm": _ratio(noise, size * smallest),
        "etf_error": _ratio(noise, size),
        "self_duality": _ratio(noise, size),
        "equiangularity": _ratio(noise, shortest * smallest),
    }


def _adjusted(geometry: Geometry, error: Scalar) -> Scalar:
    """An error of Tr Sigma_B, relative to what the adjusted form leaves of it."""
    plain = metrics.squared_distance(geometry)
    return error * jnp.maximum(metrics.squared_distance_adjusted(geometry) / plain, 1)


def _of_angles(geometry: Geometry) -> dict[str, Scalar]:
    """Unit vectors are right to a few e, in float32 of features that are."""
    within, between = metrics.angles(geometry)
    total = jnp.sqrt(within + between)
    error = 2 * geometry.data_eps
    return {
        "cosine_similarity": 4 * error * jnp.ones_like(total),
        "class_separation": _ratio(4 * error, total),
    }


def _ratio(error: Array, value: Array) -> Scalar:
    """Error over value, zero where both are and infinite where only the value is."""
    safe = jnp.where(value > 0, value, 1)
    return jnp.where(value > 0, error / safe, jnp.where(error <= 0, 0, jnp.inf))
