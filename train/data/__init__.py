"""Images on their way from a source to the device: sources, then the Grain pipeline."""

from train.data.pipeline import evaluation_batches, training_batches
from train.data.sources import Dataset, Split, load

__all__ = ["Dataset", "Split", "evaluation_batches", "load", "training_batches"]
