"""Images on their way from a source to the device: sources, then the Grain pipeline."""

from train.data.pipeline import (
    Share,
    TrainingBatches,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from train.data.sources import Dataset, Records, Split, load
from train.data.transfer import Ahead

__all__ = [
    "Ahead",
    "Dataset",
    "Records",
    "Share",
    "Split",
    "TrainingBatches",
    "evaluation_batches",
    "load",
    "steps_per_epoch",
    "training_batches",
]
