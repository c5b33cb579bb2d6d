"""A work directory as training leaves it, without the training: for the tests of the probes."""

import dataclasses
import json

import jax
from tiny_run import tiny_config

from train import checkpoint, loop
from train.config import OptimConfig
from train.workdir import claim


def moved(stats):
    """Other running means and variances than a new network has, which do not silence it."""
    return 1.5 * stats - 0.02


def make_run(workdir, *, seed=0, steps=(0,), accuracy=0.75, **changes):
    """Random weights saved at some steps, each with a test row; returns the run.

    Running averages are drawn as well, so that evaluation mode is not training mode.
    """
    config = tiny_config(seed=seed, optim=OptimConfig(warmup_epochs=1, ema=0.9))
    config = dataclasses.replace(config, **changes)
    run = loop.prepare(config)
    claim(config, workdir)
    with checkpoint.open_manager(workdir / "checkpoints", config.checkpoint, 1) as manager:
        for step in steps:
            state = run.program.init_state(jax.random.key(seed + step))
            stats = jax.tree.map(moved, state.batch_stats)
            state = state._replace(step=state.step + step, batch_stats=stats)
            fingerprint, _ = run.program.inspect(state)
            notes = checkpoint.Notes(data={}, first_loss=None)
            checkpoint.save(
                manager,
                state,
                notes,
                step=step,
                fingerprint=int(fingerprint),
                metrics=None,
            )
    with (workdir / "metrics.jsonl").open("w") as file:
        for step in steps:
            row = {"step": step, "epoch": 0, "accuracy": accuracy - step / 100, "samples": 360}
            file.write(json.dumps(row | {"split": "train"}) + "\n")
            file.write(json.dumps(row | {"split": "test"}) + "\n")
    return run
