"""The text of the study: prose from ``DIR/text.md``, every number from the raw files.

The prose names its numbers, ``{{gap}}``, and holds no other; so it cannot disagree with them.
"""

import re
from pathlib import Path
from typing import TextIO

import numpy as np

from probes import figures
from probes.analysis import cohorts, correlation, published, tables
from probes.analysis.cohorts import ALL, Study
from probes.analysis.correlation import Correlation
from probes.analysis.resampling import Plan
from probes.analysis.runs import Run
from probes.analysis.tables import Raw, Table
from probes.transfer import odds
from studies.cifar10 import claims, questions
from studies.cifar10.claims import Claim
from studies.cifar10.records import Evidence

BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"
_NAME = re.compile(r"\{\{(\w+)\}\}")
_GROUPS = ("temperature", "regulariser")
_PAIR = ("tau_1.0", "mse_cosine")
_LOSSES = ("tau_1.0", "ce_step", "mse_cosine", "mse_step")
# The ends of both groups, and the other loss.
_EXTREMES = {"plain": "tau_1.0", "cold": "tau_0.05", "strong": "lambda_0.5", "mse": "mse_cosine"}
# Those with thousands of test images.
_LARGE = ("cifar100", "cifar100_coarse", "cifar100_living", "cifar100_made")
_FEWEST = 3  # Settings of a group that have a correlation.
_OTHERS = ("fuzziness", "squared_distance", "cosine_similarity")


def texts(evidence: Evidence, directory: Path, readme: Path | None) -> dict[Path, str]:
    """Returns the text of every file that is made: ``DIR.md``, and perhaps a README.

    Of a README only the part between the two marks is made, from ``DIR/readme.md``.

    Raises:
      ValueError: as ``render``; or the README has no such marks.
    """
    known = facts(evidence)
    made = {directory.with_suffix(".md"): render(known, (directory / "text.md").read_text())}
    if readme is not None:
        before, begin, rest = readme.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise ValueError(f"{readme} has no part between {BEGIN!r} and {END!r}.")
        part = render(known, (directory / "readme.md").read_text())
        made[readme] = f"{before}{begin}\n{part}{end}{after}"
    return made


def render(known: dict[str, str], prose: str) -> str:
    """Returns prose with the facts that it names.

    Raises:
      ValueError: it names one that there is not.
    """
    if missing := sorted(set(_NAME.findall(prose)) - set(known)):
        raise ValueError(f"the prose names {', '.join(missing)}; there are {', '.join(known)}.")
    return _NAME.sub(lambda match: known[match[1]], prose)


def facts(evidence: Evidence) -> dict[str, str]:
    """Returns every number and table that the prose may name.

    Raises:
      ValueError: runs that the text is about are missing, and which.
    """
    _check(evidence)
    eleven, compared, found = _compared(evidence)
    everything = cohorts.from_runs(evidence.runs, "train")
    verdicts = claims.all_claims(evidence, compared, found)
    correction, of_correction = questions.correction(evidence)
    ranking, of_ranking = questions.cheap_ranking(eleven, compared)
    layers, of_layers = questions.inner_layers(eleven, compared)
    made = {
        "claims": _table_of(verdicts),
        "runs": _runs(evidence.runs),
        "table1": tables.markdown(tables.scores(everything)),
        "table2": tables.markdown(tables.metrics(compared, found)),
        "beside": _beside(compared, found),
        "correlations": tables.markdown(tables.correlations(found)),
        "correction": tables.markdown(correction),
        "ranking": tables.markdown(ranking),
        "layers": tables.markdown(layers),
    }
    if (noise := tables.seeds(found)).rows:
        made["seeds"] = tables.markdown(noise)
    else:
        made["seeds"] = "Every setting has one seed, so noise of the seed cannot be told apart."
    counts = {
        f"claims_{name}": str(sum(one.verdict == verdict for one in verdicts))
        for name, verdict in (
            ("confirmed", claims.CONFIRMED),
            ("refuted", claims.REFUTED),
            ("open", claims.OPEN),
        )
    }
    return {
        **made,
        "claims_total": str(len(verdicts)),
        **counts,
        **_scalars(evidence, everything, compared, found),
        **of_correction,
        **of_ranking,
        **of_layers,
    }


def draw(evidence: Evidence, out: Path) -> list[Path]:
    """Writes the figures of the study as PNG and returns their paths."""
    _, compared, found = _compared(evidence)
    pair, losses = evidence.named(*_PAIR), evidence.named(*_LOSSES)
    made = {
        "figure1": figures.within_parts(pair, "train"),
        "figure2": figures.spectra(pair, "train"),
        "figure3": figures.metric_curves(losses, "train"),
        "figure6": figures.train_and_test(losses, ("vci",)),
        "figure7": figures.transfer_scatter(compared, found),
        "figure8": figures.train_and_test(losses, _OTHERS),
    }
    return [figures.save(figure, out / f"{stem}.png") for stem, figure in made.items()]


def compare(path: Path, text: str, stream: TextIO) -> int:
    """Returns 0 if a file has this text; else says where they part, and returns 1."""
    written = path.read_text().splitlines() if path.exists() else []
    for number, (old, new) in enumerate(
        zip([*written, ""], [*text.splitlines(), ""], strict=False), start=1
    ):
        if old != new:
            print(f"{path}, line {number}, is\n  {old}\nand should be\n  {new}", file=stream)
            return 1
    return int(len(written) != len(text.splitlines()))


def _check(evidence: Evidence) -> None:
    missing = [
        name for name in dict.fromkeys((*_LOSSES, *_EXTREMES.values())) if not evidence.named(name)
    ]
    for group in _GROUPS:
        settings = {run.path.name for run in evidence.of(group).runs}
        if len(settings) < _FEWEST:
            missing.append(f"{_FEWEST - len(settings)} or more of the {group} group")
    if missing:
        raise ValueError(
            f"the text cannot be made yet: there is no {', no '.join(missing)}. Make what is "
            "missing with --data-dir and --work-dir."
        )


def _compared(evidence: Evidence) -> tuple[Evidence, Study, list[Correlation]]:
    """Returns the runs of the paper's two groups, side by side and correlated."""
    eleven = evidence.of(*_GROUPS)
    compared = cohorts.from_runs(eleven.runs, "train")
    return eleven, compared, correlation.correlate(compared, Plan())


def _table_of(verdicts: list[Claim]) -> str:
    rows = [
        [one.exhibit, one.statement, Raw(f"**{one.verdict}**"), one.numbers] for one in verdicts
    ]
    header = ["Exhibit", "Statement", "Here", "Numbers"]
    return tables.markdown(Table("The paper's statements, one by one", header, rows))


def _runs(runs: list[Run]) -> str:
    rows = []
    for run in runs:
        train, test = run.last("train"), run.last("test")
        low, high = test["vci_interval"]
        probing = sum(row["feature_seconds"] + row["probe_seconds"] for row in run.transfer)
        rows.append(
            [
                run.name,
                f"{100 * train['accuracy']:.1f}",
                f"{100 * test['accuracy']:.1f}",
                f"{train['vci']:.4f}",
                f"{test['vci']:.4f} [{low:.4f}, {high:.4f}]",
                f"{minutes(run):.1f}",
                f"{probing / 60:.1f}",
            ]
        )
    header = ["Run", "train acc. %", "test acc. %", "VCI train", "VCI test [95 %]"]
    header += ["min to train", "min to probe"]
    return tables.markdown(Table("The runs", header, rows))


def minutes(run: Run) -> float:
    """Training and metrics passes, from the rows' own clocks."""
    test = [row for row in run.rows if row["split"] == "test" and row["epoch"] > 0]
    images, epochs = run.last("train")["samples"], [0, *(row["epoch"] for row in test)]
    steps = sum(
        (after - before) * images / row["images_per_second"]
        for before, after, row in zip(epochs, epochs[1:], test, strict=False)
    )
    return float(steps + sum(row["seconds"] for row in run.rows)) / 60


def _beside(compared: Study, found: list[Correlation]) -> str:
    """Pearson's r of every metric and group: published, here, and by the largest tests alone."""
    theirs = correlation.correlate(published.study(), Plan())
    by_place = {(one.group, one.metric): one for one in theirs}
    large = {task: scores for task, scores in compared.scores.items() if task in _LARGE}
    _, mlog = cohorts.gains(large, compared.accuracy)
    alone = correlation.correlate(compared._replace(scores=large, mlog=mlog), Plan())
    rows = []
    for one, again in zip(found, alone, strict=True):
        other = by_place[one.group, one.metric]
        p = one.pearson.permutation.p_value
        rows.append(
            [
                one.group,
                claims.TITLES[one.metric],
                f"{other.pearson.value:+.3f} (n = {other.settings})",
                f"{one.pearson.value:+.3f} (n = {one.settings}, p = {p:.4f})",
                f"{again.pearson.value:+.3f} (p = {again.pearson.permutation.p_value:.4f})",
            ]
        )
    header = ["Group", "Metric", "published", "here", "here, CIFAR-100 tasks alone"]
    return tables.markdown(Table("Pearson's r with MLOG", header, rows))


def _mlog_error(run: Run) -> float:
    """The standard error of MLOG from the sizes of the test sets, as if they were independent."""

    def variance(share: float, size: int) -> float:
        return 1 / (size * share * (1 - share))

    tasks = [variance(odds.of_score(row)[0], row["test_size"]) for row in run.transfer]
    own = run.last("test")
    last = variance(odds.of_accuracy(own)[0], own["samples"])
    return float(np.sqrt(sum(tasks) / len(tasks) ** 2 + last))


def _scalars(
    evidence: Evidence, everything: Study, compared: Study, found: list[Correlation]
) -> dict[str, str]:
    """Returns single numbers, of all runs or of the paper's two groups (``compared``)."""
    runs = evidence.runs
    accuracy, train_accuracy = (
        [100 * run.last(split)["accuracy"] for run in runs] for split in ("test", "train")
    )
    vci = [run.last("train")["vci"] for run in runs]
    others = np.array([not name.endswith(_EXTREMES["strong"]) for name in compared.names])
    r = {(one.group, one.metric): one.pearson.value for one in found}
    all_r = correlation.correlate(everything._replace(groups=["every"] * len(runs)), Plan())
    made = {
        "run_count": str(len(runs)),
        "setting_count": str(len(set(everything.settings))),
        "seed_count": str(len({run.config["seed"] for run in runs})),
        "task_count": str(len(everything.scores)),
        "probe_count": str(len(everything.scores) * len(runs)),
        "dim": str(runs[0].last("train")["dim"]),
        "width": str(runs[0].config["model"]["width"]),
        "epochs": str(runs[0].config["epochs"]),
        "minutes": f"{np.median([minutes(run) for run in runs]):.0f}",
        "mlog_error": f"{np.median([_mlog_error(run) for run in runs]):.3f}",
        "mlog_spread": f"{np.std(compared.mlog[others], ddof=1):.3f}",
        "mlog_strong": f"{compared.mlog[~others][0]:.2f}",
        "mlog_mean": f"{np.mean(compared.mlog[others]):.2f}",
        "minutes_least": f"{min(minutes(run) for run in runs):.0f}",
        "eleven_low": f"{100 * min(compared.accuracy):.1f}",
        "eleven_high": f"{100 * max(compared.accuracy):.1f}",
        "train_accuracy_low": f"{min(train_accuracy):.0f}",
        "train_accuracy_high": f"{max(train_accuracy):.0f}",
        "vci_low": f"{min(vci):.2f}",
        "vci_high": f"{max(vci):.2f}",
        "accuracy_low": f"{min(accuracy):.1f}",
        "accuracy_high": f"{max(accuracy):.1f}",
        "tests": str(len(found)),
    }
    for label, name in _EXTREMES.items():
        row = evidence.named(name)[0].last("train")
        made |= {f"{label}_{metric}": f"{row[metric]:.3g}" for metric in claims.TITLES}
    for group in (*_GROUPS, ALL):
        for metric in claims.TITLES:
            made[f"r_{group}_{metric}"] = f"{r[group, metric]:+.3f}"
    for one in all_r:
        made[f"r_every_{one.metric}"] = f"{one.pearson.value:+.3f}"
    return made
