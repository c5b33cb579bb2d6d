"""Moments on disk, so that a pass can be split over hosts and days.

The state is a pytree of arrays, so Orbax saves it as it is; these two functions need only NumPy.
"""

import os
import pathlib
from functools import partial

import jax
import numpy as np

from vci_jax import _formats, files
from vci_jax.arrays import as_native
from vci_jax.counts import MAX_COUNT
from vci_jax.errors import VCIError, check_moments
from vci_jax.moments import ClassMoments, init
from vci_jax.written import replacing


def save(path: str | os.PathLike[str], moments: ClassMoments) -> None:
    """Writes the moments to an ``.npz`` file, atomically: a reader never sees half a file.

    Raises:
      VCIError: if the moments are spread over several processes.
    """
    check_moments(moments)
    arrays = to_host(moments)._asdict()
    with replacing(path, "wb") as file:
        np.savez(file, **arrays)


def load(path: str | os.PathLike[str]) -> ClassMoments:
    """Reads moments written by ``save``, as NumPy arrays that every function here accepts.

    Raises:
      VCIError: if the file is not there, torn, or holds something else; names what is missing or of
        another dtype or shape.
    """
    path = pathlib.Path(path)
    with files.explained(path, "npz"), _formats.npz(path) as stored:
        missing = [name for name in ClassMoments._fields if name not in stored]
        if missing:
            raise VCIError(
                f"{path} does not hold moments: it lacks {', '.join(missing)} and has "
                f"{', '.join(stored) or 'nothing'}. Write it with vci_jax.save."
            )
        return _checked(path, {name: stored[name].read() for name in ClassMoments._fields})


def _checked(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> ClassMoments:
    """The moments in native byte order, with int32 counts; refused if some are of another kind."""
    moments = ClassMoments(**{name: as_native(name, array) for name, array in arrays.items()})
    whole = ("count", "directed", "label_out_of_range", "non_finite")
    kinds = {leaf.dtype for name, leaf in moments._asdict().items() if name not in whole}
    counts = {name: getattr(moments, name) for name in whole}
    odd = [name for name, leaf in counts.items() if leaf.dtype.kind not in "iu"]
    if odd or kinds not in ({np.dtype(np.float32)}, {np.dtype(np.float64)}):
        listing = ", ".join(f"{name} {leaf.dtype}" for name, leaf in moments._asdict().items())
        raise VCIError(
            f"{path} does not hold moments: counts must be integers, all else float32 or all "
            f"float64, got {listing}."
        )
    _check_shapes(path, moments)
    return moments._replace(
        **{name: np.clip(leaf, -1, MAX_COUNT).astype(np.int32) for name, leaf in counts.items()}
    )


def _check_shapes(path: pathlib.Path, moments: ClassMoments) -> None:
    """Refuses arrays of different K, D or axes of blocks in front."""
    shapes = {name: leaf.shape for name, leaf in moments._asdict().items()}
    *lead, num_classes, dim = (0, 0, *shapes["mean"])[-max(2, len(shapes["mean"])) :]
    expected = jax.eval_shape(partial(init, max(num_classes, 1), max(dim, 1)))._asdict()
    wrong = [name for name, leaf in expected.items() if shapes[name] != (*lead, *leaf.shape)]
    if wrong:
        listing = ", ".join(f"{name} {list(shapes[name])}" for name in ["mean", *wrong[:3]])
        raise VCIError(
            f"{path} does not hold moments: its arrays have shapes that do not fit each other, "
            f"{listing}. Write it with vci_jax.save."
        )


def to_host(moments: ClassMoments) -> ClassMoments:
    """The state as NumPy arrays. Stacks sharded over devices of this process are gathered.

    Raises:
      VCIError: if the moments are spread over several processes.
    """
    for name, leaf in zip(moments._fields, moments, strict=True):
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            raise VCIError(
                f"moments.{name} is spread over several processes: merge it first, e.g. with "
                "jax.jit(merge_axis, out_shardings=replicated), so that each process holds it."
            )
    leaves = jax.device_get(moments._asdict())
    return ClassMoments(**{name: as_native(name, leaf) for name, leaf in leaves.items()})
