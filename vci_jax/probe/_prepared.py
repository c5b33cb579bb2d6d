"""Transforms a data set for the path solver, and the solver's optima back to its features.

Legend: N samples, D features, K classes, P penalties.
"""

import itertools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from scipy.special import logsumexp

from vci_jax.probe import _inputs, _precondition, _rotation, _solver
from vci_jax.probe import _problem as problem

# Penalties per call of the compiled program; a path can be saved and resumed between calls.
BLOCK = 16
# Between penalties with a larger ratio, further ones are inserted.
_LARGEST_RATIO = 10**0.5
# Columns are padded to a multiple of D over this, so that features with a few dead directions more
# or less share a program.
_GRANULES = 16
# Lost digits of the logits, in units of the tolerance, from which the objective is computed anew;
# and by how many tolerances it may then lie above what the path had: it is in float32.
_DIGITS, _NOISE = 0.1, 4
_CHUNK = 4096
# Cost in the objective of the directions left out above which a warning is given.
_UNSEEN = 1e-10
# Data are uneven if a sample makes more than this part of a variance, has less than this part of
# the mean weight, a class of the mean frequency, or a direction of the largest variance.
_SHARE, _LIGHT, _GRADED = 0.25, 0.02, 1e-9


class ProbeFit(NamedTuple):
    """Optima at P penalties, in the order they were asked for; ``fit`` has no axis P.

    Attributes:
      kernel: ``[P D K]``, for the features as they were given.
      bias: ``[P K]``; -inf for a class without a sample, which is the limit it tends to.
      objective: reached, ``[P]``; in float32 to the rounding of logits, 1e-6 where they are large.
      grad_norm: of its gradient in kernel and bias, ``[P]``.
      steps: of L-BFGS, ``[P]``.
      converged: whether the stopping rule, a prediction, was met, ``[P]``.
      gap: a certificate, ``[P]``: the excess of the objective over its minimum, relative to it, is
        at most this, by duality (``_intercept.py``), up to the rounding of ``dtype``. Where
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


class PreparedData(NamedTuple):
    """A data set as the solver takes it, and what maps results back to its features.

    Attributes:
      data: the rotated and padded data on the devices.
      state: the state before the first penalty.
      visited: penalties relative to the variance of the features, from large to small.
      wanted: indices in ``visited`` of the caller's penalties, ``[P]``.
      present: the classes with a sample of positive weight.
      samples: features, labels and weights as given.
    """

    data: problem.Problem
    state: _solver.State
    visited: np.ndarray
    wanted: np.ndarray
    rotation: _rotation.Rotation
    present: np.ndarray
    num_classes: int
    samples: tuple[np.ndarray, np.ndarray, np.ndarray]

    def block(self, start: int) -> np.ndarray:
        """Returns the penalties of a call, padded with zeros, ``[BLOCK]``."""
        penalties = self.visited[start : start + BLOCK].astype(self.data.design.dtype)
        return np.pad(penalties, (0, BLOCK - len(penalties)))

    def solutions(
        self, start: int, optima: _solver.Optimum, tolerance: float
    ) -> tuple[np.ndarray, ProbeFit]:
        """Returns indices of the caller's penalties in this block, and the fits there."""
        places = np.flatnonzero((self.wanted >= start) & (self.wanted < start + BLOCK))
        optima = _solver.Optimum(*(np.asarray(x)[self.wanted[places] - start] for x in optima))
        # The gradient there has a square of at most 2 min(1, f) times the variance left out.
        unseen = self.rotation.lost / self.visited[self.wanted[places]]
        optima = optima._replace(
            gap=optima.gap.astype(np.float64) + unseen,
            converged=optima.converged & (unseen <= tolerance),
        )
        fit = _restore(optima, self.rotation, self.present, self.num_classes)
        penalties = self.visited[self.wanted[places]] * self.rotation.scale**2
        return places, self._as_given(fit, penalties, tolerance)

    def _as_given(self, fit: ProbeFit, penalties: np.ndarray, tolerance: float) -> ProbeFit:
        """Recomputes objectives in float64 from the given features, where rounding may matter.

        It may for uneven data, and for features so far from zero that the kernel times their mean
        loses digits of the logits.
        """
        lost = np.finfo(np.float64).eps * np.abs(self.rotation.mean) @ np.abs(fit.kernel)
        if self.data.uneven is None and (lost <= _DIGITS * tolerance).all():
            return fit
        values = [
            _objective(*self.samples, *solution)
            for solution in zip(fit.kernel, fit.bias, penalties, strict=True)
        ]
        above = np.maximum(np.array(values) / fit.objective - 1, 0)
        return fit._replace(
            objective=np.array(values),
            gap=fit.gap + above,
            converged=fit.converged & (above <= _NOISE * tolerance),
        )


def prepare(
    features: np.ndarray,
    labels: np.ndarray,
    penalties: np.ndarray,
    weights: np.ndarray,
    num_classes: int,
    dtype: np.dtype,
    mesh: Any = None,
    *,
    tolerance: float,
    max_steps: int,
    intercept: bool,
) -> PreparedData | ProbeFit:
    """Returns a checked data set, ready for the solver; or the fit, if there is one class alone.

    Raises:
      VCIError: a penalty is out of the range of ``dtype``, relative to the features' variance.
    """
    present = np.flatnonzero(np.bincount(labels, weights, num_classes) > 0)
    if len(present) == 1:
        return _single_class(features.shape[1], num_classes, present[0], len(penalties))
    rotation = _rotation.fit(features, weights, centred=intercept)
    _warn_of_lost_directions(rotation, penalties)
    visited, wanted = _with_intermediate(_inputs.in_range(penalties, rotation.scale, dtype))
    # Samples of classes without weight are given any class: their weight is zero.
    rows = np.minimum(np.searchsorted(present, labels), len(present) - 1)
    with jax.enable_x64(dtype == np.float64):
        data = _problem(
            *(features, rows, weights, len(present), rotation, dtype, mesh, tolerance, max_steps),
            intercept,
        )
        frequencies = np.bincount(rows, weights)
        if not intercept:  # Where all logits are zero, classes are equally likely.
            frequencies = np.full(len(present), 1 / len(present))
        state = _begin(frequencies, data, visited[0])
    samples = features, labels, weights
    return PreparedData(data, state, visited, wanted, rotation, present, num_classes, samples)


def _objective(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray,
    l2: float,
) -> float:
    total = l2 * np.sum(kernel**2) / 2
    for start in range(0, len(labels), _CHUNK):
        rows = slice(start, start + _CHUNK)
        counted = weights[rows] > 0
        logits = features[rows][counted].astype(np.float64) @ kernel + bias
        place = np.arange(len(logits)), labels[rows][counted]
        behind = logits - logits[place][:, None]
        behind[place] = -np.inf
        total += weights[rows][counted] @ np.logaddexp(0, logsumexp(behind, axis=1))
    return float(total)


def _warn_of_lost_directions(rotation: _rotation.Rotation, penalties: np.ndarray) -> None:
    share = float(rotation.lost * np.square(rotation.scale) / penalties.min())
    if share > _UNSEEN:
        warnings.warn(
            f"{rotation.dropped} of {rotation.dropped + len(rotation.squares)} directions of the "
            "features vary less than rounding resolves and were left out, which may cost "
            f"{share:.1g} of the objective at l2 = {penalties.min():.3g}; bring the features to "
            "one unit.",
            stacklevel=4,
        )


def _single_class(dim: int, num_classes: int, present: int, penalties: int) -> ProbeFit:
    """Returns the fit of a single class, whose loss is zero."""
    bias = np.full((penalties, num_classes), -np.inf)
    bias[:, present] = 0
    zero = np.zeros(penalties)
    done = np.ones(penalties, bool)
    kernel = np.zeros((penalties, dim, num_classes))
    return ProbeFit(kernel, bias, zero, zero, np.zeros(penalties, np.int32), done, zero)


def _with_intermediate(penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns penalties to visit, from large to small, and the indices of the given ones.

    A path is started where the optimum is nearly zero, at the largest variance (one), and never
    jumps by more than ``_LARGEST_RATIO``; from far away L-BFGS takes thousands of steps.
    """
    stops = np.unique(penalties)[::-1]
    if stops[0] < 1:
        stops = np.concatenate([[1.0], stops])
    visited = [stops[:1]]
    for high, low in itertools.pairwise(stops):
        pieces = int(np.ceil(np.log(high / low) / np.log(_LARGEST_RATIO) - 1e-9))
        visited.append(np.geomspace(high, low, max(pieces, 1) + 1)[1:-1])
        visited.append(np.array([low]))
    descending = np.concatenate(visited)
    return descending, np.searchsorted(-descending, -penalties)


def _problem(
    features: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
    num_classes: int,
    rotation: _rotation.Rotation,
    dtype: np.dtype,
    mesh: Any,
    tolerance: float,
    max_steps: int,
    intercept: bool,
) -> problem.Problem:
    directions, granule = len(rotation.squares), -(-features.shape[1] // _GRANULES)
    columns = -(-directions // granule) * granule
    layout = problem.shape(len(rows), num_classes, mesh.size if mesh else 1)
    chunks, parts, size = layout
    design = np.zeros((chunks, parts, columns + 1, size), dtype)
    design[:, :, -1] = intercept
    padded = np.zeros(layout, dtype)
    padded.ravel()[: len(weights)] = weights
    largest = np.zeros(directions)
    for index, place in enumerate(np.ndindex(chunks, parts)):
        rotation.apply(features[index * size : (index + 1) * size], design[place])
        squares = design[place][:directions] ** 2 * padded[place]
        largest = np.maximum(largest, squares.max(axis=1, initial=0))
    uneven = _uneven(rows, weights, rotation, largest)
    sampled = _precondition.sampled(len(rows), num_classes, columns + 1, size)
    places = np.pad(rows, (0, padded.size - len(rows))).reshape(chunks, parts, 1, size)
    ends = np.zeros(columns - directions)
    divided, whole = placement(mesh, None, mesh and mesh.axis_names), placement(mesh)
    return problem.Problem(
        design=jax.device_put(design, divided),
        weights=jax.device_put(padded, divided),
        targets=jax.device_put(places == np.arange(num_classes)[:, None], divided),
        squares=jax.device_put(np.concatenate([rotation.squares, ends, [1]]).astype(dtype), whole),
        penalised=jax.device_put(np.append(np.ones(columns), not intercept).astype(dtype), whole),
        tolerance=jax.device_put(np.asarray(tolerance, dtype), whole),
        max_steps=jax.device_put(np.int32(max_steps), whole),
        uneven=jax.device_put(np.zeros((), dtype), whole) if uneven else None,
        sampled=None if sampled is None else jax.device_put(sampled, whole),
    )


def _uneven(
    rows: np.ndarray, weights: np.ndarray, rotation: _rotation.Rotation, largest: np.ndarray
) -> bool:
    """Returns whether the curvature may be far from what the variances suggest.

    It may if one sample makes most of a variance (``largest`` is its part, ``[Q]``), if a sample or
    a class has little weight, or if a direction is barely above the rounding of others.
    """
    positive = weights[weights > 0]
    frequencies = np.bincount(rows, weights)
    alone = np.any(largest > max(_SHARE, 10 / len(positive)) * rotation.squares)
    light = positive.min() < _LIGHT / len(positive) or frequencies.min() < _LIGHT / len(frequencies)
    return bool(alone or light or np.min(rotation.squares, initial=1) < _GRADED)


def placement(mesh: Any, *axes: Any) -> NamedSharding | None:
    """Returns the sharding of arrays along ``axes`` of a mesh; None without a mesh."""
    return NamedSharding(mesh, PartitionSpec(*axes)) if mesh else None


def _begin(frequencies: np.ndarray, data: problem.Problem, l2: float) -> _solver.State:
    """Returns the state at an infinite penalty: kernel zero, intercept the log frequencies."""
    dtype, classes = data.design.dtype, len(frequencies)
    prior = np.zeros((data.design.shape[2], classes), dtype)
    prior[-1] = np.log(frequencies) - np.log(frequencies).mean()
    hessian = np.diag(frequencies) - np.outer(frequencies, frequencies)
    return _solver.begin(jnp.asarray(prior), jnp.asarray(hessian, dtype), jnp.asarray(l2, dtype))


def _restore(
    optimum: _solver.Optimum, rotation: _rotation.Rotation, present: np.ndarray, num_classes: int
) -> ProbeFit:
    directions = len(rotation.squares)
    params = optimum.params.astype(np.float64)
    kernel, bias = rotation.undo(params[:, :directions], params[:, -1])
    # The gradient for the original features: rotated back, plus the mean times the bias' part.
    gradient = optimum.gradient.astype(np.float64)
    turned = rotation.scale * gradient[:, :directions]
    turned += (rotation.mean @ rotation.axes)[:, None] * gradient[:, -1:]
    beyond = rotation.mean - rotation.axes @ (rotation.mean @ rotation.axes)
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
