"""Scores of a ranking on disk, a file for each model, so that an interrupted ranking resumes."""

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
    """A model's answers, learning curve, scores without a probe, feature dimension and time."""

    answers: Answers
    curve: list[tuple[int, float]]
    cheap: dict[str, Any]
    dim: int
    seconds: float


class ScoreFile(NamedTuple):
    """The file of one model, and the fingerprint of everything that its scores depend on."""

    path: Path
    key: str

    def load(self) -> Scored | None:
        """Returns the content of the file; None if it is missing, damaged, or of other data."""
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
        """Writes the file atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        probe, nearest, centroid, *rest = scored.answers
        content = scored._asdict() | {"answers": rest}
        with replacing(self.path, "wb") as file:
            np.savez(
                file, key=self.key, probe=probe, nearest=nearest, centroid=centroid,
                rest=json.dumps(content, default=lambda number: number.item()),
            )  # fmt: skip


def score_file(
    directory: str | os.PathLike[str],
    name: str,
    arrays: Sequence[np.ndarray],
    settings: Sequence[Any],
) -> ScoreFile:
    """Returns the file of a model's scores; ``arrays`` and ``settings`` are fingerprinted."""
    stem = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return ScoreFile(Path(directory) / f"{stem}.npz", _progress.key(arrays, [name, *settings]))
