"""How the penalty of a probe was chosen."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from probes.figures import style


def validation_curve(values: ArrayLike, curve: ArrayLike, chosen: float) -> Figure:
    """Returns the validation score against the penalty, the chosen one marked.

    Args:
      values: penalties in units of 1/C, such as ``sweep.VALUES``.
      curve: validation scores in [0, 1], as many.
      chosen: one of the values.

    Raises:
      ValueError: values and scores are not as many, or the chosen value is not among them.
    """
    values, curve = np.asarray(values, np.float64), np.asarray(curve, np.float64)
    if values.shape != curve.shape or chosen not in values:
        raise ValueError(
            f"got {values.shape} penalties, {curve.shape} scores and a choice of {chosen}, which "
            "must be one of the penalties; give the values and the curve of one sweep."
        )
    best = curve[np.flatnonzero(values == chosen)[0]]
    figure = style.figure(style.COLUMN, 2.2)
    axes = figure.subplots()
    style.panel(axes, "Choice of the penalty", f"{chosen:.3g} scores {100 * best:.1f} %")
    axes.set_xscale("log")
    axes.plot(values, 100 * curve, **style.line(0) | {"marker": "None"})
    axes.axvline(chosen, color=style.GREY, linewidth=0.6, linestyle=(0, (2, 2)))
    axes.plot([chosen], [100 * best], **style.line(1) | {"markersize": 5})
    axes.set_xlabel("Penalty (1/C)", fontsize=style.TEXT)
    axes.set_ylabel("Validation score (%)", fontsize=style.TEXT)
    return figure
