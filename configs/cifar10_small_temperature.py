"""The temperature group at a laptop's size: six runs of ``cifar10_small``.

Exhibits: the analogue of rows 1-6 of Tables 1 and 2 (Xu & Liu 2023).

Command: ``python -m train cifar10_small_temperature runs/temperature``, or ``--run tau_0.05``.

Data and time: see ``cifar10_small``; six times that.
"""

import dataclasses

from configs.cifar10_small import get_config
from train.config import Config, LossConfig


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    base = get_config()
    return {
        f"tau_{tau}": dataclasses.replace(base, loss=LossConfig(temperature=tau))
        for tau in (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
    }
