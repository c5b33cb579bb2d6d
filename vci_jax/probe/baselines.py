"""Scores without a penalty: k nearest neighbours, least squares, and scores of a model's logits.

Legend: N training samples, M test samples, D features, K classes, C classes of a source.
"""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.special import softmax, xlogy

from vci_jax.errors import VCIError
from vci_jax.probe import _inputs, _rotation

_CHUNK = 1024


def knn_predict(
    features: ArrayLike, labels: ArrayLike, queries: ArrayLike, *, k: int = 20, num_classes: int
) -> np.ndarray:
    """Returns the class most frequent among the k nearest training samples, ``[M]``.

    Nearness is cosine similarity, whatever the length of a row; a row of zeros has none to any. Of
    samples as near, the earlier ones count; of equally frequent classes the one with the larger sum
    of similarities wins, and of those the lower label. Queries are taken in chunks, so memory is
    1024 x N. Similarities are taken about the mean direction, so that no digits are lost where all
    rows point almost the same way; in float64 if features or queries are, and float32 otherwise.

    Args:
      features: finite, ``[N D]``.
      labels: integers in [0, K), ``[N]``.
      queries: finite, ``[M D]``.
      k: neighbours that vote, at most N.
      num_classes: K.

    Raises:
      VCIError: shapes or values are not as above, or k is not between 1 and N.
    """
    features, labels, num_classes = _inputs.samples(features, labels, num_classes)
    if not 1 <= k <= len(features):
        raise VCIError(f"k is {k}; it must lie between 1 and the {len(features)} samples.")
    queries = _queries(queries, features)
    if not len(queries):
        return np.empty(0, int)
    dtype = np.result_type(features, queries, np.float32)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(features), _CHUNK)]
    centre = sum(np.sum(_unit(features[chunk]), axis=0) for chunk in chunks) / len(features)
    near, level = np.empty(features.shape, dtype), np.empty(len(features), dtype)
    for chunk in chunks:
        unit = _unit(features[chunk]) - centre
        near[chunk], level[chunk] = unit, unit @ centre
    parts = []
    for start in range(0, len(queries), _CHUNK):
        unit = (_unit(queries[start : start + _CHUNK]) - centre).astype(dtype)
        with jax.enable_x64(dtype == np.float64):
            neighbours = _nearest(near, level, unit, k)
        similarity, rows = map(np.asarray, neighbours)
        parts.append(_vote(similarity, labels[rows], num_classes))
    return np.concatenate(parts)


def nearest_mean_predict(
    features: ArrayLike, labels: ArrayLike, queries: ArrayLike, *, num_classes: int
) -> np.ndarray:
    """Returns the class whose mean is nearest in Euclidean distance, ``[M]``.

    Classes without samples are never predicted; of means as near, the lower label counts. Means
    and distances are float64, from the mean of all samples, in units in which no square leaves the
    range.

    Args:
      features: finite, ``[N D]``.
      labels: integers in [0, K), ``[N]``.
      queries: finite, ``[M D]``.
      num_classes: K.

    Raises:
      VCIError: shapes or values are not as above.
    """
    features, labels, num_classes = _inputs.samples(features, labels, num_classes)
    queries = _queries(queries, features)
    counts = np.bincount(labels, minlength=num_classes)
    order = np.argsort(labels, kind="stable")
    present = np.flatnonzero(counts)
    starts = (np.cumsum(counts) - counts)[present]
    largest = max(float(np.max(np.abs(array), initial=0)) for array in (features, queries))
    scale = np.float64(2.0) ** -np.clip(np.frexp(largest)[1], -1022, 1022)
    rows, queries = np.asarray(features, np.float64) * scale, queries * scale
    centre = rows.mean(axis=0)
    means = np.add.reduceat(rows[order], starts, axis=0)
    means = means / counts[present, None] - centre
    # A common scale again, for means that lie near to each other beside a far query or centre.
    apart = float(np.max(np.abs(means), initial=0))
    scale = np.float64(2.0) ** -np.clip(np.frexp(apart)[1], -1022, 1022)
    means = means * scale
    moved = (queries - centre) * scale
    nearness = moved @ means.T - np.sum(means**2, axis=1) / 2
    nearest = np.argmax(nearness, axis=1)
    # Where products are too coarse to order the nearest, differences are not.
    reach = 1 + np.max(np.abs(moved), axis=1)
    close = nearness >= (np.max(nearness, axis=1) - 1e-14 * means.shape[1] * reach)[:, None]
    for row in np.flatnonzero(np.sum(close, axis=1) > 1):
        candidates = np.flatnonzero(close[row])
        squares = np.sum((moved[row] - means[candidates]) ** 2, axis=1)
        nearest[row] = candidates[np.argmin(squares)]
    return present[nearest]


def _queries(queries: ArrayLike, features: np.ndarray) -> np.ndarray:
    if np.shape(queries)[:1] == (0,):
        return np.empty((0, features.shape[1]))
    queries = _inputs.matrix(queries, "queries")
    if queries.shape[1] != features.shape[1]:
        raise VCIError(
            f"queries have {queries.shape[1]} features and the samples {features.shape[1]}; take "
            "them from one network."
        )
    return queries


def leep(logits: ArrayLike, labels: ArrayLike) -> float:
    """Log expected empirical prediction: how well source classes predict the labels.

        (1 / N) sum_i log sum_z P(y_i | z) theta(x_i)_z,
        P(y | z) = sum_{i: y_i = y} theta(x_i)_z / sum_i theta(x_i)_z

    with theta the softmax of a source classifier's logits. At most 0; larger predicts better
    transfer.

    Args:
      logits: finite, ``[N C]``.
      labels: integers in [0, K), ``[N]``.

    Raises:
      VCIError: shapes or values are not as above.

    Reference:
      C. Nguyen et al., LEEP: A New Measure to Evaluate Transferability, ICML 2020.
    """
    rows, labels, num_classes = _inputs.samples(logits, labels, None)
    theta = softmax(rows.astype(np.float64), axis=1)
    joint = np.stack([theta[labels == k].sum(axis=0) for k in range(num_classes)])
    # A source class whose probability underflows for every sample carries no information.
    total = joint.sum(axis=0)
    conditional = joint / np.where(total > 0, total, 1)
    return float(np.mean(np.log(np.sum(conditional[labels] * theta, axis=1))))


def nce(logits: ArrayLike, labels: ArrayLike) -> float:
    """Negative conditional entropy -H(Y | Z) of the labels given the predicted source class.

    At most 0; larger predicts better transfer. Arguments and errors are those of ``leep``.

    Reference:
      A. Tran et al., Transferability and Hardness of Supervised Classification Tasks, ICCV 2019.
    """
    rows, labels, num_classes = _inputs.samples(logits, labels, None)
    joint = np.zeros((num_classes, rows.shape[1]))
    np.add.at(joint, (labels, np.argmax(rows, axis=1)), 1 / len(labels))
    return float(np.sum(xlogy(joint, joint)) - np.sum(xlogy(joint.sum(axis=0), joint.sum(axis=0))))


@partial(jax.jit, static_argnums=3)
def _nearest(
    features: jax.Array, level: jax.Array, queries: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """Cosines, but for a term that is the query's: u.v - u.c = (u - c).(v - c) + c.(v - c)."""
    similarity = jnp.matmul(queries, features.T, precision=jax.lax.Precision.HIGHEST) + level
    return jax.lax.top_k(similarity, k)


def _vote(similarity: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the winners among neighbours ``[m k]``, the nearest first."""
    rows = np.arange(len(labels))
    counts = np.zeros((len(labels), num_classes), int)
    sums = np.zeros((len(labels), num_classes))
    # One neighbour after another: equal similarities have equal sums, to the last digit.
    for label, nearness in zip(labels.T, similarity.T, strict=True):
        counts[rows, label] += 1
        sums[rows, label] += nearness
    most = counts == counts.max(axis=1, keepdims=True)
    return np.argmax(np.where(most, sums, -np.inf), axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Returns rows of length one; by way of a power of two, or squares leave the range."""
    rows = rows.astype(np.float64)
    _, exponent = np.frexp(np.abs(rows).max(axis=1, keepdims=True))
    rows = np.ldexp(rows, -exponent)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def least_squares(
    features: ArrayLike, labels: ArrayLike, num_classes: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns kernel ``[D K]``, bias ``[K]`` and mean squared error of the one-hot linear probe.

    It minimises (1/2N) sum ||W^T h_i + b - e_{y_i}||^2, in float64, with the least norm where
    features are collinear. The minimum is ``probe_mse`` of ``vci_jax`` (Xu & Liu 2023, theorem
    5.1): (1/2)(1 - 1/K) - Tr[Sigma_T^+ Sigma_B] / (2K) on balanced data.

    Raises:
      VCIError: shapes, labels or values are not as ``path.iter_path`` demands.

    Warns:
      UserWarning: directions vary less than rounding resolves, and were left out; or kernel and
        bias have another error in the features as they came, far from the origin.
    """
    features, labels, num_classes = _inputs.samples(features, labels, num_classes)
    weights = np.full(len(labels), 1 / len(labels))
    rotation = _rotation.fit(features, weights)
    possible = min(len(labels) - 1, len(rotation.squares) + rotation.dropped)
    if len(rotation.squares) < possible:
        warnings.warn(
            f"{possible - len(rotation.squares)} of {possible} directions of the features vary "
            "less than rounding resolves beside the others, and were left out: if they vary, the "
            "error may be smaller; bring the features to one unit, or remove copies.",
            stacklevel=2,
        )
    design = np.empty((len(rotation.squares), len(labels)))
    rotation.apply(features, design)
    targets = np.eye(num_classes)[labels]
    bias = targets.mean(axis=0)
    # The columns are uncorrelated, up to rounding where their scales are very different.
    scale = np.sqrt(rotation.squares)[:, None]
    design /= scale
    gram = design @ design.T / len(labels)
    kernel = np.linalg.solve(gram, design @ (targets - bias) / len(labels))
    error = float(np.mean(np.sum((design.T @ kernel + bias - targets) ** 2, axis=1)) / 2)
    kernels, biases = rotation.undo((kernel / scale)[None], bias[None])
    reached = np.mean(np.sum((features @ kernels[0] + biases[0] - targets) ** 2, axis=1)) / 2
    if abs(reached - error) > 1e-6 * max(error, 1e-9):
        warnings.warn(
            f"kernel and bias reach an error of {reached:.6g} in the features as they came, for "
            f"{error:.6g} without rounding: subtract their mean from the features.",
            stacklevel=2,
        )
    return kernels[0], biases[0], error
