"""The course of a run: train, measure, save, and go on from where an earlier process stopped."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from rich.console import Console

from train import checkpoint, data, evaluate, log, losses, models, optim
from train import mesh as meshes
from train.claim import claim
from train.config import Config, ConfigError
from train.data import mix
from train.display import Display
from train.step import Task, TrainState, init_state, predict, train_step


class Program(NamedTuple):
    """The compiled functions of a run."""

    init_state: Callable[[jax.Array], TrainState]
    train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    init_tally: Callable[[], evaluate.Tally]
    add_batch: Callable[..., evaluate.Tally]


class Run(NamedTuple):
    """What stays the same from the first step to the last."""

    config: Config
    dataset: data.Dataset
    mesh: Any
    program: Program
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Training steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def is_due(self, step: int, every_epochs: int) -> bool:
        """Whether something that happens every few epochs, and at the end, happens after a step."""
        return step == self.steps or step % (every_epochs * self.steps_per_epoch) == 0


class Outputs(NamedTuple):
    """Where the results of a run go."""

    checkpoints: ocp.CheckpointManager
    journal: log.Journal
    display: Display


def train(config: Config, workdir: Path, console: Console) -> list[log.Row]:
    """Trains to the end, or from the last checkpoint to the end.

    Args:
      config: of the run.
      workdir: of the run; new, or left by an interrupted run with the same config.
      console: where progress appears.

    Returns:
      The rows of ``metrics.jsonl``.

    Raises:
      ConfigError: the config cannot be run, or ``workdir`` was made by another.
    """
    run = prepare(config)
    claim(config, workdir)
    batches = data.training_batches(run.dataset.train, config.data, config.seed)
    state = run.program.init_state(jax.random.key(config.seed))
    with (
        contextlib.closing(batches),
        checkpoint.open_manager(workdir / "checkpoints", config.checkpoint) as manager,
    ):
        state, start = checkpoint.restore(manager, state, batches)
        display = Display(steps=run.steps, steps_per_epoch=run.steps_per_epoch, console=console)
        with log.Journal(workdir, resume_step=start) as journal, display:
            outputs = Outputs(manager, journal, display)
            if start is None:
                _record(run, outputs, state, step=0)
            elif start < run.steps:
                display.say(f"Going on from step {start} of {run.steps}.")
            else:
                display.say(f"{workdir} holds a finished run.")
            _advance(run, outputs, state, batches=batches, start=start or 0)
            return journal.rows


def prepare(config: Config) -> Run:
    """Loads the data and builds the program; nothing is computed or written yet."""
    mesh = meshes.make_mesh()
    meshes.check_divisible(config.data.batch_size, mesh)
    dataset = data.load(config.data)
    steps_per_epoch = data.steps_per_epoch(dataset.train, config.data)
    task = Task(
        model=models.build(config.model, dataset.num_classes),
        optimizer=optim.build(
            config.optim,
            optim.schedule(config.optim, epochs=config.epochs, steps_per_epoch=steps_per_epoch),
        ),
        average=optim.build_average(config.optim),
        loss=losses.build(config.loss),
        regulariser=losses.build_regulariser(config.loss),
        mix=_mix(config, dataset.num_classes),
        mean=config.data.mean,
        std=config.data.std,
        seed=config.seed,
    )
    return Run(config, dataset, mesh, compile_program(task, dataset, mesh), steps_per_epoch)


def _mix(config: Config, num_classes: int) -> Callable[..., dict[str, jax.Array]] | None:
    settings = config.data.mix
    if not (settings.mixup or settings.cutmix or settings.label_smoothing):
        return None
    return mix.build(settings, num_classes, config.data.repeats)


def compile_program(task: Task, dataset: data.Dataset, mesh: Any) -> Program:
    """Attaches jit, shardings and donation: here, and nowhere else.

    Batches are divided among the devices and everything else is replicated, from birth on. The
    state and the tally are donated: each step writes its result where its input was, so neither
    is ever held twice.
    """
    whole, divided = meshes.replicated(mesh), meshes.batch_sharding(mesh)
    init = partial(init_state, task, image_shape=dataset.image_shape)
    state = jax.eval_shape(init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((1, *dataset.image_shape), "uint8")
    _, features = jax.eval_shape(partial(predict, task), state, images)
    tally = partial(evaluate.init_tally, dataset.num_classes, features.shape[-1])
    return Program(
        init_state=jax.jit(init, out_shardings=whole),
        train_step=jax.jit(
            partial(train_step, task),
            in_shardings=(whole, divided),
            out_shardings=whole,
            donate_argnums=0,
        ),
        init_tally=jax.jit(tally, out_shardings=whole),
        add_batch=jax.jit(
            partial(evaluate.add_batch, task),
            in_shardings=(whole, whole, divided),
            out_shardings=whole,
            donate_argnums=0,
        ),
    )


def measure(run: Run, state: TrainState, split: data.Split) -> log.Row:
    """Returns the accuracy, the loss and every metric of a split under the test transform."""
    state = state.averaged if run.config.eval.averaged else state
    tally, step = run.program.init_tally(), run.program.add_batch
    return evaluate.evaluate(tally, state, _evaluation_batches(run, split), step=step)


def _advance(
    run: Run,
    outputs: Outputs,
    state: TrainState,
    *,
    batches: data.TrainingBatches,
    start: int,
) -> None:
    """Takes every step after ``start``, and records and saves when it is time."""
    arriving = data.Ahead(batches, partial(meshes.put_batch, mesh=run.mesh))
    late: tuple[int, dict[str, jax.Array]] | None = None
    watch = log.Stopwatch()
    for step in range(start + 1, run.steps + 1):
        state, scalars = run.program.train_step(state, next(arriving))
        # The host looks at a step only once the next one is under way, so it never holds it up.
        if late is not None:
            _follow(run, outputs, *late, watch=watch)
        late = (step, scalars)
        record = run.is_due(step, run.config.eval.every_epochs)
        save = run.is_due(step, run.config.checkpoint.every_epochs)
        if not (record or save):
            continue
        _follow(run, outputs, *late, watch=watch)
        late = None
        if record:
            _record(run, outputs, state, step=step, rate=watch.rate())
        if save:
            checkpoint.save(outputs.checkpoints, state, arriving, step)
        watch.begin()


def _follow(
    run: Run,
    outputs: Outputs,
    step: int,
    scalars: dict[str, jax.Array],
    *,
    watch: log.Stopwatch,
) -> None:
    """Shows a finished step, and puts some of them on the TensorBoard curves."""
    values = log.to_floats(scalars)
    if not math.isfinite(values["loss"]):
        raise ConfigError(
            f"the loss is {values['loss']} at step {step}: training diverged. Lower --optim.lr "
            f"(it is {run.config.optim.lr}) or raise --optim.warmup_epochs, in a new directory."
        )
    watch.add(run.config.data.batch_size)
    outputs.display.step(step, values, watch.rate())
    if step % run.config.log.every_steps == 0:
        outputs.journal.scalars(step, values)


def _record(
    run: Run, outputs: Outputs, state: TrainState, *, step: int, rate: float | None = None
) -> None:
    """Measures both splits and writes a row for each."""
    rows = []
    for name, split in (("train", run.dataset.train), ("test", run.dataset.test)):
        start = time.perf_counter()
        row = {"step": step, "epoch": step // run.steps_per_epoch, "split": name}
        row |= measure(run, state, split)
        row |= {"seconds": time.perf_counter() - start, "images_per_second": rate}
        outputs.journal.write(row)
        rows.append(row)
    outputs.display.record(*rows)


def _evaluation_batches(run: Run, split: data.Split) -> Iterator[dict[str, jax.Array]]:
    size = run.config.eval.batch_size
    padded = meshes.round_up(size, run.mesh)
    for batch in data.evaluation_batches(split, run.config.data, size, padded):
        yield meshes.put_batch(batch, run.mesh)
