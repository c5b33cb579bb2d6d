"""NumPy arrays inside files of ``torch.save``, rebuilt without NumPy's unpickling functions.

``torch.load(weights_only=True)`` calls what a file names if that is on a list. NumPy's
``_reconstruct``, ``dtype`` and ``__setstate__`` do not belong there: they believe whatever a file
says of a type, so that bytes can be passed off as pointers to Python objects. What stands in for
them here takes plain types alone and checks every length.

Reference: ``numpy.ndarray.__reduce__``; PyTorch, ``torch.serialization.safe_globals``.
"""

import math
import re
from typing import Any

import numpy as np

from vci_jax.errors import VCIError


class Dtype:
    """A type as a file gives it: a code such as ``"f4"``, then its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self._code, self._order = str(code), "="

    def __setstate__(self, state: Any) -> None:
        self._order = "=" if state[1] == "|" else state[1]

    def plain(self) -> np.dtype[Any]:
        """The type, if it is one of numbers, of text, or of objects."""
        code, order = self._code.strip("<>|="), self._order
        if not re.fullmatch(r"[biufc?]\d{0,2}|[SUO]\d{0,8}", code) or order not in ("<", ">", "="):
            raise VCIError(
                f"it holds an array of NumPy of the type {self._code!r}: save numbers or text."
            )
        return np.dtype(f"{order}{code}")


class Array(np.ndarray):
    """An array that is empty until the file gives its contents."""

    def __new__(cls, *_: Any) -> "Array":
        """Returns an empty array; the arguments of the file are ignored."""
        return np.empty(0, np.int8).view(cls)

    def __setstate__(self, state: Any) -> None:
        """Takes over shape, type, order and contents, if these fit each other."""
        _, shape, dtype, column_major, contents = state
        shape = tuple(map(int, shape))
        dtype = dtype.plain() if isinstance(dtype, Dtype) else np.dtype(dtype)
        kind, size = (list, 1) if dtype.kind == "O" else (bytes, dtype.itemsize)
        if type(contents) is not kind or min(shape, default=0) < 0:
            raise VCIError("it holds an array of NumPy in a form that is not known.")
        if len(contents) != math.prod(shape) * size:
            raise VCIError(
                f"it has {len(contents):,} bytes or elements for an array of {dtype} {list(shape)}."
            )
        checked: Any = (1, shape, dtype, bool(column_major), contents)
        super().__setstate__(checked)


def reconstruct(*_: Any) -> Array:
    """As ``numpy._core.multiarray._reconstruct``."""
    return Array()


def nothing(*_: Any) -> bytes:
    """As ``bytes()``: the contents of an array without elements."""
    return b""


def scalar(dtype: Any, contents: Any) -> Any:
    """As ``numpy._core.multiarray.scalar``: one number or text."""
    array = Array()
    array.__setstate__((1, (), dtype, False, contents))
    return array[()]


STAND_INS: list[tuple[Any, str]] = [
    (Dtype, "numpy.dtype"),
    (Array, "numpy.ndarray"),
    (nothing, "__builtin__.bytes"),
    *(
        (function, f"numpy.{package}.multiarray.{name}")
        for package in ("core", "_core")
        for function, name in ((reconstruct, "_reconstruct"), (scalar, "scalar"))
    ),
]
"""What ``torch.load`` calls in place of which function."""
