"""Samples for a probe from files of any format."""

import os

import numpy as np

from vci_jax.arrays import canonicalize_reals, labelled_rows
from vci_jax.errors import VCIError
from vci_jax.files import read_features
from vci_jax.labels import as_classes
from vci_jax.probe.selection import Samples


def read(
    path: str | os.PathLike[str], *, features: str | None = None, labels: str | None = None
) -> tuple[Samples, int]:
    """Returns the rows of a file that have a label, and how many have none.

    Args:
      path: as for ``vci_jax.read_features``.
      features: the name of the array.
      labels: the name of the labels, integers or text; -1 and -100 mark rows without a label.

    Raises:
      VCIError: for a file that cannot be read, arrays that do not fit each other, or no row with a
        label.
    """
    rows, given = read_features(path, features=features, labels=labels)
    try:
        rows = canonicalize_reals("features", rows, np.float64)
        classes, _ = as_classes(given, len(rows))
        if rows.ndim != 2 or not rows.size:
            raise VCIError(f"features must be [N, D] with N > 0 and D > 0, got {list(rows.shape)}.")
        labelled = (
            labelled_rows(classes) if classes.dtype.kind in "iu" else np.full(len(rows), True)
        )
        if not labelled.any():
            raise VCIError(
                f"all {len(classes)} rows have the label -1 or -100, which means none: nothing to "
                "probe."
            )
    except VCIError as error:
        raise VCIError(f"{path}: {error}") from None
    if labelled.all():
        return Samples(rows, classes), 0
    return Samples(rows[labelled], classes[labelled]), int(np.sum(~labelled))


def renumber(splits: dict[str, Samples]) -> tuple[dict[str, Samples], int]:
    """Returns the splits with labels 0 .. K-1 in the order of the old ones, and K.

    The labels of a file are any integers or text: K is the number of different ones in all splits.

    Raises:
      VCIError: if some splits have text and others numbers.
    """
    if len({split.labels.dtype.kind in "US" for split in splits.values()}) > 1:
        raise VCIError(f"some of {', '.join(splits)} have text for labels, and others numbers.")
    everything = np.concatenate([split.labels for split in splits.values()])
    names, codes = np.unique(everything, return_inverse=True)
    ends = np.cumsum([len(split.labels) for split in splits.values()])[:-1]
    parts = np.split(codes.astype(np.int32), ends)
    renumbered = {
        name: split._replace(labels=part)
        for (name, split), part in zip(splits.items(), parts, strict=True)
    }
    return renumbered, len(names)
