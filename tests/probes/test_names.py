"""Names are data: every medium shows what a run, a group or a task is called, and reads none of it.

Every nasty name goes through every medium, and is read back from what was written.
"""

import csv
import html.parser
import io
import json
import re
import shutil
import subprocess
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import made_runs
import matplotlib
import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from probes import figures
from probes.analysis import correlation, published, tables
from probes.analysis.resampling import ResamplingPlan
from probes.analysis.runs import read_runs
from probes.figures import command, correlate_command, style
from probes.page import render
from probes.transfer import display, escape, summary

QUICK = ResamplingPlan(resamples=99)
NAMES = {
    "underscore": "_baseline",
    "mathematics": "lr$0.1$",
    "half mathematics": r"a$\frac{$b",
    "escaped dollar": r"\$x\$",
    "pipe": "a|b",
    "backslash": "\\",
    "path": r"C:\new\tau",
    "line end": "a\nb",
    "tab": "a\tb",
    "escape sequence": "a\x1b[31mb",
    "element": "<b>bold</b>",
    "script": "</script><img src=x onerror=alert(1)>",
    "comment": "<!--",
    "entity": "&amp; & &#65;",
    "quotes": 'it\'s "quoted"',
    "emphasis": "*a* _b_ __c__ ~~d~~",
    "code": "`c` ``d",
    "link": "[l](http://x) ![i](y) [r]: z",
    "heading": "# h",
    "list": "1. x",
    "rich markup": "[bold]x[/nothing]",
    "braces": "{x}_{2}^3 %d {{ 7 * 7 }} {% if %}",
    "dashes": "a--b---c",
    "spaces": "  a  ",
    "nothing": "",
    "blank": " ",
    "number": "-1.5",
    "large number": "1e5",
    "formula": "=1+1",
    "formulas": "@SUM(A1)",
    "right to left": "שלום",
    "override": "\u202egnp.exe",
    "ideographs": "模型_1",
    "combining": "e\u0301 \U0001f600",
    "not text": "a\udcff",
    "long": "very_" * 60,
    "all": "all",
}
FEW = [NAMES[key] for key in ("half mathematics", "line end", "nothing", "long", "all")]
PARAMETERS = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


def published_as(name):
    """The published study whose first group, first run and first task have a name."""
    runs = published.study()
    return runs._replace(
        names=[name, *runs.names[1:]],
        groups=[name] * 6 + runs.groups[6:],
        scores={name: runs.scores["pets"], "flowers": runs.scores["flowers"]},
    )


def markdown_tables(text):
    """The cells of every table, as a reader sees them; fails on anything but text and bold."""
    found, rows = [], []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        if token.type == "table_open":
            rows = []
            found.append(rows)
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level > 3:
            assert {child.type for child in token.children} <= {"text", "text_special"}, token
            rows[-1].append("".join(child.content for child in token.children))
    return found


def markdown_items(text):
    """The items of every list; fails on anything but lines of text."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    kinds = {token.type for token in tokens if token.type != "inline"}
    parts = ("bullet_list", "list_item", "paragraph")
    assert kinds <= {f"{part}_{end}" for part in parts for end in ("open", "close")}, kinds
    inline = [token for token in tokens if token.type == "inline"]
    assert all(c.type in ("text", "text_special") for token in inline for c in token.children)
    return ["".join(child.content for child in token.children) for token in inline]


@PARAMETERS
def test_markdown_has_the_same_cells(name):
    study = published_as(name)
    found = correlation.correlate(study, QUICK)
    made = [tables.scores(study), tables.metrics(study, found), tables.correlations(found)]
    read = markdown_tables("\n\n".join(map(tables.markdown, made)))
    assert read == [[table.header, *table.rows] for table in made]
    assert read[0][0][2] == read[0][1][0] == read[0][1][1] == escape.line(name)
    assert "\n" not in read[0][1][0]


@PARAMETERS
def test_markdown_has_the_same_sentences(name):
    """Verdicts and notes are items of a list, whatever they begin with."""
    study = published_as(name)._replace(notes=[f"{name}: left out."])
    found = correlation.correlate(study, QUICK)
    text = correlate_command.report(study, found, QUICK, latex=False, all_tables=False)
    items = markdown_items(text[text.index("- Intervals of") :])
    assert escape.printable(f"{name}: left out.") in items
    assert len(items) == text.count("\n- "), "one line each"


def latex_text(source):
    """What LaTeX would print: the escapes undone; fails on a special character that is none."""
    words = {word: c for c, word in escape._LATEX.items()} | {"-{}-": "--"}
    out, rest = "", source
    while rest:
        match = next((w for w in sorted(words, key=len, reverse=True) if rest.startswith(w)), None)
        if match == "-{}-":
            out, rest = out + "-", rest[3:]
        elif match:
            out, rest = out + words[match], rest[len(match) :]
        else:
            assert rest[0] not in "\\&%$#_{}~^\n", source
            out, rest = out + rest[0], rest[1:]
    return out


@PARAMETERS
def test_latex_prints_the_name(name):
    """Each cell for itself, and in a table no row begins with an argument of the row before."""
    assert latex_text(escape.latex(name)) == escape.printable(name)
    study = published_as(name)
    text = tables.latex(tables.scores(study))
    body = text[text.index(r"\midrule") :].splitlines()[1:12]
    assert all(line.endswith(r" \\") and not line.startswith(("[", "*")) for line in body)
    cells = re.split(r" (?<!\\)& ", body[0].removeprefix("{}").removesuffix(r" \\"))
    shown = escape.line(name)
    expected = shown if shown != "-1.5" else "$-1.5$"  # A number, set as one.
    assert [latex_text(cell) if "$-" not in cell else cell for cell in cells[:2]] == [expected] * 2
    report = correlate_command.report(
        study._replace(notes=[name]),
        correlation.correlate(study, QUICK),
        QUICK,
        latex=True,
        all_tables=False,
    )
    items = [line for line in report.splitlines() if line.startswith(r"\item")]
    assert escape.printable(name) in [latex_text(i.removeprefix(r"\item {}")) for i in items]


def drawn_texts(figure, path):
    """The texts of a figure as they stand in an SVG that keeps them."""
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figures.save(figure, path / "figure.svg")
    root = ET.parse(path / "figure.svg").getroot()
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def shown_in_figure(name, limit=48):
    return style.text(name, limit).replace(r"\$", "$")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The texts of figures with all names, or with a few where panels are slow; no warnings."""
    path, names = tmp_path_factory.mktemp("figures"), list(NAMES.values())
    runs = [made_runs.loaded_run(name, made_runs.epoch_rows(2)) for name in names]
    rows = [{"task": name, "value": 1, "validation_curve": [0.5, 0.6]} for name in names]
    size = 3 * len(FEW)
    study = published_as("plain")._replace(
        groups=[name for name in FEW for _ in range(3)],
        settings=list(range(size)),
        metrics={"vci": np.arange(size) % 4.0},
        accuracy=np.full(size, 0.5),
        mlog=np.arange(size) % 5.0,
    )
    made = {
        "curves": figures.train_and_test(runs, ("vci",)),
        "parts": figures.within_parts(runs, "train"),
        "spectra": figures.spectra(
            [made_runs.loaded_run(name, made_runs.epoch_rows(2)) for name in FEW], "train"
        ),
        "penalties": figures.validation_curves(rows, [0.1, 1]),
        "transfer": figures.transfer_scatter(study, []),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figures.save(made["curves"], path / "figure.png").read_bytes()[:4] == b"\x89PNG"
        return made, {key: drawn_texts(figure, path / key) for key, figure in made.items()}


@PARAMETERS
def test_figures_have_every_name(name, drawn):
    """As text, in legends, titles and at axes, whatever it begins with and however long it is."""
    said = drawn[1]
    assert shown_in_figure(name) in said["curves"]
    assert f"{shown_in_figure(name, 20)}, train" in said["parts"]
    assert shown_in_figure(name, 24) in said["penalties"]
    if name in FEW:
        assert f"{shown_in_figure(name, 20)}, train, epoch 1" in said["spectra"]
        assert ('group "all"' if name == "all" else shown_in_figure(name, 24)) in said["transfer"]


def test_a_legend_has_each_run_and_lies_within_the_figure(drawn):
    figure = drawn[0]["curves"]
    entries = figure.legends[0].get_texts()
    assert len(entries) == len({one.get_text() for one in entries}) == len(NAMES)
    for one in entries:
        box = one.get_window_extent(figure.canvas.get_renderer())
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("name", ["half mathematics", "tab", "ideographs", "not text", "long"])
@pytest.mark.filterwarnings("error")
def test_a_split_may_have_any_name(name):
    """Of an empty panel, too."""
    name = NAMES[name]
    for build in (figures.within_parts, figures.spectra, figures.metric_curves):
        build([made_runs.loaded_run("run")], name).draw_without_rendering()


def test_long_names_stay_apart_in_a_figure():
    """Where only the middle differs, which is what they lose."""
    long = [f"{'a' * 40}{middle}{'b' * 40}" for middle in "xyz"]
    shown = style.names(long)
    assert len(set(shown)) == 3
    assert all(len(name) <= 52 for name in shown)


class _Texts(html.parser.HTMLParser):
    """The tags of a page, and what stands between them but in scripts and styles."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self._inside = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *(key for key, _ in attributes)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.texts.append(data)


def page_of(path, name):
    """The page of three runs: one has the name, and its group, a task, a metric and a setting."""
    for index, one in enumerate((name, "plain", "other")):
        rows = [
            made_runs.row(e, s, level=1 - 0.1 * index, **({name: 0.5} if name else {}))
            for e in (0, 1)
            for s in ("train", "test")
        ]
        made_runs.write_run(
            path / f"run_{index}",
            name=f"{name}/run_{index}",
            epochs=1,
            rows=rows,
            config={"data": {"source": one}},
            tasks={name: 0.9 - 0.02 * index, "cars": 0.5 + 0.01 * index},
        )
    found = read_runs([path])
    found = [found[0]._replace(name=name), *found[1:]]
    return render.render(found, title=name, refresh=0)


@pytest.fixture(scope="module")
def plain_tags(tmp_path_factory):
    parsed = _Texts()
    parsed.feed(page_of(tmp_path_factory.mktemp("page"), "name"))
    return parsed.tags


@PARAMETERS
def test_a_page_shows_the_name_and_reads_nothing(name, tmp_path, plain_tags):
    """The tags are those of the page of a plain name; the data are JSON with the name in it."""
    parsed = _Texts()
    text = page_of(tmp_path / "nasty", name)
    text.encode()  # Can be written.
    parsed.feed(text)
    if name:  # Else there is one metric less.
        assert parsed.tags == plain_tags
    shown = escape.line(name)
    assert parsed.texts.count(shown) >= 3
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["runs"] == [shown, "run_1", "run_2"]
    assert not re.search("[\u0000-\u0009\u000b-\u001f\u202a-\u202e]", text.replace("\t", ""))


CELL = re.compile(r"const csvCell = .*?\n  };", re.DOTALL)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_a_csv_has_every_name_and_no_formula():
    """The function of the page, by node; Python reads what it writes."""
    source = (Path(render.__file__).parent / "page.js").read_text()
    names = [escape.line(name) for name in NAMES.values()]
    rows = [[name, 0.5, None, -1] for name in names]
    script = (
        f"{CELL.search(source)[0]}\nconst rows = {json.dumps(rows)};\n"
        'process.stdout.write(rows.map((r) => r.map(csvCell).join(",")).join("\\n") + "\\n");'
    )
    done = subprocess.run(["node", "-e", script], capture_output=True, check=True)
    read = list(csv.reader(io.StringIO(done.stdout.decode())))
    for name, row in zip(names, read, strict=True):
        guarded = name[:1] in tuple("=+-@")
        assert row == [f"'{name}" if guarded else name, "0.5", "", "-1"]


@PARAMETERS
def test_a_terminal_shows_the_name(name, tmp_path):
    """The table of scores: rich would read [bold], and stop at [/nothing]."""
    rows = {name: {"score": 0.5, "test_size": 10}}
    results = [summary.ModelScores(tmp_path / "[bold]run", rows, {})]
    console = Console(file=io.StringIO(), width=1000, force_terminal=True, color_system=None)
    display.print_table(console, results, summary.summarise(results, [name]), [name])
    assert escape.line(name) in console.file.getvalue()
    assert console.file.getvalue().count("[bold]run") == 2, "in the head, and before the note"
    with display.Display(console) as shown:
        shown.begin(name)
        shown.say(name)
    assert not re.search(r"\x1b\[31m|\u202e", console.file.getvalue())


def test_every_name_is_a_file_of_its_own(tmp_path):
    """Whatever it has of slashes and dots, within the directory that was asked for."""
    stems = [escape.stem(name) for name in (*NAMES.values(), "a/b", "a_b", "..", ".", "a:b")]
    assert len(set(stems)) == len(stems)
    for stem in stems:
        path = tmp_path / f"penalties_{stem}.png"
        path.write_text("")
        assert path.resolve().parent == tmp_path.resolve()
    assert escape.stem("tau_0.05") == "tau_0.05"


def test_the_commands_take_nasty_directories(tmp_path, capsys, monkeypatch):
    """Directories that a file system takes: figures, correlations and the page, end to end."""
    nasty = [n for n in NAMES.values() if n.strip() and "/" not in n and len(n) < 200][:8]
    for index, name in enumerate(nasty):
        tasks = {"pets|1": 0.9 - 0.02 * index, "_cars": 0.6 + 0.01 * (index % 3)}
        made_runs.write_run(
            tmp_path / "runs" / name, name=f"$g$/{name}", level=1 - 0.1 * index, tasks=tasks
        )
    arguments = [str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert correlate_command.main([*arguments, "--resamples", "99", "--tables"]) == 0
    said = capsys.readouterr().out
    (transfer, *_) = markdown_tables(said)
    assert sorted(row[1] for row in transfer[1:]) == sorted(map(escape.line, nasty))
    assert transfer[0][2:4] == ["pets|1", "_cars"]
    monkeypatch.setattr(figures, "save_both", lambda figure, stem: [stem])
    found = read_runs([tmp_path / "runs"])
    drawn = command.draw(found, tmp_path / "out", None)
    assert len({path.name for path in drawn}) == 6 + len(found)


def test_escaped_and_marked_up_cells():
    """A cell that is Markdown already stays so, and no other one."""
    table = tables.Table("t", ["a"], [[tables.Raw("**b**")], ["**b**"]])
    assert tables.markdown(table).splitlines()[-2:] == ["| **b**     |", r"| \*\*b\*\* |"]
