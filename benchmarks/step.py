"""One training step beside the same network in torch, on this machine's CPU.

    python -m benchmarks.step                     # both networks, about 3 minutes on two cores
    python -m benchmarks.step vit --threads 1     # one of: vit, resnet

The whole step is timed: forward, backward, and the update of the recipe (AdamW with EMA for the
ViT, SGD with Nesterov momentum for the ResNet), in float32, on the same images. The contestants
take turns in one process; the table has the median of the rounds, and the median of the ratios of
each round. Torch runs eagerly, on two layouts for the ResNet. Compilation is left out.

Ours runs on one device with all threads, and on a device a core (``JAX_NUM_CPU_DEVICES=2``, as
``python -m train`` takes it), where each core works through half of the batch: XLA divides single
operations among threads, and many are too small for that. BatchNorm then takes its statistics over
the whole batch with a reduction in every layer, or over each half (``model.bn_group``).

Needs ``pip install torch==2.13.0``.
"""

import argparse
import os
import statistics
import sys
import time
from functools import partial

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import torch
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.task import plain_task
from benchmarks.torch_models import ResNet, ViT
from train.config import ModelConfig, OptimConfig
from train.step import init_state, train_step

NETWORKS = {
    "resnet": ("ResNet-18, width 16, 32 px", 32),
    "vit": ("DeiT-Ti, 64 px", 64),
}
CLASSES = 10


def ours(network, images, labels, devices=1, bn_group=0):
    """A function that takes one step and waits for it."""
    config, recipe = {
        "resnet": (
            ModelConfig(name="resnet18", width=16, stem="cifar", bn_group=bn_group),
            OptimConfig(),
        ),
        "vit": (
            ModelConfig(name="deit_ti"),
            OptimConfig(name="adamw", weight_decay=0.05, decay="kernels", ema=0.9999),
        ),
    }[network]
    task = plain_task(config, recipe, CLASSES)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
    whole, parts = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    step = jax.jit(
        partial(train_step, task),
        in_shardings=(whole, parts),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )
    init = partial(init_state, task, image_shape=images.shape[1:])
    state = jax.jit(init, out_shardings=whole)(jax.random.key(0))
    batch = jax.device_put({"image": images, "label": labels}, parts)

    def run():
        nonlocal state
        state, scalars = step(state, batch)
        jax.block_until_ready((state, scalars))

    return run


def theirs(network, images, labels, layout=torch.contiguous_format):
    """The same step in torch."""
    side = NETWORKS[network][1]
    if network == "vit":
        model = ViT(192, 12, 3, side=side, classes=CLASSES)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    else:
        model = ResNet((2, 2, 2, 2), False, width=16, stem="cifar", classes=CLASSES)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
    model = model.to(memory_format=layout).train()
    images = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    labels = torch.tensor(labels, dtype=torch.long)
    average = [p.detach().clone() for p in model.parameters()] if network == "vit" else []

    def run():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images)[0], labels).backward()
        optimizer.step()
        if average:
            torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1e-4)

    return run


def measure(contestants, rounds):
    """Seconds of every round of each, after two that do not count."""
    seconds = {name: [] for name in contestants}
    for index in range(rounds + 2):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if index >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def bench(network, batch, rounds):
    """Prints the table of one network."""
    title, side = NETWORKS[network]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, side, side, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, batch).astype(np.int32)
    cores = jax.device_count()
    contestants = {
        "torch": theirs(network, images, labels),
        "ours, one device": ours(network, images, labels),
        "ours, a device a core": ours(network, images, labels, devices=cores),
    }
    if network == "resnet":
        contestants["torch, channels last"] = theirs(network, images, labels, torch.channels_last)
        contestants["ours, a device a core, BatchNorm on each"] = ours(
            network, images, labels, devices=cores, bn_group=batch // cores
        )
    seconds = measure(contestants, rounds)
    print(f"\n{title}, batch {batch}: milliseconds a step, and its speed relative to torch's")
    for name, times in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(times, seconds["torch"], strict=True))
        print(f"    {1e3 * statistics.median(times):8.1f}   {ratio:5.2f}x   {name}")


def main():
    parser = argparse.ArgumentParser(description="A training step beside torch's.")
    parser.add_argument("networks", nargs="*", default=[], metavar="network")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2, help="of either")
    options = parser.parse_args()
    # XLA has as many threads as the process may use cores, from the moment it starts.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    jax.config.update("jax_num_cpu_devices", options.threads)
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, jax {jax.__version__}, {options.threads} threads each")
    for network in options.networks or NETWORKS:
        if network not in NETWORKS:
            sys.exit(f"error: {network!r} is none of {', '.join(NETWORKS)}")
        bench(network, options.batch, options.rounds)


if __name__ == "__main__":
    main()
