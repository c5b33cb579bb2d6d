"""Five ResNet-50 pretrainings on ImageNet with the within-class cosine regulariser.

Exhibits: rows 7-11 of Tables 1 and 2 and of Figure 7 (Xu & Liu 2023). The paper gives neither the
strengths nor the normalisation; these five (form R1, over each 256 samples) are ours, and want
tuning until cosine_similarity spans 0.41 to 0.17.

Command: ``python -m train imagenet_regulariser runs/regulariser``, or ``--run lambda_0.1``.

Data, expected accuracy and cost: see ``imagenet_resnet50``; five times that.
"""

import dataclasses

from configs.imagenet_resnet50 import get_config
from train.config import Config, LossConfig


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    base = get_config()
    return {
        f"lambda_{strength}": dataclasses.replace(
            base, loss=LossConfig(cosine=strength, cosine_group=256)
        )
        for strength in (0.02, 0.05, 0.1, 0.2, 0.5)
    }
