"""Schedules, optimisers and averages against closed forms, and torch where it is installed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import models, optim
from train.config import ConfigError, ModelConfig, OptimConfig


def test_cosine():
    """Linear to the peak, half-way between both at the middle of the cosine, then the end value."""
    config = OptimConfig(lr=0.4, warmup_epochs=2, warmup_lr=0.1, final_lr=0.02)
    schedule = optim.schedule(config, epochs=12, steps_per_epoch=5)
    assert [float(schedule(step)) for step in (0, 5, 10)] == pytest.approx([0.1, 0.25, 0.4])
    for step in (20, 35, 60):
        expected = 0.02 + 0.19 * (1 + math.cos(math.pi * (step - 10) / 50))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("warmup", [0, 2])
def test_step(warmup):
    """Level within an epoch, a factor lower in the next; the first after the warm-up has lr."""
    config = OptimConfig(lr=0.4, warmup_epochs=warmup, schedule="step")
    schedule = optim.schedule(config, epochs=300, steps_per_epoch=5)
    if warmup:
        assert [float(schedule(step)) for step in (0, 5)] == pytest.approx([0.0, 0.2])
    for epoch in (0, 1, 7, 290):
        first = 5 * (warmup + epoch)
        for step in (first, first + 4):
            assert float(schedule(step)) == pytest.approx(0.4 * 0.975**epoch, rel=1e-5)


def _minimise(config, gradients, start, *, rate=0.1):
    optimizer = optim.build(config, lambda count: rate)
    params = jax.tree.map(jnp.asarray, start)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        yield params


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_warm_up_from_zero_moves_no_weight_at_first(name):
    """One update, not two; a warm-up from another rate moves it at once."""
    moved = {}
    for begin in (0.0, 1e-3):
        config = OptimConfig(name=name, lr=0.1, warmup_epochs=1, warmup_lr=begin)
        optimizer = optim.build(config, optim.schedule(config, epochs=3, steps_per_epoch=4))
        params, gradient = jnp.asarray(2.0), jnp.asarray(1.0)
        state = optimizer.init(params)
        steps = []
        for _ in range(2):
            update, state = optimizer.update(gradient, state, params)
            params = params + update
            steps.append(float(update))
        moved[begin] = steps
    assert moved[0.0][0] == 0 != moved[0.0][1]
    assert moved[1e-3][0] < 0


def test_two_steps_by_hand():
    """g += wd p; v = m v + g; p -= lr (g + m v), as in torch."""
    config = OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.01)
    parameter, velocity = 2.0, 0.0
    for gradient, params in zip(
        (1.0, -3.0), _minimise(config, [jnp.asarray(1.0), jnp.asarray(-3.0)], 2.0), strict=True
    ):
        decayed = gradient + 0.01 * parameter
        velocity = 0.9 * velocity + decayed
        parameter -= 0.1 * (decayed + 0.9 * velocity)
        np.testing.assert_allclose(params, parameter, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_torch_takes_the_same_steps(name):
    """Decay on the kernel alone, as a parameter group of its own."""
    torch = pytest.importorskip("torch", reason="compares with torch where it is installed")
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    start = {key: value.astype(np.float32) for key, value in start.items()}
    gradients = [
        {key: rng.normal(size=v.shape).astype(np.float32) for key, v in start.items()}
        for _ in range(5)
    ]
    theirs = {key: torch.nn.Parameter(torch.tensor(value)) for key, value in start.items()}
    groups = [
        {"params": [theirs["kernel"]], "weight_decay": 0.05},
        {"params": [theirs["bias"]], "weight_decay": 0.0},
    ]
    if name == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.8, nesterov=True)
        config = OptimConfig(momentum=0.8, weight_decay=0.05, decay="kernels")
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.99))
        config = OptimConfig(name="adamw", betas=(0.8, 0.99), weight_decay=0.05, decay="kernels")
    for gradient, ours in zip(gradients, _minimise(config, gradients, start), strict=True):
        for key, parameter in theirs.items():
            parameter.grad = torch.tensor(gradient[key])
        optimizer.step()
        for key, parameter in theirs.items():
            np.testing.assert_allclose(ours[key], parameter.detach(), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "idle"),
    [
        (ModelConfig(name="_resnet6", width=2), {"scale", "bias"}),
        (ModelConfig(name="_vit_nano"), {"scale", "bias", "class_token", "position"}),
    ],
)
def test_kernels_alone_decay(model, idle):
    """With no gradient, only matrices and filters shrink; every other leaf stays as it is."""
    images = jnp.zeros((1, 32, 32, 3))
    init = models.build(model, 3).init
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), images, train=False))["params"]
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    zeros = jax.tree.map(jnp.zeros_like, params)
    config = OptimConfig(name="adamw", weight_decay=0.5, decay="kernels")
    (after,) = _minimise(config, [zeros], params)
    seen = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        seen.add(path[-1].key)
        np.testing.assert_allclose(leaf, 0.95 if path[-1].key == "kernel" else 1.0, rtol=1e-6)
    assert seen == idle | {"kernel"}


def test_long_gradients_are_scaled_down():
    """To the length asked for, all parameters together; short ones are left alone."""
    config = OptimConfig(momentum=0.0, weight_decay=0.0, clip_norm=1.0)
    start = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    gradients = [{"a": jnp.array([30.0]), "b": jnp.array([40.0])}]
    (after,) = _minimise(config, gradients, start, rate=1.0)
    np.testing.assert_allclose([after["a"][0], after["b"][0]], [-0.6, -0.8], rtol=1e-6)
    gradients = [{"a": jnp.array([0.3]), "b": jnp.array([0.4])}]
    (after,) = _minimise(config, gradients, start, rate=1.0)
    np.testing.assert_allclose([after["a"][0], after["b"][0]], [-0.3, -0.4], rtol=1e-6)


def test_accumulation_is_one_step_along_the_mean_gradient():
    """Three batches a step; the schedule, a function of batches, is read where the step began."""
    rates = optim.schedule(OptimConfig(warmup_epochs=3), epochs=4, steps_per_epoch=3)
    config = OptimConfig(accumulate=3, clip_norm=2.0)
    gradients = [jnp.asarray(g) for g in (1.0, 2.0, 6.0, -1.0, -1.0, 5.0, 4.0)]
    one_by_one = optim.build(config, rates)
    means = optim.build(OptimConfig(clip_norm=2.0), lambda count: rates(3 * count))
    params = expected = jnp.asarray(2.0)
    state, reference = one_by_one.init(params), means.init(expected)
    for index, gradient in enumerate(gradients):
        updates, state = one_by_one.update(gradient, state, params)
        params = params + updates
        if index % 3 == 2:
            mean = sum(gradients[index - 2 : index + 1]) / 3
            updates, reference = means.update(mean, reference, expected)
            expected = expected + updates
        np.testing.assert_allclose(params, expected, rtol=1e-6)
    assert float(params) != 2.0


@pytest.mark.parametrize("every", [1, 3])
def test_average(every):
    """d^n w_0 + (1 - d) sum d^(n-i) w_i over the n updates, not over batches between them."""
    decay, weights = 0.9, np.random.default_rng(0).normal(size=13)
    average = optim.build_average(OptimConfig(ema=decay, accumulate=every))
    averaged = {"w": jnp.asarray(weights[0], jnp.float32)}
    for step in range(1, 13):
        averaged = average(averaged, {"w": weights[step].astype(np.float32)}, jnp.asarray(step))
    updates = range(every, 13, every)
    n = len(updates)
    expected = decay**n * weights[0] + (1 - decay) * sum(
        decay ** (n - i) * weights[step] for i, step in enumerate(updates, start=1)
    )
    np.testing.assert_allclose(averaged["w"], expected, rtol=1e-5)


def test_no_decay_is_no_average():
    """The state then holds no second copy of the weights."""
    assert optim.build_average(OptimConfig()) is None


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (OptimConfig(name="adamw", momentum=0.5), "momentum is 0.5"),
        (OptimConfig(betas=(0.9, 0.99)), "betas is"),
        (OptimConfig(schedule="step", final_lr=1e-5), "final_lr is 1e-05"),
        (OptimConfig(step_factor=0.5), "step_factor is 0.5"),
        (OptimConfig(warmup_epochs=0, warmup_lr=0.1), "warmup_lr is 0.1"),
    ],
)
def test_settings_without_effect_are_refused(config, field):
    """Better than to be ignored."""
    with pytest.raises(ConfigError, match=f"--optim.{field}"):
        optim.build(config, lambda count: 0.1)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_head_may_decay_more(name):
    """Its kernel alone, by so much more; the state of the optimiser has no more arrays for it."""
    params = {"head": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "stem": {"kernel": jnp.ones(2)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    momentum = {"momentum": 0.0} if name == "sgd" else {}
    config = OptimConfig(name=name, weight_decay=0.2, head_decay=0.3, **momentum)
    (after,) = _minimise(config, [zeros], params, rate=0.1)
    np.testing.assert_allclose(after["head"]["kernel"], 0.95, rtol=1e-6)
    np.testing.assert_allclose(after["head"]["bias"], 0.98, rtol=1e-6)
    np.testing.assert_allclose(after["stem"]["kernel"], 0.98, rtol=1e-6)
