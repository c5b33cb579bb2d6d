"""The probe protocol of one data set: choose among 97 penalties, refit, score once on test.

The grid is that of Kornblith et al. (2019), 1e-6 to 1e6 with eight values per decade; ``value`` is
1/C of scikit-learn, so that l2 = value / N. The penalty with the best validation score wins, the
larger one of equals; the probe is then refitted on train and validation together.

Reference: Xu & Liu (2023), section 6; S. Kornblith et al., Do Better ImageNet Models Transfer
Better?, CVPR 2019, appendix A.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vci_jax.errors import VCIError
from vci_jax.probe import _inputs, path

VALUES = np.geomspace(1e-6, 1e6, 97)
_HELD_OUT = 0.2
# A penalty is ruled out if its score is this many standard errors below the best.
_CLEARLY = 3


class Samples(NamedTuple):
    """Features ``[N D]`` and labels ``[N]`` of a split."""

    features: np.ndarray
    labels: np.ndarray


class Sweep(NamedTuple):
    """The result of a sweep over penalties.

    Attributes:
      score: on test.
      value: the chosen penalty, one of ``values``.
      l2: the penalty of the refit on the scale of a mean loss, value / N.
      validation_score: at the chosen penalty.
      curve: validation scores of all values, ``[97]``; NaN beyond an early end.
      fit: the refit.
      warnings: sentences for reports.
    """

    score: float
    value: float
    l2: float
    validation_score: float
    curve: np.ndarray
    fit: path.ProbeFit
    warnings: list[str]


Score = Callable[[np.ndarray, np.ndarray], float]


def top1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of samples that are classified correctly.

    Raises:
      VCIError: predictions and labels are not of one shape.
    """
    if np.shape(predicted) != np.shape(labels):
        raise VCIError(
            f"predictions have shape {np.shape(predicted)} and labels {np.shape(labels)}."
        )
    return float(np.mean(predicted == labels))


def mean_per_class(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean accuracy over the classes that are present."""
    _, place = np.unique(labels, return_inverse=True)
    return float(np.mean(np.bincount(place, predicted == labels) / np.bincount(place)))


def sweep(
    train: Samples,
    test: Samples,
    *,
    validation: Samples | None = None,
    score: Score = top1,
    values: np.ndarray = VALUES,
    seed: int = 0,
    patience: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Sweep:
    """Returns the test score of the probe with the penalty that validation chose.

    Args:
      train: to fit on.
      test: scored once, by the refit.
      validation: to choose on; by default a stratified fifth of train, drawn with ``seed``.
      score: ``top1`` or ``mean_per_class``.
      values: penalties in units of 1/C.
      seed: of the split.
      patience: ends the path once this many of the smallest penalties so far cannot be the best, by
        ``settled``, a heuristic; None follows it to its end.
      resume: checkpoint file of the path; see ``path.iter_path``.
      **options: of ``path.iter_path``.

    Raises:
      VCIError: a split is not as ``fit_path`` demands, by its name; a class has a single training
        sample, or a fifth of train is fewer samples than classes, so that it cannot be divided.

    Warns:
      UserWarning: the choice lies at an end of the grid; it is in the result as well.
    """
    splits = {"train": train, "test": test}
    splits |= {} if validation is None else {"validation": validation}
    if options.get("num_classes") is None:
        options["num_classes"] = _inputs.classes(*(split.labels for split in splits.values()))
    checked = _inputs.splits(splits, options["num_classes"])
    train, test = Samples(*checked["train"]), Samples(*checked["test"])
    validation = Samples(*checked["validation"]) if validation else None
    fitted, held_out = (train, validation) if validation else hold_out(train, seed)
    penalties, curve, seen = values / len(fitted.labels), np.full(len(values), np.nan), []
    for places, part in path.iter_path(*fitted, penalties, resume=resume, **options):
        for place, kernel, bias in zip(places, part.kernel, part.bias, strict=True):
            curve[place] = score(predict(kernel, bias, held_out.features), held_out.labels)
        seen.append((places, part))
        if patience is not None and settled(values, curve, len(held_out.labels), patience):
            break
    places, fits = path.join(seen)
    path.warn(fits, penalties[places])
    value = choose(values, curve)
    notes = _at_an_end(values, value)
    everything = _join(train, validation) if validation else train
    l2 = value / len(everything.labels)
    final = path.fit(*everything, l2, **options)
    reached = score(predict(final.kernel, final.bias, test.features), test.labels)
    return Sweep(reached, value, l2, float(np.nanmax(curve)), curve, final, notes)


def choose(values: np.ndarray, curve: np.ndarray) -> float:
    """Returns the value with the best score; of equals, the largest."""
    return float(np.max(np.asarray(values)[curve == np.nanmax(curve)]))


def settled(values: np.ndarray, curve: np.ndarray, samples: int, patience: int) -> bool:
    """Returns whether smaller penalties can no longer win.

    They cannot where a score is 1 already, since of equals the largest wins. Otherwise this is a
    heuristic: that the scores of the ``patience`` smallest values so far all lie below the best by
    more than three of its standard errors. Scores of a path can rise again after that.

    Args:
      values: the grid.
      curve: scores so far, NaN for those to come.
      samples: of validation.
      patience: how many must lie below.
    """
    reached = np.flatnonzero(~np.isnan(curve))
    best = np.max(curve[reached], initial=0)
    if best >= 1:
        return True
    latest = reached[np.argsort(np.asarray(values)[reached])][:patience]
    margin = _CLEARLY * np.sqrt(best * (1 - best) / samples)
    return len(latest) == patience and bool(np.all(curve[latest] < best - margin))


def hold_out(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """Returns training samples and a held-out stratified fifth of the given samples."""
    held_out = _stratified(samples.labels, seed)
    return (
        Samples(samples.features[~held_out], samples.labels[~held_out]),
        Samples(samples.features[held_out], samples.labels[held_out]),
    )


def _stratified(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns which samples are held out, ``[N]``: those of scikit-learn's ``train_test_split``.

    The same draws in the same order from the same generator, so that scores which were measured
    with scikit-learn's split are found again.
    """
    rng = np.random.RandomState(seed)
    classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise VCIError(
            f"class {classes[counts < 2][0]} has one training sample, which cannot be divided; "
            "give a validation split, or leave the class out."
        )
    total = int(np.ceil(_HELD_OUT * len(labels)))
    if total < len(classes):
        raise VCIError(
            f"a fifth of {len(labels)} training samples is {total}, fewer than the {len(classes)} "
            "classes; give a validation split."
        )
    of_fit = _shares(counts, len(labels) - total, rng)
    of_held = _shares(counts - of_fit, total, rng)
    held_out = np.zeros(len(labels), bool)
    members = np.split(np.argsort(place, kind="stable"), np.cumsum(counts)[:-1])
    for rows, first, number in zip(members, of_fit, of_held, strict=True):
        held_out[rows[rng.permutation(len(rows))][first : first + number]] = True
    return held_out


def _shares(counts: np.ndarray, draws: int, rng: np.random.RandomState) -> np.ndarray:
    """Divides draws among classes by their counts; the rest goes to the largest remainders."""
    exact = counts / counts.sum() * draws
    shares = np.floor(exact)
    remainders, missing = exact - shares, int(draws - shares.sum())
    for value in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        equal = np.flatnonzero(remainders == value)
        chosen = rng.choice(equal, size=min(len(equal), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares.astype(int)


def predict(kernel: np.ndarray, bias: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Returns the class with the largest logit of each sample, ``[N]``.

    Raises:
      VCIError: logits are NaN, whose largest would be class 0.
    """
    logits = features @ kernel + bias
    if np.isnan(logits).any():
        rows = np.flatnonzero(np.isnan(logits).any(axis=1))
        raise VCIError(
            f"{len(rows)} of {len(logits)} samples have logits that are NaN, the first is row "
            f"{rows[0]}: features or kernel hold NaN, or numbers beyond their range."
        )
    return np.argmax(logits, axis=1)


def _join(a: Samples, b: Samples) -> Samples:
    return Samples(*(np.concatenate(parts) for parts in zip(a, b, strict=True)))


def _at_an_end(values: np.ndarray, value: float) -> list[str]:
    if np.min(values) < value < np.max(values):
        return []
    message = f"the chosen penalty {value:.3g} is at an end of the grid; a wider one may do better."
    warnings.warn(message, stacklevel=3)
    return [message]
