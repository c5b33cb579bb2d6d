"""Losses and the regulariser: formulas in NumPy, torch, and finite differences in float64."""

from functools import partial

import jax
import numpy as np
import pytest

import vci_jax
from train import losses
from train.config import ConfigError, LossConfig

LOGITS = np.array([[1.0, -2.0, 0.5], [30.0, 0.0, -30.0]])
LABELS = np.array([2, 1])
SOFT = np.array([[0.2, 0.5, 0.3], [0.05, 0.05, 0.9]])

SETTINGS = {
    "cross-entropy": LossConfig(),
    "temperature": LossConfig(temperature=0.25),
    "mse": LossConfig(name="mse"),
    "rescaled mse": LossConfig(name="mse", mse_weight=15, mse_target=30),
}


def _log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def _differences(function, point, step=1e-5):
    """The gradient by central differences, entry by entry."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        shift = np.zeros_like(point)
        shift[index] = step
        gradient[index] = (function(point + shift) - function(point - shift)) / (2 * step)
    return gradient


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_cross_entropy(temperature):
    """Per sample, with the logits divided by the temperature."""
    expected = -_log_softmax(LOGITS / temperature)[[0, 1], LABELS]
    loss = losses.build(LossConfig(temperature=temperature))
    np.testing.assert_allclose(loss(LOGITS.astype(np.float32), LABELS), expected, rtol=1e-6)


def test_cross_entropy_against_distributions():
    """The expectation of the hard loss under the target."""
    loss = losses.build(LossConfig(temperature=0.5))
    expected = -(SOFT * _log_softmax(LOGITS / 0.5)).sum(axis=1)
    np.testing.assert_allclose(loss(LOGITS.astype(np.float32), SOFT), expected, rtol=1e-6)


def test_label_smoothing_is_torchs():
    """Smoothed targets, as ``data.mix`` makes them, give torch's loss of the same name."""
    torch = pytest.importorskip("torch", reason="compares with torch where it is installed")
    smoothed = 0.9 * np.eye(3)[LABELS] + 0.1 / 3
    ours = losses.build(LossConfig())(LOGITS.astype(np.float32), smoothed.astype(np.float32))
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS), torch.tensor(LABELS), label_smoothing=0.1, reduction="none"
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_squared_error():
    """The mean over classes of the squared distance to the one-hot label."""
    expected = ((LOGITS - np.eye(3)[LABELS]) ** 2).mean(axis=1)
    loss = losses.build(LossConfig(name="mse"))
    np.testing.assert_allclose(loss(LOGITS.astype(np.float32), LABELS), expected, rtol=1e-6)


def test_rescaled_squared_error():
    """k (z_y - M)^2 for the true class and z_j^2 for the others, over K."""
    loss = losses.build(LossConfig(name="mse", mse_weight=15, mse_target=30))
    expected = [
        (15 * (0.5 - 30) ** 2 + 1.0**2 + 2.0**2) / 3,
        (15 * (0.0 - 30) ** 2 + 30.0**2 + 30.0**2) / 3,
    ]
    np.testing.assert_allclose(loss(LOGITS.astype(np.float32), LABELS), expected, rtol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_one_hot_distributions_are_labels(name):
    """Both kinds of target mean the same."""
    loss, logits = losses.build(SETTINGS[name]), LOGITS.astype(np.float32)
    onehot = np.eye(3, dtype=np.float32)[LABELS]
    np.testing.assert_allclose(loss(logits, onehot), loss(logits, LABELS), rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["labels", "distributions"])
@pytest.mark.parametrize("name", SETTINGS)
def test_gradient_of_the_losses(name, targets):
    """Against central differences in float64."""
    logits = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]])
    total = jax.jit(lambda z: losses.build(SETTINGS[name])(z, targets).sum())
    np.testing.assert_allclose(
        jax.grad(total)(logits), _differences(total, logits), rtol=1e-7, atol=1e-7
    )


def _regulariser(features, labels, form):
    """The formulas of the docstring, class by class in float64."""
    total, present = 0.0, np.unique(labels)
    for k in present:
        h = features[labels == k].astype(np.float64)
        square = np.sum(np.sum(h / np.linalg.norm(h, axis=1, keepdims=True), axis=0) ** 2)
        total += square / len(h) ** {"r1": 1, "r2": 2, "r3": 3}[form]
    return total / (len(labels) if form == "r1" else len(present))


@pytest.fixture(scope="module")
def batch():
    """Twelve features of classes 0, 2 and 5, of unequal sizes; class 5 is a single sample."""
    features = np.random.default_rng(0).normal(size=(12, 4))
    return features, np.array([0, 2, 2, 0, 2, 2, 5, 2, 0, 2, 2, 0])


@pytest.mark.parametrize("form", ["r1", "r2", "r3"])
def test_regulariser_is_the_formula(batch, form):
    """For a whole batch, and as the mean over consecutive groups."""
    features, labels = batch
    compare = jax.jit(losses.cosine_regulariser, static_argnames=("form", "group"))
    whole = compare(features, labels, form=form, group=0)
    np.testing.assert_allclose(whole, _regulariser(features, labels, form), rtol=1e-6)
    parts = compare(features, labels, form=form, group=4)
    groups = zip(np.split(features, 3), np.split(labels, 3), strict=True)
    expected = np.mean([_regulariser(h, y, form) for h, y in groups])
    np.testing.assert_allclose(parts, expected, rtol=1e-6)


@pytest.mark.parametrize("form", ["r1", "r2"])
def test_collapsed_classes_have_the_greatest_value(form):
    """One direction a class, at any length and any sizes of the classes, gives 1."""
    labels = np.array([0, 0, 0, 1, 1, 3])
    directions = np.random.default_rng(0).normal(size=(4, 5))
    features = directions[labels] * np.arange(1, 7)[:, None]
    value = losses.cosine_regulariser(features, labels, form=form, group=0)
    np.testing.assert_allclose(value, 1, rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("group", [0, 6])
@pytest.mark.parametrize("form", ["r1", "r2", "r3"])
def test_gradient_of_the_regulariser(batch, form, group):
    """Against central differences in float64, strength included."""
    features, labels = batch
    config = LossConfig(cosine=0.3, cosine_form=form, cosine_group=group)
    total = jax.jit(partial(losses.build_regulariser(config, 4), labels=labels))
    np.testing.assert_allclose(
        jax.grad(total)(features), _differences(total, features), rtol=1e-7, atol=1e-9
    )


def test_zero_features_count_as_no_direction(batch):
    """Value and gradient stay finite; the zero rows add nothing and are not moved."""
    features, labels = batch
    features = features.astype(np.float32)
    features[[0, 6]] = 0.0  # One of class 0, and all of class 5.
    compare = partial(losses.cosine_regulariser, form="r2", group=0)
    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(compare))(features, labels))
    kept = {k: features[(labels == k) & (np.abs(features).sum(axis=1) > 0)] for k in (0, 2)}
    sums = [np.sum(h / np.linalg.norm(h, axis=1, keepdims=True), axis=0) for h in kept.values()]
    expected = (np.sum(sums[0] ** 2) / 4**2 + np.sum(sums[1] ** 2) / 7**2) / 3
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[[0, 6]], 0)
    assert np.all(np.any(gradient[[1, 2, 3]], axis=1))


def test_a_batch_of_no_whole_number_of_groups_is_refused(batch):
    """The message has both numbers and the setting to change."""
    with pytest.raises(ValueError, match=r"batch of 12 into groups of 5.*--loss\.cosine_group"):
        losses.cosine_regulariser(*batch, form="r1", group=5)


REGULARISER = partial(losses.build_regulariser, num_classes=4)


def test_vci_is_a_regulariser_of_its_own_or_beside_the_cosine():
    """Its strength times ``vci_loss`` of the batch; both add up."""
    labels = np.arange(40) % 4
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    alone = float(REGULARISER(LossConfig(vci=-0.5))(features, labels))
    assert alone == pytest.approx(-0.5 * float(vci_jax.vci_loss(features, labels, 4)), rel=1e-6)
    both = float(REGULARISER(LossConfig(vci=-0.5, cosine=0.3))(features, labels))
    cosine = float(REGULARISER(LossConfig(cosine=0.3))(features, labels))
    assert both == pytest.approx(alone + cosine, rel=1e-5)


def test_no_strength_is_no_regulariser():
    """The step then has nothing to compute."""
    assert losses.build_regulariser(LossConfig(), 4) is None


@pytest.mark.parametrize(
    ("build", "config", "field"),
    [
        (losses.build, LossConfig(name="mse", temperature=0.5), "temperature is 0.5"),
        (losses.build, LossConfig(mse_weight=15), "mse_weight is 15"),
        (losses.build, LossConfig(mse_target=30), "mse_target is 30"),
        (REGULARISER, LossConfig(cosine_form="r3"), "cosine_form is 'r3'"),
        (REGULARISER, LossConfig(cosine_group=256), "cosine_group is 256"),
    ],
)
def test_settings_without_effect_are_refused(build, config, field):
    """Better than to be ignored."""
    with pytest.raises(ConfigError, match=f"--loss.{field}"):
        build(config)


def test_sigmoid_cross_entropy():
    """K yes-or-no questions, of labels and of distributions."""
    loss = losses.build(LossConfig(name="sigmoid"))
    logits = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, -3.0]])
    yes = 1 / (1 + np.exp(-logits))
    for targets, hot in ((LABELS, np.eye(3)[LABELS]), (SOFT, SOFT)):
        expected = -(hot * np.log(yes) + (1 - hot) * np.log(1 - yes)).sum(axis=1)
        np.testing.assert_allclose(loss(logits.astype(np.float32), targets), expected, rtol=1e-5)


def test_normalised_logits():
    """Kornblith's: logits have length 1 / temperature, whatever the network gave; zeros stay."""
    loss = losses.build(LossConfig(logit_norm=True, temperature=0.04))
    unit = LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True)
    expected = -_log_softmax(unit / 0.04)[[0, 1], LABELS]
    for scale in (1.0, 1e4):
        found = loss((scale * LOGITS).astype(np.float32), LABELS)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    gradient = jax.grad(lambda z: loss(z, LABELS).sum())(np.zeros((2, 3), np.float32))
    assert np.all(np.isfinite(gradient))
