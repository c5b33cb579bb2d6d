"""The tables of docs/study/pilot.md, from its raw files: which regime can tell settings apart.

    python -m studies.cifar10.pilot docs/study/pilot    # write both tables anew
    python -m studies.cifar10.pilot docs/study/pilot --data-dir DIR --work-dir RUNS --seed 0 1
                           --run kinds_tau_1.0 kinds_tau_0.05    # first make these four runs

The tables stand in ``DIR.md`` between two marks; the rest of that text is written by hand.
A run of ``configs/pilot.py`` is named REGIME_SETTING; its raw files are in ``DIR/seed_S/NAME``.
Runs are made one after another; what is there is not made again, and the same command goes on.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import configs
from probes.analysis import runs, tables
from probes.analysis.runs import Run
from probes.analysis.tables import Table
from probes.transfer import odds
from studies.cifar10 import records
from studies.cifar10.document import minutes
from train.config import ConfigError

GROUP = "pilot"
# Of every regime; but not the very classes of pretraining.
TASKS = ("cifar10", "cifar100")
_NAME = re.compile(r"(?P<regime>.+?)_(?P<setting>(?P<knob>tau|lambda)_.+)")
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
# Plain cross-entropy is at the end of both groups.
_BOTH = "tau_1.0"


class Pilot(NamedTuple):
    """A run of the pilot with what it is compared by.

    Attributes:
      regime: network, data and epochs, by name.
      setting: of the loss, as ``tau_0.05``.
      seed: of the run.
      run: its rows.
      mlo: mean log odds of its scores.
      mlog: the same less the log odds of its own test accuracy.
    """

    regime: str
    setting: str
    seed: int
    run: Run
    mlo: float
    mlog: float


def read(directory: Path) -> list[Pilot]:
    """Returns the runs of a pilot by regime, setting and seed.

    Raises:
      ValueError: a run is not named REGIME_SETTING, or has no scores; names it.
    """
    found = []
    for run in runs.read_runs([directory]):
        name = run.path.name
        match = _NAME.fullmatch(name)
        if not match:
            raise ValueError(f"{run.path} is not named REGIME_tau_T or REGIME_lambda_L.")
        if not run.transfer:
            raise ValueError(f"{run.path} has no scores; probe it: python -m probes transfer RUN")
        scores = [row["score"] for row in run.transfer]
        accuracy = run.last("test")["accuracy"]
        mlo, mlog = odds.mlo(scores), odds.mlog(scores, accuracy)
        seed = run.config["seed"]
        found.append(Pilot(match["regime"], match["setting"], seed, run, mlo, mlog))
    return sorted(found, key=lambda one: (one.regime, _order(one.setting), one.seed))


def errors(run: Run) -> tuple[float, float]:
    """Returns the standard errors of MLO and of MLOG from the sizes of the test sets.

    Delta method: log(a / (1 - a)) of n images has the variance 1 / (n a (1 - a)). Test sets count
    as independent. Networks compared on the same images differ by less than these errors say.
    """

    def variance(share: float, size: int) -> float:
        return 1 / (size * share * (1 - share))

    own = run.last("test")
    tasks = [variance(row["score"], row["test_size"]) for row in run.transfer]
    mlo = sum(tasks) / len(tasks) ** 2
    return float(np.sqrt(mlo)), float(np.sqrt(mlo + variance(own["accuracy"], own["samples"])))


def with_tables(text: str, pilots: Sequence[Pilot]) -> str:
    """Returns a text with the tables between its two marks.

    Raises:
      ValueError: it has no such marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the text has no part between {BEGIN!r} and {END!r}.")
    made = (table_of_runs(pilots), table_of_effects(pilots))
    return "\n\n".join([before + begin, *map(tables.markdown, made), end + after])


def table_of_runs(pilots: Sequence[Pilot]) -> Table:
    """Returns one line for each run."""
    names = sorted({row["task"] for one in pilots for row in one.run.transfer})
    header = ["Regime", "Setting", "seed", "min", "train acc. %", "test acc. %", "VCI train"]
    header += ["VCI test", "cos. sim.", *(f"{name} %" for name in names), "MLO", "MLOG", "SE"]
    return Table("Runs of the pilot", header, [_line(one, names) for one in pilots])


def _line(one: Pilot, names: Sequence[str]) -> list[str]:
    train, test = one.run.last("train"), one.run.last("test")
    scores = {row["task"]: f"{100 * row['score']:.2f}" for row in one.run.transfer}
    return [
        one.regime,
        one.setting,
        str(one.seed),
        f"{minutes(one.run):.1f}",
        f"{100 * train['accuracy']:.1f}",
        f"{100 * test['accuracy']:.2f}",
        f"{train['vci']:.4f}",
        f"{test['vci']:.4f}",
        f"{train['cosine_similarity']:.3f}",
        *(scores.get(name, "") for name in names),
        f"{one.mlo:.3f}",
        f"{one.mlog:.3f}",
        f"{errors(one.run)[1]:.3f}",
    ]


def table_of_effects(pilots: Sequence[Pilot]) -> Table:
    """Returns how far settings are apart, beside the noise, in each group of each regime.

    "sd" is the standard deviation of the settings' means over seeds; of two settings it is the
    difference over sqrt(2). The error of a mean is that from the seeds, pooled over the settings of
    the regime, where there are two seeds anywhere; and that from the test images.
    """
    rows = []
    for regime in dict.fromkeys(one.regime for one in pilots):
        inside = [one for one in pilots if one.regime == regime]
        for knob, label in (("tau", "temperature"), ("lambda", "regulariser")):
            group = [one for one in inside if one.setting.startswith(knob) or one.setting == _BOTH]
            if len({one.setting for one in group}) > 1:
                rows.append([regime, label, *_effects(group, inside)])
    header = ["Regime", "Group", "settings (runs)"]
    for name in ("MLO", "MLOG"):
        header += [f"{name}: range", "sd", "SE seeds", "SE images", "sd / SE"]
    return Table("Settings against noise", header, rows)


def _effects(group: Sequence[Pilot], regime: Sequence[Pilot]) -> list[str]:
    settings = dict.fromkeys(one.setting for one in group)
    seeds = len(group) / len(settings)
    cells = [f"{len(settings)} ({len(group)})"]
    for position, name in enumerate(("mlo", "mlog")):
        means = [
            np.mean([getattr(one, name) for one in group if one.setting == setting])
            for setting in settings
        ]
        spread = float(np.std(means, ddof=1))
        noise = seed_noise(regime, name) / np.sqrt(seeds)
        images = float(np.median([errors(one.run)[position] for one in group]))
        error = images if np.isnan(noise) else noise
        cells += [f"{max(means) - min(means):.3f}", f"{spread:.3f}"]
        cells += ["" if np.isnan(noise) else f"{noise:.3f}", f"{images:.3f}"]
        cells.append(f"{spread / error:.1f}")
    return cells


def seed_noise(pilots: Sequence[Pilot], name: str) -> float:
    """Returns the standard deviation between seeds of one setting, pooled; NaN without any two."""
    squares, degrees = 0.0, 0
    for setting in dict.fromkeys(one.setting for one in pilots):
        values = [getattr(one, name) for one in pilots if one.setting == setting]
        squares += len(values) * float(np.var(values))
        degrees += len(values) - 1
    return float(np.sqrt(squares / degrees)) if degrees else float("nan")


def _order(setting: str) -> tuple[bool, float]:
    knob, _, value = setting.partition("_")
    return knob != "tau", float(value)


def commands(name: str, seed: int, work: Path, data: Path) -> list[list[str]]:
    """Returns the arguments of ``python`` that make a run, in order; each skips what is done.

    Raises:
      ConfigError: the pilot has no run of this name.
    """
    if name not in configs.runs(GROUP):
        raise ConfigError(f"{name!r} is no run of {GROUP}; {', '.join(configs.runs(GROUP))} are.")
    source = configs.runs(GROUP)[name].data.source
    tasks = [task for task in TASKS if f"tfds:{task}:" not in source]
    train = ["-m", "train", GROUP, str(work.parent), "--run", name, "--seed", str(seed)]
    probe = ["-m", "probes", "transfer", str(work), "--threads", "1", "--no-keep-features"]
    return [
        [*train, "--data.data_dir", str(data), "--data.threads", "1"],
        [*probe, "--data-dir", str(data), "--task", *tasks],
    ]


def make(name: str, seed: int, directory: Path, work_dir: Path, data_dir: Path) -> None:
    """Trains and probes a run, unless its raw files are there, and copies them.

    Raises:
      ConfigError: as ``commands``.
      subprocess.CalledProcessError: a command failed.
    """
    place, work = (root / f"seed_{seed}" / name for root in (directory, work_dir))
    if place.exists():
        return
    for command in commands(name, seed, work, data_dir):
        subprocess.run([sys.executable, *command], check=True)
    records.collect(work, place, small_samples=False)


def main(arguments: list[str]) -> int:
    """Writes the tables and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--data-dir", type=Path, help="where the images are")
    parser.add_argument("--work-dir", type=Path, help="where networks are trained and kept")
    parser.add_argument("--run", nargs="+", default=(), help="runs to make, of configs/pilot.py")
    parser.add_argument("--seed", type=int, nargs="+", default=(0,), help="of each of them")
    parsed = parser.parse_args(arguments)
    if parsed.run and not (parsed.data_dir and parsed.work_dir):
        parser.error("--run needs --data-dir and --work-dir.")
    try:
        for seed in parsed.seed:
            for name in parsed.run:
                make(name, seed, parsed.directory, parsed.work_dir, parsed.data_dir)
    except ConfigError as error:
        parser.error(str(error))
    except subprocess.CalledProcessError as error:
        print(f"exit code {error.returncode} of {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    page = parsed.directory.with_suffix(".md")
    page.write_text(with_tables(page.read_text(), read(parsed.directory)))
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
