"""Labels of any kind, read as class numbers, or refused with what VCI needs instead.

Legend: N samples, K classes.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from vci_jax.arrays import as_native, labelled_rows
from vci_jax.errors import VCIError

_NEEDS = "VCI needs one class for each sample"


def read_labels(
    labels: Any, size: int, num_classes: int | None = None
) -> tuple[Int[np.ndarray, " N"], int]:
    """Returns class numbers 0 .. K-1, or -1 for rows without a label, and K.

    Args:
      labels: one for each sample: integers, floats that are integers, strings, truth values, or
        one-hot rows [N, K]. -1 and -100 mark rows without a label.
      size: N.
      num_classes: K, if labels are to be read as numbers in 0 .. K-1. None numbers the classes that
        occur, in their order, whatever integers or strings they are.

    Raises:
      VCIError: for another length, labels that are no classes (real targets, several or no classes
        in a row, NaN, dates, objects), negative ones, those from K on, or none at all.
    """
    array, columns = as_classes(labels, size)
    num_classes = columns if num_classes is None else num_classes
    if array.dtype.kind in "US":
        if num_classes is not None:
            raise VCIError(
                f"labels are text, {str(array[0])!r} for one, but must be 0 .. {num_classes - 1} "
                "here: pass the column of the classifier that each stands for."
            )
        names, codes = np.unique(array, return_inverse=True)
        return codes.astype(np.int32), len(names)
    return _numbered(array, num_classes)


def as_classes(labels: Any, size: int) -> tuple[np.ndarray, int | None]:
    """Returns the class of each sample, [N] integers or text, and the columns of one-hot rows.

    Labels are as for ``read_labels``; -1 and -100 stay.

    Raises:
      VCIError: for another length, or labels that are no classes.
    """
    array, columns = np.asarray(as_native("labels", labels)), None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 0 or len(array) != size:
        flat = array.ndim > 1 and array.size == size
        raise VCIError(
            f"labels have shape {list(array.shape)} for {size:,} rows of features: pass one label "
            f"for each row{', e.g. labels.reshape(-1)' if flat else ''}."
        )
    if array.ndim == 2:
        columns = array.shape[1]
        array = _from_one_hot(array)
    if array.ndim != 1:
        raise VCIError(
            f"labels have shape {list(array.shape)}. {_NEEDS}: pass [N] or one-hot rows [N, K]."
        )
    return _whole(array), columns


def _numbered(labels: np.ndarray, num_classes: int | None) -> tuple[np.ndarray, int]:
    labelled = labelled_rows(labels)
    if not labelled.any():
        raise VCIError(f"all {len(labels):,} rows have the label -1 or -100, which means none.")
    codes = np.full(len(labels), -1, np.int32)
    if num_classes is None:
        names, codes[labelled] = np.unique(labels[labelled], return_inverse=True)
        return codes, len(names)
    outside = np.flatnonzero(labelled & (labels >= num_classes))
    if outside.size:
        raise VCIError(
            f"{outside.size:,} labels lie outside 0 .. {num_classes - 1}, the columns of the "
            f"classifier or num_classes; the first is {labels[outside[0]]} in row {outside[0]}. "
            "Remove those rows or renumber the classes."
        )
    codes[labelled] = labels[labelled]
    return codes, num_classes


def _from_one_hot(rows: np.ndarray) -> np.ndarray:
    """Returns the column of the one in every row."""
    if rows.dtype.kind not in "biuf":
        raise VCIError(f"labels are {rows.dtype} of shape {list(rows.shape)}. {_NEEDS}: pass [N].")
    ones = np.sum(rows == 1, axis=1)
    only = ((rows == 0) | (rows == 1)).all(axis=1)
    wrong = np.flatnonzero(~only | (ones != 1))
    if not wrong.size:
        columns: np.ndarray = np.argmax(rows, axis=1)
        return columns
    row = wrong[0]
    if not only.all():
        raise VCIError(
            f"labels [N, {rows.shape[1]}] are not one-hot: row {np.flatnonzero(~only)[0]} has "
            f"other numbers than 0 and 1. {_NEEDS}: pass labels.argmax(-1) of scores."
        )
    raise VCIError(
        f"labels [N, {rows.shape[1]}] are multi-label: row {row} has {ones[row]} classes, and so "
        f"have {wrong.size:,} rows not one. {_NEEDS}: measure one column at a time, or keep the "
        "rows with one class."
    )


def _from_numbers(labels: np.ndarray) -> np.ndarray:
    """Returns objects that are numbers as an array, of exact integers if all are whole."""
    values = [label.item() if isinstance(label, np.number) else label for label in labels]
    whole = all(isinstance(value, int) or value.is_integer() for value in values)
    if whole and all(abs(value) < 2**63 for value in values):
        return np.array([int(value) for value in values])
    return np.array([min(max(value, -(2**63)), 2**63) for value in values], np.float64)


def _whole(labels: np.ndarray) -> np.ndarray:
    """Returns labels as integers or text; whole floats, truth values and objects are converted."""
    kind = labels.dtype.kind
    if kind == "T":  # NumPy's own text, which may lack some.
        return _whole(np.array(labels.tolist()))
    if kind == "b":
        return labels.astype(np.int32)
    if kind == "O":
        if all(isinstance(label, str | bytes) for label in labels):
            return labels.astype(str)
        if all(isinstance(label, int | float | np.number) for label in labels):
            return _whole(_from_numbers(labels))
        odd = next(label for label in labels if not isinstance(label, str))
        raise VCIError(
            f"labels hold {odd!r}, neither all text nor all numbers: remove the rows without a "
            "class, or give them the label -1; make text of other objects with str(label)."
        )
    if kind == "f" or labels.dtype.name == "bfloat16":
        values = labels.astype(np.float64)
        broken = np.flatnonzero(~np.isfinite(values))
        if broken.size:
            raise VCIError(
                f"{broken.size:,} labels are NaN or infinite, the first in row {broken[0]}: give "
                "rows without a class the label -1."
            )
        large = np.flatnonzero(np.abs(values) >= 2.0**63)
        if large.size:
            raise VCIError(
                f"labels hold {values[large[0]]:g} in row {large[0]}, beyond 64 bits: number the "
                "classes, e.g. with numpy.unique(labels, return_inverse=True)[1]."
            )
        parts = np.flatnonzero(values != np.round(values))
        if parts.size:
            raise VCIError(
                f"labels are real numbers, {values[parts[0]]:.6g} in row {parts[0]}. {_NEEDS}: cut "
                "a regression target into classes, e.g. with numpy.digitize."
            )
        return values.astype(np.int64)
    if kind not in "iuUS":
        raise VCIError(f"labels are {labels.dtype}. {_NEEDS}: pass integers, text or one-hot rows.")
    return labels
