"""Policies: random operations on colour and shape, as data tables, and the operations themselves.

Magnitudes, interpolation (nearest) and fill (black) are torchvision's.

References: Cubuk et al., AutoAugment, CVPR 2019; Cubuk et al., RandAugment, NeurIPS 2020.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from train.config import DataConfig

Policy = Callable[[Image.Image, np.random.Generator], Image.Image]


def build(config: DataConfig) -> Policy | None:
    """Returns the policy of a config; None if it has none."""
    if config.policy == "none":
        return None
    raise NotImplementedError(config.policy)
