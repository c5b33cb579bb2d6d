"""Every figure of the paper, drawn from work directories.

Each function returns a ``matplotlib.figure.Figure`` at its size in print; ``save`` and
``save_both`` write it. In a notebook a figure is displayed after ``%matplotlib inline``. Only this
package imports matplotlib; no figure changes its global state or needs a screen.

Figure 1 is ``within_parts``, 2 ``spectra``, 3 to 5 ``metric_curves``, 6 and 8 ``train_and_test``,
7 ``transfer_scatter``. ``collapse_curves`` has the four metrics of one run, ``validation_curve``
the choice of a probe's penalty, ``validation_curves`` those of a run.
"""

from probes.figures.curves import metric_curves, train_and_test, validation_curve, validation_curves
from probes.figures.overview import collapse_curves
from probes.figures.parts import spectra, within_parts
from probes.figures.scatter import transfer_scatter
from probes.figures.style import save, save_both

__all__ = [
    "collapse_curves",
    "metric_curves",
    "save",
    "save_both",
    "spectra",
    "train_and_test",
    "transfer_scatter",
    "validation_curve",
    "validation_curves",
    "within_parts",
]
