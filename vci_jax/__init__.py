"""vci_jax: how collapsed features are, and how well they will transfer.

    vci_jax.vci(features, labels)             # arrays of any library
    vci_jax.measure_arrays(features, labels)  # every metric, with caveats and an interval
    vci_jax.compare({"a": (features_a, labels), "b": (features_b, labels)})

    moments = vci_jax.init(num_classes, dim)  # or in one pass over batches
    moments = vci_jax.jit_update(moments, features, labels)  # or update, in code you jit yourself
    vci_jax.report(moments).vci

The variability collapse index of Xu & Liu (ICML 2023), and the metrics it is compared with.
``METRICS`` says what each metric is.
"""

from vci_jax import interrupt as interrupt  # Before JAX, whose import Ctrl-C may interrupt.

# isort: split
import importlib
from typing import Any

from vci_jax import agreement
from vci_jax._report import Report, report
from vci_jax.arrays import canonicalize_batch
from vci_jax.catalogue import METRICS
from vci_jax.compare import Comparison, compare
from vci_jax.errors import Caveat, VCIError
from vci_jax.files import read_features
from vci_jax.geometry import Geometry, factorize
from vci_jax.in_memory import measure_arrays, vci, vci_adjusted
from vci_jax.jit_update import jit_update
from vci_jax.loss import vci_loss
from vci_jax.measure import measure
from vci_jax.metrics import collapse_metrics
from vci_jax.moments import ClassMoments, class_means, init, merge, merge_axis, update
from vci_jax.monitor import Monitor
from vci_jax.per_class import per_class
from vci_jax.storage import load, save

__version__ = "0.1.0"

__all__ = [
    "METRICS",
    "Caveat",
    "ClassMoments",
    "Comparison",
    "Geometry",
    "Monitor",
    "Report",
    "VCIError",
    "agreement",
    "canonicalize_batch",
    "class_means",
    "collapse_metrics",
    "compare",
    "factorize",
    "init",
    "jit_update",
    "load",
    "measure",
    "measure_arrays",
    "merge",
    "merge_axis",
    "per_class",
    "read_features",
    "report",
    "save",
    "update",
    "vci",
    "vci_adjusted",
    "vci_loss",
]


def __getattr__(name: str) -> Any:
    """Imports ``vci_jax.probe`` at its first use: it is half of the library."""
    if name == "probe":
        return importlib.import_module("vci_jax.probe")
    raise AttributeError(f"module 'vci_jax' has no attribute {name!r}")
