r"""Linear probes: multinomial logistic regression for a whole path of penalties.

    minimise over (W, b)   sum_i w_i CE(W^T h_i + b, y_i) + (l2/2) ||W||_F^2

with weights w_i = 1/N by default, W ``[D K]`` the kernel and b ``[K]`` the bias, which is free.
This is scikit-learn's ``LogisticRegression`` with C = 1 / (N l2). A path of 97 penalties is one
compiled program (``_solver.py``) on features that were rotated once (``_rotation.py``).
It is compiled for a shape and serves every data set of it: the features of eleven checkpoints for
one task cost one compilation.

Legend: N samples, D features, K classes, P penalties.

Reference: Xu & Liu (2023), section 6; D. Boehning, Multinomial logistic regression algorithm, 1992.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vci_jax import progress
from vci_jax.errors import VCIError, check_dtype
from vci_jax.probe import _inputs, _prepared, _progress, _solver
from vci_jax.probe._prepared import ProbeFit
from vci_jax.probe._progress import Unusable

__all__ = [
    "ConvergenceWarning",
    "ProbeFit",
    "Unusable",
    "fit",
    "fit_path",
    "fit_paths",
    "iter_path",
    "join",
    "warn",
]


class ConvergenceWarning(UserWarning):
    """Some penalties did not reach the tolerance: those where ``converged`` is false."""


def fit(features: ArrayLike, labels: ArrayLike, l2: float, **options: Any) -> ProbeFit:
    """Returns the optimum at one penalty; options and errors are those of ``fit_path``."""
    path = fit_path(features, labels, [l2], **options)
    return ProbeFit(*(field[0] for field in path))


# Both functions list the options: help() and the documentation show no member of
# ``**options: Unpack[...]``.
def fit_path(
    features: ArrayLike,
    labels: ArrayLike,
    penalties: Sequence[float] | ArrayLike,
    *,
    num_classes: int | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ArrayLike | None = None,
    tolerance: float | None = None,
    max_steps: int = 2000,
    dtype: Any = np.float32,
    mesh: Any = None,
    resume: str | os.PathLike[str] | None = None,
    intercept: bool = True,
) -> ProbeFit:
    """Returns the optimum at every penalty, in the order of ``penalties``.

    Arguments are those of ``iter_path``.

    Returns:
      The optima, as float64 NumPy arrays. Steps are those at the penalties asked for; wide gaps
      between penalties are bridged by others, which are not reported.

    Raises:
      VCIError: as ``iter_path``.

    Warns:
      ConvergenceWarning: some penalties did not converge; it names them.
    """
    optima = iter_path(
        features,
        labels,
        penalties,
        num_classes=num_classes,
        sample_weight=sample_weight,
        class_weight=class_weight,
        tolerance=tolerance,
        max_steps=max_steps,
        dtype=dtype,
        mesh=mesh,
        resume=resume,
        intercept=intercept,
    )
    fit = _in_order(optima)
    warn(fit, np.asarray(penalties, np.float64))
    return fit


def iter_path(
    features: ArrayLike,
    labels: ArrayLike,
    penalties: Sequence[float] | ArrayLike,
    *,
    num_classes: int | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ArrayLike | None = None,
    tolerance: float | None = None,
    max_steps: int = 2000,
    dtype: Any = np.float32,
    mesh: Any = None,
    resume: str | os.PathLike[str] | None = None,
    intercept: bool = True,
) -> Iterator[tuple[np.ndarray, ProbeFit]]:
    """Yields the optima block by block, from large to small penalties; stop at any block.

    Args:
      features: finite, ``[N D]``; may be memory-mapped.
      labels: integers in [0, K), ``[N]``.
      penalties: positive, in any order, ``[P]``.
      num_classes: K; the largest label plus one if left out.
      sample_weight: not negative, ``[N]``; only ratios matter.
      class_weight: multiplies the weights of each class, ``[K]``.
      tolerance: the relative excess of the objective over its minimum to reach: by default 5e-7 in
        float32 and 3e-10 in float64. In float32 less than 2e-7 is within rounding. Whether it is
        reached is predicted by L-BFGS, which outliers and very rare classes can deceive; what is
        certain is ``ProbeFit.gap``.
      max_steps: of L-BFGS per penalty.
      dtype: of the iterations, float32 or float64. The rotation is float64 in either case.
      mesh: devices (``train.mesh.make_mesh``) to divide the samples among; one if left out. They
        exchange objective and gradient once per trial of a length; a step mostly has one.
      resume: checkpoint file; the same call resumes from it and returns identical results.
      intercept: fit a bias, free of penalty. Without one it is zero, and features count from their
        origin (scikit-learn's ``fit_intercept=False``). In either case a class without a sample is
        left out of the problem, and its bias is -inf.

    Yields:
      Places in ``penalties``, and the optima at those.

    Raises:
      VCIError: shapes, labels, penalties, weights or settings are not as above, features are not
        finite (the message counts what is wrong), a penalty is out of the range of ``dtype``
        relative to the variance of the features, or ``resume`` is the file of another call.
    """
    dtype = check_dtype(dtype)
    tolerance = _tolerance(dtype, tolerance, max_steps)
    features, labels, num_classes = _inputs.samples(features, labels, num_classes)
    penalties = _inputs.penalties(penalties)
    weights = _inputs.weights(labels, num_classes, sample_weight, class_weight)
    prepared = _prepared.prepare(
        *(features, labels, penalties, weights, num_classes, dtype, mesh),
        tolerance=tolerance,
        max_steps=max_steps,
        intercept=intercept,
    )
    if isinstance(prepared, ProbeFit):
        yield np.arange(len(penalties)), prepared
        return
    layout = [leaf.shape for leaf in jax.tree.leaves((prepared.data.weights, prepared.state))]
    settings = [num_classes, tolerance, max_steps, dtype.str, layout]
    settings += [] if intercept else ["without intercept"]  # Older files have one.
    key = _progress.key([features, labels, weights, penalties], settings) if resume else ""
    start_of_path = _progress.Progress(0, prepared.state, [])
    so_far = _progress.load(resume, key, prepared.state) if resume else start_of_path
    for indices, *fields in so_far.results:
        yield indices, ProbeFit(*fields)
    for start in range(so_far.done, len(prepared.visited), _prepared.BLOCK):
        with jax.enable_x64(dtype == np.float64):
            # With the same sharding in every call: another one would compile a second program.
            state = jax.device_put(so_far.state, _prepared.placement(mesh))
            state, optima = _solver.follow(prepared.data, state, prepared.block(start))
        indices, fit = prepared.solutions(start, optima, tolerance)
        results = [*so_far.results, (indices, *fit)] if resume else []
        so_far = _progress.Progress(start + _prepared.BLOCK, state, results)
        if resume:
            _progress.save(resume, key, so_far)
        progress.advance("fitting", min(so_far.done, len(prepared.visited)), len(prepared.visited))
        yield indices, fit


def fit_paths(
    features: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    penalties: Sequence[float] | ArrayLike,
    *,
    num_classes: int,
    class_weight: ArrayLike | None = None,
    tolerance: float | None = None,
    max_steps: int = 2000,
    dtype: Any = np.float32,
    intercept: bool = True,
) -> list[ProbeFit]:
    """Returns ``fit_path`` of several data sets, those of one shape solved at once.

    For small data sets on an accelerator, such as the features of eleven checkpoints for one task:
    a batch of programs that each are too small to fill it. They go in step, as fast as the slowest;
    all designs are in memory together.

    Args:
      features: of each data set, ``[N D]``.
      labels: of each, ``[N]``.
      penalties: as of ``iter_path``, and so are the options.
      num_classes: K, the same for all.
      class_weight: the same for all, ``[K]``.
      tolerance: relative excess to reach.
      max_steps: per penalty.
      dtype: of the iterations.
      intercept: as of ``iter_path``.

    Raises:
      VCIError: as ``iter_path``, with the number of the data set.

    Warns:
      ConvergenceWarning: as ``fit_path``, for each data set.
    """
    dtype = check_dtype(dtype)
    tolerance = _tolerance(dtype, tolerance, max_steps)
    penalties = _inputs.penalties(penalties)
    ready: list[_prepared.PreparedData | ProbeFit] = []
    for number, pair in enumerate(zip(features, labels, strict=True)):
        try:
            rows, marks, _ = _inputs.samples(*pair, num_classes)
            weights = _inputs.weights(marks, num_classes, None, class_weight)
            ready.append(
                _prepared.prepare(
                    *(rows, marks, penalties, weights, num_classes, dtype),
                    tolerance=tolerance,
                    max_steps=max_steps,
                    intercept=intercept,
                )
            )
        except ValueError as error:
            raise VCIError(f"data set {number}: {error}") from error
    fits = {i: item for i, item in enumerate(ready) if isinstance(item, ProbeFit)}
    by_shape: dict[Any, dict[int, _prepared.PreparedData]] = {}
    for i, item in enumerate(ready):
        if isinstance(item, _prepared.PreparedData):
            shapes = tuple(leaf.shape for leaf in jax.tree.leaves((item.data, item.state)))
            by_shape.setdefault(shapes, {})[i] = item
    for group in by_shape.values():
        fits |= dict(zip(group, _follow_group(list(group.values()), dtype), strict=True))
    for fit in fits.values():
        warn(fit, penalties)
    return [fits[i] for i in range(len(ready))]


def _follow_group(group: Sequence[_prepared.PreparedData], dtype: np.dtype) -> list[ProbeFit]:
    parts: list[list[tuple[np.ndarray, ProbeFit]]] = [[] for _ in group]
    with jax.enable_x64(dtype == np.float64):
        data, state = jax.tree.map(
            lambda *leaves: jnp.stack(leaves),
            # Blocks would be computed at every penalty: a batch takes both sides of a condition.
            *((prepared.data._replace(sampled=None), prepared.state) for prepared in group),
        )
    for start in range(0, max(len(prepared.visited) for prepared in group), _prepared.BLOCK):
        blocks = np.stack([prepared.block(start) for prepared in group])
        with jax.enable_x64(dtype == np.float64):
            state, optima = _solver.follow_together(data, state, blocks)
        optima = _solver.Optimum(*map(np.asarray, optima))
        for i, prepared in enumerate(group):
            own = _solver.Optimum(*(field[i] for field in optima))
            parts[i].append(prepared.solutions(start, own, float(prepared.data.tolerance)))
    return [_in_order(part) for part in parts]


def _in_order(parts: Iterable[tuple[np.ndarray, ProbeFit]]) -> ProbeFit:
    order, fit = join(parts)
    return ProbeFit(*(field[np.argsort(order)] for field in fit))


def _tolerance(dtype: np.dtype, tolerance: float | None, max_steps: int) -> float:
    """Returns the tolerance or its default, after a check of the settings."""
    tolerance = (5e-7 if dtype == np.float32 else 3e-10) if tolerance is None else tolerance
    _inputs.settings(dtype, tolerance, max_steps)
    return tolerance


def join(parts: Iterable[tuple[np.ndarray, ProbeFit]]) -> tuple[np.ndarray, ProbeFit]:
    """Concatenates what ``iter_path`` yielded: indices, and the optima in their order."""
    places, fits = zip(*parts, strict=True)
    return np.concatenate(places), ProbeFit(*map(np.concatenate, zip(*fits, strict=True)))


def warn(
    fit: ProbeFit, penalties: np.ndarray, category: type[UserWarning] = ConvergenceWarning
) -> None:
    """Warns of penalties that did not converge, with a warning of ``category``."""
    failed = np.flatnonzero(~fit.converged)
    if len(failed):
        listing = ", ".join(f"{penalties[i]:.3g}" for i in failed[:5])
        more = ", ..." if len(failed) > 5 else ""
        warnings.warn(
            f"{len(failed)} of {len(penalties)} penalties did not converge (l2 = {listing}{more}) "
            f"within {fit.steps[failed].max()} steps or the precision of the iterations; raise "
            "max_steps or use dtype=numpy.float64.",
            category,
            stacklevel=3,
        )
