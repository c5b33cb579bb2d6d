"""BatchNorm over groups: float64 NumPy, flax's own, torch, and any number of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from train.models.norm import BatchNorm

SHAPE = (8, 3, 2, 5)
F32 = jnp.dtype("float32")


@pytest.fixture(scope="module")
def images():
    """Samples that differ in level, so that groups have different statistics."""
    rng = np.random.default_rng(0)
    level = np.arange(8.0)[:, None, None, None]
    return (level + rng.normal(size=SHAPE) * (1 + level)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    """Parameters and running averages that are not where they begin."""
    rng = np.random.default_rng(1)
    scale, bias, mean, var = rng.uniform(0.5, 2, size=(4, SHAPE[-1])).astype(np.float32)
    return {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": var}}


@partial(jax.jit, static_argnames=("group", "dtype"))
def _train(variables, images, *, group, dtype=F32):
    model = BatchNorm(group=group, train=True, dtype=dtype)
    return model.apply(variables, images, mutable=["batch_stats"])


def _reference(variables, images, group):
    """Normalises group by group in float64; averages move by a tenth to the mean over groups."""
    parts = np.split(images.astype(np.float64), len(images) // group)
    means = np.array([part.mean(axis=(0, 1, 2)) for part in parts])
    variances = np.array([part.var(axis=(0, 1, 2)) for part in parts])
    scale, bias = variables["params"]["scale"], variables["params"]["bias"]
    outputs = [
        (part - mean) / np.sqrt(var + 1e-5) * scale + bias
        for part, mean, var in zip(parts, means, variances, strict=True)
    ]
    averages = {
        "mean": 0.9 * variables["batch_stats"]["mean"] + 0.1 * means.mean(axis=0),
        "var": 0.9 * variables["batch_stats"]["var"] + 0.1 * variances.mean(axis=0),
    }
    return np.concatenate(outputs), averages


@pytest.mark.parametrize("group", [0, 2, 4, 8])
def test_training_matches_the_definition(variables, images, group):
    """Outputs and running averages, for every group size; 0 is one group."""
    outputs, changed = _train(variables, images, group=group)
    expected, averages = _reference(variables, images, group or len(images))
    np.testing.assert_allclose(outputs, expected, rtol=2e-5, atol=2e-5)
    for name, value in averages.items():
        np.testing.assert_allclose(changed["batch_stats"][name], value, rtol=2e-6, err_msg=name)


def test_groups_do_not_see_each_other(variables, images):
    """Replacing the second group leaves the first one's outputs alone, bit for bit."""
    whole, _ = _train(variables, images, group=4)
    changed = np.concatenate([images[:4], 10 - images[4:]])
    other, _ = _train(variables, changed, group=4)
    np.testing.assert_array_equal(whole[:4], other[:4])
    assert not np.allclose(whole[4:], other[4:])


@pytest.mark.slow  # Bits are those of optimised programs.
def test_one_group_is_flax_bit_for_bit(variables, images):
    """Outputs, running averages and gradients equal those of ``flax.linen.BatchNorm``."""
    ours = BatchNorm(group=0, train=True, dtype=F32)
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)

    @partial(jax.jit, static_argnums=0)
    def run(model, params, x):
        def total(params, x):
            y, changed = model.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), (y, changed)

        return jax.grad(total, argnums=(0, 1), has_aux=True)(params, x)

    actual, expected = (run(model, variables["params"], images) for model in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_evaluation_uses_the_running_averages(variables, images):
    """And an image's result does not depend on the others, nor on the group."""
    model = BatchNorm(group=256, train=False, dtype=F32)
    mean, var = variables["batch_stats"]["mean"], variables["batch_stats"]["var"]
    scale, bias = variables["params"]["scale"], variables["params"]["bias"]
    expected = (images - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(model.apply(variables, images), expected, rtol=1e-5, atol=1e-5)


def test_torch_agrees(variables, images):
    """Torch's momentum and eps; its running variance is n/(n-1) times ours, as documented."""
    torch = pytest.importorskip("torch", reason="compares with torch where it is installed")
    layer = torch.nn.BatchNorm2d(SHAPE[-1])
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(variables["params"]["scale"]))
        layer.bias.copy_(torch.tensor(variables["params"]["bias"]))
    layer.running_mean.zero_()
    layer.running_var.zero_()
    expected = layer(torch.tensor(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    zeros = np.zeros(SHAPE[-1], np.float32)
    start = {**variables, "batch_stats": {"mean": zeros, "var": zeros}}
    outputs, changed = _train(start, images, group=0)
    np.testing.assert_allclose(outputs, expected.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(changed["batch_stats"]["mean"], layer.running_mean, rtol=1e-5)
    samples = images[..., 0].size
    unbiased = changed["batch_stats"]["var"] * samples / (samples - 1)
    np.testing.assert_allclose(unbiased, layer.running_var, rtol=1e-5)


def test_bfloat16_has_statistics_in_float32(variables, images):
    """The result is rounded once, at the end: it is the float32 result to half a unit."""
    inputs = images.astype(jnp.bfloat16)
    outputs, changed = _train(variables, inputs, group=4, dtype=jnp.dtype("bfloat16"))
    exact, averages = _train(variables, inputs.astype(np.float32), group=4)
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_allclose(outputs.astype(np.float32), exact, rtol=2**-8, atol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), changed, averages)


@pytest.mark.parametrize("group", [0, 2, 4])
def test_devices_change_nothing(variables, images, group):
    """Eight devices with one sample each, and one with all, agree; groups span devices."""
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    divided = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    alone = _train(variables, images, group=group)
    together = _train(variables, divided, group=group)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), together, alone)


def test_a_batch_of_no_whole_number_of_groups_is_refused(variables, images):
    """The message has both numbers and the setting to change."""
    with pytest.raises(ValueError, match=r"batch of 8 into groups of 3.*--model\.bn_group"):
        _train(variables, images, group=3)
