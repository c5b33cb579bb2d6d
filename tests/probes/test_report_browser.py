"""The report page in headless Chromium: drawn in full, usable by mouse, keyboard and phone.

Screenshots go to the folder that ``VCI_SCREENSHOTS`` names, else to pytest's own.
"""

import contextlib
import csv
import json
import os
import pathlib
import shutil

import made_runs
import pytest

from probes.analysis.runs import read_runs
from probes.page import command
from probes.page.metrics import MAIN

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: the extra [dev]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt-get install chromium", allow_module_level=True)

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_MAIN = [metric.name for metric in MAIN]
_SCATTERS = [f"scatter-{m}" for m in ("vci", "fuzziness", "squared_distance", "cosine_similarity")]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of one run and of a group of five."""
    root = tmp_path_factory.mktemp("pages")
    made_runs.write_run(root / "run")
    made_runs.write_group(root / "group")
    return {name: _write(root / name) for name in ("run", "group")}


@pytest.fixture
def open_page(browser):
    """Opens a page from disk; fails the test for any message, error or request."""
    complaints, contexts = [], []

    def open_it(path, width=1280, scheme="light", clock=False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # Of a machine that has other things to do.
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: r.url.startswith("file:") or complaints.append(r.url))
        if clock:
            page.clock.install()
        page.goto(f"file://{path}")
        _until(page, "window.vciCharts && vciCharts.has('spectrum')")
        return page

    yield open_it
    for context in contexts:
        context.close()
    ours = [c for c in complaints if not c.startswith(("data:", "blob:"))]
    assert ours == []


def _write(directory, refresh=0):
    runs = read_runs([directory])
    command.write(runs, directory / "report.html", refresh=refresh)
    return directory / "report.html"


def _until(page, expression):
    """Waits until a page says so; Playwright's own polling evaluates text, which pages forbid."""
    for _ in range(600):
        with contextlib.suppress(sync_api.Error):  # It may be between two pages.
            if page.evaluate(expression):
                return
        page.wait_for_timeout(100)
    raise AssertionError(f"not within a minute: {expression}")


def _points(page):
    """How many values that are not null each chart's plot holds, series by series."""
    return page.evaluate(
        """() => Object.fromEntries([...vciCharts].map(([id, { plot }]) =>
             [id, plot.data.slice(1).map((ys) => ys.filter((y) => y != null).length)]))"""
    )


def _ink(page, chart):
    """How many pixels of a chart's canvas are coloured rather than grey or clear."""
    return page.evaluate(
        """(id) => {
             const canvas = vciCharts.get(id).plot.ctx.canvas, { width, height } = canvas;
             const copy = new OffscreenCanvas(width, height);
             const context = copy.getContext("2d", { willReadFrequently: true });
             context.drawImage(canvas, 0, 0);
             const { data } = context.getImageData(0, 0, width, height);
             let count = 0;
             for (let i = 0; i < data.length; i += 4) {
               const rgb = [data[i], data[i + 1], data[i + 2]];
               if (data[i + 3] > 200 && Math.max(...rgb) - Math.min(...rgb) > 60) count++;
             }
             return count;
           }""",
        chart,
    )


def _plot(page, chart):
    return page.locator(f"#chart-{chart} .plot")


def test_every_chart_has_its_points(open_page, pages):
    """One run: two splits of five epochs, and twice two ends of intervals; ink on every canvas."""
    page = open_page(pages["run"])
    points = _points(page)
    assert list(points) == [*_MAIN, "picture", "spectrum"]
    assert points["vci_adjusted"] == [5] * 6
    assert all(points[name] == [5, 5] for name in _MAIN[1:])
    assert points["spectrum"] == [16, 9]
    assert points["picture"] == [3] * 10
    assert all(_ink(page, chart) > 100 for chart in points)
    page.get_by_text("2 further metrics").click()
    _until(page, "vciCharts.has('cdnv')")
    assert _points(page)["cdnv"] == [5, 5]


def test_a_group_has_every_run_and_a_scatter(open_page, pages):
    """Five runs in each chart, and one point a run in each scatter."""
    page = open_page(pages["group"])
    points = _points(page)
    assert list(points) == [*_MAIN, "picture", "spectrum", *_SCATTERS]
    assert points["accuracy"] == [5] * 10
    assert all(points[chart] == [5] and _ink(page, chart) > 100 for chart in _SCATTERS)


def test_groups_are_told_apart_in_a_scatter(open_page, tmp_path):
    """A colour, a shape and a switch each; no point lies on the edge, zoomed out again or not."""
    for group in ("a", "b"):
        made_runs.write_group(tmp_path / group)
        for run in (tmp_path / group).iterdir():
            config = json.loads((run / "config.json").read_text())
            config["name"] = f"{group}/{run.name}"
            (run / "config.json").write_text(json.dumps(config))
    page = open_page(_write(tmp_path))
    assert _points(page)["scatter-vci"] == [5, 5]
    assert page.evaluate("vciCharts.get('scatter-vci').spec.colours") == ["c0", "c1"]
    room = """(() => {
      const { plot } = vciCharts.get('scatter-vci'), x = plot.data[0], wide = x.at(-1) - x[0];
      return [(x[0] - plot.scales.x.min) / wide, (plot.scales.x.max - x.at(-1)) / wide];
    })()"""
    assert page.evaluate(room) == pytest.approx([0.05, 0.05])
    host = _plot(page, "scatter-vci")
    host.focus()
    for key in ("+", "0"):
        page.keyboard.press(key)
        page.wait_for_timeout(50)
    assert page.evaluate(room) == pytest.approx([0.05, 0.05])
    before = _ink(page, "scatter-vci")
    page.locator("#groups button").nth(1).click()
    page.wait_for_timeout(50)
    assert page.evaluate("vciCharts.get('scatter-vci').plot.series[2].show") is False
    assert 100 < _ink(page, "scatter-vci") < before


def test_hovering_shows_the_values_and_names(open_page, pages):
    """The first epoch's values with their interval; on a scatter, the name of the run."""
    page = open_page(pages["run"])
    over = page.locator("#chart-vci_adjusted .u-over")
    over.scroll_into_view_if_needed()
    over.hover(position={"x": 2, "y": 50})
    tip = page.locator("#tip")
    assert tip.inner_text().split("\n") == [
        "Epoch 0", "train", "0.510 (0.450 to 0.575)", "test", "0.612 (0.540 to 0.690)",
    ]  # fmt: skip
    page = open_page(pages["group"])
    over = page.locator("#chart-scatter-vci .u-over")
    over.scroll_into_view_if_needed()
    over.hover(position={"x": 2, "y": 50})
    assert "tau_4" in page.locator("#tip").inner_text()


def test_the_keyboard_reads_zooms_and_leaves(open_page, pages):
    """Arrows go from point to point, + and 0 change what is seen, blur takes the values away."""
    page = open_page(pages["run"])
    _plot(page, "accuracy").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert page.locator("#tip").inner_text().startswith("Epoch 2")
    scale = "(({ min, max }) => [min, max])(vciCharts.get('accuracy').plot.scales.x)"
    page.keyboard.press("+")
    _until(page, f"JSON.stringify({scale}) === '[1,3]'")
    page.keyboard.press("0")
    _until(page, f"JSON.stringify({scale}) === '[0,4]'")
    page.keyboard.press("Tab")
    assert page.locator("#tip").is_hidden()


def test_dragging_zooms(open_page, pages):
    """From the middle to the right end: the later half of the epochs."""
    page = open_page(pages["run"])
    over = page.locator("#chart-accuracy .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 40, steps=3)
    page.mouse.up()
    _until(page, "Math.abs(vciCharts.get('accuracy').plot.scales.x.min - 2) < 0.1")


def test_toggles_hide_in_every_chart(open_page, pages):
    """By keyboard: the test split leaves all charts, and its ink; the state is announced."""
    page = open_page(pages["run"])
    shown = "[...vciCharts.values()].filter(c => c.spec.whole).map(c => c.plot.series[%d].show)"
    before = _ink(page, "accuracy")
    button = page.get_by_role("button", name="test", exact=True)
    assert button.get_attribute("aria-pressed") == "true"
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate("vciCharts.get('accuracy').plot.series.map(s => s.show)") == [
        True,
        True,
        False,
    ]
    assert page.evaluate(shown % 1) == [True] * len(_MAIN)
    page.wait_for_timeout(100)
    assert _ink(page, "accuracy") < before
    page.get_by_role("button", name="95 % intervals").click()
    series = page.evaluate("vciCharts.get('vci_adjusted').plot.series.map(s => s.show)")
    assert series == [True, True, False, False, False, False, False]


def test_the_axis_can_be_logarithmic(open_page, pages):
    """And back, with the data as it was."""
    page = open_page(pages["run"])
    before = _points(page)["accuracy"]
    for name, kind in (("Log axis", 3), ("Linear axis", 1)):
        page.locator("#chart-accuracy").get_by_role("button", name=name).click()
        assert page.evaluate("vciCharts.get('accuracy').plot.scales.y.distr") == kind
        assert _points(page)["accuracy"] == before
    assert page.locator("#chart-accuracy canvas").count() == 1


def test_the_epoch_of_a_spectrum_is_chosen(open_page, pages):
    """The largest eigenvalue at epoch 0 is 1.5 on train, and 1.1 at epoch 4."""
    page = open_page(pages["run"])
    largest = "vciCharts.get('spectrum').plot.data[1][0]"
    assert page.evaluate(largest) == pytest.approx(1.1)
    page.locator("#spectrum-epoch").focus()
    page.keyboard.press("Home")
    assert page.evaluate(largest) == pytest.approx(1.5)
    page.locator("#spectrum-of").select_option(label="test")
    assert page.evaluate(largest) == pytest.approx(1.12)


def test_the_epoch_of_a_picture_is_chosen(open_page, pages):
    """All images are on one line before training, and at four fifths of their way at the end."""
    page = open_page(pages["run"])
    width = "Math.max(...vciCharts.get('picture').plot.data.slice(1).flat())"
    assert page.evaluate(width) == pytest.approx(0.761)
    page.locator("#picture-epoch").focus()
    page.keyboard.press("Home")
    assert page.evaluate(width) == 0
    assert page.locator("#pictures output").inner_text() == "0"


def test_labels_are_large_enough_on_a_phone(open_page, pages):
    """Eleven pixels and more in charts, and in the text around them."""
    page = open_page(pages["run"], 390)
    fonts = page.evaluate(
        """() => [
             ...[...vciCharts.values()].flatMap(({ plot }) => plot.axes.map((a) => a.font)),
             ...[...document.querySelectorAll("main *")].map((n) => getComputedStyle(n).fontSize),
           ].flat().map(parseFloat).filter((size) => size)"""
    )
    assert min(fonts) >= 11


def test_classes_are_sorted_by_a_heading(open_page, pages):
    """The loosest first; by variance, downwards, then upwards."""
    page = open_page(pages["run"])
    first = page.locator("#class-table tbody td").first
    assert first.inner_text() == "class 3"
    heading = page.locator("#class-table thead th").nth(4)
    for expected, order in (("class 9", "descending"), ("class 0", "ascending")):
        heading.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert first.inner_text() == expected
        assert heading.inner_text().startswith("Variance")
        assert heading.get_attribute("aria-sort") == order


def test_the_data_can_be_read_as_a_table_and_downloaded(open_page, pages):
    """The same numbers as in the rows."""
    page = open_page(pages["run"])
    figure = page.locator("#chart-accuracy")
    figure.get_by_text("Values as a table").click()
    # The table is made at the "toggle" event, which comes some time after the click.
    sync_api.expect(figure.locator("tbody tr")).to_have_count(10)
    assert figure.locator("tbody tr").first.inner_text().split() == ["run", "train", "0", "0.750"]
    with page.expect_download() as download:
        figure.get_by_role("button", name="CSV").click()
    lines = pathlib.Path(download.value.path()).read_text().splitlines()
    assert lines[:2] == ["run,split,epoch,accuracy", "run,train,0,0.75"]
    assert len(lines) == 11


@pytest.mark.parametrize("width", [1280, 390])
def test_names_are_shown_as_they_are(open_page, tmp_path, width):
    """In legends, beside the pointer, in tables and in the CSV; however long, on a phone, too."""
    names = ["=1+1", "_b|$c$ <i>&amp;", 'a "q", b', "שלום\u202egnp", "w" * 120]
    for run, name in zip(made_runs.write_group(tmp_path / "group"), names, strict=True):
        run.rename(run.with_name(name))
    page = open_page(_write(tmp_path / "group"), width)
    shown = [run.name.replace("\u202e", "\\u202e") for run in read_runs([tmp_path / "group"])]
    assert page.locator("#legend button").all_inner_texts()[-5:] == shown
    assert page.locator("table.runs tbody th").all_inner_texts() == shown
    assert page.locator("i:not(#tip i)").count() == 0
    over = page.locator("#chart-accuracy .u-over")
    over.scroll_into_view_if_needed()
    over.hover(position={"x": 2, "y": 50})
    said = page.locator("#tip").inner_text()
    assert all(f"{name}, train" in said for name in shown)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    with page.expect_download() as download:
        page.locator("#chart-accuracy").get_by_role("button", name="CSV").click()
    with open(download.value.path(), newline="") as file:
        rows = list(csv.reader(file))
    assert {row[0] for row in rows[1:]} == {f"'{n}" if n[0] == "=" else n for n in shown}


def test_light_and_dark(open_page, pages):
    """As the system has it, or as the button says; the charts follow."""
    paper = "getComputedStyle(document.body).backgroundColor"
    stroke = "vciCharts.get('accuracy').plot.series[1].stroke()"
    page = open_page(pages["run"], scheme="dark")
    assert page.evaluate(paper) == "rgb(20, 23, 26)"
    assert page.evaluate(stroke) == "#56b4e9"
    page.get_by_role("button", name="Theme").click()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert page.evaluate(stroke) == "#0072b2"


def test_it_prints(open_page, pages):
    """In print there are no controls, and every table is whole."""
    page = open_page(pages["run"])
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator(".under").first.is_hidden()
    assert page.evaluate("getComputedStyle(document.querySelector('.tall')).maxHeight") == "none"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_renewed_page_stays_as_it_was(open_page, tmp_path):
    """While training goes on: new rows appear by themselves, what was hidden stays hidden."""
    rows = [made_runs.row(e, s) for e in range(3) for s in ("train", "test")]
    run = made_runs.write_run(tmp_path / "run", epochs=9, rows=rows[:4])
    page = open_page(_write(run, refresh=600), clock=True)
    page.get_by_role("button", name="test", exact=True).click()
    page.evaluate("scrollTo({ top: 700, behavior: 'instant' })")
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows[4:])
    _write(run)
    with contextlib.suppress(sync_api.Error):  # The page that was asked is gone.
        page.clock.fast_forward(601_000)
    _until(page, "window.vciCharts?.get('accuracy')?.plot.data[0].length === 3")
    button = page.get_by_role("button", name="test", exact=True)
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate("vciCharts.get('accuracy').plot.series[2].show") is False
    _until(page, "Math.abs(scrollY - 700) < 5")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(open_page, pages, tmp_path, width, scheme):
    """At the width of a desk and of a phone; tables scroll in their box. Keeps the screenshots."""
    folder = pathlib.Path(os.environ.get("VCI_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in pages.items():
        page = open_page(path, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=folder / f"{name}_{width}_{scheme}.png", full_page=True)
