"""The speed claims of the metrics library, each beside a named alternative on this machine.

    python -m benchmarks.metrics                # all, about 6 minutes on two cores
    python -m benchmarks.metrics update         # one of: update, whole, network

Alternatives run in the same process, in turn with ours, and the median of the runs is reported;
PyTorch is used if it is installed (``pip install torch==2.13.0``) and said to be missing if not.
Times leave compilation out; it is printed apart.
"""

import argparse
import functools
import os
import platform
import statistics
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

import vci_jax

try:
    import torch
except ImportError:
    torch = None

RUNS = 5


def alternate(contestants, runs=RUNS):
    """Median seconds of each, run in turn so that a slow spell of the machine hits all alike."""
    seconds = {name: [] for name in contestants}
    for name, function in contestants.items():
        start = time.perf_counter()
        function()
        print(f"    first run, compilation included: {time.perf_counter() - start:6.1f} s  {name}")
    for _ in range(runs):
        for name, function in contestants.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def show(title, seconds, ours, against):
    print(f"\n{title}")
    for name, median in seconds.items():
        print(f"    {median:9.4f} s   {seconds[against] / median:6.2f}x   {name}")
    print(f"    => {ours}: {seconds[against] / seconds[ours]:.2f} times as fast as {against}\n")


def correlated(samples, dim, classes, seed=0):
    """Float32 features like a network's: eigenvalues falling as i^-1, class means within them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples).astype(np.int32)
    scale = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    means = rng.standard_normal((classes, dim), np.float32)
    features = rng.standard_normal((samples, dim), np.float32)
    features += means[labels]
    features *= scale
    return features, labels


# --- one update against the product it contains ----------------------------------------------


def bench_update(samples=8192, dim=2048, classes=1000):
    features, labels = correlated(samples, dim, classes)
    rows, names = jnp.asarray(features), jnp.asarray(labels)
    product = jax.jit(lambda x: jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST))
    update = jax.jit(vci_jax.update, donate_argnums=0)
    state = update(vci_jax.init(classes, dim), rows, names)

    def ours():
        nonlocal state
        state = jax.block_until_ready(update(state, rows, names))

    contestants = {
        "bare jitted X^T X": lambda: jax.block_until_ready(product(rows)),
        "vci_jax.update": ours,
        "numpy X^T X": lambda: features.T @ features,
    }
    if torch:
        tensor = torch.from_numpy(features)
        contestants["torch X^T X"] = lambda: tensor.T @ tensor
    seconds = alternate(contestants, runs=11)
    show(
        f"One update, N = {samples}, D = {dim}, K = {classes}, float32 (must be at least 0.85x)",
        seconds, "vci_jax.update", "bare jitted X^T X",
    )  # fmt: skip


# --- the whole measurement against PyTorch ----------------------------------------------------

FOUR = ("vci", "fuzziness", "squared_distance", "cosine_similarity")


def torch_metrics(features, labels, classes, hermitian=False):
    """The four metrics as PyTorch codes have them: two passes, float32, ``torch.linalg.pinv``."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)[:, None]
    means = torch.zeros(classes, features.shape[1]).index_add_(0, labels, features) / counts
    centred = features - means[labels]
    within = centred.T @ centred / len(features)
    offsets = means - features.mean(0)
    between = offsets.T @ (offsets * counts) / len(features)
    pinv = functools.partial(torch.linalg.pinv, hermitian=hermitian)
    units = torch.nn.functional.normalize(features, dim=1)
    unit_means = torch.zeros_like(means).index_add_(0, labels, units) / counts
    rank = min(features.shape[1], classes - 1)
    return {
        "vci": 1 - float(torch.trace(pinv(within + between) @ between)) / rank,
        "fuzziness": float(torch.trace(within @ pinv(between))) / classes,
        "squared_distance": float(torch.trace(within) / torch.trace(between)),
        "cosine_similarity": float((unit_means**2).sum(1).mean()),
    }


def batches_of(features, labels, size=8192):
    for low in range(0, len(labels), size):
        yield features[low : low + size], labels[low : low + size]


def truth(features, labels, classes):
    """Float64, from definitions, with explicit ranks."""
    features = features.astype(np.float64)
    counts = np.bincount(labels, minlength=classes)
    means = np.zeros((classes, features.shape[1]))
    np.add.at(means, labels, features)
    means /= counts[:, None]
    offsets = means - features.mean(axis=0)
    rows = np.sqrt(counts / len(labels))[:, None] * offsets
    centred = features - means[labels]
    within = centred.T @ centred / len(labels)
    rank = min(features.shape[1], classes - 1)
    trace = np.sum(np.linalg.solve(within + rows.T @ rows, rows.T) * rows.T)
    _, singular, right = np.linalg.svd(rows, full_matrices=False)
    basis = right[:rank] / singular[:rank, None]
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    unit_means = np.zeros_like(means)
    np.add.at(unit_means, labels, units)
    return {
        "vci": 1 - trace / rank,
        "fuzziness": np.sum(basis @ within * basis) / classes,
        "squared_distance": np.trace(within) / np.sum(rows**2),
        "cosine_similarity": np.mean(np.sum((unit_means / counts[:, None]) ** 2, axis=1)),
    }


def bench_whole(samples=50_000):
    """The same four metrics from both; all of ours, and the product that neither can do without."""
    product = jax.jit(lambda x: jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST))
    for dim, classes, runs, must in ((512, 10, 9, 2), (2048, 1000, 3, 6)):
        features, labels = correlated(samples, dim, classes)
        found = {}

        def ours(name, only=None, features=features, labels=labels, classes=classes, found=found):
            found[name] = vci_jax.measure(
                lambda x: x, batches_of(features, labels), classes, progress=False, only=only
            )

        def bare(features=features, labels=labels):
            for rows, _ in batches_of(features, labels):
                jax.block_until_ready(product(rows))

        four, everything = "vci_jax.measure, four metrics", "vci_jax.measure, all metrics"
        contestants = {
            four: functools.partial(ours, four, FOUR),
            everything: functools.partial(ours, everything),
            "bare jitted X^T X, no metric": bare,
        }
        against = everything
        if torch:
            tensors = torch.from_numpy(features), torch.from_numpy(labels).long()

            def theirs(hermitian, name, tensors=tensors, classes=classes, found=found):
                found[name] = torch_metrics(*tensors, classes, hermitian)

            against = "torch, four metrics, pinv"
            for hermitian, name in (
                (False, against),
                (True, "torch, four metrics, pinv hermitian"),
            ):
                contestants[name] = functools.partial(theirs, hermitian, name)
        seconds = alternate(contestants, runs=runs)
        show(
            f"Whole measurement, N = {samples}, D = {dim}, K = {classes} (at least {must}x)",
            seconds, four, against,
        )  # fmt: skip
        exact = truth(features, labels, classes)
        print("    relative error against float64:")
        for name, values in found.items():
            errors = "  ".join(f"{k} {abs(values[k] / exact[k] - 1):.0e}" for k in exact)
            print(f"      {name:<38} {errors}")


# --- with a network in front --------------------------------------------------------------------


def _two_passes(features, images, labels, batch):
    """Means first, then scatter around them: each image goes through the network twice."""
    dim = features(images[:batch]).shape[1]

    @functools.partial(jax.jit, donate_argnums=0)
    def add_means(sums, x, y):
        return sums + jax.ops.segment_sum(x, y, 10)

    @functools.partial(jax.jit, donate_argnums=0)
    def add_scatter(scatter, x, y, means):
        rows = x - means[y]
        return scatter + rows.T @ rows

    def two_passes():
        sums = jnp.zeros((10, dim))
        for x, y in batches_of(images, labels, batch):
            sums = add_means(sums, features(x), y)
        counts = np.bincount(labels, minlength=10)[:, None]
        means, scatter = sums / counts, jnp.zeros((dim, dim))
        for x, y in batches_of(images, labels, batch):
            scatter = add_scatter(scatter, features(x), y, means)
        offsets = means - means.mean(0)
        between, within = offsets.T @ offsets / 10, scatter / len(images)
        jax.block_until_ready(
            (jnp.linalg.pinv(within + between) @ between, within @ jnp.linalg.pinv(between))
        )

    return two_passes


def bench_network(samples=10_240, batch=512):
    # The training extra: pip install -e ".[train]"
    from benchmarks.task import plain_task
    from train import evaluate
    from train.config import EvalConfig, ModelConfig, OptimConfig
    from train.step import init_state, predict_layers

    task = plain_task(ModelConfig(name="resnet18", width=16, stem="cifar"), OptimConfig(), 10)
    model = task.model
    images = np.random.default_rng(0).standard_normal((samples, 32, 32, 3), np.float32)
    labels = np.random.default_rng(1).integers(0, 10, samples).astype(np.int32)
    variables = model.init(jax.random.key(0), images[:1], False)
    features = jax.jit(lambda x: model.apply(variables, x, False)[1])
    dim = features(images[:batch]).shape[1]

    def ours():
        vci_jax.measure(features, batches_of(images, labels, batch), 10, progress=False)

    two_passes = _two_passes(features, images, labels, batch)
    state = jax.jit(functools.partial(init_state, task, image_shape=(32, 32, 3)))(jax.random.key(0))
    add = jax.jit(functools.partial(evaluate.add_batch, task), donate_argnums=0)
    present = np.ones(batch, np.float32)

    def monitored():
        tally = evaluate.init_tally(10, {"features": dim}, EvalConfig().blocks)
        evaluate.evaluate(
            tally,
            state,
            (
                {"image": x, "label": y, "mask": present}
                for x, y in batches_of(images, labels, batch)
            ),
            step=add,
            merge=lambda tally: tally,
        )

    def forward():
        for x, _ in batches_of(images, labels, batch):
            jax.block_until_ready(features(x))

    # A training has its weights as arguments; XLA makes more of those that are constants, above.
    predict = jax.jit(lambda state, x: predict_layers(task, state, x)["features"])

    def forward_of_state():
        for x, _ in batches_of(images, labels, batch):
            jax.block_until_ready(predict(state, x))

    name, monitoring = "vci_jax.measure, one pass", "the metrics pass of a training, 16 blocks"
    bare, bare_state = "bare forward pass", "bare forward pass, weights as arguments"
    seconds = alternate(
        {
            "two passes of the same network": two_passes,
            name: ours,
            bare: forward,
            monitoring: monitored,
            bare_state: forward_of_state,
        },
        runs=3,
    )
    show(
        f"ResNet-18, width 16, {samples} images of 32 x 32 (must be at least 1.8x)",
        seconds, name, "two passes of the same network",
    )  # fmt: skip
    for one, other in ((name, bare), (monitoring, bare_state)):
        print(f"    {one}: {seconds[one] / seconds[other]:.3f} forward passes")


def main():
    benches = {"update": bench_update, "whole": bench_whole, "network": bench_network}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="BENCH", help=", ".join(benches))
    names = parser.parse_args().names or list(benches)
    if unknown := set(names) - set(benches):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(benches)}")
    versions = f"jax {jax.__version__}, numpy {np.__version__}"
    versions += f", torch {torch.__version__}" if torch else "; torch is not installed"
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {versions}")
    if torch:
        torch.set_num_threads(os.cpu_count())
    for name in names:
        benches[name]()


if __name__ == "__main__":
    main()
