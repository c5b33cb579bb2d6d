"""Hold any implementation to the definitions: golden cases and invariance laws, as data.

    from vci_jax import conformance

    def my_vci(features, labels):  # [N, D] and [N] NumPy arrays in, one number out
        ...

    results = conformance.check("vci", my_vci) + conformance.check_laws("vci", my_vci)
    print(conformance.table(results))

The expected values are exact: computed in rational arithmetic from the definitions (in the
repository, ``tools/conformance``), stored in ``golden.json`` for use from any language, and never
taken from the implementation they judge. ``python -m vci_jax.conformance`` holds vci_jax itself to
all of it.
"""

from vci_jax.conformance.cases import METRICS, Case, cases
from vci_jax.conformance.laws import Law, laws
from vci_jax.conformance.runner import Result, check, check_laws, table

__all__ = [
    "METRICS",
    "Case",
    "Law",
    "Result",
    "cases",
    "check",
    "check_laws",
    "laws",
    "table",
]
