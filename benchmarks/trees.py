"""The hot paths of this checkout beside those of another one: does a change cost speed?

    git worktree add ../before COMMIT
    python -m benchmarks.trees ../before

One process a checkout at a time, in turn, each with a first run that is not counted. Both run in
this environment, so that jax is the same. Printed are the medians of all rounds in seconds, the
ratio of these, and that of the least processor time of a run, which other work on the machine
changes less; on one core (``taskset -c 0``, ``OMP_NUM_THREADS=1``) least of all.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
ROUNDS, RUNS = 3, 7


def workloads():
    """Functions by name, each ready to run again and again."""
    import jax
    import numpy as np

    import vci_jax

    try:
        from vci_jax.probe import fit_path
    except ImportError:  # where the solver was until November 2026
        from probes.logistic import fit_path

    rng = np.random.default_rng(0)

    def state(rows, dim, classes):
        labels = np.arange(rows, dtype=np.int32) % classes
        features = rng.normal(size=(rows, dim)).astype(np.float32)
        features += 2 * rng.normal(size=(classes, dim)).astype(np.float32)[labels]
        start = vci_jax.update(vci_jax.init(classes, dim), features, labels)
        return start, jax.numpy.asarray(features), jax.numpy.asarray(labels)

    update = jax.jit(vci_jax.update)
    for rows, dim, classes in ((8192, 2048, 1000), (512, 512, 100)):
        start, features, labels = state(rows, dim, classes)
        yield (
            f"update, N = {rows}, D = {dim}, K = {classes}",
            lambda s=start, f=features, y=labels: jax.block_until_ready(update(s, f, y)),
        )
    for rows, dim, classes in ((20_000, 1024, 100), (5000, 256, 10)):
        start, *_ = state(rows, dim, classes)
        yield f"report, D = {dim}, K = {classes}", lambda s=start: vci_jax.report(s)
    dim, classes = 512, 100
    _, features, labels = state(10_000, dim, classes)
    start = vci_jax.init(classes, dim)
    parts = [jax.device_get(update(start, features[b::16], labels[b::16])) for b in range(16)]
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
    yield (
        f"vci_interval of 16 blocks, D = {dim}, K = {classes}",
        lambda: vci_jax.report(stack, only=["vci", "vci_interval"]),
    )
    _, features, labels = state(10_000, 64, 10)
    features, labels = np.asarray(features) / 4, np.asarray(labels)
    penalties = np.logspace(-6, 6, 97) / len(labels)
    yield "fit_path, N = 10000, D = 64, K = 10", lambda: fit_path(features, labels, penalties)


def child():
    """Prints the seconds of every run, and its processor time, as JSON."""
    seconds = {}
    for name, function in workloads():
        function()
        seconds[name] = []
        for _ in range(RUNS):
            start = time.perf_counter(), time.process_time()
            function()
            seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    print(json.dumps(seconds))


def measured(tree):
    """The seconds and processor times of one process in a checkout."""
    env = dict(os.environ, PYTHONPATH=str(tree), JAX_PLATFORMS="cpu")
    command = [sys.executable, __file__, "--child"]
    done = subprocess.run(command, cwd=tree, env=env, text=True, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("other", type=pathlib.Path, nargs="?", help="another checkout")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child()
    if options.other is None:
        parser.error("name the other checkout.")
    trees = {"here": ROOT, "there": options.other.resolve()}
    seconds = {tree: {} for tree in trees}
    for _ in range(ROUNDS):
        for tree, path in trees.items():
            for name, runs in measured(path).items():
                seconds[tree].setdefault(name, []).extend(runs)
    print(f"{'':46} {'here':>9} {'there':>9}  ratio  of processor time")
    for name, runs in seconds["here"].items():
        (here, cpu), (there, other_cpu) = (
            (statistics.median(wall for wall, _ in of_one), min(cpu for _, cpu in of_one))
            for of_one in (runs, seconds["there"][name])
        )
        row = f"{name:46} {here:8.4f}s {there:8.4f}s  {here / there:5.2f}"
        print(f"{row} {cpu / other_cpu:18.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
