"""Images on their way from a source to the device: sources, then the Grain pipeline."""

from train.data.pipeline import (
    Share,
    TrainingBatches,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from train.data.prefetch import DevicePrefetcher
from train.data.sources import Dataset, Records, Split, Subset, load

__all__ = [
    "Dataset",
    "DevicePrefetcher",
    "Records",
    "Share",
    "Split",
    "Subset",
    "TrainingBatches",
    "evaluation_batches",
    "load",
    "steps_per_epoch",
    "training_batches",
]
