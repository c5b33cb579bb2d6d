"""What a law is, what may be done to data, and how implementations get it wrong.

A law names public functions, data, a change of the data, and what the answer must then be: the
same, or known factors of it. It holds if ``answer(change(data))`` equals ``expect(answer(data))``.
To show that a law can fail, each has a mistake: how a wrong implementation would see the changed
data. The tables are in ``laws.library``, ``laws.numerics``, ``laws.probes`` and ``laws.studies``.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Data = dict[str, Any]
Answer = dict[str, Any]


class Law(NamedTuple):
    """One sentence about some functions, and how to test it.

    ``fails`` is the reason if the law does not hold yet; the test is then expected to fail.
    """

    functions: tuple[str, ...]
    statement: str
    data: Callable[[], Data]
    answer: Callable[[Data], Answer]
    change: Callable[[Data], Data]
    mistake: Callable[[Data], Data]
    expect: Callable[[Answer], Answer] = dict
    rtol: float = 1e-9
    fails: str = ""


def violations(law, mistake=None):
    """Entries of the answer that are not what the law says, as sentences."""
    expected = law.expect(_answer_before(law.answer, law.data))
    changed = law.change(law.data())
    try:
        got = law.answer(mistake(changed) if mistake else changed)
    except ValueError as error:
        return [f"refused: {error}"]
    # Entries that the expectation leaves out may change freely.
    return [
        f"{name}: expected {want}, got {got[name]}"
        for name, want in expected.items()
        if not same(want, got[name], law.rtol)
    ]


@functools.cache  # many laws start from the same data
def _answer_before(answer, data):
    return answer(data())


def same(want, got, rtol):
    """Equal trees: text exactly, numbers relative to the largest of their array; NaN is NaN."""
    want_leaves, want_tree = jax.tree.flatten(want)
    got_leaves, got_tree = jax.tree.flatten(got)
    if want_tree != got_tree:
        return False
    return all(_same_leaf(w, g, rtol) for w, g in zip(want_leaves, got_leaves, strict=True))


def _same_leaf(want, got, rtol):
    want, got = np.asarray(want), np.asarray(got)
    if want.shape != got.shape:
        return False
    if want.dtype.kind not in "fc" and got.dtype.kind not in "fc":
        return np.array_equal(want, got)
    scale = np.max(np.abs(want), where=np.isfinite(want), initial=0.0)
    return np.allclose(got, want, rtol=rtol, atol=rtol * scale, equal_nan=True)


# What may be done to data.


def changed(**functions):
    """A change of some entries of the data."""
    return lambda data: data | {name: change(data[name]) for name, change in functions.items()}


def together(*changes):
    """Changes one after the other."""

    def change(data):
        for one in changes:
            data = one(data)
        return data

    return change


def reordered(*names, seed=1):
    """The same rows in another order, in all entries alike."""

    def change(data):
        order = np.random.default_rng(seed).permutation(len(data[names[0]]))
        return data | {name: np.asarray(data[name])[order] for name in names}

    return change


def times(factor):
    """A function that multiplies."""
    return lambda values: np.asarray(values) * factor


def plus(term):
    """A function that adds."""
    return lambda values: np.asarray(values) + term


def renamed(names):
    """A function that calls label k ``names[k]``."""
    return lambda labels: np.asarray(names)[labels]


def big_endian(values):
    """The same numbers, the most significant byte first, as NetCDF, HDF5 and FITS files have."""
    values = np.asarray(values)
    return values.astype(values.dtype.newbyteorder(">"))


def typed(dtype):
    """A function that stores numbers in another type, which must be able to hold them."""

    def change(values):
        stored = np.asarray(values).astype(dtype)
        assert np.array_equal(stored, values)
        return stored

    return change


def every_other(values):
    """The same numbers in memory that is not contiguous, backwards."""
    values = np.asarray(values)
    spaced = np.repeat(values[::-1], 2, axis=0)
    return spaced[::2][::-1]


# How implementations get it wrong.


def misreads_a_row(name="features"):
    """Takes the first row with another sign."""

    def mistake(data):
        values = np.array(data[name], copy=True)
        values[0] = -values[0]
        return data | {name: values}

    return mistake


def forgets_a_row(mask):
    """Leaves out the first row."""
    return changed(**{mask: lambda used: used & (np.arange(len(used)) > 0)})


def takes_order_for_content(name):
    """Reads one entry in an order that belongs to another."""
    return lambda data: data | {name: np.roll(np.asarray(data[name]), 1, axis=0)}


def rounds_absolutely(name, digits=6):
    """Has a threshold in units of the data."""
    return lambda data: data | {name: np.round(np.asarray(data[name], float), digits)}


def saturates(name, limit=1e3):
    """Has a largest value in units of the data."""
    return lambda data: data | {name: np.clip(np.asarray(data[name], float), -limit, limit)}


def assumes_little_endian(*names):
    """Reads the bytes of big-endian numbers as they lie."""

    def mistake(data):
        read = {name: np.asarray(data[name]) for name in names}
        return data | {name: a.view(a.dtype.newbyteorder("<")) for name, a in read.items()}

    return mistake


def merges_labels(name="labels", modulus=2):
    """Mixes up some labels."""
    return lambda data: data | {name: np.asarray(data[name]) % modulus}


def perturbs(name, amount=0.1):
    """Loses a part of one number."""

    def mistake(data):
        values = np.array(data[name], dtype=float)
        values.flat[0] += amount * (abs(values.flat[0]) + np.max(np.abs(values)))
        return data | {name: values}

    return mistake


# What becomes of an answer.


def powers(factor, **exponents):
    """Entries multiplied by a power of the factor; those not named stay."""

    def multiplied(name, value):
        if name not in exponents:
            return value
        return jax.tree.map(lambda x: np.asarray(x) * factor ** exponents[name], value)

    return lambda answer: {name: multiplied(name, value) for name, value in answer.items()}


def only(*names):
    """Only these entries must stay."""
    return lambda answer: {name: answer[name] for name in names}


def without(*names):
    """All entries but these must stay."""
    return lambda answer: {name: v for name, v in answer.items() if name not in names}
