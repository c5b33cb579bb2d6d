"""Tasks, their features on disk, the runner that probes them, and summaries of scores."""
