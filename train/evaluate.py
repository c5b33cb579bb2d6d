"""The metrics pass: one forward pass over a split, in evaluation mode.

Features never leave their device. Each device has a ``Tally`` of its own (donated, so updated in
place) that takes up its part of each batch, and no collective is in the program of a batch. The
tallies are merged, and the host reads them, once: when the split is through.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import vci_jax
from train.step import Task, TrainState, predict_layers

# Of every depth; the features have all metrics and spectra besides.
_OF_LAYERS = (
    "vci",
    "vci_adjusted",
    "fuzziness",
    "squared_distance",
    "cosine_similarity",
    "class_separation",
    "kept_rank",
)


class Tally(NamedTuple):
    """Sums over the images seen so far; ``moments`` by the name of the depth, in their order."""

    moments: OrderedDict[str, vci_jax.ClassMoments]
    loss: jax.Array
    correct: jax.Array
    samples: jax.Array


def init_tally(num_classes: int, dims: Mapping[str, int]) -> Tally:
    """Returns the tally of no images.

    Args:
      num_classes: K.
      dims: the size D of each depth that is measured, ``features`` among them.
    """
    return Tally(
        moments=OrderedDict((name, vci_jax.init(num_classes, dim)) for name, dim in dims.items()),
        loss=jnp.zeros((), jnp.float32),
        correct=jnp.zeros((), jnp.int32),
        samples=jnp.zeros((), jnp.int32),
    )


def add_batch(task: Task, tally: Tally, state: TrainState, batch: dict[str, jax.Array]) -> Tally:
    """Returns the tally with the rows of a batch whose ``mask`` is not zero."""
    layers = predict_layers(task, state, batch["image"])
    logits, labels, mask = layers["logits"], batch["label"], batch["mask"]
    present = mask > 0
    loss = jnp.where(present, task.loss(logits, labels), 0.0)
    correct = present & (jnp.argmax(logits, axis=-1) == labels)
    return Tally(
        moments=OrderedDict(
            (name, vci_jax.update(moments, layers[name], labels, mask))
            for name, moments in tally.moments.items()
        ),
        loss=tally.loss + jnp.sum(loss),
        correct=tally.correct + jnp.sum(correct, dtype=jnp.int32),
        samples=tally.samples + jnp.sum(present, dtype=jnp.int32),
    )


def merge(tallies: Tally) -> Tally:
    """Returns one tally of the images of all, which are stacked along the leading axis."""
    if tallies.loss.shape[0] == 1:
        return jax.tree.map(lambda leaf: leaf[0], tallies)
    return Tally(
        OrderedDict((name, vci_jax.merge_axis(m)) for name, m in tallies.moments.items()),
        *(jnp.sum(sums, axis=0, dtype=sums.dtype) for sums in tallies[1:]),
    )


def evaluate(
    tallies: Tally,
    state: TrainState,
    batches: Iterable[dict[str, jax.Array]],
    *,
    step: Callable[[Tally, TrainState, dict[str, jax.Array]], Tally],
    merge: Callable[[Tally], Tally],
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Returns the accuracy, the loss and every metric of the split that ``batches`` go through.

    Where depths besides the features are measured, ``layers`` has the metrics of each.

    Args:
      tallies: an empty one per device, given up to the pass.
      state: whose network is measured; whole on every device.
      batches: on the devices, with ``mask``.
      step: ``add_batch`` with its task, for every device by itself, compiled.
      merge: of the tallies, compiled.
      stop: asked after each batch; if it is true the pass ends with None.
    """
    for batch in batches:
        tallies = step(tallies, state, batch)
        if stop():
            return None
    tally = merge(tallies)
    kernel, bias = state.head
    metrics = vci_jax.report(tally.moments["features"], head=(kernel, bias))
    samples = int(tally.samples)
    row = {"accuracy": int(tally.correct) / samples, "loss": float(tally.loss) / samples, **metrics}
    others = {name: m for name, m in tally.moments.items() if name != "features"}
    if others:
        reports = {name: vci_jax.report(moments) for name, moments in others.items()}
        row["layers"] = {
            name: {metric: report[metric] for metric in _OF_LAYERS}
            for name, report in reports.items()
        }
    return row
