"""Compilation of the finish, which is a long program that runs a few times a day.

XLA's optimiser takes ten seconds over it and saves little: nearly all the work is in LAPACK and in
matrix products, which it does not touch. Without it the program of 100 classes and 512 features
compiles in 4 s instead of 16 and runs in 0.16 s instead of 0.14; with 1,000 classes and 2,048
features it runs in 7.4 s instead of 7.0.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

_QUICK: dict[str, str | bool] = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": False,
}


def quick_jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator as ``jax.jit`` with these options, for functions that run seldom.

    On the host CPU alone, and not inside another jitted function, where JAX allows no options of
    the compiler.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.cache
        def program() -> Callable[..., Any]:
            return jax.jit(function, compiler_options=dict(_understood()), **options)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return program()(*args, **kwargs)

        return call

    return decorate


@functools.cache
def _understood() -> Mapping[str, Any]:
    """Returns those of the options that this version of XLA has."""
    found = {}
    for name, value in _QUICK.items():
        try:
            jax.jit(lambda x: x).lower(0.0).compile(compiler_options={name: value})
        except jax.errors.JaxRuntimeError:  # No such option.
            continue
        found[name] = value
    return found
