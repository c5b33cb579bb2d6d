"""``update``, compiled, and safe for arrays of the host.

``jax.jit(vci_jax.update)`` is right for JAX arrays, but reads some NumPy arrays as other numbers
before ``update`` can see them (``arrays.py`` says which).
"""

from typing import Any

import jax

from vci_jax.arrays import as_native, canonicalize_batch
from vci_jax.errors import VCIError, check_moments
from vci_jax.moments import ClassMoments, update

_donating = jax.jit(update, donate_argnums=0)
_keeping = jax.jit(update)


def jit_update(
    moments: ClassMoments, features: Any, labels: Any, mask: Any = None, *, donate: bool = True
) -> ClassMoments:
    """Adds one batch to the moments, as ``update`` does, in one compiled program.

    NumPy arrays, and anything that ``numpy.asarray`` takes, pass ``canonicalize_batch`` first, so
    that labels beyond int32 are counted as out of range instead of folded into a class, and
    big-endian arrays and long doubles are read as the numbers they hold. JAX arrays and tracers go
    through untouched, without waiting for the device, so it works inside ``jax.jit`` as well; NumPy
    arguments of a ``jax.jit`` of your own must pass ``canonicalize_batch`` before they enter it.

    Args:
      moments: the state so far. It is donated: updated in place, and not to be used again.
      features: [N, D], see ``update``.
      labels: [N], see ``update``.
      mask: [N], see ``update``.
      donate: False keeps ``moments`` usable, for a copy of the state a batch.

    Returns:
      The new state.

    Raises:
      VCIError: for anything ``update`` or ``canonicalize_batch`` refuses, or moments that were
        donated before.

    Example:
      >>> import numpy as np, vci_jax
      >>> moments = vci_jax.init(num_classes=2, dim=1)
      >>> moments = vci_jax.jit_update(moments, [[1.0], [2.0], [4.0]], np.array([0, 1, 2**40]))
      >>> moments.count.tolist(), int(moments.label_out_of_range)
      ([1, 1], 1)
    """
    check_moments(moments)
    if any(map(_is_deleted, moments)):
        raise VCIError(
            "These moments were donated to an earlier jit_update, which updated them in place: use "
            "the state it returned, or pass donate=False there."
        )
    batch = canonicalize_batch(features, labels, mask, dtype=moments.mean.dtype)
    state = ClassMoments(*(as_native(name, leaf) for name, leaf in moments._asdict().items()))
    updated: ClassMoments = (_donating if donate else _keeping)(state, *batch)
    return updated


def _is_deleted(leaf: Any) -> bool:
    concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return concrete and leaf.is_deleted()
