"""What every command sets up: compiled programs kept on disk, and libraries that say less."""

import logging
import os
import warnings
from pathlib import Path

import jax


def cache_programs() -> None:
    """Compiles a program once per machine, not once per run.

    It is kept in ``~/.cache/vci_jax/xla``, or in ``$JAX_COMPILATION_CACHE_DIR``; set to nothing,
    that turns the cache off.
    """
    default = Path.home() / ".cache" / "vci_jax" / "xla"
    directory = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    jax.config.update("jax_compilation_cache_dir", directory or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def quiet() -> None:
    """Keeps the bookkeeping of Orbax, Grain and JAX out of the terminal; errors still show."""
    for name in ("absl", "jax", "orbax", "grain"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
