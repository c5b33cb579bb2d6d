"""Tables for people: aligned text of at most 80 columns, and HTML for notebooks."""

import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from vci_jax.catalogue import METRICS, ON_PRETRAINING, ON_TARGET
from vci_jax.errors import Caveat

WIDTH = 80
_ARROWS = {"smaller": "v", "larger": "^", "": " "}
LEGEND = "v more collapsed when smaller, ^ when larger"


def number(value: Any, digits: int = 6) -> str:
    """Returns a number with ``digits`` significant digits, or an interval with fewer."""
    if value is None or any(map(math.isnan, value if isinstance(value, list) else [value])):
        return "undefined"
    if isinstance(value, list):
        digits = min(digits, 4)
        return f"[{value[0]:.{digits}g}, {value[1]:.{digits}g}]"
    return f"{value:.{digits}g}"


def marks(caveats: Sequence[Caveat], name: str) -> str:
    """Returns the numbers of the caveats about a metric, such as " [1,3]"."""
    places = [str(i) for i, caveat in enumerate(caveats, 1) if name in caveat.metrics]
    return f" [{','.join(places)}]" if places else ""


def wrapped(text: str, indent: str = "  ", hanging: str | None = None) -> list[str]:
    """Wraps a sentence to lines of at most ``WIDTH`` columns."""
    later = indent if hanging is None else hanging
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=later)


def footnotes(caveats: Sequence[Caveat]) -> list[str]:
    """Returns the caveats as footnotes, numbered as by ``marks``."""
    return [
        line
        for i, caveat in enumerate(caveats, 1)
        for line in wrapped(caveat.message, f"  [{i}] ", "      ")
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns rows of cells: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def report_text(report: Any, title: str = "") -> str:
    """The metrics of a report, what they are, which way is more collapsed, and the caveats."""
    caveats = report.caveats
    lines = [title] if title else []
    lines += [summary(report) + marks(caveats, "samples"), ""]
    for key, metric in METRICS.items():
        if key in report and key != "spectrum":
            note = f"{_ARROWS[metric.direction]} {metric.description}{marks(caveats, key)}"
            lines.append(f"  {key:<25}{number(report[key]):>16} {note}".rstrip())
    lines += ["", f"  {LEGEND}", *wrapped(ON_PRETRAINING), *wrapped(ON_TARGET)]
    return "\n".join([*lines, *footnotes(caveats)])


def metrics_text() -> str:
    """Lists all metrics, one per line: key, direction of collapse, title, and what it needs."""
    lines = [LEGEND, ""]
    for key, metric in METRICS.items():
        needs = f" (needs {' and '.join(metric.needs)})" if metric.needs else ""
        lines.append(f"  {_ARROWS[metric.direction]} {key:<27}{metric.description}{needs}")
    return "\n".join([*lines, "", *wrapped(ON_PRETRAINING), *wrapped(ON_TARGET)])


def summary(report: Any) -> str:
    """Returns the size of the data of a report in words."""
    return (
        f"{report['samples']:,} samples, {report['classes']} classes, {report['dim']} dimensions "
        f"(rank {report['kept_rank']}), weighting by {report['weighting']}"
    )


def report_html(report: Any) -> str:
    """The same as ``report_text`` for a notebook."""
    caveats = report.caveats
    rows = [
        [key, number(report[key]) + marks(caveats, key), _way(metric.direction), metric.description]
        for key, metric in METRICS.items()
        if key in report and key != "spectrum"
    ]
    head = ["metric", "value", "more collapsed", ""]
    notes = [summary(report) + marks(caveats, "samples"), f"{ON_PRETRAINING} {ON_TARGET}"]
    return html_table(head, rows, notes, caveats)


def html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    caveats: Sequence[Caveat] = (),
) -> str:
    """A table whose cells are plain text, with sentences below it."""
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    sentences = [*notes, *(f"[{i}] {caveat.message}" for i, caveat in enumerate(caveats, 1))]
    below = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>{below}"


def _way(direction: str) -> str:
    return f"when {direction}" if direction else ""
