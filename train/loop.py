"""The course of a run: train, measure, save, and go on from where an earlier process stopped."""

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

from train import (
    check,
    checkpoint,
    data,
    evaluate,
    initial,
    optim,
    processes,
    profile,
    program,
)
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
from train.writer import MetricWriter, NullWriter, Row, open_wandb, to_floats
from vci_jax import picture


class TrainRun(NamedTuple):
    """What stays the same from the first step to the last."""

    config: Config
    dataset: data.Dataset
    mesh: Any
    program: program.Program
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Training steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def is_due(self, step: int, every_epochs: int) -> bool:
        """Whether something that happens every few epochs, and at the end, happens after a step."""
        return step == self.steps or step % (every_epochs * self.steps_per_epoch) == 0

    def is_recorded(self, step: int) -> bool:
        """Whether the metrics are taken after a step."""
        if step == 0:
            return self.config.eval.before_training
        return self.is_due(step, self.config.eval.every_epochs)

    def is_saved(self, step: int) -> bool:
        """Whether a checkpoint is made after a step, whatever the time."""
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
    """Where the results of a run go, and what may end it."""

    checkpoints: ocp.CheckpointManager
    writer: MetricWriter | NullWriter
    display: TrainDisplay
    preemption: PreemptionHandler
    guard: Guard
    clock: checkpoint.Clock
    initial: initial.Initial | None


def train(config: Config, workdir: Path, console: Console) -> list[Row]:
    """Trains to the end, or from the last checkpoint to the end.

    Args:
      config: of the run.
      workdir: of the run; new, or left by an interrupted run with the same config.
      console: where progress appears; of several processes only the first says anything.

    Returns:
      The rows of ``metrics.jsonl``; none in processes other than the first.

    Raises:
      ConfigError: the config cannot be run, or ``workdir`` was made by another.
      Preempted: the process was asked to end, and the run is saved.
      Diverged: the loss or the weights are beyond repair.
    """
    workdir = work_directory(workdir)
    processes.join(config.mesh)
    console.quiet = jax.process_index() > 0
    with PreemptionHandler() as preemption:
        with processes.agreed():
            run = prepare(config)
        weights = _initial(run, workdir)
        with processes.agreed():
            facts = _inspected(run, workdir, weights)
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
                    display.say(f"Going on from step {saved[2]} of {run.steps}.")
                elif saved:
                    display.say(f"{workdir} holds a finished run.")
                with profile.Trace(workdir / "profile", config.log.profile_steps) as tracing:
                    _advance(run, context, batches, saved, tracing)
                return list(writer.rows)


def inspect(config: Config, workdir: Path, console: Console) -> None:
    """Shows what ``train`` would do, and finds the mistakes that it would find; writes nothing.

    Raises:
      ConfigError: as ``train`` does before its first step.
    """
    workdir = work_directory(workdir)
    processes.join(config.mesh)
    console.quiet = jax.process_index() > 0
    with processes.agreed():
        run = prepare(config)
    weights = _initial(run, workdir)
    with processes.agreed():
        facts = _inspected(run, workdir, weights, images=max(256, run.dataset.num_classes))
    facts += check.step_memory(run.program, run.dataset.image_shape, config.data.batch_size)
    with processes.agreed():
        if (workdir / "config.json").exists():
            claim(config, workdir)
            if processes.is_first():
                with owned(workdir, "training in"):
                    pass
    same_images(config, workdir, run.dataset)
    print_facts(console, facts)


def _inspected(
    run: TrainRun, workdir: Path, weights: initial.Initial | None, images: int = 64
) -> list[tuple[str, str]]:
    """Returns the facts of a run, or raises ConfigError for what cannot work."""
    config, dataset, built = run.config, run.dataset, run.program
    size = check.size_of(built.shapes)
    check.sizes(config, dataset)
    check.settings(config, run.steps, check.free_bytes(workdir), size)
    batch = check.batch_shapes(dataset.image_shape, config.data.batch_size)
    padded = meshes.round_up(config.eval.batch_size, run.mesh)
    measured = check.batch_shapes(dataset.image_shape, padded)
    with check.explained("a training step cannot be built with these settings"):
        jax.eval_shape(built.train_step, built.shapes, batch)
    with check.explained("the metrics cannot be taken with these settings"):
        tally = jax.eval_shape(built.init_tally)
        jax.eval_shape(built.add_batch, tally, built.shapes, measured)
    devices = run.mesh.size
    check.memory(
        size // config.mesh.model, check.size_of(tally) // devices, check.size_of(batch) // devices
    )
    for split in (dataset.train, dataset.test):
        check.images(split, config.data, images)
    about = list(check.facts(config, dataset, run.steps_per_epoch, size, run.mesh.size))
    if weights:
        about += [("init", f"{config.init}: {weights.notes[0]}")]
        about += [("", note) for note in weights.notes[1:]]
    return about


def _initial(run: TrainRun, workdir: Path) -> initial.Initial | None:
    """Returns the weights to start from; None where they are drawn, or a checkpoint has them."""
    started = np.array(checkpoint.latest_step(workdir / "checkpoints") is not None)
    if not run.config.init or multihost_utils.broadcast_one_to_all(started):
        return None
    found = initial.load(run.config, run.program.shapes, run.dataset.image_shape, run.mesh)
    check_init(workdir, found.origin)
    return found


def prepare(config: Config) -> TrainRun:
    """Loads the data and builds the program; nothing is computed or written yet."""
    mesh = meshes.make_mesh(config.mesh)
    meshes.check_divisible(config.data.batch_size, mesh)
    dataset = data.load(config.data)
    steps_per_epoch = data.steps_per_epoch(dataset.train, config.data)
    spec = program.build_spec(config, dataset.num_classes, steps_per_epoch)
    with check.explained(f"{config.model.name} cannot take these images"):
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

    Returns None if the run is asked to end meanwhile. ``tell`` hears of each batch of how many.
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
    """Returns where a few images of a split lie in a plane."""
    shown = evaluate.sample(split.records)
    few = dataclasses.replace(split, records=shown)
    settings = dataclasses.replace(run.config.data, workers=0)  # One batch is not worth a process.
    padded = meshes.round_up(shown.size, run.mesh)
    with contextlib.closing(data.evaluation_batches(few, settings, shown.size, padded)) as batches:
        batch = meshes.put_batch(next(batches), run.mesh)
    return picture.draw(plane, *run.program.features(_measured(run, state), batch))


def _measured(run: TrainRun, state: TrainState) -> TrainState:
    """Returns the weights that are measured, whole on every device."""
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
    tracing: profile.Trace,
) -> None:
    """Takes every step that is left, and records and saves when it is time."""
    if saved is None:
        state, start = run.program.init_state(jax.random.key(run.config.seed)), 0
        assert context.initial or not run.config.init, "read wherever there is no checkpoint"
        if context.initial:
            state = initial.begin(state, context.initial)
    else:
        state, notes, start = saved
        batches.set_state(notes.data)
    arriving = data.DevicePrefetcher(batches, partial(meshes.put_batch, mesh=run.mesh))
    # Rows that are missing: the run was asked to end while they were being measured.
    recorded = multihost_utils.broadcast_one_to_all(np.array(context.writer.has(start)))
    if run.is_recorded(start) and not recorded:
        _conclude(run, context, state, arriving, step=start, save=False)
    late: tuple[int, dict[str, jax.Array]] | None = None
    watch = profile.Stopwatch()
    for step in range(start + 1, run.steps + 1):
        tracing.before(step - start)
        with watch.waiting():
            batch = next(arriving)
        state, scalars = run.program.train_step(state, batch)
        del batch  # It was donated, or is not needed any more.
        # The host looks at a step only once the next one is under way, so it never holds it up.
        if late is not None:
            _follow(run, context, *late, watch=watch)
        late = (step, scalars)
        stop = context.preemption.now()
        save = run.is_saved(step) or context.clock.is_due(step)
        if not (stop or run.is_recorded(step) or save):
            continue
        _follow(run, context, *late, watch=watch)
        late = None
        _conclude(run, context, state, arriving, step=step, save=save, rate=watch.rate())
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
    """Does what is due after a step: records, saves, and ends the run if that is asked for."""
    rows, due = None, run.is_recorded(step)
    if due and not context.preemption.noted:
        rows = _record(run, context, state, step=step, rate=rate)
    stop = context.preemption.now()
    if (save or stop) and context.checkpoints.latest_step() != step:
        _save(run, context, state, batches, step=step, rows=rows)
    if stop and (step < run.steps or (due and not rows)):
        context.checkpoints.wait_until_finished()
        raise Preempted(
            f"asked to end, and saved at step {step} of {run.steps}; the same command goes on."
        )


def _follow(
    run: TrainRun,
    context: RunContext,
    step: int,
    scalars: dict[str, jax.Array],
    *,
    watch: profile.Stopwatch,
) -> None:
    """Shows a finished step, and puts some of them on the TensorBoard curves."""
    values = to_floats(scalars)
    context.guard.check(step, values["loss"])
    watch.add(run.config.data.batch_size)
    speed = {"images_per_second": watch.rate(), "data_wait": watch.wait_share()}
    context.display.step(step, values | speed)
    if step % run.config.log.every_steps == 0:
        about = {"learning_rate": run.learning_rate(step), "device_memory": profile.device_memory()}
        context.writer.scalars(step, values | about | speed)


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
        own = measured.pop("plane")
        plane = plane or own  # That of the train split, for both.
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
    """Begins a checkpoint, with the numbers of the test split to choose the best by."""
    context.clock.begin()
    fingerprint, finite = run.program.inspect(state)
    if not finite:
        context.guard.give_up(step, "the weights are no longer finite")
    metrics = None if rows is None else checkpoint.to_choose_by(rows[1], run.config.checkpoint)
    notes = checkpoint.Notes(data=batches.get_state(), first_loss=context.guard.first)
    checkpoint.save(
        context.checkpoints,
        state,
        notes,
        step=step,
        fingerprint=int(fingerprint),
        metrics=metrics,
    )


def _evaluation_batches(
    run: TrainRun, split: data.Split, tell: Callable[[int, int], None]
) -> Generator[dict[str, jax.Array], None, None]:
    size = run.config.eval.batch_size
    padded, total = meshes.round_up(size, run.mesh), -(-split.size // size)
    for done, batch in enumerate(data.evaluation_batches(split, run.config.data, size, padded)):
        tell(done, total)
        yield meshes.put_batch(batch, run.mesh)
