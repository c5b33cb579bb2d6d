"""Networks: ``model(images, train) -> (logits, features)``, with a last layer called ``head``."""

from train.models.registry import build

__all__ = ["build"]
