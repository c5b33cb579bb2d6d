"""VCI and fuzziness by Cholesky factors alone, where that is proved to be as good.

Both are traces, and a trace needs no eigenvector where nothing has to be cut.

Legend: K classes, D features, W = Sigma_W and R the rows p_k^(1/2) (mu_k - mu_G), both up to one
common factor, B = R^T R; c_j the eigenvalues of W^-1 B; z vectors of signs, for which the mean of
z^T X z is Tr X.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax import whitening
from vci_jax.canonical import PROBES, Scaled, scatter_rounding, trace_probes
from vci_jax.geometry import Geometry
from vci_jax.linalg import matmul


class Trace(NamedTuple):
    """A metric, about by which part rounding may have changed it, and whether nothing was cut."""

    value: Float[Array, ""]
    error: Float[Array, ""]
    complete: Bool[Array, ""]


class _Gram(NamedTuple):
    """G = rows rows^T and J = L^-1 with G = L L^T, with bounds of the eigenvalues of G.

    Rows that are not ``real`` are zero; G has the largest of its diagonal there instead.
    """

    matrix: Float[Array, "K K"]
    inverse: Float[Array, "K K"]
    least: Float[Array, ""]
    most: Float[Array, ""]

    def complete(self, dim: int, noise: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether ``linalg.row_space`` would keep all directions; not if there is no factor.

        What is lost where the smallest are far below the largest is in the error of fuzziness.
        """
        eps = float(np.finfo(self.matrix.dtype).eps)
        floor = ((len(self.matrix) + dim) * eps) ** 2 * self.most
        return self.least > jnp.maximum(floor, noise)


def by_name(geometry: Geometry) -> dict[str, Trace]:
    """Returns ``vci`` and ``fuzziness`` from what a geometry has besides its eigenvectors.

        VCI = Tr[(1 + R W^-1 R^T)^-1] / (K - 1),     fuzziness = Tr[W B^+] / K,

    with B^+ = R^T G^-2 R and G = R R^T, each on the K - 1 directions over the classes in which
    weighted means do not cancel. They are complete where W is proved to have full rank on the
    features that vary, and G rank K - 1, by the cutoffs of ``whitening.whiten`` and
    ``linalg.row_space``: then they are ``metrics.vci`` and ``metrics.fuzziness``.
    """
    data = geometry.scaled
    solver = whitening.solver(*data.covariance, geometry.data_eps, data.noise_within)
    rows, real = _independent(data.rows, geometry.proportion, geometry.present)
    traces = {
        "vci": _vci(data, solver, rows, real),
        "fuzziness": _fuzziness(data, solver, rows, real, geometry.present),
    }
    return {
        name: trace._replace(complete=trace.complete & solver.complete)
        for name, trace in traces.items()
    }


def total_rank(geometry: Geometry) -> Int[Array, ""]:
    """The rank of Sigma_T where W has full rank on the features that vary."""
    varying = jnp.sum(geometry.scaled.scale > 0, dtype=jnp.int32)
    return jnp.minimum(varying, jnp.sum(geometry.moments.count) - 1)


def _independent(
    rows: Float[Array, "K D"], proportion: Float[Array, " K"], present: Bool[Array, " K"]
) -> tuple[Float[Array, "K D"], Bool[Array, " K"]]:
    """The rows in another basis of the classes, of which one is p^(1/2), in which they vanish.

    By the reflection that takes that direction to the largest class. And which rows are real: not
    that one, nor those of absent classes, which are zero.
    """
    centre = jnp.sqrt(proportion)
    largest = jnp.arange(len(centre)) == jnp.argmax(centre)
    mirror = centre + largest
    rows = rows - (2 / jnp.sum(mirror**2)) * mirror[:, None] * matmul(mirror, rows)
    real = present & ~largest
    return jnp.where(real[:, None], rows, 0), real


def _gram(rows: Float[Array, "K D"], real: Bool[Array, " K"]) -> _Gram:
    matrix = matmul(rows, rows.T)
    filling = jnp.where(real, 0, jnp.max(jnp.diagonal(matrix)))
    matrix = matrix + jnp.diag(filling)
    inverse = whitening.inverse_cholesky(matrix)
    apart = jnp.sum(jnp.where(real, 0, 1 / filling))
    return _Gram(
        matrix=matrix,
        inverse=inverse,
        least=1 / whitening.inverse_bound(inverse, apart),
        most=jnp.max(jnp.sum(jnp.abs(matrix), axis=1)),
    )


def _vci(
    data: Scaled,
    solver: whitening.Solver,
    rows: Float[Array, "K D"],
    real: Bool[Array, " K"],
) -> Trace:
    """The mean of 1 / (1 + c_j), with the rounding of ``canonical``'s ``doubt``.

    There A = diag(w) with w_j = c_j / (1 + c_j)^2, so that A^(1/2) z may be R W^-1/2 N z with
    N = (1 + R W^-1 R^T)^-1; and sum_j nu_j m_j <= (sum_j w_j nu_j^2 Tr N^2)^(1/2).
    """
    (num_classes, dim), eps = rows.shape, float(np.finfo(rows.dtype).eps)
    white = matmul(rows * data.scale, solver.inverse.T)
    gram = _gram(white, real)
    core = jnp.where(real, gram.matrix, 0) + jnp.eye(num_classes, dtype=rows.dtype)
    inverse = whitening.inverse_cholesky(core)
    lost = jnp.sum(jnp.where(real, jnp.sum(inverse**2, axis=0), 0))
    probes = jnp.where(real[:, None], trace_probes(num_classes, rows.dtype), 0)
    solved = matmul(inverse.T, matmul(inverse, probes))
    images = matmul(white.T, solved)
    mapped = data.scale[:, None] * matmul(solver.inverse.T, images)
    squares = jnp.sum(images**2, axis=0)
    along = jnp.sum(data.noise[:, None] * mapped**2) * jnp.sum(solved**2)
    doubt = scatter_rounding(data, mapped, squares) + 2 * jnp.sqrt(along) / PROBES
    # Of the factors of W and of N, and of the whitened rows.
    of_solver = dim * solver.bound * jnp.sum(squares)
    of_core = num_classes * (1 + gram.most) * jnp.sum(solved**2)
    doubt += eps * (of_solver + of_core) / PROBES
    size = jnp.sum((rows * data.scale) ** 2) * solver.bound
    doubt += 2 * eps * jnp.sqrt(dim * size * jnp.sum(solved**2) / PROBES)
    noise = jnp.max(data.noise * data.scale**2) * solver.bound
    return Trace(lost / jnp.sum(real), doubt / lost, gram.complete(dim, noise))


def _fuzziness(
    data: Scaled,
    solver: whitening.Solver,
    rows: Float[Array, "K D"],
    real: Bool[Array, " K"],
    present: Bool[Array, " K"],
) -> Trace:
    """Tr[W B^+] / K, with its rounding to first order.

    With Y = R^T G^-1, B^+ = Y Y^T, P = Y R and F = Y^T W Y, it changes by Tr[Y^T dW Y], which
    ``canonical`` bounds by Y z and z^T F z, and by 2 Tr[C dR] with

        C = (1 - P) W Y G^-1 - Y F,     |Tr[C dR]| <= sum_d ||C_d|| ||dR_d||.
    """
    (num_classes, dim), eps = rows.shape, float(np.finfo(rows.dtype).eps)
    unscaled = jnp.where(data.scale > 0, 1 / jnp.where(data.scale > 0, data.scale, 1), 0)
    gram = _gram(rows, real)
    inverse = matmul(gram.inverse.T, gram.inverse)
    unscaled_rows = rows * unscaled
    images = matmul(unscaled_rows, solver.matrix)  # R W, times the scale
    products, twice = matmul(images, unscaled_rows.T), matmul(inverse, inverse)
    trace = jnp.sum(products * twice)
    # What is added may be far larger than the sum, as where features are in other units.
    of_terms = dim * jnp.linalg.norm(products) * jnp.linalg.norm(twice)

    def of_classes(vectors: Array) -> Array:
        return matmul(rows.T, matmul(inverse, vectors))  # Y v

    probes = jnp.where(real[:, None], trace_probes(num_classes, rows.dtype), 0)
    mapped = of_classes(probes)
    forms = matmul(inverse, matmul(images, unscaled[:, None] * mapped))  # F z
    across = unscaled[:, None] * matmul(images.T, matmul(twice, probes))  # W Y G^-1 z
    across -= of_classes(matmul(rows, across))
    slopes = jnp.sum((across - of_classes(forms)) ** 2, axis=1) / PROBES
    doubt = scatter_rounding(data, mapped, jnp.maximum(jnp.sum(probes * forms, axis=0), 0))
    doubt += 2 * jnp.sum(jnp.sqrt(data.noise * slopes))
    error = (doubt + eps * of_terms) / trace + num_classes * eps * gram.most / gram.least
    complete = gram.complete(dim, jnp.max(data.noise)) & (trace > 0)
    return Trace(trace / jnp.sum(present), error, complete)
