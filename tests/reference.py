"""Every metric straight from its definition, in slow float64 NumPy: the tests' own truth.

Nothing here is shared with vci_jax: two passes, explicit covariances, ``numpy.linalg.pinv``.
"""

import numpy as np
import scipy.linalg
import scipy.optimize


def covariances(features, labels, weighting="sample"):
    """Sigma_W, Sigma_B and the centred means (present classes only) by Eq. 1-3."""
    features = np.asarray(features, np.float64)
    classes, counts = np.unique(labels, return_counts=True)
    share = (
        counts / counts.sum() if weighting == "sample" else np.full(len(classes), 1 / len(classes))
    )
    means = np.stack([features[labels == k].mean(axis=0) for k in classes])
    offsets = means - share @ means
    within = sum(
        p * np.cov(features[labels == k].T, bias=True).reshape(features.shape[1], -1)
        for p, k in zip(share, classes, strict=True)
    )
    between = (offsets * share[:, None]).T @ offsets
    return within, between, offsets, share


def metrics(features, labels, weighting="sample"):
    within, between, offsets, share = covariances(features, labels, weighting)
    dim, classes = np.shape(features)[1], len(offsets)
    rank = min(dim, classes - 1)
    total = within + between
    trace = np.trace(np.linalg.pinv(total, rcond=1e-12, hermitian=True) @ between)
    total_rank = np.linalg.matrix_rank(total, tol=1e-12 * np.linalg.norm(total, 2), hermitian=True)
    vci = 1 - trace / rank
    values, vectors = np.linalg.eigh(between)
    top = vectors[:, ::-1][:, :rank]
    basis = top[:, values[::-1][:rank] > 1e-12 * values[-1]]
    kept = values[::-1][: basis.shape[1]]
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    unit_means = np.stack([units[labels == k].mean(axis=0) for k in np.unique(labels)])
    cosine = np.mean(np.sum(unit_means**2, axis=1))
    d_total = 1 - np.sum(unit_means.mean(axis=0) ** 2)
    names, counts = np.unique(labels, return_counts=True)
    spread = [np.var(features[labels == k], axis=0, ddof=1).sum() if n > 1 else np.nan
              for k, n in zip(names, counts, strict=True)]  # fmt: skip
    noise = np.sum(share * (1 - share) * spread / counts)
    unbiased = np.trace(between) - noise
    adjusted = population_vci(within, between, 1 / np.sum(share**2 / counts), classes, total_rank)
    return {
        "vci": vci,
        "vci_adjusted": adjusted,
        "h_score_adjusted": rank * (1 - adjusted),
        "squared_distance_adjusted": share @ spread / unbiased if unbiased > 0 else np.nan,
        "fuzziness": np.trace(within @ (basis / kept) @ basis.T) / classes,
        "squared_distance": np.trace(within) / np.trace(between),
        "cosine_similarity": cosine,
        "class_separation": 1 - (1 - cosine) / d_total,
        "within_between_part": np.trace(basis.T @ within @ basis),
        "within_orthogonal_part": np.trace(within) - np.trace(basis.T @ within @ basis),
        "probe_mse": probe_mse(features, labels, share),
        "probe_mse_adjusted": probe_mse_adjusted(within, offsets, share, vci, adjusted),
        "h_score": trace,
        **structure(features, labels, offsets),
    }


def population_vci(within, between, samples, classes, total_rank):
    """The equations of ``vci_jax.adjusted``'s docstring before any algebra, and SciPy's root.

    For features of full rank and more of them than samples; everything else is NaN here.
    """
    dim = len(within)
    if samples - 1 <= max(dim, classes - 1) or total_rank < dim:
        return np.nan
    ratios = 1 / np.clip(scipy.linalg.eigvalsh(within, within + between), 1e-14, 1) - 1
    rank, residual = min(dim, classes - 1), samples - classes
    ratios = np.sort(ratios)[::-1] * (np.arange(dim) < rank)

    def level(t):
        trace = np.sum(1 / (t + ratios))
        s = 1 + trace / (residual - t * trace)
        inner = t * residual * s / (1 + (s - 1) * t) + classes - 1 - dim
        return s * inner / samples, samples * (s - 1) / s

    plugin = (np.sum(1 / (1 + ratios)) - (dim - rank)) / rank
    noise = plugin * (samples - 1) / (samples - 1 - max(dim, classes - 1))
    if level(1e-6)[0] >= 1:
        return noise
    t = (
        1e12
        if level(1e6)[0] <= 1
        else scipy.optimize.brentq(lambda t: level(t)[0] - 1, 1e-6, 1e6, xtol=1e-15, rtol=1e-15)
    )
    value = (level(t)[1] - (dim - rank)) / rank
    value -= np.clip(value, 0, 1) ** 2 * (1 - np.clip(value, 0, 1)) / samples
    return min(value, noise)


def probe_mse(features, labels, share):
    """The minimum itself, by weighted least squares on one-hot targets."""
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weight = np.sqrt((share / counts)[index])[:, None]
    design = np.column_stack([features, np.ones(len(features))])
    design = design - np.pad(design[:, :-1].mean(axis=0), (0, 1))  # same span, better conditioned
    targets = np.eye(len(classes))[index]
    solution = np.linalg.lstsq(weight * design, weight * targets, rcond=None)[0]
    return 0.5 * np.sum((weight * (design @ solution - targets)) ** 2)


def probe_mse_adjusted(within, offsets, share, vci, adjusted):
    """What each canonical direction loses, times the ratio of the two VCI."""
    if np.isnan(adjusted) or np.linalg.matrix_rank(within) < len(within):
        return np.nan
    rows = np.sqrt(share)[:, None] * np.linalg.solve(np.linalg.cholesky(within), offsets.T).T
    over_classes, ratios, _ = np.linalg.svd(rows, full_matrices=False)
    rank = min(len(within), len(offsets) - 1)
    weight = share @ over_classes[:, :rank] ** 2
    missing = 1 - share @ share - weight.sum()
    return 0.5 * (missing + adjusted / vci * np.sum(weight / (1 + ratios[:rank] ** 2)))


def structure(features, labels, offsets):
    """CDNV and NC2 by loops over classes."""
    classes = np.unique(labels)
    variance = [np.var(features[labels == k], axis=0).sum() for k in classes]
    pairs = [(j, k) for j in range(len(classes)) for k in range(j)]
    norms = np.linalg.norm(offsets, axis=1)
    cosines = [offsets[j] @ offsets[k] / norms[j] / norms[k] for j, k in pairs]
    gram, size = offsets @ offsets.T, len(classes)
    counts = np.array([np.sum(labels == k) for k in classes])
    unbiased = np.array(variance) * counts / np.where(counts > 1, counts - 1, np.nan)
    apart = [np.sum((offsets[j] - offsets[k]) ** 2) - unbiased[j] / counts[j]
             - unbiased[k] / counts[k] for j, k in pairs]  # fmt: skip
    adjusted = [
        (unbiased[j] + unbiased[k]) / (2 * d) for (j, k), d in zip(pairs, apart, strict=True)
    ]
    simplex = (np.eye(size) - 1 / size) / np.sqrt(size - 1)
    return {
        "cdnv_adjusted": np.mean(adjusted) if np.all(np.array(apart) > 0) else np.nan,
        "cdnv": np.mean(
            [
                (variance[j] + variance[k]) / (2 * np.sum((offsets[j] - offsets[k]) ** 2))
                for j, k in pairs
            ]
        ),
        "equinorm": norms.std() / norms.mean(),
        "equiangularity": np.std(cosines),
        "etf_error": np.linalg.norm(gram / np.linalg.norm(gram) - simplex),
    }


def gaussian_classes(seed, samples, classes, dim, *, spread=1.0, noise=1.0):
    """Correlated within-class noise about random means; every class gets a sample if it can."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(samples) % classes)
    mix = rng.standard_normal((dim, dim)) / np.sqrt(dim)
    means = spread * rng.standard_normal((classes, dim))
    return means[labels] + noise * rng.standard_normal((samples, dim)) @ mix, labels
