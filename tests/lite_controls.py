"""Controls for rankings of EfficientNet-Lite: the same network without its pretraining.

``python:lite_controls:lite0_random`` has random weights, ``lite0_half`` in its stem and the first
half of its blocks.
"""

import functools

from examples.efficientnet_lite import Lite


class Control(Lite):
    """EfficientNet-Lite0 of which a share of the blocks, from the input on, has random weights."""

    def __init__(self, name, share):
        super().__init__(0, 224)
        self.name, self.share = name, share

    @functools.cached_property
    def network(self):
        """The module of torch, in evaluation mode."""
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = EfficientNet.from_name("efficientnet-lite0")
            for module in fresh.modules():
                if isinstance(module, torch.nn.Conv2d):
                    # torch's default shrinks features to 1e-9 over these 16 blocks.
                    torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if self.share == 1:
            return fresh.eval()
        network = super().network
        network._conv_stem, network._bn0 = fresh._conv_stem, fresh._bn0
        for place in range(round(self.share * len(network._blocks))):
            network._blocks[place] = fresh._blocks[place]
        return network.eval()


lite0_half, lite0_random = Control("lite0_half", 0.5), Control("lite0_random", 1)
