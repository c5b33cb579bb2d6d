"""The sweep of every task on every model; each score is written as soon as it is known.

    python -m probes transfer MODEL [MODEL ...] [--data folder:PATH] [--suite small] [--task NAME]

MODEL is a word of ``encoders.load``. The scores of a work directory of ``python -m train`` go to
``RUN/transfer.jsonl``, one row a task, the means over the tasks to ``RUN/transfer_summary.json``,
its features to ``RUN/features``; those of any other model to ``OUT/<its name>``.
A task with a score is skipped, unless the checkpoint, the data or the settings have changed. A task
that fails (a data set is missing, an image is broken) does not stop the others: it is listed at the
end with its remedy, and the same command tries it again.
"""

import re
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from probes.encoders import Encoder, identity, load
from probes.encoders.config import TransferConfig
from probes.transfer import score_log, summary, task_features
from probes.transfer.display import Display, print_table
from probes.transfer.tasks import SCORES, Task, choose
from train.config import ConfigError
from train.data import prepared
from train.errors import RunError
from vci_jax.probe import baselines, selection
from vci_jax.probe.path import Unusable
from vci_jax.written import write_json

# Version of the protocol; it is part of each row's key.
_FORMAT = 1
# Errors that end one task and not the sweep; JAX raises RuntimeError.
FAILURES = (RunError, ValueError, OSError, RuntimeError, MemoryError)
ALL_TASKS = "all tasks"
Failures = dict[tuple[str, str], str]
"""Reasons for what is missing, by model and task; the task ``ALL_TASKS`` stands for each."""
# The settings on which a score depends, given the features.
_OF_SCORES = ("seed", "neighbours", "precision", "max_steps")


def transfer(
    models: Sequence[str],
    options: TransferConfig,
    console: Console,
    before: Failures | None = None,
) -> Failures:
    """Scores the tasks that have no score yet on each model, and prints all scores as a table.

    Failures ``before`` are not tried again.

    Returns:
      Reasons for missing scores, by model and task; empty if every task of every model has one.

    Raises:
      ConfigError: the settings name an unknown task.
    """
    tasks = tasks_of(models, options)
    failures: Failures = dict(before or {})
    results: list[summary.ModelScores] = []
    with Display(console) as display:
        for model in _left(models, failures):
            try:
                encoder = _loaded(model, options, display)
                results.append(_probe_model(model, encoder, tasks, options, display, failures))
            except FAILURES as error:
                failures[model, ALL_TASKS] = explain(error)
                display.say(f"{model}: {explain(error)}")
    names = [task.name for task in tasks]
    if results:
        summaries = summary.summarise(results, names)
        for result, content in zip(results, summaries, strict=True):
            write_json(result.run / "transfer_summary.json", content)
        print_table(console, results, summaries, names)
    return failures


def extract(
    models: Sequence[str],
    options: TransferConfig,
    console: Console,
    before: Failures | None = None,
) -> Failures:
    """Computes the features of a sweep, prints where they are, and returns the failures."""
    tasks = tasks_of(models, options)
    failures: Failures = dict(before or {})
    with Display(console) as display:
        for model in _left(models, failures):
            try:
                encoder = _loaded(model, options, display)
            except FAILURES as error:
                failures[model, ALL_TASKS] = explain(error)
                continue
            for task in tasks:
                if (model, task.name) in failures:
                    continue
                display.begin(f"{encoder.name} {task.name}")
                try:
                    planned = task_features.plan(encoder, task)
                    material = _make(encoder, task, planned, options, display)
                    display.say(_places(model, task, material))
                except FAILURES as error:
                    failures[model, task.name] = _with_remedy(explain(error), task)
    return failures


def tasks_of(models: Sequence[str], options: TransferConfig) -> list[Task]:
    """Returns the tasks that options name: ``data`` and ``task``, or else the suite.

    If all models are ``features:PATH`` and no images are named, the only task is the one in the
    files.
    """
    names = (*options.task, *options.data)
    if not names and all(model.startswith("features:") for model in models):
        return [Task("saved", "")]
    return choose(options.suite, names, options.sources, data_directory(options))


def is_unscored(
    options: TransferConfig,
) -> Callable[[Encoder, task_features.TaskPlan, Task], bool]:
    """Returns whether a task has no score yet under these settings, as a function of the task."""

    def unscored(encoder: Encoder, planned: task_features.TaskPlan, task: Task) -> bool:
        log = score_log.ScoreLog(encoder.directory / "transfer.jsonl")
        return not log.has(task.name, _key(planned, task, options))

    return unscored


def _left(models: Sequence[str], failures: Failures) -> list[str]:
    return [model for model in models if (model, ALL_TASKS) not in failures]


def _loaded(model: str, options: TransferConfig, display: Display) -> Encoder:
    encoder = load(model, options)
    for note in encoder.notes:
        display.say(f"{model}: {note}")
    if encoder.step is None:
        encoder.directory.mkdir(parents=True, exist_ok=True)
        display.say(f"{model}: results go to {encoder.directory}")
    return encoder


def _probe_model(
    model: str,
    encoder: Encoder,
    tasks: Sequence[Task],
    options: TransferConfig,
    display: Display,
    failures: Failures,
) -> summary.ModelScores:
    """Returns the scores of one model, and adds tasks without one to ``failures``."""
    root = encoder.directory
    log = score_log.ScoreLog(root / "transfer.jsonl")
    done = {}
    for task in tasks:
        if (model, task.name) in failures:
            continue
        display.begin(f"{encoder.name} {task.name}")
        try:
            planned = task_features.plan(encoder, task)
            key = _key(planned, task, options)
            if log.has(task.name, key):
                score = log.rows[task.name]["score"]
                display.say(f"{model} {task.name}: done before, {score:.4f}")
            else:
                path = root / "features" / f"path-{key}.npz"
                path.parent.mkdir(exist_ok=True)
                try:
                    row = _row(encoder, task, planned, options, display, path)
                except Unusable as error:  # Ours: damaged, or of another version.
                    display.say(f"{model} {task.name}: begun anew, {error}")
                    path.unlink()
                    row = _row(encoder, task, planned, options, display, path)
                log.add(row | {"key": key})
                path.unlink(missing_ok=True)
                display.say(_line(model, row))
            done[task.name] = log.rows[task.name]
        except FAILURES as error:
            failures[model, task.name] = _with_remedy(explain(error), task)
            display.say(f"{model} {task.name}: no score. {failures[model, task.name]}")
    if not options.keep_features:
        shutil.rmtree(root / "features", ignore_errors=True)
    return summary.ModelScores(root, done, encoder.test)


def _key(planned: task_features.TaskPlan, task: Task, options: TransferConfig) -> str:
    """Returns the digest of all that a score depends on."""
    settings = {name: getattr(options, name) for name in _OF_SCORES}
    protocol = {"score": task.score, "classes": task.classes, "format": _FORMAT}
    return identity.digest_json([planned.depends_on, protocol, settings])


def _row(
    encoder: Encoder,
    task: Task,
    planned: task_features.TaskPlan,
    options: TransferConfig,
    display: Display,
    path: Path,
) -> dict[str, Any]:
    """Computes features, probes them, and returns the row; ``path`` is the probe's resume file."""
    material = _make(encoder, task, planned, options, display)
    display.probing()
    start = time.perf_counter()
    scores = probe(material.splits, material.num_classes, task.score, options, path)
    scores["warnings"] = material.notes + scores["warnings"]
    return {
        "run": encoder.name,
        "experiment": encoder.experiment,
        "step": encoder.step,
        "task": task.name,
        **scores,
        "dropped": material.dropped,
        "features": {name: path.name for name, path in material.directories.items()},
        "feature_seconds": material.seconds,
        "probe_seconds": time.perf_counter() - start,
    }


def _make(
    encoder: Encoder,
    task: Task,
    planned: task_features.TaskPlan,
    options: TransferConfig,
    display: Display,
) -> task_features.Material:
    return task_features.make(
        encoder,
        task,
        planned,
        options,
        root=encoder.directory / "features",
        say=display.say,
        progress=display.images,
    )


def probe(
    splits: dict[str, selection.Samples],
    num_classes: int,
    score_name: str,
    options: TransferConfig,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Returns all scores of features: of the linear probe, and of the baselines.

    The splits are ``train``, ``test`` and perhaps ``validation``; ``resume`` is the checkpoint file
    of the path, see ``vci_jax.probe.iter_path``.

    Raises:
      ValueError: the features are not finite, or cannot be divided by class.
    """
    score = SCORES[score_name]
    train, test, validation = splits["train"], splits["test"], splits.get("validation")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = selection.sweep(
            train,
            test,
            validation=validation,
            score=score,
            seed=options.seed,
            num_classes=num_classes,
            dtype=np.dtype(options.precision),
            max_steps=options.max_steps,
            resume=resume,
        )
    messages = [
        str(warning.message) for warning in caught if warning.category is not DeprecationWarning
    ]
    parts = [train] if validation is None else [train, validation]
    features = np.concatenate([part.features for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    k = min(options.neighbours, len(labels))
    nearest = baselines.knn_predict(features, labels, test.features, k=k, num_classes=num_classes)
    kernel, bias, _ = baselines.least_squares(features, labels, num_classes)
    linear = selection.predict(kernel, bias, test.features)
    return {
        "score": result.score,
        "score_name": score_name,
        "l2": result.l2,
        "validation_score": result.validation_score,
        "value": result.value,
        "validation_curve": result.curve.tolist(),
        "probe_steps": int(result.fit.steps),
        "converged": bool(result.fit.converged),
        "knn_score": score(nearest, test.labels),
        "least_squares_score": score(linear, test.labels),
        "train_size": len(train.labels),
        "validation_size": 0 if validation is None else len(validation.labels),
        "test_size": len(test.labels),
        "num_classes": num_classes,
        "dim": int(train.features.shape[1]),
        "warnings": list(dict.fromkeys(messages)),
    }


def data_directory(options: TransferConfig) -> Path:
    """Returns where the data sets are."""
    return prepared.data_directory(options.data_dir)


def explain(error: BaseException) -> str:
    """Returns an error in the words of this command, whose settings have shorter names."""
    message = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
    message = message.replace("--data.source is", "its source is")
    return re.sub(r"--data\.(\w+)", lambda match: "--" + match[1].replace("_", "-"), message)


def _places(model: str, task: Task, material: task_features.Material) -> str:
    lines = []
    for name, directory in material.directories.items():
        files = directory.iterdir() if directory.is_dir() else [directory]
        size = sum(path.stat().st_size for path in files) / 2**20
        lines.append(f"\n  {name:10} {size:8.1f} MiB  {directory}")
    return f"{model} {task.name}:{''.join(lines)}"


def _with_remedy(message: str, task: Task) -> str:
    return f"{message} {task.remedy}" if task.remedy else message


def _line(model: str, row: dict[str, Any]) -> str:
    sizes = f"{row['train_size'] + row['validation_size']:,} + {row['test_size']:,} images"
    seconds = f"features {row['feature_seconds']:.0f} s, probe {row['probe_seconds']:.0f} s"
    notes = "".join(f"\n  {warning}" for warning in row["warnings"])
    score = f"{row['score']:.4f} ({row['score_name']}, value {row['value']:.3g}"
    return f"{model} {row['task']}: {score}; {sizes}; {seconds}){notes}"
