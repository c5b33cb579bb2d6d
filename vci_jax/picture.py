"""Features as points in a plane: a few hundred samples of a split, for display.

The plane is that of the best linear probe: least squares from the features to the corners of a
regular polygon, one for each class. It is a projection of the discriminant directions, and what
the probe leaves unexplained is what VCI measures: features that collapse end in the corners, and
those that tell no class from another stay in the middle. No turn or flip comes between two epochs.

Known instance: ``sklearn.discriminant_analysis.LinearDiscriminantAnalysis.transform``.

Legend: N rows of a batch, K classes, D features, n samples that are kept of a class.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax.moments import ClassMoments, merge_axis
from vci_jax.placement import anywhere, like

_SAMPLES = 256
_MOST_CLASSES = 512


class Plane(NamedTuple):
    """The map ``features @ kernel + bias`` to the plane: ``[D, 2]`` and ``[2]``."""

    kernel: np.ndarray
    bias: np.ndarray


def corners(num_classes: int) -> np.ndarray:
    """Returns the corner ``[K, 2]`` of each class, on the unit circle.

    >>> corners(4).round()[1].tolist()
    [0.0, 1.0]
    """
    angle = 2 * np.pi * np.arange(num_classes) / num_classes
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def fit_plane(blocks: ClassMoments) -> Plane:
    """Returns the least-squares map from the features of a split to the corners, from its moments.

    Directions without variance do not count. The map of features that are not finite is NaN.
    """
    moments: Any = jax.tree.map(np.asarray, merge_axis(blocks))
    count, means = moments.count.astype(float), moments.mean.astype(float)
    share, targets = count / max(count.sum(), 1), corners(len(count))
    centre, middle = share @ means, share @ targets
    weighted = (means - centre).T * count
    total = moments.scatter + moments.scatter_residual + weighted @ (means - centre)
    if not np.isfinite(total).all():
        return Plane(np.full((means.shape[1], 2), np.nan), np.full(2, np.nan))
    cutoff = len(total) * np.finfo(moments.mean.dtype).eps
    kernel = np.linalg.lstsq(total, weighted @ (targets - middle), rcond=cutoff)[0]
    return Plane(kernel, middle - (centre + moments.pivot) @ kernel)


def draw(plane: Plane, features: Any, labels: Any, mask: Any) -> dict[str, Any]:
    """Returns ``label``, ``x`` and ``y`` of the samples under ``mask``."""
    present = np.asarray(mask) > 0
    points = np.asarray(features, float)[present] @ plane.kernel + plane.bias
    return {
        "label": np.asarray(labels)[present].tolist(),
        "x": points[:, 0].round(3).tolist(),
        "y": points[:, 1].round(3).tolist(),
    }


class Few(NamedTuple):
    """Room for the first n samples of each class, and how many of it are filled."""

    features: Float[Array, "K n D"]
    filled: Int[Array, " K"]


def no_samples(num_classes: int, dim: int, dtype: jax.typing.DTypeLike = jnp.float32) -> Few:
    """Returns room for 256 samples, one of a class at least; for the first 512 classes."""
    classes = min(num_classes, _MOST_CLASSES)
    each = max(1, _SAMPLES // classes)
    return Few(jnp.zeros((classes, each, dim), dtype), jnp.zeros(classes, jnp.int32))


@anywhere(like)
def keep(
    few: Few,
    features: Float[Array, "N D"],
    labels: Int[Array, " N"],
    mask: Bool[Array, " N"] | None = None,
) -> Few:
    """Adds the samples of a batch for which there is room.

    By class, so that the picture of a shuffled split has the same number of each in every epoch,
    and that of a split that is sorted by class has all of them.
    """
    classes, each, dim = few.features.shape
    present = labels[:, None] == jnp.arange(classes)
    if mask is not None:
        present &= (mask > 0)[:, None]
    place = few.filled + jnp.cumsum(present, axis=0, dtype=jnp.int32) - 1
    slot = jnp.arange(classes) * each + place
    outside = classes * each
    slots = jnp.min(jnp.where(present & (place < each), slot, outside), axis=1)
    flat = few.features.reshape(-1, dim).at[slots].set(features, mode="drop")
    filled = few.filled + jnp.sum(present, axis=0, dtype=jnp.int32)
    return Few(flat.reshape(few.features.shape), jnp.minimum(filled, each))


def points(plane: Plane, few: Few) -> dict[str, Any]:
    """Returns ``label``, ``x`` and ``y`` of the stored samples, in the order of labels."""
    features, filled = jax.device_get(few)
    classes, each, dim = features.shape
    labels = np.repeat(np.arange(classes), each)
    mask = (np.arange(each) < filled[:, None]).reshape(-1)
    return draw(plane, features.reshape(-1, dim), labels, mask)
