"""VCI as a term of a training loss."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Num

from vci_jax.arrays import as_native
from vci_jax.derivatives import frozen
from vci_jax.errors import VCIError, check_count
from vci_jax.geometry import Weighting, factorize
from vci_jax.metrics import vci, vci_adjusted
from vci_jax.moments import ClassMoments, init, update


def vci_loss(
    features: Num[Array, "N D"],
    labels: Integer[Array, " N"],
    num_classes: int,
    *,
    moments: ClassMoments | None = None,
    mask: Num[Array, " N"] | None = None,
    weighting: Weighting = "sample",
    adjusted: bool = True,
) -> Float[Array, ""]:
    """Returns VCI of a batch as a term of a loss: added, it collapses features.

    Subtracted, it holds them apart.

    VCI does not change under invertible linear maps of the features, so its gradient cannot be
    followed by growing or shrinking them, or by what a linear layer could undo: it acts on how far
    classes overlap. It is zero, and flat, at full collapse.

    A batch shows the population only if it has more rows than features and classes. VCI of a batch
    falls short of that of the population by about the factor 1 - D / (N - 1); the adjusted form,
    the default, does not, so the strength of the term need not change with the size of the batch.
    With fewer rows, give ``moments`` of earlier batches: then it is VCI of these and the batch
    together, with the gradient of the batch's share in it.

    Args:
      features: h. NumPy arrays that are arguments of your own ``jax.jit`` must pass
        ``canonicalize_batch`` first: it would misread big-endian ones, and fold labels beyond
        int32 into a class.
      labels: 0 .. K-1; rows with other labels count for nothing.
      num_classes: K.
      moments: a running state of earlier batches, a constant: no gradient flows into it.
      mask: zero where a row is padding.
      weighting: see ``factorize``.
      adjusted: False for the plug-in VCI, between 0 and 1.

    Raises:
      VCIError: at trace time, for a batch of too few rows without ``moments``, or anything
        ``update`` refuses.
      NotImplementedError: when differentiated twice.

    Reference:
      Xu & Liu (2023), Definition 5.3; that training against collapse helps transfer is the
      observation of Kornblith et al. (2021) about other losses.

    Example:
      >>> import jax, numpy as np, vci_jax
      >>> rng = np.random.default_rng(0)
      >>> labels = np.arange(64) % 4
      >>> features = np.eye(4)[labels] + rng.normal(size=(64, 4))
      >>> loss, gradient = jax.value_and_grad(vci_jax.vci_loss)(features, labels, 4)
      >>> round(float(loss), 2), gradient.shape
      (0.8, (64, 4))
    """
    features, labels = as_native("features", features), as_native("labels", labels)
    check_count("num_classes", num_classes)
    if jnp.ndim(features) != 2:
        raise VCIError(f"features must be [N, D], got {jnp.shape(features)}: one vector a sample.")
    size, dim = jnp.shape(features)
    if moments is None:
        least = max(dim, num_classes - 1) + 2
        if size < least:
            raise VCIError(
                f"VCI of a batch of {size} rows says nothing about {dim} features of {num_classes} "
                f"classes: pass moments= of earlier batches, or at least {least} rows."
            )
        kind = jnp.result_type(features)
        moments = init(num_classes, dim, dtype=kind if kind == jnp.float64 else jnp.float32)
    geometry = factorize(update(frozen(moments), features, labels, mask), weighting=weighting)
    value: Float[Array, ""] = (vci_adjusted if adjusted else vci)(geometry)
    return value
