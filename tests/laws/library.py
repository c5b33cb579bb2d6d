"""The laws of ``vci_jax``: what may be done to features, labels and states.

Legend: N = 48 samples, D = 5 dimensions, K = 4 classes of a state with room for twelve.
"""

import functools
import pathlib
import tempfile
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import laws
import vci_jax
from laws import (
    Law,
    assumes_little_endian,
    big_endian,
    changed,
    every_other,
    forgets_a_row,
    merges_labels,
    misreads_a_row,
    only,
    plus,
    powers,
    renamed,
    reordered,
    rounds_absolutely,
    saturates,
    takes_order_for_content,
    times,
    together,
    typed,
    without,
)
from vci_jax import (
    METRICS,
    agreement,
    interval,
    metrics,
    moments,
    solves,
    storage,
    structure,
    transferability,
)
from vci_jax.files import read_arrays
from vci_jax.geometry import factorize

N, D, K, ROOM = 48, 5, 4, 12

_update = functools.partial(vci_jax.jit_update, donate=False)
_merge, _merge_axis = jax.jit(vci_jax.merge), jax.jit(vci_jax.merge_axis)
SCALARS = {
    **{name: getattr(metrics, name) for name in (
        "vci", "vci_adjusted", "fuzziness", "squared_distance", "squared_distance_adjusted",
        "cosine_similarity", "class_separation", "within_between_part", "within_orthogonal_part",
        "probe_mse", "probe_mse_adjusted", "h_score", "h_score_adjusted", "spectrum")
       if hasattr(metrics, name)},
    **{name: getattr(structure, name) for name in (
        "cdnv", "cdnv_adjusted", "cdnv_and_adjusted", "pairwise_cdnv", "equinorm",
        "equiangularity", "etf_error")},
    "shrinkage_h_score": transferability.shrinkage_h_score,
    "transferability_metrics": transferability.transferability_metrics,
}  # fmt: skip


def rows():
    """Four Gaussian classes of uneven size; multiples of 1/4, which every real type can hold."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(K), [15, 9, 11, 13]).astype(np.int32)
    means = rng.normal(size=(K, D)) * 2
    features = np.round((means[labels] + rng.normal(size=(N, D)) + 1) * 4) / 4
    return {"features": features, "labels": labels, "mask": np.ones(N, bool), "cut": "whole"}


def stream(data):
    """The moments of the rows, by the cut that the data ask for."""
    features, labels, mask = data["features"], data["labels"], data["mask"]
    empty = vci_jax.init(ROOM, D, dtype=np.float64)
    if data["cut"] == "whole":
        return _update(empty, features, labels, mask)
    parts = [mask & (np.arange(len(mask)) % 3 == part) for part in range(3)]
    if data["cut"] == "by class":
        parts = [mask & (np.asarray(labels) % 3 == part) for part in range(3)]
    if data["cut"] in ("batches", "by class"):
        return functools.reduce(lambda s, part: _update(s, features, labels, part), parts, empty)
    states = [_update(empty, features, labels, part) for part in parts]
    if data["cut"] == "merged":
        return _merge(states[2], _merge(_merge(empty, states[0]), states[1]))
    return _merge_axis(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))


@jax.jit
def _by_geometry(state):
    found = vci_jax.factorize(state)
    kernel = jnp.arange(1.0, D * ROOM + 1).reshape(D, ROOM) % 7
    axes = transferability.raw_axes(found)
    return {
        **{name: function(found) for name, function in SCALARS.items()},
        **{f"all.{name}": v for name, v in metrics.geometry_metrics(found).items()},
        "self_duality": structure.self_duality(found, kernel),
        "effective_rank": transferability.effective_rank(axes),
        "logme": transferability.logme(found, axes),
        "rank": found.canonical.rank,
    }


@jax.jit
def _direct(state):
    centre = jnp.zeros_like(state.pivot)
    return {
        "collapse_metrics": vci_jax.collapse_metrics(state),
        "class_means": vci_jax.class_means(state),
        "quartic": moments.rebase(state, centre).radial_quartic,
    }


def collapse(data):
    """Everything that is said of rows: each metric, the report, the classes, the means."""
    state = stream(data)
    report = vci_jax.report(state)
    numbers = {name: v for name, v in report.items() if isinstance(v, int | float | dict)}
    per_class = vci_jax.per_class(state)
    present = np.asarray(per_class["count"]) > 0
    each = {name: np.sort(np.asarray(v)[present]) for name, v in per_class.items()}
    direct = _direct(state)
    return {
        **{f"report.{name}": value for name, value in numbers.items()},
        "codes": [caveat["code"] for caveat in report["caveats"]],
        **{f"per_class.{name}": value for name, value in each.items() if name != "nearest"},
        **{f"metrics.{name}": value for name, value in _by_geometry(state).items()},
        **{f"direct.{name}": v for name, v in direct["collapse_metrics"].items()},
        "class_means": np.sort(np.asarray(direct["class_means"])[present], axis=0),
        "quartic": direct["quartic"],
    }


_STREAM = ("init", "update", "jit_update", "canonicalize_batch", "merge", "merge_axis",
           "class_means", "report", "factorize",
           "per_class", "collapse_metrics")  # fmt: skip
COLLAPSE = (
    *(f"vci_jax.{name}" for name in _STREAM),
    "vci_jax.moments.rebase", "vci_jax.metrics.geometry_metrics", "vci_jax.batch.vet",
    "vci_jax.batch.unit_rows",
    *(f"vci_jax.{function.__module__.split('.')[1]}.{function.__name__}"
      for function in SCALARS.values()),
    *(f"vci_jax.structure.{name}" for name in ("self_duality",)),
    *(f"vci_jax.transferability.{name}" for name in ("raw_axes", "effective_rank", "logme")),
)  # fmt: skip

_AFFINE = ("vci", "vci_adjusted", "probe_mse", "probe_mse_adjusted", "h_score", "h_score_adjusted")
_INVARIANT = tuple(f"{place}.{name}" for place in ("report", "metrics", "direct")
                   for name in _AFFINE)  # fmt: skip
# By which power of one factor for all features each answer goes.
_UNITS = {
    "within_between_part": 2, "within_orthogonal_part": 2, "spectrum": 2, "variance": 2,
    "distance": 1, "class_means": 1, "quartic": 4,
}  # fmt: skip


def _units(factor, answer):
    def power(name):
        return next((p for key, p in _UNITS.items() if name.split(".")[-1] == key), 0)

    kept = {name: value for name, value in answer.items() if "logme" not in name}
    kept.pop("metrics.transferability_metrics", None)  # holds LogME, whose prior has units
    return powers(factor, **{name: power(name) for name in kept if power(name)})(kept)


def _present(answer):
    """What does not list classes in their order, nor depend on their places."""
    listed = ("metrics.pairwise_cdnv", "metrics.self_duality")
    return {name: value for name, value in answer.items() if name not in listed}


def _affine(answer):
    return {name: answer[name] for name in _INVARIANT if name in answer}


def _law(statement, change, mistake, expect=dict, rtol=1e-9, **more):
    return Law(COLLAPSE, statement, rows, collapse, change, mistake, expect, rtol, **more)


STREAMS = (
    _law("The order of the rows does not matter.",
         reordered("features", "labels"), misreads_a_row()),
    _law("Rows may come in batches.", lambda d: d | {"cut": "batches"}, forgets_a_row("mask")),
    _law("Each batch may lack some classes.", lambda d: d | {"cut": "by class"},
         forgets_a_row("mask")),
    _law("States of parts may be merged in any order.", lambda d: d | {"cut": "merged"},
         forgets_a_row("mask")),
    _law("A stack of states is one state.", lambda d: d | {"cut": "stack"}, forgets_a_row("mask")),
    _law("Masked rows are not there, whatever they hold.",
         lambda d: d | {
             "features": np.concatenate([d["features"], np.full((2, D), np.nan)]),
             "labels": np.append(d["labels"], [0, 99]).astype(np.int32),
             "mask": np.append(d["mask"], [False, False])},
         changed(mask=lambda m: np.append(m[1:-1], [True, False]))),
    _law("Classes may have any names, with holes between them.",
         changed(labels=renamed(np.array([7, 2, 11, 5], np.int32))), merges_labels(modulus=4),
         expect=_present),
    _law("Big-endian features are the same numbers.", changed(features=big_endian),
         assumes_little_endian("features")),
    _law("Big-endian labels are the same classes.", changed(labels=big_endian),
         assumes_little_endian("labels")),
    _law("float32 features are the same numbers.", changed(features=typed(np.float32)),
         misreads_a_row()),
    _law("float16 features are the same numbers.", changed(features=typed(np.float16)),
         misreads_a_row()),
    _law("longdouble features are the same numbers.", changed(features=typed(np.longdouble)),
         misreads_a_row()),
    _law("Labels of any integer type are the same classes.",
         together(changed(labels=typed(np.uint8)), changed(mask=typed(np.float32))),
         merges_labels()),
    _law("Features need not be contiguous in memory.", changed(features=every_other),
         misreads_a_row()),
)  # fmt: skip

UNITS = (
    *(_law(f"Features times {factor:g}: only quantities with units change, by their power.",
           changed(features=times(factor)), mistake,
           functools.partial(_units, factor), rtol=1e-7)
      for factor, mistake in (
          (2.0**30, saturates("features", 1e6)), (1e8, saturates("features", 1e3)),
          (1e-8, rounds_absolutely("features", 9)), (1e30, saturates("features", 1e28)),
          (1e-30, rounds_absolutely("features", 30)))),
    _law("Columns in units from 1e-8 to 1e8: VCI and its relatives stay.",
         changed(features=times(10.0 ** np.array([-8.0, -3.0, 0.0, 5.0, 8.0]))),
         rounds_absolutely("features", 7), expect=_affine, rtol=1e-7),
    _law("An invertible map: VCI and its relatives stay.",
         changed(features=lambda h: h @ (np.eye(D) + np.triu(np.ones((D, D)), 1))),
         misreads_a_row(), expect=_affine),
    _law("One vector added to all rows: views from the origin alone may change.",
         changed(features=plus(1e3 * np.arange(1.0, D + 1))), misreads_a_row(),
         expect=lambda a: {
             name: value for name, value in a.items()
             if name.split(".")[-1] not in {
                 "cosine_similarity", "class_separation", "effective_rank", "logme", "class_means",
                 "quartic", "transferability_metrics"}},
         rtol=1e-7),
    _law("A rotation changes neither a metric nor a spectrum.",
         changed(features=lambda h: h @ np.linalg.qr(np.arange(25.0).reshape(5, 5) ** 2 % 11)[0]),
         misreads_a_row(), expect=without("class_means", "metrics.self_duality"), rtol=1e-8),
    _law("Every row times a positive factor of its own: cosines stay.",
         changed(features=lambda h: h * 10.0 ** (np.arange(len(h)) % 7 - 3)[:, None]),
         misreads_a_row(),
         expect=only("report.cosine_similarity", "report.class_separation",
                     "per_class.cosine_similarity"), rtol=1e-9),
)  # fmt: skip


# Laws of single functions.


def _second_pass(data):
    state = agreement.init(stream(rows()))
    given = (data["features"], data["logits"])
    parts = [agreement.jit_update(state, *given, data["mask"]),
             agreement.update(state, *given, ~data["mask"])]  # fmt: skip
    whole = agreement.merge(*parts)
    stack = agreement.merge_axis(jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))
    return {
        "share": agreement.ncc_agreement(whole), "count": whole.count,
        "stack": agreement.ncc_agreement(stack), "of stack": stack.count,
    }  # fmt: skip


def _logits():
    data = rows()
    logits = np.random.default_rng(5).normal(size=(N, ROOM))
    mask = np.arange(N) < 30
    logits[np.arange(N), data["labels"]] += 2.0 * (np.arange(N) % 3)
    return {"features": data["features"], "logits": logits, "mask": mask}


_AGREEMENT = tuple(f"vci_jax.agreement.{name}" for name in (
    "init", "update", "jit_update", "merge", "merge_axis", "ncc_agreement"))  # fmt: skip

AGREEMENTS = (
    Law(_AGREEMENT, "The order and the cut of the rows do not matter.", _logits, _second_pass,
        together(reordered("features", "logits"), changed(mask=lambda m: ~m)),
        laws.takes_order_for_content("logits")),
    Law(_AGREEMENT, "A positive factor and a common term of the logits do not matter.", _logits,
        _second_pass, changed(logits=lambda z: 1e6 * z + np.arange(N)[:, None]),
        changed(logits=lambda z: -z)),
    Law(_AGREEMENT, "float16 features are the same numbers.", _logits, _second_pass,
        changed(features=typed(np.float16)), laws.takes_order_for_content("features")),
)  # fmt: skip


def _blocks(data):
    states = [stream(data | {"mask": np.arange(N) % 4 == part}) for part in data["blocks"]]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    low, high = interval.jackknife_interval(stack)
    return {"low": low, "high": high}


def _with_blocks():
    return rows() | {"blocks": (0, 1, 2, 3)}


_JACKKNIFE = ("vci_jax.interval.jackknife_interval",)
INTERVALS = (
    Law(_JACKKNIFE, "The order of the blocks does not matter.", _with_blocks, _blocks,
        lambda d: d | {"blocks": (2, 0, 3, 1)}, lambda d: d | {"blocks": (2, 0, 3)}),
    Law(_JACKKNIFE, "Columns in units from 1e-8 to 1e8 do not matter.", _with_blocks, _blocks,
        changed(features=times(10.0 ** np.array([-8.0, -3.0, 0.0, 5.0, 8.0]))),
        rounds_absolutely("features", 7), rtol=1e-7),
)  # fmt: skip


def _kept_on_disk(data):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "moments.npz")
        state = stream(data)
        vci_jax.save(path, state)
        loaded, host = vci_jax.load(path), storage.to_host(state)
    return {"loaded": loaded._asdict(), "host": host._asdict()}


def _measured(data):
    order = [slice(i, i + data["size"]) for i in range(0, N, data["size"])]
    report = vci_jax.measure(  # Compiled, as a network is: JAX takes NumPy arrays as they lie.
        jax.jit(lambda h: h * data["unit"]),
        [(data["features"][s], data["labels"][s]) for s in order],
        ROOM, dtype=np.float64, only=["vci", "fuzziness", "cosine_similarity"],
    )  # fmt: skip
    return {name: report[name] for name in ("vci", "fuzziness", "cosine_similarity", "samples")}


def _monitored(data):
    rows = []
    monitor = vci_jax.Monitor(ROOM, write=rows.append, blocks=2)
    for start in range(0, N, data["size"]):
        batch = slice(start, start + data["size"])
        monitor.add("test", data["features"][batch], data["labels"][batch])
    monitor.log(1)
    return {name: rows[0][name] for name in ("vci", "fuzziness", "cosine_similarity", "samples")}


def _file_of(data):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "rows.npz")
        np.savez(path, features=data["features"], labels=data["labels"])
        arrays = read_arrays(path)
    return {name: np.asarray(value, float) for name, value in arrays.items()}


def _in_memory(data):
    features, labels = data["features"], data["labels"]
    names = np.array(["a", "b", "c", "d"])
    labels = names[labels] if data["names"] else labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ones = {"vci": vci_jax.vci(features, labels),
                "vci_adjusted": vci_jax.vci_adjusted(features, labels)}  # fmt: skip
    report = vci_jax.measure_arrays(
        features, labels, blocks=4, metrics=["vci", "squared_distance", "vci_interval"]
    )
    return ones | {f"report.{name}": value for name, value in report.items() if name in METRICS}


def _with_holes(labels):
    """2^53 + k, which float64 does not hold; the first class by a float, as tables have it."""
    return np.array([2**53 + int(k) if k else 1.0 for k in labels], object)


def _pointwise(data):
    return {name: value for name, value in _in_memory(data).items() if "interval" not in name}


def _invariant(data):
    return {name: value for name, value in _in_memory(data).items() if "squared" not in name}


def _compared(data):
    turned = data["features"] @ (np.eye(D) + np.triu(np.ones((D, D)), 1))
    noisy = data["features"] + np.sin(np.arange(N * D)).reshape(N, D)[data["rows"]] * data["unit"]
    sets = {"plain": data["features"], "turned": turned, "noisy": noisy}
    sets = {name: (sets[name], data["labels"]) for name in data["order"]}
    found = vci_jax.compare(sets, blocks=4, metrics=["vci_adjusted", "squared_distance_adjusted"])
    one = found.between("plain", "noisy")
    squared = found.between("plain", "noisy", "squared_distance_adjusted")
    return {
        "difference": one.difference, "low": one.low, "high": one.high, "p": one.p_value,
        "holm": one.p_holm, "turned": found.between("plain", "turned").verdict,
        "squared": squared.difference,
    }  # fmt: skip


def _sets():
    data = {"order": ("plain", "turned", "noisy"), "rows": np.arange(N), "unit": 1.0}
    return rows() | data


_IN_MEMORY = ("vci_jax.vci", "vci_jax.vci_adjusted", "vci_jax.measure_arrays")
ARRAYS = (
    Law(_IN_MEMORY, "Classes may be called anything.", lambda: rows() | {"names": False},
        _in_memory, lambda d: d | {"names": True}, merges_labels()),
    Law(_IN_MEMORY, "Big-endian features are the same numbers.",
        lambda: rows() | {"names": False}, _in_memory, changed(features=big_endian),
        assumes_little_endian("features")),
    Law(_IN_MEMORY, "float16 features and uint8 labels are the same numbers.",
        lambda: rows() | {"names": False}, _in_memory,
        changed(features=typed(np.float16), labels=typed(np.uint8)), merges_labels()),
    Law(_IN_MEMORY, "Long doubles and labels with holes, of mixed types, are the same.",
        lambda: rows() | {"names": False}, _in_memory,
        changed(features=typed(np.longdouble), labels=_with_holes), merges_labels()),
    Law(_IN_MEMORY, "The order of the samples matters to the blocks of the interval alone.",
        lambda: rows() | {"names": False}, _pointwise, reordered("features", "labels"),
        takes_order_for_content("labels")),
    Law(_IN_MEMORY, "Columns in units from 1e-8 to 1e8 do not matter to VCI.",
        lambda: rows() | {"names": False}, _invariant,
        changed(features=times(10.0 ** np.array([-8.0, -1.0, 0.0, 4.0, 8.0]))),
        rounds_absolutely("features", 0), rtol=1e-7),
    Law(_IN_MEMORY, "One factor for all features changes no metric without units.",
        lambda: rows() | {"names": True}, _in_memory, changed(features=times(2.0**20)),
        rounds_absolutely("features", -5)),
    Law(("vci_jax.compare",), "The order of the sets does not matter.", _sets, _compared,
        lambda d: d | {"order": ("noisy", "plain", "turned")}, misreads_a_row()),
    Law(("vci_jax.compare",), "One factor for all features does not matter.", _sets, _compared,
        together(changed(features=times(2.0**20)), lambda d: d | {"unit": 2.0**20}),
        misreads_a_row(), rtol=1e-7),
)  # fmt: skip


def _as_a_loss(data):
    features, labels = jnp.asarray(data["features"]), data["labels"]
    loss, gradient = jax.value_and_grad(vci_jax.vci_loss)(features, labels, ROOM, mask=data["mask"])
    # Along the features themselves: the same in any unit, and zero, as VCI has none.
    return {"loss": loss, "gradient": jnp.linalg.norm(features * gradient)}


def _as_a_loss_of_arrays(data):
    return {"loss": vci_jax.vci_loss(data["features"], data["labels"], ROOM)}


def _solved(data):
    geometry = factorize(stream(data))
    traces = solves.by_name(geometry)
    return {
        "vci": traces["vci"].value, "complete": traces["vci"].complete,
        "rank": solves.total_rank(geometry),
    }  # fmt: skip


OTHERS = (
    Law(("vci_jax.solves.by_name", "vci_jax.solves.total_rank"),
        "Columns in units from 1e-3 to 1e3 do not matter.", rows, _solved,
        changed(features=times(10.0 ** np.array([-3.0, -1.0, 0.0, 2.0, 3.0]))),
        rounds_absolutely("features", 2), rtol=1e-7),
    Law(("vci_jax.vci_loss",), "Columns in units from 1e-3 to 1e3 do not matter.", rows,
        _as_a_loss, changed(features=times(10.0 ** np.array([-3.0, -1.0, 0.0, 2.0, 3.0]))),
        rounds_absolutely("features", 2), rtol=1e-7),
    Law(("vci_jax.vci_loss",), "The order of the batch does not matter.", rows, _as_a_loss,
        reordered("features", "labels"), takes_order_for_content("labels"), rtol=1e-7),
    Law(("vci_jax.vci_loss",), "Big-endian features and labels are the same numbers.", rows,
        _as_a_loss_of_arrays, changed(features=big_endian, labels=big_endian),
        assumes_little_endian("features")),
    Law(("vci_jax.save", "vci_jax.load", "vci_jax.storage.to_host"),
        "Moments on disk do not depend on how the rows lie in memory.", rows,
        _kept_on_disk, changed(features=every_other), misreads_a_row(), rtol=0),
    Law(("vci_jax.measure",), "The size of the batches and the unit do not matter.",
        lambda: rows() | {"size": 24, "unit": 1.0}, _measured,
        lambda d: d | {"size": 16, "unit": 2.0**20}, misreads_a_row()),
    Law(("vci_jax.monitor.Monitor",), "The size of the batches and the order do not matter.",
        lambda: rows() | {"size": 24}, _monitored,
        lambda d: reordered("features", "labels")(d) | {"size": N},
        takes_order_for_content("labels"), rtol=1e-4),
    Law(("vci_jax.measure",), "Big-endian features are the same numbers.",
        lambda: rows() | {"size": 24, "unit": 1.0}, _measured, changed(features=big_endian),
        assumes_little_endian("features")),
    *ARRAYS,
    Law(("vci_jax.read_features", "vci_jax.files.read_arrays"),
        "Byte order and integer type do not matter.", rows, _file_of,
        changed(features=big_endian, labels=typed(np.uint8)), misreads_a_row(), rtol=0),
)  # fmt: skip


LIBRARY = (*STREAMS, *UNITS, *AGREEMENTS, *INTERVALS, *OTHERS)

EXEMPT = {
    "vci_jax.adjusted.adjusted_vci": "through metrics.vci_adjusted",
    "vci_jax.adjusted.jackknife_inflation": "through interval.jackknife_interval",
    "vci_jax.metrics.between_rank": "a rank, in the answer of every law of the stream",
    "vci_jax.structure.root": "a part of structure.equinorm, and of others of its file",
    "vci_jax.metrics.sample": "what adjusted_vci takes, without arithmetic of its own",
    "vci_jax.metrics.angles": "the two parts of metrics.class_separation",
    "vci_jax.metrics.spanned": "a rank, within metrics.within_orthogonal_part",
    "vci_jax.moments.rebase_units": "a part of merge, under the laws of merged states",
    "vci_jax.pairs.nearest": "a part of agreement.update and of per_class",
    "vci_jax.pairs.split": "a part of structure.cdnv and of its adjusted form",
    "vci_jax.pairs.sum_over_pairs": "a part of structure.cdnv and of its adjusted form",
    "vci_jax.precision.of_distances": "how much rounding moves: tests/tools/test_oracle.py",
    "vci_jax.structure.cdnv_adjusted_rounding": "rounding: tests/tools/test_oracle.py",
    "vci_jax.transferability.scores_and_errors": "transferability_metrics with its rounding",
    "vci_jax.structure.lengths": "a part of structure.equinorm, and of others of its file",
    "vci_jax.structure.scaled_offsets": "a part of structure.equinorm, and of others of its file",
    "vci_jax.structure.mean_rounding": "how much rounding moves: tests/tools/test_oracle.py",
    "vci_jax.moments.unit_means": "a part of metrics.cosine_similarity",
    "vci_jax.precision.relative_errors": "how much rounding moves: tests/tools/test_oracle.py",
    "vci_jax.batch.in_pieces": "begins at 1024 rows: tests/vci_jax/test_moments.py",
    "vci_jax.batch.chunk_rows": "a number of rows",
    "vci_jax.batch.rows_from": "a part of batch.in_pieces",
    "vci_jax.batch.per_class": "a part of update",
    "vci_jax.batch.add_per_class": "a part of update",
    "vci_jax.batch.of_class": "a part of update",
    "vci_jax.scatter.add_in_pieces": "begins at 1024 rows: tests/vci_jax/test_moments.py",
    "vci_jax.caveats.find": "its codes are in the answer of every law of the stream",
    "vci_jax.errors.messages": "takes sentences out of caveats",
    "vci_jax.facts.of_geometry": "what caveats.find takes, under the same laws",
    "vci_jax.linalg.orthonormal": "a part of linalg.row_space",
    "vci_jax.whitening.solver": "a part of solves.by_name",
    "vci_jax.whitening.inverse_cholesky": "a part of whitening.whiten and of solves.by_name",
    "vci_jax.whitening.inverse_bound": "a part of whitening.whiten and of solves.by_name",
    "vci_jax.linalg.host": "returns a device",
    "vci_jax.processors.available": "returns a number of the machine",
    "vci_jax.linalg.exact_bits": "a number of bits",
    "vci_jax.linalg.smallest": "returns a constant of a type",
    "vci_jax._report.check_options": "raises or returns nothing",
    "vci_jax.files.read_tree": "returns what a file holds, as it is; tests/vci_jax/test_files.py",
    "vci_jax.files.explained": "turns exceptions into sentences; tests/vci_jax/test_files.py",
    "vci_jax.labels.as_classes": "a part of measure_arrays",
    "vci_jax._report.finish": "report, whose jackknife has other estimates",
    "vci_jax._report.as_json": "writes numbers as text",
    "vci_jax.errors.optional": "imports a package",
    "vci_jax.errors.check_count": "raises or returns nothing",
    "vci_jax.errors.check_moments": "raises or returns nothing",
    "vci_jax.interval.interval_of": "the second half of interval.jackknife_interval",
    "vci_jax.interval.leave_one_out": "the first half of interval.jackknife_interval",
    "vci_jax._downdate.whole": "a part of interval.leave_one_out",
    "vci_jax._downdate.without_each": "a part of interval.leave_one_out",
    "vci_jax.interval.of_all": "a part of interval.leave_one_out",
    "vci_jax.interval.without_each": "a part of interval.leave_one_out",
    "vci_jax.errors.check_dtype": "refuses an argument, no quantity",
    "vci_jax.linalg.widen": "converts arrays, no quantity",
    "vci_jax.in_memory.deal": "a part of measure_arrays",
    "vci_jax.in_memory.feature_matrix": "a part of measure_arrays",
    "vci_jax.labels.read_labels": "a part of measure_arrays",
    "vci_jax.compare.paired_differences": "a part of compare",
}
EXEMPT_MODULES = {
    "vci_jax.written": "writes files; tests/vci_jax/test_written.py",
    "vci_jax.monitor": "keeps moments and writes rows; tests/vci_jax/test_monitor.py has its cases",
    "vci_jax.canonical": "parts of geometry.factorize, under the laws of its metrics",
    "vci_jax._table": "text for people: tests/vci_jax/test_front_door.py and test_cli.py",
    "vci_jax.cli": "a command; tests/vci_jax/test_cli.py runs it",
    "vci_jax.__main__": "a command; tests/vci_jax/test_cli.py runs it",
    "vci_jax.progress": "a line of a terminal, read by tests/vci_jax/test_cli.py",
    "vci_jax.picture": "points to look at; test_train_evaluate.py and test_monitor.py",
    "vci_jax.interrupt": "what Ctrl-C does; tests/vci_jax/test_interrupt.py",
    "vci_jax._formats": "parts of read_features; tests/vci_jax/test_files.py has every format",
    "vci_jax._pickled": "parts of read_features; tests/vci_jax/test_pickled.py",
    "vci_jax._columns": "parts of read_features; tests/vci_jax/test_files.py has every format",
    "vci_jax.derivatives": "held to central differences by tests/vci_jax/test_gradients.py",
    "vci_jax.placement": "where arrays lie, which tests/vci_jax/test_meshes.py varies",
    "vci_jax.conformance": "has laws of its own: tests/vci_jax/test_conformance.py",
}
