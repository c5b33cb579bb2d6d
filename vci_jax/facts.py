"""Facts about the data that ``caveats`` asks for, of those that take no eigenvectors."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vci_jax import caveats, structure
from vci_jax.geometry import Geometry, underflows


def of_geometry(geometry: Geometry, data_eps: float) -> dict[str, Any]:
    """Returns facts by the names that ``caveats.find`` has for them."""
    moments, varying = geometry.moments, geometry.scaled.varying
    return {
        "expected_rank": jnp.minimum(varying, jnp.sum(moments.count) - 1),
        "mean_noise": _mean_noise(geometry),
        "inequality": _inequality(geometry),
        "vanishing": geometry.vanishing,
        "tight_classes": _tight_classes(geometry),
        "central_classes": _central_classes(geometry),
        "scatter_known": jnp.isfinite(geometry.variances[0]),
        "overflowed": ~jnp.isfinite(jnp.sum(moments.scatter) + jnp.sum(moments.class_scatter)),
        "underflowed": underflows(moments, geometry.offsets, data_eps),
    }


def _tight_classes(geometry: Geometry) -> Array:
    """How many classes vary so little that the rounding of means shows in their variance.

    A sum of squares about a mean that is off by r is off by up to 2 r / sd of itself, and a mean is
    rounded relative to the farthest class when states are merged.
    """
    means = jnp.where(geometry.present[:, None], geometry.moments.mean, 0)
    reach = jnp.max(jnp.sum(means**2, axis=1)) * geometry.data_eps**2
    promised = _promised(geometry)
    tight = (geometry.variance > 0) & (geometry.variance * promised**2 < 4 * reach)
    return jnp.sum(tight & geometry.present)


def _central_classes(geometry: Geometry) -> Array:
    """How many classes lie so near the centre that their distance from it may be rounding."""
    near = _promised(geometry) * structure.lengths(geometry.offsets)
    return jnp.sum((near < 2 * structure.mean_rounding(geometry)) & geometry.present)


def _promised(geometry: Geometry) -> Array:
    """The relative error that is promised."""
    in_float64, in_float32 = caveats.PROMISED
    return jnp.where(geometry.data_eps > 1e-12, in_float32, in_float64)


def _mean_noise(geometry: Geometry) -> Array:
    """Share of Tr Sigma_B that sampling noise of the class means adds, on average."""
    count = jnp.maximum(geometry.moments.count, 1).astype(geometry.variance.dtype)
    share = geometry.proportion
    between = jnp.sum(share[:, None] * geometry.offsets**2)
    noise = jnp.sum(share * (1 - share) * geometry.variance / jnp.maximum(count - 1, 1))
    return noise / jnp.where(between > 0, between, jnp.nan)


def _inequality(geometry: Geometry) -> tuple[Array, Array]:
    """How unequal classes are: K sum_k (n_k / N)^2, and the relative spread of their variances."""
    number = geometry.moments.count.astype(geometry.variance.dtype)
    share = number / jnp.maximum(jnp.sum(number), 1)
    sizes = jnp.sum(geometry.present) * jnp.sum(share**2)
    repeated = number > 1
    spread = geometry.variance * number / jnp.where(repeated, number - 1, 1)
    weight = jnp.where(repeated, share, 0)
    weight /= jnp.maximum(jnp.sum(weight), 1e-30)
    mean = jnp.sum(weight * spread)
    deviation = jnp.sqrt(jnp.sum(weight * (spread - mean) ** 2))
    return sizes, deviation / jnp.where(mean > 0, mean, jnp.nan)
