"""``Monitor``: rows of any training loop, which the rest of the project reads as its own."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import vci_jax
from probes.analysis import runs
from probes.page import render as page_of
from vci_jax import picture
from vci_jax.errors import VCIError

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = IMAGES[:600] / 16
LABELS = LABELS[:600]


def feed(monitor, split, features, labels, batch=100, **options):
    """In batches, as a loop has them."""
    for start in range(0, len(labels), batch):
        rows = slice(start, start + batch)
        given = {name: value[rows] for name, value in options.items()}
        part = (
            {name: value[rows] for name, value in features.items()}
            if isinstance(features, dict)
            else features[rows]
        )
        monitor.add(split, part, labels[rows], **given)


def row_of(features=IMAGES, labels=LABELS, **options):
    rows = []
    monitor = vci_jax.Monitor(10, write=rows.append)
    feed(monitor, "test", features, labels, **options)
    monitor.log(1)
    (row,) = rows
    return row


def test_a_row_has_what_measure_arrays_says():
    row = row_of()
    expected = vci_jax.measure_arrays(IMAGES, LABELS)
    for name in ("vci", "vci_adjusted", "fuzziness", "cosine_similarity", "class_separation"):
        np.testing.assert_allclose(row[name], expected[name], rtol=1e-4)
    low, high = row["vci_interval"]
    assert low < row["vci_adjusted"] < high
    assert (row["step"], row["epoch"], row["split"], row["samples"]) == (1, 1, "test", 600)


def test_accuracy_and_loss_are_those_of_the_logits_of_rows_that_count():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(600, 10)) + 2 * np.eye(10)[LABELS]
    labels, mask = LABELS.copy(), np.ones(600)
    labels[:30], mask[50:80] = -1, 0
    row = row_of(labels=labels, mask=mask, logits=logits)
    kept = (labels >= 0) & (mask > 0)
    exact = logits[kept] - np.log(np.exp(logits[kept]).sum(axis=1, keepdims=True))
    truth = labels[kept]
    assert row["accuracy"] == np.mean(exact.argmax(axis=1) == truth)
    np.testing.assert_allclose(row["loss"], -exact[np.arange(len(truth)), truth].mean(), rtol=1e-5)
    assert row["samples"] == kept.sum()


@pytest.mark.parametrize("name", ["features", "last"])
def test_the_features_have_every_metric_and_other_layers_a_few(name):
    layers = {"first": IMAGES**2, name: IMAGES}
    row, alone = row_of(layers), row_of()
    assert row["vci"] == alone["vci"]
    assert list(row["layers"]) == ["first"]
    np.testing.assert_allclose(row["layers"]["first"]["vci"], row_of(IMAGES**2)["vci"], rtol=1e-4)


def test_layers_that_are_not_wanted_are_not_measured():
    rows = []
    monitor = vci_jax.Monitor(10, layers=["b"], write=rows.append)
    feed(monitor, "test", {"a": IMAGES, "b": IMAGES**2, "features": IMAGES}, LABELS)
    monitor.log(1)
    assert "layers" not in rows[0]
    assert rows[0]["vci"] == row_of(IMAGES**2)["vci"]


@pytest.mark.parametrize("kind", ["jax", "list", "float64", "big-endian", "torch"])
def test_arrays_of_any_library(kind):
    make = {
        "jax": jnp.asarray,
        "list": lambda a: a.tolist(),
        "float64": np.asarray,
        "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    }
    if kind == "torch":
        torch = pytest.importorskip("torch", reason="needs torch, which is not installed")
        make["torch"] = torch.tensor
    rows = []
    monitor = vci_jax.Monitor(10, write=rows.append)
    monitor.add("test", make[kind](IMAGES), make[kind](LABELS))
    monitor.log(1)
    np.testing.assert_allclose(rows[0]["vci"], row_of()["vci"], rtol=1e-5)


def test_it_can_be_fed_inside_a_mesh():
    """Features that are divided among eight devices, as a data-parallel loop has them."""
    mesh = jax.make_mesh((8,), ("data",))
    spread = jax.device_put(IMAGES.astype(np.float32), jax.NamedSharding(mesh, jax.P("data")))
    rows = []
    monitor = vci_jax.Monitor(10, write=rows.append)
    for _ in range(2):
        monitor.add("test", spread, jnp.asarray(LABELS), logits=spread[:, :10])
    monitor.log(1)
    np.testing.assert_allclose(rows[0]["vci"], row_of()["vci"], rtol=1e-5)
    assert rows[0]["accuracy"] == np.mean(IMAGES[:, :10].argmax(axis=1) == LABELS)


def measured(path, epochs, scale=1.0):
    monitor = vci_jax.Monitor(10, every=2, write=path)
    for epoch in epochs:
        if monitor.due(epoch):
            for split, rows in (("train", slice(0, 400)), ("test", slice(400, 600))):
                feed(monitor, split, scale * IMAGES[rows] ** epoch, LABELS[rows],
                     logits=np.eye(10)[LABELS[rows]])  # fmt: skip
            monitor.log(epoch, step=10 * epoch)


def test_a_directory_is_a_run_to_the_rest_of_the_project(tmp_path):
    measured(tmp_path / "mine", range(1, 5))
    run = runs.read_run(tmp_path / "mine")
    assert [(row["epoch"], row["split"]) for row in run.rows] == [
        (2, "train"), (2, "test"), (4, "train"), (4, "test")
    ]  # fmt: skip
    classes = json.loads((tmp_path / "mine" / "per_class.json").read_text())
    assert classes["epoch"] == 4
    assert len(classes["test"]["squared_distance"]) == 10
    for command in (["report"], ["figures", "--out", str(tmp_path / "figures")]):
        done = subprocess.run(
            [sys.executable, "-m", "probes", command[0], str(tmp_path / "mine"), *command[1:]],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "VCI" in (tmp_path / "mine" / "report.html").read_text()
    assert list((tmp_path / "figures").glob("*.png"))


def test_a_resumed_training_replaces_the_rows_that_it_repeats(tmp_path):
    measured(tmp_path, range(1, 7))
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    measured(tmp_path, range(4, 5), scale=3.0)  # From the checkpoint of epoch 3.
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"]) for row in rows] == [(2, 20)] * 2 + [(4, 40)] * 2
    assert json.dumps(rows[0]) == before[0]
    assert not list(tmp_path.glob("*.partial"))


def test_splits_of_a_step_may_come_one_by_one(tmp_path):
    monitor = vci_jax.Monitor(10, write=tmp_path)
    for split in ("train", "test", "train"):
        feed(monitor, split, IMAGES, LABELS)
        monitor.log(3)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == ["test", "train"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pictures_show_the_same_samples_of_each_class(tmp_path):
    """However rows are shuffled or cut; in the plane of the train split, with names of classes."""
    names = [f"digit {k}" for k in range(10)]
    monitor = vci_jax.Monitor(10, write=tmp_path, class_names=names)
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=IMAGES.shape)  # No direction without variance.
    for epoch in (1, 2):
        order = rng.permutation(400)
        feed(monitor, "train", (IMAGES + noise)[order], LABELS[order], batch=100 // epoch)
        images, labels = np.vstack([IMAGES[:9], IMAGES[400:]]), np.append([-1] * 9, LABELS[400:])
        feed(monitor, "test", images, labels, logits=np.eye(10)[labels])
        monitor.log(epoch)
    pictures = lines(tmp_path / "pictures.jsonl")
    assert [(p["epoch"], p["split"]) for p in pictures] == [
        (1, "train"), (1, "test"), (2, "train"), (2, "test")
    ]  # fmt: skip
    assert pictures[0]["label"] == pictures[2]["label"] == sorted(pictures[0]["label"])
    most = np.minimum(np.bincount(LABELS[400:]), 25)
    np.testing.assert_array_equal(np.bincount(pictures[1]["label"]), most)
    train = np.column_stack([IMAGES + noise, np.ones(600)])[:400]
    fit = np.linalg.lstsq(train.astype(complex), np.exp(2j * np.pi * LABELS[:400] / 10))[0]
    rows = np.column_stack([IMAGES[400:], np.ones(200)])
    expected = np.concatenate([(rows @ fit)[LABELS[400:] == k][:25] for k in range(10)])
    drawn = np.array(pictures[1]["x"]) + 1j * np.array(pictures[1]["y"])
    np.testing.assert_allclose(drawn, expected, atol=5e-3)
    classes = json.loads((tmp_path / "per_class.json").read_text())
    assert classes["test"]["name"] == classes["train"]["name"] == names
    assert classes["test"]["accuracy"] == [1.0] * 10
    assert "accuracy" not in classes["train"]
    page = page_of.render([runs.read_run(tmp_path)], title="mine", refresh=0)
    assert "digit 3" in page


def test_pictures_of_a_resumed_training_begin_again_where_it_does(tmp_path):
    measured(tmp_path, range(1, 7))
    measured(tmp_path, range(4, 5))
    assert [row["epoch"] for row in lines(tmp_path / "pictures.jsonl")] == [2, 2, 4, 4]


def test_pictures_of_a_thousand_classes_show_one_sample_of_some():
    few = picture.no_samples(1000, 3)
    rows = np.arange(2100, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    labels = np.arange(2100) % 1000
    few = picture.keep(few, rows[:2000], labels[:2000], np.arange(2000) >= 1000)
    few = picture.keep(few, rows[2000:], labels[2000:])
    assert few.features.shape == (512, 1, 3)
    np.testing.assert_array_equal(few.features[:, 0, 0], 1000 + np.arange(512))


def test_more_entries_and_what_is_not_finite(tmp_path):
    monitor = vci_jax.Monitor(10, write=tmp_path)
    feed(monitor, "test", IMAGES, LABELS)
    reports = monitor.log(1, test={"loss": np.float32(0.25), "worst": float("inf")})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert (row["loss"], row["worst"]) == (0.25, None)
    assert reports["test"].vci == row["vci"]


def test_the_head_reaches_the_report():
    rows = []
    monitor = vci_jax.Monitor(10, write=rows.append)
    feed(monitor, "test", IMAGES, LABELS)
    kernel = np.random.default_rng(0).normal(size=(64, 10))
    monitor.log(1, head=(kernel, np.zeros(10)))
    expected = vci_jax.measure_arrays(IMAGES, LABELS, classifier=kernel, blocks=1)
    np.testing.assert_allclose(rows[0]["self_duality"], expected.self_duality, rtol=1e-4)


def test_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(VCIError, match="every must be at least 1, got 0"):
        vci_jax.Monitor(10, every=0)
    with pytest.raises(VCIError, match=r"layers is 'a'; pass a list of names, \['a'\]"):
        vci_jax.Monitor(10, layers="a")
    with pytest.raises(VCIError, match="2 names for num_classes=10: pass one for each"):
        vci_jax.Monitor(10, class_names=["a", "b"])
    monitor = vci_jax.Monitor(10)
    with pytest.raises(VCIError, match="No batch came since the last log"):
        monitor.log(1)
    with pytest.raises(VCIError, match=r"features must be \[N, D\], got shape \(600, 8, 8\)"):
        monitor.add("test", IMAGES.reshape(600, 8, 8), LABELS)
    monitor.add("test", IMAGES, LABELS)
    with pytest.raises(VCIError, match="test has the layers"):
        monitor.add("test", {"a": IMAGES}, LABELS)
    with pytest.raises(VCIError, match="every batch of test, or with none"):
        monitor.add("test", IMAGES, LABELS, logits=np.zeros((600, 10)))
    with pytest.raises(VCIError, match=r"logits must be \[N, 10\], got \(600, 3\)"):
        monitor.add("train", IMAGES, LABELS, logits=np.zeros((600, 3)))
    with pytest.raises(VCIError, match="valid: the splits are test, train"):
        monitor.log(1, valid={"loss": 1})
    with pytest.raises(VCIError, match="there is no layer b"):
        vci_jax.Monitor(10, layers=["b"]).add("test", {"a": IMAGES}, LABELS)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "test"}\n{"step"\n')
    with pytest.raises(VCIError, match="has a line that is no row"):
        vci_jax.Monitor(10, write=tmp_path)
