"""Whitening of a covariance: W with W^T A W = I on the directions that are above rounding.

By Cholesky's factor where that proves that nothing has to be cut, and by eigenvectors otherwise.

Legend: D feature dimension.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vci_jax import linalg
from vci_jax.linalg import matmul
from vci_jax.placement import alike

_BLOCK = 256  # rows that LAPACK factors at once


class Whitener(NamedTuple):
    """``map`` with map^T A map = I on the ``kept`` directions.

    The other columns are scaled by the cutoff^(-1/2) instead: A is known to be small there, but no
    better than that. ``grey`` of them lie within a factor of four of the cutoff.
    """

    map: Float[Array, "D D"]
    kept: Bool[Array, " D"]
    grey: Int[Array, ""]


class Solver(NamedTuple):
    """Cholesky's factor of the scaled covariance, ``matrix`` = L L^T, as its ``inverse`` L^-1.

    ``complete`` proves that ``whiten`` would keep every direction of the coordinates in use, and
    ``bound`` is no less than the largest eigenvalue of the inverse matrix on them.
    """

    inverse: Float[Array, "D D"]
    matrix: Float[Array, "D D"]
    bound: Float[Array, ""]
    complete: Bool[Array, ""]


def whiten(
    matrix: Float[Array, "D D"],
    tail: Float[Array, "D D"],
    scale: Float[Array, " D"],
    data_eps: float,
    noise: Float[Array, ""] | float = 0.0,
) -> Whitener:
    """Whitens the covariance ``matrix + tail``, known to ``data_eps`` relative to its diagonal.

    With S = diag(scale) and S A S = V L V^T, the map is W = S V max(L, cutoff)^(-1/2). Bringing
    the diagonal to about one first is an invertible map, so the metrics do not notice, while the
    condition number on real features falls 36-fold (48 192 to 1 342).

    The cutoff is the sum of two errors in L: that of the eigensolver, D eps L_max (the LAPACK
    and NumPy convention), and that of the entries of A, which are sums with independent rounding
    errors and so grow like sqrt(D) in the spectral norm: max(8, sqrt(D)) data_eps. The factor 8
    covers the error of one long sum; it is a heuristic, checked in test_linalg.py. Float64 sums
    carry 20 more bits in ``tail`` (see ``gram``), and a second round uses them.

    Args:
      matrix: symmetric and positive semi-definite.
      tail: the low-order part of its entries, or zeros.
      scale: powers of two, so that scaling is exact, near diag(A)^(-1/2); zero drops a coordinate.
      data_eps: unit roundoff of the sums that made the matrix.
      noise: what else the scaled matrix may be off by in the spectral norm; added to the cutoff.
    """
    dtype = matrix.dtype
    square = scale * scale[:, None]
    matrix, tail = matrix * square, tail * square
    relative, absolute = _cutoffs(matrix, data_eps, noise)
    root, kept, grey = _inverse_root(matrix + tail, relative, absolute)
    if dtype == jnp.float64 and data_eps < 1e-12:
        root, kept, grey = _whiten_again(root, matrix, tail, noise / absolute)
    return Whitener(map=scale[:, None] * root, kept=kept, grey=grey)


def solver(
    matrix: Float[Array, "D D"],
    tail: Float[Array, "D D"],
    scale: Float[Array, " D"],
    data_eps: Float[Array, ""] | float,
    noise: Float[Array, ""] | float = 0.0,
) -> Solver:
    """Factors what ``whiten`` takes, and says whether that is proved to do what it would do.

    There is one round for float64 moments as well: a direction is known to eps ``bound`` of itself.
    """
    matrix = (matrix + tail) * scale * scale[:, None]
    relative, absolute = _cutoffs(matrix, data_eps, noise)
    sizes = _row_sizes(matrix)
    inverse, bound = _by_cholesky(matrix, sizes == 0)
    usual = jnp.all((sizes == 0) == (scale == 0))
    complete = usual & (1 / bound > relative * jnp.max(sizes) + absolute)  # No if it is NaN.
    return Solver(inverse=inverse, matrix=matrix, bound=bound, complete=complete)


def inverse_cholesky(matrix: Float[Array, "D D"]) -> Float[Array, "D D"]:
    """L^-1, with A = L L^T; NaN where A is not positive definite. Reads the lower half alone.

    By halves, so that nearly all the work is in products: at D = 2048 it takes 0.6 times as long as
    LAPACK's factor and a triangular solve.
    """
    dim = matrix.shape[0]
    if dim <= _BLOCK:
        lower = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
        identity = jnp.eye(dim, dtype=matrix.dtype)
        return jax.lax.linalg.triangular_solve(lower, identity, left_side=True, lower=True)
    half = -(-dim // 2)
    first = inverse_cholesky(matrix[:half, :half])
    below = matmul(matrix[half:, :half], first.T)  # of L
    second = inverse_cholesky(matrix[half:, half:] - matmul(below, below.T))
    corner = -matmul(second, matmul(below, first))
    return jnp.block([[first, jnp.zeros_like(corner.T)], [corner, second]])


def inverse_bound(
    inverse: Float[Array, "D D"], apart: Float[Array, ""] | Int[Array, ""]
) -> Float[Array, ""]:
    """No less than the largest eigenvalue of A^-1, from L^-1: two bounds of its norm, squared.

    Args:
      inverse: L^-1.
      apart: sum of the squares of entries that belong to coordinates coupled to no other.
    """
    sizes = jnp.abs(inverse)
    norms = jnp.max(jnp.sum(sizes, axis=0)) * jnp.max(jnp.sum(sizes, axis=1))
    return jnp.minimum(norms, jnp.sum(sizes**2) - apart)


def _cutoffs(
    matrix: Float[Array, "D D"],
    data_eps: Float[Array, ""] | float,
    noise: Float[Array, ""] | float,
) -> tuple[float, Float[Array, ""]]:
    """What is rounding of an eigenvalue of the scaled matrix: a part of the largest, and a sum."""
    dim, dtype = matrix.shape[0], matrix.dtype
    relative = dim * float(np.finfo(dtype).eps)
    return relative, max(8.0, dim**0.5) * data_eps + jnp.asarray(noise, dtype)


def _row_sizes(matrix: Float[Array, "D D"]) -> Float[Array, " D"]:
    """Sums of |A| by row: the largest is no less than any eigenvalue."""
    return jnp.sum(jnp.abs(matrix), axis=1)


def _by_cholesky(
    matrix: Float[Array, "D D"], empty: Bool[Array, " D"]
) -> tuple[Float[Array, "D D"], Float[Array, ""]]:
    """L^-1, with ones for coordinates that are zero throughout, and the bound on the others.

    The bound is NaN if there is no L.
    """
    inverse = inverse_cholesky(matrix + jnp.diag(empty.astype(matrix.dtype)))
    return inverse, inverse_bound(inverse, jnp.sum(empty))


def _inverse_root(
    matrix: Float[Array, "D D"], relative: float, absolute: Float[Array, ""] | float
) -> tuple[Float[Array, "D D"], Bool[Array, " D"], Int[Array, ""]]:
    """X with X^T A X = I on directions kept: eigenvalues above relative * largest + absolute.

    And how many of the others lie within a factor of four of that cutoff.

    Eigenvectors are only needed where something is cut. With A = L L^T and X = L^(-T),

        smallest eigenvalue >= 1 / ||L^-1||_F^2,     largest eigenvalue <= max row sum of |A|

    prove that nothing is, at a fraction of the cost; so do, closer in float32, the norms of rows
    and columns, ||L^-1||_1 ||L^-1||_inf. X is triangular: a feature that dwarfs the others stays
    out of the columns before its own. Coordinates that are zero throughout (units that never fire)
    are cut without an eigensolver. On a TPU, in float32, it has the eigensolver alone: one program
    less to compile.
    """

    def spectral(matrix: Array, cutoff_at: Array) -> tuple[Array, Array, Array]:
        """Whitens by eigenvectors, without those below the cutoff."""
        values, vectors = linalg.eigh(matrix)
        cutoff = relative * values[0] + cutoff_at
        kept = values > cutoff
        grey = jnp.sum(~kept & (values > cutoff / 4), dtype=jnp.int32)
        return vectors * jax.lax.rsqrt(jnp.maximum(values, cutoff)), kept, grey

    def triangular(matrix: Array, cutoff_at: Array) -> tuple[Array, Array, Array]:
        """Whitens by a Cholesky factor, if that is proved to be far from singular."""
        sizes = _row_sizes(matrix)
        empty = sizes == 0
        inverse, bound = _by_cholesky(matrix, empty)
        floor = relative * jnp.max(jnp.diagonal(matrix)) + cutoff_at
        root = jnp.where(empty, jax.lax.rsqrt(floor), 1) * inverse.T
        proven = 1 / bound > relative * jnp.max(sizes) + cutoff_at  # No if it is NaN.
        none = alike(jnp.zeros((), jnp.int32), matrix, proven)
        result: tuple[Array, Array, Array] = jax.lax.cond(
            proven, lambda: (root, ~empty, none), lambda: spectral(matrix, cutoff_at)
        )
        return result

    least = jnp.asarray(absolute, matrix.dtype)
    if matrix.dtype == jnp.float64:
        return triangular(matrix, least)
    result: tuple[Array, Array, Array] = jax.lax.platform_dependent(
        matrix, least, tpu=spectral, default=triangular
    )
    return result


def _whiten_again(
    root: Float[Array, "D D"],
    matrix: Float[Array, "D D"],
    tail: Float[Array, "D D"],
    noise: Float[Array, ""],
) -> tuple[Float[Array, "D D"], Bool[Array, " D"], Int[Array, ""]]:
    """Whitens root^T A root, near the identity, after a first whitening with rounding.

    One eigensolver is lost below eps times the largest eigenvalue. Dividing the resolved
    directions out and solving again resolves the rest, if root^T A root is good to more digits
    than were cancelled: A root is formed from exact leading products, which leaves an error of
    2^-20 times the first cutoff. Below 8 times that, or below the part of the cutoff that was
    ``noise``, directions are not kept.
    """
    bits = linalg.exact_bits(matrix.shape[0])
    lead, rest = (part.T for part in linalg.split_leading(matrix, bits))  # units by row
    root_lead, root_rest = linalg.split_leading(root, bits)
    image = matmul(lead, root_lead) + (matmul(lead, root_rest) + matmul(rest + tail, root))
    again, kept, grey = _inverse_root(matmul(root.T, image), 0, jnp.maximum(8 * 2.0**-20, noise))
    return matmul(root, again), kept, grey
