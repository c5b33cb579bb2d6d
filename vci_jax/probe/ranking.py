"""Which features suit a task best: probe each, compare in pairs on the same samples, say how sure.

    found = vci_jax.probe.rank({"resnet50": a, "vit_small": b}, labels)
    print(found)              # a table, and the verdict in words
    found.to_pandas()

A score without a probe (adjusted VCI, H-score, LogME) costs less and guesses; a whole path of
penalties takes about a second, so it is followed, and the others are reported beside it.

Legend: N samples, D features, K classes, M models.
"""

import contextlib
import importlib
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from vci_jax import processors
from vci_jax.errors import VCIError
from vci_jax.interval import holm
from vci_jax.probe import _paired, _protocol, _score_files, baselines, selection
from vci_jax.probe._score_files import Scored
from vci_jax.probe._verdict import ModelScore, Pair, Ranking


def rank(
    features: Mapping[str, Any],
    labels: Any,
    *,
    test: tuple[Mapping[str, Any], Any] | None = None,
    logits: Mapping[str, Any] | None = None,
    per_class: bool = False,
    values: np.ndarray = selection.VALUES,
    neighbours: int = 20,
    confidence: float = 0.95,
    curve: Sequence[float] = (),
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda model, done, of: None,
    resume: str | os.PathLike[str] | None = None,
) -> Ranking:
    """Ranks features of the same samples by how well a linear probe reads the labels from them.

    For each model the penalty is chosen among ``values`` on held-out training samples and the probe
    refitted, as Kornblith et al. (2019) do. With ``test`` the probe is scored on that; without it,
    on a stratified fifth, or under 2,000 samples on all of them, by two repeats of 5-fold
    cross-fitting: each sample is predicted by probes that never saw it. Differences are then taken
    between models on the same samples (``Pair``), and corrected for their number.

    Args:
      features: of each model by name, ``[N D]``, rows in one order; widths may differ.
      labels: of any kind, ``[N]``.
      test: features by name ``[M D]`` and labels ``[M]`` of an official test split.
      logits: of the model's own classifier on the training rows by name, ``[N C]``, for LEEP, NCE.
      per_class: score by the mean over classes of their accuracies, not by the share of samples.
      values: penalties, 1 / C of scikit-learn.
      neighbours: of the k-NN baseline.
      confidence: level of all intervals; pairs of models are tested at one minus this level.
      curve: shares of the training samples, such as (0.1, 0.3), to score the probe with as well.
      seed: of splits.
      progress: called with a model's name, and how many of its fits are done of how many.
      resume: a folder to keep every model that is done in; the same call takes from there those
        whose features, labels and settings are the same.

    Raises:
      VCIError: fewer than two classes, a class too small to be divided, rows of another number
        than labels, or features that are not finite; names the model.

    Example:
      >>> import numpy as np
      >>> import vci_jax.probe
      >>> rng = np.random.default_rng(0)
      >>> labels = np.repeat([0, 1, 2], 40)
      >>> good = rng.normal(size=(120, 5)) + 4 * np.eye(5)[labels]
      >>> found = vci_jax.probe.rank({"noise": rng.normal(size=(120, 5)), "good": good}, labels)
      >>> [model.model for model in found.models], found.pairs[0].told_apart
      (['good', 'noise'], True)

    Reference:
      S. Kornblith et al., Do Better ImageNet Models Transfer Better?, CVPR 2019; P. Bayle et al.,
      Cross-validation Confidence Intervals for Test Error, NeurIPS 2020.
    """
    names, splits, targets, protocol = _protocol.prepare(features, labels, test, seed)
    if per_class:
        protocol += " Accuracy is the mean over the classes of each class' accuracy."
    scored = {}
    settings = [np.asarray(values).tolist(), per_class, neighbours, list(curve), seed]
    for name in names:
        start = time.perf_counter()
        rows = np.asarray(features[name])
        outside = None if test is None else np.asarray(test[0][name])
        own = None if logits is None else logits.get(name)
        arrays = [rows, targets.labels, targets.scored]
        arrays += [np.asarray(array) for array in (outside, own) if array is not None]
        file = None if resume is None else _score_files.score_file(resume, name, arrays, settings)
        if file is not None and (stored := file.load()):
            scored[name] = stored
            continue
        note = _protocol.counter(progress, name, len(splits) * (1 + len(curve)))
        # In a thread, since compiling the probe leaves processors idle.
        with _half_of_the_processors(), ThreadPoolExecutor(1) as pool:
            try:
                cheap = pool.submit(_cheap_scores, rows, targets.labels, own)
                answers = _protocol.answer(
                    rows, outside, targets, splits, per_class, values, neighbours, note
                )
                learned = _protocol.learning_curve(
                    rows, outside, targets, splits, per_class, values, curve, note
                )
                without_probe = cheap.result()
            except ValueError as error:
                raise VCIError(f"{name}: {error}") from error
        seconds = time.perf_counter() - start
        scored[name] = Scored(answers, learned, without_probe, rows.shape[1], seconds)
        if file is not None:
            file.save(scored[name])
    return _compare(scored, targets, protocol, per_class, confidence)


def _cheap_scores(rows: np.ndarray, labels: np.ndarray, logits: Any) -> dict[str, Any]:
    """Returns the scores that need no probe, on the samples that probes are fitted on."""
    import vci_jax

    wanted = ("vci_adjusted", "h_score_adjusted", "logme", "vci_interval")
    report = vci_jax.measure_arrays(rows, labels, metrics=wanted)
    messages = [note.message for note in report.caveats if not set(wanted).isdisjoint(note.metrics)]
    return {
        "warnings": messages,
        "vci": report["vci_adjusted"],
        "vci_interval": tuple(report["vci_interval"]),
        "h_score": report["h_score_adjusted"],
        "logme": report["logme"],
        "leep": None if logits is None else baselines.leep(logits, labels),
        "nce": None if logits is None else baselines.nce(logits, labels),
    }


def _compare(
    scored: Mapping[str, Scored],
    targets: _protocol.Targets,
    protocol: str,
    per_class: bool,
    confidence: float,
) -> Ranking:
    """Compares every pair of models, corrected as one family; returns ties with the best."""
    labels = targets.scored
    weights = _paired.sample_weights(labels, per_class=per_class)
    reached = {name: float(weights @ score.answers.probe) for name, score in scored.items()}
    order = sorted(scored, key=lambda name: -reached[name])
    couples = list(itertools.combinations(order, 2))
    gaps = [
        _paired.difference(
            scored[a].answers.probe,
            scored[b].answers.probe,
            labels,
            per_class=per_class,
            confidence=confidence,
        )
        for a, b in couples
    ]
    adjusted = holm(np.array([gap.p_value for gap in gaps]))
    pairs = tuple(
        Pair(a, b, gap.value, (gap.low, gap.high), float(p), gap.samples_needed, 1 - confidence)
        for (a, b), gap, p in zip(couples, gaps, adjusted, strict=True)
    )
    behind = {pair.worse for pair in pairs if pair.better == order[0] and pair.told_apart}
    models = []
    for name in order:
        answers, learned, cheap, dim, seconds = scored[name]
        value = _paired.score(answers.probe, labels, per_class=per_class, confidence=confidence)
        models.append(
            ModelScore(
                model=name,
                rank=1 + sum(other > reached[name] for other in reached.values()),
                accuracy=value.value,
                accuracy_interval=(value.low, value.high),
                ties_with_best=name not in behind,
                knn_accuracy=float(weights @ answers.nearest),
                ncc_accuracy=float(weights @ answers.centroid),
                dim=dim,
                train_size=answers.train_size,
                penalties=tuple(answers.penalties),
                curve=tuple(learned),
                warnings=(*answers.warnings, *cheap.pop("warnings")),
                seconds=seconds,
                correct=answers.probe,
                **cheap,
            )
        )
    return Ranking(tuple(models), pairs, len(labels), protocol, confidence, labels)


def _half_of_the_processors() -> contextlib.AbstractContextManager[object]:
    """Returns a context in which BLAS takes half of the processors.

    OpenBLAS has as many threads as there are processors, and idle ones wait in a loop. Beside other
    work that costs more time than it saves: a jackknife of 512 features then
    took 12 s of two processors, and 1.5 s with a thread of its own. By threadpoolctl, which comes
    with scikit-learn; without it nothing changes.
    """
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return contextlib.nullcontext()
    limit: contextlib.AbstractContextManager[object] = threadpoolctl.threadpool_limits(
        max(1, processors.available() // 2), user_api="blas"
    )
    return limit
