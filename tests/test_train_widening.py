"""A 1x1 convolution and its BatchNorm as one: the definition in float64, and what is usual."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from train.models.norm import BatchNorm
from train.models.widening import normalised

EPSILON = 1e-5
NAMES = ("inputs", "kernel", "scale", "bias")


def _plain(inputs, kernel, scale, bias):
    """What it stands for, in the usual order, with the variance as it is defined."""
    x = jnp.einsum("gbhwi,io->gbhwo", inputs, kernel).astype(scale.dtype)
    mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    var = jnp.mean(jnp.square(x - mean), axis=(1, 2, 3), keepdims=True)
    return (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias, mean, var


def _total(function, weights, *arguments):
    outputs, mean, var = function(*arguments)
    outputs = outputs.astype(arguments[0].dtype).astype(outputs.dtype)
    return jnp.sum(weights * jnp.sin(outputs)), (outputs, mean, var)


@partial(jax.jit, static_argnums=0)
def _run(function, weights, *arguments):
    """Outputs and statistics, and the gradients of a sum that treats every output differently."""
    grad = jax.grad(partial(_total, function), argnums=(1, 2, 3, 4), has_aux=True)
    gradients, outputs = grad(weights, *arguments)
    return dict(zip(("outputs", "mean", "var", *NAMES), (*outputs, *gradients), strict=True))


_widening = partial(normalised, epsilon=EPSILON)


def _case(groups, width, seed=0, offset=0.0):
    """Inputs as they come out of a ReLU; groups differ in level."""
    rng = np.random.default_rng(seed)
    level = 1 + np.arange(groups)[:, None, None, None, None]
    inputs = np.maximum(0, rng.normal(size=(groups, 4, 4, 4, width)) * level + offset)
    kernel = rng.normal(size=(width, 4 * width)) / np.sqrt(width)
    scale, bias = rng.uniform(0.5, 2, 4 * width), rng.normal(size=4 * width)
    weights = rng.normal(size=(*inputs.shape[:-1], 4 * width))
    return weights, (inputs, kernel, scale, bias)


def _cast(case, dtype):
    """Inputs and kernel of a dtype, the rest float32, as the networks have them."""
    weights, (inputs, kernel, *affine) = case
    rest = [array.astype(np.float32) for array in (weights, *affine)]
    return rest[0], inputs.astype(dtype), kernel.astype(dtype), *rest[1:]


def _exact(arguments):
    with jax.enable_x64(True):
        return _run(_plain, *(np.asarray(a, np.float64) for a in arguments))


def _distance(actual, exact):
    """Largest difference, relative to the largest number."""
    actual, exact = (np.asarray(x, np.float64) for x in (actual, exact))
    return np.max(np.abs(actual - exact.reshape(actual.shape))) / np.max(np.abs(exact))


@pytest.mark.parametrize("groups", [1, 2])
def test_it_is_convolution_and_normalisation(groups):
    """Values, statistics and all four gradients, to float32's rounding of 64 products each."""
    arguments = _cast(_case(groups, width=5), np.float32)
    actual, exact = _run(_widening, *arguments), _exact(arguments)
    for name, value in exact.items():
        assert _distance(actual[name], value) < 64 * 2**-24, name


def test_bfloat16_is_as_exact_as_in_the_usual_order():
    """Nothing is further from float64 than a convolution, then BatchNorm, would be, by half."""
    arguments = _cast(_case(2, width=16), jnp.bfloat16)

    def usual(inputs, kernel, scale, bias):
        x = jnp.einsum("gbhwi,io->gbhwo", inputs, kernel)
        x = x.reshape(-1, *x.shape[2:])
        norm = BatchNorm(group=4, train=True, dtype=jnp.dtype("float32"))
        variables = {"params": {"scale": scale, "bias": bias}}
        outputs, changed = norm.apply(variables, x, mutable=["batch_stats"])
        del changed
        return outputs.reshape(*inputs.shape[:-1], -1), jnp.zeros(()), jnp.zeros(())

    exact = _exact(arguments)
    actual, reference = _run(_widening, *arguments), _run(usual, *arguments)
    for name in ("outputs", *NAMES):
        assert _distance(actual[name], exact[name]) < 1.5 * _distance(reference[name], exact[name])
    # The usual way rounds x before it takes statistics; here they are those of x itself.
    assert _distance(actual["mean"], exact["mean"]) < 1e-6
    assert _distance(actual["var"], exact["var"]) < 1e-5


def test_a_mean_of_ten_deviations_costs_digits_no_more():
    """The variance of inputs far from zero: cancellation takes their mean square, 100 roundings."""
    arguments = _cast(_case(1, width=8, offset=10.0), np.float32)
    actual, exact = _run(_widening, *arguments), _exact(arguments)
    assert _distance(actual["var"], exact["var"]) < 100 * 8 * 2**-24
    assert _distance(actual["outputs"], exact["outputs"]) < 100 * 8 * 2**-24


def test_channels_without_variance_stay_finite():
    """A dead input: outputs are the bias, and no gradient is infinite."""
    weights, inputs, *rest = _cast(_case(1, width=4), np.float32)
    actual = _run(_widening, weights, np.zeros_like(inputs), *rest)
    np.testing.assert_array_equal(actual["var"], 0)
    np.testing.assert_allclose(actual["outputs"][0, 0, 0, 0], rest[-1], rtol=1e-6)
    assert all(np.all(np.isfinite(value)) for value in actual.values())


@pytest.fixture(scope="module")
def layer():
    """Images and a layer's state, which is not where it begins."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(8, 3, 2, 4)).astype(np.float32)
    kernel = rng.normal(size=(4, 6)).astype(np.float32)
    scale, bias, mean, var = rng.uniform(0.5, 2, size=(4, 6)).astype(np.float32)
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }
    return variables, images, kernel


@partial(jax.jit, static_argnames=("train", "group"))
def _apply(variables, images, kernel=None, *, train=True, group=4):
    norm = BatchNorm(group=group, train=train, dtype=jnp.dtype("float32"))
    return norm.apply(variables, images, kernel, mutable=["batch_stats"])


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("group", [0, 4])
def test_a_layer_with_a_kernel_is_a_layer_after_it(layer, train, group):
    """In both modes, with the same parameters and running averages."""
    variables, images, kernel = layer
    actual = _apply(variables, images, kernel, train=train, group=group)
    expected = _apply(variables, images @ kernel, train=train, group=group)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), actual, expected)


def test_devices_change_nothing(layer):
    """Eight devices with one sample each, and one with all, agree; groups span devices."""
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    variables, images, kernel = layer
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    divided = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    alone, together = (_apply(variables, x, kernel) for x in (images, divided))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), together, alone)
