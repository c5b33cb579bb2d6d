"""Tables of what it costs to choose a network by each score."""

from collections.abc import Iterable

import numpy as np

from probes.analysis.tables import Table
from studies.cifar10 import choosing
from studies.cifar10.choosing import Choices
from studies.cifar10.networks import TASKS
from studies.cifar10.words import NAMES, of_pretraining, title

WITHOUT_VCI, WITH_ALL = "vci_plus, vci_minus", "all"


def sizes(choices: Choices) -> Table:
    """What each score costs, with so many labelled images of the target."""
    regret, sizes = choices.regret, ("500", "2000", choosing.ALL)
    rows = []
    for score in choosing.TARGET:
        cells = [
            points(choices, regret[score, size]) if (score, size) in regret else ""
            for size in sizes
        ]
        rows.append([f"{NAMES[score]}, on the target", *cells])
    for score in choosing.SOURCE:
        rows.append([of_pretraining(score), "", "", points(choices, regret[score, ""])])
    rows.append(["any network, at random", "", "", points(choices, choices.spread)])
    header = ["Choose the network by", "500 images", "2,000 images", "all images"]
    return Table("Accuracy lost by the choice, in points (± standard error)", header, rows)


def _with_all(choices: Choices) -> Iterable[tuple[str, tuple[str, str]]]:
    """Names the scores of all labelled images, and of those of pretraining, with their keys."""
    for score in choosing.TARGET:
        if (score, choosing.ALL) in choices.regret:
            yield f"{NAMES[score]}, on the target", (score, choosing.ALL)
    for score in choosing.SOURCE:
        yield of_pretraining(score), (score, "")


def tasks(choices: Choices) -> Table:
    """What each score costs on every task alone."""
    regret = choices.regret
    rows = [
        [name, *(f"{100 * value:.2f}" for value in regret[key][0])]
        for name, key in _with_all(choices)
    ]
    rows.append(["any network, at random", *(f"{100 * x:.2f}" for x in choices.spread[0])])
    return Table("The same on every task, all images", ["Choose the network by", *TASKS], rows)


def without(choices: Choices, left_out: dict[str, Choices]) -> Table:
    """What each choice costs if some networks had not been there to choose."""
    rows = []
    for name, key in _with_all(choices):
        lost = {names: entry.points(entry.regret[key])[0] for names, entry in left_out.items()}
        ones = {names: lost[names] for names in lost if names not in (WITHOUT_VCI, WITH_ALL)}
        least, most = min(ones, key=ones.__getitem__), max(ones, key=ones.__getitem__)
        cells = [f"{ones[entry]:.2f} ({title(entry)})" for entry in (least, most)]
        some = [f"{lost[names]:.2f}" for names in (WITH_ALL, "vci_minus", WITHOUT_VCI)]
        rows.append([name, *some, *cells])
    header = ["Choose the network by", "with regularisers 1.5 and 2 (two seeds)"]
    header += ["without cross-entropy - 0.5 VCI", "without both VCI losses"]
    header += ["least without one setting", "most without one setting"]
    return Table("The same, if other settings had been there to choose", header, rows)


def points(choices: Choices, lost: np.ndarray) -> str:
    """Returns a mean over tasks with its standard error, from the draws."""
    mean = choices.points(lost)
    return f"{mean[0]:.2f} ± {mean[1:].std():.2f}"
