"""Networks: published sizes, shapes, and the contract that ``head`` reads the features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import models
from train.config import ConfigError, ModelConfig


@pytest.mark.parametrize(
    ("name", "dim", "parameters"),
    [
        ("resnet18", 512, 11_689_512),
        ("resnet34", 512, 21_797_672),
        ("resnet50", 2048, 25_557_032),
        ("resnet101", 2048, 44_549_160),
        ("resnet152", 2048, 60_192_808),
    ],
)
def test_imagenet_members_have_the_published_size(name, dim, parameters):
    """Parameter counts equal torchvision's exactly."""
    model = models.build(ModelConfig(name=name, width=64, stem="imagenet"), 1000)
    images = jnp.zeros((1, 224, 224, 3))
    (logits, features), variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images, train=False)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert (logits.shape, features.shape) == ((1, 1000), (1, dim))


def test_logits_are_the_head_of_the_features():
    """``logits = features @ kernel + bias`` with the parameters of the layer called head."""
    model = models.build(ModelConfig(name="_resnet6", width=4, stem="cifar"), 10)
    images = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    init = jax.jit(partial(model.init_with_output, train=False))
    (logits, features), variables = init(jax.random.key(0), images)
    head = variables["params"]["head"]
    assert features.shape == (3, 8)
    np.testing.assert_allclose(logits, features @ head["kernel"] + head["bias"], rtol=1e-5)


def test_kernels_have_the_variance_of_kaiming_fan_out():
    """The variance of a 3x3 kernel with C outputs is 2 / 9C, to the error of its sample size."""
    model = models.build(ModelConfig(name="_resnet6", width=128, stem="cifar"), 10)
    images = jnp.zeros((1, 8, 8, 3))
    params = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)["params"]
    kernel = params["stage2_block1"]["Conv_1"]["kernel"]
    assert kernel.shape == (3, 3, 256, 256)
    assert float(jnp.var(kernel)) == pytest.approx(2 / (9 * 256), rel=0.01)


def test_unknown_model_lists_the_known_ones():
    """The list leaves the private member out."""
    with pytest.raises(ConfigError, match="known models: resnet8, resnet20"):
        models.build(ModelConfig(name="resnet19"), 10)


def test_dropout_is_of_what_the_head_reads():
    """Half of the features, the others twice as large, in training alone."""
    config = ModelConfig(name="_resnet6", width=4, stem="cifar", dropout=0.5)
    model = models.build(config, 12)  # more logits than features, which they then determine
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = model.init(jax.random.key(1), images, train=False)
    kernel, bias = (variables["params"]["head"][name] for name in ("kernel", "bias"))
    (logits, features), _ = model.apply(
        variables, images, True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)}
    )
    read = np.linalg.lstsq(np.asarray(kernel).T, np.asarray(logits - bias).T, rcond=None)[0].T
    factor = np.round(read / np.asarray(features), 3)
    assert set(np.unique(factor[np.asarray(features) > 1e-3])) == {0.0, 2.0}
    logits, features = model.apply(variables, images, False)
    np.testing.assert_allclose(logits, features @ kernel + bias, rtol=1e-5, atol=1e-6)
