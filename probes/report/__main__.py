"""``python -m probes.report DIR...``: the same as ``python -m probes report DIR...``."""

import sys

from probes.page.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
