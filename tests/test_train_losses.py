"""Losses against their formulas in float64 NumPy."""

import numpy as np
import pytest

from train import losses
from train.config import LossConfig

LOGITS = np.array([[1.0, -2.0, 0.5], [30.0, 0.0, -30.0]])
LABELS = np.array([2, 1])


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_cross_entropy(temperature):
    """Per sample, with the logits divided by the temperature."""
    scaled = LOGITS / temperature
    expected = np.log(np.exp(scaled).sum(axis=1)) - scaled[[0, 1], LABELS]
    loss = losses.build(LossConfig(temperature=temperature))
    np.testing.assert_allclose(loss(LOGITS.astype(np.float32), LABELS), expected, rtol=1e-6)


def test_squared_error():
    """The mean over classes of the squared distance to the one-hot label."""
    expected = ((LOGITS - np.eye(3)[LABELS]) ** 2).mean(axis=1)
    loss = losses.build(LossConfig(name="mse"))
    np.testing.assert_allclose(loss(LOGITS.astype(np.float32), LABELS), expected, rtol=1e-6)
