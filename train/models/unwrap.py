"""Files of weights whose tensors have keys and prefixes around the names of a network.

{"teacher": {"module.backbone.conv1.weight": ..., "module.head.mlp.0.weight": ...}}
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.models import weights
from train.models.weights import StateDictError, Tensors

# Prefixes of wrappers, in any order: data-parallel, torch.compile, Lightning and so on.
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
# Counters of training that no network uses.
_COUNTERS = ("num_batches_tracked", "n_averaged")


class Weights(NamedTuple):
    """The tensors of one network.

    Attributes:
      inside: tensors of the network, by its own names.
      outside: other tensors of the file, by their names without known prefixes.
      notes: sentences on what was chosen and removed.
    """

    inside: Tensors
    outside: Tensors
    notes: tuple[str, ...]


def read(path: Path, names: Collection[str]) -> Weights:
    """Returns the tensors of a file, given the names of a network's tensors.

    Raises:
      StateDictError: the file cannot be read, holds several such networks, or numbers that are not
        finite.
    """
    tensors, key = weights.read(path)
    notes = [f"the weights are those under {key!r}."] if key else []
    tensors = {k: v for k, v in tensors.items() if k.rpartition(".")[2] not in _COUNTERS}
    prefix = _prefix(tensors, names, path)
    inside = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    outside = {_without_prefixes(k): v for k, v in tensors.items() if not k.startswith(prefix)}
    if prefix:
        notes.append(f"the prefix {prefix!r} was removed from the names.")
    for name, values in inside.items():
        number = int(np.sum(~np.isfinite(np.asarray(values, np.float32))))
        if number:
            raise StateDictError(
                f"{path} has {number:,} NaN or infinite values in {name}: the training diverged, "
                "or the numbers overflowed in float16. Take an earlier checkpoint."
            )
    return Weights(inside, outside, tuple(notes))


def _prefix(tensors: Tensors, names: Collection[str], path: Path) -> str:
    """Returns the most frequent prefix of the names of the network."""
    counts: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in names:
                counts["".join(f"{part}." for part in parts[:cut])] += 1
    ranked = counts.most_common(2)
    if not ranked:
        return ""
    if len(ranked) == 2 and ranked[1][1] > 0.9 * ranked[0][1]:
        raise StateDictError(
            f"{path} holds several networks, with the prefixes {ranked[0][0]!r} and "
            f"{ranked[1][0]!r}; save the weights of one of them."
        )
    return ranked[0][0]


def _without_prefixes(name: str) -> str:
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), ""):
        name = name.removeprefix(prefix)
    return name
