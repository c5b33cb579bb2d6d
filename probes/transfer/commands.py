"""The commands of ``python -m probes`` that make and probe features; each returns an exit code."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from probes.encoders.config import TransferConfig
from probes.encoders.words import list_kinds
from probes.transfer import runner, sharing
from probes.transfer.display import Display
from probes.transfer.features import read_saved
from train import processes, runtime
from train.config import ConfigError, MeshConfig
from vci_jax.probe.saved import renumber

INCOMPLETE = 1


@dataclasses.dataclass(frozen=True)
class _Models:
    models: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL ...")]
    """Work directories of python -m train, and other models by their words (resnet50=PATH; a wrong
    word lists all kinds)."""
    options: tyro.conf.OmitArgPrefixes[TransferConfig] = dataclasses.field(
        default_factory=TransferConfig
    )
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


@dataclasses.dataclass(frozen=True)
class _Saved:
    train: tyro.conf.Positional[Path]
    """Features and labels to fit on, in any format that vci_jax.read_features knows."""
    test: tyro.conf.Positional[Path]
    """Features and labels to score on."""
    validation: Path | None = None
    """Features and labels to choose the penalty on; a stratified fifth of train by default."""
    score: Literal["top1", "mean_per_class"] = "top1"
    """Top-1 accuracy, or the mean of the accuracies of the classes."""
    json: bool = False
    """Print one JSON object, with the whole validation curve."""
    options: tyro.conf.OmitArgPrefixes[TransferConfig] = dataclasses.field(
        default_factory=TransferConfig
    )


def transfer(arguments: Sequence[str]) -> int:
    """Scores tasks on models; returns 1 if a score is missing."""
    parsed = tyro.cli(_Models, args=list(arguments), prog="python -m probes transfer")
    failures = _compute(parsed, "transfer", wanted=runner.is_unscored(parsed.options))
    if processes.is_first():
        failures = runner.transfer(parsed.models, parsed.options, Console(), failures)
    return _conclude(failures)


def features(arguments: Sequence[str]) -> int:
    """Computes the features of tasks by models and prints where they are; returns 1 on failures."""
    parsed = tyro.cli(_Models, args=list(arguments), prog="python -m probes features")
    failures = _compute(parsed, "features")
    if processes.is_first():
        failures = runner.extract(parsed.models, parsed.options, Console(), failures)
    return _conclude(failures)


def probe(arguments: Sequence[str]) -> int:
    """Probes features that any program has saved."""
    parsed = tyro.cli(_Saved, args=list(arguments), prog="python -m probes probe")
    runtime.cache_programs()
    splits = {"train": read_saved(parsed.train), "test": read_saved(parsed.test)}
    if parsed.validation is not None:
        splits["validation"] = read_saved(parsed.validation)
    splits, num_classes = renumber(splits)
    try:
        row = runner.probe(splits, num_classes, parsed.score, parsed.options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if parsed.json:
        print(json.dumps(row))
        return 0
    for name, value in row.items():
        if name != "validation_curve":
            print(f"{name:20}  {value:.6g}" if isinstance(value, float) else f"{name:20}  {value}")
    return 0


def _compute(parsed: _Models, command: str, **options: Any) -> runner.Failures:
    """Computes the features by all processes of the command, if there are several."""
    if not parsed.models:
        raise ConfigError(f"no model given. {list_kinds()}")
    runtime.quiet()
    runtime.cache_programs()
    sharing.join(parsed.mesh, command, parsed.models, parsed.options)
    tasks = runner.tasks_of(parsed.models, parsed.options)
    with Display(Console(quiet=not processes.is_first())) as display:
        return sharing.compute(parsed.models, tasks, parsed.options, display, **options)


def _conclude(failures: runner.Failures) -> int:
    """Prints missing scores by reason; returns the exit code."""
    if not failures:
        return 0
    reasons: dict[str, list[str]] = {}
    for (model, task), why in failures.items():
        reasons.setdefault(why, []).append(f"{model} {task}")
    print(f"{len(failures)} score(s) missing; the same command tries them again:", file=sys.stderr)
    for why, which in reasons.items():
        print(f"  {', '.join(which)}: {why}", file=sys.stderr)
    return INCOMPLETE
