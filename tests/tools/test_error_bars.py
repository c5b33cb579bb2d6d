"""The tables of docs/error_bars.md against their rows, and the populations they are of."""

import numpy as np
import pytest

import vci_jax
from tools import error_bars, populations


def test_the_page_of_error_bars_is_what_its_rows_say():
    text = error_bars.PAGE.read_text()
    assert error_bars.page(text) == text
    rows = error_bars.read("gaussian")
    assert len({row.key for row in rows}) == len(rows)
    for row in rows:  # what is promised, and by how much the draws may miss it
        limit = error_bars.LIMITS[row.samples // row.dim]
        assert abs(row.error) <= limit
        assert row.se <= 1.1 * limit / 3
        assert row.coverage >= 0.92


def test_a_population_has_the_vci_that_was_asked_for():
    rng = np.random.default_rng(5)
    for vci in (1.0, 0.7, 0.1):
        found = populations.gaussian(7, 4, 60, vci, 5, rng)
        assert found.vci == pytest.approx(vci, abs=1e-9)
        whole = vci_jax.merge_axis(found.draw(rng))
        assert int(whole.count.sum()) == 60
