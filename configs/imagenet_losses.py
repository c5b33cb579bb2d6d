"""Cross-entropy and squared error on ImageNet, with the cosine and the step schedule.

Exhibits: Figures 3 and 4 (Xu & Liu 2023), which draw ResNet-50 under both losses. The squared error
is that of Hui & Belkin (2021): 15 times the weight for the true class, whose logit is to be 30.
"step" takes 0.975 of the learning rate after each epoch; the paper has it on CIFAR-10.

Command: ``python -m train imagenet_losses runs/losses``, or ``--run mse_cosine`` for one.

Data and cost: see ``imagenet_resnet50``; four times that. Expected: 77.9 % top-1 for
``ce_cosine``. Not run by us: an accelerator's job.
"""

import dataclasses

from configs.imagenet_resnet50 import get_config
from train.config import Config, LossConfig


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    base = get_config()
    losses = {"ce": LossConfig(), "mse": LossConfig(name="mse", mse_weight=15.0, mse_target=30.0)}
    return {
        f"{name}_{schedule}": dataclasses.replace(
            base, loss=loss, optim=dataclasses.replace(base.optim, schedule=schedule)
        )
        for name, loss in losses.items()
        for schedule in ("cosine", "step")
    }
