"""The text of the study: prose from ``DIR/text.md``, numbers from the raw files.

The prose names its numbers, ``{{vci.tau_0.05}}``.
"""

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from probes.analysis import tables
from probes.analysis.coefficients import pearson, spearman
from probes.analysis.tables import Raw, Table
from studies.cifar10 import choosing, networks, pilot, resampling, statements
from studies.cifar10.choosing import Choices
from studies.cifar10.networks import GROUPS, TASKS, Networks
from studies.cifar10.statements import ALL, METRICS, Drawn, Verdict
from studies.cifar10.words import NAMES, title

STUDY = ("<!-- study: begin -->", "<!-- study: end -->")
TABLES = ("<!-- tables: begin -->", "<!-- tables: end -->")
GAINS = ("mlog", "mlo")
# Metrics beside the four of the paper.
MORE = ("class_separation", "cdnv", "effective_rank", "h_score", "logme")
# Statements on VCI and cosine similarity of these settings, the same under wider draws.
FIXED = (1, 3, 4)
_NAME = re.compile(r"\{\{([\w.]+)\}\}")


class StudyData(NamedTuple):
    """The data behind the text and the pictures.

    Attributes:
      networks, drawn: networks and draws of all settings.
      first: networks and draws of the preregistered settings.
      choices: choices among the preregistered settings.
      verdicts: verdicts on the preregistered settings, by gain.
      wider: the same with settings and data sets drawn as well.
      left_out: choices without each setting, without both VCI losses (``choosing.WITHOUT_VCI``),
        and with the settings added later (``choosing.WITH_ALL``).
      pilot: rows of the pilot.
    """

    networks: Networks
    drawn: Drawn
    first: tuple[Networks, Drawn]
    choices: Choices
    verdicts: dict[str, list[Verdict]]
    wider: dict[str, list[Verdict]]
    left_out: dict[str, Choices]
    pilot: list[pilot.Row]


def read(directory: Path, draws: int = resampling.DRAWS) -> StudyData:
    """Returns the study of ``DIR/networks`` and ``DIR/pilot.json``.

    Raises:
      ValueError: networks are missing, or a raw file is not of the study.
    """
    trained = networks.read(directory / "networks")
    present = (*trained.settings, *networks.ADDED)
    if missing := [name for name in networks.SETTINGS if name not in present]:
        raise ValueError(
            f"{directory / 'networks'} has no network of {', '.join(missing)}; train and score it: "
            "configs/collapse_study.py says how."
        )
    accuracy = resampling.accuracies(trained, draws)
    before = np.array([name not in networks.ADDED for name in trained.names])
    first = (
        networks.preregistered(trained),
        {name: values[:, before] for name, values in accuracy.items()},
    )
    once = {name: values[:1] for name, values in accuracy.items()}
    first_once = {name: values[:1] for name, values in first[1].items()}
    rows = json.loads((directory / "pilot.json").read_text())
    return StudyData(
        networks=trained,
        drawn=statements.draw(trained, accuracy),
        first=(first[0], statements.draw(*first)),
        choices=choosing.choose(*first),
        verdicts=_verdicts_on(*first),
        wider=_verdicts_on(*first, others=True),
        left_out={
            names: choosing.choose(first[0], first_once, without=tuple(names.split(", ")))
            for names in (*first[0].settings, choosing.WITHOUT_VCI)
        }
        | {choosing.WITH_ALL: choosing.choose(trained, once)},
        pilot=[pilot.row(row) for row in rows],
    )


def _verdicts_on(
    trained: Networks, accuracy: dict[str, np.ndarray], *, others: bool = False
) -> dict[str, list[Verdict]]:
    drawn = statements.draw(trained, accuracy, others=others)
    chosen = choosing.choose(trained, accuracy, others=others)
    return {gain: statements.judge(drawn, chosen, gain) for gain in GAINS}


def texts(study: StudyData, directory: Path, readme: Path | None) -> dict[Path, str]:
    """Returns the text of every generated file: ``DIR.md``, the pilot's page, and the README."""
    values = facts(study)
    page = directory / "pilot.md"
    files = {
        directory.with_suffix(".md"): render(values, (directory / "text.md").read_text()),
        page: between(TABLES, page.read_text(), f"\n{pilot.markdown(study.pilot)}\n"),
    }
    if readme is not None:
        section = render(values, (directory / "readme.md").read_text())
        files[readme] = between(STUDY, readme.read_text(), section)
    return files


def between(marks: tuple[str, str], text: str, part: str) -> str:
    """Returns a text with a new part between two marks; ValueError if it lacks them."""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise ValueError(f"the text has no part between {marks[0]!r} and {marks[1]!r}.")
    return f"{before}{begin}\n{part}{end}{after}"


def render(values: dict[str, str], prose: str) -> str:
    """Returns prose with the facts that it names; ValueError for an unknown name."""
    if missing := sorted(set(_NAME.findall(prose)) - set(values)):
        near = [name for unknown in missing for name in difflib.get_close_matches(unknown, values)]
        raise ValueError(f"the prose names {', '.join(missing)}; there are {', '.join(near)}.")
    return _NAME.sub(lambda match: values[match[1]], prose)


def facts(study: StudyData) -> dict[str, str]:
    """Returns every number and table that the prose may name."""
    trained, drawn = study.networks, study.drawn
    numbers = {
        "networks": str(len(trained.names)),
        "settings": str(len(trained.settings)),
        "probes": str(len(trained.names) * len(TASKS)),
        "failed": "; ".join(trained.failed) or "none",
    }
    built = {
        "verdicts": _verdicts(study),
        "settings": _settings(study),
        "power": _power(study),
        "correlations": _correlations(study),
        "signs": _signs(study),
        "tasks": _tasks(study),
        "regret": choosing.size_table(study.choices),
        "regret_tasks": choosing.task_table(study.choices),
        "regret_without": choosing.without_table(study.choices, study.left_out),
        "prediction": _prediction(study),
    }
    numbers |= {f"table.{name}": tables.markdown(table) for name, table in built.items()}
    numbers |= _verdict_facts(study.verdicts, "") | _verdict_facts(study.wider, "wider.")
    numbers |= _training(trained)
    for column, setting in enumerate(drawn.settings):
        numbers[f"seeds.{setting}"] = str(trained.names.count(setting))
        for gain in GAINS:
            numbers[f"{gain}.{setting}"] = f"{getattr(drawn, gain)[0, column]:.2f}"
        for (split, name), values in drawn.metrics.items():
            numbers[f"{_key(split, name)}.{setting}"] = f"{values[0, column]:.3g}"
        for split in ("train", "test"):
            accuracy = drawn.metrics[split, "accuracy"][0, column]
            numbers[f"{split}_accuracy.{setting}"] = _percent(accuracy)
    return numbers | _regret_facts(study) | _correlation_facts(study)


def _verdict_facts(by_gain: dict[str, list[Verdict]], prefix: str) -> dict[str, str]:
    numbers = {}
    for gain, verdicts in by_gain.items():
        counted = [v for v in verdicts if not prefix or v.number not in FIXED]
        for word in statements.VERDICTS:
            count = sum(verdict.verdict == word for verdict in counted)
            numbers[f"{prefix}{gain}.{word.replace(' ', '_')}"] = str(count)
        for verdict in verdicts:
            numbers[f"{prefix}{gain}.{verdict.number}"] = _effect(verdict)
            numbers[f"{prefix}{gain}.{verdict.number}.verdict"] = verdict.verdict
    return numbers


def _regret_facts(study: StudyData) -> dict[str, str]:
    numbers = {"regret.random": choosing.points(study.choices, study.choices.spread)}
    others = {"without_vci": choosing.WITHOUT_VCI, "with_all": choosing.WITH_ALL}
    for (score, size), regret in study.choices.regret.items():
        key = ".".join(filter(None, (score, size)))
        numbers[f"regret.{key}"] = choosing.points(study.choices, regret)
        for name, names in others.items():
            choices = study.left_out[names]
            numbers[f"{name}.{key}"] = f"{choices.points(choices.regret[score, size])[0]:.2f}"
    return numbers


def _correlation_facts(study: StudyData) -> dict[str, str]:
    drawn, first = study.drawn, study.first[1]
    vci, mlo, mlog = drawn.metrics["train", "vci"][0], drawn.mlo[0], drawn.mlog[0]
    numbers = {
        "partial.own": f"{statements.partial(vci, mlo, drawn.own[0]):+.2f}",
        "left_out.mean": f"{left_out(np.zeros_like(first.mlog[0]), first.mlog[0]):.3f}",
        "test_vci.weakest": f"{min(drawn.metrics['test', 'vci'][0]):.3g}",
    }
    accuracy = drawn.metrics["train", "accuracy"][0]
    numbers["partial.train"] = f"{statements.partial(vci, mlo, accuracy):+.2f}"
    for split, name in _measured():
        values, key = drawn.metrics[split, name][0], _key(split, name)
        preregistered = first.metrics[split, name][0], first.mlog[0]
        numbers[f"left_out.{key}"] = f"{left_out(*preregistered):.3f}"
        numbers[f"first.{key}"] = f"{pearson(*preregistered):+.2f}"
        numbers[f"r.{key}"] = f"{pearson(values, mlog):+.2f}"
        numbers[f"rank.{key}"] = f"{spearman(values, mlog):+.2f}"
        numbers[f"r_mlo.{key}"] = f"{pearson(values, mlo):+.2f}"
    return numbers


def _key(split: str, name: str) -> str:
    return name if split == "train" else f"test_{name}"


def compare(path: Path, text: str) -> str:
    """Returns the first difference between a file and its expected text, or nothing."""
    written = path.read_text().splitlines() if path.exists() else []
    lines = text.splitlines()
    for number, (old, new) in enumerate(zip([*written, ""], [*lines, ""], strict=False), start=1):
        if old != new:
            return f"{path}, line {number}, is\n  {old}\nand should be\n  {new}"
    if len(written) != len(lines):
        return f"{path} has {len(written)} lines, not {len(lines)}"
    return ""


def _verdicts(study: StudyData) -> Table:
    rows = []
    columns = (study.verdicts["mlog"], study.verdicts["mlo"], study.wider["mlog"])
    for first, second, wide in zip(*columns, strict=True):
        statement = first.statement.replace("MLOG", "transfer")
        # Statements that are not about transfer have the same verdict for both.
        same = second == first and first.number != 13
        cells = [Raw(f"**{first.verdict}**{_small(first)}"), _effect(first)]
        cells += ["", ""] if same else [f"{second.verdict}{_small(second)}", _effect(second)]
        cells += ["", ""] if first.number in FIXED else [wide.verdict, _effect(wide)]
        rows.append([str(first.number), statement, *cells])
    header = ["", "Statement", "Verdict by MLOG", "effect [95 %]", "by MLO", "effect [95 %]"]
    header += ["for others like them, by MLOG", "effect [95 %]"]
    return Table("The statements, one by one", header, rows)


def _small(verdict: Verdict) -> str:
    """Marks an effect that is present, but within the margin of an absent one."""
    within = max(-verdict.inner[0], verdict.inner[1]) < verdict.margin
    return ", small" if within and verdict.verdict != statements.ABSENT else ""


def _effect(verdict: Verdict) -> str:
    if np.isnan(verdict.low):
        return f"in {100 * verdict.estimate:.1f} % of draws"
    return f"{verdict.estimate:+.2f} [{verdict.low:+.2f}, {verdict.high:+.2f}]"


def _settings(study: StudyData) -> Table:
    trained, drawn = study.networks, study.drawn
    rows = []
    for column, setting in enumerate(drawn.settings):
        members = [row for row, name in enumerate(trained.names) if name == setting]
        accuracy = [
            100 * float(np.mean(trained.right[task][members].mean(axis=1))) for task in TASKS
        ]
        cells = [f"{drawn.metrics['train', name][0, column]:.3g}" for name in METRICS]
        cells.append(f"{drawn.metrics['test', 'vci'][0, column]:.3f}")
        own = [drawn.metrics[split, "accuracy"][0, column] for split in ("train", "test")]
        cells += [*map(_percent, own), *(f"{value:.1f}" for value in accuracy)]
        cells += [_with_error(getattr(drawn, gain)[:, column]) for gain in reversed(GAINS)]
        rows.append([title(setting), str(len(members)), *cells])
    header = ["Setting", "seeds", *(NAMES[name] for name in METRICS), "VCI, test images"]
    header += ["CIFAR-10 train %", "CIFAR-10 test %", *(f"{task} %" for task in TASKS)]
    header += ["MLO", "MLOG"]
    return Table("Every setting, mean over its seeds", header, rows)


def _power(study: StudyData) -> Table:
    rows = []
    for gain in GAINS:
        groups = resampling.power(study.first[0], getattr(study.first[1], gain))
        for group, (spread, error) in groups.items():
            cells = [f"{spread:.3f}", f"{error:.3f}", f"{spread / error:.1f}"]
            rows.append([gain.upper(), group, *cells])
    header = ["Of", "Group", "sd between settings", "its error", "ratio"]
    return Table("Power: do the settings differ by more than the noise?", header, rows)


def _correlations(study: StudyData) -> Table:
    rows, first = [], study.first[1]
    for metric in METRICS:
        x = first.metrics["train", metric]
        for group in (*GROUPS, ALL):
            chosen = first.members[group]
            cells = []
            for gain in GAINS:
                samples = x, getattr(first, gain)
                verdict = statements.decide_correlation(0, "", pearson, samples, chosen, 1)
                low, high = verdict.without_one
                cells += [_effect(verdict), f"{low:+.2f} to {high:+.2f}"]
            rows.append([NAMES[metric], group, str(chosen.shape[1]), *cells])
    header = ["Metric of train images", "Group", "settings", "r with MLOG [95 %]", "without one"]
    header += ["r with MLO [95 %]", "without one"]
    return Table("Pearson's r over the means of settings", header, rows)


def _signs(study: StudyData) -> Table:
    rows, first = [], study.first[1]
    for split, metric in _measured():
        x = first.metrics[split, metric]
        cells = []
        for y in (first.mlog[0], first.mlo[0]):
            for group in (*GROUPS, ALL):
                chosen = statements.members(first.settings, group)
                cells.append(f"{pearson(x[0, chosen], y[chosen]):+.2f}")
            cells.append(f"{spearman(x[0], y):+.2f}")
        partial = statements.partial(x[0], first.mlo[0], first.own[0])
        rows.append([_title(split, metric), *cells, f"{partial:+.2f}"])
    columns = [*GROUPS, ALL, "of ranks, all"]
    header = ["Metric", *(f"{gain.upper()}: {name}" for gain in GAINS for name in columns)]
    return Table("Every metric: r", [*header, "MLO, given own accuracy"], rows)


def _tasks(study: StudyData) -> Table:
    trained, drawn = study.first
    odds = [
        resampling.means(trained, networks.log_odds(trained.right[task].mean(axis=1)))
        for task in TASKS
    ]
    rows = []
    for split, metric in _measured():
        x = drawn.metrics[split, metric][0]
        rows.append([_title(split, metric), *(f"{pearson(x, y):+.2f}" for y in odds)])
    return Table("Every task alone: r with its log odds, all settings", ["Metric", *TASKS], rows)


def _measured() -> Iterable[tuple[str, str]]:
    """Yields the split and the name of each metric of the tables."""
    yield from (("train", name) for name in METRICS)
    yield from (("test", "vci"), ("test", "accuracy"))
    yield from (("train", name) for name in MORE)


def _title(split: str, metric: str) -> str:
    if metric == "accuracy":
        return NAMES[metric]
    return NAMES[metric] + (", test images" if split == "test" else "")


def _training(trained: Networks) -> dict[str, str]:
    """Returns when and how long networks were trained and scored, where that is recorded."""
    minutes = np.array(trained.seconds) / 60
    timed = ~np.isnan(minutes[:, 0])
    median = [f"{np.median(column[timed]):.1f}" if any(timed) else "?" for column in minutes.T]
    return {
        "timed": str(timed.sum()),
        "processor": ", ".join(sorted(set(trained.processors) - {""})),
        "minutes.training": median[0],
        "minutes.scoring": median[1],
        "first": min(trained.started)[:16],
        "last": max(trained.started)[:16],
    }


def _prediction(study: StudyData) -> Table:
    rows = []
    both = study.first[1], study.drawn
    for split, metric in _measured():
        errors = [left_out(drawn.metrics[split, metric][0], drawn.mlog[0]) for drawn in both]
        rows.append([_title(split, metric), *(f"{error:.3f}" for error in errors)])
    errors = [left_out(np.zeros_like(drawn.mlog[0]), drawn.mlog[0]) for drawn in both]
    rows.append(["the mean of the others", *(f"{error:.3f}" for error in errors)])
    header = ["A line in", "error of MLOG", "with the two strong regularisers"]
    return Table("Predicting a setting that is left out (root mean square)", header, rows)


def left_out(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the root mean square error of leave-one-out predictions by a line."""
    errors = []
    for index in range(len(y)):
        u, v = np.delete(x, index), np.delete(y, index)
        spread = np.sum((u - u.mean()) ** 2)
        slope = np.sum((u - u.mean()) * (v - v.mean())) / spread if spread else 0.0
        errors.append(y[index] - v.mean() - slope * (x[index] - u.mean()))
    return float(np.sqrt(np.mean(np.square(errors))))


def _with_error(drawn: np.ndarray) -> str:
    return f"{drawn[0]:.3f} ± {drawn[1:].std():.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
