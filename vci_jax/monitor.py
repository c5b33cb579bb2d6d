"""``Monitor``: metrics during any training program, in the files that ``train`` writes.

Legend: N rows of a batch, K classes, D features, B blocks.
"""

import json
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vci_jax._report import Head, Report, report
from vci_jax.arrays import as_native, canonicalize_batch, check_head
from vci_jax.counts import MAX_COUNT, add_counts
from vci_jax.errors import VCIError, check_count
from vci_jax.moments import ClassMoments, init, merge_axis, update
from vci_jax.per_class import per_class
from vci_jax.picture import Few, Plane, fit_plane, keep, no_samples, points
from vci_jax.placement import anywhere, like
from vci_jax.written import json_ready, replace_text

Row = dict[str, Any]
Write = Callable[[Row], None] | str | os.PathLike[str]

# Metrics of the layers before the features.
LAYER_METRICS = ("vci", "vci_adjusted", "fuzziness", "squared_distance", "cosine_similarity",
                 "class_separation", "kept_rank")  # fmt: skip


class Monitor:
    """Measures the features of a network that any program trains, every few epochs.

        monitor = vci_jax.Monitor(num_classes=10, every=5, write="runs/mine")
        for epoch in range(1, 101):
            ...  # train
            if monitor.due(epoch):
                for images, labels in loader:
                    features, logits = network(images)
                    monitor.add("test", features, labels, logits=logits)
                monitor.log(epoch)

    Rows have the form of ``metrics.jsonl`` of ``python -m train``, so that a directory is a run to
    ``python -m probes report``, ``figures`` and ``correlate``. The page shows some 256 samples of
    each split as points, the first of each class. A training that resumes from a checkpoint goes
    on in its directory: rows of the epochs that it repeats are replaced.

    Args:
      num_classes: K.
      every: epochs between two measurements.
      layers: names that are measured if features come as a mapping; all by default. The one called
        ``features``, or else the last, has every metric and an interval; the others a few.
      write: a directory that gets ``metrics.jsonl``, ``per_class.json`` and ``pictures.jsonl``,
        made if need be; or a function that is called with each row; None for neither. In a program
        of several JAX processes the first alone writes.
      blocks: B of the interval of VCI; rows of a batch are dealt among as many states.
      dtype: of the accumulation.
      class_names: of the K classes, for the page.

    Raises:
      VCIError: ``every`` or ``blocks`` is less than 1, there are not K names, or the directory has
        rows that cannot be read.

    Example:
      >>> import numpy as np, vci_jax
      >>> rows = []
      >>> monitor = vci_jax.Monitor(2, every=2, write=rows.append)
      >>> rng, labels = np.random.default_rng(0), np.arange(200) % 2
      >>> for epoch in range(1, 5):
      ...     if monitor.due(epoch):
      ...         features = rng.normal(size=(200, 3)) + epoch * labels[:, None]
      ...         monitor.add("train", features, labels)
      ...         reports = monitor.log(epoch)
      >>> [(row["epoch"], row["split"], row["vci"] > 0.1) for row in rows]
      [(2, 'train', True), (4, 'train', False)]
    """

    def __init__(
        self,
        num_classes: int,
        *,
        every: int = 1,
        layers: Collection[str] | None = None,
        write: Write | None = None,
        blocks: int = 16,
        dtype: jax.typing.DTypeLike = jnp.float32,
        class_names: Sequence[str] | None = None,
    ) -> None:
        for name, value in (("num_classes", num_classes), ("every", every), ("blocks", blocks)):
            check_count(name, value)
        if isinstance(layers, str):
            raise VCIError(f"layers is {layers!r}; pass a list of names, [{layers!r}].")
        if class_names is not None and len(class_names) != num_classes:
            raise VCIError(
                f"class_names has {len(class_names)} names for num_classes={num_classes}: pass one "
                "for each class, in the order of the labels."
            )
        self._num_classes, self._blocks, self._dtype = num_classes, blocks, dtype
        self._every, self._layers = every, layers
        self._names = None if class_names is None else [str(name) for name in class_names]
        self._write = write if callable(write) or write is None else _Directory(Path(write))
        self._splits: dict[str, _Split] = {}

    def due(self, epoch: int) -> bool:
        """Whether the network is to be measured after so many epochs."""
        return epoch % self._every == 0

    def add(
        self,
        split: str,
        features: Any,
        labels: Any,
        mask: Any = None,
        *,
        logits: Any = None,
    ) -> None:
        """Adds a batch of a split, from a network in evaluation mode.

        The host does not wait for the device.

        Args:
          split: ``train`` or ``test``, or another name.
          features: [N, D], an array of JAX or NumPy or a tensor of PyTorch; or a mapping of such by
            the name of a layer.
          labels: [N] integers in [0, K).
          mask: [N]; rows where it is zero are padding.
          logits: [N, K] of the classifier, for ``accuracy`` and ``loss``, the mean cross-entropy;
            with all batches of a split or with none.

        Raises:
          VCIError: for anything ``update`` or ``canonicalize_batch`` refuses, layers that are
            missing or not those of the batches before, or logits of another shape.
        """
        layers = self._chosen(features)
        state = self._splits.get(split)
        if state is None:
            state = self._splits[split] = _Split(
                {
                    name: self._empty(values.shape[1], name == _deepest(layers))
                    for name, values in layers.items()
                },
                has_logits=logits is not None,
                num_classes=self._num_classes,
            )
        if state.moments.keys() != layers.keys():
            raise VCIError(f"{split} has the layers {list(state.moments)}, got {list(layers)}.")
        if state.has_logits != (logits is not None):
            raise VCIError(f"logits must come with every batch of {split}, or with none.")
        for name, values in layers.items():
            batch = canonicalize_batch(values, labels, mask, dtype=self._dtype)
            add = _add_dealt if name == _deepest(layers) else _add
            state.moments[name] = add(state.moments[name], *batch)
            if name == _deepest(layers) and isinstance(self._write, _Directory):
                few = state.few or no_samples(self._num_classes, values.shape[1], self._dtype)
                state.few = _keep(few, *batch)
        if logits is not None:
            scores, *rest = canonicalize_batch(logits, labels, mask)
            if scores.shape[1:] != (self._num_classes,):
                raise VCIError(f"logits must be [N, {self._num_classes}], got {scores.shape}.")
            state.answers = _answer(state.answers, scores, *rest)

    def log(
        self,
        epoch: int,
        *,
        step: int | None = None,
        head: Head | None = None,
        **values: Mapping[str, Any],
    ) -> dict[str, Report]:
        """Writes a row for each split that has batches, and forgets the batches.

        Args:
          epoch: how many are done.
          step: how many steps are done; ``epoch`` if it is not counted.
          head: kernel [D, K] and bias [K] of the classifier, for ``self_duality``.
          values: by the name of a split, more entries of its row, as ``test={"loss": 0.3}``.

        Returns:
          The reports of the features, by split.

        Raises:
          VCIError: no batch came, ``values`` for a split without any, or a head that does not fit.
        """
        if not self._splits:
            raise VCIError("No batch came since the last log: call add(split, features, labels).")
        if unknown := sorted(set(values) - set(self._splits)):
            raise VCIError(f"{', '.join(unknown)}: the splits are {', '.join(self._splits)}.")
        place = {"step": epoch if step is None else step, "epoch": epoch}
        rows, reports, classes = [], {}, {}
        for split, state in self._splits.items():
            reports[split], row, classes[split] = self._measured(state, head)
            rows.append(json_ready(place | {"split": split} | row | dict(values.get(split, {}))))
        splits, self._splits = self._splits, {}
        if isinstance(self._write, _Directory):
            drawn = [json_ready(place | picture) for picture in _pictures(splits)]
            if jax.process_index() == 0:
                self._write.write(rows, json_ready(place | classes), drawn)
        elif self._write is not None:
            for row in rows:
                self._write(row)
        return reports

    def _chosen(self, features: Any) -> dict[str, Any]:
        """Returns the arrays of the measured layers, by name."""
        named = dict(features) if isinstance(features, Mapping) else {"features": features}
        wanted = list(named) if self._layers is None else self._layers
        if missing := [name for name in wanted if name not in named]:
            raise VCIError(f"there is no layer {', '.join(missing)}; there are {list(named)}.")
        chosen = {name: as_native("features", named[name]) for name in named if name in wanted}
        if not chosen:
            raise VCIError("features is an empty mapping, or layers names none of it.")
        for name, values in chosen.items():
            if values.ndim != 2:
                raise VCIError(f"features must be [N, D], got shape {values.shape} at {name!r}.")
        return chosen

    def _empty(self, dim: int, dealt: bool) -> ClassMoments:
        moments = init(self._num_classes, dim, dtype=self._dtype)
        if not dealt:
            return moments
        stack: ClassMoments = jax.tree.map(
            lambda leaf: jnp.repeat(leaf[None], self._blocks, axis=0), moments
        )
        return stack

    def _measured(self, state: "_Split", head: Head | None) -> tuple[Report, Row, Row]:
        """Returns the report of the features, the row of a split, and columns of its classes."""
        start = time.perf_counter()
        deepest = _deepest(state.moments)
        features = state.moments[deepest]
        if head is not None:
            head = check_head(head, features.mean.shape[-1], self._num_classes)
        measured = report(features, head=head)
        row = {} if state.answers is None else _scores(state.answers)
        row |= measured
        others = {name: report(m) for name, m in state.moments.items() if name != deepest}
        if others:
            row["layers"] = {
                name: {metric: values[metric] for metric in LAYER_METRICS}
                for name, values in others.items()
            }
        columns = jax.device_get(_classes(features))
        if state.answers is not None:
            right, samples = map(np.asarray, (state.answers.right, state.answers.samples))
            columns["accuracy"] = np.where(samples > 0, right / np.maximum(samples, 1), np.nan)
        lists: Row = {name: column.tolist() for name, column in columns.items()}
        row["seconds"] = time.perf_counter() - start
        return measured, row, lists if self._names is None else lists | {"name": self._names}


class _Split:
    """The state of a split: moments by layer, and sums over its logits."""

    def __init__(
        self, moments: dict[str, ClassMoments], *, has_logits: bool, num_classes: int
    ) -> None:
        self.moments = moments
        self.has_logits = has_logits
        self.few: Few | None = None
        none = jnp.zeros(num_classes, jnp.int32)
        self.answers = _Answers(none, none, jnp.zeros(()), none[0]) if has_logits else None


def _pictures(splits: Mapping[str, _Split]) -> Iterator[Row]:
    """Yields a row for each split, in the plane of the train split if there is one."""
    plane: Plane | None = None
    for split in sorted(splits, key=lambda name: name != "train"):
        state = splits[split]
        if plane is None or "train" not in splits:
            plane = fit_plane(state.moments[_deepest(state.moments)])
        if state.few is not None:
            yield {"split": split} | points(plane, state.few)


class _Directory:
    """Three files of a run, each replaced atomically."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = {name: _read(path / name) for name in ("metrics.jsonl", "pictures.jsonl")}

    def write(self, rows: list[Row], classes: Row, pictures: list[Row]) -> None:
        """Writes the rows of a step; they replace rows of this step and of later ones."""
        step, splits = rows[0]["step"], {row["split"] for row in rows}
        self._path.mkdir(parents=True, exist_ok=True)
        for name, new in (("pictures.jsonl", pictures), ("metrics.jsonl", rows)):
            self._rows[name] = [
                row
                for row in self._rows[name]
                if row["step"] < step or (row["step"] == step and row["split"] not in splits)
            ] + new
            lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self._rows[name])
            replace_text(self._path / name, lines)
        replace_text(self._path / "per_class.json", json.dumps(classes, allow_nan=False) + "\n")


def _read(file: Path) -> list[Row]:
    """Returns the rows of a file; none if it does not exist."""
    if not file.exists():
        return []
    try:
        rows: list[Row] = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["step"], row["split"]
    except (ValueError, KeyError, TypeError) as error:
        raise VCIError(
            f"{file} has a line that is no row ({error}): delete it, or take another directory."
        ) from None
    return rows


@anywhere(like)
def deal(
    stack: ClassMoments, features: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> ClassMoments:
    """Adds row r of a batch to state r mod B.

    Dealing rows rather than batches gives every state its share of each class, even if the rows are
    sorted by class, or the split is one batch. ``stack`` has B states along a leading axis.
    """
    blocks = stack.count.shape[0]
    mask = jnp.ones(labels.shape) if mask is None else mask

    def dealt(rows: jax.Array) -> jax.Array:
        lacking = -rows.shape[0] % blocks  # Rows of zeros, which the mask excludes.
        padded = jnp.pad(rows, [(0, lacking)] + [(0, 0)] * (rows.ndim - 1))
        return jnp.swapaxes(padded.reshape(-1, blocks, *rows.shape[1:]), 0, 1)

    added: ClassMoments = jax.vmap(update)(stack, dealt(features), dealt(labels), dealt(mask))
    return added


_keep = jax.jit(keep, donate_argnums=0)
_add = jax.jit(update, donate_argnums=0)
_add_dealt = jax.jit(deal, donate_argnums=0)


@jax.jit
def _classes(stack: ClassMoments) -> dict[str, jax.Array]:
    columns: dict[str, jax.Array] = per_class(merge_axis(stack))
    return columns


class _Answers(NamedTuple):
    """Rows of each class, right answers among them, and the sum of all cross-entropies.

    Rows whose logits are not finite are counted apart, and in nothing else.
    """

    samples: jax.Array
    right: jax.Array
    loss: jax.Array
    non_finite: jax.Array


@jax.jit
@anywhere()
def _answer(
    sums: _Answers, logits: jax.Array, labels: jax.Array, mask: jax.Array | None
) -> _Answers:
    """Adds the rows of a batch."""
    present = (labels >= 0) & (labels < logits.shape[1])
    if mask is not None:
        present &= mask != 0
    sound = jnp.all(jnp.isfinite(logits), axis=1)
    broken, present = present & ~sound, present & sound
    right = present & (jnp.argmax(logits, axis=1) == labels)
    chosen = jnp.clip(labels, 0, logits.shape[1] - 1)[:, None]
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, axis=1)[:, 0]
    return _Answers(
        samples=_counted(sums.samples, labels, present),
        right=_counted(sums.right, labels, right),
        loss=sums.loss + jnp.sum(jnp.where(present, losses, 0)),
        non_finite=add_counts(sums.non_finite, jnp.sum(broken, dtype=jnp.int32)),
    )


def _counted(counts: jax.Array, labels: jax.Array, rows: jax.Array) -> jax.Array:
    return add_counts(counts, jnp.zeros_like(counts).at[labels].add(rows, mode="drop"))


def _scores(sums: _Answers) -> Row:
    counts = np.asarray(sums.samples).astype(np.int64)
    scores: Row = {}
    if broken := int(sums.non_finite):
        scores["logits_non_finite"] = broken
        warnings.warn(
            f"{broken:,} rows have logits that are NaN or infinite: accuracy and loss are of the "
            "others.",
            stacklevel=4,
        )
    if np.max(counts) >= MAX_COUNT:
        raise VCIError("a class has 2^31 - 1 rows or more: log more often.")
    if samples := int(counts.sum()):
        right = int(np.asarray(sums.right).astype(np.int64).sum())
        scores |= {"accuracy": right / samples, "loss": float(sums.loss) / samples}
    return scores


def _deepest(layers: Mapping[str, Any]) -> str:
    return "features" if "features" in layers else list(layers)[-1]
