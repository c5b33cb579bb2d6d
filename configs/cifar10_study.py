"""The study of docs/study.md: fourteen short runs of a narrow ResNet-8 on CIFAR-10.

Exhibits: the analogues of Figures 1, 2, 3, 6, 7, 8 and of Tables 1 and 2 (Xu & Liu 2023).

Command: ``python -m studies.cifar10 docs/study --data-dir DIR --work-dir RUNS`` trains them
and scores them on other tasks; ``python -m train cifar10_study RUNS --run tau_0.05`` trains one.

Data: CIFAR-10 prepared by TFDS (``cifar10/3.0.2``, array_record) in DIR.

Time: about 12 minutes a run on one CPU core, of which two run side by side.

The runs differ in the loss alone, or in the schedule. Gradients are clipped in all of them: those
of a temperature of 0.05 are twenty times longer than those of 1, and at this learning rate they
leave most features dead. ``tau_1.0`` is plain cross-entropy with a cosine schedule, the baseline of
both groups and of the losses.
"""

import dataclasses

from configs.cifar10_small import get_config
from train.config import CheckpointConfig, Config, EvalConfig, LossConfig, ModelConfig, OptimConfig

TEMPERATURES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
STRENGTHS = (0.02, 0.05, 0.1, 0.2, 0.5)
EPOCHS = 10


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    optim = OptimConfig(lr=0.2, weight_decay=5e-4, warmup_epochs=1, clip_norm=1.0)
    # The step of the paper's 300 epochs, 0.975, for as many times fewer epochs.
    step = dataclasses.replace(
        optim, schedule="step", step_factor=round(0.975 ** (300 / EPOCHS), 3)
    )
    base = dataclasses.replace(
        get_config(),
        epochs=EPOCHS,
        model=ModelConfig(name="resnet8", width=24, stem="half"),
        optim=optim,
        eval=EvalConfig(every_epochs=2, batch_size=500, layers=True),
        checkpoint=CheckpointConfig(every_epochs=2, keep=1),
    )
    mse = LossConfig(name="mse")
    return {
        **{
            f"tau_{tau}": dataclasses.replace(base, loss=LossConfig(temperature=tau))
            for tau in TEMPERATURES
        },
        **{
            f"lambda_{strength}": dataclasses.replace(base, loss=LossConfig(cosine=strength))
            for strength in STRENGTHS
        },
        "ce_step": dataclasses.replace(base, optim=step),
        "mse_cosine": dataclasses.replace(base, loss=mse),
        "mse_step": dataclasses.replace(base, loss=mse, optim=step),
    }
