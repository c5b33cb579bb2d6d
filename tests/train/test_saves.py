"""When a run saves and measures, and what it notes of its batches."""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import optax
import pytest
import tiny_run

from train import checkpoint, loop, models
from train.config import CheckpointConfig, EvalConfig, LogConfig, OptimConfig
from train.step import TrainSpec, init_state, train_step


@pytest.fixture(scope="module")
def config():
    return tiny_run.tiny_config(epochs=2, log=LogConfig(every_steps=4))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    loop.train(config, workdir, tiny_run.console())
    return workdir


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))


def state(config, workdir):
    run = loop.prepare(config)
    with checkpoint.open_manager(workdir / "checkpoints", config.checkpoint, 9) as manager:
        return checkpoint.restore(manager, run.program.shapes, run.program.inspect, pytest.fail)


def test_checkpoints_come_every_so_many_steps(config, whole, tmp_path):
    """Their steps change no number, and a run that goes on from within an epoch ends the same."""
    saving = CheckpointConfig(every_epochs=100, every_steps=4, keep=100)
    often = dataclasses.replace(config, checkpoint=saving)
    loop.train(often, tmp_path / "run", tiny_run.console())
    assert saved_steps(tmp_path / "run") == [4, 8, 12, 16, 18]
    assert tiny_run.rows(tmp_path / "run") == tiny_run.rows(whole)
    for step in (16, 18):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    terminal = tiny_run.console()
    loop.train(often, tmp_path / "run", terminal)
    assert "Resuming from step 12 of 18" in terminal.file.getvalue()
    assert tiny_run.rows(tmp_path / "run") == tiny_run.rows(whole)
    for a, b in zip(
        *(jax.tree.leaves(state(config, w)[0]) for w in (whole, tmp_path / "run")), strict=True
    ):
        assert np.array_equal(a, b)


def test_checkpoints_come_every_so_many_minutes(config, whole, tmp_path, monkeypatch):
    """Here each look at the clock takes 20 s: the minute is over at the third step after a save."""
    seconds = iter(range(0, 10**6, 20))
    monkeypatch.setattr(checkpoint, "monotonic", lambda: next(seconds))
    saving = CheckpointConfig(every_epochs=100, every_minutes=1, keep=100)
    timed = dataclasses.replace(config, checkpoint=saving)
    loop.train(timed, tmp_path / "run", tiny_run.console())
    assert saved_steps(tmp_path / "run") == [3, 6, 9, 12, 15, 18]
    assert tiny_run.rows(tmp_path / "run") == tiny_run.rows(whole)


def test_another_metric_may_choose_the_best_from_now_on(tmp_path):
    """Checkpoints that were saved under the other one are no candidates."""
    before = CheckpointConfig(keep=1, keep_best=1, best="accuracy")
    now = CheckpointConfig(keep=1, keep_best=1, best="loss", best_is="lowest")
    tree = loop.TrainState(np.int32(0), {"w": np.ones(3, "f4")}, {}, (), {})
    for config, steps in ((before, (1, 2)), (now, (3, 4, 5))):
        with checkpoint.open_manager(tmp_path / "c", config, steps_per_epoch=1) as manager:
            for step in steps:
                row = {"accuracy": -step, "loss": float(step)}
                metrics = checkpoint.selection_metric(row, config)
                notes = checkpoint.Notes({}, 1.0)
                checkpoint.save(manager, tree, notes, step=step, fingerprint=0, metrics=metrics)
            manager.wait_until_finished()
            steps = list(manager.all_steps())
    assert steps == [3, 5]


def test_the_pass_before_training_can_be_left_out(config, whole, tmp_path):
    """The other rows are the same."""
    later = dataclasses.replace(
        config, eval=dataclasses.replace(config.eval, before_training=False)
    )
    rows = loop.train(later, tmp_path, tiny_run.console())
    assert [row["step"] for row in rows] == [9, 9, 18, 18]
    assert tiny_run.rows(tmp_path) == tiny_run.rows(whole)[2:]
    assert EvalConfig().before_training


def test_batches_are_noted(config, whole):
    """A line every four steps, with the rate of the schedule and what the batch took."""
    lines = [json.loads(line) for line in (whole / "batches.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 16]
    run = loop.prepare(config)
    for line in lines:
        assert line["learning_rate"] == pytest.approx(run.learning_rate(line["step"]))
        assert line["gradient_norm"] > 0
        assert line["images_per_second"] > 0
        assert 0 <= line["data_wait"] <= 1
    assert run.learning_rate(1) == 0
    assert run.learning_rate(10) == pytest.approx(config.optim.lr)
    cosine = config.optim.lr * (1 + math.cos(math.pi * 6 / 9)) / 2
    assert lines[3]["learning_rate"] == pytest.approx(cosine, rel=1e-5)


def test_the_learning_rate_is_that_of_the_update(config):
    """With gradients of several batches, that of the first of them."""
    run = loop.prepare(
        dataclasses.replace(config, optim=OptimConfig(lr=0.2, warmup_epochs=1, accumulate=3))
    )
    rates = [run.learning_rate(step) for step in range(1, 10)]
    assert rates == pytest.approx([0.2 * (step // 3 * 3) / 9 for step in range(9)])


def test_the_gradient_norm_is_that_of_plain_descent():
    """With a rate of 1 and no decay, the length of the step."""
    model = models.build(tiny_run.tiny_config().model, 10)
    optimizer = optax.sgd(1.0)
    task = TrainSpec(model, optimizer, None, optax.softmax_cross_entropy_with_integer_labels, None,
                None, (0.0,), (1.0,), 0)  # fmt: skip
    before = jax.jit(lambda: init_state(task, jax.random.key(0), (8, 8, 1)))()
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 16, (8, 8, 8, 1), np.uint8), "label": np.arange(8) % 3}
    after, scalars = jax.jit(train_step, static_argnums=0)(task, before, batch)
    step = jax.tree.map(lambda a, b: a - b, after.params, before.params)
    assert scalars["gradient_norm"] == pytest.approx(float(optax.tree.norm(step)), rel=1e-4)
