"""The report page as one string of HTML, which loads nothing from the network."""

import datetime
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from probes.analysis.runs import Run, settings
from probes.page import classes, curves, scatter, tables
from probes.transfer import escape

_HERE = Path(__file__).parent


def _printable(value: Any) -> Any:
    """Returns text that HTML can hold; the assets and the JSON are markup already."""
    is_text = isinstance(value, str) and not isinstance(value, markupsafe.Markup)
    return escape.prose(value) if is_text else value


TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE),
    autoescape=True,
    finalize=_printable,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(runs: Sequence[Run], *, title: str, refresh: int) -> str:
    """Returns the page of one or more runs; ``refresh`` is its reload interval in seconds, or 0."""
    names = escape.lines([run.name for run in runs])
    runs = [
        run._replace(name=name, group=escape.line(run.group))
        for run, name in zip(runs, names, strict=True)
    ]
    class_tables, no_classes = classes.tables(runs)
    name = runs[0].config.get("name") or "CONFIG"
    scatters, statements = scatter.scatters(runs) if len(runs) > 1 else ([], [])
    charts = curves.charts(runs)
    data = {
        "refresh": refresh,
        "runs": names,
        "charts": charts,
        "pictures": classes.pictures(runs),
        "spectra": curves.spectra(runs),
        "classes": class_tables,
        "columns": classes.COLUMNS,
        "scatters": scatters,
    }
    return TEMPLATES.get_template("page.html.j2").render(
        title=escape.line(title),
        runs=runs,
        data=_embed(data),
        charts=charts,
        thinning=curves.thinning(runs, charts),
        scatters=scatters,
        statements=statements,
        has_pictures=bool(data["pictures"]),
        has_spectra=bool(data["spectra"]),
        has_classes=bool(class_tables),
        no_classes=no_classes,
        verdicts=tables.verdicts(runs),
        adjustment=tables.adjustment(runs[0]),
        transfer=tables.scores(runs),
        config=tables.config_table(runs),
        machines=[tables.machines(run) for run in runs],
        one_seed=len(runs) > 1 and len(set(settings(runs))) == len(runs),
        place=_quoted(runs[0].path if len(runs) == 1 else runs[0].path.parent),
        beside=_quoted(runs[0].path.parent),
        config_name="" if len(runs) > 1 or "/" in name else _quoted(name),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        refresh=refresh,
        style=asset("vendor/uPlot.min.css") + asset("page.css"),
        library=asset("vendor/uPlot.iife.min.js"),
        script=asset("page.js"),
    )


def _quoted(value: Any) -> str:
    return escape.line(shlex.quote(str(value)))


def _embed(data: dict[str, Any]) -> markupsafe.Markup:
    """Returns JSON for a script element, without characters that could end it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


def asset(name: str) -> markupsafe.Markup:
    """Returns a file of this package as markup."""
    return markupsafe.Markup((_HERE / name).read_text())
