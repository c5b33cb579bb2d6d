"""Compiles the device programs for TPU v5e 2x4 without a TPU, and prints what they cost.

    python -m tools.compile_tpu --dim 512 2048 --classes 1000

Needs the TPU compiler: ``pip install "jax[tpu]"``. ``update`` runs on one partial state a device,
``finish`` is ``collapse_metrics`` on a merged state. ``floats`` is what the program holds in a
device's main memory (arguments, results and temporaries, donated buffers once), the batch apart,
and ``of bound`` its share of 3 D^2 + 3 K D.

The exit code is 1 if a program takes longer than ``--seconds`` to compile, or if ``update`` has a
collective or exceeds the bound. ``finish`` cannot keep the bound where K < D: the state is
2 D^2 + 2 K D floats, and the Jacobi eigensolver works on two more D x D matrices.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import vci_jax
from tools.compile import hlo, topology


class Cost(NamedTuple):
    """What one compiled program takes, a device."""

    program: str
    dim: int
    seconds: float
    collectives: int
    floats: int
    bound: int


def main() -> int:
    """Parses, compiles, prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="Compile for TPU v5e 2x4 without a TPU.")
    parser.add_argument("--dim", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1024, help="rows of a batch, a device")
    parser.add_argument("--seconds", type=float, default=60.0, help="longest compile allowed")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    mesh = tpu_mesh()
    print("program   D     K  compile s  collectives      floats  of bound")
    passed = True
    for dim in options.dim:
        for cost in costs(mesh, options.classes, dim, options.rows):
            passed &= keeps(cost, options.seconds)
            print(
                f"{cost.program:7} {dim:4} {options.classes:5}  {cost.seconds:9.1f}"
                f"  {cost.collectives:11}  {cost.floats:10,}  {cost.floats / cost.bound:8.2f}",
                flush=True,
            )
    return 0 if passed else 1


def tpu_mesh() -> Mesh:
    """Returns the eight chips of a v5e 2x4, as the compiler knows them."""
    _, devices = topology.find("v5e:2x4")
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def costs(mesh: Mesh, num_classes: int, dim: int, rows: int) -> Iterator[Cost]:
    """Compiles ``update`` on one partial state a device, then the on-device finish."""
    parts = mesh.shape["data"]
    state = jax.eval_shape(lambda: vci_jax.init(num_classes, dim))
    stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((parts, *leaf.shape), leaf.dtype), state)
    batch = (
        jax.ShapeDtypeStruct((parts, rows, dim), jnp.float32),
        jax.ShapeDtypeStruct((parts, rows), jnp.int32),
    )
    update = jax.jit(jax.vmap(vci_jax.update), donate_argnums=0)
    split, copied = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    yield _cost("update", dim, update, _placed((stack, *batch), split), rows * (dim + 1))
    yield _cost("finish", dim, jax.jit(vci_jax.collapse_metrics), _placed((state,), copied), 0)


def keeps(cost: Cost, seconds: float) -> bool:
    """Whether a program keeps what is promised of it."""
    frugal = cost.collectives == 0 and cost.floats <= cost.bound
    return cost.seconds <= seconds and (frugal or cost.program != "update")


def collectives(compiled: Any) -> list[str]:
    """Returns the kinds of the operations by which a program moves data, one entry for each."""
    found = hlo.collectives(hlo.parse(compiled.as_text()))
    return [key.partition("/")[0] for key, talk in found.items() for _ in range(talk.count)]


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, tree)


def _cost(program: str, dim: int, function: Any, arguments: Any, batch: int) -> Cost:
    num_classes = arguments[0].count.shape[-1]
    start = time.monotonic()
    compiled = function.lower(*arguments).compile()
    seconds = time.monotonic() - start
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    bound = 3 * dim**2 + 3 * num_classes * dim
    return Cost(program, dim, seconds, len(collectives(compiled)), held // 4 - batch, bound)


if __name__ == "__main__":
    sys.exit(main())
