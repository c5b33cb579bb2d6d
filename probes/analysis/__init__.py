"""Statistics of runs: metrics against transfer, the certainty of a correlation, conclusions."""
