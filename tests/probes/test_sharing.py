"""Two real processes of ``python -m probes``: the features of one, and an end whatever happens."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image
from probed_run import make_run
from processes import free_port

from probes.transfer import sharing
from train import processes
from train.config import ConfigError, MeshConfig
from train.errors import ProcessLostError

ROOT = pathlib.Path(__file__).parents[2]
LOST = "another process of the run has ended"

# A network of Python that notes which images it was given, and takes its time.
NETWORK = """
import hashlib, os, time
import numpy as np

def encode(images):
    time.sleep(float(os.environ.get("SECONDS_A_BATCH", "0")))
    with open(f"seen{os.environ.get('JAX_PROCESS_ID', '')}", "a") as file:
        file.writelines(hashlib.md5(image.tobytes()).hexdigest() + "\\n" for image in images)
    small = images.astype(np.float32).reshape(len(images), 4, 2, 4, 2, 3).mean(axis=(2, 4))
    return small.reshape(len(images), -1)

encode.image_size = encode.resize = 8
encode.name = "small"
"""


def start(arguments, log, cwd=None, devices=1, **variables):
    paths = os.pathsep.join([str(ROOT), str(cwd or ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_NUM_CPU_DEVICES": str(devices)}
    with open(log, "wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "probes", *map(str, arguments)],
            env=environment | variables,
            stdout=stream,
            stderr=stream,
            cwd=cwd,
        )


def together(commands, tmp_path, cwds=(None, None), devices=1, late=0.0, **variables):
    """Two processes of one command, by default with the same words in the same directory."""
    address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    started = []
    for index, (command, cwd) in enumerate(zip(commands, cwds, strict=True)):
        time.sleep(late * index)
        started.append(
            start(
                [*command, "--mesh.distributed"],
                tmp_path / f"log{index}",
                cwd,
                devices,
                JAX_PROCESS_ID=str(index),
                **address,
                **variables,
            )
        )
    return started


def ended(started, tmp_path, seconds=60):
    """The exit codes of processes that must end by themselves, and what they said."""
    try:
        codes = [process.wait(seconds) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    said = [" ".join((tmp_path / f"log{index}").read_text().split()) for index in range(2)]
    assert "Traceback" not in "".join(said), said
    return codes, said


def alone(arguments, log, cwd=None, devices=1, **variables):
    process = start(arguments, log, cwd, devices, **variables)
    assert process.wait(200) == 0, log.read_text()


def kept(root):
    """The arrays of all directories of features below a folder."""
    names = ("features", "labels", "logits")
    return {
        f"{path.parent.name} {name}": np.load(path.parent / f"{name}.npy")
        for path in sorted(root.glob("**/meta.json"))
        for name in names
        if (path.parent / f"{name}.npy").exists()
    }


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert expected
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name


def photos(folder, classes=2, count=13):
    """A folder of images that all differ."""
    rng = np.random.default_rng(classes)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(count):
            low = 60 * label
            pixels = rng.integers(low, low + 70, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.png")


@pytest.fixture
def place(tmp_path):
    """A directory with images and the network of Python."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "network.py").write_text(NETWORK)
    photos(place / "photos")
    return place


# 26 images: 21 to train on, in shards of 5, which two processes cannot share equally.
FEATURES = ("features", "python:network:encode", "--data", "folder:photos")
SMALL = (*FEATURES, "--batch-size", "2", "--shard-rows", "5")


# --- what a process says to the others -------------------------------------------------------


def test_a_single_process_agrees_with_itself():
    assert processes.texts("grüße") == ["grüße"]
    assert processes.gather(np.arange(3)).tolist() == [[0, 1, 2]]
    processes.same({"weights": "a"})
    with pytest.raises(OSError, match="full"), processes.agreed():
        raise OSError("full")
    assert processes.leave(3) == 3
    assert processes.is_first()


def test_a_share_of_one_process_is_the_whole():
    def own(rows):
        return np.arange(rows.start, rows.stop)[:, None] / 2, np.arange(rows.start, rows.stop)

    features, labels = sharing.share(own, range(3, 8))
    assert labels.tolist() == [3, 4, 5, 6, 7]
    assert features.tolist() == [[1.5], [2], [2.5], [3], [3.5]]


def test_the_model_axis_is_refused():
    with pytest.raises(ConfigError, match=r"--mesh.model is 2: the probes"):
        sharing.join(MeshConfig(model=2), "features", ["a"], MeshConfig())


def test_what_libraries_say_of_a_lost_process_is_explained(monkeypatch):
    with pytest.raises(ValueError, match="Gloo"), processes.explained():
        raise ValueError("Gloo AllGather failed")  # In a single process there is none to lose.
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ProcessLostError, match=LOST), processes.explained():
        raise ValueError("Gloo AllGather failed: Connection reset by peer")
    with pytest.raises(ValueError, match="shapes"), processes.explained():
        raise ValueError("shapes differ")


# --- equal results ---------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_compute_the_features_of_one(tmp_path):
    """To the bit where a forward pass has as many rows, two a device; else up to rounding.

    437 of the 1437 rows are the last shard, so no shard is shared equally.
    """
    for name in ("same", "other", "two"):
        make_run(tmp_path / name / "run", steps=(0, 3))
    options = ["--data", "digits", "--shard-rows", "500", "--batch-size"]
    alone(["features", tmp_path / "same" / "run", *options, "50"], tmp_path / "log", devices=2)
    alone(["features", tmp_path / "other" / "run", *options, "100"], tmp_path / "log", devices=2)
    command = ["features", tmp_path / "two" / "run", *options, "100"]
    codes, said = ended(together([command, command], tmp_path, devices=2), tmp_path, 200)
    assert codes == [0, 0], said
    found = kept(tmp_path / "two")
    assert_equal(found, kept(tmp_path / "same"))
    for name, values in kept(tmp_path / "other").items():
        limit = 1e-6 * np.abs(values).max()
        np.testing.assert_allclose(found[name], values, atol=limit, err_msg=name)
    assert "digits: train" in said[0]
    assert "digits: train" not in said[1]


@pytest.mark.slow
def test_each_image_is_read_by_one_process(place, tmp_path):
    """By any function; a second command computes nothing, whoever asks."""
    alone([*SMALL, "--out", "alone"], tmp_path / "log", place)
    single = (place / "seen").read_text().split()
    codes, said = ended(together([SMALL, SMALL], tmp_path, (place, place)), tmp_path, 200)
    assert codes == [0, 0], said
    seen = [(place / f"seen{index}").read_text().split() for index in range(2)]
    blank = set(seen[0][:2])  # The two black images of the trial, and padding.
    shares = [set(part) - blank for part in seen]
    # The last shard is a single row, of which the other process needs to know the form.
    assert len(shares[0] & shares[1]) == 1
    assert shares[0] | shares[1] == set(single) - blank
    assert len(shares[0] | shares[1]) == 26
    assert min(map(len, shares)) > 26 / 3
    assert_equal(kept(place / "probes-out"), kept(place / "alone"))
    codes, said = ended(together([SMALL, SMALL], tmp_path, (place, place)), tmp_path, 200)
    assert codes == [0, 0], said
    again = [(place / f"seen{index}").read_text().split() for index in range(2)]
    assert all(set(now[len(before) :]) == blank for now, before in zip(again, seen, strict=True))


@pytest.mark.slow
def test_scores_and_rankings_are_those_of_one_process(place, tmp_path):
    """And files of features, which cannot be shared, are ranked by the first process."""
    np.savez(place / "made.npz", features=np.eye(26)[:, :9], labels=np.repeat([0, 1], 13))
    commands = {
        "transfer": ["transfer", "python:network:encode", "--data", "folder:photos"],
        "rank": ["rank", "python:network:encode", "features:made.npz", "--data", "folder:photos"],
    }
    commands["rank"] += ["--no-curve"]
    results = {}
    for name, command in commands.items():
        alone([*command, "--out", "alone"], tmp_path / "log", place)
        shared = [*command, "--out", "two"]
        codes, said = ended(together([shared, shared], tmp_path, (place, place)), tmp_path, 200)
        assert codes == [0, 0], said
        file = {"transfer": "small/transfer.jsonl", "rank": "ranking.json"}[name]
        results[name] = [json.loads((place / out / file).read_text()) for out in ("alone", "two")]
    for result in results["rank"]:
        for model in result["models"]:
            del model["seconds"]
    for name, (expected, found) in results.items():
        times = ("feature_seconds", "probe_seconds")
        expected, found = (
            {key: value for key, value in result.items() if key not in times}
            for result in (expected, found)
        )
        assert found == expected, name
    assert [model["model"] for model in results["rank"][1]["models"]].count("small") == 1
    assert len(results["rank"][1]["models"]) == 2


# --- failures --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_one_of_two_processes_is_killed(killed, place, tmp_path):
    """The other ends within a minute and says why; the next command computes what is missing."""
    alone([*SMALL, "--out", "alone"], tmp_path / "log", place)
    started = together([SMALL, SMALL], tmp_path, (place, place), SECONDS_A_BATCH="0.5")
    deadline = time.monotonic() + 60
    while not list(place.glob("probes-out/**/progress.json")) and time.monotonic() < deadline:
        assert not any(process.poll() for process in started)
        time.sleep(0.02)
    started[killed].kill()
    codes, said = ended(started, tmp_path)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 75, said
    assert f"error: {LOST}" in said[1 - killed]
    (progress,) = place.glob("probes-out/**/progress.json")
    rows = json.loads(progress.read_text())["shards"][-1][0]
    assert rows >= 5
    before = sum(len((place / f"seen{index}").read_text().split()) for index in range(2))
    codes, said = ended(together([SMALL, SMALL], tmp_path, (place, place)), tmp_path, 200)
    assert codes == [0, 0], said
    after = sum(len((place / f"seen{index}").read_text().split()) for index in range(2))
    assert after - before <= 2 * 2 * 2 + 2 * (26 - rows), "trials, and what is missing, padded"
    assert_equal(kept(place / "probes-out"), kept(place / "alone"))


@pytest.mark.slow
def test_a_process_that_falls_silent_ends_the_other(place, tmp_path):
    """As a host does that is lost: its connections stay open, and nobody hears from it."""
    started = together([SMALL, SMALL], tmp_path, (place, place), SECONDS_A_BATCH="0.5")
    try:
        deadline = time.monotonic() + 60
        while not list(place.glob("probes-out/**/progress.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        started[1].send_signal(signal.SIGSTOP)
        code = started[0].wait(60)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert code == 75
    assert f"error: {LOST}" in (tmp_path / "log0").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weights", "models", "out", "classes", "image"])
def test_processes_that_differ_end(kind, place, tmp_path):
    """Both, with the same sentence, before anything is computed or written."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "network.py").write_text(NETWORK)
    photos(other / "photos", classes=3 if kind == "classes" else 2)
    commands = [list(SMALL), list(SMALL)]
    if kind == "weights":
        for seed, cwd in enumerate((place, other)):
            make_run(cwd / "run", seed=seed)
        commands = [["features", "run", "--data", "digits"]] * 2
    elif kind == "models":
        commands[1].insert(2, "deit_s=none.pth")
    elif kind == "out":
        commands[1] += ["--out", "elsewhere"]
    elif kind == "image":
        Image.new("RGB", (8, 8), "red").save(other / "photos" / "class0" / "0.png")
    codes, said = ended(together(commands, tmp_path, (place, other)), tmp_path)
    code = 2 if kind in ("models", "out") else 1
    assert codes == [code, code], said
    name = {
        "weights": "the network of run is",
        "models": "the list of models is",
        "out": "--out is '' in process 0 and 'elsewhere' in process 1",
        "classes": "the number of classes of folder:photos is 2 in process 0 and 3 in process 1",
        "image": "the digest of the images of folder:photos is",
    }[kind]
    assert all(f"the processes of the run differ: {name}" in text for text in said), said
    for cwd in (place, other):
        assert not list(cwd.glob("**/features.npy"))


@pytest.mark.slow
def test_what_one_process_cannot_read_ends_both(place, tmp_path):
    """An image that is broken where one process reads; the same images once it is mended."""
    path = place / "photos" / "class1" / "0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    codes, said = ended(together([SMALL, SMALL], tmp_path, (place, place)), tmp_path)
    assert codes == [1, 1], said
    assert all("class1/0.png" in text for text in said)
    path.write_bytes(whole)
    codes, said = ended(together([SMALL, SMALL], tmp_path, (place, place)), tmp_path)
    assert codes == [0, 0], said


@pytest.mark.slow
def test_a_process_may_come_late_but_not_too_late(place, tmp_path):
    pair = together([SMALL, SMALL], tmp_path, (place, place), late=10.0)
    codes, said = ended(pair, tmp_path, 200)
    assert codes == [0, 0], said
    pair = together([[*SMALL, "--mesh.wait", "3"]] * 2, tmp_path, (place, place), late=25.0)
    codes, said = ended(pair, tmp_path)
    assert codes == [75, 75], said
    assert all("did not find each other within --mesh.wait" in text for text in said)


@pytest.mark.slow
@pytest.mark.parametrize("request_", [signal.SIGINT, signal.SIGTERM])
def test_requests_end_both(request_, place, tmp_path):
    """Ctrl-C ends with 130 and SIGTERM by itself, as in one process; the other is told."""
    started = together([SMALL, SMALL], tmp_path, (place, place), SECONDS_A_BATCH="0.5")
    deadline = time.monotonic() + 60
    while not list(place.glob("probes-out/**/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    started[1].send_signal(request_)
    codes, said = ended(started, tmp_path)
    assert codes == [75, 130 if request_ == signal.SIGINT else -signal.SIGTERM], said
    assert f"error: {LOST}" in said[0]


@pytest.mark.slow
def test_a_directory_in_use_ends_both(place, tmp_path):
    """By one process of another command."""
    first = start(SMALL, tmp_path / "log", place, SECONDS_A_BATCH="3")
    try:
        deadline = time.monotonic() + 60
        while not list(place.glob("probes-out/**/lock")) and time.monotonic() < deadline:
            time.sleep(0.02)
        codes, said = ended(together([SMALL, SMALL], tmp_path, (place, place)), tmp_path)
    finally:
        first.kill()
        first.wait()
    assert codes == [1, 1], said
    assert all("is computing the features in" in text for text in said)
