"""The text of the study: prose from ``DIR/text.md``, every number from the raw files.

The prose names its numbers, ``{{vci.tau_0.05}}``, and holds no other result but the pilot's and the
paper's.
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
# Beside the four of the paper.
MORE = ("class_separation", "cdnv", "effective_rank", "h_score", "logme")
# Statements on VCI and cosine similarity of these settings: there is nothing else to draw.
FIXED = (1, 3, 4)
_NAME = re.compile(r"\{\{([\w.]+)\}\}")


class StudyData(NamedTuple):
    """The data behind the text and the pictures.

    Attributes:
      networks, drawn: of all settings.
      first: the same of the preregistered ones.
      choices: among the preregistered settings.
      verdicts: on these, as preregistered.
      wider: the same with settings and data sets drawn as well.
      left_out: choices without each setting, without both VCI losses (``choosing.WITHOUT_VCI``),
        and with the settings that were added (``choosing.WITH_ALL``).
      pilot: its rows.
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
    if missing := [
        name for name in networks.SETTINGS if name not in (*trained.settings, *networks.ADDED)
    ]:
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
    """Returns the text of every file that is made: ``DIR.md``, the pilot's, and perhaps a README.

    Raises:
      ValueError: as ``render`` and ``between``.
    """
    values = facts(study)
    page = directory / "pilot.md"
    made = {
        directory.with_suffix(".md"): render(values, (directory / "text.md").read_text()),
        page: between(TABLES, page.read_text(), f"\n{pilot.markdown(study.pilot)}\n"),
    }
    if readme is not None:
        part = render(values, (directory / "readme.md").read_text())
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


def render(values: dict[str, str], prose: str) -> str:
    """Returns prose with the facts that it names.

    Raises:
      ValueError: the text uses an unknown name.
    """
    if missing := sorted(set(_NAME.findall(prose)) - set(values)):
        near = [name for unknown in missing for name in difflib.get_close_matches(unknown, values)]
        raise ValueError(f"the prose names {', '.join(missing)}; there are {', '.join(near)}.")
    return _NAME.sub(lambda match: values[match[1]], prose)


def facts(study: StudyData) -> dict[str, str]:
    """Returns every number and table that the prose may name."""
    trained, drawn = study.networks, study.drawn
    made = {
        "networks": str(len(trained.names)),
        "settings": str(len(trained.settings)),
        "probes": str(len(trained.names) * len(TASKS)),
        "failed": "; ".join(trained.failed) or "none",
        "table.verdicts": tables.markdown(_verdicts(study)),
        "table.settings": tables.markdown(_settings(study)),
        "table.power": tables.markdown(_power(study)),
        "table.correlations": tables.markdown(_correlations(study)),
        "table.signs": tables.markdown(_signs(study)),
        "table.tasks": tables.markdown(_tasks(study)),
        "table.regret": tables.markdown(choosing.size_table(study.choices)),
        "table.regret_tasks": tables.markdown(choosing.task_table(study.choices)),
        "table.regret_without": tables.markdown(
            choosing.without_table(study.choices, study.left_out)
        ),
        "table.prediction": tables.markdown(_prediction(study)),
    }
    for prefix, judged in (("", study.verdicts), ("wider.", study.wider)):
        for gain, verdicts in judged.items():
            counted = verdicts if not prefix else [v for v in verdicts if v.number not in FIXED]
            for word in statements.VERDICTS:
                count = sum(verdict.verdict == word for verdict in counted)
                made[f"{prefix}{gain}.{word.replace(' ', '_')}"] = str(count)
            for verdict in verdicts:
                made[f"{prefix}{gain}.{verdict.number}"] = _effect(verdict)
                made[f"{prefix}{gain}.{verdict.number}.verdict"] = verdict.verdict
    made |= _training(trained)
    for column, setting in enumerate(drawn.settings):
        for gain in GAINS:
            made[f"{gain}.{setting}"] = f"{getattr(drawn, gain)[0, column]:.2f}"
        for (split, name), values in drawn.metrics.items():
            short = name if split == "train" else f"test_{name}"
            made[f"{short}.{setting}"] = f"{values[0, column]:.3g}"
        for split in ("train", "test"):
            made[f"{split}_accuracy.{setting}"] = _percent(
                drawn.metrics[split, "accuracy"][0, column]
            )
    for (score, size), lost in study.choices.regret.items():
        key = ".".join(filter(None, (score, size)))
        made[f"regret.{key}"] = choosing.points(study.choices, lost)
        rest = study.left_out[choosing.WITHOUT_VCI]
        made[f"without_vci.{key}"] = f"{rest.points(rest.regret[score, size])[0]:.2f}"
        every = study.left_out[choosing.WITH_ALL]
        made[f"with_all.{key}"] = f"{every.points(every.regret[score, size])[0]:.2f}"
    for setting in drawn.settings:
        made[f"seeds.{setting}"] = str(trained.names.count(setting))
    made["regret.random"] = choosing.points(study.choices, study.choices.spread)
    gain, first = drawn.mlog[0], study.first[1]
    everything = drawn.metrics["train", "vci"][0], drawn.mlo[0]
    for name, given in (("own", drawn.own), ("train", drawn.metrics["train", "accuracy"])):
        made[f"partial.{name}"] = f"{statements.partial(*everything, given[0]):+.2f}"
    made["left_out.mean"] = f"{left_out(np.zeros_like(first.mlog[0]), first.mlog[0]):.3f}"
    for split, name in _measured():
        values, short = drawn.metrics[split, name][0], name if split == "train" else f"test_{name}"
        of_first = first.metrics[split, name][0], first.mlog[0]
        made[f"left_out.{short}"] = f"{left_out(*of_first):.3f}"
        made[f"first.{short}"] = f"{pearson(*of_first):+.2f}"
        made[f"r.{short}"] = f"{pearson(values, gain):+.2f}"
        made[f"rank.{short}"] = f"{spearman(values, gain):+.2f}"
        made[f"r_mlo.{short}"] = f"{pearson(values, drawn.mlo[0]):+.2f}"
    made["test_vci.weakest"] = f"{min(drawn.metrics['test', 'vci'][0]):.3g}"
    return made


def compare(path: Path, text: str) -> str:
    """Returns the first difference between a file and its expected text, or nothing."""
    written = path.read_text().splitlines() if path.exists() else []
    lines = text.splitlines()
    for number, (old, new) in enumerate(zip([*written, ""], [*lines, ""], strict=False), start=1):
        if old != new:
            return f"{path}, line {number}, is\n  {old}\nand should be\n  {new}"
    return (
        "" if len(written) == len(lines) else f"{path} has {len(written)} lines, not {len(lines)}"
    )


def _verdicts(study: StudyData) -> Table:
    rows = []
    judged = (study.verdicts["mlog"], study.verdicts["mlo"], study.wider["mlog"])
    for first, second, wide in zip(*judged, strict=True):
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
        rows.append(
            [
                title(setting),
                str(len(members)),
                *(f"{drawn.metrics['train', name][0, column]:.3g}" for name in METRICS),
                f"{drawn.metrics['test', 'vci'][0, column]:.3f}",
                *(
                    _percent(drawn.metrics[split, "accuracy"][0, column])
                    for split in ("train", "test")
                ),
                *(f"{value:.1f}" for value in accuracy),
                *(_with_error(getattr(drawn, gain)[:, column]) for gain in reversed(GAINS)),
            ]
        )
    header = ["Setting", "seeds", *(NAMES[name] for name in METRICS), "VCI, test images"]
    header += [
        "CIFAR-10 train %",
        "CIFAR-10 test %",
        *(f"{task} %" for task in TASKS),
        "MLO",
        "MLOG",
    ]
    return Table("Every setting, mean over its seeds", header, rows)


def _power(study: StudyData) -> Table:
    rows = []
    for gain in GAINS:
        for group, (spread, error) in resampling.power(
            study.first[0], getattr(study.first[1], gain)
        ).items():
            cells = [f"{spread:.3f}", f"{error:.3f}", f"{spread / error:.1f}"]
            rows.append([gain.upper(), group, *cells])
    header = ["Of", "Group", "sd between settings", "its error", "ratio"]
    return Table("Power: do the settings differ by more than the noise?", header, rows)


def _correlations(study: StudyData) -> Table:
    rows = []
    for metric in METRICS:
        x = study.first[1].metrics["train", metric]
        for group in (*GROUPS, ALL):
            chosen = study.first[1].members[group]
            cells = []
            for gain in GAINS:
                y = getattr(study.first[1], gain)
                made = statements.decide_correlation(0, "", pearson, (x, y), chosen, 1)
                low, high = made.without_one
                cells += [_effect(made), f"{low:+.2f} to {high:+.2f}"]
            rows.append([NAMES[metric], group, str(chosen.shape[1]), *cells])
    header = ["Metric of train images", "Group", "settings", "r with MLOG [95 %]", "without one"]
    header += ["r with MLO [95 %]", "without one"]
    return Table("Pearson's r over the means of settings", header, rows)


def _signs(study: StudyData) -> Table:
    rows = []
    for split, metric in _measured():
        x = study.first[1].metrics[split, metric]
        cells = []
        for y in (study.first[1].mlog[0], study.first[1].mlo[0]):
            for group in (*GROUPS, ALL):
                chosen = statements.members(study.first[1].settings, group)
                cells.append(f"{pearson(x[0, chosen], y[chosen]):+.2f}")
            cells.append(f"{spearman(x[0], y):+.2f}")
        given = statements.partial(x[0], study.first[1].mlo[0], study.first[1].own[0])
        rows.append([_named(split, metric), *cells, f"{given:+.2f}"])
    of_each = [*GROUPS, ALL, "of ranks, all"]
    header = ["Metric", *(f"{gain.upper()}: {name}" for gain in GAINS for name in of_each)]
    return Table("Every metric: r", [*header, "MLO, given own accuracy"], rows)


def _tasks(study: StudyData) -> Table:
    trained = study.first[0]
    odds = {
        task: resampling.means(trained, networks.log_odds(trained.right[task].mean(axis=1)))
        for task in TASKS
    }
    rows = [
        [
            _named(split, metric),
            *(
                f"{pearson(study.first[1].metrics[split, metric][0], y):+.2f}"
                for y in odds.values()
            ),
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


def _training(trained: Networks) -> dict[str, str]:
    """Returns when and how long networks were trained and scored, as far as it is recorded."""
    minutes = np.array(trained.seconds) / 60
    timed = ~np.isnan(minutes[:, 0])
    made = {
        "timed": str(timed.sum()),
        "processor": ", ".join(sorted(set(trained.processors) - {""})),
    }
    for column, name in enumerate(("training", "scoring")):
        made[f"minutes.{name}"] = f"{np.median(minutes[timed, column]):.1f}" if any(timed) else "?"
    return made | {"first": min(trained.started)[:16], "last": max(trained.started)[:16]}


def _prediction(study: StudyData) -> Table:
    rows = []
    both = study.first[1], study.drawn
    for split, metric in _measured():
        errors = [left_out(fold.metrics[split, metric][0], fold.mlog[0]) for fold in both]
        rows.append([_named(split, metric), *(f"{error:.3f}" for error in errors)])
    errors = [left_out(np.zeros_like(fold.mlog[0]), fold.mlog[0]) for fold in both]
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
