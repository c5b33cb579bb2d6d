"""The images of a split that its picture shows; ``vci_jax.picture`` draws their features."""

from typing import NamedTuple

from train import data
from train.data.augment import Stored
from vci_jax.picture import Plane as Plane
from vci_jax.picture import corners as corners
from vci_jax.picture import draw as draw
from vci_jax.picture import fit_plane as fit_plane

_IMAGES = 256


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
