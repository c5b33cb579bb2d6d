r"""Optima of the probe's objective with a proof, which share nothing with ``probes``.

Newton's method in float64 NumPy, its systems solved by SciPy's conjugate gradients, ends where
convexity proves it: with phi(W) the objective minimised over the free bias, phi - (l2/2) ||W||^2 is
convex, so that

    phi(W) - min phi <= ||grad phi(W)||^2 / (2 l2).

Without a bias at its optimum, to 1e-12 in every component of the gradient, nothing is proved.

It may start anywhere, at the solution under test as well: the proof does not care.

Legend: N samples, D features, K classes.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import linalg as sparse


class Proven(NamedTuple):
    """An objective, and by how much of it the minimum may lie below."""

    objective: float
    bound: float


def objective(features, labels, kernel, bias, l2) -> float:
    """Returns mean cross-entropy + (l2/2) ||W||^2, where the loss of a sure sample has digits."""
    return _Losses(features @ kernel + bias, labels).mean() + l2 / 2 * np.sum(kernel**2)


class Problem:
    """Centred features in their principal axes, where a diagonal is a good preconditioner."""

    def __init__(self, features, labels):
        features = np.asarray(features, np.float64)
        self.mean = features.mean(axis=0)
        centred = features - self.mean
        values, axes = np.linalg.eigh(centred.T @ centred / len(labels))
        kept = values > 1e-13 * values[-1]
        self.axes, self.squares = axes[:, kept], values[kept][:, None]
        self.rotated, self.labels = centred @ self.axes, labels

    def optimum(self, kernel, bias, l2, enough=1e-10, most=30) -> Proven:
        """Returns the optimum, from a start that is given for the features as they came.

        Args:
          kernel: to start from, ``[D K]``.
          bias: of it, ``[K]``.
          l2: the penalty.
          enough: the bound to reach, relative to the objective.
          most: steps of Newton.
        """
        bias, kernel = bias + self.mean @ kernel, self.axes.T @ kernel
        for _ in range(most):
            bias, losses = self._free(kernel, bias)
            value = losses.mean() + l2 / 2 * np.sum(kernel**2)
            gradient = self.rotated.T @ losses.residual / len(self.labels) + l2 * kernel
            free = np.abs(losses.residual.mean(axis=0)).max() < 1e-12
            bound = np.sum(gradient**2) / (2 * l2) / value if free else np.inf
            if bound <= enough:
                break
            step = self._newton(losses.p, gradient, l2, _rtol(enough / bound))
            kernel = kernel + self._length(kernel, bias, step, l2, value) * step
        return Proven(value, bound)

    def _free(self, kernel, bias):
        """Minimises over the bias alone, by Newton's method."""
        logits = self.rotated @ kernel
        for _ in range(20):
            losses = _Losses(logits + bias, self.labels)
            slope = losses.residual.mean(axis=0)
            hessian = _bias_hessian(losses.p)
            step = np.linalg.lstsq(hessian, -slope, rcond=1e-14)[0]
            if -slope @ step < 1e-24:
                break
            bias = bias + step / max(1, np.ptp(step))
        return bias, losses

    def _newton(self, p, gradient, l2, rtol):
        """Solves the Hessian of phi, the Schur complement of the bias, for -gradient."""
        samples, shape = len(self.labels), gradient.shape
        inverse = np.linalg.pinv(_bias_hessian(p), rcond=1e-13, hermitian=True)

        def product(v):
            move = self.rotated @ v.reshape(shape)
            curved = p * (move - np.sum(p * move, axis=1, keepdims=True))
            free = -inverse @ curved.mean(axis=0)
            curved += p * (free - (p @ free)[:, None])
            return (self.rotated.T @ curved / samples + l2 * v.reshape(shape)).ravel()

        diagonal = 1 / (self.squares * np.mean(p * (1 - p), axis=0) + l2).ravel()
        size = gradient.size
        step, _ = sparse.cg(
            sparse.LinearOperator((size, size), product),
            -gradient.ravel(),
            rtol=rtol,
            maxiter=5000,
            M=sparse.LinearOperator((size, size), lambda v: diagonal * v.ravel()),
        )
        return step.reshape(shape)

    def _length(self, kernel, bias, step, l2, value) -> float:
        """Returns 1, or the first half of it that does not raise the objective."""
        length = 1.0
        while length > 1e-6:
            trial = kernel + length * step
            losses = _Losses(self.rotated @ trial + bias, self.labels)
            # The bias was the best for the kernel before: it may have to follow before it pays.
            there = losses.mean() + l2 / 2 * np.sum(trial**2)
            if there <= value * (1 + 1e-6):
                break
            length /= 2
        return length


class _Losses:
    """Losses of samples, their softmax and its difference to the target, each to all digits."""

    def __init__(self, logits, labels):
        rows = np.arange(len(labels))
        behind = logits - logits[rows, labels][:, None]
        behind[rows, labels] = -np.inf
        peak = np.maximum(behind.max(axis=1), 0)
        others = np.exp(behind - peak[:, None])
        rest = others.sum(axis=1)
        total = rest + np.exp(-peak)
        self.values = np.where(peak == 0, np.log1p(rest), peak + np.log(total))
        self.residual = others / total[:, None]
        self.p = self.residual.copy()
        self.residual[rows, labels] = -rest / total
        self.p[rows, labels] = np.exp(-peak) / total

    def mean(self) -> float:
        return float(self.values.mean())


def _rtol(ratio) -> float:
    """Returns how exactly to solve for a step that is to lower the bound by this ratio."""
    return 0.1 * min(1, max(np.sqrt(ratio), 1e-4))


def _bias_hessian(p):
    return np.diag(p.mean(axis=0)) - p.T @ p / len(p)
