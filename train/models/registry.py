"""From the ``model`` section of a config to a network."""

from flax import linen as nn

from train.config import ConfigError, ModelConfig
from train.models import resnet

_MODELS = {
    "_resnet6": resnet._resnet6,
    "resnet8": resnet.resnet8,
    "resnet20": resnet.resnet20,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
}


def build(config: ModelConfig, num_classes: int) -> nn.Module:
    """Returns the network that the config names.

    Raises:
      ConfigError: there is none of that name; lists those there are.
    """
    if config.name not in _MODELS:
        known = ", ".join(name for name in _MODELS if not name.startswith("_"))
        raise ConfigError(f"--model.name is {config.name!r}; known models: {known}.")
    return _MODELS[config.name](num_classes=num_classes, width=config.width, stem=config.stem)
