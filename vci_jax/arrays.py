"""Host arrays, converted to dtypes in which JAX reads their numbers correctly.

``jax.jit`` converts NumPy arguments before any function sees them: an int64 label of 2^40 becomes
0, and the cache of compiled programs ignores byte order, so that big-endian features (FITS, HDF5)
are misread once a native array of their shape has been compiled. What is done here comes before
``jax.jit``. JAX arrays and tracers are left as they are: it is too late for them.
Known instance: ``torch.utils.data.default_convert``.

Legend: N samples in the batch, K classes, D feature dimension.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vci_jax.errors import VCIError

NO_LABEL = (-1, -100)  # rows of unreadable images; PyTorch's ignore_index


def canonicalize_batch(
    features: Any, labels: Any, mask: Any = None, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> tuple[Any, Any, Any]:
    """Returns a batch that may enter ``jax.jit`` without any number changing on the way.

        features, labels, mask = vci_jax.canonicalize_batch(features, labels)
        moments = my_jitted_step(moments, features, labels, mask)

    ``jit_update`` and ``measure`` do it themselves.

    Args:
      features: [N, D] real numbers in anything that ``numpy.asarray`` takes, or a tensor of PyTorch
        on any device. Byte order becomes
        native; long doubles and 64-bit integers become ``dtype``.
      labels: [N] integers. They become int32, or stay narrower; those that int32 cannot hold, or
        that are negative, become -1, which ``update`` counts as out of range.
      mask: [N] numbers or truth values, None for all rows. It becomes bool: True where not zero.
      dtype: that of the moments.

    Returns:
      (features, labels, mask). JAX arrays among them are returned as they are.

    Raises:
      VCIError: for objects, strings, dates, complex or masked arrays, and labels that are not
        integers; names which, and the remedy.

    Example:
      >>> import numpy as np
      >>> features, labels, _ = canonicalize_batch(np.ones((2, 1), ">f8"), np.array([1, 2**40]))
      >>> features.dtype.isnative, labels.dtype.name, labels.tolist()
      (True, 'int32', [1, -1])
    """
    return (
        canonicalize_reals("features", features, dtype),
        canonicalize_labels(labels),
        canonicalize_mask(mask),
    )


def canonicalize_reals(name: str, values: Any, dtype: jax.typing.DTypeLike) -> Any:
    """Real numbers in native byte order; what JAX has no dtype for becomes ``dtype``.

    Raises:
      VCIError: for anything but integers and floating-point numbers; JAX arrays as well.
    """
    array = as_native(name, values)
    if not is_real(array.dtype):
        raise VCIError(f"{name} must be real numbers, got {array.dtype}.{_remedy(name, array)}")
    wide = array.dtype in (np.int64, np.uint64, np.longdouble) and array.dtype != np.float64
    if isinstance(array, jax.Array) or not wide:
        return array
    with np.errstate(over="ignore"):  # To infinity, which is counted as such.
        return array.astype(jnp.dtype(dtype))


def _remedy(name: str, array: Any) -> str:
    """What to do with an array that does not hold real numbers."""
    if array.dtype.names:
        return " It has named columns: pass those with numbers as one matrix."
    if array.dtype.kind == "V":
        return " bfloat16 loses its name in NumPy's files: save float32."
    if array.dtype.kind == "c":
        return f" Pass its parts side by side, or abs({name})."
    if array.dtype.kind in "OSUT":
        return f" Leave out columns of text, then pass {name}.astype(float)."
    return f" Pass {name}.astype(float)." if array.dtype.kind == "b" else ""


def canonicalize_labels(labels: Any, num_classes: int | None = None) -> Any:
    """Labels as int32 or narrower without wrapping: what int32 cannot hold becomes -1.

    Raises:
      VCIError: for labels that are not integers.
    """
    labels = as_native("labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.dtype.kind in "mM":
        largest = "K-1" if num_classes is None else num_classes - 1
        raise VCIError(
            f"labels must be integers 0 .. {largest}, got {labels.dtype}. Cast them with "
            "labels.astype(int), or take labels.argmax(-1) of one-hot rows."
        )
    if isinstance(labels, jax.Array) or labels.dtype.itemsize < 4:
        return labels
    return np.where((labels >= 0) & (labels < 2**31), labels, -1).astype(np.int32)


def canonicalize_mask(mask: Any) -> Any:
    """The mask as bool, True where it is not zero; JAX arrays and None as they are.

    Raises:
      VCIError: for a mask of objects, strings, dates or complex numbers.
    """
    if mask is None or isinstance(mask, jax.Array):
        return mask
    mask = as_native("mask", mask)
    if mask.dtype != bool and not is_real(mask.dtype):
        raise VCIError(f"mask must be numbers or truth values, got {mask.dtype}.")
    return mask != 0


def as_native(name: str, values: Any) -> Any:
    """A NumPy array in native byte order; JAX arrays as they are, memory maps stay such.

    Raises:
      VCIError: for what has no such form, and for masked arrays, whose mask would be lost.
    """
    if isinstance(values, jax.Array):
        return values
    masked = int(np.sum(values.mask)) if isinstance(values, np.ma.MaskedArray) else 0
    if masked:
        raise VCIError(
            f"{name} is a masked array with {masked:,} masked entries, which would count: "
            "pass values.filled(...), and mask= for rows to leave out."
        )
    _check_kind(name, values)
    try:
        array = values if type(values) in (np.ndarray, np.memmap) else np.asarray(_on_host(values))
    except Exception as error:  # The values may be of any array library.
        first = next(iter(str(error).splitlines()), type(error).__name__)
        ragged = "inhomogeneous" in first
        reason = "its rows have different lengths." if ragged else first
        raise VCIError(f"{name} cannot be read as a NumPy array: {reason}") from None
    if array.dtype == object and array.ndim == 0:
        if name == "labels":
            raise VCIError(f"labels is {_article(values)}: pass an array or a list.")
        raise VCIError(
            f"{name} must be real numbers, got object ({_article(values)}): pass an array or a "
            "list. Batches of a loader go to vci_jax.measure, or one by one to vci_jax.jit_update."
        )
    if array.dtype.isnative:
        return array
    return array.astype(array.dtype.newbyteorder("="))


def _check_kind(name: str, values: Any) -> None:
    """Refuses file names, and lists of batches that were not concatenated."""
    if isinstance(values, str | bytes | os.PathLike):
        raise VCIError(
            f"{name} is {str(values)[:60]!r}, not an array: vci_jax.read_features(path) reads "
            "features and labels from a file."
        )
    shape = getattr(values[0], "shape", ()) if isinstance(values, list | tuple) and values else ()
    if len(shape) == 2:
        raise VCIError(
            f"{name} is {_article(values)} of {len(values)} arrays, {list(shape)} the first: join "
            f"batches with numpy.concatenate({name}) or torch.cat({name}), or pool each array to "
            "one vector if it is that of a sample."
        )


def _article(values: Any) -> str:
    name = "None" if values is None else type(values).__name__
    return name if values is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _on_host(values: Any) -> Any:
    """Tensors of PyTorch, and lists of them, as NumPy arrays; all else as it is.

    From any device, with or without gradient; types that NumPy has not, bfloat16 for one, become
    float32. PyTorch is not imported: whoever has a tensor has done so.
    """
    if isinstance(values, list | tuple) and values and _is_tensor(values[0]):
        return [_on_host(value) for value in values]
    if not _is_tensor(values):
        return values
    tensor = values.detach().cpu()
    narrow = any(kind in str(tensor.dtype) for kind in ("bfloat16", "float8"))
    return (tensor.float() if narrow else tensor).numpy()


def _is_tensor(value: Any) -> bool:
    return any((k.__module__, k.__name__) == ("torch", "Tensor") for k in type(value).__mro__)


def is_real(dtype: Any) -> bool:
    """Whether a dtype is of integers or floating-point numbers, bfloat16 and similar included."""
    numeric = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    return bool(numeric) and np.dtype(dtype).kind not in "mM"  # NumPy takes durations for integers


def labelled_rows(labels: np.ndarray) -> np.ndarray:
    """Returns which rows have a label: all but rows with -1 or -100, which mark its absence.

    Raises:
      VCIError: for other negative labels, with the first and its row.
    """
    negative = labels < 0
    unknown = np.flatnonzero(negative & ~np.isin(labels, NO_LABEL))
    if unknown.size:
        raise VCIError(
            f"{unknown.size:,} labels are negative, the first is {labels[unknown[0]]} in row "
            f"{unknown[0]}. Only -1 and -100 are known as marks for rows without a label: remove "
            "those rows or renumber the classes."
        )
    return ~negative


def check_head(head: Any, dim: int, num_classes: int) -> tuple[Any, ...]:
    """Returns kernel [D, K] and bias [K] of a classifier in native byte order.

    Raises:
      VCIError: for another number of parts, shapes that do not fit, dtypes that are not real, or
        NaN or infinity among the values, with their number.
    """
    parts = [part for part in head if part is not None]
    if len(parts) not in (1, 2):
        raise VCIError(f"head must be (kernel [D, K], bias [K]), got {len(parts)} arrays.")
    kernel = _finite("The head's kernel", parts[0])
    if kernel.shape != (dim, num_classes):
        raise VCIError(
            f"The head's kernel must be [D, K] = [{dim}, {num_classes}], got "
            f"{list(kernel.shape)}. {_misfit(kernel.shape, dim, num_classes)}"
        )
    if len(parts) == 1:
        return (kernel,)
    bias = _finite("The head's bias", parts[1])
    if bias.shape != (num_classes,):
        raise VCIError(f"The head's bias must be [K] = [{num_classes}], got {list(bias.shape)}.")
    return kernel, bias


def _misfit(shape: tuple[int, ...], dim: int, num_classes: int) -> str:
    """What a kernel of another shape is, and what to do."""
    if shape == (num_classes, dim):
        return "That is the layout of torch.nn.Linear, [K, D]: pass weight.T."
    if len(shape) == 2 and dim in shape:
        classes = shape[1] if shape[0] == dim else shape[0]
        return f"It is a head for {classes} classes: pass that of these labels."
    return "It is the head of other features: pass that of the network that made these."


def _finite(name: str, values: Any) -> np.ndarray:
    array = np.asarray(canonicalize_reals(name, values, np.float64))
    broken = int(np.sum(~np.isfinite(array.astype(np.float64))))
    if broken:
        raise VCIError(
            f"{name} holds NaN or infinity in {broken:,} of {array.size:,} entries: its network "
            "has diverged, or another array was passed."
        )
    return array
