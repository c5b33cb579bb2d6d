"""``measure``: a report from a callable and an iterable of batches.

Legend: N samples in a batch, K classes, D feature dimension.
"""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from vci_jax._report import Head, Report, check_options, report
from vci_jax.arrays import as_native, check_head
from vci_jax.errors import VCIError, check_count
from vci_jax.geometry import Weighting
from vci_jax.jit_update import jit_update
from vci_jax.moments import ClassMoments, init

# What loaders call inputs and labels: TFDS and torchvision's, and those of Hugging Face.
_INPUTS = (
    *("image", "images", "img", "pixel_values", "input_ids", "input_values"),
    "inputs",
)
_LABELS = ("label", "labels", "target", "targets")


def measure(
    feature_fn: Callable[[Any], Any],
    batches: Iterable[Any],
    num_classes: int,
    *,
    weighting: Weighting = "sample",
    class_counts: Any | None = None,
    head: Head | None = None,
    blocks: int = 1,
    dtype: jax.typing.DTypeLike = jnp.float32,
    progress: bool | None = None,
    only: Collection[str] | None = None,
    inputs: str | Sequence[str] | None = None,
    labels: str | None = None,
) -> Any:
    """Runs one pass over labelled data and reports every collapse metric.

    The host never waits for the device between batches: features go from ``feature_fn`` into a
    donated state, and the first number is fetched after the last batch.

    Args:
      feature_fn: inputs -> features [N, D], as a JAX array or anything ``numpy.asarray`` takes, or
        a tensor of PyTorch; or a mapping of such by the name of a layer. Jit it yourself; it is
        called as it is.
      batches: (inputs, labels) or (inputs, labels, mask) tuples, or mappings with ``image`` and
        ``label``, ``pixel_values`` and ``labels``, ``input_ids`` and ``labels``, or the names
        given, and perhaps ``mask``. Consumed once. Rows whose mask is zero are padding.
      num_classes: K.
      weighting: ``"sample"`` or ``"class"``, see ``factorize``.
      class_counts: needed for ``"class"`` on imbalanced data, see ``init``.
      head: kernel and bias of the classifier, for ``self_duality``; for features of one layer.
      blocks: B >= 2 deals the batches to B partial states in turn, for ``vci_interval``; takes B
        times the memory of one state. Needs shuffled data.
      dtype: of the accumulation.
      progress: write batches, samples and speed to stderr; by default if it is a terminal.
      only: names of the metrics wanted, all by default; see ``report``.
      inputs: the name of the entry of a mapping that ``feature_fn`` is called with; several names
        give it a dictionary, e.g. ``("input_ids", "attention_mask")``.
      labels: the name of the entry with the labels.

    Returns:
      The ``Report``; a dictionary of reports by layer if ``feature_fn`` returns a mapping.

    Raises:
      VCIError: for no batches, a batch of another form, a head that is not finite or does not
        fit, or anything ``jit_update`` refuses.

    Example:
      >>> import numpy as np, vci_jax
      >>> rng = np.random.default_rng(0)
      >>> batches = [{"image": rng.normal(size=(64, 4)), "label": np.arange(64) % 2}] * 2
      >>> report = vci_jax.measure(lambda x: {"first": x[:, :2], "all": x}, batches, 2)
      >>> list(report), report["all"].samples
      (['first', 'all'], 128)
    """
    check_count("blocks", blocks)
    check_count("num_classes", num_classes)
    _check_callable(feature_fn, batches)
    check_options(weighting, only, blocks)  # Now, rather than after a pass over ImageNet.
    states: dict[str | None, list[ClassMoments]] = {}
    meter = _Meter(sys.stderr, sys.stderr.isatty() if progress is None else progress)
    steps = 0
    for step, batch in enumerate(batches):
        given, names, mask = _unpack(batch, inputs, labels)
        layers = _layers(feature_fn(jax.tree.map(_in_native_order, given)), head)
        if step and layers.keys() != states.keys():
            raise VCIError(f"feature_fn returned {list(layers)} after {list(states)}.")
        for layer, features in layers.items():
            row = states.setdefault(layer, [])
            if step == 0 and head is not None:
                head = check_head(head, features.shape[1], num_classes)
            if len(row) < blocks:
                row.append(
                    init(num_classes, features.shape[1], class_counts=class_counts, dtype=dtype)
                )
            row[step % blocks] = jit_update(row[step % blocks], features, names, mask)
        meter.add(len(next(iter(layers.values()))))
        steps = step + 1
    meter.close()
    if not states:
        raise VCIError("batches is empty: an exhausted iterator? Pass a fresh one.")
    if steps < blocks:
        raise VCIError(f"{steps} batches cannot fill blocks={blocks}: use fewer blocks.")
    reports: dict[str | None, Report] = {}
    for layer, row in states.items():
        stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *row)
        reports[layer] = report(stack, weighting=weighting, head=head, only=only)
    return reports.get(None, reports)


def _check_callable(feature_fn: Any, batches: Any) -> None:
    """Refuses arguments that are not a function, or not batches."""
    if not callable(feature_fn):
        raise VCIError(
            f"feature_fn must be a function of the inputs, got {type(feature_fn).__name__}: for "
            "arrays in memory call vci_jax.measure_arrays(features, labels)."
        )
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise VCIError(f"batches must be iterable, got {type(batches).__name__}: pass a loader.")


def _in_native_order(leaf: Any) -> Any:
    """An array of another byte order as this machine has it; a jitted function would misread it."""
    if isinstance(leaf, np.ndarray) and not leaf.dtype.isnative:
        return leaf.astype(leaf.dtype.newbyteorder("="))
    return leaf


def _layers(features: Any, head: Head | None) -> dict[str | None, Any]:
    """Returns features by layer; a single layer without a name has the key None."""
    named = isinstance(features, Mapping)
    if named and head is not None:
        raise VCIError("head belongs to one layer: let feature_fn return its features alone.")
    if named and not features:
        raise VCIError("feature_fn returned an empty mapping: it must hold a layer or more.")
    layers = dict(features) if named else {None: features}
    for layer, values in layers.items():
        at = "" if layer is None else f" at {layer!r}"
        if values is None or not (isinstance(values, list) or hasattr(values, "__array__")):
            raise VCIError(
                f"feature_fn must return features [N, D], got {type(values).__name__}{at}: return "
                "the array alone, or a mapping of arrays by layer."
            )
        layers[layer] = array = as_native("features", values)
        if array.ndim != 2:
            raise VCIError(f"feature_fn must return [N, D], got shape {tuple(array.shape)}{at}.")
    return layers


def _unpack(
    batch: Any, inputs: str | Sequence[str] | None, labels: str | None
) -> tuple[Any, Any, Any]:
    if isinstance(batch, Mapping):
        wanted = _INPUTS if inputs is None else [inputs] if isinstance(inputs, str) else inputs
        there = [name for name in wanted if name in batch]
        targets = [name for name in (_LABELS if labels is None else [labels]) if name in batch]
        several = inputs is not None and not isinstance(inputs, str)
        if not there or not targets or (several and len(there) < len(wanted)):
            needs = (
                f"{list(wanted)} and {labels or _LABELS[0]!r}"
                if inputs or labels
                else ('"image" and "label", or "input_ids" or "pixel_values" and "labels"')
            )
            raise VCIError(
                f"A mapping batch needs {needs}, got {sorted(map(str, batch))}. Name its entries "
                "with inputs= and labels=, or yield (inputs, labels) tuples instead."
            )
        given = {name: batch[name] for name in there} if several else batch[there[0]]
        return given, batch[targets[0]], batch.get("mask")
    if isinstance(batch, tuple | list) and len(batch) in (2, 3):
        return batch[0], batch[1], batch[2] if len(batch) == 3 else None
    length = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
    raise VCIError(
        "A batch must be (inputs, labels), (inputs, labels, mask) or a mapping with image and "
        f"label, got {type(batch).__name__}{length}. For arrays in memory call "
        "vci_jax.measure_arrays(features, labels)."
    )


class _Meter:
    """One line on a terminal, rewritten at most four times a second."""

    def __init__(self, stream: TextIO, shown: bool) -> None:
        self._stream, self._shown = stream, shown
        self._start = self._last = time.monotonic()
        self._batches = self._rows = 0

    def add(self, rows: int) -> None:
        self._batches, self._rows = self._batches + 1, self._rows + rows
        if self._shown and time.monotonic() - self._last > 0.25:
            self._write("\r")

    def close(self) -> None:
        if self._shown:
            self._write("\n")

    def _write(self, end: str) -> None:
        self._last = time.monotonic()
        speed = self._rows / max(self._last - self._start, 1e-9)
        line = f"\r{self._batches:,} batches, {self._rows:,} rows, {speed:,.0f} rows/s"
        self._stream.write(f"{line:<60}{end if end != chr(13) else ''}")
        self._stream.flush()
