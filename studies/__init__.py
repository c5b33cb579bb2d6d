"""Reproductions of experiments: each folder is one, with its statements, its runs and its text."""
