"""What a probe is given: refused with a count of what is wrong, and brought to one form."""

from typing import Any

import numpy as np
from jax.typing import ArrayLike


def samples(
    features: ArrayLike, labels: ArrayLike, num_classes: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns features, labels and K; features stay memory-mapped if they are.

    Raises:
      ValueError: shapes, dtypes or values are not those of ``[N D]`` and ``[N]`` in [0, K).
    """
    features = features if isinstance(features, np.memmap) else np.asarray(features)
    labels = np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not features.size:
        raise ValueError(
            f"features have shape {features.shape} and labels {labels.shape}; expected [N D] and "
            "[N] with N > 0 and D > 0."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype}; expected integers in [0, K).")
    if np.issubdtype(features.dtype, np.complexfloating):
        raise ValueError(f"features are {features.dtype}; expected real numbers.")
    if not np.issubdtype(features.dtype, np.floating):
        # Integers in all their digits; what else there is, such as bfloat16, has fewer.
        features = features.astype(np.float64 if features.dtype.kind in "iub" else np.float32)
    bad = sum(
        int((~np.isfinite(features[i : i + 4096])).sum()) for i in range(0, len(features), 4096)
    )
    if bad:
        raise ValueError(
            f"{bad} of {features.size} feature values are NaN or infinite; remove their samples, "
            "or find out why the network makes them."
        )
    num_classes = int(labels.max()) + 1 if num_classes is None else num_classes
    outside = int(((labels < 0) | (labels >= num_classes)).sum())
    if outside:
        raise ValueError(
            f"{outside} labels lie outside [0, {num_classes}), from {labels.min()} to "
            f"{labels.max()}; pass num_classes, or renumber them."
        )
    return features, labels.astype(np.int64), num_classes


def splits(named: dict[str, Any], num_classes: int) -> None:
    """Refuses splits, pairs of features and labels, by the same rules, and if sizes differ.

    Raises:
      ValueError: as ``samples``, with the name of the split.
    """
    for name, (features, labels) in named.items():
        try:
            samples(features, labels, num_classes)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    dims = {name: np.shape(features)[1] for name, (features, _) in named.items()}
    if len(set(dims.values())) > 1:
        raise ValueError(
            f"the splits have features of different sizes: {dims}; take them from one network."
        )


def settings(dtype: np.dtype, tolerance: float, max_steps: int) -> None:
    """Raises ``ValueError`` for a dtype, tolerance or number of steps that the path cannot have."""
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype is {dtype}; the iterations are in float32 or float64.")
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance is {tolerance}; expected a finite number, not negative.")
    if not 0 <= max_steps < 2**31:
        raise ValueError(f"max_steps is {max_steps}; expected 0 to 2^31 - 1.")


def in_range(l2s: np.ndarray, scale: float, dtype: np.dtype) -> np.ndarray:
    """Returns the penalties for features of unit scale, as ``dtype`` can represent them.

    Raises:
      ValueError: some are too small or too large for that.
    """
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        relative = l2s / np.square(scale)
    info = np.finfo(dtype)
    wrong = l2s[~((relative > 1e3 * info.tiny) & (relative < 1e-3 * info.max))]
    if len(wrong):
        raise ValueError(
            f"l2 = {wrong[0]:.3g} for features with a standard deviation of {scale:.3g} is beyond "
            f"the range of {dtype}; divide the features, or choose penalties nearer to their "
            "variance."
        )
    return relative


def penalties(l2s: Any) -> np.ndarray:
    """Returns penalties ``[P]``, positive and finite, or raises ``ValueError``."""
    l2s = np.asarray(l2s, np.float64)
    wrong = l2s[~((l2s > 0) & np.isfinite(l2s))] if l2s.ndim == 1 else l2s
    if l2s.ndim != 1 or not len(l2s) or len(wrong):
        raise ValueError(
            f"penalties must be a list of positive finite numbers, got {wrong}; without a penalty "
            "separable data have no optimum."
        )
    return l2s


def weights(
    labels: np.ndarray, num_classes: int, sample_weight: Any, class_weight: Any
) -> np.ndarray:
    """Returns the weights of the samples, whose sum is one.

    Raises:
      ValueError: shapes do not fit, a weight is negative or not finite, or all are zero.
    """
    weights = np.ones(len(labels))
    if sample_weight is not None:
        weights = np.asarray(sample_weight, np.float64)
        if weights.shape != labels.shape:
            raise ValueError(f"sample_weight has shape {weights.shape}, labels {labels.shape}.")
    if class_weight is not None:
        class_weight = np.asarray(class_weight, np.float64)
        if class_weight.shape != (num_classes,):
            raise ValueError(
                f"class_weight has shape {class_weight.shape}, expected ({num_classes},)."
            )
        weights = weights * class_weight[labels]
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("weights must be finite and not negative, and one must be positive.")
    return weights / weights.sum()
