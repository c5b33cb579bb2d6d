"""Speed and accuracy claims, measured where they are run: ``python -m benchmarks.NAME``."""
