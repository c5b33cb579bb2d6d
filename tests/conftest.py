"""The strict environment of the suite; set before anything imports jax."""

import importlib.metadata
import os
import pathlib
import signal

os.environ["JAX_PLATFORMS"] = os.environ.get("VCI_TEST_PLATFORM", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache" / "vci_jax" / "xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Optimising programs that run once is three fifths of the suite's time; `make slow` does it for the
# tests that compare numbers.
if os.environ.get("VCI_TEST_OPTIMIZED") != "1":
    _flags = "--xla_backend_optimization_level=0"
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # Others abort at an unknown flag.
        _flags += " --xla_cpu_use_fusion_emitters=false"
        # Each worker has a core: code that is generated in 32 parts only costs more of it.
        _flags += " --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{_flags} {os.environ.get('XLA_FLAGS', '')}".strip()

import jax
import numpy as np
import pytest
from shared_data import SHARED

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Of a job in the background, and handed on to the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def x64():
    """float64 inside the test, as report has it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def resnet20():
    """Real features of a ResNet-20 on CIFAR-10's test set, where they are to be had."""
    path = SHARED / "features" / "resnet20_cifar10_test.npz"
    if not path.exists():
        pytest.skip(f"needs {path.name}, which does not ship with the project")
    with np.load(path) as file:
        return {name: file[name] for name in file.files} | {"path": path}


@pytest.fixture(autouse=True, scope="module")
def _free_programs():
    """Drops compiled programs when there are many: a thousand of them end a process on Linux.

    Each has its own memory maps, of which a process may have 65530 (vm.max_map_count); beyond,
    XLA dies with a segmentation fault or an abort, wherever it happens to be.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists() or len(maps.read_bytes().splitlines()) > 10_000:
        jax.clear_caches()
