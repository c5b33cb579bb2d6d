"""Times the path of 97 penalties against scikit-learn, on shapes of the paper's data sets.

    python -m benchmarks.probe pets vit cifar100 [--every 16] [--cap 60] [--optax-cap 10]
    python -m benchmarks.probe memory    # the peak of N = 75 750, D = 2048, K = 101 (Food-101)
    python -m benchmarks.probe optimum pets digits [--stride 1]    # no times: excess, with a proof
    python -m benchmarks.probe together pets    # eleven data sets at once, or one after another
    python -m benchmarks.probe collapsed    # few axes have nearly all: blocks or none

Ours is ``fit_path`` from features in memory to kernels, in float32; compilation, measured as the
difference between the first call and the second, is reported apart. scikit-learn's
``LogisticRegression`` (L-BFGS, all its threads) runs on every ``--every``-th penalty and is scaled
to 97: once warm-started along the path with its default tolerance, and once from zero, in float64
and on centred features, with its tolerance lowered by tens until its objective is within 1e-6 of
the optimum or a fit took ``--cap`` seconds. Such a fit is a lower bound, marked ``>``.
``optax.lbfgs`` runs in float32 on centred features, warm-started along the path, one compiled
step at a time; an oracle ends it within 1e-6 of the optimum, or ``--optax-cap``. The optimum is
``fit_path`` in float64 at 1e-10; ``excess`` is the worst relative excess over it. ``validation`` is
the best accuracy over these penalties, of ours and of scikit-learn's default, on held-out samples,
at most 10 000, of a draw with classes closer together: on the one that is timed both reach 100 %.

``together`` times ``fit_paths`` of eleven draws, as of eleven checkpoints for one task, against
``fit_path`` of one after another; it is for accelerators, which one small data set cannot fill.
``optimum`` compares every ``--stride``-th of the 97 penalties, in float32 and float64, with an
optimum that is proved to 1e-10 without our code (``proven_optimum.py``).
"""

import argparse
import pathlib
import resource
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import special
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from benchmarks.proven_optimum import Problem
from benchmarks.proven_optimum import objective as stable_objective
from vci_jax.probe import _precondition, selection
from vci_jax.probe import path as logistic

# Samples, dimensions, classes.
SHAPES = {
    "pets": (3680, 512, 37),
    "vit": (20_000, 192, 10),
    "cifar100": (10_000, 512, 100),
    "caltech": (2040, 2048, 102),
}
VALUES = np.geomspace(1e-6, 1e6, 97)
RESNET20 = pathlib.Path(__file__).parents[2] / "shared/data/features/resnet20_cifar10_test.npz"
_MOST_HELD_OUT = 10_000
# Distances of classes, in those of samples of one: of the features timed, and of those validated.
_EASY, _HARD = 0.7, 0.2


def draw(samples: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns features like a network's: rectified, correlated, a spectrum like 1/i."""
    return draw_two(samples, dim, classes, seed=seed)[0]


def draw_two(
    samples: int, dim: int, classes: int, apart: float = _EASY, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the same, and others of the same classes to validate on."""
    rng = np.random.default_rng(seed)
    latent = min(dim, 256)
    scales = np.arange(1, latent + 1) ** -0.5
    labels = np.arange(samples) % classes
    centres = apart * rng.normal(size=(classes, latent))
    noise = rng.normal(size=(samples, latent))
    mixing = rng.normal(size=(latent, dim)) / np.sqrt(np.sum(scales**2))
    held_out = rng.normal(size=(min(samples, _MOST_HELD_OUT), latent))
    return [
        (
            np.maximum((centres[y] + move) * scales @ mixing + 0.3, 0).astype(np.float32),
            y,
        )
        for move, y in ((noise, labels), (held_out, labels[: len(held_out)]))
    ]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's digits in 512 random rectified features."""
    data = load_digits()
    weights = np.random.default_rng(0).normal(size=(64, 512)) / 8
    return np.maximum((data.data - 8) / 4 @ weights, 0).astype(np.float32), data.target


def resnet20() -> tuple[np.ndarray, np.ndarray]:
    """Returns real features of CIFAR-10's test set, which do not ship with the project."""
    with np.load(RESNET20) as file:
        return file["features"], file["labels"].astype(int)


def excesses(features, labels, penalties) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the relative excess of float32 and float64 ``[2 P]``, proofs, and what converged.

    The excess is that over the proven lower bound of the minimum.
    """
    paths = [
        logistic.fit_path(features, labels, penalties, dtype=d) for d in (np.float32, np.float64)
    ]
    wide, found = np.asarray(features, np.float64), Problem(features, labels)
    proven = [found.optimum(k, b, l2) for k, b, l2 in zip(*paths[1][:2], penalties, strict=True)]
    low = np.array([one.objective * (1 - one.bound) for one in proven])
    reached = [
        [
            stable_objective(wide, labels, k, b, l2)
            for k, b, l2 in zip(*path[:2], penalties, strict=True)
        ]
        for path in paths
    ]
    bounds = np.array([one.bound for one in proven])
    return np.array(reached) / low - 1, bounds, np.array([path.converged for path in paths])


def optimum(names: list[str], stride: int) -> None:
    """Prints the worst excess of each set of features."""
    for name in names:
        own = {"digits": digits, "resnet20": resnet20}
        features, labels = own[name]() if name in own else draw(*SHAPES[name])
        penalties = VALUES[::stride] / len(labels)
        start = time.perf_counter()
        excess, bounds, converged = excesses(features, labels, penalties)
        print(
            f"{name} {features.shape}, {len(penalties)} penalties: excess {excess[0].max():.1e} in "
            f"float32, {excess[1].max():.1e} in float64, over optima proved to {bounds.max():.0e}; "
            f"converged {converged.mean():.0%}; {time.perf_counter() - start:.0f} s",
            flush=True,
        )


def objective(features, labels, kernel, bias, l2) -> float:
    """Returns mean cross-entropy + (l2/2) ||W||^2 in float64."""
    logits = features.astype(np.float64) @ kernel + bias
    losses = special.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return float(np.mean(losses) + l2 / 2 * np.sum(kernel**2))


_CHOICES = [*SHAPES, "digits", "resnet20", "memory", "optimum", "together", "collapsed"]


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=["pets", "vit"], choices=_CHOICES)
    parser.add_argument("--every", type=int, default=16)
    parser.add_argument("--cap", type=float, default=60.0, help="seconds for one exact fit")
    parser.add_argument("--optax-cap", type=float, default=10.0, help="seconds for one of optax's")
    parser.add_argument("--stride", type=int, default=1, help="of the penalties of optimum")
    options = parser.parse_args()
    sets = [name for name in options.shapes if name not in ("optimum", "together", "memory")]
    if ("optimum" in options.shapes or "together" in options.shapes) and not sets:
        parser.error("optimum and together need shapes: " + ", ".join(SHAPES))
    if "optimum" in options.shapes:
        optimum(sets, options.stride)
        return
    if "together" in options.shapes:
        for name in sets:
            together(name)
        return
    for name in options.shapes:
        if name in ("memory", "collapsed"):
            globals()[name]()
            continue
        features, labels = draw(*SHAPES[name])
        penalties = VALUES / len(labels)
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            fit = logistic.fit_path(features, labels, penalties)
            seconds.append(time.perf_counter() - start)
        ours = float(np.median(seconds[1:]))
        some = np.arange(0, 97, options.every)
        exact = logistic.fit_path(features, labels, penalties, dtype=np.float64, tolerance=1e-10)
        reached = [
            objective(features, labels, fit.kernel[i], fit.bias[i], penalties[i]) for i in some
        ]
        excess = np.max(np.array(reached) / exact.objective[some] - 1)
        print(
            f"{name} {SHAPES[name]}: {ours:.2f} s, compile {seconds[0] - ours:.1f} s, "
            f"{fit.steps.sum()} steps, excess {excess:.1e}",
            flush=True,
        )
        contestants = [
            ("scikit-learn, default, warm", default, options.cap),
            ("scikit-learn, to 1e-6", to_optimum, options.cap),
            ("optax.lbfgs, to 1e-6, warm", by_optax, options.optax_cap),
        ]
        for what, run, cap in contestants:
            took, capped = run(features, labels, exact.objective, some, cap)
            scaled = took * 97 / len(some)
            bound = ">" if capped else ""
            print(
                f"  {what}: {bound}{scaled:.0f} s, {bound}{scaled / ours:.0f}x",
                flush=True,
            )
        validation(name, some)


def together(name: str, count: int = 11) -> None:
    """Prints the time of several data sets at once, and of one after another."""
    sets = [draw(*SHAPES[name], seed=seed) for seed in range(count)]
    features, labels = zip(*sets, strict=True)
    penalties = VALUES / len(labels[0])
    classes = SHAPES[name][2]
    ways = {
        "at once": lambda: logistic.fit_paths(features, labels, penalties, num_classes=classes),
        "one after another": lambda: [logistic.fit_path(*one, penalties) for one in sets],
    }
    found, medians = {}, {}
    for way, run in ways.items():
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            found[way] = run()
            seconds.append(time.perf_counter() - start)
        medians[way] = float(np.median(seconds[1:]))
    apart = max(
        np.max(np.abs(a.objective / b.objective - 1)) for a, b in zip(*found.values(), strict=True)
    )
    print(
        f"{count} of {name}: {medians['at once']:.2f} s at once, "
        f"{medians['one after another']:.2f} s one after another; objectives {apart:.0e} apart",
        flush=True,
    )


def validation(name, some) -> None:
    """Prints the best accuracy on held-out samples, of ours and of scikit-learn's default."""
    (features, labels), (unseen, expected) = draw_two(*SHAPES[name], apart=_HARD)
    fit = logistic.fit_path(features, labels, VALUES[some] / len(labels))
    ours = [selection.predict(*one, unseen) for one in zip(fit.kernel, fit.bias, strict=True)]
    model, theirs = LogisticRegression(max_iter=1000, warm_start=True), []
    for i in some[::-1]:
        theirs.append(model.set_params(C=1 / VALUES[i]).fit(features, labels).predict(unseen))
    best, other = (max(selection.top1(one, expected) for one in all_) for all_ in (ours, theirs))
    print(f"  validation: {best:.2%}, scikit-learn, default: {other:.2%}", flush=True)


def default(features, labels, best, some, cap) -> tuple[float, int]:
    """Times scikit-learn as it comes, along the path from strong to weak."""
    del best, cap
    model = LogisticRegression(max_iter=1000, warm_start=True)
    start = time.perf_counter()
    for i in some[::-1]:
        model.set_params(C=1 / VALUES[i]).fit(features, labels)
    return time.perf_counter() - start, 0


def to_optimum(features, labels, best, some, cap) -> tuple[float, int]:
    """Times the least accurate fit of scikit-learn that is within 1e-6 of the optimum."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    total, capped = 0.0, 0
    for i in some[::-1]:
        for tol in 10.0 ** -np.arange(3, 12):
            model = LogisticRegression(C=1 / VALUES[i], tol=tol, max_iter=100_000)
            start = time.perf_counter()
            model.fit(centred, labels)
            took = time.perf_counter() - start
            l2 = VALUES[i] / len(labels)
            value = objective(centred, labels, model.coef_.T, model.intercept_, l2)
            if value <= best[i] * (1 + 1e-6) or took > cap:
                capped += value > best[i] * (1 + 1e-6)
                break
        total += took
    return total, capped


def by_optax(features, labels, best, some, cap) -> tuple[float, int]:
    """Times a loop of ``optax.lbfgs``; compilation is left out."""
    centred = jnp.asarray(features - features.mean(axis=0))
    targets = jnp.asarray(labels)
    solver = optax.lbfgs()

    def loss(params, l2):
        logits = jnp.matmul(centred, params[0], precision="highest") + params[1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return jnp.mean(losses) + l2 / 2 * jnp.sum(params[0] ** 2)

    @jax.jit
    def step(params, state, l2):
        objective = lambda candidate: loss(candidate, l2)  # noqa: E731
        value, gradient = optax.value_and_grad_from_state(objective)(params, state=state)
        move, state = solver.update(
            gradient, state, params, value=value, grad=gradient, value_fn=objective
        )
        return optax.apply_updates(params, move), state

    classes = int(labels.max()) + 1
    params = (jnp.zeros((features.shape[1], classes)), jnp.zeros(classes))
    jax.block_until_ready(step(params, solver.init(params), 1.0))
    total, capped = 0.0, 0
    for i in some[::-1]:
        l2, state = VALUES[i] / len(labels), solver.init(params)
        start, reached = time.perf_counter(), False
        while not reached and time.perf_counter() - start < cap:
            for _ in range(10):
                params, state = step(params, state, l2)
            kernel, bias = (np.asarray(part, np.float64) for part in params)
            pause = time.perf_counter()  # The oracle takes no time.
            value = objective(np.asarray(centred), labels, kernel, bias, l2)
            start += time.perf_counter() - pause
            reached = value <= best[i] * (1 + 1e-6)
        total += time.perf_counter() - start
        capped += not reached
    return total, capped


def collapsed(samples: int = 8_000, dim: int = 64, classes: int = 100) -> None:
    """Times a path of 25 penalties with blocks of the Hessian in the preconditioner, and without.

    Features as of a network that was taught 10 classes, with labels of 100 finer ones.
    """
    rng = np.random.default_rng(0)
    coarse = 3 * rng.normal(size=(10, dim))[np.arange(classes) % 10]
    centres = coarse + 0.2 * rng.normal(size=(classes, dim))
    labels = np.arange(samples) % classes
    noise = rng.normal(size=(samples, dim)) * np.geomspace(1, 0.01, dim)
    features = (centres[labels] + noise).astype(np.float32)
    penalties = np.geomspace(1, 1e-6, 25)
    for name, most in (("blocks", _precondition.SAMPLES), ("diagonal", 0)):
        _precondition.SAMPLES = most
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            fit = logistic.fit_path(features, labels, penalties, tolerance=1e-5)
            seconds.append(time.perf_counter() - start)
        ours = float(np.median(seconds[1:]))
        print(
            f"collapsed {(samples, dim, classes)}, {name}: {ours:.2f} s, compile "
            f"{seconds[0] - ours:.1f} s, {fit.steps.sum()} steps",
            flush=True,
        )


def memory() -> None:
    """Prints the peak of a process that draws the features and follows a path of five penalties."""
    features, labels = draw(75_750, 2048, 101)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    fit = logistic.fit_path(features, labels, VALUES[[0, 24, 48, 72, 96]] / len(labels))
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"memory (75750, 2048, 101): {after:.2f} GiB at the peak, {before:.2f} to draw the "
        f"features; five penalties took {seconds:.0f} s, gap {fit.gap.max():.1e}"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
