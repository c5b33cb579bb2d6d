"""One file per experiment: ``get_config()`` for a run, ``get_runs()`` for a group of them."""

import dataclasses
import difflib
import importlib
import pkgutil
from types import ModuleType

from train.config import Config, ConfigError


def names() -> list[str]:
    """Returns the names of all experiments."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def summaries() -> dict[str, str]:
    """Returns the first line of each experiment's description."""
    return {name: (_module(name).__doc__ or "").strip().partition("\n")[0] for name in names()}


def is_group(name: str) -> bool:
    """Whether an experiment consists of several runs."""
    return hasattr(_module(name), "get_runs")


def get(name: str) -> Config:
    """Returns the config of an experiment with one run.

    Raises:
      ConfigError: there is no config of that name (lists the known ones), or it is a group.
    """
    if is_group(name):
        raise ConfigError(f"{name} is a group of runs: {', '.join(runs(name))}; choose one.")
    return dataclasses.replace(_module(name).get_config(), name=name)


def runs(name: str) -> dict[str, Config]:
    """Returns the configs of a group by the names of its runs; each run is ``GROUP/RUN``.

    Raises:
      ConfigError: there is no experiment of that name, or it has one run only.
    """
    if not is_group(name):
        raise ConfigError(f"{name} is a single run, not a group.")
    members: dict[str, Config] = _module(name).get_runs()
    return {
        run: dataclasses.replace(config, name=f"{name}/{run}") for run, config in members.items()
    }


def _module(name: str) -> ModuleType:
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"unknown config {name!r}.{hint} Known configs: {', '.join(names())}.")
    return importlib.import_module(f"configs.{name}")
