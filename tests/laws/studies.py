"""The laws of correlations and studies: what may be done to samples, scores, names and units.

Legend: S settings, of which some have several seeds.
"""

import pathlib

import numpy as np

from laws import (
    Law,
    big_endian,
    changed,
    only,
    perturbs,
    powers,
    renamed,
    reordered,
    rounds_absolutely,
    saturates,
    takes_order_for_content,
    times,
    typed,
    without,
)
from probes.analysis import coefficients, cohorts, conclusions, correlation, resampling, runs
from probes.transfer import odds, rounding, summary
from vci_jax import interval


def _probes(*names):
    return tuple(f"probes.{name}" for name in names)


def pairs():
    """Two correlated samples of eight settings without ties, the last two with two seeds each."""
    rng = np.random.default_rng(23)
    x = rng.normal(size=10)
    return {"x": x, "y": 0.8 * x + 0.6 * rng.normal(size=10),
            "given": x + 2 * rng.normal(size=10),
            "settings": np.array([0, 1, 2, 3, 4, 5, 6, 6, 7, 7]),
            "plan": resampling.ResamplingPlan(resamples=199)}  # fmt: skip


def _coefficients(data):
    found = {name: function(np.asarray(data["x"]), np.asarray(data["y"]))
             for name, function in coefficients.COEFFICIENTS.items()}  # fmt: skip
    return found | {"partial": np.array(correlation.partial(data["x"], data["y"], data["given"]))}


def _resampled(data):
    settings, plan = list(data["settings"]), data["plan"]
    x, y = (np.asarray(data[name], float) for name in ("x", "y"))
    means = resampling.means(x, settings)
    bootstrap = resampling.bootstrap(coefficients.pearson, (x, y), settings, plan)
    averages = resampling.bootstrap(lambda v: np.mean(v, axis=-1), (x,), settings, plan)
    test = resampling.permute(
        coefficients.pearson, means[:6], resampling.means(y, settings)[:6], plan
    )
    return {
        "means": means, "pearson": bootstrap[:2], "average": averages[:2], "p": test.p_value,
        "test": (test.low, test.high), "without": resampling.without_each(means),
        "arranged": np.sort(resampling.arrange([x, y], settings)[0][0]),
        "rows": resampling.draw(settings, plan, seeds_only=False).rows,
    }  # fmt: skip


def _interval(data):
    found = resampling.bca(data["distribution"], float(np.mean(data["sample"])),
                           np.asarray([np.mean(rest) for rest in
                                       resampling.without_each(data["sample"])]),
                           resampling.ResamplingPlan())  # fmt: skip
    return {"ends": np.array(found[:2])}


def _distribution():
    rng = np.random.default_rng(29)
    sample = rng.exponential(size=9)
    return {"sample": sample, "distribution": rng.choice(sample, (999, 9)).mean(axis=1)}


def _affine(scale, shift):
    return lambda answer: {name: np.asarray(v) * scale + shift for name, v in answer.items()}


_COEFFICIENTS = tuple(f"probes.analysis.coefficients.{name}" for name in (
    *coefficients.COEFFICIENTS, "centred"))  # fmt: skip
_PARTIAL = _probes("analysis.correlation.partial")
_RESAMPLING = tuple(f"probes.analysis.resampling.{name}" for name in (
    "means", "arrange", "draw", "bootstrap", "without_each", "permute"))  # fmt: skip
CORRELATION = (
    Law((*_COEFFICIENTS, *_PARTIAL), "The order of the pairs does not matter.",
        pairs, _coefficients, reordered("x", "y", "given"), takes_order_for_content("y")),
    Law((*_COEFFICIENTS, *_PARTIAL),
        "Each sample may be in any unit, from any origin.", pairs, _coefficients,
        changed(x=lambda x: 1e8 * x + 5, y=lambda y: 1e-8 * y, given=lambda g: 3 * g - 1),
        takes_order_for_content("x")),
    Law((*_COEFFICIENTS, *_PARTIAL), "Factors of 1e-200 and 1e200 do not matter.",
        pairs, _coefficients, changed(x=times(1e-200), y=times(1e200)),
        takes_order_for_content("x")),
    Law(_COEFFICIENTS, "Ranks see order alone: a monotone map does not matter to them.", pairs,
        _coefficients, changed(x=np.exp, y=lambda y: y**3), takes_order_for_content("x"),
        expect=only("spearman", "kendall", "weighted_kendall")),
    Law(_COEFFICIENTS, "Both samples turned around: the linear and the rank coefficients stay.",
        pairs, _coefficients, changed(x=times(-1.0), y=times(-1.0)),
        changed(y=lambda y: -np.asarray(y)), expect=only("pearson", "spearman", "kendall")),
    Law(_COEFFICIENTS, "Big-endian and float32 samples are the same numbers.",
        lambda: pairs() | {"x": np.round(pairs()["x"], 3).astype(np.float32)}, _coefficients,
        changed(x=typed(np.float64), y=big_endian), takes_order_for_content("x")),
    Law(_RESAMPLING, "Numbers of the settings do not matter, as long as their order stays.", pairs,
        _resampled, changed(settings=renamed(np.arange(8) * 10 - 30)),
        changed(settings=lambda s: s // 20)),
    *(Law(_RESAMPLING, f"The unit does not matter: samples times {scale:g}.", pairs, _resampled,
          changed(x=times(scale)), rounds_absolutely("x", 7) if scale < 1 else saturates("x", 1e3),
          powers(scale, means=1, average=1, without=1, arranged=1))
      for scale in (2.0**30, 2.0**-20, 2.0**-60)),
    Law(_probes("analysis.resampling.bca"), "The interval moves with the unit and the origin.",
        _distribution, _interval,
        changed(sample=lambda v: 1e6 * v - 3, distribution=lambda v: 1e6 * v - 3),
        changed(sample=lambda v: v * 2),
        _affine(1e6, -3), rtol=1e-8),
    Law(_probes("analysis.resampling.bca"), "The interval moves with a small unit.",
        _distribution, _interval, changed(sample=times(1e-13), distribution=times(1e-13)),
        changed(sample=lambda v: v * 2), _affine(1e-13, 0)),
    Law(("vci_jax.interval.holm",),
        "The order of the tests does not matter; NaN is no test.",
        lambda: {"p": np.array([0.01, 0.04, np.nan, 0.03]), "back": np.arange(4)},
        lambda d: {"adjusted": interval.holm(np.asarray(d["p"]))[np.argsort(d["back"])]},
        reordered("p", "back"), takes_order_for_content("back")),
)  # fmt: skip


def campaign():
    """Nine runs of two groups with two metrics."""
    rng = np.random.default_rng(31)
    gain = rng.normal(size=9)
    return {
        "names": [f"run {i}" for i in range(9)], "groups": ["tau"] * 5 + ["lambda"] * 4,
        "settings": list(range(9)), "vci": 0.5 + 0.1 * gain + 0.03 * rng.normal(size=9),
        "fuzziness": rng.normal(size=9) + 3, "mlog": gain,
        "accuracy": 0.7 + 0.02 * rng.normal(size=9), "order": np.arange(9),
    }  # fmt: skip


def _studied(data):
    found = cohorts.Study(
        names=list(data["names"]), groups=list(data["groups"]), settings=list(data["settings"]),
        scores={"pets": np.full(9, 0.5)},
        metrics={name: np.asarray(data[name]) for name in ("vci", "fuzziness")},
        accuracy=np.asarray(data["accuracy"]), mlo=np.asarray(data["mlog"]),
        mlog=np.asarray(data["mlog"]), notes=[],
    )  # fmt: skip
    plan = resampling.ResamplingPlan(resamples=99, permutations=120)
    correlations = correlation.correlate(found, plan)
    compared = correlation.compare(found, "vci", plan)
    said = conclusions.statements(correlations, compared, plan)
    signs = conclusions.signs(correlations, plan)
    return {
        "r": [one.pearson.value for one in correlations],
        "partial": [one.partial for one in correlations],
        "exact p": [one.pearson.permutation.p_value for one in correlations
                    if one.pearson.permutation.exact],
        "gains": [one.value for one in compared],
        "intervals": [one.pearson.bootstrap[:2] for one in correlations],
        "said": list(said), "signs": [list(one.signs.values()) for one in signs],
    }  # fmt: skip


def _turned(answer):
    return {"r": [-r for r in answer["r"]], "gains": answer["gains"],
            "exact p": answer["exact p"],
            "intervals": [(-high, -low) for low, high in answer["intervals"]]}  # fmt: skip


def _reordered_runs(data):
    order = [3, 0, 4, 1, 2, 8, 6, 5, 7]
    return {name: [values[i] for i in order] for name, values in data.items()}


_STUDY = _probes("analysis.correlation.correlate", "analysis.correlation.compare",
                 "analysis.conclusions.signs", "analysis.conclusions.statements")  # fmt: skip
STUDIES = (
    Law(_STUDY, "The names of the runs do not matter.", campaign, _studied,
        changed(names=lambda names: [f"other {name}" for name in names][::-1]),
        takes_order_for_content("mlog")),
    Law(_STUDY, "Metrics may be in any unit, from any origin.", campaign, _studied,
        changed(vci=lambda v: 2.0**-20 * np.asarray(v), fuzziness=lambda v: 8 * np.asarray(v) + 64),
        takes_order_for_content("vci"), expect=without("said"), rtol=1e-7),
    Law(_STUDY, "Numbers of the settings do not matter, as long as their order stays.", campaign,
        _studied, changed(settings=lambda s: [10 * i + 3 for i in s]),
        changed(settings=lambda s: [i // 20 for i in s])),
    Law(_STUDY, "Metrics turned around turn correlations and intervals around, and no strength.",
        campaign, _studied,
        changed(vci=lambda v: -np.asarray(v), fuzziness=lambda v: -np.asarray(v)),
        takes_order_for_content("vci"), expect=_turned, rtol=1e-7),
    Law(_STUDY, "The order of the runs of a group does not matter.", campaign, _studied,
        _reordered_runs, takes_order_for_content("mlog")),
)  # fmt: skip


# Scores, runs and files.


def _gained(data):
    scores = np.asarray(data["scores"], float)
    table = {f"task {i}": column for i, column in enumerate(scores.T)}
    mlo, mlog = cohorts.gains(table, np.asarray(data["accuracy"]))
    return {"mlo": mlo, "mlog": mlog, "one": odds.mlo(scores[0]), "gain": odds.mlog(scores[0], 0.5)}


def _scored():
    return {"scores": np.array([[0.9, 0.6, 0.7], [0.8, 0.5, 0.75]]),
            "accuracy": np.array([0.5, 0.5])}  # fmt: skip


def _summarised(data):
    results = [
        summary.ModelScores(pathlib.Path(name),
                       {task: {"score": score, "test_size": 100} for task, score in row.items()},
                       {"accuracy": 0.7, "samples": 100})
        for name, row in zip(data["names"], data["rows"], strict=True)
    ]  # fmt: skip
    rows = summary.summarise(results, data["tasks"])
    best = [sorted(summary.best(results, task)) for task in sorted(data["tasks"])]
    return {"best": best, **{name: [row[name] for row in rows] for name in ("mlo", "mlog")}}


def _results():
    rows = [{"a": 0.9, "b": 0.6}, {"b": 0.7, "a": 0.5}]
    return {"names": ["x", "y"], "rows": rows, "tasks": ["a", "b"]}


def _grouped(data):
    found = [
        runs.Run(name=name, group="g", path=pathlib.Path(name), config=config, rows=[],
                 transfer=[], notes=[])
        for name, config in zip(data["names"], data["configs"], strict=True)
    ]  # fmt: skip
    return {"settings": runs.settings(found), "varied": sorted(runs.differences(found))}


def _configs():
    configs = [{"seed": seed, "tau": tau} for tau in (0.1, 0.5) for seed in (0, 1)]
    return {"names": list("abcd"), "configs": configs}


def _inside(data):
    values, notes = zip(
        *(odds.inside(score, 50, "it", "n") for score in data["scores"]), strict=True
    )
    row = {"score": data["scores"][1], "accuracy": data["scores"][2], "task": "a", "samples": 9}
    return {"odds": [np.log(value / (1 - value)) for value in values],
            "moved": [bool(note) for note in notes],
            "rows": np.array([odds.adjusted_score(row)[0], odds.adjusted_accuracy(row)[0]]) - 0.5,
            }  # fmt: skip


def _ties():
    return {"values": np.array([0.3, 1.0, 0.1 + 0.2, -2.0]), "constant": np.full(5, 0.1)}


def _levels(data):
    values = np.asarray(data["values"])
    largest = np.max(np.abs(values))
    return {"ties": rounding.level(values)[0] == rounding.level(values)[2],
            "constant": [rounding.is_constant(values), rounding.is_constant(data["constant"])],
            "signs": [rounding.sign(value) for value in values / largest],
            "snapped": rounding.snap(values / largest, 0.0),
            "leading": sorted(summary.leading(list(values / largest)))}  # fmt: skip


RECORDS = (
    Law(_probes(*(f"transfer.odds.{n}" for n in ("inside", "adjusted_score", "adjusted_accuracy"))),
        "Right and wrong exchanged: log odds turn around, also of 0 and 1.",
        lambda: {"scores": [0.0, 0.3, 0.8, 1.0]}, _inside,
        changed(scores=lambda s: [1 - score for score in s]),
        changed(scores=lambda s: s[::-1]), powers(-1, odds=1, rows=1)),
    Law(_probes("transfer.rounding.is_constant", "transfer.rounding.level",
                "transfer.rounding.sign", "transfer.rounding.snap", "transfer.summary.leading"),
        "What is the same but for rounding is so in any unit.", _ties, _levels,
        changed(values=times(0.7e-30), constant=times(0.7e-30)),
        changed(values=lambda v: v + np.arange(4) * 1e-31)),
    Law(_probes("transfer.odds.mlo", "transfer.odds.mlog", "analysis.cohorts.gains"),
        "The order of the tasks does not matter.", _scored, _gained,
        changed(scores=lambda s: s[:, [2, 0, 1]]), perturbs("scores", 0.01)),
    Law(_probes("transfer.odds.mlo", "transfer.odds.mlog", "analysis.cohorts.gains"),
        "Scores and errors exchanged: log odds turn around.", _scored, _gained,
        changed(scores=lambda s: 1 - s), perturbs("scores", 0.01),
        powers(-1, mlo=1, mlog=1, one=1, gain=1)),
    Law(_probes("transfer.summary.summarise", "transfer.summary.best"),
        "Neither names nor the order of the tasks matter.", _results, _summarised,
        lambda d: {"names": ["p", "q"], "rows": d["rows"], "tasks": ["b", "a"]},
        changed(rows=lambda rows: rows[::-1])),
    Law(_probes("analysis.runs.settings", "analysis.runs.differences"),
        "Neither names of runs nor seeds make settings.", _configs, _grouped,
        lambda d: {"names": list("wxyz"),
                   "configs": [config | {"seed": 9 - i} for i, config in enumerate(d["configs"])]},
        changed(configs=lambda configs: configs[::-1][:1] + configs[1:])),
)  # fmt: skip

STUDY = (*CORRELATION, *STUDIES, *RECORDS)

_FILES = "reads work directories; tests/probes/test_runs.py has its cases"
EXEMPT = {
    **dict.fromkeys(_probes("analysis.cohorts.from_runs", "analysis.runs.read_run",
                            "analysis.runs.read_runs", "analysis.runs.read_rows"), _FILES),
    "probes.analysis.cohorts.shares": "the scores of a run, each by odds.adjusted_score",
    "probes.analysis.cohorts.measured": "picks one row of a run",
    "probes.analysis.published.study": "a table without arguments",
    "probes.transfer.display.print_table": "prints a table as text",
}  # fmt: skip
