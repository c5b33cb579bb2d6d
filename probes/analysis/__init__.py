"""Runs side by side: metrics against transfer, how sure a correlation is, and what it means."""
