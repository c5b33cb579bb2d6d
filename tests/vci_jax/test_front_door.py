"""What people hand in: the right value, or one sentence that says what to do."""

import json
import math
import os
import pathlib
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import reference
from reference import gaussian_classes

import vci_jax
from vci_jax import METRICS, VCIError

FEATURES, LABELS = gaussian_classes(11, 300, 4, 6)
WHOLE = np.round(4 * FEATURES) / 4  # exact in every real type
NAMES = np.array(["cat", "dog", "eel", "fox"])
EXPECTED = reference.metrics(WHOLE, LABELS)
VCI = EXPECTED["vci"]


class Tensor:
    """As much of a tensor of PyTorch as anybody sees who has not imported it."""

    def __init__(self, values, dtype="torch.float32", grad=True):
        self._values, self.dtype, self._grad, self._far = values, dtype, grad, True

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")

    def detach(self):
        return Tensor(self._values, self.dtype, grad=False)

    def cpu(self):
        near = Tensor(self._values, self.dtype, self._grad)
        near._far = False
        return near

    def float(self):
        near = Tensor(self._values, "torch.float32", self._grad)
        near._far = self._far
        return near

    def numpy(self):
        assert not self._grad
        assert not self._far
        assert "bfloat16" not in self.dtype
        return self._values


Tensor.__module__ = "torch"


class Frame:
    """As much of a data frame as NumPy sees."""

    def __init__(self, values):
        self._values = values

    def __array__(self, *args, **kwargs):
        return np.asarray(self._values)


class Dataset:
    """Of torch, but no tensor."""


Dataset.__module__ = "torch.utils.data"


class Broken:
    """An array of a library that fails in its own way."""

    def __array__(self, *args, **kwargs):
        raise LookupError("no data.\nTraceback of its own")


GOOD = {
    "NumPy": (WHOLE, LABELS),
    "lists": (WHOLE.tolist(), LABELS.tolist()),
    "JAX": (jnp.asarray(WHOLE, jnp.float32), jnp.asarray(LABELS)),
    "JAX, bfloat16": (jnp.asarray(WHOLE % 8, jnp.bfloat16), LABELS),
    "float16": (WHOLE.astype(np.float16), LABELS),
    "long double": (WHOLE.astype(np.longdouble), LABELS),
    "big-endian": (WHOLE.astype(">f4"), LABELS.astype(">i8")),
    "bfloat16 of ml_dtypes": ((WHOLE % 8).astype(ml_dtypes.bfloat16), LABELS),
    "integers": ((4 * WHOLE).astype(np.int64), LABELS),
    "column-major": (np.asfortranarray(WHOLE), LABELS),
    "a data frame": (Frame(WHOLE), Frame(LABELS)),
    "torch on a GPU, with gradient": (Tensor(WHOLE), Tensor(LABELS, "torch.int64")),
    "torch, bfloat16": (Tensor(WHOLE, "torch.bfloat16"), LABELS),
    "a list of torch rows": ([Tensor(row) for row in WHOLE], LABELS),
    "labels 1 .. K": (WHOLE, LABELS + 1),
    "labels with holes": (WHOLE, np.array([3, 70, 71, 9000])[LABELS]),
    "labels beyond int32": (WHOLE, LABELS.astype(np.uint64) + 2**62),
    "text": (WHOLE, NAMES[LABELS]),
    "a list of text": (WHOLE, NAMES[LABELS].tolist()),
    "objects that are text": (WHOLE, NAMES[LABELS].astype(object)),
    "floats that are integers": (WHOLE, LABELS.astype(float)),
    "one-hot": (WHOLE, np.eye(4)[LABELS]),
    "one-hot truth values": (WHOLE, np.eye(4, dtype=bool)[LABELS]),
    "text of NumPy 2": (WHOLE, NAMES[LABELS].astype(np.dtypes.StringDType())),
    "text and numbers": (WHOLE, np.array([0, 1, "two", "3"], object)[LABELS].tolist()),
    "a column of labels": (WHOLE, LABELS[:, None]),
    "rows without a label": (
        np.concatenate([WHOLE, np.full((2, 6), np.nan)]),
        np.append(LABELS, [-1, -100]),
    ),
}

ONE_CLASS = np.zeros(300, int)
BAD = {
    "real targets": (WHOLE, LABELS + 0.5, "labels are real numbers, .* in row 0.*numpy.digitize"),
    "multi-label": (WHOLE, np.ones((300, 4)), "multi-label: row 0 has 4 classes.*one column"),
    "no class in a row": (WHOLE, np.zeros((300, 4)), "row 0 has 0 classes"),
    "soft labels": (WHOLE, np.full((300, 4), 0.25), "not one-hot.*argmax"),
    "NaN among the labels": (WHOLE, np.where(LABELS == 0, np.nan, LABELS), "75 labels are NaN"),
    "None among the labels": (WHOLE, [None, *NAMES[LABELS[1:]]], "hold None"),
    "dates": (WHOLE, LABELS.astype("M8[s]"), "labels are datetime64"),
    "other negative labels": (WHOLE, LABELS - 3, "labels are negative, the first is -2"),
    "no labels": (WHOLE, LABELS * 0 - 1, "all 300 rows have the label -1"),
    "other length": (WHOLE, LABELS[:-1], r"labels have shape \[299\] for 300 rows"),
    "one class": (WHOLE, ONE_CLASS, "Only one class is present.*two or more classes"),
    "feature maps": (WHOLE.reshape(300, 6, 1, 1), LABELS, r"got \[300, 6, 1, 1\].*mean\(axis="),
    "one feature": (WHOLE[:, 0], LABELS, r"got \[300\].*features\[:, None\]"),
    "swapped": (LABELS, WHOLE, "features and labels in this order"),
    "empty": (WHOLE[:0], LABELS[:0], r"N > 0 and D > 0, got \[0, 6\]"),
    "no features": (WHOLE[:, :0], LABELS, r"N > 0 and D > 0, got \[300, 0\]"),
    "NaN": (np.where(WHOLE == WHOLE[7, 0], np.nan, WHOLE), LABELS, "rows of features hold NaN"),
    "infinity": (np.where(LABELS == 0, np.inf, WHOLE.T).T, LABELS, "75 of 300 rows of features"),
    "text as features": (WHOLE.astype(str), LABELS, "must be real numbers, got <U"),
    "complex": (WHOLE * 1j, LABELS, "must be real numbers, got complex128"),
    "a dictionary": ({"conv1": WHOLE}, LABELS, "a mapping of conv1: pass one of its arrays"),
    "ragged lists": ([[1.0, 2.0], [3.0]], [0, 1], "its rows have different lengths"),
    "masked": (np.ma.masked_less(WHOLE, 0), LABELS, "masked array with"),
    "a generator": ((row for row in WHOLE), LABELS, "must be real numbers, got object"),
    "batches that were not joined": ([WHOLE[:100], WHOLE[100:]], LABELS,
                                     r"list of 2 arrays, \[100, 6\] the first.*concatenate"),
    "features and logits": ((WHOLE, WHOLE), LABELS, "a tuple of 2 arrays"),
    "batches of labels": (WHOLE, LABELS.reshape(2, 150), r"one label .* labels.reshape\(-1\)"),
    "a path": ("features.npy", LABELS, "'features.npy', not an array: vci_jax.read_features"),
    "None": (None, LABELS, r"real numbers, got object \(None\)"),
    "labels in a set": (WHOLE, set(LABELS.tolist()), "labels is a set: pass an array"),
    "no labels at all": (WHOLE, None, "labels is None: pass an array"),
    "a function": (lambda: WHOLE, LABELS, "a function.*vci_jax.measure"),
    "data set of torch": (Dataset(), LABELS, r"object \(a Dataset\).*vci_jax.measure"),
    "truth values": (WHOLE > 0, LABELS, r"got bool. Pass features.astype\(float\)"),
    "numbers as objects": (WHOLE.astype(object), LABELS, r"columns of text.*astype\(float\)"),
    "named columns": (np.rec.fromarrays(WHOLE.T), LABELS, "named columns: pass those"),
    "an array that breaks": (Broken(), LABELS, r"cannot be read as a NumPy array: no data\.?$"),
    "other objects": (WHOLE, [None, *NAMES[LABELS[1:]]], r"text of other objects with str\("),
    "constant features": (0 * WHOLE, LABELS, "All features are equal"),
    "too few samples": (WHOLE[:6], [0, 1, 0, 1, 0, 1], "6 samples are too few"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", GOOD)
def test_what_people_hand_in_is_measured(kind):
    """The value of the float64 reference, as a plain float."""
    features, labels = GOOD[kind]
    value = vci_jax.vci(features, labels)
    assert type(value) is float
    expected = VCI
    if "bfloat16" in kind and "torch" not in kind:
        expected = reference.metrics(np.asarray(features, np.float64), LABELS)["vci"]
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_measured_is_refused_in_a_sentence(kind):
    """By both doors of one number, as a ValueError of ours, without another in its wake."""
    features, labels, words = BAD[kind]
    with pytest.raises(VCIError, match=words) as caught:
        vci_jax.vci_adjusted(features, labels)
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


MEMORY = """
import resource, warnings
import test_front_door as table, vci_jax

warnings.simplefilter("ignore")
vci_jax.vci(*table.GOOD["NumPy"])  # Compiled programs are not counted.
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for features, labels, *_ in [*table.GOOD.values(), *table.BAD.values()]:
    try:
        vci_jax.vci(features, labels)
    except vci_jax.VCIError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_all_kinds_together_take_less_than_200_mb():
    """At the peak of a process of their own, in KiB on Linux."""
    folders = pathlib.Path(__file__).parents
    paths = os.pathsep.join(str(folders[i]) for i in range(3))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 0 <= int(done.stdout) < 200_000


def test_one_number_is_that_of_the_report():
    report = vci_jax.measure_arrays(FEATURES, LABELS)
    assert vci_jax.vci(FEATURES, LABELS) == pytest.approx(report["vci"], rel=1e-12)
    adjusted = vci_jax.vci_adjusted(FEATURES, LABELS)
    assert adjusted == pytest.approx(report["vci_adjusted"], rel=1e-12)
    for name, value in reference.metrics(FEATURES, LABELS).items():
        np.testing.assert_allclose(report[name], value, rtol=1e-9, err_msg=name)


def test_a_doubtful_number_comes_with_a_warning():
    """Too few samples look collapsed, whatever they are: a float alone would not say so."""
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="too few for 59 directions"):
        assert vci_jax.vci(rng.normal(size=(60, 64)), np.arange(60) % 3) < 1e-9


def test_options_of_measure_arrays():
    report = vci_jax.measure_arrays(FEATURES, LABELS, metrics=["vci", "cosine_similarity"])
    assert list(report)[:2] == ["vci", "cosine_similarity"]
    assert "fuzziness" not in report
    assert "vci_interval" not in vci_jax.measure_arrays(FEATURES, LABELS, blocks=1)
    whole = vci_jax.measure_arrays(FEATURES, LABELS + 1, num_classes=6)
    assert whole["vci"] == pytest.approx(reference.metrics(FEATURES, LABELS)["vci"], rel=1e-9)
    few = vci_jax.measure_arrays(FEATURES[:8], LABELS[:8], blocks=16)  # more blocks than rows
    assert few["samples"] == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": "vci"}, r"write \['vci'\]"),
        ({"metrics": ["vcj"]}, r"no metric \['vcj'\]"),
        ({"metrics": ["self_duality"]}, "self_duality needs head"),
        ({"metrics": ["ncc_agreement"]}, "needs logits"),
        ({"blocks": 0}, "at least 1, got 0"),
        ({"blocks": 2.5}, "at least 1, got 2.5"),
        ({"num_classes": "3"}, "num_classes must be an integer of at least 1, got '3'"),
        ({"blocks": 301}, "blocks is 301 for 300 rows: 10 to 100 are enough"),
        ({"classifier": {"kernel": np.ones((6, 4))}}, "mapping of kernel: pass .kernel, bias"),
        ({"num_classes": 3}, r"75 labels lie outside 0 .. 2"),
        ({"weighting": "none"}, "got 'none'"),
        ({"logits": np.ones((299, 4))}, r"must be \[300, 4\], got \[299, 4\]"),
        ({"classifier": np.ones((4, 6))}, r"\[D, K\] = \[6, 4\], got \[4, 6\].*weight.T"),
        ({"classifier": np.ones((6, 3))}, r"75 labels lie outside 0 .. 2"),
        ({"classifier": (1, 2, 3)}, "got 3 arrays"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(VCIError, match=words):
        vci_jax.measure_arrays(FEATURES, LABELS, **options)


def test_a_classifier_needs_labels_that_are_its_columns():
    with pytest.raises(VCIError, match="labels are text, 'cat' for one"):
        vci_jax.measure_arrays(FEATURES, np.sort(NAMES[LABELS]), classifier=np.ones((6, 4)))


REPORT = vci_jax.measure_arrays(FEATURES[:30], LABELS[:30])


def test_a_report_is_a_dictionary_in_the_order_of_the_metrics():
    """And remains one through copies, files and what people do with dictionaries."""
    assert next(iter(REPORT)) == "vci"
    known = [name for name in REPORT if name in METRICS]
    assert known == [name for name in METRICS if name in REPORT]
    assert list(REPORT)[: len(known)] == known
    assert REPORT.vci == REPORT["vci"] == dict(REPORT)["vci"]
    assert "vci" in dir(REPORT)
    assert pickle.loads(pickle.dumps(REPORT)) == REPORT
    assert (REPORT | {"epoch": 3})["epoch"] == 3
    assert json.loads(REPORT.to_json())["vci"] == REPORT.vci
    assert json.loads(json.dumps(REPORT))["vci"] == REPORT.vci
    copied = REPORT.to_dict()
    copied["spectrum"]["total"].clear()
    assert REPORT["spectrum"]["total"]
    with pytest.raises(AttributeError, match="no self_duality: it needs head"):
        REPORT.self_duality
    with pytest.raises(AttributeError, match="no vcj"):
        REPORT.vcj


def test_caveats_stand_beside_the_numbers_they_concern():
    (small,) = [caveat for caveat in REPORT.caveats if caveat.code == "small_sample"]
    assert small.message in REPORT["warnings"]
    text, number = repr(REPORT), REPORT.caveats.index(small) + 1
    (line,) = [line for line in text.splitlines() if line.startswith("  vci  ")]
    assert line.endswith(f"[{number}]")
    (line,) = [line for line in text.splitlines() if line.startswith("  cosine_similarity")]
    assert "[" not in line
    assert f"  [{number}] 30 samples" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "less collapse (larger vci) went with better transfer" in " ".join(text.split())
    html = REPORT._repr_html_()
    assert html.count("<tr>") == 1 + sum(name in REPORT for name in METRICS if name != "spectrum")
    assert small.message in html


def test_json_has_no_nan():
    report = vci_jax.measure_arrays(FEATURES, ONE_CLASS)
    assert math.isnan(report.vci)
    assert json.loads(report.to_json())["vci"] is None
    assert "undefined" in repr(report)


def test_scalars_are_floats_under_flat_names():
    scalars = REPORT.scalars("test/")
    assert all(type(value) is float for value in scalars.values())
    assert scalars["test/vci"] == REPORT.vci
    assert [scalars[f"test/vci_interval/{end}"] for end in ("low", "high")] == REPORT.vci_interval
    assert not any("spectrum" in name for name in scalars)


def test_pandas_and_matplotlib_are_asked_for_when_needed(monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = REPORT.to_pandas()
    assert frame.loc["vci", "value"] == REPORT.vci
    assert frame.loc["vci_adjusted", ["low", "high"]].tolist() == REPORT.vci_interval
    assert isinstance(frame, pandas.DataFrame)
    import matplotlib as mpl

    mpl.use("agg")
    axes = REPORT.plot()
    assert len(axes.lines) == 2
    with pytest.raises(VCIError, match="draws the spectrum"):
        vci_jax.measure_arrays(FEATURES, LABELS, metrics=["vci"]).plot()
    for module, use in (("pandas", REPORT.to_pandas), ("matplotlib.pyplot", REPORT.plot)):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(ImportError, match=f"pip install {module.partition('.')[0]}"):
            use()


def test_report_says_where_arrays_belong():
    with pytest.raises(VCIError, match="measure_arrays"):
        vci_jax.report(FEATURES)


def test_metrics_say_everything_once():
    """Every number of a report has its row, and every row the words that tables print."""
    head = np.ones((6, 4))
    report = vci_jax.measure_arrays(FEATURES, LABELS, classifier=head)
    facts = {"samples", "classes", "dim", "kept_rank", "between_rank", "label_out_of_range",
             "non_finite", "logits_non_finite", "weighting", "caveats", "warnings"}  # fmt: skip
    assert report.keys() == METRICS.keys() | facts
    for key, metric in METRICS.items():
        assert metric.key == key
        assert len(metric.description) <= 28
        assert metric.title
        assert metric.source
        low, high = metric.range
        if isinstance(report[key], float):
            assert low <= report[key] <= high, key
    with pytest.raises(TypeError):
        METRICS["mine"] = METRICS["vci"]


def test_directions_and_invariances_hold():
    """Features pulled towards their class means go the way METRICS says; maps change nothing."""
    means = np.stack([FEATURES[LABELS == k].mean(axis=0) for k in range(4)])[LABELS]
    plain = vci_jax.measure_arrays(FEATURES, LABELS)
    tight = vci_jax.measure_arrays(means + 0.5 * (FEATURES - means), LABELS)
    rng = np.random.default_rng(2)
    moved = {
        "linear": FEATURES @ rng.normal(size=(6, 6)),
        "rotation": FEATURES @ np.linalg.qr(rng.normal(size=(6, 6)))[0],
        "scale": 1000 * FEATURES,
        "translation": FEATURES + 5 * rng.normal(size=6),
    }
    reports = {name: vci_jax.measure_arrays(h, LABELS) for name, h in moved.items()}
    for key, metric in METRICS.items():
        if key not in plain or not isinstance(plain[key], float):
            continue
        if metric.direction and "NC2" not in metric.title:
            assert (tight[key] < plain[key]) == (metric.direction == "smaller"), key
        for name, report in reports.items():
            same = report[key] == pytest.approx(plain[key], rel=1e-7)
            assert same == (name in metric.invariances), (key, name)


def test_many_rows_are_cut_into_batches():
    """More rows than one batch holds, in one block, give what the reference does."""
    features, labels = gaussian_classes(3, 9000, 3, 2)
    expected = reference.metrics(features, labels)["vci"]
    assert vci_jax.vci(features, labels) == pytest.approx(expected, rel=1e-9)
    assert jax.config.jax_enable_x64 is False


def test_the_probe_is_there_when_it_is_asked_for():
    script = """if True:
        import sys, vci_jax
        assert "vci_jax.probe" not in sys.modules
        assert vci_jax.probe.fit_path is sys.modules["vci_jax.probe"].fit_path
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
