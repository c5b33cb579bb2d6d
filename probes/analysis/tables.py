"""Tables 1 and 2 and the table of correlations, as Markdown or LaTeX."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from probes.analysis.cohorts import Study
from probes.analysis.correlation import Correlation
from probes.transfer import escape

_SHORT = {"fuzziness": "Fuzziness", "squared_distance": "Sqr. dist.",
          "cosine_similarity": "Cos. sim.", "vci": "VCI"}  # fmt: skip


class Raw(str):
    """A cell that is Markdown already; every other cell is escaped."""


class Table(NamedTuple):
    """A title, the names of the columns, and rows of text."""

    title: str
    header: list[str]
    rows: list[list[str]]


def scores(study: Study) -> Table:
    """Returns the test scores of every run in per cent, and MLO (table 1)."""
    percent = [100 * column for column in study.scores.values()]
    rows = [
        [*_named(study, i), *(f"{column[i]:.2f}" for column in percent), f"{study.mlo[i]:.3f}"]
        for i in range(len(study.names))
    ]
    tasks = map(escape.line, study.scores)
    return Table("Transfer", ["Group", "Run", *tasks, "MLO"], rows)


def metrics(study: Study, correlations: Sequence[Correlation]) -> Table:
    """Returns the metrics, accuracy and MLOG of every run, and Pearson's r below (table 2)."""
    rows = [
        [
            *_named(study, i),
            *(_digits(column[i]) for column in study.metrics.values()),
            f"{100 * study.accuracy[i]:.2f}",
            f"{study.mlog[i]:.4f}",
        ]
        for i in range(len(study.names))
    ]
    by_name = {(correlation.group, correlation.metric): correlation for correlation in correlations}
    for group in dict.fromkeys(correlation.group for correlation in correlations):
        values = [_value(by_name[group, metric]) for metric in study.metrics]
        rows.append([escape.line(group), "r with MLOG", *values, "", ""])
    names = map(_short, study.metrics)
    return Table("Metrics", ["Group", "Run", *names, "Accuracy", "MLOG"], rows)


def correlations(results: Sequence[Correlation]) -> Table:
    """Returns every coefficient of every metric and group, with intervals and tests."""
    header = ["Group", "Metric", "n", "Pearson r", "permutation", "BCa", "test", "without one"]
    header += ["given accuracy", "Spearman", "Kendall", "weighted"]
    return Table("Correlation with MLOG", header, [_row(result) for result in results])


def seeds(results: Sequence[Correlation]) -> Table:
    """Returns the intervals of r for new seeds, where settings have several seeds."""
    rows = [
        [
            escape.line(result.group),
            _short(result.metric),
            f"{result.settings} ({result.runs} runs)",
            _value(result),
            _interval(result.seeds.low, result.seeds.high),
        ]
        for result in results
        if math.isfinite(result.seeds.low)
    ]
    header = ["Group", "Metric", "n", "Pearson r", "if only the seeds were new"]
    return Table("Noise of the seed", header, rows)


def markdown(table: Table) -> str:
    """Returns a table of Markdown, its columns aligned."""
    rows = [
        [cell if isinstance(cell, Raw) else escape.cell(cell) for cell in row]
        for row in (table.header, *table.rows)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([f"**{table.title}**", "", lines[0], rule, *lines[1:]])


def latex(table: Table) -> str:
    r"""Returns a table of LaTeX, which needs ``\usepackage{booktabs}``."""
    cells = [list(map(_latex, row)) for row in (table.header, *table.rows)]
    # A bracket or a star at the start would be read as an argument of the row before.
    lines = [("{}" if row[0][:1] in ("[", "*") else "") + " & ".join(row) for row in cells]
    lines = [line + r" \\" for line in lines]
    columns = "ll" + "r" * (len(table.header) - 2)
    start = [r"\begin{table}", r"\centering", rf"\caption{{{escape.latex(table.title)}}}"]
    start += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule"]
    end = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join([*start, *lines[1:], *end])


def _row(result: Correlation) -> list[str]:
    count = str(result.runs)
    if result.runs != result.settings:
        count = f"{result.settings} ({result.runs} runs)"
    start = [escape.line(result.group), _short(result.metric), count]
    if not result.estimates:
        return [*start, *["undefined"] * 9]
    pearson = result.pearson
    partial, p_partial = result.partial
    others = [result.estimates[name] for name in ("spearman", "kendall", "weighted_kendall")]
    return [
        *start,
        f"{pearson.value:+.3f}",
        _interval(pearson.permutation.low, pearson.permutation.high),
        _interval(pearson.bootstrap.low, pearson.bootstrap.high),
        _p(pearson.permutation.p_value),
        _interval(*pearson.leave_one_out),
        f"{partial:+.3f} ({_p(p_partial)})" if math.isfinite(partial) else "undefined",
        *(f"{other.value:+.3f} ({_p(other.permutation.p_value)})" for other in others),
    ]


def _value(result: Correlation) -> str:
    return f"{result.pearson.value:+.3f}" if result.estimates else "undefined"


def _interval(low: float, high: float) -> str:
    return f"[{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else "none"


def _p(value: float) -> str:
    if not math.isfinite(value):
        return "p none"
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}"


def _digits(value: float) -> str:
    return f"{value:#.4g}" if math.isfinite(value) else "none"


def _named(study: Study, run: int) -> list[str]:
    return [escape.line(study.groups[run]), escape.line(study.names[run])]


def _short(metric: str) -> str:
    return _SHORT.get(metric, escape.line(metric))


def _latex(text: str) -> str:
    """Returns text of LaTeX, with a minus sign instead of a hyphen in numbers."""
    is_number = text[:1] in ("+", "-") and text[1:].replace(".", "", 1).isdecimal()
    return f"${text}$" if is_number and text.isascii() else escape.latex(text)
