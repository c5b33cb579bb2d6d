"""The raw numbers of the study: what of a work directory is kept, and how it is read back.

``DIR/runs/seed_S/NAME`` has the files of the work directory that hold numbers, without checkpoints
and features; paths of the machine are taken out of ``config.json``.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from probes.analysis import runs
from probes.analysis.runs import Row, Run
from probes.transfer.ledger import write_json
from studies.cifar10.small_samples import FILE

_RAW = ("metrics.jsonl", "transfer.jsonl", "run.json")
_KEPT = (*_RAW, FILE)
_GROUPS = {"tau": "temperature", "lambda": "regulariser"}


class Evidence(NamedTuple):
    """Everything that the study is made from.

    Attributes:
      runs: each with its group: ``temperature``, ``regulariser``, or ``losses``.
      small: the rows of each run's small samples, in the order of ``runs``.
    """

    runs: list[Run]
    small: list[list[Row]]

    def of(self, *groups: str) -> "Evidence":
        """Returns the runs of some groups."""
        kept = [i for i, run in enumerate(self.runs) if run.group in groups]
        return Evidence([self.runs[i] for i in kept], [self.small[i] for i in kept])

    def named(self, *names: str) -> list[Run]:
        """Returns the first seed's runs of these names, in their order."""
        first = [run for run in self.runs if run.config.get("seed", 0) == 0]
        return [run for name in names for run in first if run.path.name == name]


def read(study: Path) -> Evidence:
    """Returns the raw numbers of a study, its runs in the order of what they vary.

    Raises:
      ValueError: there are none, or a file is damaged; names it.
    """
    found = runs.read_runs([study / "runs"])
    found = [run._replace(group=_group(run)) for run in found]
    order = ("temperature", "regulariser", "losses")
    found.sort(key=lambda run: (order.index(run.group), run.config.get("seed", 0), run.path.name))
    notes = [note for run in found for note in run.notes]
    if notes:
        raise ValueError(f"{study / 'runs'} is not whole: {' '.join(notes)}")
    return Evidence(found, [_small(run.path) for run in found])


def collect(work: Path, kept: Path, *, small_samples: bool = True) -> None:
    """Copies the numbers of a work directory; what is there already is replaced.

    Args:
      work: the work directory.
      kept: the directory for the copies.
      small_samples: whether the metrics of small samples are among them.
    """
    kept.mkdir(parents=True, exist_ok=True)
    for name in _KEPT if small_samples else _RAW:
        shutil.copyfile(work / name, kept / name)
    config = json.loads((work / "config.json").read_text())
    config["data"]["data_dir"] = ""
    write_json(kept / "config.json", config)


def is_complete(kept: Path, epochs: int, tasks: Sequence[str]) -> bool:
    """Whether a directory has the numbers of a run that was trained and probed to the end."""
    if not all((kept / name).is_file() for name in (*_KEPT, "config.json")):
        return False
    run = runs.read_run(kept)
    ended = all(run.last(split).get("epoch") == epochs for split in ("train", "test"))
    return ended and {row["task"] for row in run.transfer} >= set(tasks)


def _group(run: Run) -> str:
    return _GROUPS.get(run.path.name.partition("_")[0], "losses")


def _small(path: Path) -> list[Row]:
    notes: list[str] = []
    rows = runs.read_rows(path / FILE, notes, required=("split", "draw"))
    if notes:
        raise ValueError(f"{path}: {' '.join(notes)}")
    return rows
