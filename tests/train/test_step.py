"""The step: what moves, what is random, and what evaluation must not depend on."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from train import losses, models, optim
from train.config import LossConfig, MixConfig, ModelConfig, OptimConfig
from train.data import mix
from train.step import TrainSpec, init_state, predict, predict_layers, train_step

RESNET = ModelConfig(name="_resnet6", width=4, stem="cifar", bn_group=6)
VIT = ModelConfig(name="_vit_nano", patch=4, drop_path=0.4)
LOSS, SGD = LossConfig(), OptimConfig()


def _task(model=RESNET, loss=LOSS, optimizer=SGD, mixing=None, rate=0.1):
    return TrainSpec(
        model=models.build(model, 3),
        optimizer=optim.build(optimizer, lambda step: rate),
        average=optim.build_average(optimizer),
        loss=losses.build(loss),
        regulariser=losses.build_regulariser(loss, 3),
        mix=mixing,
        mean=(100.0,),
        std=(50.0,),
        seed=5,
    )


def _init(task):
    return jax.jit(partial(init_state, task, image_shape=(8, 8, 1)))(jax.random.key(0))


@pytest.fixture(scope="module")
def task():
    """A tiny ResNet under plain settings, and an average of its weights."""
    return _task(optimizer=OptimConfig(ema=0.5))


@pytest.fixture(scope="module")
def state(task):
    """Before the first step."""
    return _init(task)


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
    for part in ("params", "batch_stats", "opt_state", "ema"):
        pairs = zip(
            jax.tree.leaves(getattr(state, part)),
            jax.tree.leaves(getattr(after, part)),
            strict=True,
        )
        assert all(np.any(old != new) for old, new in pairs), part


def test_the_average_starts_at_the_weights_and_follows_them(task, state, batch):
    """With decay 1/2 it is half-way after one step; ``averaged`` puts it in the network's place."""
    chex.assert_trees_all_equal(state.ema, state.variables)
    after, _ = jax.jit(partial(train_step, task))(state, batch)
    halfway = jax.tree.map(lambda a, b: (a + b) / 2, state.variables, after.variables)
    chex.assert_trees_all_close(after.averaged.variables, halfway, rtol=1e-6, atol=1e-7)
    assert after.averaged.head[0] is after.ema["params"]["head"]["kernel"]
    assert after.averaged.step is after.step


def test_prediction_does_not_depend_on_the_other_images(task, state, batch):
    """In evaluation mode an image has the same features alone and in a batch."""
    run = jax.jit(partial(predict, task))
    together = run(state, batch["image"])
    alone = run(state, batch["image"][:1])
    for whole, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(whole[:1], one, rtol=1e-5, atol=1e-6)


def test_layers_end_in_the_prediction(task, state, batch):
    """Every depth by name, and last what ``predict`` returns."""
    layers = jax.jit(partial(predict_layers, task))(state, batch["image"])
    logits, features = jax.jit(partial(predict, task))(state, batch["image"])
    assert list(layers) == ["stem", "stage1_block1", "features", "logits"]
    assert {name: rows.shape for name, rows in layers.items()} == {
        "stem": (12, 4),
        "stage1_block1": (12, 4),
        "features": (12, 8),
        "logits": (12, 3),
    }
    np.testing.assert_allclose(layers["features"], features, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layers["logits"], logits, rtol=1e-6, atol=1e-6)


def test_randomness_follows_the_step(batch):
    """Drop-path draws the same for the same step, and anew for another."""
    task = _task(VIT)
    state = _init(task)
    assert state.batch_stats == {}
    step = jax.jit(partial(train_step, task))
    after, scalars = step(state, batch)
    again, _ = step(state, batch)
    chex.assert_trees_all_equal(after, again)
    _, later = step(state._replace(step=state.step + 1), batch)
    assert float(scalars["loss"]) != float(later["loss"])


def test_mixing_replaces_images_and_targets(batch):
    """The step trains on what ``mix`` made of the batch, and scores against the labels."""

    def swap(key, batch):
        assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        target = jax.nn.one_hot((batch["label"] + 1) % 3, 3)
        return {**batch, "image": 255.0 - batch["image"], "target": target}

    plain, mixed = _task(), _task(mixing=swap)
    state = _init(plain)
    inverted = {"image": 255 - batch["image"], "label": (batch["label"] + 1) % 3}
    actual, scalars = jax.jit(partial(train_step, mixed))(state, batch)
    expected, reference = jax.jit(partial(train_step, plain))(state, inverted)
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scalars["loss"], reference["loss"], rtol=1e-5)
    logits, _ = models.build(RESNET, 3).apply(
        state.variables, (inverted["image"] - 100.0) / 50.0, True, mutable="batch_stats"
    )[0]
    correct = np.mean(np.argmax(logits, axis=-1) == batch["label"])
    np.testing.assert_allclose(scalars["accuracy"], correct)


def test_mixup_trains(batch):
    """The project's own mixing fits the hook, and its draws follow the step."""
    settings = MixConfig(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
    task = _task(mixing=mix.build(settings, 3, 1))
    state = _init(task)
    step = jax.jit(partial(train_step, task))
    losses_seen = [
        float(step(state._replace(step=jnp.asarray(index)), batch)[1]["loss"]) for index in range(3)
    ]
    assert np.all(np.isfinite(losses_seen))
    assert len(set(losses_seen)) == 3


def test_the_regulariser_joins_the_gradient_but_not_the_loss(batch):
    """Its scalar is its own; a strong one makes the features of a class less alike."""
    noise = np.random.default_rng(1).integers(0, 256, batch["image"].shape).astype(np.uint8)
    batch = {**batch, "image": noise}
    plain, regular = _task(rate=0.01), _task(loss=LossConfig(cosine=10.0), rate=0.01)
    state = _init(plain)
    _, reference = jax.jit(partial(train_step, plain))(state, batch)
    step, values = jax.jit(partial(train_step, regular)), []
    for _ in range(8):
        state, scalars = step(state, batch)
        values.append(float(scalars["regulariser"]))
        if len(values) == 1:
            np.testing.assert_allclose(scalars["loss"], reference["loss"], rtol=1e-6)
    assert reference.keys() | {"regulariser"} == scalars.keys()
    assert np.all(np.diff(values) < 0)
    assert values[-1] < 0.95 * values[0] < 9.5


def test_accumulated_batches_move_the_weights_once(batch):
    """Weights and average rest for two batches of three; statistics follow every one."""
    task = _task(optimizer=OptimConfig(accumulate=3, ema=0.5))
    step, states = jax.jit(partial(train_step, task)), [_init(task)]
    for _ in range(3):
        states.append(step(states[-1], batch)[0])
    for before, after in itertools.pairwise(states[:3]):
        chex.assert_trees_all_equal(before.params, after.params)
        chex.assert_trees_all_equal(before.ema["params"], after.ema["params"])
        assert np.any(
            before.batch_stats["stem_norm"]["mean"] != after.batch_stats["stem_norm"]["mean"]
        )
    assert np.any(states[3].head[0] != states[0].head[0])
    assert np.any(states[3].averaged.head[0] != states[0].head[0])


@pytest.mark.parametrize("model", [RESNET, VIT], ids=["resnet", "vit"])
def test_devices_change_nothing(model, batch):
    """Four devices and one take the same steps: groups, drop-path, regulariser, all alike."""
    if jax.device_count() < 4:
        pytest.skip("needs four devices")
    task = _task(model, LossConfig(cosine=0.1, cosine_group=6), OptimConfig(ema=0.9))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    whole, divided = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    step = jax.jit(partial(train_step, task))
    alone = _init(task)
    together, shares = jax.device_put(alone, whole), jax.device_put(batch, divided)
    for _ in range(3):
        alone, expected = step(alone, batch)
        together, scalars = step(together, shares)
        for name, value in expected.items():
            np.testing.assert_allclose(scalars[name], value, rtol=1e-5, err_msg=name)
    chex.assert_trees_all_close(together.variables, alone.variables, rtol=1e-4, atol=1e-5)
