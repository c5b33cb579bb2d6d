"""Features held in memory: from arrays to numbers in one call, in float64.

    vci_jax.vci(features, labels)
    vci_jax.measure_arrays(features, labels)

Known instances: ``sklearn.metrics.silhouette_score``, ``statsmodels`` MANOVA.

Legend: N samples, K classes, D feature dimension, B blocks.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from vci_jax import agreement, moments, progress
from vci_jax._report import Head, Report, check_options, finish
from vci_jax.arrays import canonicalize_reals, check_head
from vci_jax.errors import Caveat, VCIError, check_count
from vci_jax.geometry import Weighting
from vci_jax.jit_update import jit_update
from vci_jax.labels import read_labels

_ROWS = 4096  # a batch: large enough for a fast product, small enough for any memory


def vci(features: Any, labels: Any) -> float:
    """Variability collapse index of features: 0 if classes have collapsed, 1 if they are mixed.

        VCI = 1 - Tr[Sigma_T^+ Sigma_B] / min(D, K - 1)

    In float64. It is that of the sample, too small for few samples: ``vci_adjusted`` is not.

    Args:
      features: [N, D] real numbers: an array of NumPy, JAX or PyTorch (any device and dtype), or
        lists.
      labels: [N] class of each row: integers, text, one-hot rows; -1 and -100 stand for none.

    Raises:
      VCIError: for anything else, or if VCI is undefined; says what is wrong and what to do.

    Warns:
      UserWarning: if the value is doubtful, with the caveat of ``measure_arrays``.

    Example:
      >>> import vci_jax
      >>> features = [[0.0], [0.2], [0.4], [0.6], [5.0], [5.2], [5.4], [5.6]]
      >>> round(vci_jax.vci(features, ["cat"] * 4 + ["dog"] * 4), 4)
      0.0079

    Reference:
      Xu & Liu (2023), Definition 5.3.
    """
    return _one(features, labels, "vci")


def vci_adjusted(features: Any, labels: Any) -> float:
    """VCI of the population that a sample was drawn from: the bias of its size taken out.

    Of D random features the plug-in VCI is 1 - D / (N - 1), this is 1 on average. Compare networks
    by this one. See ``vci_jax.adjusted`` for the derivation.

    Args:
      features: as for ``vci``.
      labels: as for ``vci``.

    Raises:
      VCIError: for anything ``vci`` refuses, or no more samples than features and classes.

    Warns:
      UserWarning: if the value is doubtful.

    Example:
      >>> import vci_jax
      >>> features = [[0.0], [0.2], [0.4], [0.6], [5.0], [5.2], [5.4], [5.6]]
      >>> round(vci_jax.vci_adjusted(features, [3] * 4 + [7] * 4), 4)
      0.0093
    """
    return _one(features, labels, "vci_adjusted")


def measure_arrays(
    features: Any,
    labels: Any,
    *,
    classifier: Any = None,
    logits: Any = None,
    blocks: int = 16,
    metrics: Collection[str] | None = None,
    num_classes: int | None = None,
    weighting: Weighting = "sample",
) -> Report:
    """Measures features held in memory: every metric, with caveats and an interval, in float64.

    Args:
      features: [N, D], as for ``vci``.
      labels: [N], as for ``vci``. With a classifier, logits or ``num_classes`` they are columns,
        0 .. K-1; else K is the number of different ones.
      classifier: kernel [D, K], or (kernel, bias [K]); adds ``self_duality`` (NC3) and, without
        logits, ``ncc_agreement`` (NC4). ``torch.nn.Linear`` keeps [K, D]: pass ``weight.T``.
      logits: [N, K] of the classifier; adds ``ncc_agreement``. Rows with NaN are left out of it,
        and counted in ``logits_non_finite``.
      blocks: B of the jackknife for ``vci_interval``; 1 for none. Rows are dealt in the order of
        their labels, so that every block has its share of each class.
      metrics: names among ``METRICS``; what none of them needs is not computed. By default all.
      num_classes: K.
      weighting: ``"sample"`` or ``"class"``, see ``factorize``.

    Raises:
      VCIError: for features or labels that cannot be measured, NaN or infinity in a row with a
        label, a classifier or logits that do not fit, unknown metrics, or fewer blocks than one.

    Example:
      >>> import numpy as np, vci_jax
      >>> rng = np.random.default_rng(0)
      >>> labels = np.arange(300) % 3
      >>> report = vci_jax.measure_arrays(np.eye(3)[labels] + rng.normal(size=(300, 3)), labels)
      >>> round(report.vci, 3), round(report.vci_adjusted, 3)
      (0.71, 0.716)
      >>> low, high = report.vci_interval
      >>> low < report.vci_adjusted < high
      True
    """
    head, scores = _classifier(classifier, logits)
    if metrics is not None and "ncc_agreement" in metrics and scores is None and head is None:
        raise VCIError("ncc_agreement needs logits: pass logits= or classifier=.")
    check_options(weighting, metrics, blocks)
    if head is not None:
        height, width = head[0].shape
        dim = feature_matrix(features).shape[1]
        if height != dim:  # Before its columns are taken for the classes.
            check_head(head, dim, height if width == dim else width)
    columns = [part.shape[1] for part in (scores, head[0] if head else None) if part is not None]
    count = next(iter(columns), None) if num_classes is None else num_classes
    stack, rows, classes = deal(features, labels, blocks, weighting, count)
    count = stack.count.shape[1]
    if scores is not None and scores.shape != (len(rows), count):
        raise VCIError(f"logits must be {[len(rows), count]}, got {list(scores.shape)}.")
    only = None if metrics is None else set(metrics) - {"ncc_agreement"}
    report = finish(stack, weighting=weighting, head=head, only=only)
    if columns and (metrics is None or "ncc_agreement" in metrics):
        labelled = classes >= 0
        chosen = None if scores is None else scores[labelled]
        return _with_agreement(report, stack, rows[labelled], head, chosen)
    return report


def deal(
    features: Any,
    labels: Any,
    blocks: int,
    weighting: Weighting = "sample",
    num_classes: int | None = None,
) -> tuple[moments.ClassMoments, Float[np.ndarray, "N D"], Int[np.ndarray, " N"]]:
    """Returns a stack of float64 states, one for each block, with the features and classes read.

    Where classes are of one size, as a design makes them, rows are dealt in the order of their
    labels, so that each block has its share of every class, and otherwise at random: blocks then
    differ in their shares as samples of the population do.

    Raises:
      VCIError: as ``measure_arrays``.
    """
    check_count("blocks", blocks)
    if num_classes is not None:
        check_count("num_classes", num_classes)
    rows = feature_matrix(features)
    if blocks > max(len(rows), 100):
        raise VCIError(f"blocks is {blocks:,} for {len(rows):,} rows: 10 to 100 are enough.")
    classes, count = read_labels(labels, len(rows), num_classes)
    _check_finite(rows, classes)
    number = np.bincount(classes[classes >= 0], minlength=count)
    block = _dealt(classes, number, blocks)
    with jax.enable_x64(True):
        start = moments.init(
            count, rows.shape[1], dtype=np.float64,
            class_counts=number if weighting == "class" else None,
        )  # fmt: skip
        states = []
        for b in range(blocks):
            state = jax.tree.map(lambda leaf: leaf + 0, start)  # the donated copy
            for batch in _batches(rows[block == b], classes[block == b]):
                state = jit_update(state, *batch)
            states.append(jax.device_get(state))
            progress.advance("measuring", b + 1, blocks)
    stack: moments.ClassMoments = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    return stack, rows, classes


def _dealt(
    classes: Int[np.ndarray, " N"], number: Int[np.ndarray, " K"], blocks: int
) -> Int[np.ndarray, " N"]:
    """The block of each row; see ``deal``.

    Counts of K classes drawn at random, all with one probability, have sum_k (n_k - n)^2 / n of
    about K - 1, with n their mean; a quarter of that and less is taken for a design.
    """
    sizes = number[number > 0]
    mean = np.mean(sizes) if len(sizes) else 1.0
    designed = np.sum((sizes - mean) ** 2) / mean <= (len(sizes) - 1) / 4
    order = np.argsort(classes, kind="stable")
    if not designed:
        order = np.random.default_rng(0).permutation(len(classes))
    block = np.empty(len(classes), np.int32)
    block[order] = np.arange(len(classes)) % blocks
    return block


def feature_matrix(features: Any) -> np.ndarray:
    """Returns features [N, D] as they lie in memory, in native byte order.

    Raises:
      VCIError: for anything but N > 0 rows of D > 0 real numbers; says how to get there.
    """
    if isinstance(features, Mapping):
        names = ", ".join(map(str, features))
        raise VCIError(f"features are a mapping of {names}: pass one of its arrays.")
    if hasattr(features, "toarray"):
        raise VCIError("features are a sparse matrix: pass features.toarray().")
    array = np.asarray(canonicalize_reals("features", features, np.float64))
    shape = list(array.shape)
    if array.ndim == 1:
        raise VCIError(
            f"features must be [N, D], got {shape}: pass features and labels in this order, and "
            "features[:, None] if there is one feature for each sample."
        )
    if array.ndim > 2:
        raise VCIError(
            f"features must be [N, D], one vector for each sample, got {shape}: pool feature maps "
            "over their positions, e.g. features.mean(axis=(2, 3)) of [N, C, H, W], or flatten "
            "them with features.reshape(len(features), -1)."
        )
    if array.ndim == 0 or 0 in shape:
        raise VCIError(f"features must be [N, D] with N > 0 and D > 0, got {shape}.")
    return array


def _one(features: Any, labels: Any, name: str) -> float:
    report = measure_arrays(features, labels, blocks=1, metrics=(name,))
    concerned = {name, "samples"}  # rows without a label are not in any number
    about = [caveat for caveat in report.caveats if concerned & set(caveat.metrics)]
    if np.isnan(report[name]):
        reason = " ".join(c.message for c in about if c.code != "undefined")
        raise VCIError(
            f"{name} is undefined. {reason} It needs two or more classes, features that vary, and "
            "more samples than features and classes."
        )
    for caveat in about:
        warnings.warn(caveat.message, stacklevel=3)
    return float(report[name])


def _check_finite(features: np.ndarray, classes: np.ndarray) -> None:
    """Refuses rows with a label whose features hold NaN or infinity."""
    finite = np.empty(len(features), bool)
    for low in range(0, len(features), _ROWS):
        rows = features[low : low + _ROWS].astype(np.float64)
        finite[low : low + _ROWS] = np.isfinite(rows).all(axis=1)
        progress.advance("checking", low + len(rows), len(features))
    broken = np.flatnonzero((classes >= 0) & ~finite)
    if broken.size:
        raise VCIError(
            f"{broken.size:,} of {len(features):,} rows of features hold NaN or infinity, the "
            f"first is row {broken[0]}. Remove them, or find out why the network makes them."
        )


def _classifier(
    classifier: Any, logits: Any
) -> tuple[tuple[np.ndarray, Any] | None, np.ndarray | None]:
    """The head as (kernel, bias) and the logits, matrices of real numbers."""
    scores = None if logits is None else _matrix("logits", logits)
    if classifier is None:
        return None, scores
    if hasattr(classifier, "state_dict"):
        raise VCIError(
            f"classifier is a {type(classifier).__name__}: pass its arrays, (weight.T, bias)."
        )
    if isinstance(classifier, Mapping):
        raise VCIError(
            f"classifier is a mapping of {', '.join(map(str, classifier))}: pass (kernel, bias)."
        )
    pair = classifier if isinstance(classifier, tuple | list) else (classifier,)
    if len(pair) not in (1, 2):
        raise VCIError(f"classifier must be (kernel [D, K], bias [K]), got {len(pair)} arrays.")
    kernel = _matrix("The head's kernel", pair[0])
    bias = pair[1] if len(pair) == 2 else None
    return (kernel, np.zeros(kernel.shape[1]) if bias is None else bias), scores


def _matrix(name: str, values: Any) -> np.ndarray:
    matrix = np.asarray(canonicalize_reals(name, values, np.float64))
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise VCIError(f"{name} must be a matrix, got {list(matrix.shape)}.")
    return matrix


def _with_agreement(
    report: Report,
    stack: moments.ClassMoments,
    features: np.ndarray,
    head: Head | None,
    logits: np.ndarray | None,
) -> Report:
    """Adds NC4, with the number of rows it leaves out and a caveat about them."""
    with jax.enable_x64(True):
        state = agreement.init(moments.merge_axis(stack))
        if logits is None and head is not None:
            kernel, bias = (np.asarray(part, np.float64) for part in head)
            logits = features.astype(np.float64) @ kernel + bias
        assert logits is not None
        for batch in _batches(features, logits):
            state = agreement.jit_update(state, *batch)
        share, broken = float(agreement.ncc_agreement(state)), int(state.non_finite)
    values = report | {"ncc_agreement": share, "logits_non_finite": broken}
    if broken:
        text = f"{broken:,} rows with NaN or infinity in their logits were left out of it."
        caveat = Caveat("logits_non_finite", ("ncc_agreement",), f"ncc_agreement: {text}")
        values["caveats"] = [*values["caveats"], caveat.to_dict()]
        values["warnings"] = [*values["warnings"], caveat.message]
    return Report(values, report.jackknife)


def _batches(*columns: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches of one shape, so one compilation, filled up with rows that the mask rules out."""
    size = min(_ROWS, 1 << max(0, len(columns[0]) - 1).bit_length())
    for low in range(0, len(columns[0]), size):
        cut = [column[low : low + size] for column in columns]
        rows = len(cut[0])
        full = [np.pad(c, [(0, size - rows)] + [(0, 0)] * (c.ndim - 1)) for c in cut]
        yield *full, np.arange(size) < rows
