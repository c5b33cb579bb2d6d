"""vci_jax: how collapsed features are, and how well they will transfer.

    moments = vci_jax.init(num_classes, dim)
    moments = vci_jax.jit_update(moments, features, labels)  # or update, in code you jit yourself
    vci_jax.report(moments)["vci"]

The variability collapse index of Xu & Liu (ICML 2023), and the metrics it is compared with.
"""

from vci_jax import agreement
from vci_jax.arrays import canonicalize_batch
from vci_jax.geometry import Geometry, factorize
from vci_jax.jit_update import jit_update
from vci_jax.loss import vci_loss
from vci_jax.measure import measure
from vci_jax.metrics import collapse_metrics
from vci_jax.moments import ClassMoments, class_means, init, merge, merge_axis, update
from vci_jax.per_class import per_class
from vci_jax.report import report
from vci_jax.storage import load, save

__version__ = "0.1.0"

__all__ = [
    "ClassMoments",
    "Geometry",
    "agreement",
    "canonicalize_batch",
    "class_means",
    "collapse_metrics",
    "factorize",
    "init",
    "jit_update",
    "load",
    "measure",
    "merge",
    "merge_axis",
    "per_class",
    "report",
    "save",
    "update",
    "vci_loss",
]
