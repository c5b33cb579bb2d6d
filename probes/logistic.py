r"""Linear probes: multinomial logistic regression for a whole path of penalties.

    minimise over (W, b)   sum_i w_i CE(W^T h_i + b, y_i) + (l2/2) ||W||_F^2

with weights w_i = 1/N unless said, W ``[D K]`` the kernel and b ``[K]`` the bias, which is free.
This is scikit-learn's ``LogisticRegression`` with C = 1 / (N l2). A path of 97 penalties is one
compiled program (``probes/path.py``) on features that were rotated once (``probes/rotation.py``).
It is compiled for a shape and serves every data set of it: the features of eleven checkpoints for
one task cost one compilation.

Legend: N samples, D features, K classes, P penalties.

Reference: Xu & Liu (2023), section 6; D. Boehning, Multinomial logistic regression algorithm, 1992.
"""

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from probes import inputs, path, problem, progress, rotation

# Between penalties further apart than this, others are solved on the way.
_LARGEST_RATIO = 10.0
# Penalties per call of the compiled program; between calls a path can be left and gone on from.
_BLOCK = 16
# Columns are padded to a multiple of D over this, so that features with a few dead directions more
# or less share a program.
_GRANULES = 16


class ProbeFit(NamedTuple):
    """Optima at P penalties, in the order they were asked for; ``fit`` has no axis P.

    Attributes:
      kernel: ``[P D K]``, for the features as they were given.
      bias: ``[P K]``; -inf for a class without a sample, which is the limit it tends to.
      objective: reached, ``[P]``.
      grad_norm: of its gradient in kernel and bias, ``[P]``.
      steps: of L-BFGS, ``[P]``.
      converged: whether the stopping rule was met, ``[P]``.
      gap: a certificate, ``[P]``: the excess of the objective over its minimum, relative to it, is
        at most this, by duality (``probes/intercept.py``), up to the rounding of ``dtype``. Where
        l2 is far below the curvature of the data no gradient is small enough to prove what is
        true, and the bound is pessimistic.
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
    features: ArrayLike, labels: ArrayLike, l2s: Sequence[float] | ArrayLike, **options: Any
) -> ProbeFit:
    """Returns the optimum at every penalty, in the order of ``l2s``; options are those of ``walk``.

    Returns:
      The optima, as float64 NumPy arrays. Steps are those at the penalties asked for; wide gaps
      between penalties are bridged by others, which are not reported.

    Raises:
      ValueError: as ``walk``.

    Warns:
      ConvergenceWarning: some penalties did not converge; it names them.
    """
    places, found = join(walk(features, labels, l2s, **options))
    found = ProbeFit(*(field[np.argsort(places)] for field in found))
    warn(found, np.asarray(l2s, np.float64))
    return found


def walk(
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
    resume: str | os.PathLike[str] | None = None,
) -> Iterator[tuple[np.ndarray, ProbeFit]]:
    """Yields the optima from large to small penalties, some at a time, so that one may leave.

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
      mesh: devices (``train.mesh.make_mesh``) to divide the samples among; one if left out. They
        exchange objective and gradient once per trial of a length; a step mostly has one.
      resume: a file to keep what is done in; the same call goes on from it, to the same numbers.

    Yields:
      Places in ``l2s``, and the optima at those.

    Raises:
      ValueError: shapes, labels, penalties or weights are not as above, features are not finite
        (the message counts what is wrong), or ``resume`` is the file of another call.
    """
    dtype = np.dtype(dtype)
    tolerance = (5e-7 if dtype == np.float32 else 3e-10) if tolerance is None else tolerance
    features, labels, num_classes = inputs.samples(features, labels, num_classes)
    l2s = inputs.penalties(l2s)
    weights = inputs.weights(labels, num_classes, sample_weight, class_weight)
    present = np.flatnonzero(np.bincount(labels, weights, num_classes) > 0)
    if len(present) == 1:
        yield np.arange(len(l2s)), _only_one(features.shape[1], num_classes, present[0], len(l2s))
        return
    found = rotation.fit(features, weights)
    visited, wanted = _bridged(l2s / found.scale**2)
    # Samples of classes without weight may stand in any row.
    rows = np.minimum(np.searchsorted(present, labels), len(present) - 1)
    with jax.enable_x64(dtype == np.float64):
        data = _problem(features, rows, weights, len(present), found, dtype, mesh)
        state = _begin(np.bincount(rows, weights), data, visited[0])
        stop = path.Stop(jnp.asarray(tolerance, dtype), jnp.int32(max_steps))
    layout = [leaf.shape for leaf in jax.tree.leaves((data.weights, state))]
    settings = [num_classes, tolerance, max_steps, dtype.str, layout]
    key = progress.key([features, labels, weights, l2s], settings) if resume else ""
    kept = progress.load(resume, key, state) if resume else progress.Progress(0, state, [])
    for places, *fields in kept.results:
        yield places, ProbeFit(*fields)
    for start in range(kept.done, len(visited), _BLOCK):
        block = np.zeros(_BLOCK, dtype)
        block[: len(visited) - start] = visited[start : start + _BLOCK]
        with jax.enable_x64(dtype == np.float64):
            # Placed alike every time, or another program would be compiled for the second call.
            state = jax.device_put(kept.state, _placement(mesh))
            state, optima = path.follow(data, state, block, stop)
        optima = path.Optimum(*map(np.asarray, optima))
        places = np.flatnonzero((wanted >= start) & (wanted < start + _BLOCK))
        optima = path.Optimum(*(field[wanted[places] - start] for field in optima))
        result = _restore(optima, found, present, num_classes)
        results = [*kept.results, (places, *result)] if resume else []
        kept = progress.Progress(start + _BLOCK, state, results)
        if resume:
            progress.save(resume, key, kept)
        yield places, result


def join(parts: Iterable[tuple[np.ndarray, ProbeFit]]) -> tuple[np.ndarray, ProbeFit]:
    """Returns what a walk yielded as one: places, and the optima in their order."""
    places, fits = zip(*parts, strict=True)
    return np.concatenate(places), ProbeFit(*map(np.concatenate, zip(*fits, strict=True)))


def warn(found: ProbeFit, l2s: np.ndarray) -> None:
    """Warns of the penalties that did not converge."""
    failed = np.flatnonzero(~found.converged)
    if len(failed):
        listing = ", ".join(f"{l2s[i]:.3g}" for i in failed[:5])
        more = ", ..." if len(failed) > 5 else ""
        warnings.warn(
            f"{len(failed)} of {len(l2s)} penalties did not converge (l2 = {listing}{more}) within "
            f"{found.steps[failed].max()} steps or the precision of the iterations; raise "
            "max_steps or use dtype=numpy.float64.",
            ConvergenceWarning,
            stacklevel=3,
        )


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
    rows: np.ndarray,
    weights: np.ndarray,
    num_classes: int,
    found: rotation.Rotation,
    dtype: np.dtype,
    mesh: Any,
) -> problem.Problem:
    kept, granule = len(found.squares), -(-features.shape[1] // _GRANULES)
    columns = -(-kept // granule) * granule
    layout = problem.shape(len(rows), num_classes, mesh.size if mesh else 1)
    chunks, parts, size = layout
    design = np.zeros((chunks, parts, columns + 1, size), dtype)
    design[:, :, -1] = 1
    for index, place in enumerate(np.ndindex(chunks, parts)):
        found.apply(features[index * size : (index + 1) * size], design[place])
    padded = np.zeros(layout, dtype)
    padded.ravel()[: len(weights)] = weights
    places = np.pad(rows, (0, padded.size - len(rows))).reshape(chunks, parts, 1, size)
    ends = np.zeros(columns - kept)
    divided, whole = _placement(mesh, None, mesh and mesh.axis_names), _placement(mesh)
    return problem.Problem(
        design=jax.device_put(design, divided),
        weights=jax.device_put(padded, divided),
        targets=jax.device_put(places == np.arange(num_classes)[:, None], divided),
        squares=jax.device_put(np.concatenate([found.squares, ends, [1]]).astype(dtype), whole),
        penalised=jax.device_put(np.append(np.ones(columns), 0).astype(dtype), whole),
    )


def _placement(mesh: Any, *axes: Any) -> NamedSharding | None:
    """Returns where arrays lie whose axes are divided so; None is the one device there is."""
    return NamedSharding(mesh, PartitionSpec(*axes)) if mesh else None


def _begin(frequencies: np.ndarray, data: problem.Problem, l2: float) -> path.State:
    """Starts at an infinite penalty: no kernel, and the classes' log frequencies."""
    dtype, classes = data.design.dtype, len(frequencies)
    prior = np.zeros((data.design.shape[2], classes), dtype)
    prior[-1] = np.log(frequencies) - np.log(frequencies).mean()
    spread = (1 - np.sum(frequencies**2)) / (classes - 1)
    return path.begin(jnp.asarray(prior), jnp.asarray(spread, dtype), jnp.asarray(l2, dtype))


def _restore(
    optimum: path.Optimum, found: rotation.Rotation, present: np.ndarray, num_classes: int
) -> ProbeFit:
    kept = len(found.squares)
    params = optimum.params.astype(np.float64)
    kernel, bias = found.undo(params[:, :kept], params[:, -1])
    # The gradient for the features as they came: rotated back, plus the mean times the bias' part.
    gradient = optimum.gradient.astype(np.float64)
    turned = found.scale * gradient[:, :kept]
    turned += (found.mean @ found.axes)[:, None] * gradient[:, -1:]
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
