"""What is printed: plain lines where there is no terminal, and the table at the end."""

import io
from pathlib import Path

from rich.console import Console

from train import display

METRICS = ["vci", *(name for name, _ in display._TABLE_METRICS)]


def _row(split, value, **more):
    return {"split": split, "epoch": 2, "images_per_second": 1234.5, "warnings": []} | {
        **dict.fromkeys(METRICS, value),
        **more,
    }


def test_a_record_is_one_line_that_fits():
    """A header once, then a line for both splits within 80 columns, warnings below it."""
    out = io.StringIO()
    console = Console(file=out, width=80)
    with display.TrainDisplay(steps=300, steps_per_epoch=100, console=console) as shown:
        for _ in range(2):
            shown.step(150, {"loss": 1.0, "accuracy": 0.5})
            shown.record(_row("train", 0.25), _row("test", float("nan"), warnings=["few [rows]"]))
    header, columns, *lines = out.getvalue().splitlines()
    assert [word for word in header.split() if word.isalpha()] == ["train", "test"]
    assert columns.split()[:4] == ["epoch", "loss", "accuracy", "VCI"]
    assert lines[0].split() == ["2/3", *["0.2500"] * 3, *["nan"] * 3, "1,234"]
    assert lines[:2] == lines[2:]
    assert lines[1].strip() == "test: few [rows]"


def test_without_a_terminal_there_is_a_line_a_minute(monkeypatch):
    """With the step, what the bar would show, and the time that is left."""
    out, clock = io.StringIO(), [0.0]
    scalars = {"loss": 1.0, "accuracy": 0.5, "images_per_second": 640.0, "data_wait": 0.125}
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    console = Console(file=out, width=120)
    with display.TrainDisplay(steps=300, steps_per_epoch=100, console=console) as shown:
        for step in range(1, 151):
            clock[0] += 1.0
            shown.step(step, scalars)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    words = " ".join(lines[1].split())
    progress = "step 120 of 300 loss 1.000 accuracy 0.500"
    assert words == progress + " 640 images/s 12% waiting for data 3 min left"


def test_a_metrics_pass_shows_how_far_it_is(monkeypatch):
    """The first one from its beginning on, later ones once a minute."""
    out, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    console = Console(file=out, width=120)
    with display.TrainDisplay(steps=300, steps_per_epoch=100, console=console) as shown:
        for split, batches in (("train", 100), ("test", 10)):
            for done in range(batches):
                shown.measure(split, done, batches)
                clock[0] += 1.0
        shown.record(_row("train", 0.25), _row("test", 0.25))
        shown.step(1, {"loss": 1.0, "accuracy": 0.5})
        before = out.getvalue()
        for done in range(60):
            shown.measure("train", done, 2000)
            clock[0] += 1.0
    lines = before.splitlines()[:3]
    assert [" ".join(line.split()) for line in lines] == [
        "measuring train: 0 of 100 batches",
        "measuring train: 60 of 100 batches",
        "measuring test: 0 of 10 batches",
    ]
    assert out.getvalue()[len(before) :] == "  measuring train: 50 of 2,000 batches\n"


def test_the_summary_has_first_and_last_values():
    """Values that are not defined say so, and the command that draws is on one line."""
    out = io.StringIO()
    rows = [_row("train", 0.5), _row("test", None), _row("train", 0.125), _row("test", 3.0)]
    workdir = Path("/" + "long [path]/" * 15 + "run")
    display.print_summary(Console(file=out, width=80), rows, workdir)
    assert "0.1250 (0.5000)" in out.getvalue()
    assert "3.0000 (undefined)" in out.getvalue()
    assert "Not adjusted (vci) it is 0.1250 on train and 3.0000 on" in out.getvalue()
    command = f"python -m probes figures '{workdir}' --out DIR"
    assert f"Figures: {command}" in out.getvalue().splitlines()
