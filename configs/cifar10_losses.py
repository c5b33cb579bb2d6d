"""The four CIFAR-10 trainings of Figure 3: two losses, each under two schedules.

Exhibits: Figures 3 and 6 (Xu & Liu 2023).

Command: ``python -m train cifar10_losses runs/cifar10_losses`` for all, one after the other;
``--run mse_step`` for one of them.

Data and expected result: see ``cifar10_resnet18``.
"""

import dataclasses

from configs.cifar10_resnet18 import get_config
from train.config import Config, LossConfig


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    base = get_config()
    return {
        f"{short}_{schedule}": dataclasses.replace(
            base, loss=loss, optim=dataclasses.replace(base.optim, schedule=schedule)
        )
        for short, loss in (("ce", LossConfig("cross_entropy")), ("mse", LossConfig("mse")))
        for schedule in ("cosine", "step")
    }
