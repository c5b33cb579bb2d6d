"""Every one of the 97 penalties against optima with a proof, on the features of the issue's table.

The shapes that take longer are in ``python -m benchmarks.probe optimum``.
"""

import numpy as np
import pytest
from optimum import draw, scipy_optimum
from optimum import objective as plain_objective

from benchmarks import probe
from benchmarks.proven_optimum import Problem


def test_a_proven_optimum_is_scipys():
    """The same minimum from zero and from elsewhere, and the bound is one."""
    features, labels = draw()
    for l2 in (1.0, 1e-2, 1e-4):
        best = plain_objective(features, labels, *scipy_optimum(features, labels, l2), l2)
        for start in (np.zeros((6, 4)), 0.3 * np.ones((6, 1)) * np.arange(4)):
            proven = Problem(features, labels).optimum(start, np.zeros(4), l2)
            assert proven.bound <= 1e-10
            assert proven.objective * (1 - proven.bound) <= best * (1 + 1e-13)
            assert proven.objective == pytest.approx(best, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "resnet20"])
def test_every_penalty_of_the_grid_is_solved(name, request):
    """In float32 within 1e-6 of the optimum, in float64 within 1e-9."""
    if name == "resnet20":
        request.getfixturevalue("resnet20")  # Skips where they are not to be had.
    features, labels = getattr(probe, name)()
    excess, bounds, converged = probe.excesses(features, labels, probe.VALUES / len(labels))
    assert converged.all()
    assert bounds.max() <= 1e-10
    assert excess[0].max() <= 1e-6
    assert excess[1].max() <= 1e-9
