"""Six ResNet-50 pretrainings on ImageNet at softmax temperatures from 0.05 to 1.

Exhibits: rows 1-6 of Tables 1 and 2 and of Figure 7 (Xu & Liu 2023). The paper does not give its
temperatures; these six are ours. A low temperature means less collapse and better transfer.

Command: ``python -m train imagenet_temperature runs/temperature``, or ``--run tau_0.05`` for one.

Data, expected accuracy and cost: see ``imagenet_resnet50``; six times that.
"""

import dataclasses

from configs.imagenet_resnet50 import get_config
from train.config import Config, LossConfig


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    base = get_config()
    return {
        f"tau_{tau}": dataclasses.replace(base, loss=LossConfig(temperature=tau))
        for tau in (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
    }
