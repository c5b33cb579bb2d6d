"""All the eigen work: relative cutoffs that are written down, and ranks that are returned.

Pseudo-inverses are never formed. The within-class scatter is whitened (``whitening.py``); the span
of a few rows comes from the smaller of its two Gram matrices. Both say how many directions they
kept, so a cutoff can never act unseen.
``jnp.linalg.pinv`` hides its cutoff (10 D eps), which on real float32 features moves VCI by 7 %.

Legend: D feature dimension, R rows, r largest number of directions asked for.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_HIGHEST = jax.lax.Precision.HIGHEST
_Tree = TypeVar("_Tree")
_Solver = Callable[[Array], tuple[Array, Array]]


class Axes(NamedTuple):
    """Eigenvalues, descending and never negative, and eigenvectors (columns)."""

    values: Float[Array, " D"]
    vectors: Float[Array, "D D"]


class RowSpace(NamedTuple):
    """Orthonormal ``basis`` of the span of rows, with squared singular values.

    They descend, but for those that are equal to rounding.

    Columns that are not ``kept``, and their ``squares``, are zero; ``floor`` is the largest square
    that the arithmetic alone could hide.
    """

    basis: Float[Array, "D r"]
    squares: Float[Array, " r"]
    kept: Bool[Array, " r"]
    floor: Float[Array, ""]


def matmul(a: Array, b: Array) -> Array:
    """Matrix product in full precision: accelerators otherwise multiply float32 in bfloat16.

    Only ``Precision.HIGHEST`` says so on every platform: XLA for TPU accepts the algorithm presets
    (``F32_F32_F32`` and the like) and compiles a single bfloat16 product.
    """
    if a.ndim == b.ndim == 2 and a.shape[0] > 512:
        product: Array = jax.lax.platform_dependent(a, b, tpu=_matmul_tiled, default=_matmul)
        return product
    return _matmul(a, b)


def host() -> jax.Device:
    """The device for float64 work between programs: the CPU, or what there is without one.

    Raises:
      RuntimeError: JAX was told to leave the CPU out, and a TPU has no float64.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        device = jax.local_devices()[0]
    if device.platform == "tpu":
        platforms = os.environ.get("JAX_PLATFORMS", "tpu")
        raise RuntimeError(
            f"float64 work needs the CPU, but JAX_PLATFORMS={platforms!r} leaves it out: set "
            f'JAX_PLATFORMS="{platforms},cpu".'
        )
    return device


def widen(tree: _Tree) -> _Tree:
    """The arrays of a tree with floats in float64; needs ``jax.enable_x64``."""

    def wide(leaf: Any) -> Array:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, jnp.float64 if floating else leaf.dtype)

    widened: _Tree = jax.tree.map(wide, tree)
    return widened


def eigh(matrix: Float[Array, "D D"]) -> tuple[Float[Array, " D"], Float[Array, "D D"]]:
    """Eigenvalues, descending, and eigenvectors (columns) of a symmetric matrix.

    On TPU the Jacobi algorithm is asked for: the default one takes minutes to compile.
    """
    pair: tuple[Array, Array] = jax.lax.platform_dependent(
        (matrix + matrix.T) / 2, tpu=_eigh_jacobi, default=_eigh_descending
    )
    return pair


def principal_axes(covariance: Float[Array, "D D"]) -> Axes:
    """Axes of a positive semi-definite matrix; what rounding made negative becomes zero."""
    values, vectors = eigh(covariance)
    return Axes(jnp.maximum(values, 0), vectors)


def gram(
    rows: Float[Array, "N D"], others: Float[Array, "N E"] | None = None
) -> tuple[Float[Array, "D E"], Float[Array, "D E"]]:
    """rows^T others as a sum of two matrices, the second far smaller than the first.

    In float32 it is one product, and zero. In float64 the product is good to about 1e-22 rather
    than 1e-16: each column splits into its leading bits a, few enough that every partial sum of
    a^T a is exact in any order, and the rest b; then rows^T rows = a^T a + C + C^T with
    C = (a + b/2)^T b, whose own rounding is that much smaller (Ozaki et al., 2012). It is what
    keeps VCI invariant to 1e-8 under maps of condition number 1e6, which a plain Gram matrix
    squares to 1e12; the price is a second product, or two where ``others`` are not the rows.
    """
    if rows.dtype != jnp.float64:
        return _matmul(rows.T, rows if others is None else others), jnp.zeros((), rows.dtype)
    lead, rest = split_leading(rows, bits := exact_bits(rows.shape[0]))
    if others is None:
        cross = matmul((lead + rest / 2).T, rest)
        return _matmul(lead.T, lead), cross + cross.T
    other_lead, other_rest = split_leading(others, bits)
    cross = matmul((lead + rest / 2).T, other_rest)
    return _matmul(lead.T, other_lead), cross + matmul(rest.T, other_lead + other_rest / 2)


def add_gram(
    scatter: Float[Array, "D E"],
    residual: Float[Array, "D E"],
    rows: Float[Array, "N D"],
    others: Float[Array, "N E"] | None = None,
) -> tuple[Float[Array, "D E"], Float[Array, "D E"]]:
    """Adds rows^T others, by default rows^T rows, to a compensated sum."""
    product, tail = gram(rows, others)
    if tail.ndim == 0:  # nothing below the product's own rounding: one sum is enough
        return two_sum(scatter, product + residual)
    scatter, rounding = two_sum(scatter, product)
    return two_sum(scatter, residual + rounding + tail)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Knuth's error-free sum: a + b equals the rounded sum plus the returned residual."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def exact_sum(parts: Float[Array, "P D D"]) -> tuple[Float[Array, "D D"], Float[Array, "D D"]]:
    """Sum over the leading axis as a sum of two matrices, the second far smaller than the first.

    Leading bits, few enough that their sum is exact in any order, and the rest are summed apart
    (Demmel & Nguyen, 2013): compensated like ``two_sum``, but a plain reduction over devices.
    """
    digits = int(np.finfo(parts.dtype).nmant) - max(parts.shape[0] - 1, 1).bit_length()
    lead, rest = split_leading(parts, digits)
    return jnp.sum(lead, axis=0), jnp.sum(rest, axis=0)


def row_space(
    rows: Float[Array, "R D"],
    size: int,
    data_eps: float,
    noise: Float[Array, " D"] | None = None,
) -> RowSpace:
    """Basis of the span of rows, through the smaller Gram matrix, and no worse than an SVD.

    With rows = Q diag(s) V^T: if R < D, eigh(rows rows^T) gives Q, and the rows of Q^T rows are
    s V^T; otherwise eigh(rows^T rows) gives V. Squared singular values are then taken as squared
    norms, which are right to eps each, where eigenvalues are right to eps max s^2. Directions with
    s^2 = t max s^2 come out turned towards each other by eps / t. Where that is a tenth of what
    metrics promise they are resolved: they are projected out of the rows, and the rest is solved
    again, so that all are known to eps max s, as by an SVD. One round is what most data take.

    A direction v is kept if s^2 > sum_d v_d^2 noise_d, and s above (R + D) eps max s.

    Args:
      rows: any matrix; pass centred means, not a covariance.
      size: r, at most min(R, D).
      data_eps: unit roundoff of the sums that made the rows.
      noise: variance of the rounding of each coordinate, summed over the rows; by default that of
        8 ``data_eps`` relative to the coordinate's own size.
    """
    num_rows, dim = rows.shape
    wide = num_rows < dim
    if noise is None:
        noise = (8 * data_eps) ** 2 * jnp.sum(rows**2, axis=0)
    vectors, scores, graded = _right_vectors(rows.T if wide else rows, size)
    squares = jnp.sum(scores**2, axis=0)
    basis = scores * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1)) if wide else vectors
    basis = jax.lax.cond(graded, orthonormal, lambda columns: columns, basis)
    floor = ((num_rows + dim) * float(np.finfo(rows.dtype).eps)) ** 2 * jnp.max(squares)
    kept = squares > jnp.maximum(floor, matmul(noise, basis**2))  # strict: zeros keep nothing
    return RowSpace(
        basis=jnp.where(kept, basis, 0),
        squares=jnp.where(kept, squares, 0),
        kept=kept,
        floor=floor,
    )


def orthonormal(columns: Float[Array, "D r"]) -> Float[Array, "D r"]:
    """Makes nearly orthonormal columns orthonormal, each to those before it.

    In that order, because columns of a later round hold rounding of the largest directions.
    """
    basis, triangle = jnp.linalg.qr(columns)
    return basis * jnp.where(jnp.diagonal(triangle) < 0, -1, 1)


def _right_vectors(
    tall: Float[Array, "M n"], size: int
) -> tuple[Float[Array, "n r"], Float[Array, "M r"], Bool[Array, ""]]:
    """Right singular vectors V of the ``size`` largest singular values, A V, zeros beyond.

    And whether it took more than a single round.
    """
    dtype = tall.dtype
    eps = float(np.finfo(dtype).eps)
    resolved = eps * (1e9 if dtype == jnp.float64 else 1e4)
    least = (eps * sum(tall.shape)) ** 2

    def solve(rest: Array, room: Array | int) -> tuple[Array, ...]:
        """Vectors and images of what is left, which of them are resolved, and the largest not."""
        _, vectors = eigh(matmul(rest.T, rest))
        vectors = _straightened(vectors, matmul(rest, vectors))[:, :size]
        scores = matmul(rest, vectors)
        squares = jnp.sum(scores**2, axis=0)
        good = jnp.cumprod(squares > resolved * jnp.max(squares)).astype(bool)
        good &= jnp.arange(size) < room
        # Without progress (NaN, or nothing left) there is no next round.
        left = jnp.where(jnp.any(good), jnp.max(jnp.where(good, 0, squares)), 0)
        return vectors, scores, good, left, jnp.max(squares)

    vectors, scores, good, left, largest = solve(tall, size)

    def another_round(state: Any) -> Any:
        filled, basis, images, _ = state
        rest = tall
        for _ in range(2):  # what the first leaves of the large directions, the second takes
            rest = rest - matmul(matmul(rest, basis), basis.T)
        vectors, scores, good, left, _ = solve(rest, size - filled)
        put = jnp.roll(good, filled)
        basis = jnp.where(put, jnp.roll(vectors, filled, axis=1), basis)
        images = jnp.where(put, jnp.roll(scores, filled, axis=1), images)
        return filled + jnp.sum(good, dtype=jnp.int32), basis, images, left

    def further_rounds() -> tuple[Array, Array]:
        number = jnp.sum(good, dtype=jnp.int32)
        start = number, jnp.where(good, vectors, 0), jnp.where(good, scores, 0), left
        _, basis, images, _ = jax.lax.while_loop(
            lambda state: (state[0] < size) & (state[3] > least * largest), another_round, start
        )
        return basis, images

    graded = ~jnp.all(good) & (left > least * largest)
    pair: tuple[Array, Array] = jax.lax.cond(graded, further_rounds, lambda: (vectors, scores))
    return *pair, graded


def _straightened(vectors: Float[Array, "n n"], images: Float[Array, "M n"]) -> Float[Array, "n n"]:
    """Eigenvectors of A^T A with one step of Jacobi's in all planes, from their images A v.

    An eigensolver turns v_j towards v_i by up to eps s_i^2 / s_j^2, and their images show by how
    much: by (v_i.A^T A v_j) / (s_j^2 - s_i^2), good to eps s_i / s_j. A turn that is not small, as
    between values that are nearly equal, is left out: it would not keep the lengths.
    """
    products = matmul(images.T, images)
    squares = jnp.diagonal(products)
    gaps = squares - squares[:, None]
    small = float(np.finfo(vectors.dtype).eps) ** 0.5
    apart = jnp.abs(products) < small * jnp.abs(gaps)
    turn = jnp.where(apart, products / jnp.where(apart, gaps, 1), 0)
    return vectors + matmul(vectors, turn)


def power_of_two(values: Array) -> Array:
    """The largest power of two not above each positive value; products with it are exact.

    By clearing the bits of the mantissa: ``jnp.ldexp`` raises 2 to a power, which on a GPU is not
    exact. Subnormal values, of which accelerators know none, give the smallest normal number.
    """
    info = np.finfo(values.dtype)
    bits = jax.lax.bitcast_convert_type(values, jnp.dtype(f"uint{info.bits}"))
    powers = jax.lax.bitcast_convert_type((bits >> info.nmant) << info.nmant, values.dtype)
    return jnp.maximum(powers, float(info.tiny))


def smallest(data_eps: Array | float, dtype: Any) -> Array:
    """The smallest normal number of moments with this roundoff: what a product may lack."""
    single, double = float(np.finfo(np.float32).tiny), float(np.finfo(dtype).tiny)
    return jnp.where(data_eps > 1e-12, single, double).astype(dtype)


def quadratic_forms(
    matrix: Float[Array, "D D"], columns: Float[Array, "D r"]
) -> Float[Array, " r"]:
    """c^T A c for every column c."""
    return jnp.sum(columns * matmul(matrix, columns), axis=0)


def exact_bits(terms: int) -> int:
    """So few bits that sums of ``terms`` products of them are exact."""
    return (53 - max(terms - 1, 1).bit_length()) // 2


def split_leading(values: Float[Array, "N *M"], bits: int) -> tuple[Array, Array]:
    """The leading bits of each column, relative to its largest entry, and the rest."""
    peak, tiny = jnp.max(jnp.abs(values), axis=0), float(np.finfo(values.dtype).tiny)
    unit = power_of_two(jnp.where(peak > 0, peak, 1)) * 2.0 ** (1 - bits)
    unit = jnp.maximum(unit, tiny)  # near the end of the range
    lead = jnp.round(values / unit) * unit
    return lead, values - lead


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=_HIGHEST)


def _matmul_tiled(a: Array, b: Array, tile: int = 128) -> Array:
    """The product in tiles of rows: a loop over a small one compiles faster than a large one."""
    rows = a.shape[0]
    tiles = jnp.pad(a, ((0, -rows % tile), (0, 0))).reshape(-1, tile, a.shape[1])
    product: Array = jax.lax.map(lambda part: _matmul(part, b), tiles)
    return product.reshape(-1, b.shape[1])[:rows]


def _eigh_descending(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)  # ascending
    return values[::-1], vectors[:, ::-1]


def _jacobi(matrix: Array) -> tuple[Array, Array]:
    vectors, values = jax.lax.linalg.eigh(
        matrix, implementation=jax.lax.linalg.EighImplementation.JACOBI
    )
    return values, vectors


def _eigh_jacobi(matrix: Array, solve: _Solver = _jacobi, tile: int = 128) -> tuple[Array, Array]:
    """Eigenvalues, descending, of a matrix filled up to whole tiles, which halves the compile time.

    What fills it up is not coupled to the rest, and lies below every eigenvalue (Gershgorin).
    """
    dim = matrix.shape[0]
    extra = -dim % tile
    below = -1 - 2 * jnp.max(jnp.sum(jnp.abs(matrix), axis=1))
    filling = jnp.where(jnp.arange(dim + extra) < dim, 0, below)
    values, vectors = solve(jnp.pad(matrix, ((0, extra), (0, extra))) + jnp.diag(filling))
    order = jnp.argsort(-values)[:dim]
    return values[order], vectors[:dim, order]
