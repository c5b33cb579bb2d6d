"""A run that compiles and trains in seconds, for the tests of what may happen to one."""

import dataclasses
import io
import json

from rich.console import Console

import configs
from train.config import CheckpointConfig, EvalConfig, ModelConfig, OptimConfig
from train.writer import TIMING_FIELDS

EPOCHS, STEPS_PER_EPOCH = 5, 9


def tiny_config(**changes):
    """Five epochs of nine steps; metrics every epoch, a checkpoint every second."""
    digits = configs.get("digits")
    settings = {
        "epochs": EPOCHS,
        "data": dataclasses.replace(digits.data, batch_size=144),
        "model": ModelConfig(name="_resnet6", width=8, stem="cifar"),
        "optim": OptimConfig(lr=0.2, warmup_epochs=1),
        "eval": EvalConfig(every_epochs=1, batch_size=200),
        "checkpoint": CheckpointConfig(every_epochs=2),
    }
    return dataclasses.replace(digits, **(settings | changes))


def console():
    """A terminal that can be read: ``console().file.getvalue()``."""
    return Console(file=io.StringIO(), width=200)


def rows(workdir):
    """The rows of a work directory without the fields that time them."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    parsed = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in parsed]
