"""Tools for maintainers: not part of any package."""
