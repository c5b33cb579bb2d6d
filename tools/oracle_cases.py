"""Random cases for the oracle: one seed, one case, the same everywhere.

``KINDS`` is the list of what may be done to well-behaved Gaussian classes; a case does none to
three of these, in the order of the table, and then draws a dtype, a weighting and a cut of the data
into batches and partial states.

Legend: N samples, K classes, D dimensions, sd the standard deviation within classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Data = np.ndarray
_Change = Callable[[np.random.Generator, Data, np.ndarray], Data]

DIMS = (1, 2, 4, 8, 16)
CLASSES = 12  # of every state, so that few programs are compiled; some or most are absent
ROWS = 64  # of every batch, padded


class Kind(NamedTuple):
    """One thing that may be done to features, in one sentence."""

    name: str
    statement: str
    change: _Change


class Case(NamedTuple):
    """Rows as they are given to ``vci_jax``, and how."""

    seed: int
    kinds: tuple[str, ...]
    features: Data
    labels: np.ndarray
    state: str  # dtype of the moments
    weighting: str
    counted: bool  # class_counts are given to init
    route: str  # update, merge or merge_axis
    batches: list[np.ndarray]  # indices of rows
    owners: list[int]  # which of the partial states takes each batch
    kernel: np.ndarray  # [D, CLASSES] of a classifier


def draw(seed: int) -> Case:
    """Returns the case of a seed."""
    rng = np.random.default_rng([seed, 20231])
    labels, features = _classes(rng)
    chosen = _chosen_kinds(rng)
    for kind in KINDS:
        if kind.name in chosen:
            features = kind.change(rng, features, labels)
    state = "float64" if rng.random() < 0.5 else "float32"
    features, dtype_kind = _cast(rng, features, state)
    batches, owners, route = _cut(rng, labels)
    weighting = "sample" if rng.random() < 0.7 else "class"
    names = tuple(kind.name for kind in KINDS if kind.name in chosen) or ("plain",)
    return Case(
        seed=seed,
        kinds=names + dtype_kind,
        features=features,
        labels=labels,
        state=state,
        weighting=weighting,
        counted=weighting == "class" and rng.random() < 0.7,
        route=route,
        batches=batches,
        owners=owners,
        kernel=rng.normal(size=(features.shape[1], CLASSES)).astype(state),
    )


def _classes(rng: np.random.Generator) -> tuple[np.ndarray, Data]:
    """Labels of uneven classes with holes, and Gaussian features around random means."""
    dim = int(rng.choice(DIMS))
    classes = int(rng.choice([1, *range(2, CLASSES + 1)], p=[0.02] + [0.98 / 11] * 11))
    least = classes if rng.random() < 0.25 else min(60, 2 * classes + dim + 2)
    samples = int(rng.integers(max(2, least), 61))
    shares = rng.dirichlet(np.full(classes, 10.0 ** rng.uniform(-0.5, 2)))
    ranks = np.concatenate([np.arange(classes), rng.choice(classes, samples, p=shares)])[:samples]
    if rng.random() < 0.3:
        ranks = np.arange(samples) % classes  # balanced up to one
    names = rng.permutation(CLASSES)[:classes]
    labels = names[rng.permutation(ranks)]
    means = rng.normal(size=(CLASSES, dim)) * 10.0 ** rng.uniform(-1, 1)
    return labels, means[labels] + rng.normal(size=(samples, dim))


def _chosen_kinds(rng: np.random.Generator) -> set[str]:
    count = int(rng.choice(4, p=[0.15, 0.45, 0.25, 0.15]))
    return set(rng.choice([kind.name for kind in KINDS], count, replace=False))


def _cast(rng: np.random.Generator, features: Data, state: str) -> tuple[Data, tuple[str, ...]]:
    """Features in a dtype that a user may have; float64 rows for a float32 state are narrowed."""
    options = {
        "float64": (("float64", "float32", "float16", "int32"), (0.7, 0.14, 0.06, 0.1)),
        "float32": (("float32", "float16", "int32", "float64"), (0.72, 0.08, 0.1, 0.1)),
    }[state]
    dtype = str(rng.choice(options[0], p=options[1]))
    largest = float(np.max(np.abs(features), initial=0))
    limit = {"float16": 3e4, "int32": 2e6}.get(dtype, 1e37 if state == "float32" else 1e300)
    if dtype == "int32" or largest > limit:
        target = 10.0 ** rng.uniform(0.5, 6) if dtype == "int32" else limit
        features = features * (target / largest if largest else 1)
    if dtype == "int32":
        return np.round(features).astype(np.int32), ("integer rows",)
    if state == "float32":  # There are no smaller numbers: these are zero, without a direction.
        features = np.where(np.abs(features) < np.finfo(np.float32).tiny, 0, features)
        # Nor is there anything left of what varies by less than one roundoff.
        gone = np.ptp(features.astype(np.float32), axis=0) == 0
        features = np.where(gone, features[0], features)
    names = {"float16": ("float16 rows",), "float64": ("narrowed",) if state == "float32" else ()}
    return features.astype(dtype), names.get(dtype, ())


def _cut(rng: np.random.Generator, labels: np.ndarray) -> tuple[list[np.ndarray], list[int], str]:
    """Batches of random sizes, one row and one class among them, for one or three states."""
    order = np.arange(len(labels))
    style = rng.choice(["whole", "random", "single rows", "sorted"], p=[0.3, 0.4, 0.1, 0.2])
    if style == "sorted":
        order = np.argsort(labels, kind="stable")
    cuts = np.sort(rng.integers(0, len(labels) + 1, int(rng.integers(1, 5))))
    if style == "whole":
        cuts = np.array([], int)
    elif style == "single rows":
        cuts = np.arange(1, min(len(labels), 8))
    batches = [part for part in np.split(order, cuts) if part.size]
    route = str(rng.choice(["update", "merge", "merge_axis"], p=[0.5, 0.25, 0.25]))
    owners = rng.integers(0, 1 if route == "update" else 3, len(batches))
    return [batches[i] for i in rng.permutation(len(batches))], owners.tolist(), route


def _per_column(rng: np.random.Generator, features: Data, low: float, high: float) -> Data:
    """Powers of ten, one a column."""
    powers: Data = 10.0 ** rng.uniform(low, high, features.shape[1])
    return powers


def _signs(rng: np.random.Generator, features: Data) -> Data:
    signs: Data = rng.choice([-1.0, 1.0], features.shape[1])
    return signs


def _spread(features: Data, labels: np.ndarray) -> Data:
    away = features - _class_means(features, labels)
    return np.sqrt(np.mean(away**2, axis=0)) + 1e-300


def _class_means(features: Data, labels: np.ndarray) -> Data:
    means = np.zeros_like(features)
    for label in np.unique(labels):
        means[labels == label] = features[labels == label].mean(axis=0)
    return means


def _collapse(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    means = _class_means(features, labels)
    return means + (features - means) * 10.0 ** rng.uniform(-8, -1)


def _collapse_column(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    means, column = _class_means(features, labels), rng.integers(features.shape[1])
    factor = 0.0 if rng.random() < 0.5 else 10.0 ** rng.uniform(-8, -1)
    features = features.copy()
    features[:, column] = means[:, column] + factor * (features[:, column] - means[:, column])
    return features


def _equal_means(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    """Of all classes, or of two; exactly, in half of the cases, by mirrored integers."""
    if rng.random() < 0.5:
        two = rng.choice(np.unique(labels), 2)
        chosen = np.isin(labels, two)
    else:
        chosen = np.ones(len(labels), bool)
    centred = features - _class_means(features, labels)
    centre = features[chosen].mean(axis=0)
    return np.where(chosen[:, None], np.round(centre) + centred, features)


def _half_values(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    return np.round(features * rng.choice([1, 2, 4])) / 2


def _constant(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    features = features.copy()
    features[:, rng.integers(features.shape[1])] = rng.choice([0, 1, 0.1, 1e3 / 3])
    return features


def _copied(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    features, (one, two) = features.copy(), rng.integers(features.shape[1], size=2)
    features[:, two] = features[:, one] * 2.0 ** rng.integers(-3, 4)
    return features


def _nearly_copied(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    features, (one, two) = features.copy(), rng.integers(features.shape[1], size=2)
    features[:, two] = features[:, one] + 10.0 ** rng.uniform(-7, -1) * features[:, two]
    return features


def _dead_units(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    level = np.quantile(features, rng.uniform(0.3, 1, features.shape[1]), axis=0).diagonal()
    return np.maximum(features - level, 0)


def _mapped(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    dim = features.shape[1]
    left, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    right, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    values = np.geomspace(1, 10.0 ** -rng.uniform(0, 8), dim)
    return features @ (left * values) @ right


def _outlier(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    features = features.copy()
    features[rng.integers(len(features))] *= 10.0 ** rng.uniform(2, 8)
    return features


def _offset(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    size = 10.0 ** rng.uniform(0, 8)
    return features + size * np.mean(_spread(features, labels)) * rng.normal()


def _offset_columns(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    size = _per_column(rng, features, 0, 8)
    return features + size * _spread(features, labels) * _signs(rng, features)


def _offset_rows(rng: np.random.Generator, features: Data, labels: np.ndarray) -> Data:
    return features + 10.0 ** rng.uniform(0, 8) * rng.normal(size=features.shape[1])


KINDS = (
    Kind("collapsed", "Deviations within classes are 1e-1 to 1e-8 of themselves.", _collapse),
    Kind("collapsed column", "One column varies little or not at all within classes.",
         _collapse_column),
    Kind("equal means", "All class means, or those of two classes, coincide to rounding.",
         _equal_means),
    Kind("half values", "All features are multiples of one half.", _half_values),
    Kind("outlier", "One sample is 1e2 to 1e8 times as far.", _outlier),
    Kind("dead units", "ReLU: columns are zero on many or all samples.", _dead_units),
    Kind("constant column", "One column is the same for all samples.", _constant),
    Kind("copied column", "One column is a power of two times another.", _copied),
    Kind("nearly copied column", "One column is another plus 1e-1 to 1e-7 of itself.",
         _nearly_copied),
    Kind("mapped", "A linear map of condition number 1 to 1e8.", _mapped),
    Kind("column scales", "Columns in units 1e-8 to 1e8.",
         lambda rng, h, y: h * _per_column(rng, h, -8, 8)),
    Kind("offset", "One number, up to 1e8 sd, is added to all features.", _offset),
    Kind("column offsets", "Each column lies up to 1e8 of its own sd from the origin.",
         _offset_columns),
    Kind("vector offset", "One vector of length up to 1e8 is added to all samples.", _offset_rows),
    Kind("scaled", "All features are multiplied by 1e-30 to 1e30.",
         lambda rng, h, y: h * 10.0 ** rng.uniform(-30, 30)),
)  # fmt: skip


def describe(case: Case) -> dict[str, Any]:
    """What a reader needs to recognise the case."""
    return {
        "N": len(case.labels),
        "D": case.features.shape[1],
        "K": len(np.unique(case.labels)),
        "rows": case.features.dtype.name,
        "state": case.state,
        "weighting": case.weighting,
        "class_counts": case.counted,
        "route": case.route,
        "batches": [len(batch) for batch in case.batches],
        "kinds": list(case.kinds),
    }
