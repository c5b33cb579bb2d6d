"""Implementations with the mistakes of published code and of first drafts, one each.

Each is a few lines of NumPy, right but for what its docstring admits; test_conformance.py holds
them to the suite, which must catch every one.
"""

import numpy as np


def moments(features, labels, dtype=np.float64):
    """Sigma_W, Sigma_B, class means: right, for balanced labels 0 .. K-1 all present."""
    features = features.astype(dtype)
    means = np.stack([features[labels == k].mean(axis=0) for k in np.unique(labels)])
    deviations = features - means[np.unique(labels, return_inverse=True)[1]]
    share = np.bincount(np.unique(labels, return_inverse=True)[1]) / len(labels)
    offsets = means - share @ means
    return deviations.T @ deviations / len(labels), (offsets.T * share) @ offsets, means


def rank(between, labels):
    return min(len(between), len(np.unique(labels)) - 1)


def default_pinv_fuzziness(features, labels):
    """Inverts Sigma_B with NumPy's default cutoff, 1e-15; the global mean is summed in float32."""
    within, _, means = moments(features, labels)
    offsets = means - features.mean(axis=0)  # off by 1e-7: a K-th direction, squared to 1e-14
    between = offsets.T @ offsets / len(means)
    return np.trace(within @ np.linalg.pinv(between)) / len(means)


def fuzziness_without_classes(features, labels):
    """The factor 1 / K is missing."""
    within, between, _ = moments(features, labels)
    return np.trace(within @ np.linalg.pinv(between, rcond=1e-10))


def fuzziness_over_dimensions(features, labels):
    """Sigma_B is divided by the number of dimensions instead of classes."""
    within, between, means = moments(features, labels)
    return default_scaled(within, between * len(means) / len(between), means)


def default_scaled(within, between, means):
    return np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / len(means)


def second_moment_vci(features, labels):
    """Covariances as E[h h^T] - m m^T in float32, which cancels far from the origin."""
    features = features.astype(np.float32)
    _, between, _ = moments(features, labels, np.float32)
    mean = features.mean(axis=0)
    total = features.T @ features / len(features) - np.outer(mean, mean)
    return 1 - np.trace(np.linalg.pinv(total) @ between) / rank(between, labels)


def cut_vci(features, labels):
    """Sigma_T is inverted in float32 with the cutoff 10 D eps of jax.numpy.linalg.pinv."""
    within, between, _ = moments(features, labels, np.float32)
    cutoff = 10 * len(between) * np.finfo(np.float32).eps
    inverse = np.linalg.pinv((within + between).astype(np.float32), rcond=cutoff)
    return 1 - np.trace(inverse @ between) / rank(between, labels)


def cancelled_vci(features, labels):
    """1 - Tr / rank in float64: right, until collapse leaves no digits to subtract."""
    within, between, _ = moments(features, labels)
    trace = np.trace(np.linalg.solve(within + between, between))
    return 1 - trace / rank(between, labels)


def too_many_ranks_vci(features, labels):
    """Divides by K - 1 also where there are fewer dimensions."""
    within, between, means = moments(features, labels)
    trace = np.trace(np.linalg.pinv(within + between, rcond=1e-12, hermitian=True) @ between)
    return 1 - trace / (len(means) - 1)


def trusting_squared_distance(features, labels):
    """Uses labels as indices: -1 is the last class, although it is not counted as one."""
    features, classes = features.astype(np.float64), labels.max() + 1
    one_hot = labels[:, None] == np.arange(classes)
    means = one_hot.T @ features / one_hot.sum(axis=0)[:, None]
    scatter = np.sum((features - means[labels]) ** 2) / one_hot.sum()
    share = one_hot.mean(axis=0) / one_hot.mean(axis=0).sum()
    return scatter / np.sum(share[:, None] * (means - share @ means) ** 2)


def empty_class_cosine(features, labels):
    """A class without samples counts, with a mean of zero."""
    features = features.astype(np.float64)
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-300)
    one_hot = (labels[:, None] == np.arange(labels.max() + 1)).astype(float)
    means = one_hot.T @ units / np.maximum(one_hot.sum(axis=0), 1)[:, None]
    return np.mean(np.sum(means**2, axis=1))


def other_pairs_cosine(features, labels):
    """Leaves out the pairs of a sample with itself."""
    features = features.astype(np.float64)
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-300)
    values = []
    for k in np.unique(labels):
        part = units[labels == k]
        pairs = part @ part.T
        values.append((pairs.sum() - np.trace(pairs)) / max(len(part) * (len(part) - 1), 1))
    return np.mean(values)


def centred_cosine(features, labels):
    """Subtracts the global mean before it takes directions."""
    centred = features - features.mean(axis=0, dtype=np.float64)
    units = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-300)
    means = [units[labels == k].mean(axis=0) for k in np.unique(labels)]
    return np.mean(np.sum(np.square(means), axis=1))


def mixed_squared_distance(features, labels):
    """Classes weigh equally in Sigma_B, about the sample mean; samples weigh equally in Sigma_W."""
    within, _, means = moments(features, labels)
    between = np.mean(np.sum((means - features.mean(axis=0, dtype=np.float64)) ** 2, axis=1))
    return np.trace(within) / between


def unbiased_squared_distance(features, labels):
    """Sigma_W is divided by N - K instead of N."""
    within, between, means = moments(features, labels)
    samples = len(labels)
    return np.trace(within) * samples / max(samples - len(means), 1) / np.trace(between)


def elementwise_h_score(features, labels):
    """An element-wise product where a matrix product belongs."""
    within, between, _ = moments(features, labels)
    return np.trace(np.linalg.pinv(within + between, rcond=1e-12, hermitian=True) * between)


def varying_cdnv(features, labels):
    """The coefficient of variation over pairs of classes instead of the mean."""
    features, classes = features.astype(np.float64), np.unique(labels)
    means = [features[labels == k].mean(axis=0) for k in classes]
    variances = [features[labels == k].var(axis=0).sum() for k in classes]
    values = np.array([
        (variances[j] + variances[k]) / 2 / max(np.sum((means[j] - means[k]) ** 2), 1e-300)
        for k in range(len(classes)) for j in range(k)
    ])  # fmt: skip
    return values.std() / values.mean()


def squared_effective_rank(features, labels):
    """The entropy of the squared singular values."""
    del labels
    squares = np.linalg.svd(features.astype(np.float64), compute_uv=False) ** 2
    shares = squares[squares > 1e-12 * squares[0]] / squares.sum()
    return np.exp(-np.sum(shares * np.log(shares)))


def float16_mean_squared_distance(features, labels):
    """Sums in the dtype of the features."""
    means = np.stack([features[labels == k].mean(axis=0) for k in np.unique(labels)])
    index = np.unique(labels, return_inverse=True)[1]
    share = np.bincount(index) / len(labels)
    scatter = np.sum((features - means[index].astype(features.dtype)) ** 2, dtype=features.dtype)
    between = np.sum(share[:, None] * (means - share @ means) ** 2)
    return float(scatter) / len(labels) / between
