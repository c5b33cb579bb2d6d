"""NC4: how often the nearest class mean and the classifier agree.

It needs finished class means, so it takes a second pass over the features, with the same verbs
as the moments: ``init``, ``update``, ``merge``, ``merge_axis``.

Legend: N samples in the batch, K classes, D feature dimension.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from vci_jax import linalg
from vci_jax.arrays import canonicalize_mask, canonicalize_reals
from vci_jax.batch import vet
from vci_jax.counts import MAX_COUNT, add_counts, sum_counts
from vci_jax.errors import VCIError
from vci_jax.moments import ClassMoments
from vci_jax.pairs import nearest
from vci_jax.placement import anywhere, like, without_leading


class Agreement(NamedTuple):
    """The class means about ``centre``, the number of rows, and of those that agreed."""

    centre: Float[Array, " D"]
    means: Float[Array, "K D"]
    present: Bool[Array, " K"]
    agreed: Int[Array, ""]
    count: Int[Array, ""]  # type: ignore[assignment]  # shadows tuple.count, on purpose
    non_finite: Int[Array, ""]


def init(moments: ClassMoments) -> Agreement:
    """Starts the second pass from the finished moments of the first."""
    zero = jnp.zeros((), jnp.int32)
    return Agreement(
        centre=moments.pivot,
        means=moments.mean,
        present=moments.count > 0,
        agreed=zero,
        count=zero,
        non_finite=zero,
    )


@anywhere(like)
def update(
    agreement: Agreement,
    features: Num[Array, "N D"],
    logits: Num[Array, "N K"],
    mask: Num[Array, " N"] | None = None,
) -> Agreement:
    """Adds one batch: is argmin_k ||h - mu_k|| equal to argmax_k logits?

    Args:
      agreement: the state so far.
      features: as given to ``moments.update``.
      logits: of the classifier, bias included. Ties go to the lower class on both sides. Rows with
        NaN or infinity among them are left out and counted in ``non_finite``, as are all rows
        where there are no class means to compare with.
      mask: nonzero where a row counts.

    Raises:
      VCIError: at trace time, for shapes or dtypes that do not fit, and for host arrays that
        ``canonicalize_batch`` refuses.
    """
    num_classes, dtype = agreement.means.shape[0], agreement.means.dtype
    features = canonicalize_reals("features", features, dtype)
    logits = canonicalize_reals("logits", logits, dtype)
    if logits.shape != (jnp.shape(features)[0], num_classes):
        raise VCIError(
            f"logits must be [N, {num_classes}] with one row a feature row, got "
            f"{list(logits.shape)} for features {list(jnp.shape(features))}."
        )
    no_labels = jnp.zeros(features.shape[:1], jnp.int32)
    batch = vet(features, no_labels, mask, agreement.means)
    logits = jnp.asarray(logits)
    sound = jnp.all(jnp.isfinite(logits), axis=1) & jnp.any(agreement.present)
    shifted = batch.features - agreement.centre
    # ||h - mu||^2 less ||h||^2, which is the same for every class.
    distance = jnp.sum(agreement.means**2, axis=1) - 2 * linalg.matmul(shifted, agreement.means.T)
    distance = jnp.where(agreement.present, distance, jnp.inf)
    same = nearest(shifted, agreement.means, distance) == jnp.argmax(logits, axis=1)
    agrees = same & batch.used & sound
    broken = batch.non_finite + jnp.sum(batch.used & ~sound, dtype=jnp.int32)
    return agreement._replace(
        agreed=add_counts(agreement.agreed, jnp.sum(agrees, dtype=jnp.int32)),
        count=add_counts(agreement.count, jnp.sum(batch.used & sound, dtype=jnp.int32)),
        non_finite=add_counts(agreement.non_finite, broken),
    )


_jit_update = jax.jit(update)


def jit_update(agreement: Agreement, features: Any, logits: Any, mask: Any = None) -> Agreement:
    """Adds one batch, as ``update`` does, in one compiled program that is safe for host arrays.

    What ``vci_jax.jit_update`` is to ``vci_jax.update``; the state, small but for the class means,
    is not donated.

    Raises:
      VCIError: for anything ``update`` refuses.
    """
    dtype = agreement.means.dtype
    updated: Agreement = _jit_update(
        agreement,
        canonicalize_reals("features", features, dtype),
        canonicalize_reals("logits", logits, dtype),
        canonicalize_mask(mask),
    )
    return updated


@anywhere(like)
def merge(a: Agreement, b: Agreement) -> Agreement:
    """Adds the counts of two states that started from the same means."""
    return a._replace(
        agreed=add_counts(a.agreed, b.agreed),
        count=add_counts(a.count, b.count),
        non_finite=add_counts(a.non_finite, b.non_finite),
    )


@anywhere(without_leading)
def merge_axis(agreement: Agreement) -> Agreement:
    """Folds a leading axis of partial states into one."""
    return Agreement(
        centre=agreement.centre[0],
        means=agreement.means[0],
        present=agreement.present[0],
        agreed=sum_counts(agreement.agreed),
        count=sum_counts(agreement.count),
        non_finite=sum_counts(agreement.non_finite),
    )


@anywhere()
def ncc_agreement(agreement: Agreement) -> Float[Array, ""]:
    """The share of rows on which both agree; NaN before the first row and from 2^31 - 1 rows on.

    Reference:
      Papyan, Han & Donoho (2020), Fig. 7, which plots one minus this.
    """
    count = agreement.count.astype(agreement.means.dtype)
    defined = (agreement.count > 0) & (agreement.count < MAX_COUNT)
    return agreement.agreed.astype(count.dtype) / jnp.where(defined, count, jnp.nan)
