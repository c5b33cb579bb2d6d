"""The optimiser, its learning rate over time, and the average of the weights.

Schedules count batches, not updates: with ``accumulate`` n, every n-th batch is an update.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from train.config import ConfigError, OptimConfig

Average = Callable[[Any, Any, jax.Array], Any]


def schedule(config: OptimConfig, *, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate of each step: linear to ``lr``, then a cosine or stairs.

    The warm-up of n steps begins at ``warmup_lr``, and step n has ``lr``. With ``warmup_lr`` 0 the
    first update fills the momentum and the statistics of BatchNorm, and moves no weight, as in the
    recipes of flax (examples/imagenet) and big_vision. timm begins at 1e-6, which DeiT's configs
    have, and Goyal et al. (2017, section 2.2) at the rate of a single worker. The cosine reaches
    ``final_lr`` at the end of the run; the stairs go down at the end of each epoch.
    """
    warmup = config.warmup_epochs * steps_per_epoch
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=config.warmup_lr,
            peak_value=config.lr,
            warmup_steps=warmup,
            decay_steps=epochs * steps_per_epoch,
            end_value=config.final_lr,
        )
    rise = optax.linear_schedule(config.warmup_lr, config.lr, warmup)
    stairs = optax.exponential_decay(config.lr, steps_per_epoch, config.step_factor, staircase=True)
    return optax.join_schedules([rise, stairs], [warmup])


def build(config: OptimConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimiser of a config.

    With sgd the decay joins the gradient before the momentum, as in torch's SGD; with adamw it
    joins the step, scaled by the learning rate, as in torch's AdamW.

    Raises:
      ConfigError: a setting of another optimiser or schedule is not at its default.
    """
    _refuse_unused(config)
    mask = _is_kernel if config.decay == "kernels" else None
    # The optimiser counts updates, the schedule batches.
    every = config.accumulate
    rate = learning_rate if every == 1 else lambda count: learning_rate(count * every)
    if config.name == "adamw":
        b1, b2 = config.betas
        optimizer = optax.chain(
            optax.scale_by_adam(b1, b2),
            optax.add_decayed_weights(config.weight_decay, mask),
            *_head_decay(config.head_decay),
            optax.scale_by_learning_rate(rate),
        )
    else:
        optimizer = optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask),
            *_head_decay(config.head_decay),
            optax.sgd(rate, momentum=config.momentum, nesterov=True),
        )
    if config.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    if every > 1:
        optimizer = optax.MultiSteps(optimizer, every).gradient_transformation()
    return optimizer


def build_average(config: OptimConfig) -> Average | None:
    """Returns the moving average of a config, or None without one."""
    if not config.ema:
        return None
    return partial(average, decay=config.ema, every=config.accumulate)


def average(averaged: Any, weights: Any, step: jax.Array, *, decay: float, every: int) -> Any:
    """Returns the moving average of the weights after one more step.

    Begun at w_0, with decay d, the average after n updates is

        d^n w_0 + (1 - d) sum_{i=1..n} d^(n-i) w_i

    ``step`` counts batches, this one included; every ``every``-th is an update.
    """
    rate = jnp.where(step % every == 0, 1 - decay, 0.0)
    return jax.tree.map(lambda old, new: old + rate * (new - old), averaged, weights)


def _head_decay(decay: float) -> list[optax.GradientTransformation]:
    return [optax.add_decayed_weights(decay, _is_head)] if decay else []


def _is_head(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: [part.key for part in path] == ["head", "kernel"], params
    )


def _is_kernel(params: Any) -> Any:
    """Marks the matrices and filters; the rest is biases, norms, class token and positions."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _refuse_unused(config: OptimConfig) -> None:
    """Raises ConfigError for a setting that has no effect and is not at its default."""
    idle = {"momentum": config.name == "adamw", "betas": config.name == "sgd"}
    idle |= {"final_lr": config.schedule == "step", "step_factor": config.schedule == "cosine"}
    idle |= {"warmup_lr": not config.warmup_epochs}
    for field, unread in idle.items():
        value, default = getattr(config, field), getattr(OptimConfig, field)
        if unread and value != default:
            raise ConfigError(
                f"--optim.{field} is {value!r} but has no effect on {config.name} under a "
                f"{config.schedule} schedule and {config.warmup_epochs} epochs of warm-up; leave "
                f"it at {default!r}."
            )
