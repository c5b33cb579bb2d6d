"""Checks and conversions of a probe's input; errors count what is wrong."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vci_jax.errors import VCIError

# Accepted types; JAX adds bfloat16 and its like.
_REAL = (np.floating, np.integer, np.bool_)
# If the largest label is this many times the number of different labels, plus the second number,
# labels are refused: they are not class numbers.
_SPARSE, _FEW, _MOST = 10, 1000, 2**24


def samples(
    features: ArrayLike, labels: ArrayLike, num_classes: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns checked features, labels and K; memory-mapped features stay so.

    Raises:
      VCIError: shapes, dtypes or values are not those of ``[N D]`` and ``[N]`` in [0, K).
    """
    features, labels = matrix(features, "features"), _native(_unmasked(labels, "labels"))
    if labels.shape != features.shape[:1]:
        raise VCIError(
            f"features have shape {features.shape} and labels {labels.shape}; expected [N D] and "
            "[N]."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise VCIError(f"labels are {labels.dtype}; expected integers in [0, K).")
    smallest, largest = int(labels.min()), int(labels.max())
    num_classes = classes(labels) if num_classes is None else num_classes
    if not 0 < num_classes <= _MOST:
        raise VCIError(f"num_classes is {num_classes}; expected 1 to {_MOST}.")
    outside = int(((labels < 0) | (labels >= num_classes)).sum())
    if outside:
        raise VCIError(
            f"{outside} labels lie outside [0, {num_classes}), from {smallest} to {largest}; pass "
            "num_classes, or renumber them with numpy.unique(labels, return_inverse=True)."
        )
    return features, labels.astype(np.int64), num_classes


def classes(*labels: np.ndarray) -> int:
    """Returns the largest label plus one, or raises VCIError if far fewer labels occur."""
    different = np.unique(np.concatenate([np.unique(some) for some in labels]))
    seen, largest = len(different), int(np.max(different, initial=0))
    if largest >= _SPARSE * seen + _FEW:
        raise VCIError(
            f"labels go up to {largest}, and {seen} different ones occur; renumber them with "
            "numpy.unique(labels, return_inverse=True), or pass num_classes if so many are meant."
        )
    return largest + 1


def matrix(features: ArrayLike, name: str) -> np.ndarray:
    """Returns features ``[N D]`` in float64 or less, and native byte order.

    Memory-mapped features that need no change stay so. ``name`` is their name in errors.

    Raises:
      VCIError: they have another shape or dtype, or not all are finite.
    """
    features = features if isinstance(features, np.memmap) else _unmasked(features, name)
    if features.ndim != 2 or not features.size:
        raise VCIError(f"{name} have shape {features.shape}; expected [N D] with N > 0 and D > 0.")
    if not any(jnp.issubdtype(features.dtype, kind) for kind in _REAL):
        raise VCIError(f"{name} are {features.dtype}; expected real numbers.")
    bad = sum(
        int((~np.isfinite(_wide(features[i : i + 4096]))).sum())
        for i in range(0, len(features), 4096)
    )
    if bad:
        raise VCIError(
            f"{bad} of {features.size} {name[:-1]} values are NaN, infinite or beyond float64; "
            "remove their samples, or find out why the network makes them."
        )
    return _wide(features)


def _unmasked(values: ArrayLike, name: str) -> np.ndarray:
    """Returns an array; refuses masked entries, which would count as values."""
    if masked := int(np.sum(np.ma.getmaskarray(values))) if np.ma.isMaskedArray(values) else 0:
        raise VCIError(f"{name} have {masked} masked entries, which would count: leave them out.")
    return np.asarray(values)


def _wide(features: np.ndarray) -> np.ndarray:
    """Returns features in a type of NumPy's with all their digits, at most float64.

    Integers become float64; other types, such as bfloat16, float32.
    """
    features = _native(features)
    if features.dtype in (np.float16, np.float32, np.float64):
        return features
    wide = features.dtype.kind in "iub" or features.dtype.itemsize > 8
    with np.errstate(over="ignore"):
        return features.astype(np.float64 if wide else np.float32)


def _native(array: np.ndarray) -> np.ndarray:
    """Returns an array in the processor's byte order, the only one that JAX supports."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def splits(named: dict[str, Any], num_classes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns checked splits, pairs of features and labels with the same D.

    Raises:
      VCIError: as ``samples``, with the name of the split.
    """
    checked = {}
    for name, (features, labels) in named.items():
        try:
            checked[name] = samples(features, labels, num_classes)[:2]
        except ValueError as error:
            raise VCIError(f"{name}: {error}") from error
    dims = {name: features.shape[1] for name, (features, _) in checked.items()}
    if len(set(dims.values())) > 1:
        raise VCIError(
            f"the splits have features of different sizes: {dims}; take them from one network."
        )
    return checked


def settings(dtype: np.dtype, tolerance: float, max_steps: int) -> None:
    """Raises ``VCIError`` for a dtype, tolerance or number of steps that the path cannot have."""
    if dtype not in (np.float32, np.float64):
        raise VCIError(f"dtype is {dtype}; the iterations are in float32 or float64.")
    if not 0 <= tolerance < np.inf:
        raise VCIError(f"tolerance is {tolerance}; expected a finite number, not negative.")
    if not 0 <= max_steps < 2**31:
        raise VCIError(f"max_steps is {max_steps}; expected 0 to 2^31 - 1.")


def in_range(penalties: np.ndarray, scale: float, dtype: np.dtype) -> np.ndarray:
    """Returns the penalties for features of unit scale, as ``dtype`` can represent them.

    Raises:
      VCIError: some are too small or too large for that.
    """
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        relative = penalties / np.square(scale)
    info = np.finfo(dtype)
    wrong = penalties[~((relative > 1e3 * info.tiny) & (relative < 1e-3 * info.max))]
    if len(wrong):
        raise VCIError(
            f"l2 = {wrong[0]:.3g} for features with a standard deviation of {scale:.3g} is beyond "
            f"the range of {dtype}; divide the features, or choose penalties nearer to their "
            "variance."
        )
    return relative


def penalties(penalties: Any) -> np.ndarray:
    """Returns penalties ``[P]``, positive and finite, or raises ``VCIError``."""
    penalties = np.asarray(penalties, np.float64)
    wrong = (
        penalties[~((penalties > 0) & np.isfinite(penalties))] if penalties.ndim == 1 else penalties
    )
    if penalties.ndim != 1 or not len(penalties) or len(wrong):
        raise VCIError(
            f"penalties must be a list of positive finite numbers, got {wrong}; without a penalty "
            "separable data have no optimum."
        )
    return penalties


def weights(
    labels: np.ndarray, num_classes: int, sample_weight: Any, class_weight: Any
) -> np.ndarray:
    """Returns the weights of the samples, whose sum is one.

    Raises:
      VCIError: shapes do not fit, a weight is negative or not finite, or all are zero.
    """
    weights = np.ones(len(labels))
    if sample_weight is not None:
        weights = _unmasked(np.asanyarray(sample_weight, np.float64), "sample weights")
        if weights.shape != labels.shape:
            raise VCIError(f"sample_weight has shape {weights.shape}, labels {labels.shape}.")
    if class_weight is not None:
        class_weight = np.asarray(class_weight, np.float64)
        if class_weight.shape != (num_classes,):
            raise VCIError(
                f"class_weight has shape {class_weight.shape}, expected ({num_classes},)."
            )
        weights = weights * class_weight[labels]
    largest = np.max(weights)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and largest > 0):
        raise VCIError("weights must be finite and not negative, and one must be positive.")
    weights = weights / largest  # or their sum may leave the range
    return weights / weights.sum()
