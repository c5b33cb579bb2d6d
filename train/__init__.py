"""The training program: ``python -m train CONFIG WORKDIR [--section.field value]``."""

from vci_jax import interrupt as interrupt  # Before all others: it sees to Ctrl-C meanwhile.
