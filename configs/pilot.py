"""Pilot of the next study: short trainings that let features collapse, at the ends of both groups.

Exhibits: none; ``docs/study/pilot.md`` says what was found.

Command: ``python -m train pilot RUNS --run terminal_tau_1.0 --data.data_dir DIR``

Data: CIFAR-10 and CIFAR-100 prepared by TFDS (version 3.0.2, array_record) in DIR.

Time: 5 to 10 minutes a run on one CPU core.
"""

import dataclasses

from configs.cifar10_small import get_config
from train.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
)

TEMPERATURES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
STRENGTHS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0)


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run: every regime with every loss."""
    losses = {f"tau_{tau}": LossConfig(temperature=tau) for tau in TEMPERATURES}
    losses |= {f"lambda_{strength}": LossConfig(cosine=strength) for strength in STRENGTHS}
    return {
        f"{regime}_{name}": dataclasses.replace(base, loss=loss)
        for regime, base in _regimes().items()
        for name, loss in losses.items()
    }


def _regimes() -> dict[str, Config]:
    base = dataclasses.replace(
        get_config(),
        # Gradients of a temperature of 0.05 are twenty times longer than those of 1; at this
        # learning rate they would leave most features dead.
        optim=OptimConfig(lr=0.2, weight_decay=5e-4, warmup_epochs=1, clip_norm=1.0),
        model=ModelConfig(name="resnet8", width=24, stem="half"),
        eval=EvalConfig(every_epochs=25, batch_size=500),
        checkpoint=CheckpointConfig(every_epochs=25, keep=1),
    )
    few = DataConfig(source="tfds:cifar10:3.0.2", train_split="train[:10%]", batch_size=128)
    half = dataclasses.replace(few, train_split="train[:50%]")
    kinds = dataclasses.replace(half, source="tfds:cifar10_kinds:3.0.2")
    pairs = dataclasses.replace(half, source="tfds:cifar10_pairs:3.0.2")
    coarse = dataclasses.replace(few, source="tfds:cifar100_coarse:3.0.2", train_split="train")
    narrow = dataclasses.replace(base, model=dataclasses.replace(base.model, width=16))
    return {
        "terminal": dataclasses.replace(base, epochs=50, data=few),
        "kinds": dataclasses.replace(base, epochs=12, data=kinds),
        "pairs": dataclasses.replace(base, epochs=16, data=pairs),
        "coarse": dataclasses.replace(base, epochs=20, data=coarse),
        "decay": dataclasses.replace(
            narrow, epochs=30, data=few, optim=dataclasses.replace(base.optim, weight_decay=5e-3)
        ),
    }
