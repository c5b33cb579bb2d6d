"""What a person sees while a run goes on: a live bar in a terminal, plain lines elsewhere."""

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

# Why the program shows one VCI, and not the other beside it.
_ADJUSTED = (
    "VCI is adjusted for sample size (vci_adjusted), so that splits of different sizes can be "
    "compared. Not adjusted (vci) it is {} on train and {} on test."
)


class TrainDisplay:
    """The progress of one run; a context manager that leaves the terminal as it was."""

    def __init__(self, *, steps: int, steps_per_epoch: int, console: Console) -> None:
        """Prepares the bar.

        Args:
          steps: of the whole run.
          steps_per_epoch: to show the epoch.
          console: where to print; the live bar appears only if it is a terminal.
        """
        self._console = console
        self._steps_per_epoch = steps_per_epoch
        self._epochs = steps // steps_per_epoch
        self._vci: float | None = None
        self._started = self._spoke = time.monotonic()
        self._first: int | None = None
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
        """Starts the live bar."""
        self._progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        """Stops the live bar."""
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
        if self._first is None:  # The first step compiles.
            self._first, self._started = step, now
        if not self._console.is_terminal and now - self._spoke >= _LINE_EVERY_SECONDS:
            self._spoke = now
            done, total = step - self._first, int(self._progress.tasks[0].total or 0)
            left = (total - step) * (now - self._started) / max(done, 1) / 60
            self.say(f"  step {step:,} of {total:,}  {'  '.join(parts)}  {left:,.0f} min left")

    def measure(self, split: str, done: int, batches: int) -> None:
        """Shows how far a metrics pass is; without a terminal, in a line a minute.

        The first pass has a line when it begins: it compiles, and nothing else has been said.

        Args:
          split: which is measured.
          done: batches of it that are behind.
          batches: of it in all.
        """
        now = time.monotonic()
        self._progress.update(self._bar, status=f"measuring {split}, {done:,} of {batches:,}")
        begins = self._vci is None and self._first is None and not done
        if not self._console.is_terminal and (begins or now - self._spoke >= _LINE_EVERY_SECONDS):
            self._spoke = now
            self.say(f"  measuring {split}: {done:,} of {batches:,} batches")

    def record(self, train: dict[str, Any], test: dict[str, Any]) -> None:
        """Prints one line for a metrics pass over both splits."""
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
        ends = [_ends(rows, split, metric) for split in ("train", "test")]
        table.add_row(metric, *(f"{last} ({first})" for first, last in ends), direction)
    console.print(table)
    plain = [_ends(rows, split, "vci")[1] for split in ("train", "test")]
    console.print(_ADJUSTED.format(*plain), highlight=False, markup=False)
    draw = f"python -m probes figures {shlex.quote(str(workdir))} --out DIR"
    console.print(f"Figures: {draw}", highlight=False, markup=False, soft_wrap=True)


def _ends(rows: list[dict[str, Any]], split: str, metric: str) -> tuple[str, str]:
    """Returns the first and the last value of a metric, for a column of equal digits."""
    values = [row[metric] for row in rows if row["split"] == split]
    return _number(values[0]), _number(values[-1])


def _number(value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"
