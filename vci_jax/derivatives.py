r"""Derivatives of what is computed with eigenvectors, without the derivative of an eigenvector.

An eigenvector has no derivative where its eigenvalue is not simple: white features, a simplex of
class means, a unit that never fires, full collapse. The metrics have one all the same, as long as
ranks stay what they are: each is a smooth function of Sigma_W and of the class means. So values are
computed from features that count as constants, and ``attach`` gives each the derivative of an
expression that is linear in what depends on the features.

Legend: K classes, D features, W = Sigma_W and R the rows p_k^(1/2) (mu_k - mu_G), up to one common
factor, B = R^T R; z_j, q_j and c_j the discriminant directions, R z_j = (c_j / (1 + c_j))^(1/2) q_j
and z_j^T (W + B) z_j = 1; d_j = 1 / (1 + c_j); P a projector.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vci_jax import linalg


class Directions(NamedTuple):
    """z_j in the columns of ``axes``, q_j in those of ``classes``, d_j, and which of them count."""

    axes: Float[Array, "D m"]
    classes: Float[Array, "K m"]
    lost: Float[Array, " m"]
    kept: Bool[Array, " m"]


def attach(value: Array, linear: Array, inputs: Any) -> Array:
    """Returns ``value``, with the first derivative of ``linear``.

    Args:
      value: what to return, of constants.
      linear: an expression in ``inputs`` whose coefficients are constants.
      inputs: all that ``value`` is a function of. A second derivative would need those of the
        coefficients, and raises.
    """
    return _attach(value, linear, inputs)


def frozen(tree: Any) -> Any:
    """Returns arrays as constants."""
    return jax.tree.map(jax.lax.stop_gradient, tree)


def lost(
    at: Directions, within: Float[Array, "D D"], rows: Float[Array, "K D"]
) -> Float[Array, " m"]:
    """d_j, by d d_j = z_j^T [(1 - d_j) dW - d_j dB] z_j."""
    of_within = linalg.quadratic_forms(within, at.axes)
    of_between = jnp.sum(linalg.matmul(rows, at.axes) ** 2, axis=0)
    linear = jnp.where(at.kept, (1 - at.lost) * of_within - at.lost * of_between, 0)
    return attach(at.lost, linear, (within, rows))


def label_parts(
    at: Directions,
    values: tuple[Float[Array, ""], Float[Array, ""]],
    complete: Bool[Array, ""],
    within: Float[Array, "D D"],
    rows: Float[Array, "K D"],
    proportion: Float[Array, " K"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What the labels' variance p has in the directions, Tr[p P], and loses there, Tr[p N P].

    With N = (1 + R W^+ R^T)^-1 = 1 - sum_j (1 - d_j) q_j q_j^T and Z = W^+ R^T N,

        d Tr[p N] = Tr[p (Z^T dW Z - 2 N dR Z)],   d Tr[p P] = 2 Tr[p (1 - P) dR R^+].

    Args:
      at: the directions.
      values: both parts.
      complete: the directions are K - 1, and P cannot change.
      within: W.
      rows: R.
      proportion: p.
    """
    classes = jnp.where(at.kept, at.classes, 0)
    explained = jnp.where(at.kept, 1 - at.lost, 0)
    weighted = proportion[:, None] * classes
    solved = linalg.matmul(at.axes * jnp.sqrt(explained), classes.T)  # Z, [D K]
    n_p = jnp.diag(proportion) - linalg.matmul(classes * explained, weighted.T)
    change = jnp.sum(linalg.matmul(within, solved) * solved * proportion)
    change -= 2 * jnp.sum(rows * linalg.matmul(n_p, solved.T))
    inverse = jnp.where(explained > 0, jax.lax.rsqrt(jnp.where(explained > 0, explained, 1)), 0)
    outside = weighted - linalg.matmul(classes, linalg.matmul(classes.T, weighted))
    turned = 2 * jnp.sum(rows * linalg.matmul(outside * inverse, at.axes.T))
    turned = jnp.where(complete, 0 * turned, turned)
    inputs = (within, rows)
    seen, missed = values
    return attach(seen, turned, inputs), attach(missed, change + turned, inputs)


def between_parts(
    space: linalg.RowSpace,
    values: tuple[Float[Array, ""], Float[Array, ""]],
    within: Float[Array, "D D"],
    rows: Float[Array, "K D"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Tr[W B^+] and Tr[W P], with P the projector on the space of B.

    By d B^+ = -B^+ dB B^+ + B^+2 dB (1 - P) + (1 - P) dB B^+2 and dP = B^+ dB (1 - P) + its
    transpose, where dB (1 - P) = R^T dR (1 - P).
    """
    basis, inverse = (
        space.basis,
        jnp.where(space.kept, 1 / jnp.where(space.kept, space.squares, 1), 0),
    )
    constant_within, constant_rows = frozen(within), frozen(rows)
    images = linalg.matmul(constant_within, basis)
    inner = linalg.matmul(basis.T, images)
    outer = images - linalg.matmul(basis, inner)  # (1 - P) W V
    scores = linalg.matmul(constant_rows, basis)
    forms = linalg.quadratic_forms(within, basis)

    def leaving(power: Array) -> Array:
        return 2 * jnp.sum(rows * linalg.matmul(scores * power, outer.T))

    live = linalg.matmul(rows, basis) * inverse
    trace = jnp.sum(forms * inverse) - jnp.sum(linalg.matmul(live, inner) * live)
    inputs = (within, rows)
    return (
        attach(values[0], trace + leaving(inverse**2), inputs),
        attach(values[1], jnp.sum(forms) + leaving(inverse), inputs),
    )


@jax.custom_jvp
def _attach(value: Array, linear: Array, inputs: Any) -> Array:
    del linear, inputs
    return value


@_attach.defjvp
def _attach_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    value, _, inputs = primals
    return value, tangents[1] * _once(value, inputs)


@jax.custom_jvp
def _once(value: Array, inputs: Any) -> Array:
    """One; but the first derivative may not be differentiated again."""
    del inputs
    return jnp.ones((), value.dtype)


def _once_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    def is_zero(leaf: Any) -> bool:
        return isinstance(leaf, jax.custom_derivatives.SymbolicZero)

    if not all(map(is_zero, jax.tree.leaves(tangents, is_leaf=is_zero))):
        raise NotImplementedError(
            "Collapse metrics have first derivatives only: a second one would need those of "
            "eigenvectors. Differentiate once, and take differences of gradients for curvature."
        )
    one = jnp.ones((), primals[0].dtype)
    return one, jnp.zeros_like(one)


_once.defjvp(_once_jvp, symbolic_zeros=True)
