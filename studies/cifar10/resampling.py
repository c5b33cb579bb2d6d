"""The bootstrap of the study: what each draw resamples.

Test images and seeds are always drawn: an interval is then about these settings and tasks. To ask
about others like them, settings and data sets are drawn as well, in one hierarchy.

Legend: B draws, of which the first is the estimate; N networks, S settings, T tasks.
"""

from typing import NamedTuple

import numpy as np

from studies.cifar10.networks import GROUPS, OWN, TASKS, Networks

DRAWS = 4000
_BATCH = 100  # Draws whose counts of images are in memory at once.


class Picks(NamedTuple):
    """The networks whose residuals a setting's mean gets, ``[B S n]``, and n of each setting."""

    rows: np.ndarray
    seeds: np.ndarray


def accuracies(networks: Networks, draws: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns the accuracies of all networks on test sets drawn with replacement, ``[B N]``.

    The same images are drawn for all networks, and for all tasks that share a test set. The first
    draw is the test sets themselves.
    """
    names = (OWN, *TASKS)
    result = {name: np.empty((draws, len(networks.names))) for name in names}
    for data in networks.sizes:
        rng = np.random.default_rng([seed, *data.encode()])
        tasks = [name for name in names if TASKS.get(name, name) == data]
        for start in range(0, draws, _BATCH):
            rows = slice(start, min(start + _BATCH, draws))
            counts = _counts(rng, networks.sizes[data], rows.stop - start)
            if start == 0:
                counts[0] = 1
            for name in tasks:
                chosen = counts[:, networks.members[name]]
                right = chosen @ networks.right[name].T.astype(np.float32)
                result[name][rows] = right / chosen.sum(axis=1, keepdims=True)
    return result


def _counts(rng: np.random.Generator, size: int, draws: int) -> np.ndarray:
    """Returns the number of times that each image is drawn, ``[B M]``."""
    drawn = rng.integers(0, size, (draws, size)) + size * np.arange(draws)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=draws * size)
    return counts.reshape(draws, size).astype(np.float32)


def pick(networks: Networks, draws: int) -> Picks:
    """Returns draws of as many residuals for each setting as it has seeds.

    They are from networks of the setting's groups. Settings with one seed have no residual.
    """
    rng = np.random.default_rng([0, 1])
    seeds = np.array([networks.names.count(name) for name in networks.settings])
    rows = np.zeros((draws, len(seeds), max(seeds)), int)
    for index, name in enumerate(networks.settings):
        groups = [group for group in GROUPS.values() if name in group]
        pool = [
            row
            for row, other in enumerate(networks.names)
            if networks.names.count(other) > 1 and any(other in group for group in groups)
        ]
        if not pool:
            raise ValueError(f"{name} has no network in its group whose setting has two seeds.")
        rows[:, index] = rng.choice(pool, (draws, max(seeds)))
    return Picks(rows, seeds)


def task_weights(draws: int, *, others: bool = False) -> np.ndarray:
    """Returns the weight of each task in a mean over tasks, ``[B T]``; in the first, all are equal.

    ``others`` draws data sets with replacement, each with all of its tasks.
    """
    data = np.array(list(TASKS.values()))
    sets = np.unique(data)
    times = np.ones((draws, len(data)))
    if others:
        rng = np.random.default_rng([0, 3])
        drawn = sets[rng.integers(0, len(sets), (draws - 1, len(sets)))]
        times[1:] = (drawn[:, :, None] == data).sum(axis=1)
    return times / times.sum(axis=1, keepdims=True)


def setting_draws(
    chosen: list[int], draws: int, *, others: bool = False, seed: int = 0
) -> np.ndarray:
    """Returns the settings that a correlation is over in each draw, ``[B n]`` of n chosen.

    ``others`` draws them with replacement, at least three different ones, since two always have a
    correlation of one.
    """
    result = np.tile(chosen, (draws, 1))
    if others:
        rng = np.random.default_rng([seed, 4])
        poor = np.arange(1, draws)
        while len(poor):
            result[poor] = rng.choice(chosen, (len(poor), len(chosen)))
            different = 1 + (np.diff(np.sort(result[poor], axis=1), axis=1) > 0).sum(axis=1)
            poor = poor[different < 3]
    return result


def means(networks: Networks, values: np.ndarray) -> np.ndarray:
    """Returns the mean of each setting, ``[... S]``, of the values of networks, ``[... N]``."""
    columns = np.array([networks.settings.index(name) for name in networks.names])
    member = columns[:, None] == np.arange(len(networks.settings))
    return np.asarray(values @ (member / member.sum(axis=0)))


def drawn_means(networks: Networks, values: np.ndarray, picks: Picks) -> np.ndarray:
    """Returns the settings' means of each draw, with new seeds, ``[B S]``.

    A mean of n seeds gets the mean of n residuals, each times sqrt(m / (m - 1)) for the m seeds of
    its setting, since residuals from a mean of m are smaller by that factor. The first draw, the
    estimate, gets none.

    Args:
      networks: the networks.
      values: a value of each network, ``[B N]`` if it depends on the images drawn, else ``[N]``.
      picks: the result of ``pick``.
    """
    values = np.broadcast_to(values, (len(picks.rows), len(networks.names)))
    centre = means(networks, values)
    columns = np.array([networks.settings.index(name) for name in networks.names])
    m = picks.seeds[columns]
    residuals = (values - centre[:, columns]) * np.sqrt(m / np.maximum(m - 1, 1))
    new = np.take_along_axis(residuals[:, None, :], picks.rows, axis=2)  # [B S n]
    counted = np.arange(picks.rows.shape[2]) < picks.seeds[:, None]
    noise = np.where(counted, new, 0).sum(axis=2) / picks.seeds
    noise[0] = 0
    return np.asarray(centre + noise)


def power(networks: Networks, drawn: np.ndarray) -> dict[str, tuple[float, float]]:
    """Returns the standard deviation between settings of each group, and that of its error.

    The error is that of a mean less the group's, from the result of ``drawn_means``.
    """
    errors = {}
    for group, names in GROUPS.items():
        inside = drawn[:, columns(networks.settings, names)]
        centred = inside - inside.mean(axis=1, keepdims=True)
        error = np.sqrt(np.var(centred[1:], axis=0).mean())
        errors[group] = (float(np.std(centred[0], ddof=1)), float(error))
    return errors


def interval(drawn: np.ndarray, level: float) -> tuple[float, float]:
    """Returns the percentile interval of draws, of which the first is the estimate."""
    low, high = np.quantile(drawn[1:], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def choices(networks: Networks, draws: int, *, others: bool = False) -> np.ndarray:
    """Returns draws of one network for each setting, three at a time: ``[B 3 S]``.

    The first draw is the seeds themselves, as many as every setting has; ``others`` draws the
    settings as well.
    """
    rng = np.random.default_rng([0, 2])
    of_setting = {
        name: [row for row, other in enumerate(networks.names) if other == name]
        for name in networks.settings
    }
    rounds = min(map(len, of_setting.values()))
    drawn = np.stack(
        [
            np.concatenate([[rows[:rounds]], rng.choice(rows, (draws - 1, rounds))])
            for rows in of_setting.values()
        ],
        axis=2,
    )
    columns = setting_draws(list(range(drawn.shape[2])), draws, others=others)
    return np.take_along_axis(drawn, columns[:, None, :], axis=2)


def columns(settings: list[str], names: tuple[str, ...]) -> list[int]:
    """Returns the positions of the settings that have a network."""
    return [settings.index(name) for name in names if name in settings]
