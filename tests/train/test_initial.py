"""Runs that start from weights: of public checkpoints, and of other runs."""

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
import tiny_run
from processes import free_port
from weight_files import drawn, small_networks, write_safetensors

import vci_jax
from probes import encoders
from probes.encoders.config import TransferConfig
from train import __main__ as entry
from train import initial, loop
from train import mesh as meshes
from train.config import ConfigError, DataConfig, MeshConfig, ModelConfig, OptimConfig
from train.models import public
from train.workdir import claim

ROOT = pathlib.Path(__file__).parents[2]
SOURCE, STEPS = "synthetic:288x32x5", 2


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    monkeypatch.setattr(public, "NETWORKS", small_networks())


def make(init, model="_resnet6", source=SOURCE, **changes):
    """Three epochs of two steps, from weights."""
    settings = {
        "data": DataConfig(source=source, batch_size=144),
        "model": ModelConfig(name=model),
        "optim": OptimConfig(lr=0.02, warmup_epochs=1, ema=0.9),
        "epochs": 3,
        "init": init,
    }
    return tiny_run.tiny_config(**(settings | changes))


def write(path, word="resnet6", **options):
    """Returns ``--init`` of a new file."""
    return f"{word}={write_safetensors(path, drawn(word, **options))}"


def before(config):
    """The run, and its state before the first step."""
    run = loop.prepare(config)
    weights = initial.load(config, run.program.shapes, run.dataset.image_shape, run.mesh)
    state = run.program.init_state(jax.random.key(config.seed))
    return run, initial.begin(state, weights), weights


def features_of(run, state):
    batch = {
        "image": run.dataset.test.records.images[:64],
        "label": np.zeros(64, np.int32),
        "mask": np.ones(64, bool),
    }
    batch = meshes.put_batch(batch, run.mesh)
    return run.program.features(run.program.gather(state), batch)[0], batch["image"]


@pytest.mark.parametrize("word", ["resnet6", "vit_nano"])
def test_the_first_row_measures_the_features_of_the_encoder(word, tmp_path, monkeypatch):
    """Of the same file, by the other program; statistics of BatchNorm and positions included."""
    init = write(tmp_path / "w.safetensors", word)
    encoder = encoders.load(init, TransferConfig(out=str(tmp_path / "out")))
    name = public.NETWORKS[word][1]
    data = DataConfig(source=SOURCE, batch_size=144, mean=encoder.data.mean, std=encoder.data.std)
    config = make(init, name, data=data)
    run, state, _ = before(config)
    ours, images = features_of(run, state)
    theirs = encoder.features(images)
    assert np.asarray(ours).std() > 0.01
    np.testing.assert_allclose(ours, theirs, atol=1e-5)

    class Enough(Exception):
        pass

    def stop(*unused, **named):
        raise Enough

    monkeypatch.setattr(loop, "_show_step", stop)
    with pytest.raises(Enough):
        loop.train(config, tmp_path / "run", tiny_run.console())
    row = next(row for row in tiny_run.rows(tmp_path / "run") if row["split"] == "test")
    test = run.dataset.test.records
    outputs = encoder.outputs(meshes.put_batch({"image": test.images}, encoder.mesh)["image"])
    expected = vci_jax.measure_arrays(outputs.features, test.labels)
    for metric in ("vci", "fuzziness", "squared_distance", "cosine_similarity"):
        # A LayerNorm leaves one direction with nothing but rounding, and VCI counts directions.
        rtol = 1e-2 if (word, metric) == ("vit_nano", "vci") else 1e-3
        np.testing.assert_allclose(row[metric], expected[metric], rtol=rtol, err_msg=metric)
    correct = np.asarray(outputs.logits).argmax(-1) == test.labels
    assert row["accuracy"] == correct.mean()


def test_average_and_statistics_start_from_the_file(tmp_path):
    """And the optimiser from nothing."""
    init = write(tmp_path / "w.safetensors")
    _, state, weights = before(make(init))
    assert set(weights.variables) == {"params", "batch_stats"}
    chex.assert_trees_all_equal(jax.device_get(state.variables), weights.variables)
    chex.assert_trees_all_equal(jax.device_get(state.ema), weights.variables)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert moments
    assert not any(np.any(leaf) for leaf in moments)


@pytest.mark.parametrize(
    ("classes", "choice", "said"),
    [
        (5, "keep", "the head of 5 classes is kept."),
        (5, "new", "the head of 5 classes is replaced by a new one of 5."),
        (7, "keep", "the head of 7 classes is replaced by a new one of 5."),
        (0, "keep", "there is no head: a new one of 5 classes."),
    ],
)
def test_the_head_is_kept_where_it_fits(classes, choice, said, tmp_path):
    tensors = drawn("resnet6", classes=classes or 5)
    kernel = tensors["fc.weight"].T
    if not classes:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("fc.")}
    init = f"resnet6={write_safetensors(tmp_path / 'w.safetensors', tensors)}"
    config = make(init, init_head=choice)
    run, state, weights = before(config)
    drawn_head = run.program.init_state(jax.random.key(config.seed)).head[0]
    kept = "kept" in said
    assert weights.notes[0] == said
    assert weights.origin["head"] == ("kept" if kept else "new")
    np.testing.assert_array_equal(state.head[0], kernel if kept else drawn_head)
    average = state.ema["params"]["head"]["kernel"]
    np.testing.assert_array_equal(average, state.head[0])


def test_a_divided_state_has_the_same_numbers(tmp_path):
    """Each device gets its part, and the run computes what an undivided one does."""
    init = write(tmp_path / "w.safetensors")
    config = make(init)
    _, whole, _ = before(config)
    run, state, _ = before(dataclasses.replace(config, mesh=MeshConfig(model=4)))
    jax.tree.map(
        lambda leaf, shape: chex.assert_equal(leaf.sharding, shape.sharding),
        state,
        run.program.shapes,
    )
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(whole))


def test_weights_are_read_once_and_noted(tmp_path, monkeypatch):
    """A run that goes on needs no file, and ends in the uninterrupted run's rows, bit for bit."""
    path = tmp_path / "w.safetensors"
    config = make(write(path, classes=7))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    console = tiny_run.console()
    loop.train(config, whole, console)
    assert "the head of 7 classes is replaced by a new one of 5." in console.file.getvalue()
    noted = json.loads((whole / "run.json").read_text())[0]["init"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert noted == {
        "network": "resnet6", "file": "w.safetensors", "sha256": digest, "head": "new",
    }  # fmt: skip
    record = loop._record

    def stop(run, context, state, *, step, rate=None):
        if step == 3 * STEPS:
            raise KeyboardInterrupt
        return record(run, context, state, step=step, rate=rate)

    monkeypatch.setattr(loop, "_record", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, parts, tiny_run.console())
    monkeypatch.setattr(loop, "_record", record)
    path.unlink()
    with pytest.raises(ConfigError, match=r"init: 'resnet6=.*' there, 'resnet6=other' now"):
        loop.train(dataclasses.replace(config, init="resnet6=other"), parts, tiny_run.console())
    with pytest.raises(ConfigError, match=r"init: 'resnet6=.*' there, '' now"):
        loop.train(dataclasses.replace(config, init=""), parts, tiny_run.console())
    loop.inspect(config, parts, tiny_run.console())
    loop.train(config, parts, tiny_run.console())
    assert tiny_run.rows(parts) == tiny_run.rows(whole)
    starts = json.loads((parts / "run.json").read_text())
    assert [entry.get("init") for entry in starts] == [noted, None]


def test_before_the_first_checkpoint_the_file_must_be_the_same(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    config = make(write(path))

    def stop(*unused, **named):
        raise KeyboardInterrupt

    save = loop._save
    monkeypatch.setattr(loop, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path / "run", tiny_run.console())
    monkeypatch.setattr(loop, "_save", save)
    write_safetensors(path, drawn("resnet6", seed=1))
    with pytest.raises(ConfigError, match=r"are not those that the run in .* began with"):
        loop.train(config, tmp_path / "run", tiny_run.console())
    write_safetensors(path, drawn("resnet6"))
    loop.train(config, tmp_path / "run", tiny_run.console())


def test_a_run_starts_from_another(tmp_path):
    """From the weights that its encoder has, here averaged ones; to images of another size."""
    base = make("", "_vit_nano")
    base = dataclasses.replace(base, eval=dataclasses.replace(base.eval, averaged=True))
    loop.train(base, tmp_path / "first", tiny_run.console())
    run, state, weights = before(make(str(tmp_path / "first"), "_vit_nano"))
    assert weights.notes == (
        "the head of 5 classes is kept.",
        "the weights are the averaged ones, which that run measured.",
    )
    assert (weights.origin["run"], weights.origin["step"]) == ("first", 3 * STEPS)
    encoder = encoders.load(str(tmp_path / "first"), TransferConfig())
    ours, images = features_of(run, state)
    np.testing.assert_allclose(ours, encoder.features(images), atol=1e-5)
    larger = make(str(tmp_path / "first"), "_vit_nano", "synthetic:144x64x3")
    _, state, weights = before(larger)
    assert state.params["position"].shape == (17, 16)
    assert "positions" not in weights.notes[0]
    assert any("interpolated from 2 x 2 to 4 x 4" in note for note in weights.notes)


def test_positions_of_a_file_move_to_the_grid_of_the_images(tmp_path):
    init = write(tmp_path / "w.safetensors", "vit_nano", side=64)
    _, state, weights = before(make(init, "_vit_nano"))
    moved, note = public.move_positions(drawn("vit_nano", side=64)["pos_embed"][0], (4, 4), (2, 2))
    np.testing.assert_array_equal(state.params["position"], moved)
    assert note in weights.notes


MISTAKES = {
    "resnet6={}/none.pth": "No such file",
    "resnet6": "is resnet6, the name of a network. Wanted is a file",
    "resnet7={}/good.safetensors": "neither the directory of a run nor NAME=PATH",
    "{}/good.safetensors": "a file: say what it is, as in resnet50=",
    "{}/nowhere": "neither the directory of a run nor NAME=PATH",
    "{}/empty": "has no config.json",
    "{}/untrained": "has no checkpoint; train it first",
    "{}/vit_run": "Likely cause: that run has --model.name _vit_nano",
    "resnet6=gs://bucket/w.pth": "mount the bucket",
    "resnet18={}/good.safetensors": "set --model.name resnet18",
    "resnet6={}/vit.safetensors": "it is a vit_nano",
    "resnet6={}/narrow.safetensors": "a ResNet of another width",
    "resnet6={}/nan.safetensors": "64 NaN or infinite values in bn1.bias",
    "resnet6={}/cut.safetensors": "not a readable safetensors file",
    "resnet18={}/18.safetensors --model.name resnet18 --model.width 32": "for --model.width 64",
    "resnet18={}/18.safetensors --model.name resnet18 --model.stem cifar": "--model.stem imagenet",
    "resnet6={}/good.safetensors --data.source digits --data.mean 8 --data.std 4": "of three",
    " --init-head new": "no effect without --init",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files, good and bad, and directories of runs."""
    folder, patch = tmp_path_factory.mktemp("init"), pytest.MonkeyPatch()
    patch.setattr(public, "NETWORKS", small_networks())
    good = drawn("resnet6")
    write_safetensors(folder / "good.safetensors", good)
    write_safetensors(folder / "18.safetensors", drawn("resnet18"))
    write_safetensors(folder / "vit.safetensors", drawn("vit_nano"))
    narrow = {name: value[:3] for name, value in good.items()}
    write_safetensors(folder / "narrow.safetensors", narrow)
    bad = good | {"bn1.bias": np.full(64, np.nan, np.float32)}
    write_safetensors(folder / "nan.safetensors", bad)
    whole = (folder / "good.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "empty").mkdir()
    config = make("", "_vit_nano", epochs=2)
    loop.train(config, folder / "vit_run", tiny_run.console())
    claim(config, folder / "untrained")
    patch.undo()
    return folder


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_leaves_an_empty_directory(mistake, folder, tmp_path, monkeypatch, capsys):
    """Exit code 2 and at most ten lines, in the check as in the run."""
    config = make("")
    monkeypatch.setattr(entry.configs, "get", lambda name: config)
    init, *rest = mistake.split(" ")
    chosen = [f"--init={init.format(folder)}"] if init else []
    for arguments in (["check", "digits"], ["digits"]):
        assert entry.main([*arguments, str(tmp_path / "run"), *chosen, *rest]) == 2
        said = capsys.readouterr().err
        assert MISTAKES[mistake] in said
        assert said.startswith("error: ")
        assert len(said.strip().splitlines()) <= 10
        assert not list(tmp_path.iterdir())


def test_a_check_shows_the_weights(folder, tmp_path, monkeypatch, capsys):
    """And where the pixels are not scaled as those of their training."""
    config = make("", "_vit_nano")
    monkeypatch.setattr(entry.configs, "get", lambda name: config)
    init = f"vit_nano={folder / 'vit.safetensors'}"
    assert entry.main(["check", "digits", str(tmp_path / "run"), "--init", init]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"init {init}: the head of 5 classes is kept." in shown
    assert "trained with --data.mean 127.5 127.5 127.5 --data.std 127.5 127.5 127.5" in shown
    assert not list(tmp_path.iterdir())


def start(workdir, log, init, devices, **variables):
    """A process that trains the small ResNet for an epoch of two steps."""
    options = f"""--data.source synthetic:64x32x5 --data.batch_size 32 --data.crop none
    --data.crop-padding 0 --data.mean 120 120 120 --data.std 60 60 60 --model.name _resnet6
    --model.stem imagenet --model.width 64 --epochs 1 --optim.warmup-epochs 0 --mesh.model 2
    --init {init}"""
    command = [sys.executable, __file__, "digits", str(workdir), *options.split()]
    command += ["--mesh.distributed"] if variables else []
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": paths}
    with open(log, "wb") as stream:
        return subprocess.Popen(
            command, env=environment | variables, stdout=stream, stderr=stream, cwd=ROOT
        )


def together(workdir, logs, inits):
    """Two processes of two devices each, which are one run; their exit codes and what they said."""
    address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    processes = [
        start(workdir, log, init, 2, JAX_PROCESS_ID=str(index), **address)
        for index, (log, init) in enumerate(zip(logs, inits, strict=True))
    ]
    try:
        codes = [process.wait(200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return codes, [log.read_text() for log in logs]


@pytest.mark.slow
def test_two_processes_start_from_one_file(tmp_path):
    """With a divided state: the first rows are those of a single process."""
    init = write(tmp_path / "w.safetensors", "resnet6")
    logs = [tmp_path / f"log{index}" for index in range(2)]
    assert start(tmp_path / "one", logs[0], init, 4).wait(200) == 0, logs[0].read_text()
    codes, said = together(tmp_path / "two", logs, [init, init])
    assert codes == [0, 0], said
    rows, expected = (tiny_run.rows(tmp_path / name) for name in ("two", "one"))
    assert len(rows) == len(expected) == 4
    for row, other in zip(rows[:2], expected[:2], strict=True):
        assert row["accuracy"] == other["accuracy"]
        for metric in ("loss", "vci", "squared_distance", "cosine_similarity"):
            np.testing.assert_allclose(row[metric], other[metric], rtol=1e-4, err_msg=metric)
    # A run that was made by one process starts one of two.
    again = together(tmp_path / "next", logs, [str(tmp_path / "one")] * 2)
    assert again[0] == [0, 0], again[1]
    first = tiny_run.rows(tmp_path / "next")[0]
    np.testing.assert_allclose(first["vci"], expected[2]["vci"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["other", "missing"])
def test_two_processes_with_different_files_end(kind, tmp_path):
    """Both with exit code 2, before anything is written."""
    inits = [write(tmp_path / "a.safetensors", "resnet6"), f"resnet6={tmp_path}/none"]
    if kind == "other":
        inits[1] = write(tmp_path / "b.safetensors", "resnet6", seed=1)
    logs = [tmp_path / f"log{index}" for index in range(2)]
    codes, said = together(tmp_path / "run", logs, inits)
    assert codes == [2, 2], said
    assert "not every process of the run reads the same weights" in said[0]
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "run").exists()


if __name__ == "__main__":
    public.NETWORKS = small_networks()
    entry.program(sys.argv[1:])
