"""``python -m probes correlate RUN...`` or ``--published``: correlations of metrics and transfer.

Prints the table of correlations and the conclusions from it, with ``--tables`` tables 1 and 2 as
well, and writes figure 7 to ``--out DIR``. ``--published`` takes the tables of Xu & Liu (2023).
"""

import argparse
import sys
from collections.abc import Sequence

from probes import figures
from probes.analysis import cohorts, conclusions, correlation, published, runs, tables
from probes.analysis.cohorts import Study
from probes.analysis.correlation import Correlation
from probes.analysis.resampling import ResamplingPlan
from probes.figures import command
from probes.transfer import escape
from train import local


def main(arguments: list[str]) -> int:
    """Prints the correlations of runs, or of the published tables; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.published == bool(options.runs):
        print("error: give either work directories or --published.", file=sys.stderr)
        return 2
    try:
        plan = ResamplingPlan(resamples=options.resamples, seed=options.seed)
        compared = published.study() if options.published else _read(options.runs, options.split)
        correlations = correlation.correlate(compared, plan)
        print(report(compared, correlations, plan, latex=options.latex, all_tables=options.tables))
        if options.out is not None:
            figure = figures.transfer_scatter(compared, correlations)
            for path in figures.save_both(figure, options.out / "figure7_transfer"):
                print(f"figure: {escape.line(str(path))}")
    except ValueError as error:
        print(f"error: {escape.prose(str(error))}", file=sys.stderr)
        return 2
    return 0


def report(
    compared: Study,
    correlations: list[Correlation],
    plan: ResamplingPlan,
    *,
    latex: bool,
    all_tables: bool,
) -> str:
    """Returns the tables and the conclusions, as Markdown or LaTeX.

    ``all_tables`` puts tables 1 and 2 before the table of correlations.
    """
    chosen = [tables.scores(compared), tables.metrics(compared, correlations)] if all_tables else []
    chosen.append(tables.correlations(correlations))
    if (noise := tables.seeds(correlations)).rows:
        chosen.append(noise)
    write = tables.latex if latex else tables.markdown
    metric = "vci" if "vci" in compared.metrics else next(iter(compared.metrics))
    gaps = correlation.compare(compared, metric, plan)
    method = (
        f"Intervals of {100 * plan.confidence:g} %; BCa and random permutations from "
        f"{plan.resamples} resamples, seed {plan.seed}."
    )
    verdicts = conclusions.statements(correlations, gaps, plan)
    sentences = (method, *compared.notes, *verdicts)
    return "\n\n".join([*map(write, chosen), _listing(sentences, latex=latex)])


def _listing(sentences: Sequence[str], *, latex: bool) -> str:
    if not latex:
        return "\n".join(f"- {escape.markdown(sentence)}" for sentence in sentences)
    items = [rf"\item {{}}{escape.latex(sentence)}" for sentence in sentences]
    return "\n".join([r"\begin{itemize}", *items, r"\end{itemize}"])


def _read(paths: list[str], split: str) -> Study:
    trainings = runs.read_runs(paths)
    for sentence in command.notes(trainings):
        print(sentence, file=sys.stderr)
    return cohorts.from_runs(trainings, split)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m probes correlate", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="work directory, or one of several")
    parser.add_argument("--published", action="store_true", help="the tables of the paper")
    splits = ("train", "test")
    parser.add_argument("--split", choices=splits, default="train", help="split of the metrics")
    parser.add_argument("--out", type=local.argument, help="draw figure 7, into this folder")
    parser.add_argument("--tables", action="store_true", help="tables 1 and 2 too")
    parser.add_argument("--latex", action="store_true", help="LaTeX, not Markdown")
    parser.add_argument("--resamples", type=int, default=ResamplingPlan.resamples)
    parser.add_argument("--seed", type=int, default=ResamplingPlan.seed, help="of the resampling")
    return parser
