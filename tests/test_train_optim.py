"""The optimiser against the closed form of its schedule and of Nesterov momentum."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from train import optim
from train.config import OptimConfig


def test_schedule():
    """Linear to the peak, half of it at the middle of the cosine, zero at the end."""
    schedule = optim.schedule(OptimConfig(lr=0.4, warmup_epochs=2), epochs=12, steps_per_epoch=5)
    assert [float(schedule(step)) for step in (0, 5, 10)] == pytest.approx([0.0, 0.2, 0.4])
    for step in (20, 35, 60):
        expected = 0.2 * (1 + math.cos(math.pi * (step - 10) / 50))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)


def test_two_steps_by_hand():
    """g += wd p; v = m v + g; p -= lr (g + m v), as in torch."""
    config = OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.01)
    optimizer = optim.build(config, lambda count: 0.1)
    parameter, velocity = 2.0, 0.0
    params = jnp.asarray(parameter)
    state = optimizer.init(params)
    for gradient in (1.0, -3.0):
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = params + updates
        decayed = gradient + 0.01 * parameter
        velocity = 0.9 * velocity + decayed
        parameter -= 0.1 * (decayed + 0.9 * velocity)
        np.testing.assert_allclose(params, parameter, rtol=1e-6)
