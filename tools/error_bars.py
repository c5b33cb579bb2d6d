"""How right ``vci_adjusted`` and ``vci_interval`` are, on populations whose VCI is known.

    python -m tools.error_bars gaussian          # classes of one covariance (hours)
    python -m tools.error_bars other             # unequal covariances, heavy tails, ... (minutes)
    python -m tools.error_bars page [--check]    # write what they found into docs/error_bars.md

The first two append a row for each population to docs/error_bars/*.csv, and go on with what is
missing there. A row is of 400 samples; of more (400 at a time, 8,000 at most) until the mean error
of ``vci_adjusted`` is known to a third of what is promised (``LIMITS``), and, to 1,600, while the
share of intervals that held the truth is not within 93 to 97 %.

Legend: N samples, K classes, p features.
"""

import argparse
import csv
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

import vci_jax
from tools import populations
from tools.populations import Population
from vci_jax.interval import interval_of, leave_one_out

FILES = pathlib.Path(__file__).parents[1] / "docs" / "error_bars"
PAGE = FILES.with_suffix(".md")
LEVELS = (1.0, 0.7, 0.4, 0.1)  # of VCI
LIMITS = {3: 0.01, 5: 0.005, 12: 0.005, 25: 0.005}  # of the mean error, by N / p
_DRAWS = 400
# Inputs are exact to float64, but a second eigenproblem is not needed to know that.
_EPS = 1e-11


class Row(NamedTuple):
    """What many samples of one population gave.

    ``plugin`` and ``error`` are the mean errors of the two estimates, ``se`` the standard error of
    the latter, ``held`` how many intervals held the truth, and ``unequal`` how many reports had the
    caveat ``unequal_classes``.
    """

    population: str
    classes: int
    dim: int
    samples: int
    blocks: int
    vci: float
    draws: int
    plugin: float
    error: float
    se: float
    held: int
    unequal: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What the row is of, with the VCI to two digits."""
        return (*self[:5], round(self.vci, 2) if self.population == "gaussian" else 0)

    @property
    def coverage(self) -> float:
        """The share of intervals that held the truth."""
        return self.held / self.draws


def measure(population: Population, limit: float, rng: np.random.Generator) -> dict[str, Any]:
    """Returns the columns of a row from ``vci`` on; see the top for how many samples it draws."""
    plain: list[float] = []
    adjusted: list[float] = []
    held = unequal = 0
    while True:
        for _ in range(_DRAWS):
            blocks = population.draw(rng)
            whole = leave_one_out(blocks, data_eps=_EPS)
            low, high = interval_of(whole, 0.95)
            plain.append(_plugin(blocks))
            adjusted.append(whole.whole["vci_adjusted"])
            held += low <= population.vci <= high
            if np.any(blocks.class_scatter):
                codes = {caveat.code for caveat in vci_jax.report(blocks).caveats}
                unequal += "unequal_classes" in codes
        draws = len(adjusted)
        error = np.array(adjusted) - population.vci
        se = float(error.std(ddof=1) / np.sqrt(draws))
        vague = draws < 4 * _DRAWS and not 0.93 <= held / draws <= 0.97
        if not (vague or (se > limit / 3 and draws < 20 * _DRAWS)):
            break
    return {
        "vci": population.vci,
        "draws": draws,
        "plugin": float(np.mean(plain)) - population.vci,
        "error": float(error.mean()),
        "se": se,
        "held": held,
        "unequal": unequal,
    }


def _plugin(blocks: vci_jax.ClassMoments) -> float:
    """VCI of a sample as the paper defines it, by plain arithmetic."""
    total = np.asarray(blocks.count).sum(axis=0)
    means = np.einsum("bk,bkd->kd", blocks.count, blocks.mean) / np.maximum(total, 1)[:, None]
    apart = np.sqrt(blocks.count)[:, :, None] * (blocks.mean - means)
    apart = apart.reshape(-1, means.shape[1])
    within = (np.sum(blocks.scatter, axis=0) + apart.T @ apart) / total.sum()
    return populations.exact_vci(means, within, total / total.sum())


def _gaussian(options: argparse.Namespace) -> Iterator[Row]:
    for dim, blocks, factor, classes in itertools.product(
        options.dims, options.blocks, options.factors, options.classes
    ):
        samples = factor * dim
        if samples < 4 * classes / 3 or samples - classes <= dim // 4:
            continue  # fewer samples than this, and most classes have one
        for vci in options.levels:
            yield Row("gaussian", classes, dim, samples, blocks, vci, 0, 0, 0, 0, 0, 0)


def _other(options: argparse.Namespace) -> Iterator[Row]:
    for kind, classes, factor in itertools.product(populations.KINDS, (10, 62), (5, 12)):
        yield Row(kind, classes, 32, factor * 32, options.blocks[0], 0, 0, 0, 0, 0, 0, 0)


def read(name: str) -> list[Row]:
    """The rows of a file of ``FILES``."""
    path = FILES / f"{name}.csv"
    if not path.exists():
        return []
    kinds = Row.__annotations__
    with path.open(newline="") as file:
        return [Row(**{n: kinds[n](v) for n, v in row.items()}) for row in csv.DictReader(file)]


def run(name: str, options: argparse.Namespace) -> None:
    """Measures what a file of ``FILES`` does not have yet."""
    FILES.mkdir(exist_ok=True)
    path = FILES / f"{name}.csv"
    there = {row.key for row in read(name)}
    if not path.exists():
        path.write_text(",".join(Row._fields) + "\n")
    for row in _gaussian(options) if name == "gaussian" else _other(options):
        if row.key in there:
            continue
        size = (row.classes, row.dim, row.samples)
        rng = np.random.default_rng([*size, row.blocks, int(100 * row.vci)])
        if name == "gaussian":
            population = populations.gaussian(*size, row.vci, row.blocks, rng)
        else:
            population = populations.other(row.population, *size, row.blocks, rng)
        row = row._replace(**measure(population, LIMITS[row.samples // row.dim], rng))
        cells = [f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in row]
        with path.open("a") as file:
            file.write(",".join(cells) + "\n")
        print(*cells, flush=True)


def of_gaussian(rows: list[Row]) -> Iterator[str]:
    """A Markdown table with a row for each size, over the values of VCI."""
    numbers = sorted({row.blocks for row in rows})
    yield (
        "| p | K | N | error of the plug-in | error of the adjusted VCI | its standard error | "
        + (" | ".join(f"coverage, {blocks} blocks" for blocks in numbers) + " |")
    )
    yield "|" + "---|" * (6 + len(numbers))
    for size, group in itertools.groupby(
        sorted(rows, key=lambda row: (row.dim, row.classes, row.samples)),
        key=lambda row: (row.dim, row.classes, row.samples),
    ):
        of_size = list(group)
        worst = max(of_size, key=lambda row: abs(row.error))
        held = []
        for blocks in numbers:
            shares = [100 * row.coverage for row in of_size if row.blocks == blocks]
            held.append(f"{min(shares):.1f} to {max(shares):.1f} %" if shares else "")
        cells = [*map(str, size), f"{min(row.plugin for row in of_size):+.3f}",
                 f"{worst.error:+.4f}", f"{worst.se:.4f}", *held]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"


def of_other(rows: list[Row]) -> Iterator[str]:
    """A Markdown table with a row for each population."""
    yield ("| population | K | N | VCI | error of the plug-in | error of the adjusted VCI | "
           "its standard error | coverage | caveat `unequal_classes` |")  # fmt: skip
    yield "|" + "---|" * 9
    for row in rows:
        cells = [row.population, row.classes, row.samples, f"{row.vci:.3f}", f"{row.plugin:+.3f}",
                 f"{row.error:+.4f}", f"{row.se:.4f}", f"{100 * row.coverage:.1f} %",
                 f"in {row.unequal / row.draws:.0%}"]  # fmt: skip
        yield "| " + " | ".join(map(str, cells)) + " |"


def in_short(rows: list[Row]) -> str:
    """What all rows of Gaussian classes say, in a sentence or two."""
    near = max(abs(row.error) for row in rows if row.samples < 5 * row.dim)
    far = max(abs(row.error) for row in rows if row.samples >= 5 * row.dim)
    shares = sorted(100 * row.coverage for row in rows)
    return (
        f"In {len(rows)} populations of Gaussian classes the mean error of the adjusted VCI is at "
        f"most {near:.4f}\nat N = 3 p and {far:.4f} from N = 5 p on, and the 95 % interval held "
        f"the truth in {shares[0]:.1f} to {shares[-1]:.1f} % of samples\n(the median is "
        f"{np.median(shares):.1f} %)."
    )


def page(text: str) -> str:
    """The page with its tables written anew, between their marks."""
    gaussian = read("gaussian")
    for name, lines in {
        "in short": [in_short(gaussian)],
        "gaussian": of_gaussian(gaussian),
        "other": of_other(read("other")),
    }.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, rest = text.split(begin)
        text = before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    return text


def main() -> int:
    """Measures, or writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.error_bars", description=__doc__)
    parser.add_argument("task", choices=("gaussian", "other", "page"))
    parser.add_argument("--blocks", type=int, nargs="+", default=[10, 16])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 10, 62, 100, 300])
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 128, 300])
    parser.add_argument("--factors", type=int, nargs="+", default=list(LIMITS), help="N / p")
    parser.add_argument("--levels", type=float, nargs="+", default=list(LEVELS), help="of VCI")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if it differs")
    options = parser.parse_args()
    if options.task == "page":
        text = PAGE.read_text()
        wanted = page(text)
        if options.check:
            return int(text != wanted)
        PAGE.write_text(wanted)
        return 0
    with jax.enable_x64(True):
        run(options.task, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
