"""Tasks, their features on disk, the runner that probes them, and the scores put together."""
