"""``python -m tools.conformance``: computes golden.json anew, exactly, and compares it.

With ``--write`` the file of the library is replaced.
"""

import argparse
import decimal
import json
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from tools.conformance import exact
from tools.conformance.scenarios import Scenario, scenarios
from vci_jax.conformance.cases import GOLDEN


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if the file is what exact arithmetic gives, or has been written."""
    parser = argparse.ArgumentParser(prog="python -m tools.conformance", description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace golden.json")
    options = parser.parse_args(arguments)
    text = recompute()
    same = text == GOLDEN.read_text()
    if options.write:
        GOLDEN.write_text(text)
    print("golden.json is what exact arithmetic gives." if same else "golden.json differs!")
    return 0 if same or options.write else 1


def recompute() -> str:
    """The text of ``golden.json``, from nothing but ``scenarios`` and ``exact``."""
    entries = ",\n".join(json.dumps(_entry(scenario)) for scenario in scenarios())
    about = "Exact values of collapse metrics; see vci_jax/conformance/cases.py"
    return f'{{"about": {json.dumps(about)},\n"cases": [\n{entries}\n]}}\n'


def _entry(scenario: Scenario) -> dict[str, Any]:
    fields = scenario._asdict()
    skipped = fields.pop("leave_out")
    for weighting, key in (("sample", "expected"), ("class", "expected_class")):
        values = exact.metrics(scenario.features, scenario.labels, weighting)
        fields[key] = {name: _digits(v) for name, v in values.items() if name not in skipped}
    if fields["expected_class"] == fields["expected"]:
        del fields["expected_class"]
    return fields


def _digits(value: exact.Value) -> str:
    """Forty significant digits; what is left of a zero after sixty is zero."""
    if value is None:
        return "nan"
    with decimal.localcontext(decimal.Context(prec=40)):
        if isinstance(value, Fraction):
            value = decimal.Decimal(value.numerator) / decimal.Decimal(value.denominator)
        return "0" if abs(value) < decimal.Decimal("1e-50") else str(+value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
