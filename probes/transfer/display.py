"""Terminal output while features are computed and probed: lines, a progress bar, and a table."""

from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from probes.transfer import escape
from probes.transfer.summary import ModelScores, best


class Display:
    """The progress of a sweep; a context manager that restores the terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,}/{task.total:,} {task.fields[unit]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=1, unit="", visible=False)
        self._about = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._progress.stop()

    def say(self, message: str) -> None:
        """Prints a line above the bar."""
        self._console.print(escape.prose(message), highlight=False, markup=False, soft_wrap=True)

    def begin(self, about: str) -> None:
        """Sets the title of the bar and empties it."""
        about = escape.line(about)
        self._about = about
        self._progress.update(
            self._bar, description=about, total=1, completed=0, unit="", visible=True
        )

    def images(self, split: str, rows: int, size: int) -> None:
        """Shows how many images have their features on disk."""
        about = f"{self._about} {split}"
        self._progress.update(
            self._bar, description=about, total=size, completed=rows, unit="images"
        )

    def probing(self) -> None:
        """Shows that the probe is being fitted."""
        self._progress.update(
            self._bar, description=f"{self._about} probe", total=1, completed=0, unit="probe"
        )


def print_table(
    console: Console,
    results: Sequence[ModelScores],
    summaries: Sequence[dict[str, Any]],
    tasks: Sequence[str],
) -> None:
    """Prints tasks against runs, the best of each row marked, then MLO and MLOG."""
    table = Table(title="Test scores of linear probes (* best of the row)")
    table.add_column("task")
    names = _names(results)
    for name in names:
        table.add_column(Text(name), justify="right")
    for task in tasks:
        leading = best(results, task) if len(results) > 1 else set()
        cells = [
            _number(result.rows.get(task, {}).get("score")) + ("*" if number in leading else "")
            for number, result in enumerate(results)
        ]
        table.add_row(Text(escape.line(task)), *cells)
    shared = len(summaries[0]["tasks"])
    of = "" if shared == len(tasks) else f" ({shared} of {len(tasks)} tasks)"
    table.add_section()
    for title, key in ((f"MLO{of}", "mlo"), (f"MLOG{of}", "mlog"), ("own test", _OWN)):
        table.add_row(title, *(_number(summary[key]) for summary in summaries))
    console.print(table)
    for name, summary in zip(names, summaries, strict=True):
        for note in summary["notes"]:
            text = escape.prose(f"{name}: {note}")
            console.print(text, highlight=False, markup=False, soft_wrap=True)


_OWN = "pretraining_accuracy"


def _names(results: Sequence[ModelScores]) -> list[str]:
    """Returns the directories' names, as lines, with those above them where two are the same."""
    return escape.lines(escape.short_paths([result.run.resolve() for result in results]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
