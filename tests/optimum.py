"""Optima of logistic regression in float64 by SciPy, for the tests of the path solver."""

import numpy as np
from scipy import optimize, special


def draw(size=120, dim=6, classes=4, seed=0, noise=1.0):
    """Classes that overlap, in features with a mean and uneven scales."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    features = rng.normal(size=(classes, dim))[labels] + noise * rng.normal(size=(size, dim))
    return 3 + features * np.geomspace(1, 0.1, dim), labels


def objective(features, labels, kernel, bias, l2, weights=None):
    """Mean cross-entropy + (l2/2) ||W||^2 in float64, from the formula."""
    logits = np.asarray(features, np.float64) @ kernel + bias
    losses = special.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return np.average(losses, weights=weights) + l2 / 2 * np.sum(kernel**2)


def scipy_optimum(features, labels, l2, weights=None):
    """An optimum by Newton's method with conjugate gradients, which shares nothing with ours."""
    classes, dim = labels.max() + 1, features.shape[1]
    weights = np.full(len(labels), 1 / len(labels)) if weights is None else weights / weights.sum()
    centred, target = features - weights @ features, np.eye(classes)[labels]

    def split(x):
        return x[: dim * classes].reshape(dim, classes), x[dim * classes :]

    def join(kernel, bias):
        return np.concatenate([kernel.ravel(), bias])

    def value(x):
        kernel, bias = split(x)
        p = special.softmax(centred @ kernel + bias, axis=1) - target
        grad = join(centred.T @ (weights[:, None] * p) + l2 * kernel, weights @ p)
        return objective(centred, labels, kernel, bias, l2, weights), grad

    def product(x, v):
        (kernel, bias), (dk, db) = split(x), split(v)
        p = special.softmax(centred @ kernel + bias, axis=1)
        move = centred @ dk + db
        curved = weights[:, None] * p * (move - (p * move).sum(axis=1, keepdims=True))
        return join(centred.T @ curved + l2 * dk, curved.sum(axis=0) + 1e-9 * db)

    start = np.zeros((dim + 1) * classes)
    options = {"gtol": 1e-11, "maxiter": 500}
    found = optimize.minimize(
        value, start, jac=True, hessp=product, method="trust-krylov", options=options
    )
    kernel, bias = split(found.x)
    return kernel, bias - (weights @ features) @ kernel
