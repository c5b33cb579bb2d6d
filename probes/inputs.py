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
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise ValueError(
            f"features have shape {features.shape} and labels {labels.shape}; expected [N D] and "
            "[N] with N > 0."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype}; expected integers in [0, K).")
    if not np.issubdtype(features.dtype, np.floating):
        features = features.astype(np.float32)
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
