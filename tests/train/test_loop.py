"""The course of a run, on a network that compiles in seconds: records, resume, padding, devices."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from tiny_run import EPOCHS, STEPS_PER_EPOCH

from train import checkpoint, loop
from train.config import ConfigError, EvalConfig, LogConfig, OptimConfig
from train.errors import Diverged

_console, _rows = tiny_run.console, tiny_run.rows


@pytest.fixture(scope="module")
def config():
    """Five epochs of nine steps; metrics every epoch, a checkpoint every second."""
    return tiny_run.tiny_config()


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The work directory of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    loop.train(config, workdir, _console())
    return workdir


def _final_state(config, workdir):
    run = loop.prepare(config)
    with checkpoint.open_manager(workdir / "checkpoints", config.checkpoint, 9) as manager:
        state, _, step = checkpoint.restore(
            manager, run.program.shapes, run.program.inspect, say=pytest.fail
        )
    return state, step


def test_rows(whole):
    """A row per split at step 0, every epoch and the end, with metrics, and training works."""
    rows = _rows(whole)
    expected = [(e * STEPS_PER_EPOCH, e, s) for e in range(EPOCHS + 1) for s in ("train", "test")]
    assert [(row["step"], row["epoch"], row["split"]) for row in rows] == expected
    for row in rows:
        assert row["samples"] == {"train": 1437, "test": 360}[row["split"]]
        assert 0 <= row["vci"] <= 1
        assert {"fuzziness", "squared_distance", "cosine_similarity", "loss"} <= row.keys()
        assert len(row["spectrum"]["total"]) == 16
    assert rows[-2]["loss"] < rows[0]["loss"] / 2
    assert rows[-2]["accuracy"] > 0.5


def test_the_same_seed_gives_the_same_rows(config, whole, tmp_path):
    """Apart from timing fields, bit for bit."""
    loop.train(config, tmp_path / "again", _console())
    assert _rows(tmp_path / "again") == _rows(whole)


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_an_interrupted_run_ends_as_if_it_had_not_been(config, whole, tmp_path, monkeypatch, epoch):
    """Stopped before its first checkpoint, after rows that the checkpoint lacks, and before one.

    Rows and the final state, optimiser included, are those of the uninterrupted run bit for bit.
    """
    record = loop._record

    def stop(run, outputs, state, *, step, rate=None):
        if step == epoch * STEPS_PER_EPOCH:
            raise KeyboardInterrupt
        return record(run, outputs, state, step=step, rate=rate)

    monkeypatch.setattr(loop, "_record", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path, _console())
    monkeypatch.setattr(loop, "_record", record)
    assert len(_rows(tmp_path)) == 2 * epoch
    loop.train(config, tmp_path, _console())
    assert _rows(tmp_path) == _rows(whole)
    state, step = _final_state(config, tmp_path)
    expected, _ = _final_state(config, whole)
    assert step == int(state.step) == EPOCHS * STEPS_PER_EPOCH
    chex.assert_trees_all_equal(state, expected)


def test_a_finished_run_is_left_as_it_is(config, whole):
    """The same command again trains nothing and returns the same rows."""
    before = (whole / "metrics.jsonl").read_bytes()
    rows = loop.train(config, whole, _console())
    assert (whole / "metrics.jsonl").read_bytes() == before
    assert len(rows) == 2 * (EPOCHS + 1)


@pytest.mark.parametrize("batch_size", [7, 128, 360, 1000])
def test_metrics_do_not_depend_on_the_evaluation_batch(config, batch_size):
    """Padding under the mask changes nothing, for sizes that no device count divides."""
    run = loop.prepare(config)
    state = run.program.init_state(jax.random.key(0))
    expected = loop.measure(run, state, run.dataset.test)
    resized = dataclasses.replace(config, eval=EvalConfig(batch_size=batch_size))
    actual = loop.measure(run._replace(config=resized), state, run.dataset.test)
    assert actual["samples"] == 360
    assert actual["accuracy"] == expected["accuracy"]
    for name in ("loss", "vci", "fuzziness", "squared_distance", "cosine_similarity"):
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, err_msg=name)


def test_steps_and_passes_compile_once(config):
    """The last, padded batch and the second step reuse the first one's program."""
    run = loop.prepare(config)
    state = run.program.init_state(jax.random.key(0))
    loop.measure(run, state, run.dataset.test)
    batch = {"image": jnp.zeros((144, 8, 8, 1), jnp.uint8), "label": jnp.zeros(144, jnp.int32)}
    for _ in range(2):
        state, _ = run.program.train_step(state, batch)
    assert run.program.add_batch._cache_size() == 1
    assert run.program.train_step._cache_size() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 1500, "threads": 0}, "1437 training images|cannot share"),
        ({"mean": (1.0, 2.0, 3.0)}, "--data.mean"),
        ({"source": "mnist"}, "--data.source"),
    ],
)
def test_a_config_that_cannot_run_leaves_no_trace(config, tmp_path, change, message):
    """The error comes before the work directory is claimed, so the corrected command works."""
    wrong = dataclasses.replace(config, data=dataclasses.replace(config.data, **change))
    with pytest.raises(ConfigError, match=message):
        loop.train(wrong, tmp_path / "run", _console())
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(config, tmp_path):
    """Training on is pointless; the message names the step and what to change."""
    wrong = dataclasses.replace(
        config, optim=OptimConfig(lr=1e30, warmup_epochs=0), log=LogConfig(max_loss=0)
    )
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step \d: .*--optim\.lr"):
        loop.train(wrong, tmp_path / "run", _console())


def test_a_batch_that_the_devices_cannot_share_is_refused(config):
    """The message says which batch size would do."""
    if jax.device_count() == 1:
        pytest.skip("one device shares anything")
    odd = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=143))
    with pytest.raises(ConfigError, match="use 144"):
        loop.prepare(odd)
