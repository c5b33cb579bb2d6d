"""The metrics pass: one forward pass over a split, in evaluation mode.

Features never leave their device. Each device adds its part of each batch to a ``Tally`` of its own
(donated, so updated in place), without a collective. The tallies are merged, and read by the host,
once, after the last batch.

The rows of a batch are dealt to a few blocks with a state each, from which a jackknife estimates
the noise of VCI.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vci_jax
from train import data
from train.step import TrainSpec, TrainState, predict_layers
from vci_jax import picture
from vci_jax.monitor import LAYER_METRICS, deal

_MAX_DRAWN = 256


class Tally(NamedTuple):
    """Sums over the images seen so far; ``moments`` by the name of the depth, in their order.

    Those of ``features`` have a leading axis of blocks. ``correct`` and ``samples`` are by class.
    """

    moments: OrderedDict[str, vci_jax.ClassMoments]
    loss: jax.Array
    correct: jax.Array
    samples: jax.Array


def init_tally(num_classes: int, dims: Mapping[str, int], blocks: int) -> Tally:
    """Returns the tally of no images.

    ``dims`` has the size D of each measured depth, ``features`` among them; the rows of
    ``features`` are dealt to ``blocks`` states.
    """
    moments = OrderedDict((name, vci_jax.init(num_classes, dim)) for name, dim in dims.items())
    moments["features"] = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (blocks, *leaf.shape)), moments["features"]
    )
    return Tally(
        moments=moments,
        loss=jnp.zeros((), jnp.float32),
        correct=jnp.zeros(num_classes, jnp.int32),
        samples=jnp.zeros(num_classes, jnp.int32),
    )


def add_batch(
    spec: TrainSpec, tally: Tally, state: TrainState, batch: dict[str, jax.Array]
) -> Tally:
    """Returns the tally with the rows of a batch whose ``mask`` is not zero."""
    layers = predict_layers(spec, state, batch["image"])
    logits, labels, mask = layers["logits"], batch["label"], batch["mask"]
    present = mask > 0
    loss = jnp.where(present, spec.loss(logits, labels), 0.0)
    # The argmax of NaN is class 0.
    sound = jnp.all(jnp.isfinite(logits), axis=-1)
    correct = present & sound & (jnp.argmax(logits, axis=-1) == labels)
    return Tally(
        moments=OrderedDict(
            (name, add(moments, layers[name], labels, mask))
            for name, moments in tally.moments.items()
            for add in [deal if name == "features" else vci_jax.update]
        ),
        loss=tally.loss + jnp.sum(loss),
        correct=tally.correct.at[labels].add(correct.astype(jnp.int32)),
        samples=tally.samples.at[labels].add(present.astype(jnp.int32)),
    )


def merge(tallies: Tally) -> Tally:
    """Returns the sum of tallies that are stacked along the leading axis; blocks stay apart."""
    if tallies.loss.shape[0] == 1:
        return jax.tree.map(lambda leaf: leaf[0], tallies)
    merge_blocks = jax.vmap(vci_jax.merge_axis, in_axes=1)
    return Tally(
        OrderedDict(
            (name, merge_blocks(m) if name == "features" else vci_jax.merge_axis(m))
            for name, m in tallies.moments.items()
        ),
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
    """Returns the accuracy, the loss and every metric of a split; None if ``stop`` becomes true.

    Where depths besides the features are measured, ``layers`` has the metrics of each.
    ``per_class`` has the columns of ``vci_jax.per_class`` of the features, and the accuracy.
    ``plane`` is the plane in which features are drawn.

    Args:
      tallies: an empty one per device; they are donated.
      state: the network to measure, replicated on every device.
      batches: the batches of the split, on the devices, with ``mask``.
      step: ``add_batch`` with its spec, per device, compiled.
      merge: the compiled merge of the tallies.
      stop: called after each batch.
    """
    for batch in batches:
        tallies = step(tallies, state, batch)
        if stop():
            return None
    tally = merge(tallies)
    kernel, bias = state.head
    features = tally.moments["features"]
    sound = all(np.isfinite(np.asarray(part)).all() for part in (kernel, bias))
    metrics = vci_jax.report(features, head=(kernel, bias) if sound else None)
    correct, counts = np.asarray(tally.correct), np.asarray(tally.samples)
    samples = int(counts.sum())
    row = {"accuracy": correct.sum() / samples, "loss": float(tally.loss) / samples, **metrics}
    classes = jax.device_get(_per_class(features))
    classes["accuracy"] = np.where(counts > 0, correct / np.maximum(counts, 1), np.nan)
    row["per_class"] = {name: column.tolist() for name, column in classes.items()}
    row["plane"] = picture.fit_plane(features)
    others = {name: m for name, m in tally.moments.items() if name != "features"}
    if others:
        reports = {name: vci_jax.report(moments) for name, moments in others.items()}
        row["layers"] = {
            name: {metric: report[metric] for metric in LAYER_METRICS}
            for name, report in reports.items()
        }
    return row


@jax.jit
def _per_class(blocks: vci_jax.ClassMoments) -> dict[str, jax.Array]:
    return vci_jax.per_class(vci_jax.merge_axis(blocks))


def sample(records: data.Records) -> data.Subset:
    """Returns evenly spaced images of a split, whose features are drawn."""
    size = min(_MAX_DRAWN, records.size)
    return data.Subset(records, [index * records.size // size for index in range(size)])
