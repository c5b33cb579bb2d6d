"""Being asked to end, damaged checkpoints, a loss beyond repair, other devices: nothing is lost."""

import dataclasses
import os
import pathlib
import shutil
import signal
import sys

import jax
import numpy as np
import pytest
import tiny_run
from tiny_run import STEPS_PER_EPOCH

from train import checkpoint, loop, program
from train import mesh as meshes
from train.config import CheckpointConfig, ConfigError, EvalConfig, LogConfig, MeshConfig
from train.errors import DamagedRunError, Diverged, Preempted
from train.preemption import Guard, PreemptionHandler
from train.step import TrainState


@pytest.fixture(scope="module")
def config():
    return tiny_run.tiny_config(epochs=3, checkpoint=CheckpointConfig(every_epochs=1, keep=3))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The work directory of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    loop.train(config, workdir, tiny_run.console())
    return workdir


def steps_of(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def terminate_at(monkeypatch, module, name, call):
    """Sends SIGTERM to this process before the given call of a function."""
    function, calls = getattr(module, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)


# --- asked to end -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "call", "saved_at", "recorded"),
    [
        (loop.program, "build", 1, 0, 0),  # before anything compiles
        (loop, "_record", 1, 0, 0),  # in the metrics pass before the first step
        (loop, "_show_step", 5, 6, 1),  # while it trains
        (loop, "_record", 2, STEPS_PER_EPOCH, 1),  # in a metrics pass
        (loop.MetricWriter, "write", 2, STEPS_PER_EPOCH, 2),  # behind it
        (checkpoint, "save", 1, STEPS_PER_EPOCH + 1, 2),  # while it saves
        (loop, "_record", 4, 3 * STEPS_PER_EPOCH, 3),  # in the very last pass
    ],
)
def test_a_run_that_is_asked_to_end_saves_and_goes_on(
    config, whole, tmp_path, monkeypatch, module, name, call, saved_at, recorded
):
    """At the step it is at, be it in training, a metrics pass or a save; then bit for bit."""
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        terminate_at(patch, module, name, call)
        with pytest.raises(Preempted, match=f"saved at step {saved_at} of 27"):
            loop.train(config, tmp_path, tiny_run.console())
    assert signal.getsignal(signal.SIGTERM) is before
    assert steps_of(tmp_path)[-1] == saved_at
    assert len(tiny_run.rows(tmp_path)) == 2 * recorded
    loop.train(config, tmp_path, tiny_run.console())
    assert tiny_run.rows(tmp_path) == tiny_run.rows(whole)
    monkeypatch.setattr(loop, "_record", lambda *unused, **also: pytest.fail("measured again"))
    loop.train(config, tmp_path, tiny_run.console())


def test_being_asked_twice_is_being_asked_once():
    with PreemptionHandler() as stopping:
        assert not stopping.now()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.now()


# --- damaged checkpoints ----------------------------------------------------------------------


def copy_of(whole, tmp_path):
    return pathlib.Path(shutil.copytree(whole, tmp_path / "copy"))


def contents(folder):
    """The files with the numbers: which of them the reader needs is Orbax's affair."""
    return [path for path in folder.rglob("d/*") if path.is_file()]


def tear(folder):
    for path in contents(folder):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(folder):
    for path in contents(folder):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


def exchange(folder):
    """Numbers that can be read, but are those of another step."""
    shutil.rmtree(folder / "state")
    shutil.copytree(folder.parent / "9" / "state", folder / "state")


def empty(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize("damage", [tear, flip_a_bit, exchange, empty])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(config, whole, tmp_path, damage):
    """It says so, keeps the damaged one aside, and ends with the same numbers."""
    workdir, terminal = copy_of(whole, tmp_path), tiny_run.console()
    damage(workdir / "checkpoints" / "27")
    loop.train(config, workdir, terminal)
    said = " ".join(terminal.file.getvalue().split())
    assert "The checkpoint of step 27 is damaged (" in said
    assert "going back to step 18" in said
    assert (workdir / "checkpoints" / "broken" / "27_0").exists()
    assert tiny_run.rows(workdir) == tiny_run.rows(whole)
    assert steps_of(workdir) == steps_of(whole)


def test_if_no_checkpoint_is_whole_nothing_is_touched(config, whole, tmp_path):
    """A program that cannot read its own checkpoints must not begin again over them."""
    workdir = copy_of(whole, tmp_path)
    steps = steps_of(workdir)
    for step in steps:
        tear(workdir / "checkpoints" / str(step))
    with pytest.raises(
        DamagedRunError, match=r"no checkpoint .* can be read:\n  step 27: .*\n  step"
    ):
        loop.train(config, workdir, tiny_run.console())
    assert steps_of(workdir) == steps
    assert tiny_run.rows(workdir) == tiny_run.rows(whole)


def test_the_fingerprint_sees_one_bit_an_exchange_and_another_place():
    """And it is the same on any number of devices."""
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(8, 4)).astype("f4"), "b": rng.normal(size=(8, 4)).astype("f4")}
    inspect = jax.jit(checkpoint.inspect)

    def fingerprint(**changes):
        return int(inspect(TrainState(np.int32(3), arrays | changes, {}, (), {}))[0])

    def changed(edit):
        copy = arrays["a"].copy()
        edit(copy)
        return copy

    seen = [
        fingerprint(),
        fingerprint(a=changed(lambda x: x.view("u4").__setitem__((3, 2), x.view("u4")[3, 2] ^ 1))),
        fingerprint(a=changed(lambda x: x.__setitem__([0, 5], x[[5, 0]]))),
        fingerprint(a=arrays["b"], b=arrays["a"]),
    ]
    assert len(set(seen)) == 4
    mesh = meshes.make_mesh(MeshConfig(model=jax.device_count()))
    parts = jax.device_put(arrays["a"], jax.NamedSharding(mesh, jax.P("model")))
    assert fingerprint(a=parts) == seen[0]
    assert not inspect(TrainState(np.int32(3), {"a": np.float32(np.nan)}, {}, (), {}))[1]


# --- which stay -------------------------------------------------------------------------------


def test_the_best_and_every_nth_stay(tmp_path, monkeypatch):
    """Besides the latest; the best by a metric of the test split, an undefined one last."""
    config = CheckpointConfig(
        keep=1, keep_every_epochs=4, keep_best=2, best="vci", best_is="lowest"
    )
    state = TrainState(np.int32(0), {"w": np.ones(3, "f4")}, {}, (), {})
    values = {1: 0.5, 2: 0.1, 3: 0.4, 4: None, 5: 0.2, 6: 0.3}
    with checkpoint.open_manager(tmp_path / "c", config, steps_per_epoch=1) as manager:
        for step, vci in values.items():
            metrics = checkpoint.selection_metric({"vci": vci, "step": step}, config)
            notes = checkpoint.Notes({}, 1.0)
            checkpoint.save(manager, state, notes, step=step, fingerprint=0, metrics=metrics)
        manager.wait_until_finished()
        assert list(manager.all_steps()) == [2, 4, 5, 6]


# --- beyond repair ----------------------------------------------------------------------------


def test_a_loss_far_above_the_first_stops_the_run():
    """Against the first batch of the run, which a resumed run still knows."""
    guard = Guard(max_loss=10, lr=0.5)
    for step, loss in enumerate((2.3, 0.1, 22.9), start=1):
        guard.check(step, loss)
    with pytest.raises(Diverged, match=r"loss is 23.1, over --log.max_loss 10 .* 2.3, at step 4"):
        Guard(max_loss=10, lr=0.5, first=guard.first).check(4, 23.1)
    Guard(max_loss=0, lr=0.5, first=2.3).check(4, 1e9)
    with pytest.raises(Diverged, match=r"the loss is nan at step 7: .*--optim.lr \(it is 0.5\)"):
        guard.check(7, float("nan"))


def test_weights_that_are_not_finite_are_not_saved(config, tmp_path, monkeypatch):
    """The loss of a batch is from before its update: it may be the last that is finite."""
    build = program.build

    def poisoned(*args, **kwargs):
        built = build(*args, **kwargs)

        def step(state, batch):
            state, scalars = built.train_step(state, batch)
            bad = state.step == 2 * STEPS_PER_EPOCH
            params = jax.tree.map(lambda x: jax.numpy.where(bad, np.nan, x), state.params)
            return state._replace(params=params), scalars

        return built._replace(train_step=step)

    monkeypatch.setattr(program, "build", poisoned)
    with pytest.raises(Diverged, match="the weights are no longer finite at step 18"):
        loop.train(config, tmp_path, tiny_run.console())
    assert steps_of(tmp_path) == [STEPS_PER_EPOCH]


# --- other devices ----------------------------------------------------------------------------


def losses_of(config, devices, monkeypatch, steps=6):
    """The losses of the first steps on so many devices; each makes what rounding left five-fold."""
    make = meshes.make_mesh
    with monkeypatch.context() as patch:
        patch.setattr(meshes, "make_mesh", lambda c: make(c, jax.devices()[:devices]))
        run = loop.prepare(config)
    state = run.program.init_state(jax.random.key(0))
    batches = loop.data.training_batches(run.dataset.train, config.data, 0)
    losses = []
    for _ in range(steps):
        batch = meshes.put_batch(next(batches), run.mesh)
        state, scalars = run.program.train_step(state, batch)
        losses.append(float(scalars["loss"]))
    batches.close()
    measured = loop.measure(run, state, run.dataset.test)
    return losses, measured, state


def test_the_losses_do_not_depend_on_the_devices(config, monkeypatch):
    """One, eight with a copy each, and eight in pairs or all together that share one copy."""
    monkeypatch.setattr(meshes, "_SMALL", 256)
    expected, measured, _ = losses_of(config, 1, monkeypatch)
    assert expected[-1] < expected[0]
    for model in (1, 2, 8):
        shared = dataclasses.replace(config, mesh=MeshConfig(model=model))
        losses, row, state = losses_of(shared, 8, monkeypatch)
        np.testing.assert_allclose(losses, expected, rtol=1e-5, err_msg=str(model))
        np.testing.assert_allclose(row["loss"], measured["loss"], rtol=1e-4)
        np.testing.assert_allclose(row["vci"], measured["vci"], rtol=1e-3)
        divided = [leaf for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated]
        assert bool(divided) == (model > 1)
        assert all(leaf.addressable_data(0).size == leaf.size // model for leaf in divided)


def test_a_run_goes_on_on_other_devices(config, whole, tmp_path, monkeypatch):
    """Saved by eight devices with a copy each, gone on with by two that share one."""
    workdir = copy_of(whole, tmp_path)
    for step in (18, 27):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    make = meshes.make_mesh
    monkeypatch.setattr(meshes, "make_mesh", lambda c: make(c, jax.devices()[:2]))
    terminal = tiny_run.console()
    loop.train(dataclasses.replace(config, mesh=MeshConfig(model=2)), workdir, terminal)
    assert "Resuming from step 9 of 27" in terminal.file.getvalue()
    expected, actual = tiny_run.rows(whole), tiny_run.rows(workdir)
    assert actual[:4] == expected[:4]
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-3)


def test_no_collective_in_the_program_of_a_metrics_batch(config):
    """Each device has its own tally; the weights are brought together once, before the pass."""
    run = loop.prepare(dataclasses.replace(config, mesh=MeshConfig(model=2)))
    batch = meshes.put_batch(
        next(loop.data.evaluation_batches(run.dataset.test, config.data, 200, 200)), run.mesh
    )
    state = run.program.gather(run.program.init_state(jax.random.key(0)))
    compiled = run.program.add_batch.lower(run.program.init_tally(), state, batch).compile()
    words = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
    assert not [word for word in words if word in compiled.as_text()]


def test_a_model_axis_that_does_not_divide_the_devices_is_refused():
    with pytest.raises(ConfigError, match=r"--mesh.model is 3, .* 8 devices; use one of 1, 2, 4"):
        meshes.make_mesh(MeshConfig(model=3), jax.devices()[:8])


# --- what else a run can be asked for ---------------------------------------------------------


def test_layers_a_profile_and_weights_and_biases(config, tmp_path, monkeypatch):
    """Every depth in the rows and on the curves, a trace on disk, the rows sent on."""
    sent, begun = [], []
    fake = type("W", (), {"log": lambda self, v: sent.append(v), "finish": lambda self: None})
    module = type("M", (), {"init": staticmethod(lambda **s: begun.append(s) or fake())})
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_API_KEY", "0")
    asked = dataclasses.replace(
        config,
        epochs=2,
        eval=EvalConfig(every_epochs=2, batch_size=200, layers=True),
        log=LogConfig(profile_steps=2, wandb="project"),
    )
    loop.train(asked, tmp_path, tiny_run.console())
    for row in tiny_run.rows(tmp_path):
        assert list(row["layers"]) == ["stem", "stage1_block1"]
        assert all(0 <= layer["vci"] <= 1 for layer in row["layers"].values())
        assert row["layers"]["stem"]["vci"] != row["vci"]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert {"train/vci", "test/stem/vci", "step"} <= sent[0].keys() | sent[1].keys()
    loop.train(asked, tmp_path, tiny_run.console())
    assert begun[0]["id"] == begun[1]["id"], "a resumed run goes on with its curves"
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pip install 'vci_jax\[wandb\]'"):
        loop.open_wandb("project", tmp_path, {})


def test_where_a_run_is_computed_may_change(config, whole):
    """Other threads and devices go on with a run; other settings that count do not."""
    elsewhere = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, threads=0),
        log=LogConfig(every_steps=3),
        mesh=MeshConfig(model=2),
    )
    assert loop.train(elsewhere, pathlib.Path(whole), tiny_run.console())
    saving = CheckpointConfig(every_epochs=2, every_steps=5, keep=1, keep_best=1, best="loss")
    oftener = dataclasses.replace(config, checkpoint=saving)
    assert loop.train(oftener, pathlib.Path(whole), tiny_run.console())
    other = dataclasses.replace(config, eval=EvalConfig(every_epochs=2))
    with pytest.raises(ConfigError, match=r"eval.every_epochs: 1 there, 2 now"):
        loop.train(other, pathlib.Path(whole), tiny_run.console())
