"""The seam to flax: ``init_state``, ``train_step`` and ``predict``, all pure.

Nothing here is jitted and nothing knows about devices; ``train/loop.py`` attaches both. There is
no random key in the state: the augmentation draws its own on the host, and a step that needs one
folds ``state.step`` into the seed, so that a resumed run draws the same.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from train.losses import Loss


class Task(NamedTuple):
    """What does not change during a run: a static argument of the functions below."""

    model: nn.Module
    optimizer: optax.GradientTransformation
    loss: Loss
    mean: tuple[float, ...]
    std: tuple[float, ...]


class TrainState(NamedTuple):
    """What a training step changes, and a checkpoint holds."""

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState

    @property
    def head(self) -> tuple[jax.Array, jax.Array]:
        """The last layer as ``(kernel [D K], bias [K])``."""
        return self.params["head"]["kernel"], self.params["head"]["bias"]


def init_state(task: Task, key: jax.Array, image_shape: tuple[int, ...]) -> TrainState:
    """Returns the state before the first step."""
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = task.model.init(key, images, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=task.optimizer.init(variables["params"]),
    )


def train_step(
    task: Task, state: TrainState, batch: dict[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Returns the state after one step, and the loss and accuracy of the batch before it."""
    images = normalise(task, batch["image"])

    def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        (logits, _), changed = task.model.apply(
            variables, images, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(task.loss(logits, batch["label"])), (logits, changed["batch_stats"])

    (loss, (logits, batch_stats)), gradient = jax.value_and_grad(objective, has_aux=True)(
        state.params
    )
    updates, opt_state = task.optimizer.update(gradient, state.opt_state, state.params)
    correct = jnp.argmax(logits, axis=-1) == batch["label"]
    state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return state, {"loss": loss, "accuracy": jnp.mean(correct.astype(jnp.float32))}


def predict(task: Task, state: TrainState, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the logits ``[B K]`` and features ``[B D]`` in evaluation mode."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return task.model.apply(variables, normalise(task, images), train=False)


def normalise(task: Task, images: jax.Array) -> jax.Array:
    """Returns stored pixels as float32 with the mean and deviation of each channel taken out."""
    mean, std = jnp.asarray(task.mean, jnp.float32), jnp.asarray(task.std, jnp.float32)
    return (images.astype(jnp.float32) - mean) / std
