"""The generator of vci_jax/conformance/golden.json, from exact rational arithmetic alone."""
