"""The progress of a run: a live bar in a terminal, plain lines elsewhere."""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from vci_jax import METRICS

_COLLAPSE = ("vci_adjusted", "fuzziness", "squared_distance", "cosine_similarity",
             "class_separation")  # fmt: skip
_TABLE_METRICS = (
    ("accuracy", "↑ better"),
    ("loss", "↓ better"),
    *(
        (key, f"{'↓' if METRICS[key].direction == 'smaller' else '↑'} more collapsed")
        for key in _COLLAPSE
    ),
)

_HEADER = """\
           ----------- train ----------  ----------- test -----------
    epoch       loss  accuracy  VCI adj      loss  accuracy  VCI adj  images/s"""

_LINE_EVERY_SECONDS = 60.0

_ADJUSTED = (
    "VCI is adjusted for sample size (vci_adjusted), so that splits of different sizes can be "
    "compared. Not adjusted (vci) it is {} on train and {} on test."
)


class TrainDisplay:
    """The progress of one run of so many steps; a context manager that restores the terminal."""

    def __init__(self, *, steps: int, steps_per_epoch: int, console: Console) -> None:
        self._console = console
        self._steps_per_epoch = steps_per_epoch
        self._epochs = steps // steps_per_epoch
        self._vci: float | None = None
        self._started = self._last_line = time.monotonic()
        self._first_step: int | None = None
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task(
            "", total=steps, epoch=f"0/{self._epochs}", status="compiling"
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._progress.stop()

    def say(self, message: str) -> None:
        """Prints a line above the bar."""
        self._console.print(message, highlight=False, markup=False)

    def step(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Moves the bar to a finished step; without a terminal, prints a line a minute."""
        parts = [f"loss {scalars['loss']:.3f}", f"accuracy {scalars['accuracy']:.3f}"]
        if self._vci is not None:
            parts.append(f"VCI adj {self._vci:.3f}")
        if (rate := scalars.get("images_per_second")) is not None:
            parts.append(f"{rate:,.0f} images/s")
        if (wait := scalars.get("data_wait")) is not None:
            parts.append(f"{wait:.0%} waiting for data")
        epoch = f"{-(-step // self._steps_per_epoch)}/{self._epochs}"
        self._progress.update(self._bar, completed=step, epoch=epoch, status="  ".join(parts))
        now = time.monotonic()
        if self._first_step is None:  # The first step compiles.
            self._first_step, self._started = step, now
        if self._is_time_for_line(now):
            done, total = step - self._first_step, int(self._progress.tasks[0].total or 0)
            left = (total - step) * (now - self._started) / max(done, 1) / 60
            self.say(f"  step {step:,} of {total:,}  {'  '.join(parts)}  {left:,.0f} min left")

    def measure(self, split: str, done: int, batches: int) -> None:
        """Shows how many batches of a metrics pass are done; without a terminal, a line a minute.

        The first pass also has a line when it begins, since it compiles.
        """
        now = time.monotonic()
        self._progress.update(self._bar, status=f"measuring {split}, {done:,} of {batches:,}")
        begins = self._vci is None and self._first_step is None and not done
        if self._is_time_for_line(now, begins):
            self.say(f"  measuring {split}: {done:,} of {batches:,} batches")

    def _is_time_for_line(self, now: float, begins: bool = False) -> bool:
        """Whether to print a line where there is no terminal; if so, notes the time."""
        late = begins or now - self._last_line >= _LINE_EVERY_SECONDS
        if self._console.is_terminal or not late:
            return False
        self._last_line = now
        return True

    def record(self, train: dict[str, Any], test: dict[str, Any]) -> None:
        """Prints one line of metrics of both splits, and their warnings."""
        if self._vci is None:
            self.say(_HEADER)
        self._vci = train["vci_adjusted"]
        rate = train["images_per_second"]
        columns = [f"{train['epoch']:>5}/{self._epochs:<4}"]
        columns += [
            f"{row['loss']:>10.4f}{row['accuracy']:>10.4f}{row['vci_adjusted']:>9.4f}"
            for row in (train, test)
        ]
        self.say("".join(columns) + ("" if rate is None else f"{rate:>10,.0f}"))
        for row in (train, test):
            for warning in row["warnings"]:
                self.say(f"  {row['split']}: {warning}")


def print_facts(console: Console, facts: list[tuple[str, str]]) -> None:
    """Prints what a run is about to do."""
    width = max(len(title) for title, _ in facts)
    for title, value in facts:
        console.print(f"{title:>{width}}  {value}", highlight=False, markup=False)


def print_summary(console: Console, rows: list[dict[str, Any]], workdir: Path) -> None:
    """Prints the metrics of the first and the last record, and the command that draws them."""
    first = rows[0]["epoch"]
    when = f"after epoch {first}" if first else "before the first step"
    table = Table(title=f"Metrics at the end of the run (in brackets: {when})")
    table.add_column("metric")
    for split in ("train", "test"):
        table.add_column(split, justify="right")
    table.add_column("direction", style="dim")
    for metric, direction in _TABLE_METRICS:
        values = [_first_and_last(rows, split, metric) for split in ("train", "test")]
        table.add_row(metric, *(f"{last} ({first})" for first, last in values), direction)
    console.print(table)
    unadjusted = [_first_and_last(rows, split, "vci")[1] for split in ("train", "test")]
    console.print(_ADJUSTED.format(*unadjusted), highlight=False, markup=False)
    draw = f"python -m probes figures {shlex.quote(str(workdir))} --out DIR"
    console.print(f"Figures: {draw}", highlight=False, markup=False, soft_wrap=True)


def _first_and_last(rows: list[dict[str, Any]], split: str, metric: str) -> tuple[str, str]:
    """Returns the first and the last value of a metric, for a column of equal digits."""
    values = [row[metric] for row in rows if row["split"] == split]
    return _number(values[0]), _number(values[-1])


def _number(value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"
