"""Errors, for input without an answer, and caveats, for numbers to be read with care."""

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class VCIError(ValueError):
    """A mistake in what was passed: one sentence that names the value, and one with the remedy."""


class MissingPackageError(VCIError, ImportError):
    """An optional package is not installed; the message says how to install it."""


class Caveat(NamedTuple):
    """A reason to be careful with some metrics.

    Attributes:
      code: what is wrong, one of the names in ``vci_jax.caveats``; stable, for programs.
      metrics: the names of the metrics concerned.
      message: one sentence for people; its wording may change.
    """

    code: str
    metrics: tuple[str, ...]
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The same as a dictionary that JSON can hold."""
        return {"code": self.code, "metrics": list(self.metrics), "message": self.message}


def check_count(name: str, value: Any) -> None:
    """Refuses anything but an integer of at least 1.

    Raises:
      VCIError: with the name and the value.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise VCIError(f"{name} must be an integer of at least 1, got {value!r}.")
    if value < 1:
        raise VCIError(f"{name} must be at least 1, got {value}.")


def check_dtype(dtype: Any) -> np.dtype:
    """The dtype of an argument ``dtype``.

    Raises:
      VCIError: for what names none.
    """
    try:
        checked: np.dtype = np.dtype(dtype)
    except TypeError:
        raise VCIError(f"dtype must be float32 or float64, got {dtype!r}.") from None
    return checked


def check_moments(*states: Any) -> None:
    """Refuses anything but moments, or a tree of their fields.

    Raises:
      VCIError: with the type of what was passed.
    """
    for state in states:
        if not hasattr(state, "class_scatter"):
            raise VCIError(
                f"Moments are expected, as vci_jax.init returns them, got {type(state).__name__}: "
                "for arrays call vci_jax.measure_arrays(features, labels)."
            )


def messages(caveats: Sequence[Caveat]) -> list[str]:
    """The sentences alone, in their order."""
    return [caveat.message for caveat in caveats]


def optional(module: str, purpose: str) -> Any:
    """Imports a module of a package that the library does not need otherwise.

    Raises:
      MissingPackageError: if it is not installed, with the purpose and the command that installs.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise MissingPackageError(f"{purpose} needs {package}: pip install {package}.") from None
