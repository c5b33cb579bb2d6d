"""The probe as a scikit-learn classifier, for pipelines and cross-validation."""

from typing import Any, Self

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from vci_jax.errors import VCIError
from vci_jax.probe import path


class LogisticProbe(ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression, solved to a stated relative excess of its objective.

    The same model as ``sklearn.linear_model.LogisticRegression`` with the multinomial loss, also
    for two classes: sum of w_i CE_i + ||W||^2 / (2 C), with a free bias or none.

    Args:
      C: inverse strength of the penalty.
      tol: relative excess of the objective; None is 5e-7 in float32 and 3e-10 in float64.
      max_iter: of L-BFGS.
      dtype: of the iterations, "float32" or "float64".
      fit_intercept: whether there is a bias.

    Attributes:
      classes_: the labels seen, sorted.
      coef_: ``[K D]``.
      intercept_: ``[K]``.
      n_iter_: steps of L-BFGS, in an array of one.
    """

    def __init__(
        self,
        C: float = 1.0,
        tol: float | None = None,
        max_iter: int = 2000,
        dtype: str = "float64",
        fit_intercept: bool = True,
    ) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.dtype = dtype
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fits to samples ``[N D]`` with labels of any kind, ``[N]``.

        Raises:
          VCIError: C is not positive, there are fewer than two classes, or what scikit-learn and
            ``vci_jax.probe.fit_path`` refuse.
        """
        if not self.C > 0:
            raise VCIError(f"C is {self.C}; it must be positive.")
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self.classes_ = np.unique(y[weights > 0])
        if len(self.classes_) < 2:
            raise VCIError(f"the samples have 1 class, {self.classes_}; a classifier needs two.")
        used = weights > 0
        penalties = np.array([1 / (self.C * weights.sum())])
        optima = path.iter_path(
            X[used],
            np.searchsorted(self.classes_, y[used]),
            penalties,
            sample_weight=weights[used],
            tolerance=self.tol,
            max_steps=self.max_iter,
            dtype=self.dtype,
            intercept=self.fit_intercept,
        )
        _, fit = path.join(optima)
        path.warn(fit, penalties, ConvergenceWarning)
        self.coef_, self.intercept_ = fit.kernel[0].T, fit.bias[0]
        self.n_iter_ = np.maximum(1, fit.steps)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Returns the logits ``[N K]``; for two classes their difference ``[N]``."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the probabilities of the classes, ``[N K]``."""
        return softmax(self._logits(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable label of each sample."""
        logits = self._logits(X)
        return self.classes_[np.argmax(logits, axis=1)]

    def _logits(self, samples: Any) -> np.ndarray:
        check_is_fitted(self)
        samples = validate_data(self, samples, reset=False, dtype=[np.float64, np.float32])
        return samples @ self.coef_.T + self.intercept_
