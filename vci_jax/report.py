"""Moments in, plain numbers out: every metric in float64 on the host, with reasons for gaps.

Accelerators have no fast float64 and compile ``eigh`` for minutes, while the state is a few D x D
matrices: so the finish moves it to the host CPU and runs the same functions there.

Legend: K classes, D feature dimension, N samples, P partial states.
"""

import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vci_jax import caveats, linalg, metrics, precision, transferability
from vci_jax.arrays import check_head
from vci_jax.counts import MAX_COUNT
from vci_jax.errors import messages
from vci_jax.geometry import Geometry, Weighting, factorize, underflows
from vci_jax.interval import jackknife_interval
from vci_jax.moments import ClassMoments, merge_axis
from vci_jax.storage import to_host

Head = tuple[jax.typing.ArrayLike, jax.typing.ArrayLike]


def report(
    moments: ClassMoments,
    *,
    weighting: Weighting = "sample",
    head: Head | None = None,
    confidence: float = 0.95,
    only: Collection[str] | None = None,
) -> dict[str, Any]:
    """Returns every metric as a plain float, with what a reader needs to judge it.

    Args:
      moments: one state, or a stack of partial states with leading axis P (devices or blocks of
        data); a stack is merged, and if P >= 2 gives ``vci_interval``. The blocks should be
        random or interleaved parts of the data, not different classes.
      weighting: ``"sample"`` or ``"class"``, see ``factorize``.
      head: kernel [D K] and bias [K] of the classifier; adds ``self_duality``.
      confidence: level of the interval.
      only: names of the metrics wanted, ``spectrum`` and ``vci_interval`` among them; what none of
        them needs is not computed. The four of the paper take a fifth of the time of all at
        D = 2048. By default all.

    Returns:
      A dictionary of the metrics of ``collapse_metrics`` and ``transferability_metrics``, and
        ``spectrum``: {"between": [...], "total": [...]}, eigenvalues, descending;
        ``vci_interval``: [low, high] around ``vci_adjusted``, only for a stack of states;
        ``samples``, ``classes``, ``dim``, ``kept_rank`` (of Sigma_T), ``between_rank``;
        ``label_out_of_range``, ``non_finite``: rows refused;
        ``weighting``; ``caveats``: dictionaries with ``code``, ``metrics`` and ``message`` for
        each undefined or doubtful value, see ``vci_jax.caveats``; ``warnings``: their messages.
      Undefined values are NaN.

    Raises:
      ValueError: for moments of no data, counts that overflowed, an unknown weighting, unknown
        names in ``only``, or a head of another shape, of complex numbers or with NaN or infinity.
      RuntimeError: on a TPU, if JAX_PLATFORMS leaves the CPU out.
    """
    stack = to_host(moments)
    if stack.count.ndim == 1:
        stack = jax.tree.map(lambda leaf: leaf[None], stack)
    _check(stack)
    states = stack.count.shape[0]
    check_options(weighting, only, states)
    # In one order, so that there is one program for all of them.
    wanted = None if only is None else tuple(sorted(set(only) - {"vci_interval"}))
    data_eps = float(np.finfo(np.asarray(moments.mean).dtype).eps)
    with jax.enable_x64(True), jax.default_device(linalg.host()):
        parts: Any = None
        if head is not None:
            parts = tuple(map(_widen, check_head(head, stack.mean.shape[-1], stack.mean.shape[-2])))
        values = jax.device_get(
            _finish(stack, parts, wanted, weighting=weighting, data_eps=data_eps)
        )
        result = _plain(values, stack, weighting)
        if states > 1 and (only is None or "vci_interval" in only):
            result["vci_interval"] = list(
                jackknife_interval(
                    jax.tree.map(_widen, stack),
                    weighting=weighting,
                    confidence=confidence,
                    data_eps=data_eps,
                )
            )
    found = caveats.find(result, values, data_eps)
    result["caveats"] = [caveat.to_dict() for caveat in found]
    result["warnings"] = messages(found)
    return result


def check_options(weighting: str, only: Collection[str] | None, states: int) -> None:
    """Refuses what ``report`` would, as far as can be known before there are moments.

    Raises:
      ValueError: for an unknown weighting, ``only`` that is no collection of names, or an interval
        of fewer than two states.
    """
    if weighting not in ("sample", "class"):
        raise ValueError(f'weighting must be "sample" or "class", got {weighting!r}.')
    if isinstance(only, str):
        raise ValueError(f"only must be a collection of names, got {only!r}: write [{only!r}].")
    if only is not None and "vci_interval" in only and states < 2:
        raise ValueError(
            "vci_interval needs at least two partial states: measure with blocks=10, or stack them."
        )


@functools.partial(jax.jit, static_argnames=("wanted", "weighting", "data_eps"))
def _finish(
    stack: ClassMoments,
    head: Any,
    wanted: tuple[str, ...] | None,
    *,
    weighting: Weighting,
    data_eps: float,
) -> dict[str, Any]:
    stack = jax.tree.map(_widen, stack)  # inside the program, that no copy is made
    alone = stack.count.shape[0] == 1
    moments = jax.tree.map(lambda leaf: leaf[0], stack) if alone else merge_axis(stack)
    geometry = factorize(moments, weighting=weighting, data_eps=data_eps)
    between, total = metrics.spectrum(geometry)
    values: dict[str, Any] = metrics.geometry_metrics(geometry, head)
    scores, score_errors = transferability.scores_and_errors(geometry)
    values |= scores
    values["spectrum"] = {"between": between, "total": total}
    wanted = tuple(values) if wanted is None else wanted
    if unknown := set(wanted) - set(values):
        raise ValueError(f"There is no metric {sorted(unknown)}; there are {', '.join(values)}.")
    errors = precision.relative_errors(geometry) | score_errors
    for name in ("cdnv", "cdnv_adjusted"):
        errors[name] = precision.of_cdnv(geometry, values[name])
    return {
        # Under jit what is not returned is not computed.
        "metrics": {name: values[name] for name in wanted},
        "errors": {name: error for name, error in errors.items() if name in wanted},
        "kept_rank": geometry.canonical.rank,
        "expected_rank": jnp.minimum(geometry.canonical.varying, jnp.sum(moments.count) - 1),
        "mean_noise": _mean_noise(geometry),
        "inequality": _inequality(geometry),
        "spanned": metrics.spanned(geometry),
        "vanishing": geometry.vanishing,
        "tight_classes": _tight_classes(geometry),
        "canonical_rank": jnp.sum(geometry.canonical.kept),
        "between_rank": metrics.between_rank(geometry),
        "scatter_known": jnp.isfinite(geometry.within[0, 0]),
        "overflowed": ~jnp.isfinite(jnp.sum(moments.scatter) + jnp.sum(moments.class_scatter)),
        "underflowed": underflows(geometry.offsets, data_eps),
    }


def _tight_classes(geometry: Geometry) -> Array:
    """How many classes vary so little that the rounding of means shows in their variance.

    A sum of squares about a mean that is off by r is off by up to 2 r / sd of itself, and a mean is
    rounded relative to the farthest class when states are merged.
    """
    means = jnp.where(geometry.present[:, None], geometry.moments.mean, 0)
    reach = jnp.max(jnp.sum(means**2, axis=1)) * geometry.data_eps**2
    promised = jnp.where(geometry.data_eps > 1e-12, 1e-3, 1e-8)
    tight = (geometry.variance > 0) & (geometry.variance * promised**2 < 4 * reach)
    return jnp.sum(tight & geometry.present)


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


def _plain(values: dict[str, Any], stack: ClassMoments, weighting: Weighting) -> dict[str, Any]:
    count = stack.count.astype(np.int64).sum(axis=0)
    return {
        **jax.tree.map(lambda value: value.tolist(), values["metrics"]),
        "samples": int(count.sum()),
        "classes": int((count > 0).sum()),
        "dim": int(stack.mean.shape[-1]),
        "kept_rank": int(values["kept_rank"]),
        "between_rank": int(values["between_rank"]),
        "label_out_of_range": int(stack.label_out_of_range.sum()),
        "non_finite": int(stack.non_finite.sum()),
        "weighting": weighting,
    }


def _check(stack: ClassMoments) -> None:
    if np.any(stack.count < 0) or np.any(stack.count.astype(np.int64).sum(axis=0) >= MAX_COUNT):
        raise ValueError(
            "2^31 - 1 samples or more in one class: the int32 counts overflowed, and no metric "
            "is known. Report on parts of the data."
        )
    if not np.any(stack.count):
        refused = int(stack.label_out_of_range.sum() + stack.non_finite.sum())
        raise ValueError(
            f"The moments hold no samples ({refused:,} rows were refused for their label or for "
            "NaN): call update first."
        )


def _widen(leaf: Any) -> Array:
    return jnp.asarray(
        leaf, jnp.float64 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype
    )
