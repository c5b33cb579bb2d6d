"""Two real processes, each with its half of the data, give the metrics of one.

Run as a program, this file is one of those processes.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from processes import free_port, wait

import vci_jax

CLASSES, DIM, ROWS, STEPS, PROCESSES, DEVICES = 6, 10, 480, 5, 2, 2
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
ROOT = pathlib.Path(__file__).parents[2]


def data():
    rng = np.random.default_rng(0)
    labels = np.sort(rng.choice(CLASSES, ROWS, p=[0.3, 0.25, 0.15, 0.15, 0.1, 0.05]))
    features = 3 + rng.normal(size=(CLASSES, DIM))[labels] + rng.normal(size=(ROWS, DIM))
    return features.astype(np.float32), labels.astype(np.int32)


def half(rank):
    """What process ``rank`` reads, in batches: half of the rows, and of sorted labels."""
    features, labels = data()
    rows = np.split(np.arange(ROWS), PROCESSES)[rank]
    return [(features[batch], labels[batch]) for batch in np.split(rows, STEPS)]


def measure_together(rank, port, dtype, folder):
    """Part of one program on all devices of both processes; the merge alone communicates."""
    jax.distributed.initialize(f"127.0.0.1:{port}", PROCESSES, rank, initialization_timeout=60)
    assert jax.device_count() == PROCESSES * jax.local_device_count() == PROCESSES * DEVICES
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    copied = NamedSharding(mesh, PartitionSpec())

    def share(part):
        return jax.make_array_from_process_local_data(split, np.asarray(part))

    own = [vci_jax.init(CLASSES, DIM, dtype=dtype)] * DEVICES
    stack = jax.tree.map(lambda *leaves: share(np.stack(leaves)), *own)
    update = jax.jit(jax.vmap(vci_jax.update), donate_argnums=0)
    for features, labels in half(rank):
        features = features.reshape(DEVICES, -1, DIM)
        stack = update(stack, share(features), share(labels.reshape(DEVICES, -1)))
    refusals = [refusal(vci_jax.report, stack), refusal(vci_jax.save, folder / "no.npz", stack)]
    moments = jax.jit(vci_jax.merge_axis, out_shardings=copied)(stack)
    vci_jax.save(folder / f"merged{rank}.npz", moments)
    (folder / f"report{rank}.json").write_text(json.dumps(vci_jax.report(moments)))
    (folder / f"refusals{rank}.json").write_text(json.dumps(refusals))
    jax.distributed.shutdown()


def measure_alone(rank, port, dtype, folder):
    """A pass of one's own that knows of no other process and leaves its state in a file."""
    del port
    update, moments = jax.jit(vci_jax.update), vci_jax.init(CLASSES, DIM, dtype=dtype)
    for batch in half(rank):
        moments = update(moments, *batch)
    vci_jax.save(folder / f"part{rank}.npz", moments)


def refusal(function, *arguments):
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return "accepted"


def run_processes(how, dtype, folder):
    """Runs both processes to their end, or to the end of all of them if one fails."""
    port, program = free_port(), [sys.executable, __file__, how]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_NUM_CPU_DEVICES": str(DEVICES),
        "JAX_ENABLE_X64": str(int(dtype == "float64")),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    logs = [folder / f"log{rank}" for rank in range(PROCESSES)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            with open(log, "wb") as stream:
                arguments = [*program, str(rank), str(port), dtype, str(folder)]
                processes.append(
                    subprocess.Popen(arguments, env=environment, stdout=stream, stderr=stream)
                )
        codes = wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [0] * PROCESSES, "\n".join(log.read_text()[-2000:] for log in logs)


def numbers(report):
    """Every number of a report, spectra included."""
    assert report["warnings"] == []
    spectra = {f"spectrum_{name}": part for name, part in report["spectrum"].items()}
    words = ("spectrum", "warnings", "weighting")
    return spectra | {name: value for name, value in report.items() if name not in words}


@pytest.fixture(scope="module")
def expected():
    """One batch in one process, in float64."""
    with jax.enable_x64(True):
        state = vci_jax.init(CLASSES, DIM, dtype=jnp.float64)
        result = numbers(vci_jax.report(jax.jit(vci_jax.update)(state, *data())))
    assert (result["samples"], result["classes"], result["kept_rank"]) == (ROWS, CLASSES, DIM)
    return result


def assert_same(result, expected, dtype):
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=TOLERANCE[dtype], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_processes_merge_over_the_network(dtype, expected, tmp_path):
    """Both hold the metrics of all data afterwards, to the bit the same; neither can before."""
    run_processes("together", dtype, tmp_path)
    first, second = ((tmp_path / f"report{rank}.json").read_text() for rank in range(PROCESSES))
    assert first == second
    assert_same(numbers(json.loads(first)), expected, dtype)
    for rank in range(PROCESSES):
        merged = vci_jax.load(tmp_path / f"merged{rank}.npz")
        assert merged.mean.dtype == dtype
        assert merged.count.tolist() == np.bincount(data()[1]).tolist()
        refusals = json.loads((tmp_path / f"refusals{rank}.json").read_text())
        assert all("several processes" in words and "merge" in words for words in refusals)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_processes_merge_through_files(dtype, expected, tmp_path):
    """No network: each process saves its state, a third (this one) loads and merges them."""
    run_processes("alone", dtype, tmp_path)
    with jax.enable_x64(dtype == "float64"):
        parts = [vci_jax.load(tmp_path / f"part{rank}.npz") for rank in range(PROCESSES)]
        assert all(0 < np.count_nonzero(part.count) < CLASSES for part in parts)
        merged = jax.jit(vci_jax.merge)(*parts)
        assert merged.mean.dtype == dtype
        assert_same(numbers(vci_jax.report(merged)), expected, dtype)


if __name__ == "__main__":
    how, rank, port, dtype, folder = sys.argv[1:]
    measure = {"together": measure_together, "alone": measure_alone}[how]
    measure(int(rank), int(port), dtype, pathlib.Path(folder))
