"""From images to features: runs, public checkpoints, and any function, each by its word."""

from probes.encoders.encoder import Encoder, Outputs
from probes.encoders.words import load

__all__ = ["Encoder", "Outputs", "load"]
