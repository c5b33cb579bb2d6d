"""The text of the study: prose from ``DIR/text.md``, every number from the raw files.

The prose names its numbers, ``{{vci.tau_0.05}}``, and holds no other result; so it cannot disagree
with them.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from probes.analysis import tables
from probes.analysis.coefficients import pearson
from probes.analysis.tables import Raw, Table
from studies.cifar10 import choosing, networks, pilot, resampling, statements
from studies.cifar10.choosing import Choices
from studies.cifar10.networks import GROUPS, TASKS, Networks
from studies.cifar10.statements import ALL, METRICS, Drawn, Verdict

STUDY = ("<!-- study: begin -->", "<!-- study: end -->")
TABLES = ("<!-- tables: begin -->", "<!-- tables: end -->")
GAINS = ("mlog", "mlo")
# Beside the four of the paper.
MORE = ("class_separation", "cdnv", "effective_rank", "h_score", "logme")
NAMES = {
    "vci": "VCI",
    "vci_adjusted": "adjusted VCI",
    "cosine_similarity": "cosine similarity",
    "squared_distance": "squared distance",
    "fuzziness": "fuzziness",
    "class_separation": "class separation",
    "cdnv": "CDNV",
    "effective_rank": "effective rank",
    "h_score": "H-score",
    "h_score_adjusted": "adjusted H-score",
    "logme": "LogME",
    "nearest_mean": "nearest class mean",
    "neighbours": "20 nearest neighbours",
    "probe": "the probe itself",
    "accuracy": "pretraining accuracy",
}
OBJECTIVES = {
    "smoothing": "label smoothing 0.1",
    "mse": "squared error",
    "sigmoid": "sigmoid cross-entropy",
    "logit_norm": "normalised logits",
    "dropout": "dropout 0.5",
    "head_decay": "weight decay of the head",
    "vci_plus": "cross-entropy + 0.5 VCI",
    "vci_minus": "cross-entropy - 0.5 VCI",
}
_NAME = re.compile(r"\{\{([\w.]+)\}\}")


class Study(NamedTuple):
    """All that the text and the pictures are made of."""

    networks: Networks
    drawn: Drawn
    choices: Choices
    verdicts: dict[str, list[Verdict]]
    pilot: list[pilot.Row]


def read(directory: Path, draws: int = resampling.DRAWS) -> Study:
    """Returns the study of ``DIR/networks`` and ``DIR/pilot.json``.

    Raises:
      ValueError: networks are missing, or a raw file is not of the study.
    """
    found = networks.read(directory / "networks")
    if missing := [name for name in networks.SETTINGS if name not in found.settings]:
        raise ValueError(
            f"{directory / 'networks'} has no network of {', '.join(missing)}; train and score it: "
            "configs/collapse_study.py says how."
        )
    accuracy = resampling.accuracies(found, draws)
    drawn = statements.draw(found, accuracy)
    chosen = choosing.choose(found, accuracy)
    verdicts = {gain: statements.judge(drawn, chosen, gain) for gain in GAINS}
    rows = json.loads((directory / "pilot.json").read_text())
    return Study(found, drawn, chosen, verdicts, [pilot.row(one) for one in rows])


def texts(study: Study, directory: Path, readme: Path | None) -> dict[Path, str]:
    """Returns the text of every file that is made: ``DIR.md``, the pilot's, and perhaps a README.

    Raises:
      ValueError: as ``render`` and ``between``.
    """
    known = facts(study)
    page = directory / "pilot.md"
    made = {
        directory.with_suffix(".md"): render(known, (directory / "text.md").read_text()),
        page: between(TABLES, page.read_text(), f"\n{pilot.markdown(study.pilot)}\n"),
    }
    if readme is not None:
        part = render(known, (directory / "readme.md").read_text())
        made[readme] = between(STUDY, readme.read_text(), part)
    return made


def between(marks: tuple[str, str], text: str, part: str) -> str:
    """Returns a text with a new part between two marks.

    Raises:
      ValueError: it has no such marks.
    """
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise ValueError(f"the text has no part between {marks[0]!r} and {marks[1]!r}.")
    return f"{before}{begin}\n{part}{end}{after}"


def render(known: dict[str, str], prose: str) -> str:
    """Returns prose with the facts that it names.

    Raises:
      ValueError: it names one that there is not.
    """
    if missing := sorted(set(_NAME.findall(prose)) - set(known)):
        raise ValueError(f"the prose names {', '.join(missing)}; there are {', '.join(known)}.")
    return _NAME.sub(lambda match: known[match[1]], prose)


def facts(study: Study) -> dict[str, str]:
    """Returns every number and table that the prose may name."""
    found, drawn = study.networks, study.drawn
    made = {
        "networks": str(len(found.names)),
        "settings": str(len(found.settings)),
        "probes": str(len(found.names) * len(TASKS)),
        "failed": "; ".join(found.failed) or "none",
        "table.verdicts": tables.markdown(_verdicts(study)),
        "table.settings": tables.markdown(_settings(study)),
        "table.power": tables.markdown(_power(study)),
        "table.correlations": tables.markdown(_correlations(study)),
        "table.signs": tables.markdown(_signs(study)),
        "table.tasks": tables.markdown(_tasks(study)),
        "table.regret": tables.markdown(_regret(study)),
        "table.prediction": tables.markdown(_prediction(study)),
    }
    for gain, verdicts in study.verdicts.items():
        for word in (
            *(statements.CONFIRMED, statements.CONTRADICTED),
            *(statements.ABSENT, statements.UNDECIDED),
        ):
            count = sum(one.verdict == word for one in verdicts)
            made[f"{gain}.{word.replace(' ', '_')}"] = str(count)
        for one in verdicts:
            made[f"{gain}.{one.number}"] = _effect(one)
            made[f"{gain}.{one.number}.verdict"] = one.verdict
    for column, setting in enumerate(drawn.settings):
        for gain in GAINS:
            made[f"{gain}.{setting}"] = f"{getattr(drawn, gain)[0, column]:.2f}"
        for (split, name), values in drawn.metrics.items():
            short = name if split == "train" else f"test_{name}"
            made[f"{short}.{setting}"] = f"{values[0, column]:.3g}"
        made[f"test_accuracy.{setting}"] = _percent(drawn.metrics["test", "accuracy"][0, column])
    for (score, size), lost in study.choices.regret.items():
        made[".".join(filter(None, ("regret", score, size)))] = _points(lost)
    made["regret.random"] = _points(study.choices.spread)
    gain = drawn.mlog[0]
    made["left_out.mean"] = f"{left_out(np.zeros_like(gain), gain):.3f}"
    for split, name in _measured():
        values, short = drawn.metrics[split, name][0], name if split == "train" else f"test_{name}"
        made[f"left_out.{short}"] = f"{left_out(values, gain):.3f}"
        made[f"r.{short}"] = f"{pearson(values, gain):+.2f}"
    made["test_vci.weakest"] = f"{min(drawn.metrics['test', 'vci'][0]):.3g}"
    return made


def compare(path: Path, text: str) -> str:
    """Returns where a file parts from the text that it should have; empty if nowhere."""
    written = path.read_text().splitlines() if path.exists() else []
    lines = text.splitlines()
    for number, (old, new) in enumerate(zip([*written, ""], [*lines, ""], strict=False), start=1):
        if old != new:
            return f"{path}, line {number}, is\n  {old}\nand should be\n  {new}"
    return (
        "" if len(written) == len(lines) else f"{path} has {len(written)} lines, not {len(lines)}"
    )


def title(setting: str) -> str:
    """Returns what a setting is called in tables and pictures."""
    knob, _, value = setting.rpartition("_")
    if setting == networks.PLAIN:
        return "cross-entropy (temperature 1)"
    return {"tau": f"temperature {value}", "lambda": f"regulariser {value}"}.get(
        knob, OBJECTIVES.get(setting, setting)
    )


def of_pretraining(score: str) -> str:
    """Returns what a score of the images of pretraining is called."""
    return NAMES[score] + ("" if score == "accuracy" else " of the pretraining images")


def _verdicts(study: Study) -> Table:
    rows = []
    for first, second in zip(*(study.verdicts[gain] for gain in GAINS), strict=True):
        statement = first.statement.replace("MLOG", "transfer")
        cells = [Raw(f"**{first.verdict}**"), _effect(first)]
        # Where the statement is not about transfer, both are the same.
        other = [second.verdict, _effect(second)] if second != first else ["", ""]
        if first.number == 13:
            other = [second.verdict, _effect(second)]
        rows.append([str(first.number), statement, *cells, *other])
    header = ["", "Statement", "Verdict by MLOG", "effect [95 %]", "by MLO", "effect [95 %]"]
    return Table("The statements, one by one", header, rows)


def _effect(one: Verdict) -> str:
    if np.isnan(one.low):
        return f"in {100 * one.estimate:.1f} % of draws"
    return f"{one.estimate:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def _settings(study: Study) -> Table:
    found, drawn = study.networks, study.drawn
    rows = []
    for column, setting in enumerate(drawn.settings):
        members = [row for row, name in enumerate(found.names) if name == setting]
        accuracy = [100 * float(np.mean(found.right[task][members].mean(axis=1))) for task in TASKS]
        rows.append(
            [
                title(setting),
                str(len(members)),
                *(f"{drawn.metrics['train', name][0, column]:.3g}" for name in METRICS),
                f"{drawn.metrics['test', 'vci'][0, column]:.3f}",
                _percent(drawn.metrics["test", "accuracy"][0, column]),
                *(f"{value:.1f}" for value in accuracy),
                *(_with_error(getattr(drawn, gain)[:, column]) for gain in reversed(GAINS)),
            ]
        )
    header = ["Setting", "seeds", *(NAMES[name] for name in METRICS), "VCI, test images"]
    header += ["CIFAR-10 test %", *(f"{task} %" for task in TASKS), "MLO", "MLOG"]
    return Table("Every setting, mean over its seeds", header, rows)


def _power(study: Study) -> Table:
    rows = []
    for gain in GAINS:
        for group, (spread, error) in resampling.power(
            study.networks, getattr(study.drawn, gain)
        ).items():
            cells = [f"{spread:.3f}", f"{error:.3f}", f"{spread / error:.1f}"]
            rows.append([gain.upper(), group, *cells])
    header = ["Of", "Group", "sd between settings", "its error", "ratio"]
    return Table("Power: do the settings differ by more than the noise?", header, rows)


def _correlations(study: Study) -> Table:
    rows = []
    for metric in METRICS:
        x = study.drawn.metrics["train", metric]
        for group in (*GROUPS, ALL):
            chosen = statements.members(study.drawn.settings, group)
            cells = []
            for gain in GAINS:
                y = getattr(study.drawn, gain)
                made = statements.decide_correlation(0, "", pearson, (x, y), chosen, 1)
                low, high = made.without_one
                cells += [_effect(made), f"{low:+.2f} to {high:+.2f}"]
            rows.append([NAMES[metric], group, str(len(chosen)), *cells])
    header = ["Metric of train images", "Group", "settings", "r with MLOG [95 %]", "without one"]
    header += ["r with MLO [95 %]", "without one"]
    return Table("Pearson's r over the means of settings", header, rows)


def _signs(study: Study) -> Table:
    rows = []
    for split, metric in _measured():
        x = study.drawn.metrics[split, metric]
        cells = []
        for group in (*GROUPS, ALL):
            chosen = statements.members(study.drawn.settings, group)
            cells.append(f"{pearson(x[0, chosen], study.drawn.mlog[0, chosen]):+.2f}")
        chosen = statements.members(study.drawn.settings, ALL)
        given = statements.partial(x[0], study.drawn.mlo[0], study.drawn.own[0])
        signs = "yes" if len({cell[0] for cell in cells[: len(GROUPS)]}) == 1 else "no"
        rows.append([_named(split, metric), *cells, signs, f"{given:+.2f}"])
    header = ["Metric", *GROUPS, ALL, "one sign", "partial r with MLO, given accuracy"]
    return Table("Every metric: r with MLOG", header, rows)


def _tasks(study: Study) -> Table:
    found = study.networks
    odds = {
        task: resampling.means(found, networks.log_odds(found.right[task].mean(axis=1)))
        for task in TASKS
    }
    rows = [
        [
            _named(split, metric),
            *(f"{pearson(study.drawn.metrics[split, metric][0], y):+.2f}" for y in odds.values()),
        ]
        for split, metric in _measured()
    ]
    return Table("Every task alone: r with its log odds, all settings", ["Metric", *TASKS], rows)


def _measured() -> Iterable[tuple[str, str]]:
    yield from (("train", name) for name in METRICS)
    yield from (("test", "vci"), ("test", "accuracy"))
    yield from (("train", name) for name in MORE)


def _named(split: str, metric: str) -> str:
    if metric == "accuracy":
        return NAMES[metric]
    return NAMES[metric] + (", test images" if split == "test" else "")


def _regret(study: Study) -> Table:
    regret, sizes = study.choices.regret, ("500", "2000", choosing.ALL)
    rows = []
    for score in choosing.TARGET:
        cells = [_points(regret[score, size]) if (score, size) in regret else "" for size in sizes]
        rows.append([f"{NAMES[score]}, on the target", *cells])
    for score in choosing.SOURCE:
        rows.append([of_pretraining(score), "", "", _points(regret[score, ""])])
    rows.append(["any network, at random", "", "", _points(study.choices.spread)])
    header = ["Choose the network by", "500 images", "2,000 images", "all images"]
    return Table("Accuracy lost by the choice, in points (± standard error)", header, rows)


def _prediction(study: Study) -> Table:
    rows = []
    y = study.drawn.mlog[0]
    for split, metric in _measured():
        rows.append(
            [_named(split, metric), f"{left_out(study.drawn.metrics[split, metric][0], y):.3f}"]
        )
    rows.append(["the mean of the others", f"{left_out(np.zeros_like(y), y):.3f}"])
    header = ["A line in", "error of MLOG"]
    return Table("Predicting a setting that is left out (root mean square)", header, rows)


def left_out(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the root mean square error of a line fitted to all settings but the predicted."""
    errors = []
    for one in range(len(y)):
        u, v = np.delete(x, one), np.delete(y, one)
        spread = np.sum((u - u.mean()) ** 2)
        slope = np.sum((u - u.mean()) * (v - v.mean())) / spread if spread else 0.0
        errors.append(y[one] - v.mean() - slope * (x[one] - u.mean()))
    return float(np.sqrt(np.mean(np.square(errors))))


def _points(regret: np.ndarray) -> str:
    mean = 100 * regret.mean(axis=1)
    return f"{mean[0]:.2f} ± {mean[1:].std():.2f}"


def _with_error(drawn: np.ndarray) -> str:
    return f"{drawn[0]:.3f} ± {drawn[1:].std():.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
