"""How right the intervals of ``vci_jax.compare`` are, on pairs of populations whose VCI is known.

    python -m tools.paired_error_bars --draws 400

Two sets of features are drawn from the same samples: the noise of each is a share of noise that
both have in common, and noise of its own. Each row prints, for the difference of ``vci_adjusted``
and of ``squared_distance_adjusted``, the error of the mean, how many paired 95 % intervals held the
truth, how many intervals of independent samples would have, the median width of the first over that
of the second, and how often the sets were told apart. docs/error_bars.md has its output.

Legend: N samples, K classes, p features of the first set; ``shared`` is the correlation of the two
sets' noise.
"""

import argparse
import functools
import os
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from scipy.special import stdtrit

import vci_jax
from tools.populations import exact_vci
from vci_jax.compare import paired_differences
from vci_jax.interval import LeaveOneOut, leave_one_out

_CHUNK = 50  # draws at once
_METRICS = ("vci_adjusted", "squared_distance_adjusted")


class Case(NamedTuple):
    """A pair of populations.

    The second set has ``gain`` times the class means of the first and ``more`` features of noise
    besides, all turned by a random rotation; ``heavy`` draws noise of Student's t, 5 degrees.
    """

    name: str
    classes: int
    dim: int
    samples: int
    spread: float
    shared: float
    gain: float = 1.0
    more: int = 0
    heavy: bool = False


_CASES = (
    Case("difference", 10, 16, 400, 1.0, 0.8, gain=1.2),
    Case("difference", 10, 16, 400, 1.0, 0.98, gain=1.05),
    Case("no difference", 10, 16, 400, 1.0, 0.8),
    Case("difference", 10, 16, 400, 1.0, 0.0, gain=1.2),
    Case("difference, heavy tails", 10, 16, 400, 1.0, 0.8, gain=1.2, heavy=True),
    Case("difference, near collapse", 10, 16, 400, 4.0, 0.8, gain=1.2),
    Case("difference, more features", 10, 16, 400, 1.0, 0.8, gain=1.2, more=16),
    Case("no difference, more features", 10, 16, 400, 1.0, 0.8, more=16),
    Case("no difference", 62, 32, 640, 1.0, 0.8),
    Case("difference", 62, 32, 640, 1.0, 0.8, gain=1.2),
    Case("difference", 10, 64, 640, 0.5, 0.8, gain=1.2),
)


def measure(case: Case, draws: int, blocks: int) -> list[str]:
    """Returns the cells of a row for each metric."""
    rng = np.random.default_rng([case.classes, case.dim, case.samples, int(100 * case.shared)])
    wide = case.dim + case.more
    axes = np.arange(1, case.dim + 1) ** -0.25
    means = rng.standard_normal((case.classes, case.dim)) * case.spread * axes
    second = np.pad(case.gain * means, [(0, 0), (0, case.more)])
    labels = np.sort(np.arange(case.samples) % case.classes)
    share = np.bincount(labels) / case.samples
    variance = 5 / 3 if case.heavy else 1.0
    truth = {
        "vci_adjusted": [
            exact_vci(m, variance * np.eye(m.shape[1]), share) for m in (means, second)
        ],
        "squared_distance_adjusted": [
            variance * m.shape[1] / np.sum(share[:, None] * (m - share @ m) ** 2)
            for m in (means, second)
        ],
    }
    turn = np.linalg.qr(rng.standard_normal((wide, wide)))[0]
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in _METRICS}

    def noise(size: int) -> np.ndarray:
        shape = (case.samples, size)
        return rng.standard_t(5, shape) if case.heavy else rng.standard_normal(shape)

    for _ in range(draws // _CHUNK):
        sets: dict[str, list[np.ndarray]] = {"a": [], "b": []}
        for _ in range(_CHUNK):
            common = noise(case.dim)
            a, b = (
                np.sqrt(case.shared) * common + np.sqrt(1 - case.shared) * noise(case.dim)
                for _ in range(2)
            )
            b = np.concatenate([b, noise(case.more)], axis=1)
            sets["a"].append(means[labels] + a)
            sets["b"].append((second[labels] + b) @ turn)
        states = {name: _leave_out(np.stack(h), labels, blocks) for name, h in sets.items()}
        for pair in (
            dict(zip(states, both, strict=True)) for both in zip(*states.values(), strict=True)
        ):
            for name in _METRICS:
                (found,) = paired_differences(pair, name, 0.95)
                wanted = truth[name][0] - truth[name][1]
                alone = _independent(pair, name)
                reach = found.high - found.difference
                rows[name].append(
                    (found.low <= wanted <= found.high, abs(found.difference - wanted) <= alone,
                     reach / alone, found.apart, found.difference - wanted)
                )  # fmt: skip
    cells = []
    for name, found in rows.items():
        held, alone, width, apart, error = np.array(found, float).T
        cells.append(
            f"{truth[name][0] - truth[name][1]:+.3f} | {error.mean():+.4f} | "
            f"{100 * held.mean():.1f} % | {100 * alone.mean():.1f} % | {np.median(width):.2f} | "
            f"{100 * apart.mean():.1f} %"
        )
    return cells


def _leave_out(features: np.ndarray, labels: np.ndarray, blocks: int) -> list[LeaveOneOut]:
    """The jackknife of each draw; block b has every B-th row."""
    size, classes = len(labels) // blocks, int(labels.max()) + 1
    dealt = features.reshape(len(features), size, blocks, -1).swapaxes(1, 2)
    states = jax.device_get(_of_draws(dealt, labels.reshape(size, blocks).T, classes))
    return [
        leave_one_out(jax.tree.map(lambda leaf, i=i: leaf[i], states), _METRICS)
        for i in range(len(features))
    ]


@functools.partial(jax.jit, static_argnums=2)
def _of_draws(features: Any, labels: Any, num_classes: int) -> vci_jax.ClassMoments:
    def of_draw(draw: Any) -> vci_jax.ClassMoments:
        empty = vci_jax.init(num_classes, draw.shape[-1], dtype=np.float64)
        return jax.vmap(vci_jax.update, in_axes=(None, 0, 0))(empty, draw, labels)

    states: vci_jax.ClassMoments = jax.lax.map(of_draw, features)
    return states


def _independent(states: dict[str, LeaveOneOut], name: str) -> float:
    """Half the width of the interval of a difference of independent samples."""
    square = sum(
        np.mean(state.pseudo_deviations(name) ** 2 / (state.ratios - 1))
        for state in states.values()
    )
    freedom = 2 * (len(states["a"].ratios) - 1)
    return float(stdtrit(freedom, 0.975) * np.sqrt(square))


def main() -> None:
    """Prints a Markdown table, a row at a time."""
    parser = argparse.ArgumentParser(prog="python -m tools.paired_error_bars", description=__doc__)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--blocks", type=int, default=16)
    options = parser.parse_args()
    heads = ["pair", "K", "p", "N", "shared", "metric", "difference", "error of the mean", "paired",
             "unpaired", "width", "told apart"]  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), flush=True)
    with jax.enable_x64(True):
        for case in _CASES:
            cells = [case.name, case.classes, case.dim, case.samples, case.shared]
            for name, row in zip(
                _METRICS, measure(case, options.draws, options.blocks), strict=True
            ):
                print("| " + " | ".join(map(str, [*cells, name, row])) + " |", flush=True)


if __name__ == "__main__":
    main()
