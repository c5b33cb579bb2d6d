"""Compiled programs, kept from one process to the next."""

import os
from pathlib import Path

import jax


def cache() -> None:
    """Compiles a program once per machine, not once per run.

    It is kept in ``~/.cache/vci_jax/xla``, or in ``$JAX_COMPILATION_CACHE_DIR``; set to nothing,
    that turns the cache off.
    """
    default = Path.home() / ".cache" / "vci_jax" / "xla"
    directory = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    jax.config.update("jax_compilation_cache_dir", directory or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
