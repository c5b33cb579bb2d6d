"""The laws of ``probes``: what may be done to samples, penalties, scores and runs.

Legend: N = 60 samples, D = 4 features, K = 3 classes, P = 4 penalties, S settings.
"""

import functools
import pathlib
import tempfile

import jax.numpy as jnp
import numpy as np

from laws import (
    Law,
    big_endian,
    changed,
    every_other,
    merges_labels,
    misreads_a_row,
    only,
    perturbs,
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
from probes.transfer import features as stored
from vci_jax.probe import _inputs, _paired, _rotation, _softmax, baselines, ranking, selection
from vci_jax.probe import path as logistic
from vci_jax.probe.estimator import LogisticProbe
from vci_jax.probe.saved import renumber


def _probes(*names):
    return tuple(f"probes.{name}" for name in names)


def _probe(*names):
    return tuple(f"vci_jax.probe.{name}" for name in names)


N, D, K, P = 60, 4, 3, 4


@functools.cache
def _points():
    rng = np.random.default_rng(11)
    labels = np.repeat(np.arange(K), [26, 19, 15])[rng.permutation(N)]
    means = rng.normal(size=(K, D))
    features = np.round((means[labels] + rng.normal(size=(N, D))) * 4) / 4
    queries = np.round(rng.normal(size=(20, D)) * 8) / 4 + np.array([1, 0, 0, 0])
    return features, labels, queries


def samples():
    """Three overlapping classes; multiples of 1/4, which every real type can hold."""
    features, labels, queries = _points()
    return {
        "features": features, "labels": labels, "queries": queries,
        "penalties": np.array([1.0, 0.1, 0.01, 0.03]), "weights": np.ones(N),
        "class_weight": np.array([1.0, 2.0, 1.0]),
    }  # fmt: skip


def _duplicated():
    data, half = samples(), N // 2
    twice = changed(features=lambda h: np.concatenate([h[:half], h[:half]]),
                    labels=lambda y: np.concatenate([y[:half], y[:half]]))  # fmt: skip
    return twice(data)


# The solver.


def path(data):
    """The optima of a path, and what they predict."""
    found = logistic.fit_path(
        data["features"], data["labels"], data["penalties"], sample_weight=data["weights"],
        class_weight=data["class_weight"], num_classes=K, dtype=np.float64,
    )  # fmt: skip
    order = np.argsort(data["penalties"])
    logits = np.asarray(data["features"], float) @ found.kernel[order] + found.bias[order][:, None]
    return {
        "kernel": found.kernel[order], "bias": found.bias[order], "loss": found.objective[order],
        "converged": found.converged[order], "logits": np.sort(logits.reshape(P, -1), axis=1),
    }  # fmt: skip


def _joined(data):
    parts = list(
        logistic.iter_path(data["features"], data["labels"], data["penalties"], dtype=np.float64)
    )
    places, found = logistic.join(parts)
    logistic.warn(found, data["penalties"][places])
    return {"loss": found.objective[np.argsort(data["penalties"][places])]}


def _alone(data):
    found = [logistic.fit(data["features"], data["labels"], l2, dtype=np.float64)
             for l2 in np.sort(data["penalties"])[:2]]  # fmt: skip
    return {"loss": np.array([one.objective for one in found])}


def _several(data):
    found = logistic.fit_paths(
        [data["features"]] * 2,
        [data["labels"]] * 2,
        data["penalties"],
        num_classes=K,
        dtype=np.float64,
    )
    return {"loss": np.array([one.objective[np.argsort(data["penalties"])] for one in found])}


def _units(scale):
    """Features in another unit: the penalties follow, and only the kernel notices."""
    return changed(features=times(scale), queries=times(scale),
                   penalties=lambda penalties: penalties * scale**2)  # fmt: skip


_PATH = _probe("path.fit_path", "_inputs.samples", "_inputs.penalties", "_inputs.weights",
               "_inputs.in_range", "_inputs.settings", "_rotation.fit",
               "_prepared.prepare")  # fmt: skip


def _fit(statement, change, mistake, expect=dict, rtol=2e-4, functions=_PATH, answer=path, **more):
    return Law(functions, statement, samples, answer, change, mistake, expect, rtol, **more)


SOLVER = (
    _fit("The order of the samples does not matter.",
         reordered("features", "labels", "weights"), misreads_a_row()),
    _fit("The order of the penalties does not matter.", reordered("penalties"),
         changed(penalties=lambda penalties: penalties / 2)),
    *(_fit(f"Features times {scale:g} and penalties times its square: the same logits.",
           _units(scale), mistake, powers(scale, kernel=-1))
      for scale, mistake in ((1e8, saturates("features")), (1e-8, rounds_absolutely("features", 9)),
                             (2.0**60, saturates("features")))),
    _fit("One vector added to all features goes into the intercept.",
         changed(features=plus(100.0 * np.arange(1, D + 1))), misreads_a_row(),
         expect=without("bias")),
    _fit("A rotation of the features turns the kernel alone.",
         changed(features=lambda h: h @ np.linalg.qr(np.arange(16.0).reshape(4, 4) ** 2 % 7)[0]),
         misreads_a_row(), expect=without("kernel")),
    Law(_PATH, "A sample twice is one of weight two, and one of weight zero is none.",
        _duplicated, path, changed(weights=lambda w: np.where(np.arange(N) < N // 2, 2.0, 0.0)),
        perturbs("weights"), rtol=2e-4),
    _fit("Only the ratios of the weights matter.", changed(weights=times(1e6)),
         perturbs("weights", 2)),
    _fit("Only the ratios of the class weights matter.", changed(class_weight=times(1e-6)),
         perturbs("class_weight")),
    _fit("Renamed classes have the same loss and the same logits.",
         changed(labels=renamed(np.array([2, 0, 1])),
                 class_weight=lambda w: np.asarray(w)[[1, 2, 0]]),
         merges_labels(), expect=only("loss", "logits", "converged")),
    _fit("Big-endian features and labels are the same numbers.",
         changed(features=big_endian, labels=big_endian), misreads_a_row()),
    _fit("float16 features and uint8 labels are the same numbers.",
         changed(features=typed(np.float16), labels=typed(np.uint8)), misreads_a_row()),
    _fit("longdouble features are the same numbers.", changed(features=typed(np.longdouble)),
         misreads_a_row()),
    _fit("Features need not be contiguous in memory.", changed(features=every_other),
         misreads_a_row()),
    _fit("The order of the samples does not matter to a walk.",
         reordered("features", "labels"), misreads_a_row(),
         functions=_probe("path.iter_path", "path.join", "path.warn"),
         answer=_joined, rtol=1e-8),
    _fit("The order of the samples does not matter to one fit.",
         reordered("features", "labels"), misreads_a_row(), functions=_probe("path.fit"),
         answer=_alone, rtol=1e-8),
    _fit("The order of the samples does not matter to data sets solved together.",
         reordered("features", "labels"), misreads_a_row(),
         functions=_probe("path.fit_paths"), answer=_several, rtol=1e-8),
)  # fmt: skip


# The protocol.


def _swept(data):
    train = selection.Samples(data["features"], data["labels"])
    test = selection.Samples(data["queries"], np.arange(20) % K)
    found = selection.sweep(train, test, values=data["values"], seed=3, dtype=np.float64,
                        patience=data["patience"])  # fmt: skip
    return {"score": found.score, "curve": found.curve[np.argsort(data["values"])],
            "validation": found.validation_score, "value": found.value}  # fmt: skip


def _grid():
    return samples() | {"values": np.geomspace(1e-2, 1e4, 7), "patience": None}


def _scores(data):
    predicted, labels = np.asarray(data["predicted"]), np.asarray(data["labels"])
    return {"top1": selection.top1(predicted, labels),
            "mean_per_class": selection.mean_per_class(predicted, labels)}  # fmt: skip


def _predictions():
    _, labels, _ = _points()
    return {"labels": labels, "predicted": np.where(np.arange(N) % 4 == 0, 0, labels)}


def _curve():
    return {"values": np.array([0.1, 1.0, 10.0, 100.0]),
            "curve": np.array([0.2, 0.9, 0.9, 0.5])}  # fmt: skip


def _chosen(data):
    values, curve = data["values"], data["curve"]
    return {
        "choice": selection.choose(values, curve),
        "settled": selection.settled(values, curve, 400, 1),
    }


def _predicted(data):
    kernel = np.arange(12.0).reshape(D, K) % 5
    return {"classes": selection.predict(data["scale"] * kernel, np.zeros(K) + data["shift"],
                                     data["features"])}  # fmt: skip


def _held(data):
    kept, held = selection.hold_out(selection.Samples(data["features"], data["labels"]), 5)
    return {"kept": kept.features, "held": held.features}


PROTOCOL = (
    Law(_probe("selection.sweep", "_inputs.splits"),
        "Features in another unit choose the same point of a grid in its square.", _grid, _swept,
        together(changed(features=times(2.0**20), queries=times(2.0**20)),
                 changed(values=times(4.0**20))),
        saturates("features"), powers(4.0**20, value=1)),
    Law(_probe("selection.sweep"), "The order of the grid does not matter.", _grid, _swept,
        reordered("values"), changed(values=times(100.0))),
    Law(_probe("selection.sweep"), "Big-endian features and labels are the same numbers.", _grid,
        _swept, changed(features=big_endian, labels=big_endian), misreads_a_row()),
    Law(_probe("selection.top1", "selection.mean_per_class"),
        "Neither the order nor the names of the classes, nor their type, matter.", _predictions,
        _scores,
        together(reordered("labels", "predicted"),
                 changed(labels=renamed(np.array([40, 7, 250], np.uint8)),
                         predicted=renamed(np.array([40, 7, 250], np.int64)))),
        takes_order_for_content("labels")),
    Law(_probe("selection.choose", "selection.settled"), "The order of the grid does not matter.",
        _curve, _chosen, reordered("values", "curve"), takes_order_for_content("curve")),
    Law(_probe("selection.choose", "selection.settled"), "The unit of the penalties is kept.",
        _curve, _chosen, changed(values=times(1e-8)), takes_order_for_content("curve"),
        powers(1e-8, choice=1)),
    Law(_probe("selection.predict"), "A factor and a term common to all logits do not matter.",
        lambda: samples() | {"scale": 1.0, "shift": 0.0}, _predicted,
        lambda d: d | {"scale": 1e-8, "shift": 1e-9}, lambda d: d | {"scale": -1.0}),
    Law(_probe("selection.hold_out"), "The split depends on the labels, not on the features.",
        samples, _held, changed(features=times(2.0)), reordered("features"),
        powers(2.0, kept=1, held=1)),
)  # fmt: skip


def _classifier(data):
    model = LogisticProbe(C=data["C"]).fit(data["features"], data["labels"], data["weights"])
    return {"probabilities": model.predict_proba(data["queries"]),
            "decisions": model.decision_function(data["queries"]),
            "places": np.searchsorted(model.classes_, model.predict(data["queries"]))}  # fmt: skip


def _with_c():
    return samples() | {"C": 0.7}


_CLASSIFIER = _probe("estimator.LogisticProbe")
CLASSIFIER = (
    Law(_CLASSIFIER, "Classes may be words; their order is the alphabet's.", _with_c, _classifier,
        changed(labels=renamed(np.array(["ape", "bat", "cat"]))),
        changed(labels=lambda y: np.roll(y, 1)), rtol=2e-4),
    Law(_CLASSIFIER, "Classes may be any numbers.", _with_c, _classifier,
        changed(labels=renamed(np.array([-7, 3, 1000]))), takes_order_for_content("labels"),
        rtol=2e-4),
    Law(_CLASSIFIER, "All weights times w is C times w.", _with_c, _classifier,
        lambda d: d | {"weights": 8 * d["weights"], "C": d["C"] / 8}, lambda d: d | {"C": 8.0},
        rtol=2e-4),
    Law(_CLASSIFIER, "Features in another unit: C follows by the inverse square.", _with_c,
        _classifier,
        lambda d: d | {"features": 1e4 * d["features"], "queries": 1e4 * d["queries"],
                       "C": d["C"] / 1e8},
        saturates("features"), rtol=2e-4),
    Law(_CLASSIFIER, "Big-endian features are the same numbers.", _with_c, _classifier,
        changed(features=big_endian), misreads_a_row(), rtol=2e-4),
)  # fmt: skip


def _neighbours(data):
    return {"classes": baselines.knn_predict(data["features"], data["labels"], data["queries"],
                                              k=5, num_classes=K)}  # fmt: skip


def _means(data):
    return {"classes": baselines.nearest_mean_predict(
        data["features"], data["labels"], data["queries"], num_classes=K)}  # fmt: skip


def _least(data):
    kernel, bias, error = baselines.least_squares(data["features"], data["labels"], K)
    return {"kernel": kernel, "bias": bias, "error": error}


_KNN, _LEAST = _probe("baselines.knn_predict"), _probe("baselines.least_squares")
_MEANS = _probe("baselines.nearest_mean_predict")
NEIGHBOURS = (
    Law(_KNN, "The order of the training samples does not matter.", samples, _neighbours,
        reordered("features", "labels"), takes_order_for_content("labels")),
    Law(_KNN, "Every vector times a positive factor of its own: cosines stay.", samples,
        _neighbours, changed(features=lambda h: h * 2.0 ** (np.arange(N) % 5)[:, None],
                             queries=times(2.0**9)),
        takes_order_for_content("labels")),
    Law(_KNN, "Features times 1e30: cosines stay.", samples, _neighbours,
        changed(features=times(2.0**100), queries=times(2.0**100)),
        takes_order_for_content("labels")),
    Law(_KNN, "Features times 1e-30: cosines stay.", samples, _neighbours,
        changed(features=times(2.0**-100), queries=times(2.0**-100)),
        takes_order_for_content("labels")),
    Law(_KNN, "Big-endian features are the same numbers.", samples, _neighbours,
        changed(features=big_endian, queries=big_endian), takes_order_for_content("labels")),
    Law(_KNN, "float16 features and uint8 labels are the same numbers.", samples, _neighbours,
        changed(features=typed(np.float16), labels=typed(np.uint8)),
        takes_order_for_content("labels")),
    Law(_MEANS, "The order of the training samples does not matter.", samples, _means,
        reordered("features", "labels"), takes_order_for_content("labels")),
    *(Law(_MEANS, f"Features times {scale:g}: the nearest mean stays.", samples, _means,
          changed(features=times(scale), queries=times(scale)), takes_order_for_content("labels"))
      for scale in (2.0**100, 2.0**-100, 2.0**600, 2.0**-600)),
    Law(_MEANS, "Features moved by the same vector: the nearest mean stays.", samples, _means,
        changed(features=lambda h: h + 16.0, queries=lambda h: h + 16.0),
        takes_order_for_content("labels")),
    Law(_MEANS, "Big-endian features are the same numbers.", samples, _means,
        changed(features=big_endian, queries=big_endian), takes_order_for_content("labels")),
    Law(_LEAST, "The order of the samples does not matter.", samples, _least,
        reordered("features", "labels"), misreads_a_row()),
    *(Law(_LEAST, f"Features times {scale:g}: the error stays, the kernel follows.", samples,
          _least, changed(features=times(scale)), mistake, powers(scale, kernel=-1))
      for scale, mistake in ((1e8, saturates("features")),
                             (1e-8, rounds_absolutely("features", 9)))),
    Law(_LEAST, "Big-endian features are the same numbers.", samples, _least,
        changed(features=big_endian), misreads_a_row()),
    Law(_LEAST, "Columns in units from 1e-2 to 1e2: the error stays.", samples, _least,
        changed(features=times(10.0 ** np.array([-2, 0, 1, 2]))), misreads_a_row(),
        expect=only("error"), rtol=1e-8),
    Law(_LEAST, "Columns in units from 1e-4 to 1e4: the error stays.", samples, _least,
        changed(features=times(10.0 ** np.array([-4, 0, 1, 4]))), misreads_a_row(),
        expect=only("error"), rtol=1e-8),
)  # fmt: skip


def _rotated(data):
    weights = np.asarray(data["weights"]) / np.sum(data["weights"])
    found = _rotation.fit(data["features"], weights)
    out = np.empty((len(found.squares), len(data["features"])))
    found.apply(data["features"], out)
    return {"squares": found.squares, "scale": found.scale, "mean": found.mean,
            "gram": out.T @ out}  # fmt: skip


ROTATION = tuple(
    Law(_probe("_rotation.fit"), f"Features times {scale:g}: only the scale follows.", samples,
        _rotated, changed(features=times(scale)), mistake, powers(scale, scale=1, mean=1))
    for scale, mistake in ((2.0**80, saturates("features")),
                           (2.0**-80, rounds_absolutely("features", 9)))
)  # fmt: skip


# Inputs and parts.


def _saved(data):
    with tempfile.TemporaryDirectory() as folder:
        features, labels = np.asarray(data["features"]), np.asarray(data["labels"])
        if data["form"] == "npz":
            place = pathlib.Path(folder, "x.npz")
            np.savez(place, features=features, labels=labels)
        else:
            place = pathlib.Path(folder, "x_features.npy")
            np.save(place, features)
            np.save(pathlib.Path(folder, "x_labels.npy"), labels)
        found = stored.read_saved(place)
        return {"features": np.array(found.features, float), "labels": np.array(found.labels, int),
                "classes": renumber({"x": found})[1]}  # fmt: skip


def _renumbered(data):
    split = selection.Samples(data["features"], np.asarray(data["labels"]))
    splits, classes = renumber({"train": split})
    return {"labels": splits["train"].labels, "classes": classes}


def _with_form():
    return samples() | {"form": "npz"}


def _losses(data):
    targets = jnp.asarray(data["targets"])
    loss, residual = _softmax.cross_entropy(jnp.asarray(data["logits"]), targets)
    relative = _softmax.relative_to_target(jnp.asarray(data["logits"]), targets)
    return {"loss": loss, "shares": _softmax.probabilities(residual, targets),
            "relative": relative, "total": _softmax.over_classes(relative)}  # fmt: skip


def _some_logits():
    logits = np.random.default_rng(37).normal(size=(4, 6)) * 5
    return {"logits": logits, "targets": np.arange(4)[:, None] == np.arange(6) % 4}


def _weighed(data):
    weights = _inputs.weights(_points()[1], K, data["weights"], data["class_weight"])
    return {"weights": weights, "penalties": _inputs.penalties(list(data["penalties"]))}


INPUTS = (
    Law(_probe("saved.renumber"), "Labels may be any integers, with holes between them.",
        samples, _renumbered, changed(labels=renamed(np.array([3, 40, 1000]))), merges_labels()),
    Law(_probes("transfer.features.read_saved") + _probe("saved.read", "saved.renumber"),
        "Neither the form of the file, nor byte order, nor type matters.", _with_form, _saved,
        lambda d: d | {"form": "npy", "features": big_endian(d["features"]),
                       "labels": typed(np.uint8)(d["labels"])},
        misreads_a_row(), rtol=0),
    Law(_probe(*(f"_softmax.{name}" for name in (
        "cross_entropy", "probabilities", "relative_to_target", "over_classes"))),
        "A term common to all logits of a sample does not matter.", _some_logits, _losses,
        changed(logits=plus(8.0 * np.arange(6))), takes_order_for_content("logits"), rtol=1e-12),
    Law(_probe("_inputs.weights", "_inputs.penalties"),
        "Only the ratios of the weights matter, of any type.", samples, _weighed,
        changed(weights=lambda w: (8 * w).astype(np.int8),
                class_weight=lambda w: big_endian(w / 4)),
        perturbs("weights", 2)),
)  # fmt: skip

# The ranking, and scores of logits.


def _logits():
    features, labels, _ = _points()
    kernel = np.random.default_rng(6).integers(-2, 3, (D, 5))
    return {"logits": features @ kernel + 0.01 * np.arange(5), "labels": labels}


def _of_logits(data):
    logits, labels = np.asarray(data["logits"]), data["labels"]
    return {"leep": baselines.leep(logits, labels), "nce": baselines.nce(logits, labels)}


def _two_models():
    features, labels, _ = _points()
    noise = np.round(np.random.default_rng(5).normal(size=(N, D)) * 4) / 4
    rows = np.arange(N) % 3 > 0
    return {
        "good": features[rows], "noise": noise[rows], "labels": labels[rows],
        "test": (features[~rows], noise[~rows]), "test_labels": labels[~rows],
        "values": np.geomspace(1e-2, 1e2, 3), "names": ("good", "noise"),
    }  # fmt: skip


def _ranked(data):
    given = {name: data[name] for name in data["names"]}
    test = dict(zip(("good", "noise"), data["test"], strict=True))
    found = ranking.rank(given, data["labels"], test=(test, data["test_labels"]),
                         values=data["values"], curve=(0.5,), neighbours=5)  # fmt: skip
    models = {model.model: model for model in found.models}
    fields = ("accuracy", "accuracy_interval", "knn_accuracy", "ncc_accuracy", "vci", "h_score")
    return {
        "order": list(models), "scores": [[vars(m)[f] for f in fields] for m in found.models],
        "curves": [m.curve for m in found.models],
        "pairs": [(pair.difference, pair.interval, pair.p_value) for pair in found.pairs],
        "penalties": [m.penalties for m in found.models],
    }  # fmt: skip


def _answers():
    rng = np.random.default_rng(9)
    a, b = (rng.uniform(size=(2, N)) < [[0.8], [0.6]]).astype(float)
    return {"a": a, "b": b, "labels": _points()[1]}


def _compared(data):
    a, b, labels = data["a"], data["b"], np.asarray(data["labels"])
    found = [_paired.difference(a, b, labels, per_class=each) for each in (False, True)]
    return {
        "difference": [one.value for one in found],
        "interval": [(one.low, one.high) for one in found],
        "needed": [one.samples_needed for one in found],
        "mcnemar": found[0].p_value,
        "score": [_paired.score(a, labels, per_class=each) for each in (False, True)],
        "total": float(np.sum(_paired.sample_weights(labels, per_class=True))),
    }  # fmt: skip


def _other_way_round(answer):
    return {"difference": [-value for value in answer["difference"]],
            "interval": [(-high, -low) for low, high in answer["interval"]],
            "needed": answer["needed"], "mcnemar": answer["mcnemar"]}  # fmt: skip


_LOGITS = _probe("baselines.leep", "baselines.nce")
_PAIR = _probe("_paired.difference", "_paired.score", "_paired.sample_weights")
_RANK = _probe("ranking.rank", "_protocol.prepare", "_protocol.answer", "_protocol.learning_curve")
RANKING = (
    Law(_LOGITS, "The order of the samples does not matter to LEEP and NCE.", _logits, _of_logits,
        reordered("logits", "labels"), takes_order_for_content("labels")),
    Law(_LOGITS, "A term common to all logits of a sample leaves LEEP and NCE.", _logits,
        _of_logits, changed(logits=plus(1e3 * np.arange(N)[:, None])),
        takes_order_for_content("logits"), rtol=1e-8),
    Law(_LOGITS, "Neither classes nor source classes have an order.", _logits, _of_logits,
        changed(logits=lambda z: z[:, [4, 2, 0, 1, 3]], labels=renamed(np.array([2, 0, 1]))),
        merges_labels()),
    Law(_LOGITS, "A source class that no sample has any probability of changes nothing.", _logits,
        _of_logits, changed(logits=lambda z: np.column_stack([z, np.full(N, -1e6)])),
        takes_order_for_content("logits")),
    Law(_LOGITS, "Big-endian logits are the same numbers to LEEP and NCE.", _logits, _of_logits,
        changed(logits=big_endian, labels=big_endian), takes_order_for_content("logits")),
    Law(_PAIR, "The order of the samples does not matter to a pair.", _answers, _compared,
        reordered("a", "b", "labels"), takes_order_for_content("a")),
    Law(_PAIR, "The names of the classes do not matter to a pair.", _answers, _compared,
        changed(labels=renamed(np.array(["x", "c", "m"]))), takes_order_for_content("labels")),
    Law(_PAIR, "A pair the other way round has the opposite difference.", _answers, _compared,
        lambda d: d | {"a": d["b"], "b": d["a"]}, takes_order_for_content("a"),
        expect=_other_way_round),
    Law(_RANK, "The order in which models are given does not matter.", _two_models, _ranked,
        changed(names=lambda names: names[::-1]), takes_order_for_content("test_labels")),
    Law(_RANK, "Labels may be words.", _two_models, _ranked,
        changed(labels=renamed(np.array(["ant", "bee", "cat"])),
                test_labels=renamed(np.array(["ant", "bee", "cat"]))),
        takes_order_for_content("labels")),
    Law(_RANK, "Features in another unit: the penalties follow, and the ranking stays.",
        _two_models, _ranked,
        changed(good=times(2.0**12), noise=times(2.0**12), values=times(4.0**12),
                test=lambda parts: tuple(times(2.0**12)(part) for part in parts)),
        takes_order_for_content("labels"), powers(4.0**12, penalties=1)),
    Law(_RANK, "Big-endian features are the same numbers to a ranking.", _two_models, _ranked,
        changed(good=big_endian, noise=big_endian, labels=big_endian),
        takes_order_for_content("labels")),
)  # fmt: skip

PROBES = (*SOLVER, *PROTOCOL, *CLASSIFIER, *NEIGHBOURS, *ROTATION, *INPUTS, *RANKING)

EXEMPT = {
    "vci_jax.probe._score_files.score_file": "a path; tests/vci_jax/probe/test_ranking.py",
    **dict.fromkeys(_probe("_inputs.classes", "_inputs.matrix"),
                    "a check that raises; tests/vci_jax/probe/test_inputs.py has its cases"),
    "probes.transfer.features.saved_splits": "lists files; tests/probes/test_encoders.py",
    **dict.fromkeys(_probe("command.main", "command.parser"),
                    "a command; tests/vci_jax/test_cli.py runs it"),
    "vci_jax.probe._protocol.counter": "counts calls, and reports the number to a callback",
    "vci_jax.probe._prepared.placement": "returns where arrays lie on devices",
}  # fmt: skip
_SOLVER_PART = "a part of the solver, under the laws of path.fit_path"
_TEXT, _IMAGES = "makes texts or pictures of numbers", "reads images or networks from disk"
EXEMPT_MODULES = {
    **dict.fromkeys(_probe(
        "_solver", "_problem", "_newton", "_warm_start", "_intercept", "_lbfgs", "_line_search",
        "_precondition",
    ), _SOLVER_PART),
    **dict.fromkeys((f"probes.{name}" for name in (
        "page", "figures", "analysis.tables", "transfer.escape")), _TEXT),
    **dict.fromkeys((f"probes.{name}" for name in (
        "encoders.encoder", "encoders.run", "encoders.words", "encoders.checkpoint",
        "encoders.function", "encoders.libraries", "transfer.features",
        "transfer.task_features", "transfer.tasks", "transfer.runner", "ranking.runner")),
        _IMAGES),
    "probes.encoders.identity": "digests of bytes, which must change with byte order and type",
    "vci_jax.probe._progress": "files of bytes: tests/vci_jax/probe/test_logistic.py",
    "probes.transfer.score_log": "writes files; tests/probes/test_transfer.py has its cases",
    "vci_jax._compile": "compiles functions that have laws: tests/vci_jax/test_report.py",
    "studies.cifar10": "scores and writes up the study; tests/studies/test_study.py",
    "probes.transfer.sharing": "needs several processes; tests/probes/test_sharing.py has two",
    "probes.transfer.commands": "parses command lines and calls one function",
    "probes.__main__": "parses command lines and calls one function",
}  # fmt: skip
