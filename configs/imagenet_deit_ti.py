"""DeiT-Ti on ImageNet-1K by the recipe of Touvron et al. (2021), 300 epochs.

Exhibit: Figure 5 (Xu & Liu 2023).

Command: ``python -m train imagenet_deit_ti runs/imagenet_deit_ti``

Data: see ``imagenet_resnet50``.

Expected: 72.2 % top-1 (Touvron et al., Table 5, where RandAugment stands in for AutoAugment). Not
run by us: an accelerator's job.
"""

import dataclasses

from configs.imagenet_deit_s import get_config as get_deit_s
from train.config import Config


def get_config() -> Config:
    """Returns the settings of the run: those of DeiT-S, with the smaller network."""
    base = get_deit_s()
    return dataclasses.replace(base, model=dataclasses.replace(base.model, name="deit_ti"))
