"""Real data, beside the checkout, that does not ship with the project."""

import pathlib

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
