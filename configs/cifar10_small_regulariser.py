"""The regulariser group at a laptop's size: five runs of ``cifar10_small``.

Exhibits: the analogue of rows 7-11 of Tables 1 and 2 (Xu & Liu 2023).

Command: ``python -m train cifar10_small_regulariser runs/regulariser``, or ``--run lambda_0.1``.

Data and time: see ``cifar10_small``; five times that.
"""

import dataclasses

from configs.cifar10_small import get_config
from train.config import Config, LossConfig


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    base = get_config()
    return {
        f"lambda_{strength}": dataclasses.replace(
            base, loss=LossConfig(cosine=strength, cosine_group=0)
        )
        for strength in (0.02, 0.05, 0.1, 0.2, 0.5)
    }
