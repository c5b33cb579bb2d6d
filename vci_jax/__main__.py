"""``python -m vci_jax FEATURES.npz``: every metric of features saved by any framework."""

import sys

from vci_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
