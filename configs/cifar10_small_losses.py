"""Two losses under two schedules at a laptop's size: four runs of ``cifar10_small``.

Exhibits: the analogue of Figures 3 and 6 (Xu & Liu 2023).

Command: ``python -m train cifar10_small_losses runs/losses``, or ``--run mse_step`` for one.

Data and time: see ``cifar10_small``; four times that. The step schedule multiplies by
0.776 = 0.975^10 an epoch, so that 30 epochs see what 300 see in the paper.
"""

import dataclasses

from configs.cifar10_small import get_config
from train.config import Config, LossConfig


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    base = get_config()
    schedules = {
        "cosine": base.optim,
        "step": dataclasses.replace(base.optim, schedule="step", step_factor=0.776),
    }
    return {
        f"{short}_{schedule}": dataclasses.replace(base, loss=loss, optim=optim)
        for short, loss in (("ce", LossConfig("cross_entropy")), ("mse", LossConfig("mse")))
        for schedule, optim in schedules.items()
    }
