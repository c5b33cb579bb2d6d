"""The laws of the numerics of ``vci_jax``: linear algebra, host arrays and counts.

Legend: D = 5 dimensions.
"""

import jax
import jax.numpy as jnp
import numpy as np

from laws import (
    Law,
    big_endian,
    changed,
    misreads_a_row,
    perturbs,
    powers,
    reordered,
    rounds_absolutely,
    saturates,
    times,
    typed,
    without,
)
from vci_jax import arrays, counts, geometry, init, linalg, update, whitening

D = 5


def _matrix():
    root = np.random.default_rng(8).normal(size=(7, D))
    return {"matrix": root.T @ root, "rows": root, "scale": np.ones(D)}


@jax.jit
def _spectral(data):
    matrix, table, scale = (jnp.asarray(data[name]) for name in ("matrix", "rows", "scale"))
    values, vectors = linalg.eigh(matrix)
    axes = linalg.principal_axes(matrix)
    whitener = whitening.whiten(matrix, jnp.zeros_like(matrix), scale, 1e-16)
    space = linalg.row_space(table, D, 1e-16)
    lead, rest = linalg.gram(table)
    total, residual = linalg.add_gram(matrix, jnp.zeros_like(matrix), table)
    exact, tail = linalg.exact_sum(jnp.stack([matrix, lead, matrix]))
    return {
        "eigenvalues": values, "rebuilt": linalg.matmul(vectors * values, vectors.T),
        "axes": axes.values, "gram": lead + rest, "added": total + residual,
        "summed": exact + tail, "squares": space.squares,
        "projector": linalg.matmul(space.basis, space.basis.T),
        "identity": linalg.matmul(whitener.map.T, linalg.matmul(matrix, whitener.map)),
        "kept": whitener.kept, "forms": linalg.quadratic_forms(matrix, table.T),
        "pair": sum(linalg.two_sum(matrix, lead)), "halves": sum(linalg.split_leading(table, 9)),
        "powers": linalg.power_of_two(axes.values),
    }  # fmt: skip


_LINALG = (*(f"vci_jax.linalg.{name}" for name in (
    "matmul", "eigh", "principal_axes", "gram", "add_gram", "two_sum", "exact_sum", "row_space",
    "power_of_two", "quadratic_forms", "split_leading")), "vci_jax.whitening.whiten")  # fmt: skip
_SQUARES = dict.fromkeys(("eigenvalues", "rebuilt", "axes", "gram", "added", "summed", "squares",
                          "pair", "powers"), 1) | {"forms": 2, "halves": 0.5}  # fmt: skip


LINALG = (
    *(Law(_LINALG, f"The unit does not matter: rows times {2.0**power:.2g}.", _matrix, _spectral,
          changed(rows=times(2.0**power), matrix=times(4.0**power), scale=times(2.0**-power)),
          mistake, powers(4.0**power, **_SQUARES))
      for power, mistake in ((40, saturates("matrix", 1e3)), (-40, rounds_absolutely("rows", 9)))),
    Law(_LINALG, "The order of the rows does not matter.", _matrix, _spectral, reordered("rows"),
        misreads_a_row("matrix"), expect=without("forms", "halves")),
    Law(("vci_jax.geometry.underflows",),
        "The range of the squares is the type's, not the data's: common factors up to 1e100.",
        lambda: {"features": np.eye(6), "labels": np.arange(6) // 2},
        lambda d: dict(zip(("some", "every"), geometry.underflows(
            m := update(init(3, 6, dtype=np.float64), d["features"], d["labels"]),
            m.mean - m.mean[0], 2e-16), strict=True)),
        changed(features=times(1e-100)), changed(features=times(1e-160))),
)  # fmt: skip

_ARRAYS = tuple(f"vci_jax.arrays.{name}" for name in (
    "canonicalize_batch", "canonicalize_reals", "canonicalize_labels", "canonicalize_mask",
    "as_native", "is_real", "labelled_rows"))  # fmt: skip
_COUNTS = tuple(f"vci_jax.counts.{name}" for name in ("add_counts", "sum_counts", "class_weight"))


def _raw_arrays():
    return {"features": np.array([[1.0, -2.0], [300.0, 4.0]]), "labels": np.array([0, 11])}


def _read_arrays(data):
    features, labels, mask = arrays.canonicalize_batch(
        data["features"], data["labels"], data["labels"], dtype=np.float64
    )
    native = arrays.as_native("features", data["features"])
    return {"features": np.asarray(features, float), "labels": np.asarray(labels, int),
            "mask": mask, "real": arrays.is_real(native.dtype), "native": native.astype(float),
            "known": arrays.labelled_rows(np.asarray(data["labels"]))}  # fmt: skip


def _parts():
    return {"parts": np.array([[3, 1], [0, 2], [5, 5]]), "classes": np.array([3, 9, 12])}


def _counted(data):
    parts = jnp.asarray(data["parts"], jnp.int32)
    return {"sum": counts.sum_counts(parts),
            "added": counts.add_counts(counts.add_counts(parts[0], parts[1]), parts[2]),
            "weights": counts.class_weight(np.asarray(data["classes"]), 3, np.float64)}  # fmt: skip


HOST = (
    *(Law(_ARRAYS, f"Numbers are what they are in {name}.", _raw_arrays, _read_arrays, change,
          perturbs("features"), rtol=0)
      for name, change in (
          ("64-bit integers", changed(features=typed(np.int64), labels=typed(np.int64))),
          ("long doubles", changed(features=typed(np.longdouble), labels=typed(np.uint64))),
          ("big-endian arrays", changed(features=big_endian, labels=big_endian)),
          ("lists", changed(features=np.ndarray.tolist, labels=np.ndarray.tolist)))),
    Law(("vci_jax.arrays.check_head",), "The classifier may be of any byte order.",
        lambda: {"kernel": np.arange(6.0).reshape(3, 2), "bias": np.arange(2.0)},
        lambda d: dict(zip("kb", arrays.check_head((d["kernel"], d["bias"]), 3, 2), strict=True)),
        changed(kernel=big_endian, bias=big_endian), perturbs("kernel"), rtol=0),
    Law(_COUNTS, "The order of the parts does not matter.", _parts, _counted,
        reordered("parts"), perturbs("parts", 2), rtol=0),
    Law(_COUNTS, "Only the ratios of class counts matter to the weights.", _parts, _counted,
        changed(classes=times(8)), changed(classes=lambda n: n + 1), rtol=1e-12),
)  # fmt: skip

NUMERICS = (*LINALG, *HOST)
