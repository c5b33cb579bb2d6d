"""Figures: the right numbers in the right place, legible, from runs in any state."""

import itertools
import json

import numpy as np
import pytest
from made_runs import METRICS, epoch_rows, loaded_run

from probes import __main__ as program
from probes import figures
from probes.analysis import correlation, published
from probes.analysis.resampling import ResamplingPlan
from probes.figures import command, style


def test_curves_hold_the_rows():
    """Four panels; each has the train and the test curve of its metric."""
    figure = figures.collapse_curves(epoch_rows())
    assert len(figure.axes) == 4
    for axes, metric in zip(figure.axes, METRICS, strict=True):
        for line, split in zip(axes.lines, ("train", "test"), strict=True):
            expected = [r[metric] for r in epoch_rows() if r["split"] == split]
            assert line.get_label() == split
            assert line.get_xdata().tolist() == [0, 1, 2, 3]
            assert line.get_ydata().tolist() == expected


def test_direction_of_collapse_is_written():
    """Cosine similarity rises with collapse; the other three fall."""
    arrows = [axes.get_title(loc="right")[0] for axes in figures.collapse_curves(epoch_rows()).axes]
    assert arrows == ["↓", "↓", "↓", "↑"]


def test_labels_do_not_overlap():
    """Equal end values still give two labels a line apart."""
    rows = [row | {"vci": 0.5} for row in epoch_rows()]
    axes = figures.collapse_curves(rows).axes[0]
    low, high = sorted(text.xy[1] for text in axes.texts)
    assert high - low >= 0.07


def test_undefined_and_single_values_are_drawn_around(tmp_path):
    """A metric that is null everywhere leaves its panel empty; one record is a point."""
    rows = [row | {"fuzziness": None} for row in epoch_rows(epochs=1)]
    figure = figures.collapse_curves(rows)
    assert len(figure.axes[1].lines) == 0
    assert figures.save(figure, tmp_path / "new" / "figure.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("draw", [figures.collapse_curves, None], ids=["one run", "runs"])
def test_epochs_are_whole_numbers(draw):
    """A run of two epochs has no tick at half of one."""
    rows = epoch_rows(epochs=3)
    runs = [loaded_run("short", rows)]
    figure = draw(rows) if draw else figures.metric_curves(runs, "train")
    for axes in figure.axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_no_rows_is_an_error():
    """An empty file says what to do."""
    with pytest.raises(ValueError, match="no rows"):
        figures.collapse_curves([])


RUNS = [loaded_run(f"cross_entropy_{i}") for i in range(8)]


def trained(name, model, source="tfds:imagenet2012", rows=None):
    """A run whose config says what was trained on what."""
    return loaded_run(name, rows)._replace(
        config={"model": {"name": model}, "data": {"source": source}}
    )


VITS = [trained("tiny_a", "deit_ti"), trained("small", "deit_s"), trained("tiny_b", "deit_ti")]


@pytest.fixture(scope="module")
def published_figure():
    study = published.study()
    found = correlation.correlate(study, ResamplingPlan(resamples=99))
    return study, found, figures.transfer_scatter(study, found)


def texts(figure):
    """The visible texts of a drawn figure: what they say, their size in points and their box."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    groups = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in figure.axes:
        groups += [axes.title, axes._left_title, axes._right_title, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            groups += [axis.label, *(t.label1 for t in ticks if t.label1.get_visible())]
    return [
        (t.get_text(), t.get_fontsize(), t.get_window_extent(renderer))
        for t in groups
        if t.get_text() and t.get_visible()
    ]


def assert_legible(figure):
    """Nothing is smaller than the style allows, beyond the edge, or over another text."""
    found = texts(figure)
    for text, size, box in found:
        assert size >= style.SMALL, text
        assert figure.bbox.x0 - 1 <= box.x0 < box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0 < box.y1 <= figure.bbox.y1 + 1, text
    for (a, _, one), (b, _, other) in itertools.combinations(found, 2):
        over = min(one.x1, other.x1) - max(one.x0, other.x0)
        under = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert over <= 0 or under <= 1, f"{a!r} over {b!r}"


FIGURES = {
    "one within_parts": (lambda: figures.within_parts(RUNS[:1], "train"), style.COLUMN),
    "two within_parts": (lambda: figures.within_parts(RUNS[:2], "test"), style.PAGE),
    "one spectrum": (lambda: figures.spectra(RUNS[:1], "train"), style.COLUMN),
    "three spectra": (lambda: figures.spectra(RUNS[:3], "train"), style.PAGE),
    "metric_curves": (lambda: figures.metric_curves(RUNS, "train"), style.PAGE),
    "figure 5": (lambda: figures.metric_curves(VITS, "train"), style.PAGE),
    "figure 6": (lambda: figures.train_and_test(RUNS, ("vci",)), style.PAGE),
    "figure 8": (lambda: figures.train_and_test(RUNS[:1], METRICS[1:]), style.PAGE),
    "validation_curve": (
        lambda: figures.validation_curve([0.001, 1, 1000], [0.5, 0.62, 0.6], 1),
        style.COLUMN,
    ),
    "validation_curves": (
        lambda: figures.validation_curves(
            [
                {"task": f"task {i}", "value": 1, "validation_curve": [0.5, 0.62, None]}
                for i in range(4)
            ],
            [0.001, 1, 1000],
        ),
        style.PAGE,
    ),
    "nothing to draw": (
        lambda: figures.metric_curves([loaded_run("bare", vci=None, fuzziness=None)], "train"),
        style.PAGE,
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_legible_at_the_size_of_print(name):
    build, width = FIGURES[name]
    figure = build()
    assert figure.get_figwidth() == width
    assert figure.get_figheight() <= 9
    assert_legible(figure)


def test_the_published_figure_is_legible_and_right(published_figure):
    """Two groups by four metrics; in each panel the runs of its group, and the coefficient."""
    study, found, figure = published_figure
    assert figure.get_figwidth() == style.PAGE
    assert_legible(figure)
    panels = np.array(figure.axes).reshape(2, 4)
    rows = {"temperature": slice(0, 6), "regulariser": slice(6, 11)}
    for line, (group, members) in zip(panels, rows.items(), strict=True):
        assert line[0].get_ylabel() == f"{group}\nMLOG"
        for axes, (metric, values) in zip(line, study.metrics.items(), strict=True):
            (points,) = axes.lines
            np.testing.assert_array_equal(points.get_xdata(), values[members])
            np.testing.assert_array_equal(points.get_ydata(), study.mlog[members])
            (one,) = [c for c in found if (c.group, c.metric) == (group, metric)]
            assert axes.texts[0].get_text().startswith(f"r = {one.pearson.value:+.3f} [")
    assert panels[1, 0].texts[0].get_text() == "r = -0.415 [-0.94, +0.65]"


def test_a_metric_no_run_has_leaves_its_column_empty():
    study = published.study()
    study.metrics["vci"][:] = np.nan
    found = correlation.correlate(study, ResamplingPlan(resamples=99))
    figure = figures.transfer_scatter(study, found)
    assert [t.get_text() for t in figure.axes[3].texts] == ["no run has it", "0 points: no r"]
    assert_legible(figure)


def test_curves_hold_the_runs():
    """A line a run in each panel, named once; lines differ in more than colour."""
    figure = figures.train_and_test(RUNS, METRICS)
    for axes, (metric, split) in zip(
        figure.axes, itertools.product(METRICS, ("train", "test")), strict=True
    ):
        assert [line.get_label() for line in axes.lines] == [one.name for one in RUNS]
        expected = [row[metric] for row in epoch_rows(30) if row["split"] == split]
        np.testing.assert_array_equal(axes.lines[3].get_ydata(), expected)
    looks = {(line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == len(RUNS)
    assert len(figure.legends[0].get_texts()) == len(RUNS)


def test_parts_and_spectra_hold_the_rows():
    """The epoch nearest to the one asked for; an eigenvalue of zero has no logarithm."""
    parts = figures.within_parts(RUNS[:1], "train").axes[0]
    assert parts.lines[0].get_ydata()[-1] == 9 / 30
    assert parts.lines[1].get_ydata()[-1] == 30
    total, between = figures.spectra(RUNS[:1], "train", 11.4).axes[0].lines
    assert figures.spectra(RUNS[:1], "train", 11.4).axes[0].get_title("left")[-8:] == "epoch 11"
    assert len(total.get_ydata()) == 40
    assert between.get_ydata().tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda r: figures.metric_curves(r, "test").axes[3], "none of the 30 test rows has a vci"),
        (lambda r: figures.metric_curves(r, "validation").axes[0], "no validation rows"),
        (lambda r: figures.within_parts(r, "train").axes[0], "has within_between_part"),
        (lambda r: figures.spectra(r, "train").axes[0], "has spectrum"),
    ],
)
def test_an_empty_panel_says_why(build, reason):
    missing = {"vci": None, "within_between_part": None, "within_orthogonal_part": None}
    axes = build([loaded_run("bare", spectrum=None, **missing)])
    assert reason in axes.texts[0].get_text()


@pytest.mark.parametrize("value", [None, 0.0])
def test_a_spectrum_of_nothing_is_an_empty_panel(value):
    """Of total and between; of one of them, the other is drawn."""
    nothing = [value] * 4
    axes = figures.spectra(
        [loaded_run("a", spectrum={"total": nothing, "between": nothing})], "train"
    ).axes
    assert "no eigenvalue of its spectrum" in axes[0].texts[0].get_text()
    half = {"total": [2.0, 1.0], "between": nothing}
    (line,) = figures.spectra([loaded_run("a", spectrum=half)], "train").axes[0].lines
    assert line.get_ydata().tolist() == [2.0, 1.0]


def test_the_choice_of_a_penalty_is_marked():
    values = np.geomspace(1e-6, 1e6, 97)
    curve = np.exp(-(np.log10(values) ** 2) / 40)
    axes = figures.validation_curve(values, curve, values[48]).axes[0]
    assert axes.lines[2].get_xdata() == [values[48]]
    assert axes.lines[2].get_ydata() == [100 * curve[48]]
    with pytest.raises(ValueError, match="a choice of 3"):
        figures.validation_curve(values, curve, 3)


@pytest.mark.parametrize(
    "build",
    [
        lambda: figures.metric_curves([], "train"),
        lambda: figures.within_parts([], "train"),
        lambda: figures.spectra([], "train"),
        lambda: figures.train_and_test([], ("vci",)),
        lambda: figures.train_and_test(RUNS, ()),
        lambda: figures.validation_curves([], [1]),
    ],
)
def test_nothing_to_draw_is_an_error(build):
    with pytest.raises(ValueError, match="there are no"):
        build()


def test_the_same_figure_is_the_same_file(tmp_path):
    """PNG at 300 dots an inch of print, SVG without a date."""
    for name in "ab":
        figures.save_both(figures.spectra(RUNS[:1], "train"), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    png = (tmp_path / "a.png").read_bytes()
    assert png == (tmp_path / "b.png").read_bytes()
    assert int.from_bytes(png[16:20], "big") == 300 * style.COLUMN


def test_each_architecture_has_a_column():
    """With its own runs alone, which look the same in every panel."""
    figure = figures.metric_curves(VITS, "train")
    assert len(figure.axes) == 2 * len(METRICS)
    names = [[line.get_label() for line in axes.lines] for axes in figure.axes]
    assert names == [["tiny_a", "tiny_b"], ["small"]] * len(METRICS)
    assert "deit_s" in figure.axes[1].get_title(loc="left")
    colours = {line.get_label(): line.get_color() for ax in figure.axes for line in ax.lines}
    assert len(set(colours.values())) == 3


def test_the_command_names_figures_3_to_5_by_what_they_show(tmp_path, monkeypatch):
    """ViTs are figure 5, other networks on ImageNet figure 4, all others figure 3."""
    runs = [*VITS, trained("mse", "resnet50"), trained("small_images", "resnet18", "tfds:cifar10")]
    found = command._figures_of_curves(runs)
    assert {name: [one.name for one in members] for name, members in found.items()} == {
        "figure3": ["small_images"],
        "figure4": ["mse"],
        "figure5": ["tiny_a", "small", "tiny_b"],
    }
    monkeypatch.setattr(figures, "save_both", lambda figure, stem: [stem])
    drawn = {path.name for path in command.draw(runs, tmp_path, None)}
    assert {f"figure{number}_train" for number in (3, 4, 5)} <= drawn


def test_the_command_draws_a_run_that_was_killed(tmp_path, capsys):
    """Figures 1, 2, 3, 6, 8 and one overview; what is cut off is said, damage is an error."""
    path = tmp_path / "run" / "metrics.jsonl"
    path.parent.mkdir()
    lines = [json.dumps(row) + "\n" for row in RUNS[0].rows]
    path.write_text("".join(lines) + '{"epoch"')
    arguments = [str(path.parent), "--out", str(tmp_path / "out")]
    assert command.main(arguments) == 0
    said = capsys.readouterr()
    assert "the last, is cut off and left out" in said.err
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(drawn) == 12
    assert {name[6] for name in drawn if name.startswith("figure")} == set("12368")
    assert (tmp_path / "out" / "collapse.png").stat().st_size > 10_000
    row = {"task": "digits", "score": 0.9, "value": 1.0, "validation_curve": [0.5] * 97}
    (path.parent / "transfer.jsonl").write_text(json.dumps(row) + "\n")
    assert command.main(arguments) == 0
    assert "no figure 7" in capsys.readouterr().err
    assert (tmp_path / "out" / "penalties_run.png").exists()
    path.write_text('{"epoch"\n' + lines[0])
    assert command.main(arguments) == 2
    assert "metrics.jsonl, line 1, is not valid JSON" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["figures", "report", "correlate"])
def test_nothing_is_drawn_into_a_folder_called_gs(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        program.main([command, "run", "--out", "gs://bucket/figures"])
    assert error.value.code == 2
    assert "mount the bucket" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
