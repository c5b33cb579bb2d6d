"""The training program: ``python -m train CONFIG WORKDIR [--section.field value]``."""

from vci_jax import interrupt as interrupt  # First: it handles Ctrl-C during the other imports.
