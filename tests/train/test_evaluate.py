"""What a metrics pass leaves besides the rows: intervals, classes, curves, and the machine."""

import json
import platform
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from tensorboardX.proto.event_pb2 import Event

import vci_jax
from train import evaluate, loop, writer
from train.workdir import record_start
from vci_jax import picture
from vci_jax.monitor import deal

K, D, N = 4, 6, 200
DEAL = jax.jit(deal)
UPDATE = jax.jit(vci_jax.update)


def _data(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, K, N)).astype(np.int32)  # By class, as in folders.
    features = rng.normal(size=(K, D))[labels] + rng.normal(size=(N, D))
    return features.astype(np.float32), labels


@pytest.mark.parametrize("batch_size", [200, 64, 37])
def test_blocks_hold_the_data_once(batch_size):
    """Dealt to 16 blocks, in batches of any size, the metrics are those of one state."""
    features, labels = _data()
    blocks = evaluate.init_tally(K, {"features": D}, 16).moments["features"]
    for start in range(0, N, batch_size):
        rows = slice(start, start + batch_size)
        lacking = batch_size - len(labels[rows])
        mask = np.pad(np.ones(len(labels[rows])), (0, lacking))
        padded = np.pad(features[rows], [(0, lacking), (0, 0)], constant_values=np.nan)
        blocks = DEAL(blocks, padded, np.pad(labels[rows], (0, lacking)), mask)
    whole = vci_jax.update(vci_jax.init(K, D), features, labels)
    expected, actual = vci_jax.report(whole), vci_jax.report(blocks)
    assert actual["samples"] == N
    for name in ("vci", "vci_adjusted", "fuzziness", "squared_distance", "cosine_similarity"):
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, err_msg=name)
    low, high = actual["vci_interval"]
    assert low < actual["vci_adjusted"] < high


def test_every_block_has_its_share_of_each_class():
    """Although the data come sorted: row r goes to block r mod B, one class never to one block."""
    features, labels = _data()
    blocks = evaluate.init_tally(K, {"features": D}, 8).moments["features"]
    blocks = DEAL(blocks, features, labels, np.ones(N))
    shares = np.bincount(labels, minlength=K) / 8
    assert np.all(np.abs(np.asarray(blocks.count) - shares) < 1)


def test_devices_keep_blocks_apart():
    """Merging the tallies of two devices leaves as many blocks as each had, with both's data."""
    features, labels = _data()
    layers = {"features": D, "early": D}
    tallies = [evaluate.init_tally(K, layers, 4) for _ in range(2)]
    tallies = [
        t._replace(
            moments=t.moments
            | {
                "features": DEAL(
                    t.moments["features"], features[half], labels[half], np.ones(N // 2)
                ),
                "early": UPDATE(t.moments["early"], features[half], labels[half]),
            }
        )
        for t, half in zip(tallies, (slice(0, N // 2), slice(N // 2, N)), strict=True)
    ]
    merged = evaluate.merge(jax.tree.map(lambda *leaves: jnp.stack(leaves), *tallies))
    assert merged.moments["features"].count.shape == (4, K)
    assert merged.moments["early"].count.shape == (K,)
    expected = vci_jax.report(vci_jax.update(vci_jax.init(K, D), features, labels))
    whole = vci_jax.merge_axis(merged.moments["features"])
    for moments in (whole, merged.moments["early"]):
        np.testing.assert_allclose(vci_jax.report(moments)["vci"], expected["vci"], rtol=1e-5)


ROW = {"step": 3, "epoch": 1, "split": "train", "accuracy": 0.5, "vci": 0.25, "samples": 7}


def test_classes_go_to_a_file_of_their_own(tmp_path):
    """The last record's, with null for what is not finite; the rows do not have them."""
    with writer.MetricWriter(tmp_path, last_step=-1) as journal:
        for step in (3, 6):
            row = ROW | {"step": step, "per_class": {"count": [step, 0], "variance": [0.1, np.nan]}}
            journal.write([row, row | {"split": "test"}])
        assert "per_class" not in journal.rows[-1]
    assert "per_class" not in (tmp_path / "metrics.jsonl").read_text()
    record = json.loads((tmp_path / "per_class.json").read_text())
    table = {"count": [6, 0], "variance": [0.1, None]}
    assert record == {"step": 6, "epoch": 1, "train": table, "test": table}


def _events(folder):
    """Yields (tag, step, value) of every scalar in the event files of a folder."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event = Event.FromString(data[12 : 12 + length])
            yield from ((v.tag, event.step, v.simple_value) for v in event.summary.value)
            data = data[16 + length :]


def test_tensorboard_has_the_curves_of_the_rows(tmp_path):
    """Every number of the rows that is a curve, and the ends of the intervals, in float32."""
    rows = [
        ROW | {"step": s, "split": split, "vci": s / 10, "vci_interval": [0.1, 0.3], "seconds": 1.0}
        for s in (3, 6)
        for split in ("train", "test")
    ]
    rows[-1] |= {"vci_interval": [None, None], "vci": None}
    with writer.MetricWriter(tmp_path, last_step=-1) as journal:
        journal.write(rows[:2])
        journal.write(rows[2:])
    expected = {
        (f"{row['split']}/{name}", row["step"], np.float32(value))
        for row in rows
        for name, value in {
            "accuracy": row["accuracy"],
            "vci": row["vci"],
            "vci_interval/low": row["vci_interval"][0],
            "vci_interval/high": row["vci_interval"][1],
        }.items()
        if value is not None
    }
    assert {(t, s, np.float32(v)) for t, s, v in _events(tmp_path / "tensorboard")} == expected


def test_each_start_is_noted(tmp_path):
    """With the machine and the versions, but no name of a host; a damaged file begins anew."""
    record_start(tmp_path, step=0)
    record_start(tmp_path, step=18)
    entries = json.loads((tmp_path / "run.json").read_text())
    assert [entry["step"] for entry in entries] == [0, 18]
    assert entries[0]["versions"]["jax"] == jax.__version__
    assert (entries[0]["platform"], entries[0]["devices"]) == ("cpu", jax.device_count())
    assert platform.node() not in {str(v) for entry in entries for v in entry.values()}
    (tmp_path / "run.json").write_text("[{")
    record_start(tmp_path, step=4)
    assert len(json.loads((tmp_path / "run.json").read_text())) == 1


def test_the_plane_is_that_of_least_squares():
    """Against NumPy on the rows themselves; VCI 0 puts every image into the corner of its class."""
    features, labels = _data()
    features += 30
    blocks = evaluate.init_tally(K, {"features": D}, 4).moments["features"]
    plane = picture.fit_plane(DEAL(blocks, features, labels, np.ones(N)))
    design = np.column_stack([features, np.ones(N)])
    expected = design @ np.linalg.lstsq(design, picture.corners(K)[labels])[0]
    drawn = picture.draw(plane, features, labels, np.arange(N) > 0)
    np.testing.assert_allclose([drawn["x"], drawn["y"]], expected[1:].T, atol=2e-3)
    assert drawn["label"] == labels[1:].tolist()
    collapsed = np.eye(K, D, dtype=np.float32)[labels]
    plane = picture.fit_plane(DEAL(blocks, collapsed, labels, np.ones(N)))
    points = collapsed @ plane.kernel + plane.bias
    np.testing.assert_allclose(points, picture.corners(K)[labels], atol=1e-5)


def test_pictures_are_of_the_same_images_at_every_record(tmp_path):
    """A line for each split and record, with its labels; classes have names and accuracies."""
    config = tiny_run.tiny_config(epochs=2)
    loop.train(config, tmp_path / "run", tiny_run.console())
    lines = (tmp_path / "run" / "pictures.jsonl").read_text().splitlines()
    pictures = [json.loads(line) for line in lines]
    assert [(p["epoch"], p["split"]) for p in pictures] == [
        (epoch, split) for epoch in range(3) for split in ("train", "test")
    ]
    assert {len(p[key]) for p in pictures for key in ("label", "x", "y")} == {256}
    assert pictures[0]["label"] == pictures[2]["label"]
    assert min(pictures[0]["label"]) == 0
    classes = json.loads((tmp_path / "run" / "per_class.json").read_text())["test"]
    assert classes["name"] == [str(digit) for digit in range(10)]
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    average = np.average(classes["accuracy"], weights=classes["count"])
    assert average == pytest.approx(row["accuracy"], abs=1e-5)
    assert not {"per_class", "picture", "plane"} & set(row)
