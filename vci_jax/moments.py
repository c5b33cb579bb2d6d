"""One streaming pass over labelled features: everything VCI needs, in one state.

The state holds sufficient statistics only; every metric is a function of it (``metrics.py``).
The algebra is that of a commutative monoid, up to rounding: ``init`` is the identity, ``merge``
is associative and commutative, and ``update`` equals merging in the moments of one batch. So a
pass may be cut into batches, devices, hosts or days in any way.

Known instances: ``optax`` gradient states, ``clu.metrics``, and the parallel variance of Chan,
Golub and LeVeque, of which ``update`` is the matrix version.

Legend: N samples in the batch, K classes, D feature dimension, P partial states.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Num

from vci_jax import linalg
from vci_jax.batch import Batch, add_per_class, in_pieces, of_class, per_class, unit_rows, vet
from vci_jax.counts import add_counts, class_weight, sum_counts
from vci_jax.errors import VCIError, check_count, check_dtype, check_moments
from vci_jax.placement import anywhere, like, without_leading
from vci_jax.scatter import add_in_pieces


class ClassMoments(NamedTuple):
    """Sufficient statistics of labelled features.

    Class means are kept relative to ``pivot`` (the mean of the first batch), so that a mean of
    1e4 standard deviations costs no digits; ``class_means`` adds it back. The scatter is that of
    every class about its own mean, never a difference of second moments, so nothing cancels when
    classes collapse; ``scatter + scatter_residual`` is its compensated (two-sum) value.

    ``class_weight`` is the weight at which each class enters ``scatter``: one, unless ``init``
    was told the class counts. Unit vectors h / ||h|| are summed about ``unit_pivot``, the mean of
    the first batch's, so that features far from the origin keep the angles between them;
    ``unit_square`` sums their squared distances to it, and ``directed`` counts the rows of a class
    that have a direction (are not zero). The radial sums are the third and fourth moments that
    Ledoit-Wolf shrinkage needs. The last two fields count rows that were refused. Counts saturate
    at 2^31 - 1 instead of wrapping around (``counts.py``).
    """

    count: Int[Array, " K"]  # type: ignore[assignment]  # shadows tuple.count, on purpose
    pivot: Float[Array, " D"]
    mean: Float[Array, "K D"]
    scatter: Float[Array, "D D"]
    scatter_residual: Float[Array, "D D"]
    class_scatter: Float[Array, " K"]
    class_weight: Float[Array, " K"]
    unit_pivot: Float[Array, " D"]
    unit_sum: Float[Array, "K D"]
    unit_square: Float[Array, " K"]
    directed: Int[Array, " K"]
    radial_cubic: Float[Array, " D"]
    radial_quartic: Float[Array, ""]
    label_out_of_range: Int[Array, ""]
    non_finite: Int[Array, ""]


def init(
    num_classes: int,
    dim: int,
    *,
    class_counts: jax.typing.ArrayLike | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> ClassMoments:
    """Returns the moments of no data, the identity of ``merge``.

    Args:
      num_classes: K, labels are 0 .. K-1. Classes that never appear are masked in the metrics.
      dim: D, width of the features.
      class_counts: how many samples of each class the whole pass will see. Only needed for
        ``weighting="class"`` on imbalanced data: class k then enters the pooled scatter with
        weight ``mean(class_counts) / class_counts[k]``. No bounded state can do this afterwards,
        since sum_k S_k / n_k is not a function of sum_k S_k.
      dtype: of the statistics; ``float64`` needs ``jax.enable_x64``.

    Raises:
      VCIError: for sizes below one, a dtype that is not floating or not available, or counts
        of another shape.
    """
    for name, size in (("num_classes", num_classes), ("dim", dim)):
        check_count(name, size)
    dtype = check_dtype(dtype)
    if dtype not in (jnp.float32, jnp.float64):
        raise VCIError(f"Moments need float32 or float64, got dtype={dtype.name}.")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise VCIError("float64 moments need jax.enable_x64(True), or JAX_ENABLE_X64=1.")
    weight = jnp.ones(num_classes, dtype)
    if class_counts is not None:
        weight = class_weight(class_counts, num_classes, dtype)
    return ClassMoments(
        count=jnp.zeros(num_classes, jnp.int32),
        pivot=jnp.zeros(dim, dtype),
        mean=jnp.zeros((num_classes, dim), dtype),
        scatter=jnp.zeros((dim, dim), dtype),
        scatter_residual=jnp.zeros((dim, dim), dtype),
        class_scatter=jnp.zeros(num_classes, dtype),
        class_weight=weight,
        unit_pivot=jnp.zeros(dim, dtype),
        unit_sum=jnp.zeros((num_classes, dim), dtype),
        unit_square=jnp.zeros(num_classes, dtype),
        directed=jnp.zeros(num_classes, jnp.int32),
        radial_cubic=jnp.zeros(dim, dtype),
        radial_quartic=jnp.zeros((), dtype),
        label_out_of_range=jnp.zeros((), jnp.int32),
        non_finite=jnp.zeros((), jnp.int32),
    )


@anywhere(like)
def update(
    moments: ClassMoments,
    features: Num[Array, "N D"],
    labels: Integer[Array, " N"],
    mask: Num[Array, " N"] | None = None,
) -> ClassMoments:
    """Adds one batch to the moments, with a single D x N by N x D product and no collective.

    For class k with running mean mu (n samples) and batch mean mu + delta (m samples), the rows
    r_i = h_i - mu - (1 - sqrt(n / (n + m))) delta have, in class k, sum zero-cross-term scatter

        sum_i r_i r_i^T = sum_i (h_i - mu - delta)(h_i - mu - delta)^T + n m / (n + m) delta delta^T

    which is the update of Chan, Golub and LeVeque (1983, Eq. 2.1) for all classes at once. A
    class met for the first time is measured from one of its own samples instead of mu, so that
    its scatter is formed from small differences as well.

    Args:
      moments: the state so far; donate it (``donate_argnums=0``) to update in place.
      features: any real dtype; converted to the dtype of the state. Images of shape
        [N, H, W, C] must be pooled or flattened first. NumPy arrays that are arguments of your own
        ``jax.jit`` must pass ``canonicalize_batch`` first, see there; or call ``jit_update``.
      labels: integers 0 .. K-1. Rows with another label are left out and counted in
        ``label_out_of_range``; rows with NaN or infinity are left out and counted in
        ``non_finite``. Neither is ever folded into a class.
      mask: rows with zero or False are ignored altogether (padding): whatever they hold, they
        change nothing and are not counted.

    Returns:
      The new state, of the same shapes and dtypes.

    Raises:
      VCIError: at trace time, for ranks, widths or dtypes that do not fit.
    """
    if moments.count.ndim != 1:
        raise VCIError(
            f"update takes one state, got partial states with count {moments.count.shape}. "
            "Use jax.vmap(update) for one batch a state, or merge_axis first."
        )
    batch = vet(features, labels, mask, moments.mean)
    if not batch.labels.size:
        return moments
    small = batch.labels.size <= 1024
    added: ClassMoments = jax.lax.platform_dependent(
        moments,
        batch,
        cpu=partial(_accumulate, whole=small),
        default=partial(_accumulate, whole=True),
    )
    return added._replace(
        label_out_of_range=add_counts(moments.label_out_of_range, batch.label_out_of_range),
        non_finite=add_counts(moments.non_finite, batch.non_finite),
    )


@anywhere(like)
def merge(a: ClassMoments, b: ClassMoments) -> ClassMoments:
    """Returns the moments of the data of both states together (Chan's formula).

    The scatter grows by sum_k w_k n_k m_k / (n_k + m_k) delta_k delta_k^T, one K x D product.
    States whose ``class_weight`` differ cannot be pooled: unless one of them is empty, the
    scatter of the result is NaN.

    Raises:
      VCIError: if the states have different shapes or dtypes.
    """
    _check_same(a, b)
    empty = ~jnp.any(a.count > 0)
    pivot = jnp.where(empty, b.pivot, a.pivot)
    unit_pivot = jnp.where(empty, b.unit_pivot, a.unit_pivot)
    weight = jnp.where(empty, b.class_weight, a.class_weight)
    poolable = empty | ~jnp.any(b.count > 0) | jnp.all(a.class_weight == b.class_weight)
    a, b = (rebase_units(rebase(part, pivot), unit_pivot) for part in (a, b))
    share, pairs = _shares(a.count, b.count, pivot.dtype)
    delta = jnp.where((b.count > 0)[:, None], b.mean - a.mean, 0)
    rows = jnp.sqrt(weight * pairs)[:, None] * delta
    scatter, residual = linalg.two_sum(a.scatter, b.scatter)
    scatter, residual = linalg.add_gram(scatter, residual, rows)
    return ClassMoments(
        count=add_counts(a.count, b.count),
        pivot=pivot,
        mean=a.mean + share[:, None] * delta,
        scatter=jnp.where(poolable, scatter, jnp.nan),
        scatter_residual=residual + a.scatter_residual + b.scatter_residual,
        class_scatter=a.class_scatter + b.class_scatter + pairs * jnp.sum(delta**2, axis=1),
        class_weight=weight,
        unit_pivot=unit_pivot,
        unit_sum=a.unit_sum + b.unit_sum,
        unit_square=a.unit_square + b.unit_square,
        directed=add_counts(a.directed, b.directed),
        radial_cubic=a.radial_cubic + b.radial_cubic,
        radial_quartic=a.radial_quartic + b.radial_quartic,
        label_out_of_range=add_counts(a.label_out_of_range, b.label_out_of_range),
        non_finite=add_counts(a.non_finite, b.non_finite),
    )


@anywhere(without_leading)
def merge_axis(moments: ClassMoments) -> ClassMoments:
    """Folds a leading axis of partial states (devices, hosts, jackknife blocks) into one state.

    Chan's formula for all states at once: with mu_k the merged means, the scatter grows by
    sum_pk w_k n_pk (mu_pk - mu_k)(mu_pk - mu_k)^T, one P K x D product. Sums alone cross the
    leading axis, so on sharded [P, ...] arrays ``jit`` adds a device's part to the others'
    (all-reduce) and no device ever holds two states. Under ``shard_map`` or ``pmap`` leave the
    region first.

    Raises:
      VCIError: if there is no leading axis.
    """
    if moments.count.ndim != 2:
        raise VCIError(
            "merge_axis folds a leading axis of partial states: count must be [P, K], "
            f"got {moments.count.shape}. For two states use merge."
        )
    full = jnp.any(moments.count > 0, axis=1)
    first = jnp.arange(full.size) == jnp.argmax(full)  # the first state that holds anything
    pivot = jnp.sum(jnp.where(first[:, None], moments.pivot, 0), axis=0)
    unit_pivot = jnp.sum(jnp.where(first[:, None], moments.unit_pivot, 0), axis=0)
    weight = jnp.sum(jnp.where(first[:, None], moments.class_weight, 0), axis=0)
    poolable = jnp.all((moments.class_weight == weight) | ~full[:, None])
    parts = jax.vmap(rebase, in_axes=(0, None))(moments, pivot)
    parts = jax.vmap(rebase_units, in_axes=(0, None))(parts, unit_pivot)
    size = parts.count.astype(pivot.dtype)
    count = sum_counts(parts.count)
    share = size / jnp.maximum(count, 1).astype(pivot.dtype)
    mean = jnp.sum(share[:, :, None] * parts.mean, axis=0)
    delta = jnp.where((parts.count > 0)[:, :, None], parts.mean - mean, 0)
    rows = jnp.sqrt(weight * size)[:, :, None] * delta
    scatter, residual = linalg.exact_sum(parts.scatter)
    residual += jnp.sum(parts.scatter_residual, axis=0)
    scatter, residual = linalg.add_gram(scatter, residual, rows.reshape(-1, rows.shape[-1]))
    totals: ClassMoments = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)
    return totals._replace(
        count=count,
        pivot=pivot,
        unit_pivot=unit_pivot,
        mean=mean,
        scatter=jnp.where(poolable, scatter, jnp.nan),
        scatter_residual=residual,
        class_scatter=totals.class_scatter + jnp.sum(size * jnp.sum(delta**2, axis=2), axis=0),
        class_weight=weight,
        directed=sum_counts(parts.directed),
        label_out_of_range=sum_counts(parts.label_out_of_range),
        non_finite=sum_counts(parts.non_finite),
    )


@anywhere()
def class_means(moments: ClassMoments) -> Float[Array, "K D"]:
    """Returns the class means mu_k; rows of absent classes are zero."""
    check_moments(moments)
    return jnp.where((moments.count > 0)[:, None], moments.pivot + moments.mean, 0)


def _accumulate(moments: ClassMoments, batch: Batch, whole: bool) -> ClassMoments:
    """Update with a vetted batch, but for the counts of refused rows.

    In two passes over its rows, one before and one after the means of the batch are known.

    Args:
      moments: the state so far.
      batch: what to add.
      whole: take all rows at once, for accelerators. A CPU waits for temporaries that leave its
        cache, and takes a few at a time. Any cut of the data gives the same moments.
    """
    dtype, used, num_classes = moments.mean.dtype, batch.used, moments.count.shape[0]
    batch_count = per_class(used.astype(jnp.int32), batch, num_classes)
    directed = per_class(batch.directed.astype(jnp.int32), batch, num_classes)
    size = jnp.maximum(jnp.sum(batch_count), 1).astype(dtype)

    def first_mean(rows: Callable[[], Array], old: Array) -> Array:
        mean = jax.lax.cond(
            jnp.any(moments.count > 0),
            lambda: old,
            lambda: jnp.sum(jnp.where(used[:, None], rows(), 0), axis=0) / size,
        )
        constant: Array = jax.lax.stop_gradient(mean)  # which point it is changes nothing
        return constant

    pivot = first_mean(lambda: batch.features, moments.pivot)
    unit_pivot = first_mean(lambda: unit_rows(batch), moments.unit_pivot)
    point, mean, rounding = _points(moments, batch, pivot)

    def add_sums(sums: tuple[Array, ...], part: Batch) -> tuple[Array, ...]:
        offsets, unit_sum, unit_square, cubic, quartic = sums
        shifted = jnp.where(part.used[:, None], part.features - pivot, 0)
        radius = jnp.sum(shifted**2, axis=1)
        units = unit_rows(part) - unit_pivot
        return (
            add_per_class(offsets, _offsets(part, point), part),
            add_per_class(unit_sum, units, part),
            unit_square + per_class(jnp.sum(units**2, axis=1), part, num_classes),
            cubic + linalg.matmul(radius, shifted),
            quartic + jnp.sum(radius**2),
        )

    fields = "mean", "unit_sum", "unit_square", "radial_cubic", "radial_quartic"
    sums = tuple(jnp.zeros_like(getattr(moments, field)) for field in fields)
    sums = add_sums(sums, batch) if whole else in_pieces(add_sums, sums, batch)
    offsets, unit_sum, unit_square, cubic, quartic = sums
    delta = offsets / jnp.maximum(batch_count, 1).astype(dtype)[:, None] - rounding
    share, _ = _shares(moments.count, batch_count, dtype)
    # 1 - sqrt(n / (n + m)), written without its cancellation for m << n.
    shift = (share / (1 + jnp.sqrt(1 - share)))[:, None] * delta + rounding

    def weighted_rows(part: Batch) -> Array:
        """r_i by the root of the weight of its class."""
        rows = _offsets(part, point) - of_class(shift, part)
        rows = jnp.sqrt(of_class(moments.class_weight, part))[:, None] * rows
        return jnp.where(part.used[:, None], rows, 0)

    state = moments.scatter, moments.scatter_residual
    if whole:
        rows = weighted_rows(batch)
        scatter, residual = linalg.add_gram(*state, rows)
        squares = per_class(jnp.sum(rows**2, axis=1), batch, num_classes)
    else:
        scatter, residual, squares = add_in_pieces(*state, weighted_rows, batch, num_classes)
    return moments._replace(
        count=add_counts(moments.count, batch_count),
        pivot=pivot,
        mean=jnp.where((batch_count > 0)[:, None], mean + share[:, None] * delta, moments.mean),
        scatter=scatter,
        scatter_residual=residual,
        class_scatter=moments.class_scatter + squares / moments.class_weight,
        unit_pivot=unit_pivot,
        unit_sum=moments.unit_sum + unit_sum,
        unit_square=moments.unit_square + unit_square,
        directed=add_counts(moments.directed, directed),
        radial_cubic=moments.radial_cubic + cubic,
        radial_quartic=moments.radial_quartic + quartic,
    )


def _offsets(batch: Batch, point: Float[Array, "K D"]) -> Float[Array, "N D"]:
    """The rows, measured from the points of their classes; rows left out hold anything."""
    return batch.features - of_class(point, batch)


def _points(
    moments: ClassMoments, batch: Batch, pivot: Float[Array, " D"]
) -> tuple[Float[Array, "K D"], Float[Array, "K D"], Float[Array, "K D"]]:
    """Where each class is measured from: its running mean, or its last sample if it is new.

    Returns the points themselves, the means relative to the pivot that they stand for, and what
    rounding took off their sums: pivot + mean = point + rounding. Samples near a point differ from
    it without rounding (Sterbenz), however far both lie from the pivot.
    """
    labels, size = batch.labels, moments.mean.shape[0]
    last = jax.ops.segment_max(jnp.arange(labels.shape[0]), labels, size)
    sample = jnp.take(batch.features, jnp.maximum(last, 0), axis=0, mode="clip")
    seen = (moments.count > 0)[:, None]
    total, rounding = linalg.two_sum(pivot, moments.mean)
    met = (last >= 0)[:, None]  # a class without a row takes nobody's sample, NaN perhaps
    point = jnp.where(seen, total, jnp.where(met, sample, pivot))
    mean = jnp.where(seen, moments.mean, point - pivot)
    return point, mean, jnp.where(seen, rounding, 0)


def rebase(moments: ClassMoments, pivot: Float[Array, " D"]) -> ClassMoments:
    """Expresses the moments about another pivot.

    With x_i = h_i - old pivot, e = old - new pivot and a_i = ||x_i||^2, the new radius is
    a_i + 2 x_i.e + c with c = ||e||^2. Expanding its products with (x_i + e) and with itself
    leaves sums of a_i, x_i and x_i x_i^T, which the other fields give.
    """
    seen = (moments.count > 0)[:, None]
    step = moments.pivot - pivot
    square = jnp.sum(step**2)
    count = moments.count.astype(pivot.dtype)
    first = linalg.matmul(count, moments.mean)
    radius = jnp.sum(moments.class_scatter) + jnp.sum(count[:, None] * moments.mean**2)
    # (sum_i x_i x_i^T) e. The scatter is unweighted here or the shrinkage is not reported.
    within = moments.scatter + moments.scatter_residual
    along = linalg.matmul(moments.mean, step)
    second = linalg.matmul(within, step)
    second += linalg.matmul(count * along, moments.mean)
    total, dot = jnp.sum(count), linalg.matmul(first, step)
    cubic = moments.radial_cubic
    cubic_step = linalg.matmul(cubic, step)
    second_step = linalg.matmul(second, step)
    new_cubic = cubic + 2 * second + square * first + (radius + 2 * dot + square * total) * step
    new_quartic = moments.radial_quartic + 4 * (cubic_step + second_step + square * dot)
    new_quartic += square * (2 * radius + square * total)
    return moments._replace(
        pivot=pivot,
        mean=jnp.where(seen, moments.mean + step, 0),
        radial_cubic=new_cubic,
        radial_quartic=new_quartic,
    )


def rebase_units(moments: ClassMoments, pivot: Float[Array, " D"]) -> ClassMoments:
    """Expresses the sums of unit vectors u about another pivot.

    With e = old - new pivot, sum_i (u_i - new) = sum_i (u_i - old) + n e, and the squares gain
    2 e . sum_i (u_i - old) + n ||e||^2.
    """
    step = moments.unit_pivot - pivot
    count = moments.count.astype(pivot.dtype)
    return moments._replace(
        unit_pivot=pivot,
        unit_sum=moments.unit_sum + count[:, None] * step,
        unit_square=moments.unit_square
        + 2 * linalg.matmul(moments.unit_sum, step)
        + count * jnp.sum(step**2),
    )


def unit_means(moments: ClassMoments) -> Float[Array, "K D"]:
    """Means of h / ||h|| in each class, about ``unit_pivot``; zero for absent classes."""
    count = jnp.maximum(moments.count, 1).astype(moments.unit_sum.dtype)
    return moments.unit_sum / count[:, None]


def _shares(
    old: Int[Array, " K"], new: Int[Array, " K"], dtype: jax.typing.DTypeLike
) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    """The factors m / (n + m) and n m / (n + m), both zero for an empty class."""
    total = jnp.maximum(add_counts(old, new), 1).astype(dtype)
    share = new.astype(dtype) / total
    return share, old.astype(dtype) * share


def _check_same(a: ClassMoments, b: ClassMoments) -> None:
    check_moments(a, b)
    for name, left, right in zip(a._fields, a, b, strict=True):
        if left.shape != right.shape or left.dtype != right.dtype:
            raise VCIError(
                f"Cannot merge: {name} is {left.dtype} {left.shape} in one state and "
                f"{right.dtype} {right.shape} in the other. Give both the same num_classes, "
                "dim and dtype."
            )
