r"""Linear probes: multinomial logistic regression for a whole path of penalties.

    minimise over (W, b)   sum_i w_i CE(W^T h_i + b, y_i) + (l2/2) ||W||_F^2

with weights w_i = 1/N unless said, W ``[D K]`` the kernel and b ``[K]`` the bias, which is free.
This is scikit-learn's ``LogisticRegression`` with C = 1 / (N l2). A path of 97 penalties is one
compiled program (``probes/path.py``) on features that were rotated once (``probes/rotation.py``).

Legend: N samples, D features, K classes, P penalties.

Reference: Xu & Liu (2023), section 6; D. Boehning, Multinomial logistic regression algorithm, 1992.
"""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from probes import path, rotation
from probes.problem import Problem
from train import mesh as meshes

# Between penalties further apart than this, others are solved on the way.
_LARGEST_RATIO = 10.0


class ProbeFit(NamedTuple):
    """Optima at P penalties, in the order they were asked for; ``fit`` has no axis P.

    Attributes:
      kernel: ``[P D K]``, for the features as they were given.
      bias: ``[P K]``; -inf for a class without a sample, which is the limit it tends to.
      objective: reached, ``[P]``.
      grad_norm: of its gradient in kernel and bias, ``[P]``.
      steps: of L-BFGS, ``[P]``.
      converged: whether the stopping rule was met, ``[P]``.
      gap: ||grad_W||^2 / (2 l2) plus the intercept's part to second order, relative to the
        objective, ``[P]``. The first term bounds the excess, since the objective is l2-strongly
        convex in W; where l2 is far below the curvature of the data it is pessimistic.
    """

    kernel: np.ndarray
    bias: np.ndarray
    objective: np.ndarray
    grad_norm: np.ndarray
    steps: np.ndarray
    converged: np.ndarray
    gap: np.ndarray


def fit(features: ArrayLike, labels: ArrayLike, l2: float, **options: Any) -> ProbeFit:
    """Returns the optimum at one penalty; options and errors are those of ``fit_path``."""
    found = fit_path(features, labels, [l2], **options)
    return ProbeFit(*(field[0] for field in found))


def fit_path(
    features: ArrayLike,
    labels: ArrayLike,
    l2s: Sequence[float] | ArrayLike,
    *,
    num_classes: int | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ArrayLike | None = None,
    tolerance: float | None = None,
    max_steps: int = 2000,
    dtype: Any = np.float32,
    mesh: Any = None,
) -> ProbeFit:
    """Returns the optimum at every penalty.

    Args:
      features: finite, ``[N D]``; may be memory-mapped.
      labels: integers in [0, K), ``[N]``.
      l2s: positive, in any order, ``[P]``.
      num_classes: K; the largest label plus one if left out.
      sample_weight: not negative, ``[N]``; only ratios matter.
      class_weight: multiplies the weights of each class, ``[K]``.
      tolerance: the relative excess of the objective over its minimum to reach: by default 5e-7 in
        float32 and 3e-10 in float64. In float32 less than 2e-7 is within rounding.
      max_steps: of L-BFGS per penalty.
      dtype: of the iterations, float32 or float64. The rotation is float64 in either case.
      mesh: devices (``train.mesh.make_mesh``) to divide the samples among; one if left out. A step
        then has one all-reduce of the gradient, and one of a scalar per trial of the line search.

    Returns:
      The optima, as float64 NumPy arrays. Steps are those at the penalties asked for; wide gaps
      between penalties are bridged by others, which are not reported.

    Raises:
      ValueError: shapes, labels, penalties or weights are not as above, or features are not finite;
        the message counts what is wrong.

    Warns:
      ConvergenceWarning: some penalties did not converge; it names them.
    """
    dtype = np.dtype(dtype)
    tolerance = (5e-7 if dtype == np.float32 else 3e-10) if tolerance is None else tolerance
    features, labels, num_classes = _checked(features, labels, num_classes)
    l2s = _checked_penalties(l2s)
    weights = _weights(labels, num_classes, sample_weight, class_weight)
    present = np.flatnonzero(np.bincount(labels, weights, num_classes) > 0)
    if len(present) == 1:
        return _only_one(features.shape[1], num_classes, present[0], len(l2s))
    found = rotation.fit(features, weights)
    columns = np.searchsorted(present, labels)
    visited, wanted = _bridged(l2s / found.scale**2)
    with jax.enable_x64(dtype == np.float64):
        problem = _problem(features, columns, weights, len(present), found, dtype, mesh)
        optimum = path.follow(
            problem,
            jnp.asarray(visited, dtype),
            _prior(columns, weights, problem),
            tolerance=tolerance,
            max_steps=max_steps,
        )
        optimum = jax.tree.map(lambda x: np.asarray(x)[wanted], optimum)
    result = _restore(optimum, found, present, num_classes)
    _warn(result, l2s, max_steps)
    return result


def _checked(
    features: ArrayLike, labels: ArrayLike, num_classes: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
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


def _checked_penalties(l2s: Any) -> np.ndarray:
    l2s = np.asarray(l2s, np.float64)
    wrong = l2s[~((l2s > 0) & np.isfinite(l2s))] if l2s.ndim == 1 else l2s
    if l2s.ndim != 1 or not len(l2s) or len(wrong):
        raise ValueError(
            f"penalties must be a list of positive finite numbers, got {wrong}; without a penalty "
            "separable data have no optimum."
        )
    return l2s


def _weights(
    labels: np.ndarray, num_classes: int, sample_weight: Any, class_weight: Any
) -> np.ndarray:
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


def _only_one(dim: int, num_classes: int, present: int, penalties: int) -> ProbeFit:
    """A single class: nothing to tell apart, and zero loss at once."""
    bias = np.full((penalties, num_classes), -np.inf)
    bias[:, present] = 0
    zero = np.zeros(penalties)
    done = np.ones(penalties, bool)
    kernel = np.zeros((penalties, dim, num_classes))
    return ProbeFit(kernel, bias, zero, zero, np.zeros(penalties, np.int32), done, zero)


def _bridged(l2s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns penalties to visit, from large to small, and where those asked for are among them.

    A path is started where the optimum is nearly zero, at the largest variance (one), and never
    jumps by more than ``_LARGEST_RATIO``; from far away L-BFGS takes thousands of steps.
    """
    stops = np.unique(l2s)[::-1]
    if stops[0] < 1:
        stops = np.concatenate([[1.0], stops])
    visited = [stops[:1]]
    for high, low in itertools.pairwise(stops):
        pieces = int(np.ceil(np.log(high / low) / np.log(_LARGEST_RATIO) - 1e-9))
        visited.append(np.geomspace(high, low, max(pieces, 1) + 1)[1:-1])
        visited.append([low])
    descending = np.concatenate(visited)
    return descending, np.searchsorted(-descending, -l2s)


def _problem(
    features: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
    num_classes: int,
    found: rotation.Rotation,
    dtype: np.dtype,
    mesh: Any,
) -> Problem:
    kept = len(found.squares)
    rows = len(features) if mesh is None else meshes.round_up(len(features), mesh)
    design = np.zeros((rows, kept + 1), dtype)
    design[: len(features), :-1] = found.apply(features, dtype)
    design[:, -1] = 1
    padded = np.zeros(rows, dtype)
    padded[: len(features)] = weights
    targets = np.zeros((rows, num_classes), bool)
    targets[np.arange(rows), np.pad(columns, (0, rows - len(columns)))] = True
    parts, whole = (meshes.split(mesh), meshes.replicated(mesh)) if mesh else (None, None)
    return Problem(
        design=jax.device_put(design, parts),
        weights=jax.device_put(padded, parts),
        targets=jax.device_put(targets, parts),
        squares=jax.device_put(np.append(found.squares, 1).astype(dtype), whole),
        penalised=jax.device_put(np.append(np.ones(kept), 0).astype(dtype), whole),
    )


def _prior(columns: np.ndarray, weights: np.ndarray, problem: Problem) -> np.ndarray:
    """Returns the optimum at an infinite penalty: no kernel, and the classes' log frequencies."""
    dtype = problem.design.dtype
    start = np.zeros((problem.design.shape[1], problem.targets.shape[1]), dtype)
    logs = np.log(np.bincount(columns, weights, start.shape[1]))
    start[-1] = logs - logs.mean()
    return start


def _restore(
    optimum: path.Optimum, found: rotation.Rotation, present: np.ndarray, num_classes: int
) -> ProbeFit:
    params = optimum.params.astype(np.float64)
    kernel, bias = found.undo(params[:, :-1], params[:, -1])
    # The gradient for the features as they came: rotated back, plus the mean times the bias' part.
    gradient = optimum.gradient.astype(np.float64)
    turned = found.scale * gradient[:, :-1] + (found.mean @ found.axes)[:, None] * gradient[:, -1:]
    beyond = found.mean - found.axes @ (found.mean @ found.axes)
    free = np.sum(gradient[:, -1] ** 2, axis=-1)
    norm = np.sqrt(np.sum(turned**2, axis=(1, 2)) + (1 + beyond @ beyond) * free)
    if len(present) < num_classes:
        full_kernel = np.zeros((*kernel.shape[:2], num_classes))
        full_bias = np.full((len(bias), num_classes), -np.inf)
        full_kernel[..., present], full_bias[..., present] = kernel, bias
        kernel, bias = full_kernel, full_bias
    return ProbeFit(
        kernel,
        bias,
        optimum.objective.astype(np.float64),
        norm,
        optimum.steps,
        optimum.converged,
        optimum.gap.astype(np.float64),
    )


def _warn(result: ProbeFit, l2s: np.ndarray, max_steps: int) -> None:
    failed = np.flatnonzero(~result.converged)
    if len(failed):
        listing = ", ".join(f"{l2s[i]:.3g}" for i in failed[:5])
        more = ", ..." if len(failed) > 5 else ""
        warnings.warn(
            f"{len(failed)} of {len(l2s)} penalties did not converge (l2 = {listing}{more}) within "
            f"{max_steps} steps or the precision of the iterations; raise max_steps or use "
            "dtype=numpy.float64.",
            ConvergenceWarning,
            stacklevel=3,
        )
