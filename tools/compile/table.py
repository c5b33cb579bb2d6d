"""What a person reads of a report, and what a document has of it."""

import json
import math
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from tools.compile import check
from tools.compile.check import Report
from tools.compile.cost import Cost
from tools.compile.topology import Chip

COLUMNS = (
    "program",
    "images",
    "TFLOP",
    "GB moved",
    "GB touched",
    "GB held",
    "GB temporary",
    "ms at best",
    "waits for",
    "images/s",
    "between chips",
)


def cells(cost: Cost, chip: Chip) -> tuple[str, ...]:
    """Returns the row of a program: of one chip, but for the images."""
    seconds = cost.seconds(chip)
    return (
        cost.program,
        f"{cost.images:,}",
        f"{cost.flops / 1e12:.3g}",
        f"{cost.traffic / 1e9:.3g}",
        f"{cost.accessed / 1e9:.3g}",
        f"{cost.memory / 1e9:.3g}",
        f"{cost.temporaries / 1e9:.3g}",
        f"{1e3 * seconds:.3g}",
        cost.waits_for(chip),
        f"{cost.images / seconds:,.0f}",
        "; ".join(_talks(cost)) or "nothing",
    )


def summary(report: Report, chip: Chip) -> Iterator[str]:
    """Yields what a whole run takes at best, a line for each kind of step."""
    hours, counts = check.chip_hours(report, chip), check.steps(report)
    epochs = report.config["epochs"]
    for name, value in hours.items():
        yield f"{epochs} epochs: {counts[name]:,} times the {name}, {value:,.3g} chip-hours."
    if len(hours) > 1:
        total = sum(hours.values())
        yield (
            f"Together {total:,.3g} chip-hours at best, {total / report.chips:,.3g} hours on "
            f"{report.chips} chips."
        )


def demand(report: Report, chip: Chip, images_per_core: float) -> Iterator[str]:
    """Yields how many cores make the images that the train step takes at best."""
    for cost in report.costs:
        if cost.program == "train step":
            rate = cost.images / cost.seconds(chip)
            cores = math.ceil(rate / images_per_core)
            yield (
                f"{report.chips} chips take at most {rate:,.0f} images/s to train: at "
                f"{images_per_core:,.0f} images/s a core, {cores} cores."
            )


def show(report: Report, chip: Chip, console: Console, moves: int) -> None:
    """Prints the table, what it means, and what a whole run takes.

    Args:
      report: what to print.
      chip: that it is for.
      console: where.
      moves: how many of the operations that move most to list.
    """
    table = Table(title=f"{report.name} on {report.topology}, a chip")
    for column in COLUMNS:
        left = column in ("program", "waits for", "between chips")
        table.add_column(column, justify="left" if left else "right")
    for cost in report.costs:
        table.add_row(*cells(cost, chip))
    console.print(table)
    for cost in report.costs:
        for source, size in cost.moves[:moves]:
            console.print(f"{size / 1e6:8.1f} MB  {source}", highlight=False, soft_wrap=True)
    for line in (
        "moved: from and to main memory; touched: in any memory, the compiler's own count.",
        f"at best: what {chip.flops / 1e12:.0f} TFLOP/s or {chip.bandwidth / 1e9:.0f} GB/s allow, "
        "whichever is longer; collectives and input come on top where they are not hidden.",
        *summary(report, chip),
    ):
        console.print(line, highlight=False, soft_wrap=True)


def store(report: Report, path: Path) -> None:
    """Adds a report to a JSON file of several, in place of one of the same name and settings."""
    reports = json.loads(path.read_text()) if path.exists() else []
    new = as_json(report)
    same = ("name", "overrides", "topology")
    kept = [old for old in reports if any(old[key] != new[key] for key in same)]
    text = json.dumps(sorted([*kept, new], key=lambda it: it["name"]), indent=1)
    path.write_text(text + "\n")


def as_json(report: Report) -> dict[str, Any]:
    """Returns a report as JSON has it, with the versions that it depends on."""
    return {
        **report._asdict(),
        "overrides": list(report.overrides),
        "facts": report.facts._asdict(),
        "costs": [cost._asdict() for cost in report.costs],
        "jax": jax.__version__,
        "libtpu": metadata.version("libtpu"),
    }


def from_json(stored: dict[str, Any]) -> Report:
    """Returns the report that ``as_json`` was given."""
    fields = {name: stored[name] for name in Report._fields}
    fields["overrides"] = tuple(fields["overrides"])
    fields["facts"] = check.Facts(**fields["facts"])
    fields["costs"] = tuple(Cost(**cost) for cost in fields["costs"])
    return Report(**fields)


def _talks(cost: Cost) -> Iterator[str]:
    for key, count in sorted(cost.collectives.items()):
        kind, _, group = key.partition("/")
        among = f" among {group}" if group else ""
        yield f"{count} {kind}{among}, {cost.collective_bytes[key] / 1e6:.1f} MB"
