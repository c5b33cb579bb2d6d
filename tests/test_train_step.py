"""The step: which parts of the state move, and that evaluation treats images one by one."""

from functools import partial

import jax
import numpy as np
import pytest

from train import losses, models, optim
from train.config import LossConfig, ModelConfig, OptimConfig
from train.step import Task, init_state, predict, train_step


@pytest.fixture(scope="module")
def task():
    """A tiny network under plain settings."""
    return Task(
        model=models.build(ModelConfig(name="_resnet6", width=4, stem="cifar"), 3),
        optimizer=optim.build(OptimConfig(), lambda step: 0.1),
        average=None,
        loss=losses.build(LossConfig()),
        regulariser=None,
        mix=None,
        mean=(100.0,),
        std=(50.0,),
        seed=0,
    )


@pytest.fixture(scope="module")
def state(task):
    """Before the first step."""
    return jax.jit(partial(init_state, task, image_shape=(8, 8, 1)))(jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    """Three classes that differ in brightness."""
    labels = np.arange(12) % 3
    noise = np.random.default_rng(0).integers(0, 20, (12, 8, 8, 1))
    return {"image": (noise + 80 * labels[:, None, None, None]).astype(np.uint8), "label": labels}


def test_steps_lower_the_loss_and_count(task, state, batch):
    """Thirty steps on one batch fit it; every part of the state has moved."""
    step = jax.jit(partial(train_step, task))
    first, after = None, state
    for _ in range(30):
        after, scalars = step(after, batch)
        first = scalars if first is None else first
    assert int(after.step) == 30
    assert float(scalars["loss"]) < float(first["loss"]) / 10
    assert float(scalars["accuracy"]) == 1.0
    for part in ("params", "batch_stats", "opt_state"):
        pairs = zip(
            jax.tree.leaves(getattr(state, part)),
            jax.tree.leaves(getattr(after, part)),
            strict=True,
        )
        assert all(np.any(old != new) for old, new in pairs), part


def test_prediction_does_not_depend_on_the_other_images(task, state, batch):
    """In evaluation mode an image has the same features alone and in a batch."""
    run = jax.jit(partial(predict, task))
    together = run(state, batch["image"])
    alone = run(state, batch["image"][:1])
    for whole, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(whole[:1], one, rtol=1e-5, atol=1e-6)
