"""``python -m probes figures RUN... [--out DIR]``: every figure that runs have the rows for."""

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
    """Draws figures 1 to 8, the metrics and the penalties of each run, as PNG and SVG.

    Returns the exit code.

    2 stands for a path without a run, or for a damaged file.
    """
    parser = argparse.ArgumentParser(prog="python -m probes figures", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work directory, or one of several")
    parser.add_argument(
        "--out", type=local.argument, default=Path("figures"), help="where they are written"
    )
    parser.add_argument("--epoch", type=float, help="of figure 2; the last if not given")
    options = parser.parse_args(arguments)
    try:
        found = runs.read_runs(options.runs)
        for sentence in notes(found):
            print(sentence, file=sys.stderr)
        for path in draw(found, options.out, options.epoch):
            print(escape.line(str(path)))
    except ValueError as error:
        print(f"error: {escape.prose(str(error))}", file=sys.stderr)
        return 2
    return 0


def draw(found: list[Run], out: Path, epoch: float | None) -> list[Path]:
    """Writes every figure of runs; of figure 7 it may say that they cannot be compared."""
    others = ("fuzziness", "squared_distance", "cosine_similarity")
    made = {
        "figure1_within_parts": figures.within_parts(found, "train"),
        "figure2_spectra": figures.spectra(found, "train", epoch),
        **{
            f"{name}_train": figures.metric_curves(members, "train")
            for name, members in _exhibits(found).items()
        },
        "figure6_vci": figures.train_and_test(found, ("vci",)),
        "figure8_others": figures.train_and_test(found, others),
    }
    if any(run.transfer for run in found):
        try:
            compared = cohorts.from_runs(found, "train")
            coefficients = correlation.correlate(compared, ResamplingPlan())
            made["figure7_transfer"] = figures.transfer_scatter(compared, coefficients)
        except ValueError as error:
            print(f"no figure 7: {escape.prose(str(error))}", file=sys.stderr)
    for run in found:
        if run.rows:
            stem = f"collapse_{escape.stem(run.name)}" if len(found) > 1 else "collapse"
            made[stem] = figures.collapse_curves(run.rows)
        chosen = [row for row in run.transfer if row.get("validation_curve")]
        if chosen:
            stem = f"penalties_{escape.stem(run.name)}"
            made[stem] = figures.validation_curves(chosen, selection.VALUES)
    return [path for stem, figure in made.items() for path in figures.save_both(figure, out / stem)]


def _exhibits(found: list[Run]) -> dict[str, list[Run]]:
    """Returns the runs of figure 4 (ResNets on ImageNet), 5 (ViTs), and 3 (all others)."""
    made: dict[str, list[Run]] = {}
    for run in found:
        source = str(flatten(run.config).get("data.source", ""))
        if curves.architecture(run).startswith(("deit", "_vit")):
            name = "figure5"
        else:
            name = "figure4" if "imagenet" in source.lower() else "figure3"
        made.setdefault(name, []).append(run)
    return dict(sorted(made.items()))


def notes(found: list[Run]) -> list[str]:
    """Returns what is amiss with runs, one sentence each, and how those of a group differ."""
    said = [f"{run.name}: {note}" for run in found for note in run.notes]
    for group in dict.fromkeys(run.group for run in found):
        members = [run for run in found if run.group == group]
        said += [
            f"{group}: {field} is {_listing(values, members)}"
            for field, values in runs.differences(members).items()
        ]
    return list(map(escape.line, said))


def _listing(values: list[Any], members: list[Run]) -> str:
    pairs = zip(values, members, strict=True)
    return ", ".join(f"{value} ({run.name})" for value, run in pairs)
