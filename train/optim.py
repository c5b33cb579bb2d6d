"""The optimiser: SGD with Nesterov momentum under a warmed-up cosine."""

import optax

from train.config import OptimConfig


def schedule(config: OptimConfig, *, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate of each step: linear from 0 to ``lr``, then a cosine to 0."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.lr,
        warmup_steps=config.warmup_epochs * steps_per_epoch,
        decay_steps=epochs * steps_per_epoch,
    )


def build(config: OptimConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimiser of a config.

    The decay joins the gradient before the momentum and covers every parameter, norms and biases
    included: this is torch's SGD, and the recipe of the paper names no exceptions.
    """
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(learning_rate, momentum=config.momentum, nesterov=True),
    )
