"""The protocol of a ranking: which samples are fitted and which are scored, by which probes.

Legend: N samples, D features, K classes.
"""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vci_jax.arrays import NO_LABEL
from vci_jax.errors import VCIError
from vci_jax.probe import _paired, baselines, selection
from vci_jax.probe.selection import Samples

# With fewer samples than this, all of them are scored, by cross-fitting.
_CROSS_FIT = 2000
_REPEATS, _FOLDS, _TEST_SHARE = 2, 5, 0.2


class Answers(NamedTuple):
    """One model's share of correct answers by sample, for the probe and the baselines."""

    probe: np.ndarray
    nearest: np.ndarray
    centroid: np.ndarray
    penalties: list[float]
    warnings: list[str]
    train_size: int


class Fold(NamedTuple):
    """Rows to fit on and rows to score, of one array, or of two with an official test split."""

    fit: np.ndarray
    scored: np.ndarray


class Targets(NamedTuple):
    """Labels 0 .. K - 1 of the samples to fit on, and of the samples to score."""

    labels: np.ndarray
    scored: np.ndarray
    num_classes: int


def prepare(
    features: Mapping[str, Any], labels: Any, test: Any, seed: int
) -> tuple[list[str], list[Fold], Targets, str]:
    """Checks the input; returns names, folds, targets, and a sentence on the protocol."""
    if not features:
        raise VCIError("there are no features to rank: give a dictionary of them, by model.")
    names = list(features)
    named = np.asarray(labels).reshape(-1) if np.ndim(labels) == 1 else np.asarray(labels)
    if named.ndim != 1:
        raise VCIError(f"labels must have one entry a sample, got shape {named.shape}.")
    _check_rows(features, len(named), "labels")
    _check_labels(named, "labels")
    kinds, places = np.unique(named, return_inverse=True)
    if len(kinds) < 2:
        raise VCIError(f"the labels name {len(kinds)} class; to rank takes two or more.")
    if test is not None:
        if missing := set(names) - set(test[0]):
            raise VCIError(f"test has no features of {', '.join(sorted(missing))}.")
        _check_rows({name: test[0][name] for name in names}, len(test[1]), "test labels")
        scored = np.asarray(test[1])
        _check_labels(scored, "test labels")
        if unknown := set(scored.tolist()) - set(kinds.tolist()):
            raise VCIError(f"test has classes that are never fitted: {sorted(unknown)[:5]}.")
        _check_sizes(kinds, places, 2)
        targets = Targets(places, np.searchsorted(kinds, scored), len(kinds))
        everything = np.arange(len(places)), np.arange(len(scored))
        return names, [Fold(*everything)], targets, _single_split(len(places), len(scored))
    _check_sizes(kinds, places, 3)
    rng = np.random.default_rng(seed)
    targets = Targets(places, places, len(kinds))
    if len(places) >= _CROSS_FIT:
        parts = _folds(places, round(1 / _TEST_SHARE), rng)
        scored_rows = np.flatnonzero(parts == 0)
        split = Fold(np.flatnonzero(parts != 0), scored_rows)
        targets = targets._replace(scored=places[scored_rows])
        return names, [split], targets, _single_split(len(split.fit), len(scored_rows))
    splits = []
    number = min(_FOLDS, int(np.min(np.bincount(places))))
    for _ in range(_REPEATS):
        parts = _folds(places, number, rng)
        # All fits have one size, and so share a compiled program: up to one sample is left out.
        size = len(places) - int(np.max(np.bincount(parts)))
        for part in range(number):
            fit = _thinned(np.flatnonzero(parts != part), size, places)
            splits.append(Fold(fit, np.flatnonzero(parts == part)))
    warning = (
        f"Each of {len(places):,} samples was predicted by probes fitted without it: "
        f"{_REPEATS} repeats of {number}-fold cross-fitting."
    )
    return names, splits, targets, warning


def _single_split(fitted: int, scored: int) -> str:
    return f"Probes were fitted on {fitted:,} samples and scored once on {scored:,} others."


def _check_labels(labels: np.ndarray, name: str) -> None:
    """Refuses rows without a label, which would become a class."""
    if labels.dtype == object:
        without = np.array([label is None or label != label for label in labels])
    elif labels.dtype.kind == "f":
        without = ~np.isfinite(labels)
    else:
        without = np.isin(labels, NO_LABEL) if labels.dtype.kind == "i" else np.zeros(0, bool)
    if number := int(np.sum(without)):
        first = np.flatnonzero(without)[0]
        raise VCIError(
            f"{number:,} of {len(labels):,} {name} are none (row {first} is {labels[first]!r}; -1 "
            "and -100 mark rows without a label): leave these rows out, here and in the features."
        )


def _check_rows(features: Mapping[str, Any], size: int, whose: str) -> None:
    for name, rows in features.items():
        shape = np.shape(rows)
        if len(shape) != 2:
            raise VCIError(f"{name}: features must be [N, D], got shape {shape}.")
        if shape[0] != size:
            raise VCIError(
                f"{name}: {shape[0]} rows of features for {size} {whose}; all models must have "
                "the same samples in the same order."
            )


def _check_sizes(kinds: np.ndarray, places: np.ndarray, least: int) -> None:
    sizes = np.bincount(places)
    if np.min(sizes) < least:
        small = [str(kind) for kind in kinds[sizes < least]]
        raise VCIError(
            f"{len(small)} of {len(kinds)} classes have fewer than {least} samples "
            f"({', '.join(small[:5])}): leave them out, or add samples. One is needed to fit, one "
            "to choose the penalty" + (", one to test." if least > 2 else ".")
        )


def _folds(places: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the part of each sample, 0 .. number - 1, in equal sizes overall and by class."""
    parts = np.empty(len(places), int)
    dealt = 0  # The count continues from class to class, so that parts have equal sizes as well.
    for place in range(places.max() + 1):
        rows = rng.permutation(np.flatnonzero(places == place))
        parts[rows] = (dealt + np.arange(len(rows))) % number
        dealt += len(rows)
    return parts


def _thinned(rows: np.ndarray, size: int, places: np.ndarray) -> np.ndarray:
    """Drops the last sample of the most frequent class until ``size`` are left."""
    while len(rows) > size:
        largest = np.argmax(np.bincount(places[rows]))
        rows = np.delete(rows, np.flatnonzero(places[rows] == largest)[-1])
    return rows


def counter(progress: Callable[[str, int, int], None], name: str, of: int) -> Callable[[], None]:
    """Returns a function to call after each of ``of`` fits; it reports their number so far."""
    done = itertools.count(1)
    progress(name, 0, of)
    return lambda: progress(name, next(done), of)


def answer(
    rows: np.ndarray,
    outside: np.ndarray | None,
    targets: Targets,
    splits: Sequence[Fold],
    per_class: bool,
    values: np.ndarray,
    neighbours: int,
    report_fit: Callable[[], None],
) -> Answers:
    """Fits and scores by each split; a sample's answers are averaged over the repeats."""
    size = len(targets.scored)
    correct = np.zeros((3, size))
    seen = np.zeros(size)
    penalties, messages = [], []
    for split in splits:
        train, test, places = _cut(rows, outside, targets, split)
        chosen, new = _fit(train, test, targets.num_classes, per_class, values)
        predicted = (
            selection.predict(chosen.fit.kernel, chosen.fit.bias, test.features),
            baselines.knn_predict(
                *train,
                test.features,
                k=min(neighbours, len(train.labels)),
                num_classes=targets.num_classes,
            ),
            baselines.nearest_mean_predict(*train, test.features, num_classes=targets.num_classes),
        )
        correct[:, places] += [answer == test.labels for answer in predicted]
        seen[places] += 1
        penalties.append(float(chosen.value))
        messages += new
        report_fit()
    size = round(float(np.mean([len(split.fit) for split in splits])))
    probe, nearest, centroid = correct / seen
    return Answers(probe, nearest, centroid, penalties, list(dict.fromkeys(messages)), size)


def _cut(
    rows: np.ndarray, outside: np.ndarray | None, targets: Targets, split: Fold
) -> tuple[Samples, Samples, np.ndarray]:
    """Returns samples to fit, samples to score, and the rows of the latter."""
    train = Samples(rows[split.fit], targets.labels[split.fit])
    if outside is not None:
        return train, Samples(outside, targets.scored), split.scored
    test = Samples(rows[split.scored], targets.labels[split.scored])
    alone = len(targets.scored) == len(split.scored)
    return train, test, np.arange(len(split.scored)) if alone else split.scored


def _fit(
    train: Samples, test: Samples, num_classes: int, per_class: bool, values: np.ndarray
) -> tuple[selection.Sweep, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = selection.sweep(
            train,
            test,
            score=selection.mean_per_class if per_class else selection.top1,
            values=values,
            num_classes=num_classes,
        )
    messages = [
        str(record.message) for record in caught if issubclass(record.category, UserWarning)
    ]
    return result, messages


def learning_curve(
    rows: np.ndarray,
    outside: np.ndarray | None,
    targets: Targets,
    splits: Sequence[Fold],
    per_class: bool,
    values: np.ndarray,
    shares: Sequence[float],
    report_fit: Callable[[], None],
) -> list[tuple[int, float]]:
    """Returns accuracies of probes on fewer samples, with at least two of each class."""
    points = []
    for share in shares:
        correct, seen, sizes = np.zeros(len(targets.scored)), np.zeros(len(targets.scored)), []
        # As many of each class in every split: all fits have one size, and one compiled program.
        smallest = np.min([np.bincount(targets.labels[split.fit]) for split in splits], axis=0)
        counts = np.minimum(smallest, np.maximum(2, np.round(share * smallest)))
        for number, split in enumerate(splits):
            rng = np.random.default_rng(number)
            order = rng.permutation(len(split.fit))
            labels = targets.labels[split.fit][order]
            turn = np.empty(len(order), int)  # Place of a sample within its class.
            for place in range(targets.num_classes):
                turn[labels == place] = np.arange(np.sum(labels == place))
            wanted = counts[labels]
            smaller = split._replace(fit=np.sort(split.fit[order[turn < wanted]]))
            train, test, places = _cut(rows, outside, targets, smaller)
            result, _ = _fit(train, test, targets.num_classes, per_class, values)
            predicted = selection.predict(result.fit.kernel, result.fit.bias, test.features)
            correct[places] += predicted == test.labels
            seen[places] += 1
            sizes.append(len(train.labels))
            report_fit()
        weights = _paired.sample_weights(targets.scored, per_class=per_class)
        points.append((round(float(np.mean(sizes))), float(weights @ (correct / seen))))
    return points
