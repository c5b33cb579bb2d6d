"""``python -m probes rank MODEL... --data folder:PATH``: ranks models on images, with intervals.

A model is a work directory of ``python -m train``, ``resnet50=PATH``, ``timm:NAME=PATH``,
``features:PATH`` and so on (an unknown one lists them all). The images are any source of
``train.data``. A linear probe is fitted to each model's features, with its penalty chosen among 97,
and the models are compared in pairs on the same images.
"""

import csv
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from probes.page import ranking as page
from probes.ranking import runner
from probes.transfer import escape, sharing
from probes.transfer.display import Display
from train import local, processes, runtime
from train.config import ConfigError, MeshConfig
from train.data import decode
from vci_jax.written import replace_text, write_json

_MAX_MISTAKES, _MAX_PLANES = 24, 6


@dataclasses.dataclass(frozen=True)
class _Rank:
    models: tyro.conf.Positional[tuple[str, ...]]
    """Models, by word: RUN, resnet50=PATH, deit_s=PATH, timm:NAME=PATH, torchvision:NAME=PATH,
    python:MODULE:FUNCTION, features:PATH."""
    config: tyro.conf.OmitArgPrefixes[runner.RankConfig]
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


def main(arguments: Sequence[str]) -> int:
    """Ranks, prints the table, writes ``ranking.json`` and ``rank.html``; 1 if a model failed."""
    parsed = tyro.cli(
        _Rank, args=list(arguments), prog="python -m probes rank", description=__doc__
    )
    config = parsed.config
    if not parsed.models:
        raise ConfigError("no model given: python -m probes rank MODEL MODEL --data folder:PATH.")
    if not 0 < config.confidence < 1:
        raise ConfigError(f"--confidence is {config.confidence}; it lies between 0 and 1.")
    runtime.quiet()
    runtime.cache_programs()
    sharing.join(parsed.mesh, "rank", parsed.models, config)
    task, options = runner.task_of(config)
    console = Console(quiet=not processes.is_first())
    with Display(console) as display:
        failures = sharing.compute(parsed.models, [task], options, display, logits=True)
        if not processes.is_first():  # It ranks for all.
            return 1 if failures else 0
        outcome = runner.run(parsed.models, config, display, failures)
    out = local.path(config.out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    content = outcome.ranking.to_dict()
    content["data"] = config.data
    content["failures"] = [{"model": model, "why": why} for model, why in outcome.failures]
    write_json(out / "ranking.json", content)
    text = page.render(
        outcome.ranking,
        data=config.data,
        classes=outcome.classes,
        mistakes=mistakes(outcome),
        planes=[
            page.plane(model.model, outcome.features[model.model], outcome.ranking.labels)
            for model in outcome.ranking.models[:_MAX_PLANES]
        ],
        failures=outcome.failures,
        command="python -m probes rank " + " ".join(arguments),
    )
    replace_text(out / "rank.html", text)
    if config.csv:
        _write_csv(out / "ranking.csv", content["models"])
    console.print(
        escape.prose(repr(outcome.ranking)), markup=False, highlight=False, soft_wrap=True
    )
    console.print(f"\nPage: {out / 'rank.html'}", markup=False, highlight=False, soft_wrap=True)
    for model, why in outcome.failures:
        print(f"{escape.line(model)} was not ranked: {escape.prose(why)}", file=sys.stderr)
    return 1 if outcome.failures else 0


def mistakes(outcome: runner.Outcome) -> list[page.Mistake]:
    """Returns images that all of the best models misclassify, the hardest first."""
    models = outcome.ranking.models
    best = np.stack([model.correct for model in models if model.ties_with_best])
    share = np.mean([model.correct for model in models], axis=0)
    wrong = np.flatnonzero(best.max(axis=0) < 0.5)
    order = wrong[np.argsort(share[wrong], kind="stable")][:_MAX_MISTAKES]
    starts = np.cumsum([0, *(split.size for split in outcome.images)])
    if starts[-1] != len(outcome.ranking.labels):  # Some images were left out of the task.
        return []
    shown = []
    for image in order.tolist():
        part = int(np.searchsorted(starts, image, side="right")) - 1
        records, index = outcome.images[part].records, image - int(starts[part])
        stored, _ = records.read(index)
        if isinstance(stored, bytes):
            stored = decode.decode(stored, "RGB")
        peak = max(int(stored.max()), 1)
        shown.append(
            page.Mistake(
                pixels=stored if peak > 16 else (stored * (255 // peak)).astype(np.uint8),
                name="/".join(Path(records.name_of(index)).parts[-2:]),
                label=str(outcome.classes[outcome.ranking.labels[image]]),
                right=tuple(model.model for model in models if model.correct[image] > 0.5),
            )
        )
    return shown


def _write_csv(path: Path, models: list[dict[str, Any]]) -> None:
    """Writes one row per model; an interval is two columns, and lists are omitted."""
    rows = []
    for model in models:
        row = {name: value for name, value in model.items() if not isinstance(value, list)}
        for name in ("accuracy_interval", "vci_interval"):
            row[f"{name}_low"], row[f"{name}_high"] = model[name]
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, text.getvalue())
