"""Variability collapse of a small ResNet on scikit-learn's handwritten digits, no download.

Command: ``python -m train digits runs/digits``
"""

from train.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
)


def get_config() -> Config:
    """Returns the settings of the run."""
    return Config(
        name="digits",
        epochs=80,
        data=DataConfig(
            source="digits", batch_size=64, crop_padding=1, mean=(4.88,), std=(6.01,), threads=2
        ),
        model=ModelConfig(name="resnet8", width=16, stem="cifar"),
        optim=OptimConfig(lr=0.1, weight_decay=1e-3, warmup_epochs=4),
        eval=EvalConfig(every_epochs=4, batch_size=256),
        checkpoint=CheckpointConfig(every_epochs=4),
    )
