"""Encoders from images to features: runs, public checkpoints and Python functions."""

from probes.encoders.encoder import Encoder, Outputs
from probes.encoders.words import load

__all__ = ["Encoder", "Outputs", "load"]
