"""The result of a ranking: scores, pairs, and the verdict as words, table and JSON."""

import html
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vci_jax._table import html_table
from vci_jax.errors import optional
from vci_jax.written import json_ready


@dataclass(frozen=True)
class ModelScore:
    """The scores of one model's features.

    Attributes:
      model: its name.
      rank: 1 for the best accuracy; equal accuracies share a rank.
      accuracy: of the probe, on samples that it was not fitted on.
      accuracy_interval: of that, at the confidence asked for.
      ties_with_best: whether no difference from the best model is established.
      knn_accuracy: of ``baselines.knn_predict``, on the same samples.
      ncc_accuracy: of the nearest class mean.
      vci: ``vci_adjusted`` of the labels of this task; smaller is easier to separate.
      vci_interval: of that.
      h_score: ``h_score_adjusted``; larger is easier to separate.
      logme: larger predicts better transfer.
      leep: from the model's own logits; None without.
      nce: from the model's own logits; None without.
      dim: D.
      train_size: samples that a probe was fitted on.
      penalties: those chosen, 1 / C of scikit-learn, one a fit.
      curve: accuracy by number of training samples, where asked for.
      warnings: of the fits, and why a score is missing or doubtful, in words.
      seconds: that it took.
      correct: by test sample, 1 where right, or the share of repeats in which it was, ``[N]``.
    """

    model: str
    rank: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    ties_with_best: bool
    knn_accuracy: float
    ncc_accuracy: float
    vci: float
    vci_interval: tuple[float, float]
    h_score: float
    logme: float
    leep: float | None
    nce: float | None
    dim: int
    train_size: int
    penalties: tuple[float, ...]
    curve: tuple[tuple[int, float], ...]
    warnings: tuple[str, ...]
    seconds: float
    correct: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Pair:
    """Two models on the same samples, the better first.

    Attributes:
      better: name of the model with the higher accuracy.
      worse: of the other.
      difference: of their accuracies, at least zero.
      interval: of that, as if it were the only pair, unlike ``p_value``.
      p_value: that they are equally good, corrected for all pairs (Holm).
      samples_needed: how many test samples would establish a difference of this size in four of
        five cases, if it is real; infinite where there is none.
      level: of the test, one minus the ranking's confidence.
    """

    better: str
    worse: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    samples_needed: float
    level: float = 0.05

    @property
    def told_apart(self) -> bool:
        """Whether the difference is established."""
        return self.p_value < self.level


@dataclass(frozen=True)
class Ranking:
    """The models, the best first, and every pair of them.

    Attributes:
      models: by falling accuracy.
      pairs: all M (M - 1) / 2, corrected as one family.
      test_size: samples that accuracy was measured on.
      protocol: how, in a sentence.
      confidence: level of the intervals.
      labels: of the test samples, ``[N]``.
    """

    models: tuple[ModelScore, ...]
    pairs: tuple[Pair, ...]
    test_size: int
    protocol: str
    confidence: float
    labels: np.ndarray = field(repr=False)

    @property
    def verdict(self) -> str:
        """Which models are best, which tie with them, and how many images would separate those."""
        return _verdict(self)

    @property
    def warnings(self) -> list[str]:
        """Each warning once, with the models that it concerns."""
        of: dict[str, list[str]] = {}
        for model in self.models:
            for warning in model.warnings:
                of.setdefault(warning, []).append(model.model)
        everyone = len(self.models)
        return [
            f"{'All models' if len(names) == everyone else ', '.join(names)}: {warning}"
            for warning, names in of.items()
        ]

    def __repr__(self) -> str:
        return _table(self)

    def _repr_html_(self) -> str:
        return _html(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON: ``models``, ``pairs``, ``verdict`` and the protocol.

        NaN and infinity are None.
        """
        models = []
        for model in self.models:
            row = {name: value for name, value in vars(model).items() if name != "correct"}
            models.append(row)
        content = {
            "version": 1,
            "models": models,
            "pairs": [asdict(pair) | {"told_apart": pair.told_apart} for pair in self.pairs],
            "verdict": self.verdict,
            "protocol": self.protocol,
            "test_size": self.test_size,
            "confidence": self.confidence,
        }
        plain: dict[str, Any] = json_ready(content)
        return plain

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_pandas(self) -> Any:
        """The models as a ``pandas.DataFrame``, one row each.

        Raises:
          MissingPackageError: pandas is not installed.
        """
        pandas = optional("pandas", "Ranking.to_pandas")
        return pandas.DataFrame(self.to_dict()["models"]).set_index("model")

    def plot(self, axes: Any = None) -> Any:
        """Accuracies with their intervals, the best on top, on matplotlib axes; returns them.

        Raises:
          MissingPackageError: matplotlib is not installed.
        """
        if axes is None:
            size = (6, 0.5 + 0.4 * len(self.models))
            pyplot = optional("matplotlib.pyplot", "Ranking.plot")
            _, axes = pyplot.subplots(figsize=size, layout="tight")
        places = np.arange(len(self.models))[::-1]
        for place, model in zip(places, self.models, strict=True):
            colour = "#0b6e99" if model.ties_with_best else "#8a8f98"
            axes.plot([100 * end for end in model.accuracy_interval], [place] * 2, color=colour)
            axes.plot(100 * model.accuracy, place, "o", color=colour)
        axes.set_yticks(places, [model.model.replace("$", r"\$") for model in self.models])
        axes.set_xlabel(f"accuracy of the probe, %, on {self.test_size:,} samples")
        return axes


def _verdict(ranking: Ranking) -> str:
    """Which models are best, which tie with them, and how many images would separate those."""
    best, *others = ranking.models
    number = f"{ranking.test_size:,} samples"
    if not others:
        return f"{best.model} alone was ranked, on {number}."
    pairs = {pair.worse: pair for pair in ranking.pairs if pair.better == best.model}
    ties = [model for model in others if model.ties_with_best]
    behind = [model for model in others if not model.ties_with_best]
    if ties:
        names = _listed([best.model, *(model.model for model in ties)])
        sentences = [f"{names} are best and cannot be told apart on these {number}."]
        sentences += [_what_it_takes(best, pairs[model.model]) for model in ties]
    else:
        sentences = [f"{best.model} is best on these {number}."]
    for model in behind:
        pair = pairs[model.model]
        low, high = (100 * end for end in pair.interval)
        sentences.append(
            f"{model.model} is worse than {best.model} by {100 * pair.difference:.1f} points "
            f"[{low:.1f}, {high:.1f}]."
        )
    return " ".join(sentences)


def _table(ranking: Ranking) -> str:
    """Returns the table, the meaning of its columns, and the verdict."""
    cells = [_HEAD, *(_row(model) for model in ranking.models)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        left, name, *rest = row
        lines.append(
            "  ".join(
                [left.rjust(widths[0]), name.ljust(widths[1])]
                + [cell.rjust(width) for cell, width in zip(rest, widths[2:], strict=True)]
            )
        )
    sentences = [ranking.protocol, *_legend(ranking), *ranking.warnings]
    return "\n".join([*lines, "", *sentences, "", ranking.verdict])


def _html(ranking: Ranking) -> str:
    """Returns the verdict, the table and the notes as HTML."""
    notes = " ".join([ranking.protocol, *_legend(ranking), *ranking.warnings])
    table = html_table(_HEAD, list(map(_row, ranking.models)), [notes])
    return f"<p><b>{html.escape(ranking.verdict)}</b></p>{table}"


_HEAD = ("", "model", "probe %", "interval", "k-NN %", "NCC %", "VCI adj.", "H-score", "LogME")


def _row(model: ModelScore) -> tuple[str, ...]:
    low, high = (f"{100 * end:.1f}" for end in model.accuracy_interval)
    return (
        f"{model.rank}{'=' if model.ties_with_best else ' '}",
        model.model,
        f"{100 * model.accuracy:.1f}",
        f"[{low}, {high}]",
        f"{100 * model.knn_accuracy:.1f}",
        f"{100 * model.ncc_accuracy:.1f}",
        *(_number(value) for value in (model.vci, model.h_score, model.logme)),
    )


def _legend(ranking: Ranking) -> list[str]:
    return [
        f"Intervals are at {100 * ranking.confidence:g} %; = marks the models that are best or "
        "cannot be told from the best by tests that are corrected for the number of pairs, as "
        "intervals are not.",
        "On the labels of this task a smaller adjusted VCI, a larger H-score and a larger LogME "
        "mean classes that are easier to separate.",
    ]


def _what_it_takes(best: ModelScore, pair: Pair) -> str:
    if not math.isfinite(pair.samples_needed):
        return f"{best.model} and {pair.worse} have the same accuracy."
    low, high = (100 * end for end in pair.interval)
    return (
        f"{best.model} is ahead of {pair.worse} by {100 * pair.difference:.1f} points "
        f"[{low:.1f}, {high:.1f}]; to establish such a difference would take about "
        f"{_rounded(pair.samples_needed):,} test samples."
    )


def _number(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:.3f}"


def _rounded(number: float) -> int:
    """Rounds to two digits: the estimate has no more."""
    digits = max(0, int(math.log10(max(number, 1))) - 1)
    return int(math.ceil(number / 10**digits) * 10**digits)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
