"""The library under any mesh: Explicit axes, and regions of ``shard_map`` that check types.

JAX has two type systems for where an array lies. Under Explicit axes (the default of
``jax.make_mesh``) every operation has to know the sharding of its result; inside ``shard_map``
every array knows the axes along which it differs between devices, and both sides of a condition,
and both ends of a loop, have to agree. ``anywhere`` and ``alike`` keep the arithmetic of the other
modules free of both.
"""

import contextlib
import functools
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import NamedSharding, PartitionSpec

_spec: Any = PartitionSpec  # its constructor has no types
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Tree = TypeVar("_Tree")


def anywhere(
    result: Callable[..., Any] | None = None,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorates a function of arrays so that it runs under any mesh.

    Axes that are Explicit are Auto inside, so that the compiler places what is between; the result
    has a sharding by type again. Under ``shard_map`` all arguments count as differing along every
    axis that one of them differs along.

    Args:
      result: of the same arguments, a tree like that of the function's result with one
        ``PartitionSpec`` a leaf; by default the result is replicated. Axes that are not Explicit
        do not concern it.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        def call(tree: Any, rest: tuple[tuple[int, Any], ...], *arrays: jax.Array) -> _R:
            """Calls the function with arrays back in their places among the other arguments."""
            fixed, given = dict(rest), iter(arrays)
            leaves = [fixed[i] if i in fixed else next(given) for i in range(tree.num_leaves)]
            args, kwargs = tree.unflatten(leaves)
            return function(*args, **kwargs)

        call.__name__ = function.__name__
        program = jax.jit(call, static_argnums=(0, 1))

        @functools.wraps(function)
        def placed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            """Runs the function on arrays that vary alike, on an Explicit mesh by ``result``."""
            leaves, tree = jax.tree.flatten((args, kwargs))
            arrays = alike([leaf for leaf in leaves if isinstance(leaf, jax.Array)])
            rest = tuple((i, x) for i, x in enumerate(leaves) if not isinstance(x, jax.Array))
            run = functools.partial(call, tree, rest)
            mesh = _explicit_mesh(arrays)
            if mesh is None:
                # One program at once, not one for each operation: those take several times as long
                # to compile, and conditions are traced anew in every call.
                whole = not any(isinstance(array, jax.core.Tracer) for array in arrays)
                whole &= all(isinstance(leaf, Hashable) for _, leaf in rest)
                return program(tree, rest, *arrays) if whole else run(*arrays)
            specs = _spec() if result is None else result(*args, **kwargs)
            shardings = jax.tree.map(
                lambda spec: NamedSharding(mesh, spec),
                specs,
                is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
            )
            placing = jax.sharding.auto_axes(
                run, axes=tuple(mesh.explicit_axes), out_sharding=shardings
            )
            with _ambient(arrays):
                out: _R = placing(*arrays)
            return out

        return placed

    return decorate


def spec(leaf: Any) -> Any:
    """The sharding of a leaf along Explicit axes, by its type."""
    sharding: Any = getattr(jax.typeof(leaf), "sharding", None)
    return _spec() if sharding is None else sharding.spec


def like(tree: Any, *_: Any, **__: Any) -> Any:
    """For ``anywhere``: the result is placed as the first argument is."""
    return jax.tree.map(spec, tree)


def without_leading(tree: Any) -> Any:
    """For ``anywhere``: the result is placed as the first argument is, but for its leading axis."""
    return jax.tree.map(lambda leaf: _spec(*spec(leaf)[1:]), tree)


def alike(tree: _Tree, *others: Any) -> _Tree:
    """Marks arrays as differing between devices wherever one of them, or of ``others``, does."""
    everywhere = frozenset().union(*map(_varying, jax.tree.leaves((tree, others))))
    if not everywhere:
        return tree

    def mark(leaf: Any) -> Any:
        missing = tuple(sorted(everywhere - _varying(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    marked: _Tree = jax.tree.map(mark, tree)
    return marked


def _varying(leaf: Any) -> frozenset[str]:
    """The manual axes along which an array differs between devices."""
    kind: Any = jax.typeof(leaf)
    manual = getattr(kind, "manual_axis_type", None)
    axes = manual.varying if manual is not None else getattr(kind, "vma", frozenset())
    return frozenset(axes)


def _ambient(arrays: list[jax.Array]) -> contextlib.AbstractContextManager[Any]:
    """The mesh that arrays lie on as a context, for operations outside of a compiled program."""
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        return contextlib.nullcontext()
    meshes = [getattr(array.sharding, "mesh", None) for array in arrays]
    mesh = next((m for m in meshes if isinstance(m, jax.sharding.Mesh) and m.explicit_axes), None)
    if mesh is None or not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    try:
        return jax.set_mesh(mesh)
    except ValueError:  # a program is being traced that holds the arrays as constants
        return contextlib.nullcontext()


def _explicit_mesh(arrays: list[jax.Array]) -> Any:
    """The mesh whose axes are Explicit on which one of the arrays lies; None without."""
    for array in arrays:
        sharding: Any = getattr(jax.typeof(array), "sharding", None)
        mesh = getattr(sharding, "mesh", None)
        if mesh is not None and mesh.explicit_axes:
            return mesh
    return None
