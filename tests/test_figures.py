"""Figures: the right numbers in the right place, from files in any state."""

import pytest

from probes import figures

METRICS = ("vci", "fuzziness", "squared_distance", "cosine_similarity")


def _rows(epochs=4):
    return [
        {
            "epoch": e,
            "split": s,
            **{m: (i + 1 + (s == "test")) / (e + 1) for i, m in enumerate(METRICS)},
        }
        for e in range(epochs)
        for s in ("train", "test")
    ]


def test_curves_hold_the_rows():
    """Four panels; each has the train and the test curve of its metric."""
    figure = figures.collapse_curves(_rows())
    assert len(figure.axes) == 4
    for axes, metric in zip(figure.axes, METRICS, strict=True):
        for line, split in zip(axes.lines, ("train", "test"), strict=True):
            expected = [r[metric] for r in _rows() if r["split"] == split]
            assert line.get_label() == split
            assert line.get_xdata().tolist() == [0, 1, 2, 3]
            assert line.get_ydata().tolist() == expected


def test_direction_of_collapse_is_written():
    """Cosine similarity rises with collapse; the other three fall."""
    arrows = [axes.get_title(loc="right")[0] for axes in figures.collapse_curves(_rows()).axes]
    assert arrows == ["↓", "↓", "↓", "↑"]


def test_labels_do_not_overlap():
    """Equal end values still give two labels a line apart."""
    rows = [row | {"vci": 0.5} for row in _rows()]
    axes = figures.collapse_curves(rows).axes[0]
    low, high = sorted(text.xy[1] for text in axes.texts)
    assert high - low >= 0.07


def test_undefined_and_single_values_are_drawn_around(tmp_path):
    """A metric that is null everywhere leaves its panel empty; one record is a point."""
    rows = [row | {"fuzziness": None} for row in _rows(epochs=1)]
    figure = figures.collapse_curves(rows)
    assert len(figure.axes[1].lines) == 0
    assert figures.save(figure, tmp_path / "new" / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_no_rows_is_an_error():
    """An empty file says what to do."""
    with pytest.raises(ValueError, match="no rows"):
        figures.collapse_curves([])
