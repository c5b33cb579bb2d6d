"""``vci_loss``: its value, its gradient, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vci_jax


def draw(samples=60, dim=5, classes=3):
    rng = np.random.default_rng(samples)
    labels = np.arange(samples) % classes
    return rng.normal(size=(classes, dim))[labels] + rng.normal(size=(samples, dim)), labels


@pytest.mark.parametrize("adjusted", [True, False])
def test_it_is_vci_of_the_batch(adjusted, x64):
    """Compiled, in the dtype of float64 features, by either form."""
    features, labels = draw()
    state = vci_jax.update(vci_jax.init(3, 5, dtype=jnp.float64), features, labels)
    wanted = vci_jax.collapse_metrics(state)["vci_adjusted" if adjusted else "vci"]
    loss = jax.jit(lambda f: vci_jax.vci_loss(f, labels, 3, adjusted=adjusted))(features)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-12)


def test_the_adjusted_form_does_not_depend_on_the_size_of_the_batch():
    """On average over batches of 32 and of 256 rows; the plug-in form does."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(4, 10))

    def average(size, adjusted):
        loss = jax.jit(lambda f, y: vci_jax.vci_loss(f, y, 4, adjusted=adjusted))
        draws = []
        for _ in range(200):
            labels = np.arange(size) % 4
            features = (means[labels] + 2 * rng.normal(size=(size, 10))).astype(np.float32)
            draws.append(float(loss(features, labels)))
        return np.mean(draws)

    assert average(32, True) == pytest.approx(average(256, True), abs=0.02)
    assert average(256, False) - average(32, False) > 0.15


def test_against_earlier_batches_only_this_one_has_a_gradient(x64):
    """The value is that of all; the gradient that of the whole, for the rows of the batch."""
    features, labels = draw()
    early, late = slice(0, 40), slice(40, 60)
    state = vci_jax.update(vci_jax.init(3, 5, dtype=jnp.float64), features[early], labels[early])

    def against(late_features, state):
        return vci_jax.vci_loss(late_features, labels[late], 3, moments=state)

    value, (gradient, of_state) = jax.value_and_grad(against, argnums=(0, 1), allow_int=True)(
        features[late], state
    )
    whole, whole_gradient = jax.value_and_grad(lambda f: vci_jax.vci_loss(f, labels, 3))(features)
    assert float(value) == pytest.approx(float(whole), rel=1e-12)
    np.testing.assert_allclose(gradient, whole_gradient[late], rtol=1e-9, atol=1e-14)
    assert all(not np.any(leaf) for leaf in of_state if jnp.issubdtype(leaf.dtype, jnp.floating))


def test_following_it_collapses_and_against_it_spreads():
    """Gradient descent on features from noise: VCI goes to zero, or up to that of noise."""
    features, labels = draw(samples=40)
    features = jnp.asarray(features, jnp.float32)
    step = jax.jit(jax.grad(lambda f: vci_jax.vci_loss(f, labels, 3)))
    start = float(vci_jax.vci_loss(features, labels, 3))
    down = up = features
    for _ in range(60):
        down, up = down - 20 * step(down), up + 20 * step(up)
    assert float(vci_jax.vci_loss(down, labels, 3)) < 0.2 * start
    assert float(vci_jax.vci_loss(up, labels, 3)) > 1.05 * start


def test_a_batch_that_is_too_small_is_refused_before_it_is_compiled():
    """32 rows say nothing of 64 features; a running state does."""
    features, labels = draw(samples=32, dim=64)
    with pytest.raises(ValueError, match="batch of 32 rows says nothing about 64 features"):
        vci_jax.vci_loss(features, labels, 3)
    earlier = vci_jax.update(vci_jax.init(3, 64), *draw(samples=200, dim=64))
    assert np.isfinite(vci_jax.vci_loss(features, labels, 3, moments=earlier))


def test_padding_and_wrong_labels_count_for_nothing():
    """As in ``update``."""
    features, labels = draw()
    padded = np.concatenate([features, np.full((3, 5), np.nan)])
    mask = np.r_[np.ones(61), np.zeros(2)]
    loss, gradient = jax.value_and_grad(vci_jax.vci_loss)(
        padded, np.r_[labels, -1, 0, 1], 3, mask=mask
    )
    assert float(loss) == pytest.approx(float(vci_jax.vci_loss(features, labels, 3)), rel=1e-6)
    np.testing.assert_array_equal(gradient[60:], 0)
