"""Fast compilation of long programs that run a few times a day.

XLA's optimiser takes longer over it than it ever saves: nearly all the work is in LAPACK and in
matrix products, which it does not touch. The first report of 10 classes and 256 features takes 6 s
of a core without it, 14 with the least of it and all; later ones take as long to a tenth.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

_QUICK: dict[str, str | bool] = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": False,
}


def quick_jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns ``jax.jit`` with these options as a decorator, for functions that run rarely.

    On the host CPU alone, and not inside another jitted function, where JAX allows no options of
    the compiler.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.cache
        def program() -> Callable[..., Any]:
            """Compiled at the first call, when XLA's options can be tried."""
            return jax.jit(function, compiler_options=dict(_understood()), **options)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return program()(*args, **kwargs)

        return call

    return decorate


@functools.cache
def _understood() -> Mapping[str, Any]:
    """Returns the options that this version of XLA supports and the user has not set."""
    options = {}
    for name, value in _QUICK.items():
        if name in os.environ.get("XLA_FLAGS", ""):
            continue
        try:
            jax.jit(lambda x: x).lower(0.0).compile(compiler_options={name: value})
        except jax.errors.JaxRuntimeError:  # No such option.
            continue
        options[name] = value
    return options
