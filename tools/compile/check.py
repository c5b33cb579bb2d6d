"""The check itself: compile, count, and say what is wrong."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tools.compile import cost, programs, topology
from tools.compile.cost import Cost
from tools.compile.facts import Facts
from tools.compile.topology import Chip
from train import mesh as meshes
from train.config import Config, flatten, flatten_stored

# What of a config the programs, and how often each runs, depend on.
_SECTIONS = ("epochs", "model", "loss", "optim", "eval", "mesh")
_DATA = ("source", "batch_size", "image_size", "repeats", "mean", "std", "mix")

# What a program may say to other chips. Gradients, scalars and the statistics of BatchNorm groups
# that span chips are sums over chips. Where chips divide the state, weights are gathered before
# they are used, and the gradients of those are summed and dealt out; which of the others serve to
# deal them out is the compiler's choice.
_EXPECTED = {
    ("train step", False): {"all-reduce"},
    ("train step", True): {
        "all-reduce",
        "all-gather",
        "reduce-scatter",
        "all-to-all",
        "collective-permute",
    },
    ("metrics step", False): set(),
    ("metrics step", True): set(),
}
_NONE = object()


class Report(NamedTuple):
    """What was compiled, and what it costs; ``overrides`` are those of the command line."""

    name: str
    overrides: tuple[str, ...]
    topology: str
    chips: int
    config: dict[str, Any]
    facts: Facts
    costs: tuple[Cost, ...]


def check(
    config: Config,
    arrangement: str,
    facts: Facts,
    *,
    overrides: Sequence[str],
    chosen: Sequence[str],
    tell: Callable[[str], None],
    folder: Path | None,
) -> Report:
    """Compiles the programs of a run for chips that need not be there.

    Args:
      config: of the run.
      arrangement: of the chips, as in ``v5e:2x4``.
      facts: of its data.
      overrides: of the command line, to be kept with the result.
      chosen: which of its programs to compile.
      tell: is told what is about to take minutes.
      folder: where to leave the optimised programs as text, if anywhere.

    Raises:
      ConfigError: the config cannot be run on these chips, or they cannot be compiled for.
    """
    _, devices = topology.find(arrangement)
    mesh = meshes.make_mesh(config.mesh, devices)
    meshes.check_divisible(config.data.batch_size, mesh)
    costs = []
    for name, lower in programs.lower(config, mesh, facts).items():
        if name not in chosen:
            continue
        tell(f"compiling the {name} of {config.name} for {arrangement} ...")
        start = time.monotonic()
        compiled = lower().compile()
        seconds, text = time.monotonic() - start, compiled.as_text() or ""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{config.name.replace('/', '_')}_{name.replace(' ', '_')}.hlo").write_text(
                text
            )
        is_train = name == "train step"
        images = config.data.batch_size if is_train else config.eval.batch_size
        costs.append(cost.of(name, compiled, text, images=images, seconds=seconds))
    return Report(
        config.name,
        tuple(overrides),
        arrangement,
        mesh.size,
        relevant(config),
        facts,
        tuple(costs),
    )


def relevant(config: Config) -> dict[str, Any]:
    """Returns what of a config the result depends on, as JSON has it."""
    fields = dataclasses.asdict(config)
    kept = {name: fields[name] for name in _SECTIONS}
    return _plain({**kept, "data": {name: fields["data"][name] for name in _DATA}})


def drift(report: Report, config: Config) -> list[str]:
    """Returns in which fields a config is no longer that of a report, lost ones too."""
    now = flatten(relevant(config))
    stored = flatten_stored(report.config)
    then = {field: stored[field] for field in flatten(report.config) | now if field in stored}
    return sorted(field for field in then | now if then.get(field, _NONE) != now.get(field, _NONE))


def problems(report: Report, chip: Chip) -> list[str]:
    """Returns what is wrong with the programs, a sentence each."""
    is_divided = report.config["mesh"]["model"] > 1
    found = []
    for it in report.costs:
        if it.memory > chip.memory:
            found.append(
                f"the {it.program} holds {it.memory / 1e9:.1f} GB a chip, which has "
                f"{chip.memory / 1e9:.0f}."
            )
        kinds = {key.partition("/")[0] for key in it.collectives}
        if strangers := sorted(kinds - _EXPECTED[it.program, is_divided]):
            found.append(f"the {it.program} has collectives of the kind {', '.join(strangers)}.")
    return found


def steps(report: Report) -> dict[str, int]:
    """Returns how often a whole run takes each step."""
    config, facts = report.config, report.facts
    every, epochs = config["eval"]["every_epochs"], config["epochs"]
    passes = 1 + math.ceil(epochs / every)
    batches = sum(-(-images // config["eval"]["batch_size"]) for images in facts[:2])
    return {
        "train step": epochs * (facts.train // config["data"]["batch_size"]),
        "metrics step": passes * batches,
    }


def chip_hours(report: Report, chip: Chip) -> dict[str, float]:
    """Returns what all these steps cost at the least, of each program compiled."""
    counts = steps(report)
    return {
        it.program: report.chips * counts[it.program] * it.seconds(chip) / 3600
        for it in report.costs
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
