"""What a network of the benchmarks is trained for: nothing but the plain loss and a recipe."""

from train import losses, models, optim
from train.config import LossConfig, ModelConfig, OptimConfig
from train.step import TrainSpec


def plain_task(model: ModelConfig, recipe: OptimConfig, classes: int) -> TrainSpec:
    """Cross-entropy of images that are normalised already, at one learning rate."""
    return TrainSpec(
        model=models.build(model, classes),
        optimizer=optim.build(recipe, lambda step: 1e-3),
        average=optim.build_average(recipe),
        loss=losses.build(LossConfig()),
        regulariser=None,
        mix=None,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        seed=0,
    )
