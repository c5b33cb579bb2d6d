"""One file per experiment; ``get(name)`` returns its config."""

import difflib
import importlib
import pkgutil

from train.config import Config, ConfigError


def names() -> list[str]:
    """Returns the names of all experiments."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def summaries() -> dict[str, str]:
    """Returns the first line of each experiment's description."""
    return {
        name: (importlib.import_module(f"configs.{name}").__doc__ or "").strip().partition("\n")[0]
        for name in names()
    }


def get(name: str) -> Config:
    """Returns the config of an experiment.

    Raises:
      ConfigError: there is none of that name; lists those there are.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"unknown config {name!r}.{hint} Known configs: {', '.join(names())}.")
    return importlib.import_module(f"configs.{name}").get_config()
