"""ViTs and ResNets by their published sizes; class token, drop-path, and what an image sees."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import models
from train.config import ConfigError, ModelConfig
from train.models import vit

NANO = ModelConfig(name="_vit_nano", patch=4)


def _init(config, side, classes=1000):
    model = models.build(config, classes)
    images = jnp.zeros((1, side, side, 3))
    return model, partial(model.init, images=images, train=False)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("deit_ti", 5_717_416),
        ("deit_s", 22_050_664),
        ("deit_b", 86_567_656),
    ],
)
def test_parameter_counts_are_the_published_ones(name, parameters):
    """torchvision's ResNets and the DeiTs of Touvron et al. for 224 pixels and 1000 classes."""
    _, init = _init(ModelConfig(name=name), 224)
    shapes = jax.eval_shape(init, jax.random.key(0))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))


@pytest.fixture(scope="module")
def nano():
    """A tiny ViT with its variables, and two images."""
    model, init = _init(NANO, 8, classes=3)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    return model, jax.jit(init)(jax.random.key(0)), images


def test_the_head_reads_the_features(nano):
    """Logits are an affine function of the features, under the name ``head``."""
    model, variables, images = nano
    logits, features = model.apply(variables, images, False)
    head = variables["params"]["head"]
    np.testing.assert_allclose(logits, features @ head["kernel"] + head["bias"], rtol=1e-5)
    assert features.shape == (2, 16)


def test_layers_end_in_what_the_call_returns(nano):
    """One entry a block, then the features and logits of the plain call."""
    model, variables, images = nano
    layers = model.apply(variables, images, False, method="layers")
    assert list(layers) == ["block1", "block2", "features", "logits"]
    for ours, plain in zip(
        (layers["logits"], layers["features"]), model.apply(variables, images, False), strict=True
    ):
        np.testing.assert_array_equal(ours, plain)


def test_attention_is_that_of_the_definition(nano):
    """The first block, written out with softmax(q k^T / sqrt(d)) v in NumPy float64."""
    model, variables, images = nano
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), variables["params"])
    cut = np.asarray(images, float).reshape(2, 2, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    kernel = params["patches"]["kernel"].reshape(-1, 16)
    x = cut.reshape(2, 4, -1) @ kernel + params["patches"]["bias"]
    token = np.broadcast_to(params["class_token"], (2, 1, 16))
    x = np.concatenate([token, x], axis=1) + params["position"]

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    block = params["block1"]
    qkv = dense(norm(x, block["norm1"]), block["qkv"]).reshape(2, 5, 3, 2, 8)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    weights = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(8))
    weights /= weights.sum(-1, keepdims=True)
    x = x + dense((weights @ v).transpose(0, 2, 1, 3).reshape(2, 5, 16), block["proj"])
    hidden = dense(norm(x, block["norm2"]), block["mlp_in"])
    erf = np.vectorize(math.erf)
    x = x + dense(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, block["mlp_out"])
    layers = model.apply(variables, images, False, method="layers")
    np.testing.assert_allclose(layers["block1"], x[:, 0], rtol=1e-4, atol=1e-5)


def test_the_gradients_of_a_product_are_those_of_the_definition():
    """g W^T and the sum over tokens of x^T g, on rows along two axes, in NumPy float64."""
    rng = np.random.default_rng(0)
    x, kernel, g = (rng.normal(size=shape) for shape in ((4, 5, 6), (6, 7), (4, 5, 7)))
    out, pull = jax.vjp(vit._product, *(jnp.float32(a) for a in (x, kernel)))
    found = (out, *pull(jnp.float32(g)))
    wanted = (x @ kernel, g @ kernel.T, x.reshape(20, 6).T @ g.reshape(20, 7))
    for ours, exact in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 6 * 2**-23), (jnp.bfloat16, 2**-8)])
def test_gelu_and_its_gradient_are_those_of_the_definition(dtype, tolerance):
    """x F(x) and F(x) + x f(x), F and f of the normal distribution, from -8 to 8.

    Relative to the larger of 1 and the value: in float32, 1 + erf is off by up to two units in the
    last place of 1, times |x| / 2 < 3 where it is not 0; in bfloat16, the last rounding.
    """
    x = jnp.linspace(-8, 8, 1001).astype(dtype)
    exact = np.asarray(x, float)
    chance = (1 + np.vectorize(math.erf)(exact / np.sqrt(2))) / 2
    slope = chance + exact * np.exp(-(exact**2) / 2) / np.sqrt(2 * np.pi)
    out, pull = jax.vjp(vit._gelu, x)
    assert out.dtype == dtype
    for ours, wanted in ((out, exact * chance), (pull(jnp.ones_like(x))[0], slope)):
        error = np.abs(np.asarray(ours, float) - wanted) / np.maximum(1, np.abs(wanted))
        assert error.max() < tolerance


def test_drop_path_drops_whole_branches_at_its_rate():
    """In training the last block is skipped by a share of samples, and scaled up for the rest."""
    model, init = _init(ModelConfig(name="_vit_nano", patch=8, drop_path=0.5), 8, classes=3)
    variables = jax.jit(init)(jax.random.key(0))
    images = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (8, 8, 3)), (512, 8, 8, 3))
    layers = jax.jit(partial(model.apply, method="layers", train=True))(
        variables, images, rngs={"drop_path": jax.random.key(2)}
    )
    # Equal images differ only in which of the last block's two branches they skip, and by rounding,
    # which depends on their place. (Block 1 has rate 0.) Four outcomes of probability 1/4: each
    # within 5 sd of 128, sd = sqrt(512 3 / 16).
    assert np.ptp(layers["block1"], axis=0).max() < 1e-6
    _, counts = np.unique(np.round(layers["features"], 4), axis=0, return_counts=True)
    assert len(counts) == 4
    assert np.all(np.abs(counts - 128) < 5 * np.sqrt(96))


def test_images_that_cannot_be_cut_are_refused():
    """The message names the size, the patch and the two settings."""
    _, init = _init(ModelConfig(name="_vit_nano", patch=3), 8)
    with pytest.raises(ValueError, match=r"8 x 8 cannot be cut into patches of 3 x 3"):
        jax.eval_shape(init, jax.random.key(0))


def test_settings_of_another_family_are_refused():
    """A setting without effect is a mistake."""
    with pytest.raises(ConfigError, match=r"--model.drop_path is 0.1, but resnet18 has no such"):
        models.build(ModelConfig(name="resnet18", drop_path=0.1), 10)
