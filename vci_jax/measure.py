"""The three-line way in: a callable, an iterable of batches, a report.

Legend: N samples in a batch, K classes, D feature dimension.
"""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TextIO

import jax
import jax.numpy as jnp

from vci_jax.arrays import as_native, check_head
from vci_jax.geometry import Weighting
from vci_jax.jit_update import jit_update
from vci_jax.moments import ClassMoments, init
from vci_jax.report import Head, check_options, report


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
) -> dict[str, Any]:
    """Runs one pass over labelled data and reports every collapse metric.

    The host never waits for the device between batches: features go from ``feature_fn`` into a
    donated state, and the first number is fetched after the last batch.

    Args:
      feature_fn: inputs -> features [N, D], as a JAX array or anything ``numpy.asarray`` takes
        (a detached PyTorch tensor on the CPU). Jit it yourself; it is called as it is.
      batches: (inputs, labels) or (inputs, labels, mask) tuples, or mappings with ``image``,
        ``label`` and perhaps ``mask``. Consumed once. Rows whose mask is zero are padding.
      num_classes: K.
      weighting: ``"sample"`` or ``"class"``, see ``factorize``.
      class_counts: needed for ``"class"`` on imbalanced data, see ``init``.
      head: kernel and bias of the classifier, for ``self_duality``.
      blocks: B >= 2 deals the batches to B partial states in turn, for ``vci_interval``; takes B
        times the memory of one state. Needs shuffled data.
      dtype: of the accumulation.
      progress: write batches, samples and speed to stderr; by default if it is a terminal.
      only: names of the metrics wanted, all by default; see ``report``.

    Returns:
      The dictionary of ``report``.

    Raises:
      ValueError: for no batches, a batch of another form, a head that is not finite or does not
        fit, or anything ``jit_update`` refuses.
    """
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, got {blocks}.")
    check_options(weighting, only, blocks)  # Now, rather than after a pass over ImageNet.
    states: list[ClassMoments] = []
    meter = _Meter(sys.stderr, sys.stderr.isatty() if progress is None else progress)
    for step, batch in enumerate(batches):
        inputs, labels, mask = _unpack(batch)
        features = feature_fn(inputs)
        features = as_native("features", features)
        if features.ndim != 2:
            raise ValueError(f"feature_fn must return [N, D], got shape {tuple(features.shape)}.")
        if not states and head is not None:
            head = check_head(head, features.shape[1], num_classes)
        if len(states) < blocks:
            states.append(
                init(num_classes, features.shape[1], class_counts=class_counts, dtype=dtype)
            )
        slot = step % blocks
        states[slot] = jit_update(states[slot], features, labels, mask)
        meter.add(features.shape[0])
    meter.close()
    if not states:
        raise ValueError("batches is empty: an exhausted iterator? Pass a fresh one.")
    if len(states) < blocks:
        raise ValueError(f"{len(states)} batches cannot fill blocks={blocks}: use fewer blocks.")
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return report(stack, weighting=weighting, head=head, only=only)


def _unpack(batch: Any) -> tuple[Any, Any, Any]:
    if isinstance(batch, Mapping):
        if "image" not in batch or "label" not in batch:
            raise ValueError(
                f'A mapping batch needs "image" and "label", got {sorted(map(str, batch))}. '
                "Yield (inputs, labels) tuples instead for other names."
            )
        return batch["image"], batch["label"], batch.get("mask")
    if isinstance(batch, tuple | list) and len(batch) in (2, 3):
        return batch[0], batch[1], batch[2] if len(batch) == 3 else None
    raise ValueError(
        "A batch must be (inputs, labels), (inputs, labels, mask) or a mapping with image and "
        f"label, got {type(batch).__name__}."
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
