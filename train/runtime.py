"""What every command sets up: the cache of compiled programs, and quieter libraries."""

import logging
import os
import warnings
from pathlib import Path

import jax


def cache_programs() -> None:
    """Caches compiled programs in ``~/.cache/vci_jax/xla`` or ``$JAX_COMPILATION_CACHE_DIR``.

    An empty ``$JAX_COMPILATION_CACHE_DIR`` turns the cache off.
    """
    default = Path.home() / ".cache" / "vci_jax" / "xla"
    directory = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    jax.config.update("jax_compilation_cache_dir", directory or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def quiet() -> None:
    """Hides messages of Orbax, Grain and JAX below errors."""
    for name in ("absl", "jax", "orbax", "grain"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
