"""The picture of a split: a few hundred of its images as points of a plane.

The plane is that of the best linear probe: least squares from the features to the corners of a
regular polygon, one for each class. It is a projection of the discriminant directions, and what
the probe leaves unexplained is what VCI measures: features that collapse end in the corners, and
those that tell no class from another stay in the middle. No turn or flip comes between two epochs.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

import vci_jax
from train import data
from train.data.augment import Stored

_IMAGES = 256


class Plane(NamedTuple):
    """The map ``features @ kernel + bias`` to the plane: ``[D, 2]`` and ``[2]``."""

    kernel: np.ndarray
    bias: np.ndarray


class Sample(NamedTuple):
    """Evenly spaced records of a split."""

    records: data.Records
    size: int

    def read(self, index: int) -> tuple[Stored, int]:
        """Returns an image and its label."""
        return self.records.read(self._place(index))

    def name_of(self, index: int) -> str:
        """Returns what to call the image in a message."""
        return self.records.name_of(self._place(index))

    def _place(self, index: int) -> int:
        return index * self.records.size // self.size


def sample(records: data.Records) -> Sample:
    """Returns the images of a split that its picture shows, the same ones each time."""
    return Sample(records, min(_IMAGES, records.size))


def corners(num_classes: int) -> np.ndarray:
    """Returns the corner ``[K, 2]`` of each class, on the unit circle.

    >>> corners(4).round()[1].tolist()
    [0.0, 1.0]
    """
    angle = 2 * np.pi * np.arange(num_classes) / num_classes
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def fit_plane(blocks: vci_jax.ClassMoments) -> Plane:
    """Returns the least-squares map from the features of a split to the corners, from its moments.

    Directions without variance do not count. The map of features that are not finite is NaN.
    """
    moments: Any = jax.tree.map(np.asarray, vci_jax.merge_axis(blocks))
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


def draw(plane: Plane, features: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, Any]:
    """Returns ``label``, ``x`` and ``y`` of the images that ``mask`` does not leave out."""
    present = np.asarray(mask) > 0
    points = np.asarray(features, float)[present] @ plane.kernel + plane.bias
    return {
        "label": np.asarray(labels)[present].tolist(),
        "x": points[:, 0].round(3).tolist(),
        "y": points[:, 1].round(3).tolist(),
    }
