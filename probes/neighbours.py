"""Probes without a penalty to choose: k nearest neighbours, and least squares in closed form.

Legend: N training samples, M test samples, D features, K classes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from probes import rotation

_CHUNK = 1024


def knn_predict(
    features: ArrayLike, labels: ArrayLike, queries: ArrayLike, *, k: int = 20, num_classes: int
) -> np.ndarray:
    """Returns the class most frequent among the k nearest training samples, ``[M]``.

    Nearness is cosine similarity; of equally frequent classes the one with the larger sum of
    similarities wins. Queries are taken in chunks, so memory is 1024 x N.

    Args:
      features: ``[N D]``.
      labels: integers in [0, K), ``[N]``.
      queries: ``[M D]``.
      k: neighbours that vote, at most N.
      num_classes: K.

    Raises:
      ValueError: k is not between 1 and N.
    """
    features, queries = _unit(features), _unit(queries)
    if not 1 <= k <= len(features):
        raise ValueError(f"k is {k}; it must lie between 1 and the {len(features)} samples.")
    targets = jnp.asarray(labels)
    parts = [
        _vote(features, targets, queries[start : start + _CHUNK], k, num_classes)
        for start in range(0, len(queries), _CHUNK)
    ]
    return np.concatenate([np.asarray(part) for part in parts]) if parts else np.empty(0, int)


@partial(jax.jit, static_argnums=(3, 4))
def _vote(
    features: jax.Array, labels: jax.Array, queries: jax.Array, k: int, num_classes: int
) -> jax.Array:
    similarity = jnp.matmul(queries, features.T, precision=jax.lax.Precision.HIGHEST)
    nearest, rows = jax.lax.top_k(similarity, k)
    votes = jax.nn.one_hot(labels[rows], num_classes, dtype=similarity.dtype)
    # Similarities lie in [-1, 1], so their part of a vote never outweighs a whole one.
    weights = 1 + nearest / (4 * k)
    return jnp.argmax(jnp.sum(votes * weights[..., None], axis=1), axis=1)


def _unit(rows: ArrayLike) -> jax.Array:
    rows = jnp.asarray(rows, jnp.float32)
    length = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(length > 0, length, 1)


def least_squares(
    features: ArrayLike, labels: ArrayLike, num_classes: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns kernel ``[D K]``, bias ``[K]`` and mean squared error of the one-hot linear probe.

    It minimises (1/2N) sum ||W^T h_i + b - e_{y_i}||^2, in float64, with the least norm where
    features are collinear. The minimum is ``probe_mse`` of ``vci_jax`` (Xu & Liu 2023, theorem
    5.1): (1/2)(1 - 1/K) - Tr[Sigma_T^+ Sigma_B] / (2K) on balanced data.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    weights = np.full(len(labels), 1 / len(labels))
    found = rotation.fit(features, weights)
    design = np.empty((len(found.squares), len(labels)))
    found.apply(features, design)
    targets = np.eye(num_classes)[labels]
    bias = targets.mean(axis=0)
    # The columns are uncorrelated, so each has its own coefficient.
    kernel = design @ (targets - bias) / len(labels) / found.squares[:, None]
    error = float(np.mean(np.sum((design.T @ kernel + bias - targets) ** 2, axis=1)) / 2)
    kernels, biases = found.undo(kernel[None], bias[None])
    return kernels[0], biases[0], error
