"""Which checkpoint for these images: ``python -m probes rank``."""
