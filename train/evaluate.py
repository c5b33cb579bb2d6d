"""The metrics pass: one forward pass over a split, in evaluation mode.

Features never leave the device. A ``Tally`` (donated, so updated in place) takes each batch up as
it is computed, and the host reads it once, when the split is through.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import vci_jax
from train.step import Task, TrainState, predict


class Tally(NamedTuple):
    """Sums over the images seen so far."""

    moments: vci_jax.ClassMoments
    loss: jax.Array
    correct: jax.Array
    samples: jax.Array


def init_tally(num_classes: int, dim: int) -> Tally:
    """Returns the tally of no images."""
    return Tally(
        moments=vci_jax.init(num_classes, dim),
        loss=jnp.zeros((), jnp.float32),
        correct=jnp.zeros((), jnp.int32),
        samples=jnp.zeros((), jnp.int32),
    )


def add_batch(task: Task, tally: Tally, state: TrainState, batch: dict[str, jax.Array]) -> Tally:
    """Returns the tally with the rows of a batch whose ``mask`` is not zero."""
    logits, features = predict(task, state, batch["image"])
    present = batch["mask"] > 0
    loss = jnp.where(present, task.loss(logits, batch["label"]), 0.0)
    correct = present & (jnp.argmax(logits, axis=-1) == batch["label"])
    return Tally(
        moments=vci_jax.update(tally.moments, features, batch["label"], batch["mask"]),
        loss=tally.loss + jnp.sum(loss),
        correct=tally.correct + jnp.sum(correct, dtype=jnp.int32),
        samples=tally.samples + jnp.sum(present, dtype=jnp.int32),
    )


def evaluate(
    tally: Tally,
    state: TrainState,
    batches: Iterable[dict[str, jax.Array]],
    *,
    step: Callable[[Tally, TrainState, dict[str, jax.Array]], Tally],
) -> dict[str, Any]:
    """Returns the accuracy, the loss and every metric of the split that ``batches`` go through.

    Args:
      tally: an empty one, given up to the pass.
      state: whose network is measured.
      batches: on the device, with ``mask``.
      step: ``add_batch`` with its task, compiled.
    """
    for batch in batches:
        tally = step(tally, state, batch)
    kernel, bias = state.head
    metrics = vci_jax.report(tally.moments, head=(kernel, bias))
    samples = int(tally.samples)
    return {
        "accuracy": int(tally.correct) / samples,
        "loss": float(tally.loss) / samples,
        **metrics,
    }
