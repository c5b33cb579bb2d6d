"""What the documentation site takes from the code: hooks of MkDocs, named in ``mkdocs.yml``.

A page asks for a table by ``<!-- table: NAME -->``. A link to a file of the repository outside
``docs/`` leads to a copy of it in the site, so that the site can be read without a network.

    python -m mkdocs build --strict    # from the root of the repository, into build/site
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import griffe
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

import configs
from probes.transfer import tasks
from vci_jax.catalogue import METRICS, ON_PRETRAINING, ON_TARGET, Metric
from vci_jax.caveat_codes import CODES

ROOT = Path(__file__).parents[1]
_TABLE = re.compile(r"<!-- table: ([\w.]+) -->")
_OUTSIDE = re.compile(r"\]\(((?:\.\./)+)([^)#]+)(#[^)]*)?\)")
_COPIES = "source"  # The folder of the site that has them.


class Examples(griffe.Extension):
    """Shows what stands under ``Example:`` in a docstring as a session of Python."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Gives the section the name that griffe knows, once an object is loaded."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
            )


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
                     for line in lines)  # fmt: skip


def _comparable(metric: Metric) -> str:
    """Which changes of the features leave the value alone."""
    if "linear" in metric.invariances:
        return "any invertible linear map"
    return ", ".join(metric.invariances) or "none"


def choice() -> str:
    """Which way each metric goes, what it says of transfer, and what it is fit to compare."""
    rows = []
    for metric in METRICS.values():
        adjusted = f"{metric.key}_adjusted"
        bias = f"use `{adjusted}`" if adjusted in METRICS else ""
        if metric.key.endswith("_adjusted"):
            bias = "taken out"
        rows.append((f"`{metric.key}`", metric.title, metric.direction or "neither",
                     metric.on_pretraining or "", metric.on_target or "",
                     _comparable(metric), bias, ", ".join(metric.needs)))  # fmt: skip
    head = (
        *("metric", "name", "more collapsed if", "on the labels of pretraining"),
        *("on the labels of your task", "unchanged by", "bias of few samples", "needs"),
    )
    return _rows(head, rows)


def formulas() -> str:
    """Formula, range and source of each metric."""
    rows = (
        (f"`{m.key}`", m.title, f"`{m.formula}`", f"{m.range[0]:g} to {m.range[1]:g}", m.source)
        for m in METRICS.values()
    )
    return _rows(("metric", "name", "formula", "range", "source"), rows)


def caveats() -> str:
    """Every code, with an anchor of its own."""
    parts = (
        f"### `{one.code}` {{ #{one.code} }}\n\n{one.meaning}\n\n**What to do.** {one.remedy}"
        for one in CODES.values()
    )
    return "\n\n".join(parts)


def suite(which: Iterable[tasks.Task]) -> str:
    """The tasks of a suite."""
    rows = (
        (f"`{task.name}`", f"`{task.source}`", str(task.num_classes),
         " / ".join(f"{size:,}" for size in task.sizes or ()),
         task.score.replace("_", " "))
        for task in which
    )  # fmt: skip
    return _rows(("task", "source", "classes", "train / validation / test", "score"), rows)


def config_list() -> str:
    """The configs of ``python -m train``."""
    return _rows(
        ("config", "what it trains"), ((f"`{n}`", t) for n, t in configs.summaries().items())
    )


TABLES: dict[str, Callable[[], str]] = {
    "metrics.choice": choice,
    "metrics.formulas": formulas,
    "caveats": caveats,
    "tasks.paper": lambda: suite(tasks.PAPER),
    "tasks.small": lambda: suite(tasks.SMALL),
    "configs": config_list,
    "sign": lambda: f"- {ON_PRETRAINING}\n- {ON_TARGET}",
}


def _table(match: re.Match[str]) -> str:
    if match[1] not in TABLES:
        raise PluginError(f"there is no table {match[1]}; there are {', '.join(TABLES)}.")
    return TABLES[match[1]]()


def _outside(source: str, up: str, rest: str) -> str | None:
    """Returns which file of the repository a link of the page ``source`` leads to, outside docs."""
    path = os.path.normpath(posixpath.join("docs", posixpath.dirname(source), up, rest))
    return None if path.startswith(("docs/", "..")) else path


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Fills in tables, and turns links to files of the repository to their copies."""
    source = page.file.src_uri

    def turn(match: re.Match[str]) -> str:
        path = _outside(source, match[1], match[2])
        if path is None:
            return match[0]
        back = posixpath.relpath(".", posixpath.dirname(source) or ".")
        return f"]({posixpath.join(back, _COPIES, path)})"

    return _OUTSIDE.sub(turn, _TABLE.sub(_table, markdown))


def on_files(files: Any, config: Any) -> Any:
    """Adds copies of the files that pages link to outside of docs."""
    for page in list(files.documentation_pages()):
        for up, rest, _ in _OUTSIDE.findall(Path(page.abs_src_path).read_text()):
            path = _outside(page.src_uri, up, rest)
            if path is None or files.get_file_from_path(f"{_COPIES}/{path}"):
                continue
            if not (ROOT / path).is_file():
                raise PluginError(f"{page.src_uri} links to {path}, which is no file.")
            copy = File.generated(config, f"{_COPIES}/{path}", abs_src_path=str(ROOT / path))
            files.append(copy)
    return files
