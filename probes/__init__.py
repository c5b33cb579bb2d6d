"""What features are worth: figures, and the transfer of features to other tasks."""

from vci_jax import interrupt as interrupt  # Before all others: it sees to Ctrl-C meanwhile.
