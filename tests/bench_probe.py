"""Times the path of 97 penalties against scikit-learn, on shapes of the paper's data sets.

    python tests/bench_probe.py pets vit cifar100 [--every 16] [--cap 60]

Ours is ``fit_path`` from features in memory to kernels, in float32; compilation, measured as the
difference between the first call and the second, is reported apart. scikit-learn's
``LogisticRegression`` (L-BFGS, all its threads) runs on every ``--every``-th penalty and is scaled
to 97: once warm-started along the path with its default tolerance, and once from zero, in float64
and on centred features, with its tolerance lowered by tens until its objective is within 1e-6 of
the optimum or a fit took ``--cap`` seconds. Such a fit is a lower bound, marked ``>``. The optimum
is ``fit_path`` in float64 at 1e-10; ``excess`` is the worst relative excess over it.
"""

import argparse
import time
import warnings

import numpy as np
from scipy import special
from sklearn.linear_model import LogisticRegression

from probes import logistic

# Samples, dimensions, classes.
SHAPES = {
    "pets": (3680, 512, 37),
    "vit": (20_000, 192, 10),
    "cifar100": (10_000, 512, 100),
    "caltech": (2040, 2048, 102),
}
VALUES = np.geomspace(1e-6, 1e6, 97)


def draw(samples: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns features like a network's: rectified, correlated, a spectrum like 1/i."""
    rng = np.random.default_rng(0)
    latent = min(dim, 256)
    scales = np.arange(1, latent + 1) ** -0.5
    labels = np.arange(samples) % classes
    centres = 0.7 * rng.normal(size=(classes, latent))
    hidden = (centres[labels] + rng.normal(size=(samples, latent))) * scales
    mixing = rng.normal(size=(latent, dim)) / np.sqrt(np.sum(scales**2))
    return np.maximum(hidden @ mixing + 0.3, 0).astype(np.float32), labels


def objective(features, labels, kernel, bias, l2) -> float:
    """Returns mean cross-entropy + (l2/2) ||W||^2 in float64."""
    logits = features.astype(np.float64) @ kernel + bias
    losses = special.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return float(np.mean(losses) + l2 / 2 * np.sum(kernel**2))


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=["pets", "vit"], choices=SHAPES)
    parser.add_argument("--every", type=int, default=16)
    parser.add_argument("--cap", type=float, default=60.0, help="seconds for one exact fit")
    options = parser.parse_args()
    for name in options.shapes:
        features, labels = draw(*SHAPES[name])
        l2s = VALUES / len(labels)
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            fit = logistic.fit_path(features, labels, l2s)
            seconds.append(time.perf_counter() - start)
        ours = float(np.median(seconds[1:]))
        some = np.arange(0, 97, options.every)
        exact = logistic.fit_path(features, labels, l2s, dtype=np.float64, tolerance=1e-10)
        reached = [objective(features, labels, fit.kernel[i], fit.bias[i], l2s[i]) for i in some]
        excess = np.max(np.array(reached) / exact.objective[some] - 1)
        print(
            f"{name} {SHAPES[name]}: {ours:.2f} s, compile {seconds[0] - ours:.1f} s, "
            f"{fit.steps.sum()} steps, excess {excess:.1e}",
            flush=True,
        )
        for what, run in [("default, warm", default), ("to 1e-6", to_optimum)]:
            took, capped = run(features, labels, exact.objective, some, options.cap)
            scaled = took * 97 / len(some)
            bound = ">" if capped else ""
            print(
                f"  scikit-learn {what}: {bound}{scaled:.0f} s, {bound}{scaled / ours:.0f}x",
                flush=True,
            )


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


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
