"""The choice of a penalty, under the name it had before ``vci_jax.probe.selection``."""

from vci_jax.probe.selection import (
    VALUES,
    Samples,
    Score,
    Sweep,
    choose,
    hold_out,
    mean_per_class,
    predict,
    settled,
    sweep,
    top1,
)

__all__ = [
    "VALUES",
    "Samples",
    "Score",
    "Sweep",
    "choose",
    "hold_out",
    "mean_per_class",
    "predict",
    "settled",
    "sweep",
    "top1",
]
