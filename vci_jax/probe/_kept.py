"""Scores of a ranking on disk, a file for each model: a ranking that was interrupted resumes."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vci_jax.probe import _progress
from vci_jax.probe._protocol import Answers
from vci_jax.written import replacing


class Scored(NamedTuple):
    """A model's answers, its learning curve, the scores that need no probe, D, and seconds."""

    answers: Answers
    curve: list[tuple[int, float]]
    cheap: dict[str, Any]
    dim: int
    seconds: float


class Store(NamedTuple):
    """The file of one model, and the fingerprint of all that its numbers depend on."""

    path: Path
    key: str

    def load(self) -> Scored | None:
        """Returns the content of the file; None if it is missing, damaged, or of other data.

        The model is then fitted again.
        """
        try:
            with np.load(self.path) as file:
                if str(file["key"]) != self.key:
                    return None
                arrays = [file[name] for name in ("probe", "nearest", "centroid")]
                rest = json.loads(str(file["rest"]))
        except (*_progress.UNREADABLE, OSError):
            return None
        cheap = rest["cheap"] | {"vci_interval": tuple(rest["cheap"]["vci_interval"])}
        answers = Answers(*arrays, *rest["answers"])
        return Scored(answers, list(map(tuple, rest["curve"])), cheap, rest["dim"], rest["seconds"])

    def save(self, scored: Scored) -> None:
        """Writes the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        probe, nearest, centroid, *rest = scored.answers
        shown = scored._asdict() | {"answers": rest}
        with replacing(self.path, "wb") as file:
            np.savez(
                file, key=self.key, probe=probe, nearest=nearest, centroid=centroid,
                rest=json.dumps(shown, default=lambda number: number.item()),
            )  # fmt: skip


def store(
    directory: str | os.PathLike[str],
    name: str,
    arrays: Sequence[np.ndarray],
    settings: Sequence[Any],
) -> Store:
    """Returns the file of a model's scores; ``arrays`` and ``settings`` are fingerprinted."""
    place = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return Store(Path(directory) / f"{place}.npz", _progress.key(arrays, [name, *settings]))
