"""The training loop: train, measure, save, and resume where an earlier process stopped."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from rich.console import Console

from train import check, checkpoint, data, evaluate, initial, optim, processes, profile, program
from train import mesh as meshes
from train.config import Config
from train.data import digest
from train.display import TrainDisplay, print_facts
from train.errors import Preempted
from train.preemption import Guard, PreemptionHandler
from train.step import TrainState
from train.workdir import (
    check_init,
    claim,
    entered,
    owned,
    record_start,
    same_images,
    work_directory,
)
from train.writer import MetricWriter, NullWriter, Row, open_wandb
from vci_jax import picture


class TrainRun(NamedTuple):
    """The parts of a run that never change."""

    config: Config
    dataset: data.Dataset
    mesh: Any
    program: program.Program
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """The number of training steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def is_due(self, step: int, every_epochs: int) -> bool:
        """Whether a step ends an epoch in which something periodic is due; the last always does."""
        return step == self.steps or step % (every_epochs * self.steps_per_epoch) == 0

    def is_recorded(self, step: int) -> bool:
        """Whether the metrics are measured after a step."""
        if step == 0:
            return self.config.eval.before_training
        return self.is_due(step, self.config.eval.every_epochs)

    def is_saved(self, step: int) -> bool:
        """Whether a step has a checkpoint, apart from ``checkpoint.every_minutes``."""
        every = self.config.checkpoint.every_steps
        if every and step % every == 0:
            return True
        best = bool(self.config.checkpoint.keep_best) and self.is_recorded(step)
        return best or self.is_due(step, self.config.checkpoint.every_epochs)

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 1."""
        config, every = self.config, self.config.optim.accumulate
        rate = optim.schedule(
            config.optim, epochs=config.epochs, steps_per_epoch=self.steps_per_epoch
        )
        return float(rate((step - 1) // every * every))


class RunContext(NamedTuple):
    """Where the results of a run go, and what may end it early."""

    checkpoints: ocp.CheckpointManager
    writer: MetricWriter | NullWriter
    display: TrainDisplay
    preemption: PreemptionHandler
    guard: Guard
    clock: checkpoint.Clock
    initial: initial.Initial | None


def train(config: Config, workdir: Path, console: Console) -> list[Row]:
    """Trains from the start, or the last checkpoint in ``workdir``, to the end.

    Returns:
      The rows of ``metrics.jsonl``; none in processes other than the first, which alone prints.

    Raises:
      ConfigError: the config cannot be run, or ``workdir`` belongs to another config.
      Preempted: the process was asked to end, and the run is saved.
      Diverged: the loss is far too high, or a number is not finite.
    """
    workdir = work_directory(workdir)
    processes.join(config.mesh)
    console.quiet = jax.process_index() > 0
    with PreemptionHandler() as preemption:
        with processes.agreed():
            run = prepare(config)
        weights = _load_initial(run, workdir)
        with processes.agreed():
            facts = _checked_facts(run, workdir, weights)
        print_facts(console, [*facts, check.UNMEASURED])
        with (
            entered(config, workdir, run.dataset) as images,
            contextlib.closing(
                data.training_batches(run.dataset.train, config.data, config.seed)
            ) as batches,
            checkpoint.open_manager(
                workdir / "checkpoints", config.checkpoint, run.steps_per_epoch
            ) as manager,
        ):
            display = TrainDisplay(
                steps=run.steps, steps_per_epoch=run.steps_per_epoch, console=console
            )
            saved = checkpoint.restore(
                manager, run.program.shapes, run.program.inspect, display.say
            )
            guard = Guard(config.log.max_loss, config.optim.lr, saved and saved[1].first_loss)
            with _open_writer(run, workdir, saved, images, weights) as writer, display:
                clock = checkpoint.Clock(config.checkpoint.every_minutes, config.log.every_steps)
                context = RunContext(manager, writer, display, preemption, guard, clock, weights)
                if saved and saved[2] < run.steps:
                    display.say(f"Resuming from step {saved[2]} of {run.steps}.")
                elif saved:
                    display.say(f"{workdir} holds a finished run.")
                with profile.Trace(workdir / "profile", config.log.profile_steps) as trace:
                    _advance(run, context, batches, saved, trace)
                return list(writer.rows)


def inspect(config: Config, workdir: Path, console: Console) -> None:
    """Shows what ``train`` would do and checks its settings; writes nothing.

    Raises:
      ConfigError: as ``train`` does before its first step.
    """
    workdir = work_directory(workdir)
    processes.join(config.mesh)
    console.quiet = jax.process_index() > 0
    with processes.agreed():
        run = prepare(config)
    weights = _load_initial(run, workdir)
    with processes.agreed():
        facts = _checked_facts(run, workdir, weights, images=max(256, run.dataset.num_classes))
    facts += check.step_memory(run.program, run.dataset.image_shape, config.data.batch_size)
    with processes.agreed():
        if (workdir / "config.json").exists():
            claim(config, workdir)
            if processes.is_first():
                with owned(workdir, "training in"):
                    pass
    same_images(config, workdir, run.dataset)
    print_facts(console, facts)


def _checked_facts(
    run: TrainRun, workdir: Path, weights: initial.Initial | None, images: int = 64
) -> list[tuple[str, str]]:
    """Returns the facts of a run, or raises ConfigError if it cannot work."""
    config, dataset, built = run.config, run.dataset, run.program
    size = check.size_of(built.shapes)
    check.sizes(config, dataset)
    check.settings(config, run.steps, check.free_bytes(workdir), size)
    batch = check.batch_shapes(dataset.image_shape, config.data.batch_size)
    padded = meshes.round_up(config.eval.batch_size, run.mesh)
    measured = check.batch_shapes(dataset.image_shape, padded)
    with check.as_config_error("a training step cannot be built with these settings"):
        jax.eval_shape(built.train_step, built.shapes, batch)
    with check.as_config_error("the metrics cannot be taken with these settings"):
        tally = jax.eval_shape(built.init_tally)
        jax.eval_shape(built.add_batch, tally, built.shapes, measured)
    devices = run.mesh.size
    check.memory(
        size // config.mesh.model, check.size_of(tally) // devices, check.size_of(batch) // devices
    )
    for split in (dataset.train, dataset.test):
        check.images(split, config.data, images)
    facts = list(check.facts(config, dataset, run.steps_per_epoch, size, run.mesh.size))
    if weights:
        facts += [("init", f"{config.init}: {weights.notes[0]}")]
        facts += [("", note) for note in weights.notes[1:]]
    return facts


def _load_initial(run: TrainRun, workdir: Path) -> initial.Initial | None:
    """Returns the weights of --init; None without it, or once the run has a checkpoint."""
    started = np.array(checkpoint.latest_step(workdir / "checkpoints") is not None)
    if not run.config.init or multihost_utils.broadcast_one_to_all(started):
        return None
    weights = initial.load(run.config, run.program.shapes, run.dataset.image_shape, run.mesh)
    check_init(workdir, weights.origin)
    return weights


def prepare(config: Config) -> TrainRun:
    """Loads the data and builds the program; computes and writes nothing."""
    mesh = meshes.make_mesh(config.mesh)
    meshes.check_divisible(config.data.batch_size, mesh)
    dataset = data.load(config.data)
    steps_per_epoch = data.steps_per_epoch(dataset.train, config.data)
    spec = program.build_spec(config, dataset.num_classes, steps_per_epoch)
    with check.as_config_error(f"{config.model.name} cannot take these images"):
        built = program.build(
            spec,
            mesh,
            image_shape=dataset.image_shape,
            num_classes=dataset.num_classes,
            layers=config.eval.layers,
            blocks=config.eval.blocks,
        )
    return TrainRun(config, dataset, mesh, built, steps_per_epoch)


def measure(
    run: TrainRun,
    state: TrainState,
    split: data.Split,
    preemption: PreemptionHandler | None = None,
    tell: Callable[[int, int], None] = lambda done, batches: None,
) -> Row | None:
    """Returns the accuracy, the loss and every metric of a split under the test transform.

    Returns None if the run is asked to end meanwhile. ``tell(done, batches)`` reports progress.
    """
    state = _measured(run, state)
    with contextlib.closing(_evaluation_batches(run, split, tell)) as batches:
        return evaluate.evaluate(
            run.program.init_tally(),
            state,
            batches,
            step=run.program.add_batch,
            merge=run.program.merge,
            stop=preemption.now if preemption else lambda: False,
        )


def draw(
    run: TrainRun, state: TrainState, split: data.Split, plane: picture.Plane
) -> dict[str, Any]:
    """Returns the positions of a few images of a split in a plane."""
    sample = evaluate.sample(split.records)
    few = dataclasses.replace(split, records=sample)
    settings = dataclasses.replace(run.config.data, workers=0)  # One batch is not worth a process.
    padded = meshes.round_up(sample.size, run.mesh)
    with contextlib.closing(data.evaluation_batches(few, settings, sample.size, padded)) as batches:
        batch = meshes.put_batch(next(batches), run.mesh)
    return picture.draw(plane, *run.program.features(_measured(run, state), batch))


def _measured(run: TrainRun, state: TrainState) -> TrainState:
    """Returns the weights to measure, replicated on every device."""
    return run.program.gather(state.averaged if run.config.eval.averaged else state)


def _open_writer(
    run: TrainRun,
    workdir: Path,
    saved: tuple[TrainState, checkpoint.Notes, int] | None,
    images: digest.Description,
    weights: initial.Initial | None,
) -> MetricWriter | NullWriter:
    if jax.process_index():
        return NullWriter()
    config = run.config
    last = -1 if saved is None else saved[2]
    if last < run.steps:
        origin = weights.origin if weights and saved is None else None
        record_start(workdir, step=max(last, 0), images=images, init=origin)
    wandb = open_wandb(config.log.wandb, workdir, dataclasses.asdict(config))
    return MetricWriter(workdir, last_step=last, wandb=wandb)


def _advance(
    run: TrainRun,
    context: RunContext,
    batches: data.TrainingBatches,
    saved: tuple[TrainState, checkpoint.Notes, int] | None,
    trace: profile.Trace,
) -> None:
    """Takes the remaining steps, and records and saves when that is due."""
    if saved is None:
        state, start = run.program.init_state(jax.random.key(run.config.seed)), 0
        if context.initial:
            state = initial.begin(state, context.initial)
    else:
        state, notes, start = saved
        batches.set_state(notes.data)
    prefetcher = data.DevicePrefetcher(batches, partial(meshes.put_batch, mesh=run.mesh))
    # Rows are missing if the run was interrupted while they were being measured.
    recorded = multihost_utils.broadcast_one_to_all(np.array(context.writer.has(start)))
    if run.is_recorded(start) and not recorded:
        _conclude(run, context, state, prefetcher, step=start, save=False)
    previous: tuple[int, dict[str, jax.Array]] | None = None
    watch = profile.Stopwatch()
    for step in range(start + 1, run.steps + 1):
        trace.before(step - start)
        with watch.waiting():
            batch = next(prefetcher)
        state, scalars = run.program.train_step(state, batch)
        del batch  # Frees its memory.
        # The host reads the scalars of a step once the next one is running, and so delays none.
        if previous is not None:
            _show_step(run, context, *previous, watch=watch)
        previous = (step, scalars)
        stop = context.preemption.now()
        save = run.is_saved(step) or context.clock.is_due(step)
        if not (stop or run.is_recorded(step) or save):
            continue
        _show_step(run, context, *previous, watch=watch)
        previous = None
        _conclude(run, context, state, prefetcher, step=step, save=save, rate=watch.rate())
        if run.is_recorded(step):
            watch.begin()


def _conclude(
    run: TrainRun,
    context: RunContext,
    state: TrainState,
    batches: data.DevicePrefetcher,
    *,
    step: int,
    save: bool,
    rate: float | None = None,
) -> None:
    """Does what is due after a step: records, saves, and raises Preempted on a request to end."""
    rows, due = None, run.is_recorded(step)
    if due and not context.preemption.noted:
        rows = _record(run, context, state, step=step, rate=rate)
    stop = context.preemption.now()
    if (save or stop) and context.checkpoints.latest_step() != step:
        _save(run, context, state, batches, step=step, rows=rows)
    if stop and (step < run.steps or (due and not rows)):
        context.checkpoints.wait_until_finished()
        raise Preempted(
            f"asked to end, and saved at step {step} of {run.steps}; the same command resumes."
        )


def _show_step(
    run: TrainRun,
    context: RunContext,
    step: int,
    scalars: dict[str, jax.Array],
    *,
    watch: profile.Stopwatch,
) -> None:
    """Shows a finished step; every ``log.every_steps`` of them one is written to the curves."""
    values = {key: float(value) for key, value in scalars.items()}
    context.guard.check(step, values["loss"])
    watch.add(run.config.data.batch_size)
    speed = {"images_per_second": watch.rate(), "data_wait": watch.wait_share()}
    context.display.step(step, values | speed)
    if step % run.config.log.every_steps == 0:
        rate, memory = run.learning_rate(step), profile.device_memory()
        further = {"learning_rate": rate, "device_memory": memory}
        context.writer.scalars(step, values | further | speed)


def _record(
    run: TrainRun, context: RunContext, state: TrainState, *, step: int, rate: float | None = None
) -> list[Row] | None:
    """Measures both splits and writes a row for each; None if the run is asked to end meanwhile."""
    rows: list[Row] = []
    plane = None
    for name, split in (("train", run.dataset.train), ("test", run.dataset.test)):
        start = time.perf_counter()
        tell = partial(context.display.measure, name)
        measured = measure(run, state, split, context.preemption, tell)
        if measured is None:
            return None
        own_plane = measured.pop("plane")
        plane = plane or own_plane  # Both splits are drawn in the plane of the train split.
        measured["per_class"]["name"] = list(run.dataset.classes)
        measured["picture"] = draw(run, state, split, plane)
        row = {"step": step, "epoch": step // run.steps_per_epoch, "split": name, **measured}
        rows.append(row | {"seconds": time.perf_counter() - start, "images_per_second": rate})
    context.writer.write(rows)
    context.display.record(*rows)
    return rows


def _save(
    run: TrainRun,
    context: RunContext,
    state: TrainState,
    batches: data.DevicePrefetcher,
    *,
    step: int,
    rows: list[Row] | None,
) -> None:
    """Starts a checkpoint, with the metric of the test split that selects the best ones."""
    context.clock.begin()
    fingerprint, finite = run.program.inspect(state)
    if not finite:
        context.guard.give_up(step, "the weights are no longer finite")
    metrics = None if rows is None else checkpoint.selection_metric(rows[1], run.config.checkpoint)
    notes = checkpoint.Notes(data=batches.get_state(), first_loss=context.guard.first)
    checkpoint.save(
        context.checkpoints, state, notes, step=step, fingerprint=int(fingerprint), metrics=metrics
    )


def _evaluation_batches(
    run: TrainRun, split: data.Split, tell: Callable[[int, int], None]
) -> Generator[dict[str, jax.Array], None, None]:
    size = run.config.eval.batch_size
    padded, total = meshes.round_up(size, run.mesh), -(-split.size // size)
    for done, batch in enumerate(data.evaluation_batches(split, run.config.data, size, padded)):
        tell(done, total)
        yield meshes.put_batch(batch, run.mesh)
