"""The statements of docs/study/preregistration.md, and the verdict on each.

Legend: B draws, of which the first is the estimate; S settings.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from probes.analysis.coefficients import pearson
from studies.cifar10 import choosing, networks, resampling
from studies.cifar10.networks import GROUPS, PLAIN, SETTINGS, Networks
from studies.cifar10.resampling import interval

CONFIRMED, CONTRADICTED, ABSENT = "confirmed", "contradicted", "absent"
UNDECIDED = "not decidable"
UNTESTED = "not tested"  # The premise does not hold.
VERDICTS = (CONFIRMED, CONTRADICTED, ABSENT, UNDECIDED, UNTESTED)
LOG_ODDS, SHARE, CORRELATION, DIFFERENCE, POINTS = 0.1, 0.02, 0.3, 0.15, 0.5  # Margins.
CONSISTENT = 0.975  # The share of draws in which signs must agree.
METRICS = ("vci", "cosine_similarity", "squared_distance", "fuzziness")
ALL = "all"


class Verdict(NamedTuple):
    """A statement and its verdict.

    Attributes:
      number: number of the statement in the preregistration.
      verdict: one of ``VERDICTS``.
      estimate: estimate of the effect.
      low, high: its 95 % interval.
      inner: its 90 % interval; the effect is absent if this lies within the margin.
      without_one: the least and greatest estimate with one setting left out, or NaN.
    """

    number: int
    statement: str
    verdict: str
    estimate: float
    low: float
    high: float
    inner: tuple[float, float] = (float("nan"), float("nan"))
    margin: float = float("nan")
    without_one: tuple[float, float] = (float("nan"), float("nan"))


class Drawn(NamedTuple):
    """Settings' means of every draw, ``[B S]``.

    Attributes:
      members: the settings of each group, and of all, that a correlation is over, ``[B n]``.
      mlo, mlog, own: see ``networks.Gains``.
      metrics: metrics by split and name.
    """

    settings: list[str]
    members: dict[str, np.ndarray]
    mlo: np.ndarray
    mlog: np.ndarray
    own: np.ndarray
    metrics: dict[tuple[str, str], np.ndarray]


def draw(trained: Networks, accuracy: dict[str, np.ndarray], *, others: bool = False) -> Drawn:
    """Returns the settings' means in every draw of test images and seeds.

    ``accuracy`` is from ``resampling.accuracies``; ``others`` draws settings and data sets as well.
    """
    draws = len(accuracy[networks.OWN])
    gains = networks.gains(accuracy, resampling.task_weights(draws, others=others))
    picks = resampling.pick(trained, draws)
    chosen = {
        group: resampling.setting_draws(members(trained.settings, group), draws, others=others)
        for group in (*GROUPS, ALL)
    }

    def drawn(values: np.ndarray) -> np.ndarray:
        return resampling.drawn_means(trained, values, picks)

    metrics = {name: drawn(values) for name, values in trained.metrics.items()}
    mlo, mlog, own = map(drawn, gains)
    return Drawn(trained.settings, chosen, mlo, mlog, own, metrics)


def judge(drawn: Drawn, chosen: choosing.Choices, gain: str) -> list[Verdict]:
    """Returns the verdict on each statement; on those about transfer, by ``mlog`` or ``mlo``."""
    y = getattr(drawn, gain)
    title = gain.upper()
    return [
        *_slopes(drawn, y, title),
        *_correlations(drawn, y, title),
        _signs(drawn, y, title),
        *_others(drawn, y, title),
        *_choices(chosen),
    ]


def _slopes(drawn: Drawn, y: np.ndarray, title: str) -> Iterator[Verdict]:
    vci = drawn.metrics["train", "vci"]
    cosine = drawn.metrics["train", "cosine_similarity"]
    for number, statement, group, values, sign, margin in (
        (1, "A lower temperature leaves features less collapsed: VCI rises",
         "temperature", vci, 1, SHARE),
        (2, f"A lower temperature transfers better: {title} rises", "temperature", y, 1, LOG_ODDS),
        (3, "A stronger regulariser lowers the cosine similarity",
         "regulariser", cosine, -1, SHARE),
        (4, "A stronger regulariser lowers VCI", "regulariser", vci, -1, SHARE),
        (5, f"A stronger regulariser transfers worse: {title} falls",
         "regulariser", y, -1, LOG_ODDS),
    ):  # fmt: skip
        inside = values[:, resampling.columns(drawn.settings, GROUPS[group])]
        yield decide(number, statement, change(inside), sign, margin)


def _correlations(drawn: Drawn, y: np.ndarray, title: str) -> Iterator[Verdict]:
    numbered = [(6 + index, "vci", group) for index, group in enumerate((*GROUPS, ALL))]
    numbered += [(10 + index, metric, ALL) for index, metric in enumerate(METRICS[1:])]
    for number, metric, group in numbered:
        where = "all settings" if group == ALL else f"the {group} group"
        sign = -1 if metric == "cosine_similarity" else 1
        word = "negatively" if sign < 0 else "positively"
        name = "VCI" if metric == "vci" else metric.replace("_", " ").capitalize()
        statement = f"{name} correlates with {title} {word} over {where}"
        x = drawn.metrics["train", metric]
        yield decide_correlation(number, statement, pearson, (x, y), drawn.members[group], sign)


def _signs(drawn: Drawn, y: np.ndarray, title: str) -> Verdict:
    """Returns the verdict on the statement that only VCI has one sign in all groups."""
    same = np.stack(
        [
            np.abs(np.sum([np.sign(r) for r in _by_group(drawn, metric, y)], axis=0)) == len(GROUPS)
            for metric in METRICS
        ]
    )
    consistent, others = same[0, 1:].mean(), 1 - same[1:, 1:].mean(axis=1)
    verdict = UNDECIDED
    if consistent >= CONSISTENT and others.min() >= CONSISTENT:
        verdict = CONFIRMED
    elif 1 - consistent >= CONSISTENT or 1 - others.min() >= CONSISTENT:
        verdict = CONTRADICTED
    both = same[0] & ~same[1:].any(axis=0)
    statement = f"VCI alone has one sign of the correlation with {title} in all three groups"
    return Verdict(13, statement, verdict, float(both[1:].mean()), np.nan, np.nan)


def _by_group(drawn: Drawn, metric: str, y: np.ndarray) -> list[np.ndarray]:
    x = drawn.metrics["train", metric]
    chosen = [drawn.members[group] for group in GROUPS]
    return [pearson(_take(x, rows), _take(y, rows)) for rows in chosen]


def _take(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, chosen, axis=1)


def _others(drawn: Drawn, y: np.ndarray, title: str) -> Iterator[Verdict]:
    train, test = (drawn.metrics[split, "vci"] for split in ("train", "test"))
    everything = drawn.members[ALL]
    yield decide_correlation(
        14, "VCI says something of MLO beyond pretraining accuracy", partial,
        (train, drawn.mlo, drawn.own), everything, 1,
    )  # fmt: skip
    plain = y[:, drawn.settings.index(PLAIN)]
    for number, word, setting, sign in (
        (15, f"Training that lowers VCI directly lowers {title}", "vci_plus", -1),
        (16, f"Training that raises VCI directly raises {title}", "vci_minus", 1),
    ):
        column = drawn.settings.index(setting)
        verdict = decide(number, word, y[:, column] - plain, sign, LOG_ODDS)
        moved = train[:, column] - train[:, drawn.settings.index(PLAIN)]
        premise = decide(number, "VCI moves as it should", moved, sign, SHARE).verdict
        yield verdict if premise == CONFIRMED else verdict._replace(verdict=UNTESTED)
    train, test, y = (_take(values, everything) for values in (train, test, y))
    effect = pearson(train, y) - pearson(test, y)
    statement = f"VCI of the training images predicts {title} better than that of the test images"
    yield decide(17, statement, effect, 1, DIFFERENCE)


def _choices(chosen: choosing.Choices) -> Iterator[Verdict]:
    vci = chosen.points(chosen.regret["vci", ""])
    for number, statement, other in (
        (18, "Choosing by VCI costs less accuracy than choosing by pretraining accuracy",
         chosen.regret["accuracy", ""]),
        (19, "Choosing by LogME on the target costs less than choosing by VCI",
         chosen.regret["logme", "all"]),
        (20, "Choosing by adjusted VCI on the target costs less than choosing by VCI of the source",
         chosen.regret["vci_adjusted", "all"]),
    ):  # fmt: skip
        # Positive where the statement holds.
        effect = chosen.points(other) - vci
        yield decide(number, statement, effect if number == 18 else -effect, 1, POINTS)


def decide(number: int, statement: str, effect: np.ndarray, sign: int, margin: float) -> Verdict:
    """Returns the verdict on an effect with a stated sign, from its draws ``[B]``."""
    low, high = interval(effect, 0.95)
    inner = interval(effect, 0.9)
    if (low if sign > 0 else -high) > 0:
        verdict = CONFIRMED
    elif (-high if sign > 0 else low) > 0:
        verdict = CONTRADICTED
    else:
        verdict = ABSENT if max(-inner[0], inner[1]) < margin else UNDECIDED
    return Verdict(number, statement, verdict, float(effect[0]), low, high, inner, margin)


def decide_correlation(
    number: int,
    statement: str,
    coefficient: Callable[..., np.ndarray],
    samples: tuple[np.ndarray, ...],
    chosen: np.ndarray,
    sign: int,
) -> Verdict:
    """Returns the verdict on a correlation over settings; without any one, its sign must hold.

    Args:
      number: number of the statement.
      statement: the statement.
      coefficient: computes the correlation of the samples.
      samples: values of the settings, each ``[B S]``.
      chosen: the settings that it is over in each draw, ``[B n]``.
      sign: the stated sign.
    """
    inside = [_take(sample, chosen) for sample in samples]
    result = decide(number, statement, coefficient(*inside), sign, CORRELATION)
    rest = [
        float(coefficient(*(np.delete(sample[0], left_out) for sample in inside)))
        for left_out in range(chosen.shape[1])
    ]
    verdict = result.verdict
    if verdict in (CONFIRMED, CONTRADICTED) and min(rest) * max(rest) <= 0:
        verdict = UNDECIDED
    return result._replace(verdict=verdict, without_one=(min(rest), max(rest)))


def change(values: np.ndarray) -> np.ndarray:
    """Returns the change of a regression line from the first setting to the last, ``[B]``."""
    rank = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    return np.asarray(values @ rank / (rank @ rank) * (values.shape[1] - 1))


def partial(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Returns the partial correlation of x and y given a third variable, ``[B]``."""
    xy, xz, yz = pearson(x, y), pearson(x, given), pearson(y, given)
    return np.asarray((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))


def members(settings: list[str], group: str) -> list[int]:
    """Returns the positions of a group's settings, or of all."""
    return resampling.columns(settings, SETTINGS if group == ALL else GROUPS[group])
