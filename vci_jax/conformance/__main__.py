"""``python -m vci_jax.conformance``: vci_jax itself, held to every case and law."""

import sys

from vci_jax.conformance.own import main

if __name__ == "__main__":
    sys.exit(main())
