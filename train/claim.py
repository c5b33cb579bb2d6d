"""A work directory belongs to the settings it was made with, stored in its ``config.json``."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from train.config import FREE, Config, ConfigError, flatten
from vci_jax.written import replace_text


def claim(config: Config, workdir: Path) -> None:
    """Stores the config in a new work directory, or checks it against the one already there.

    Fields that change none of a run's numbers (``config.FREE``) may differ.

    Raises:
      ConfigError: the directory belongs to a run with other settings; names each of them.
    """
    # Through JSON, so that both sides of the comparison have lost the same types (tuples).
    ours = json.loads(json.dumps(dataclasses.asdict(config)))
    path = workdir / "config.json"
    if path.exists():
        _refuse_differences(ours, _read(path), workdir)
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{workdir} cannot be made a work directory: {error}.") from error
    replace_text(path, json.dumps(ours, indent=2) + "\n")


def read(workdir: Path) -> Config:
    """Returns the config of a work directory; a field it does not know yet has its default.

    Raises:
      ConfigError: there is none, or it has fields that this version does not know.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"{workdir} has no config.json; give a work directory of python -m train."
        )
    return _build(Config, _read(path), path)


def _build(kind: type, values: dict[str, Any], path: Path) -> Any:
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    if unknown := values.keys() - fields.keys():
        raise ConfigError(
            f"{path} has the fields {', '.join(sorted(unknown))}, which this version does not "
            "know; use the version that made it."
        )
    built = {}
    for name, value in values.items():
        section = fields[name]
        if isinstance(section, type) and dataclasses.is_dataclass(section):
            value = _build(section, value, path)
        built[name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is not valid JSON ({error}); choose another work directory, or delete this "
            "one to start again."
        ) from error


def _refuse_differences(ours: dict[str, Any], theirs: dict[str, Any], workdir: Path) -> None:
    new, old = flatten(ours), flatten(theirs)
    fields = [
        key
        for key in sorted(new | old)
        if new.get(key) != old.get(key) and not key.startswith(FREE)
    ]
    if not fields:
        return
    listing = "\n".join(f"  {key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in fields)
    raise ConfigError(
        f"{workdir} holds a run with other settings:\n{listing}\n"
        "Use the same settings to go on with that run, or another directory for a new one."
    )
