"""``python -m vci_jax FILE`` as a person types it."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import reference
from reference import gaussian_classes

import vci_jax
from vci_jax import METRICS, _formats, cli, files, progress
from vci_jax.probe import selection

FEATURES, LABELS = gaussian_classes(11, 300, 4, 6)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def file(tmp_path):
    return save(tmp_path / "features.npz", features=FEATURES, labels=LABELS)


def run(capsys, *arguments):
    code = cli.main(arguments)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_json_is_one_object_with_the_reference_values(file, capsys):
    code, out, err = run(capsys, file, "--json")
    result = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    for name, value in reference.metrics(FEATURES, LABELS).items():
        np.testing.assert_allclose(result[name], value, rtol=1e-9, err_msg=name)
    assert result["vci_interval"][0] < result["vci_adjusted"] < result["vci_interval"][1]


def test_table_shows_every_metric(file, capsys):
    code, out, _ = run(capsys, file)
    value = reference.metrics(FEATURES, LABELS)["vci"]
    assert code == 0
    assert "300 samples, 4 classes, 6 dimensions (rank 6)" in out
    assert f"{value:.6g}" in out
    assert "variability collapse index" in out
    shown = {line.split()[0] for line in out.splitlines() if line.startswith("  ")}
    report = vci_jax.measure_arrays(FEATURES, LABELS)
    assert shown >= {key for key in METRICS if key in report and key != "spectrum"}
    assert "more collapsed when smaller" in out
    assert "went with better" in out


def test_classifier_gives_nc3_and_nc4(tmp_path, capsys):
    """NC4 by loops over the samples; logits, if given, win over the head."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.standard_normal((6, 4)), rng.standard_normal(4)
    path = save(
        tmp_path / "head.npz", features=FEATURES, labels=LABELS, head_kernel=kernel, head_bias=bias
    )
    result = json.loads(run(capsys, path, "--json", "--blocks", "1")[1])
    means = [FEATURES[LABELS == k].mean(axis=0) for k in range(4)]
    agree = [
        np.argmin([np.sum((h - m) ** 2) for m in means]) == np.argmax(h @ kernel + bias)
        for h in FEATURES
    ]
    assert 0 < np.mean(agree) < 1
    assert result["ncc_agreement"] == np.mean(agree)
    assert 0 < result["self_duality"] <= 2
    assert "vci_interval" not in result
    path = save(tmp_path / "logits.npz", features=FEATURES, labels=LABELS, head_kernel=kernel,
                logits=np.eye(4)[LABELS])  # fmt: skip
    nearest = np.mean([np.argmin([np.sum((h - m) ** 2) for m in means]) == y
                       for h, y in zip(FEATURES, LABELS, strict=True)])  # fmt: skip
    assert json.loads(run(capsys, path, "--json", "--blocks", "1")[1])["ncc_agreement"] == nearest


def test_class_weighting_needs_nothing_more(tmp_path, capsys):
    labels = np.minimum(np.random.default_rng(0).geometric(0.5, 300) - 1, 3)
    path = save(tmp_path / "skew.npz", features=FEATURES, labels=labels)
    result = json.loads(run(capsys, path, "--json", "--weighting", "class")[1])
    expected = reference.metrics(FEATURES, labels, "class")
    for name in ("vci", "fuzziness", "probe_mse"):
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-9, err_msg=name)


def test_undefined_values_are_null_and_explained(tmp_path, capsys):
    path = save(tmp_path / "one.npz", features=FEATURES, labels=np.zeros(300, int))
    code, out, _ = run(capsys, path, "--json")
    assert code == 0
    assert json.loads(out)["vci"] is None
    assert "Only one class" in json.loads(out)["warnings"][0]
    assert "undefined" in run(capsys, path)[1]


BAD = np.where(np.arange(300)[:, None] < 7, np.nan, FEATURES)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": FEATURES, "b": FEATURES, "c": LABELS},
         "several arrays that may be the features; it holds a [300, 6], b [300, 6], c [300]"),
        ({"features": FEATURES}, "has no array 'labels'"),
        ({"features": BAD, "labels": LABELS}, "7 of 300 rows of features hold NaN or infinity"),
        ({"features": FEATURES, "labels": LABELS - 2}, "75 labels are negative, the first is -2"),
        ({"features": FEATURES, "labels": 0 * LABELS - 100}, "all 300 rows have the label -1 or"),
        ({"features": FEATURES, "labels": LABELS, "logits": np.ones((300, 3))},
         "75 labels lie outside 0 .. 2"),
        ({"features": FEATURES, "labels": LABELS + 2**40, "head_kernel": np.ones((6, 4))},
         "300 labels lie outside 0 .. 3"),
        ({"features": FEATURES * 1j, "labels": LABELS}, "must be real numbers, got complex"),
        ({"features": FEATURES.astype(str), "labels": LABELS}, "must be real numbers, got <"),
        ({"features": FEATURES.astype(ml_dtypes.bfloat16), "labels": LABELS}, "save float32"),
        ({"features": FEATURES, "labels": LABELS, "logits": np.ones((300, 4)) * 1j},
         "logits must be real numbers, got complex128"),
        ({"features": FEATURES, "labels": LABELS, "logits": np.ones(300)}, "must be a matrix"),
        ({"features": FEATURES, "labels": LABELS, "head_bias": np.ones(4)}, "without head_kernel"),
        ({"features": FEATURES, "labels": LABELS, "head_kernel": np.full((6, 4), np.nan)},
         "kernel holds NaN or infinity in 24 of 24 entries"),
        ({"features": FEATURES, "labels": LABELS, "head_kernel": np.ones((6, 4)),
          "head_bias": np.array([np.inf, 0, 0, 0])}, "bias holds NaN or infinity in 1 of 4"),
        ({"features": FEATURES, "labels": LABELS / 2}, "labels are real numbers, 0.5 in row"),
        ({"features": FEATURES[:5], "labels": LABELS}, "labels have shape [300] for 5 rows"),
        ({"features": FEATURES[:, None], "labels": LABELS}, "features must be [N, D], one vector"),
        ({"features": FEATURES, "labels": LABELS, "head_kernel": np.ones((5, 4))}, "= [6, 4]"),
        ({"features": np.array([{}], object), "labels": LABELS}, "Python objects"),
    ],
)  # fmt: skip
def test_bad_files_are_named_and_refused(tmp_path, capsys, arrays, words):
    path = save(tmp_path / "bad.npz", **arrays)
    code, out, err = run(capsys, path)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def without_notes(result):
    skipped = ("caveats", "warnings", "label_out_of_range", "spectrum", "vci_interval")
    return {name: value for name, value in result.items() if name not in skipped}


def agrees(result, expected, rtol=1e-9):
    assert result.keys() == expected.keys()
    for name, value in without_notes(expected).items():
        if isinstance(value, float):
            np.testing.assert_allclose(result[name], value, rtol=rtol, atol=1e-12, err_msg=name)
        else:
            assert result[name] == value, name


def measured(arrays):
    return cli._measure("file", arrays, "sample", 1)


@pytest.mark.parametrize("mark", [-1, -100])
def test_rows_without_a_label_are_left_out_and_counted(tmp_path, capsys, mark):
    """Whatever their features hold, with and without a classifier; the count is in the caveat."""
    kernel = np.random.default_rng(1).standard_normal((6, 4))
    for classifier in ({}, {"head_kernel": kernel}):
        some = {"features": FEATURES[8:], "labels": LABELS[8:], **classifier}
        expected = measured(some)
        features, labels = FEATURES.copy(), LABELS.copy()
        features[:8], labels[:8] = np.nan, mark
        path = save(tmp_path / "some.npz", features=features, labels=labels, **classifier)
        result = json.loads(run(capsys, path, "--json", "--blocks", "1")[1])
        agrees(result, expected)
        assert (result["label_out_of_range"], result["samples"]) == (8, 292)
        (caveat,) = [c for c in result["caveats"] if c["code"] == "label_out_of_range"]
        assert caveat["message"].startswith("8 rows")


def test_logits_that_are_not_finite_are_counted_and_named():
    logits = np.eye(4)[LABELS]
    logits[:5, 0], logits[5, 1] = np.nan, -np.inf
    arrays = {"features": FEATURES, "labels": LABELS, "logits": logits}
    result = measured(arrays)
    means = np.stack([FEATURES[LABELS == k].mean(axis=0) for k in range(4)])
    nearest = np.argmin(np.sum((FEATURES[:, None] - means) ** 2, axis=2), axis=1)
    assert result["ncc_agreement"] == np.mean((nearest == LABELS)[6:])
    assert result["logits_non_finite"] == 6
    (caveat,) = [c for c in result["caveats"] if c["code"] == "logits_non_finite"]
    assert caveat["metrics"] == ["ncc_agreement"]
    assert caveat["message"] in result["warnings"]
    assert "6 rows" in repr(result)
    assert measured(arrays | {"logits": np.eye(4)[LABELS]})["logits_non_finite"] == 0


@pytest.mark.parametrize("kind", [">f4", ">f8", "g", ">i8", "f2", "u1"])
def test_every_dtype_is_read(tmp_path, kind):
    """From a file and as arrays: features, labels, logits and head in another byte order."""
    features = np.clip(np.round(3 * FEATURES + 20), 0, 60)
    rng = np.random.default_rng(1)
    rest = {
        "head_kernel": np.round(5 * rng.random((6, 4))),
        "logits": np.round(9 * rng.random((300, 4))),
    }
    expected = measured({"features": features, "labels": LABELS, **rest})
    arrays = {"features": features, **rest}
    arrays = {name: array.astype(kind) for name, array in arrays.items()} | {
        "labels": LABELS.astype(">i4")
    }
    agrees(measured(arrays), expected, rtol=1e-7)
    agrees(measured(files.read_arrays(save(tmp_path / "a.npz", **arrays))), expected, 1e-7)
    assert arrays["labels"].dtype == ">i4"  # what is given stays as it is


def test_several_files_are_compared(tmp_path, file, capsys):
    """A table of differences, or one JSON object; files of other samples are refused."""
    rng = np.random.default_rng(0)
    noisy = save(tmp_path / "noisy.npz", features=FEATURES + rng.normal(size=FEATURES.shape),
                 labels=LABELS)  # fmt: skip
    code, out, _ = run(capsys, file, noisy)
    assert code == 0
    assert f"{file} is more collapsed" in out
    values = json.loads(run(capsys, file, noisy, "--json")[1])
    assert list(values["sets"]) == [file, noisy]
    alone = json.loads(run(capsys, file, "--json")[1])
    assert values["sets"][file] == alone
    assert values["differences"][0]["difference"] < 0
    others = save(tmp_path / "others.npz", features=FEATURES, labels=LABELS[::-1])
    for arguments, words in (
        ((file, others), "have other labels"),
        ((file, file), "the same file twice"),
        ((file, noisy, "--blocks", "1"), "at least 2"),
        ((file, str(tmp_path / "none.npz")), "no such file"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert words in err


def test_files_of_another_kind(tmp_path, capsys):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", FEATURES)
    for name, words in {
        "none.npz": "no such file",
        "torn.npz": "not a readable npz",
        "text.npz": "not a readable npz",
        "one.npy": "no labels beside it",
    }.items():
        code, _, err = run(capsys, str(tmp_path / name))
        assert code == 2
        assert words in err


def test_as_a_process_without_a_traceback(file):
    """The command itself: exit codes, and no framework but jax in the process."""
    script = (
        "import sys, vci_jax, vci_jax.cli\n"
        "heavy = {'flax', 'tensorflow', 'matplotlib', 'optax', 'orbax', 'grain', 'torch'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    command = [sys.executable, "-m", "vci_jax"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    options = {"capture_output": True, "text": True, "env": environment, "check": False}
    good = subprocess.run([*command, file, "--json", "--blocks", "1"], **options)
    assert good.returncode == 0, good.stderr
    assert 0 < json.loads(good.stdout)["vci"] < 1
    bad = subprocess.run([*command, "none.npz"], **options)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "vci_jax: none.npz: no such file.\n"


def test_csv_has_a_row_for_each_file(tmp_path, file, capsys):
    """One file or several, in the same columns and with all digits."""
    labels = np.where(LABELS == 3, 0, LABELS)
    np.savetxt(tmp_path / "b.csv", np.column_stack([2 * FEATURES, LABELS]), delimiter=",")
    save(tmp_path / "one.npz", features=FEATURES, labels=0 * labels)
    alone = list(csv.DictReader(io.StringIO(run(capsys, file, "--csv")[1])))
    both = list(csv.DictReader(io.StringIO(run(capsys, file, str(tmp_path / "b.csv"), "--csv")[1])))
    assert [row["file"] for row in both] == [file, str(tmp_path / "b.csv")]
    assert both[0] == alone[0]
    report = vci_jax.measure_arrays(FEATURES, LABELS, blocks=10)
    for name, value in report.scalars().items():
        assert float(alone[0][name]) == value
    assert float(both[1]["vci"]) == pytest.approx(report.vci, rel=1e-9)
    undefined = run(capsys, str(tmp_path / "one.npz"), "--csv")[1]
    assert "nan" in undefined


def test_keys_name_the_arrays(tmp_path, capsys):
    path = save(tmp_path / "a.npz", first=FEATURES, second=2 * FEATURES, species=LABELS)
    assert run(capsys, path)[0] == 2
    code, out, _ = run(capsys, path, "--features", "second", "--labels", "species", "--json")
    assert code == 0
    assert json.loads(out)["vci"] == pytest.approx(
        vci_jax.measure_arrays(2 * FEATURES, LABELS).vci, rel=1e-12
    )


def test_options_may_stand_between_files(tmp_path, file, capsys):
    other = save(tmp_path / "b.npz", features=FEATURES + 1, labels=LABELS)
    code, out, _ = run(capsys, file, "--json", other)
    assert code == 0
    assert list(json.loads(out)["sets"]) == [file, other]


def test_metrics_are_listed(capsys):
    """A line each, with its direction, within 80 columns."""
    code, out, _ = run(capsys, "--metrics")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    for key, metric in METRICS.items():
        (line,) = [line for line in out.splitlines() if line[4:].partition(" ")[0] == key]
        assert metric.description in line
        assert line[2] == {"smaller": "v", "larger": "^", "": " "}[metric.direction]


def test_help_and_version(capsys):
    """Help has an example of each use, and fits a terminal of 80 columns."""
    for arguments in (["--help"], ["probe", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    for part in ("vci features.npz", "vci probe TRAIN TEST", "--features KEY", "Exit codes", ".h5"):
        assert part in out
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"vci_jax {vci_jax.__version__}\n"
    for arguments in ([], ["a.npz", "--json", "--csv"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 2


def test_progress_is_shown_on_a_terminal_alone(file, capsys, monkeypatch):
    """One line, which is gone at the end; nothing in a pipe."""
    assert run(capsys, file, "--blocks", "1")[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, out, err = run(capsys, file, "--blocks", "1")
    assert f"measuring {file} ..." in err
    assert err.endswith("\r\x1b[K")
    assert "\x1b" not in out
    assert "\n" not in err


def written(folder, kind):
    """A file in pieces, whose reading can be followed."""
    features, labels = gaussian_classes(1, 600, 3, 4)
    path = folder / f"a.{kind}"
    if kind == "npz":
        np.savez_compressed(path, features=features, labels=labels)
    if kind == "csv":
        np.savetxt(path, np.column_stack([features, labels]), delimiter=",", fmt="%.17g")
    if kind == "h5":
        with pytest.importorskip("h5py").File(path, "w") as hdf:
            hdf.create_dataset("features", data=features, chunks=(50, 2))
            hdf["labels"] = labels
    if kind == "parquet":
        table = {"features": features.tolist(), "labels": labels}
        arrow, library = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
        library.write_table(arrow.table(table), path, row_group_size=100)
    return str(path)


@pytest.mark.parametrize("kind", ["npz", "csv", "h5", "parquet"])
def test_progress_shows_the_share_that_is_done(tmp_path, capsys, monkeypatch, kind):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0)
    monkeypatch.setattr(_formats, "_PIECE", 3000)
    path = written(tmp_path, kind)
    code, _, err = run(capsys, path, "--blocks", "4")
    assert code == 0
    for action in ("reading", "checking", "measuring"):
        shares = [int(share) for share in re.findall(rf"{action} \S+ (\d+) % \.\.\.", err)]
        assert shares[-1] == 100
        assert len(set(shares)) > 1 or action == "checking" or kind == "npz"
    assert f"computing the metrics of {path} ..." in err
    _, _, err = run(capsys, path, written(tmp_path, "csv" if kind != "csv" else "npz"))
    assert "(2 of 2) 100 % ..." in err


def test_progress_tells_the_time_left(capsys, monkeypatch):
    """A quarter in 15 s leaves 45; a long name is cut, not what is left."""
    seconds = iter([0.0, 15.0, 15.1, 30.0, 31.0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(progress, "_width", lambda: 40)
    progress.begin("reading", "a/very/long/path/to/some/features.csv")
    for done in (1, 2, 3):
        progress.advance("reading", done, 4)
    progress.end()
    lines = capsys.readouterr().err.split("\r\x1b[K")[1:]
    assert [line[-20:] for line in lines[1:3]] == [" 25 %, 45 s left ...", " 75 %, 10 s left ..."]
    assert max(map(len, lines)) == 39
    assert lines[-1] == ""
    progress.advance("reading", 4, 4)
    assert capsys.readouterr().err == ""


def test_probe(tmp_path, capsys):
    """Four clouds: the accuracy that a loop over the test rows finds, and its binomial error."""
    rng = np.random.default_rng(0)
    paths = []
    for name, size in (("train", 160), ("test", 80)):
        labels = np.arange(size) % 4
        rows = rng.normal(size=(size, 5)) + 2 * np.eye(4, 5)[labels]
        words = np.array(["a", "b", "c", "d"])[labels]
        paths.append(save(tmp_path / f"{name}.npz", features=rows, labels=words))
    code, out, err = run(capsys, "probe", *paths, "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    train, test = (selection.Samples(*vci_jax.read_features(path)) for path in paths)
    codes = [np.unique(split.labels, return_inverse=True)[1] for split in (train, test)]
    best = selection.sweep(*(s._replace(labels=c) for s, c in zip((train, test), codes,
                             strict=True)))  # fmt: skip
    predicted = [np.argmax(row @ best.fit.kernel + best.fit.bias) for row in test.features]
    share = np.mean(np.array(predicted) == codes[1])
    assert 0.5 < share < 1
    assert result["accuracy"] == share
    assert result["standard_error"] == pytest.approx(np.sqrt(share * (1 - share) / 80))
    assert (result["penalty"], result["num_classes"]) == (best.value, 4)
    code, out, _ = run(capsys, "probe", *paths)
    assert f"{share:.4f} +- {result['standard_error']:.4f}" in out
    numbers = save(tmp_path / "numbers.npz", features=test.features, labels=codes[1])
    for second, words in ((numbers, "others numbers"), ("none.npz", "no such file")):
        code, out, err = run(capsys, "probe", paths[0], second)
        assert (code, out) == (2, "")
        assert words in err


def process(*arguments, **options):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    return subprocess.Popen([sys.executable, "-m", "vci_jax", *arguments], **pipes | options)


def test_a_closed_pipe_ends_it_in_silence(file):
    """As ``vci f.npz | head -1`` may: killed by SIGPIPE, like other programs."""
    reader, writer = os.pipe()
    os.close(reader)
    with process(file, "--blocks", "1", stdout=writer) as running:
        os.close(writer)
        assert running.stderr.read() == b""
    assert running.returncode == -signal.SIGPIPE


def test_ctrl_c_ends_it_with_130(tmp_path):
    """While a file is read that never ends."""
    os.mkfifo(tmp_path / "slow.csv")
    running = process(str(tmp_path / "slow.csv"))
    with running, open(tmp_path / "slow.csv", "wb", buffering=0):  # Waits until it is read.
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == b"interrupted.\n"
    assert running.returncode == 130


def test_the_published_features_to_1e9(resnet20, capsys):
    """Every value of the data's own documentation, the command line as the judge sees it."""
    result = json.loads(run(capsys, str(resnet20["path"]), "--json")[1])
    expected = {
        "vci": 0.301204280625, "fuzziness": 0.495592642358,
        "squared_distance": 0.574297429295, "cosine_similarity": 0.854874460485,
        "class_separation": 0.650567863090, "within_between_part": 8.309222076384,
        "within_orthogonal_part": 3.603634840221, "probe_mse": 0.135541926281,
        "ncc_agreement": 0.9730,
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=1e-9, err_msg=name)
