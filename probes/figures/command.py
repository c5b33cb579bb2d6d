"""``python -m probes figures RUN... [--out DIR]``: every figure for which runs have rows."""

import argparse
import sys
from pathlib import Path
from typing import Any

from probes import figures
from probes.analysis import cohorts, correlation, runs
from probes.analysis.resampling import ResamplingPlan
from probes.analysis.runs import Run
from probes.figures import curves
from probes.transfer import escape
from train import local
from train.config import flatten
from vci_jax.probe import selection


def main(arguments: list[str]) -> int:
    """Draws figures 1 to 8, the metrics and the penalties of each run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m probes figures", description=__doc__)
    help_ = "work directory, or a directory above several"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=help_)
    help_ = "directory to write the figures to"
    parser.add_argument("--out", type=local.argument, default=Path("figures"), help=help_)
    parser.add_argument("--epoch", type=float, help="epoch of figure 2; the last one by default")
    options = parser.parse_args(arguments)
    try:
        trainings = runs.read_runs(options.runs)
        for sentence in notes(trainings):
            print(sentence, file=sys.stderr)
        for path in draw(trainings, options.out, options.epoch):
            print(escape.line(str(path)))
    except ValueError as error:
        print(f"error: {escape.prose(str(error))}", file=sys.stderr)
        return 2
    return 0


def draw(trainings: list[Run], out: Path, epoch: float | None) -> list[Path]:
    """Writes every figure; prints why figure 7 is missing if the runs cannot be compared."""
    others = ("fuzziness", "squared_distance", "cosine_similarity")
    drawn = {
        "figure1_within_parts": figures.within_parts(trainings, "train"),
        "figure2_spectra": figures.spectra(trainings, "train", epoch),
        **{
            f"{name}_train": figures.metric_curves(members, "train")
            for name, members in _figures_of_curves(trainings).items()
        },
        "figure6_vci": figures.train_and_test(trainings, ("vci",)),
        "figure8_others": figures.train_and_test(trainings, others),
    }
    if any(run.transfer for run in trainings):
        try:
            compared = cohorts.from_runs(trainings, "train")
            coefficients = correlation.correlate(compared, ResamplingPlan())
            drawn["figure7_transfer"] = figures.transfer_scatter(compared, coefficients)
        except ValueError as error:
            print(f"no figure 7: {escape.prose(str(error))}", file=sys.stderr)
    for run in trainings:
        if run.rows:
            stem = f"collapse_{escape.stem(run.name)}" if len(trainings) > 1 else "collapse"
            drawn[stem] = figures.collapse_curves(run.rows)
        chosen = [row for row in run.transfer if row.get("validation_curve")]
        if chosen:
            stem = f"penalties_{escape.stem(run.name)}"
            drawn[stem] = figures.validation_curves(chosen, selection.VALUES)
    return [
        path for stem, figure in drawn.items() for path in figures.save_both(figure, out / stem)
    ]


def _figures_of_curves(trainings: list[Run]) -> dict[str, list[Run]]:
    """Returns the runs of figure 4 (ResNets on ImageNet), 5 (ViTs), and 3 (all others)."""
    members: dict[str, list[Run]] = {}
    for run in trainings:
        source = str(flatten(run.config).get("data.source", ""))
        if curves.architecture(run).startswith(("deit", "_vit")):
            name = "figure5"
        else:
            name = "figure4" if "imagenet" in source.lower() else "figure3"
        members.setdefault(name, []).append(run)
    return dict(sorted(members.items()))


def notes(trainings: list[Run]) -> list[str]:
    """Returns the notes of all runs, and the settings in which runs of a group differ."""
    sentences = [f"{run.name}: {note}" for run in trainings for note in run.notes]
    for group in dict.fromkeys(run.group for run in trainings):
        members = [run for run in trainings if run.group == group]
        sentences += [
            f"{group}: {field} is {_listing(values, members)}"
            for field, values in runs.differences(members).items()
        ]
    return list(map(escape.line, sentences))


def _listing(values: list[Any], members: list[Run]) -> str:
    pairs = zip(values, members, strict=True)
    return ", ".join(f"{value} ({run.name})" for value, run in pairs)
