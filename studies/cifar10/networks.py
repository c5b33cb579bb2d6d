"""The networks of the study as arrays, from their raw files.

Legend: N networks, M images of a test set.
"""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PLAIN = "tau_1.0"  # Plain cross-entropy, which is in every group.
TEMPERATURES = ("0.75", "0.5", "0.25", "0.1", "0.05")
STRENGTHS = ("0.1", "0.2", "0.35", "0.5", "0.75", "1.0")
STRONGER = ("1.5", "2.0")  # Added after the preregistration.
OBJECTIVES = (
    *("smoothing", "mse", "sigmoid", "logit_norm"),
    *("dropout", "head_decay", "vci_plus", "vci_minus"),
)
# In the order of the temperature or strength, where there is one.
GROUPS = {
    "temperature": (PLAIN, *(f"tau_{value}" for value in TEMPERATURES)),
    "regulariser": (PLAIN, *(f"lambda_{value}" for value in (*STRENGTHS, *STRONGER))),
    "objectives": (PLAIN, *OBJECTIVES),
}
SETTINGS = tuple(dict.fromkeys(name for group in GROUPS.values() for name in group))
ADDED = tuple(f"lambda_{value}" for value in STRONGER)
_UNTIMED = {"training": float("nan"), "scoring": float("nan")}
LEAST_ACCURACY = 0.2  # The preregistration excludes networks below it, which have not learned.

OWN = "cifar10"
# The test set of each task, and whether the task has all of its images.
TASKS = {
    "cifar100": "cifar100",
    "cifar100_coarse": "cifar100",
    "cifar100_living": "cifar100",
    "cifar100_made": "cifar100",
    "digits": "digits",
    "sign_digits": "sign_digits",
}


class Networks(NamedTuple):
    """The networks of the study.

    Attributes:
      names: setting of each network, ``[N]``.
      seeds: seed of each network, ``[N]``.
      metrics: metrics by split of pretraining (``train``, ``test``) and name, ``[N]``.
      right: for each task, and for ``OWN`` by the network's own head, the share of repeats in which
        each image is classified correctly, ``[N M]``; 0 or 1 for one repeat.
      members: the positions in its test set of the images of each task, ``[M]``.
      sizes: number of images of each test set.
      cheap: scores by task, number of labelled images and name, ``[N]``.
      started: first start of each training, ISO 8601.
      seconds: time of training and of scoring, ``[N, 2]``; NaN if unknown.
      processors: name of the processor; empty if unknown.
      failed: excluded networks, which have not learned.
    """

    names: list[str]
    seeds: list[int]
    metrics: dict[tuple[str, str], np.ndarray]
    right: dict[str, np.ndarray]
    members: dict[str, np.ndarray]
    sizes: dict[str, int]
    cheap: dict[tuple[str, str, str], np.ndarray]
    started: list[str]
    seconds: np.ndarray
    processors: list[str]
    failed: list[str]

    @property
    def settings(self) -> list[str]:
        """The settings that have a network, in the order of ``SETTINGS``."""
        return [name for name in SETTINGS if name in self.names]


class Gains(NamedTuple):
    """MLO, MLOG, and log odds of the network's own test accuracy."""

    mlo: np.ndarray
    mlog: np.ndarray
    own: np.ndarray


def read(directory: Path) -> Networks:
    """Returns the networks of ``DIRECTORY/seed_S/NAME.json``.

    Raises:
      ValueError: there is no file of networks, or one does not match its name.
    """
    rows, failed = [], []
    for path in sorted(directory.glob("seed_*/*.json")):
        row = json.loads(path.read_text())
        if (row["setting"], f"seed_{row['seed']}") != (path.stem, path.parent.name):
            raise ValueError(f"{path} is of {row['setting']}, seed {row['seed']}.")
        if row["setting"] not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise ValueError(f"{path}: the setting is {row['setting']!r}; known are {known}.")
        if row["test"]["accuracy"] < LEAST_ACCURACY:
            failed.append(f"{row['setting']}, seed {row['seed']}")
        else:
            rows.append(row)
    if not rows:
        raise ValueError(f"{directory} has no seed_S/NAME.json; studies.cifar10.score makes them.")
    return _arrays(rows, json.loads((directory / "images.json").read_text()), failed)


def _arrays(rows: list[dict[str, Any]], subsets: dict[str, str], failed: list[str]) -> Networks:
    right = {OWN: _correct_share([row["test"] for row in rows])}
    right |= {task: _correct_share([row["tasks"][task] for row in rows]) for task in TASKS}
    sizes = {OWN: right[OWN].shape[1]}
    sizes |= {data: right[data].shape[1] for data in TASKS.values()}
    members = {
        name: np.flatnonzero(unpack(subsets[name], sizes[TASKS[name]]))
        if name in subsets
        else np.arange(right[name].shape[1])
        for name in right
    }
    return Networks(
        names=[row["setting"] for row in rows],
        seeds=[row["seed"] for row in rows],
        metrics={
            (split, name): np.array([row[split][name] for row in rows])
            for split in ("train", "test")
            for name in rows[0][split]
            if name != "right"
        },
        right=right,
        members=members,
        sizes=sizes,
        cheap={
            (task, size, name): np.array([row["tasks"][task]["cheap"][size][name] for row in rows])
            for task in TASKS
            for size, scores in rows[0]["tasks"][task]["cheap"].items()
            for name in scores
        },
        started=[row["machine"][0]["started"] for row in rows],
        seconds=np.array([list(row.get("seconds", _UNTIMED).values()) for row in rows]),
        processors=[row.get("processor", "") for row in rows],
        failed=failed,
    )


def _correct_share(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.stack(
        [np.mean([unpack(text, row["images"]) for text in row["right"]], axis=0) for row in rows]
    )


def preregistered(networks: Networks) -> Networks:
    """Returns the networks without those of settings that were added later."""
    rows = [row for row, name in enumerate(networks.names) if name not in ADDED]
    return networks._replace(
        names=[networks.names[row] for row in rows],
        seeds=[networks.seeds[row] for row in rows],
        metrics={name: values[rows] for name, values in networks.metrics.items()},
        right={name: values[rows] for name, values in networks.right.items()},
        cheap={name: values[rows] for name, values in networks.cheap.items()},
        started=[networks.started[row] for row in rows],
        seconds=networks.seconds[rows],
        processors=[networks.processors[row] for row in rows],
    )


def gains(accuracy: dict[str, np.ndarray], weights: np.ndarray) -> Gains:
    """Returns MLO and MLOG from the accuracies ``[B N]`` and the weights ``[B T]`` of the tasks."""
    odds = np.stack([log_odds(accuracy[task]) for task in TASKS], axis=-1)
    mlo = np.einsum("bnt,bt->bn", odds, weights)
    own = log_odds(accuracy[OWN])
    return Gains(mlo, mlo - own, own)


def log_odds(share: np.ndarray) -> np.ndarray:
    """Returns log(a / (1 - a))."""
    return np.asarray(np.log(share) - np.log1p(-share))


def pack(right: np.ndarray) -> str:
    """Packs one bit per image into text."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack(text: str, size: int) -> np.ndarray:
    """Returns the bits that ``pack`` wrote."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=size).astype(bool)
