"""Stand-ins for what NumPy pickles: the same arrays, and no trust in what a file says of them."""

import io
import pickle

import numpy as np
import pytest

from vci_jax import VCIError
from vci_jax._pickled import STAND_INS, Array, Dtype, scalar

ROWS = np.arange(12).reshape(3, 4)
TEXT = np.array([["cat", "dog"], ["eel", "ünï"]])
ARRAYS = {
    **{kind: ROWS.astype(kind) for kind in ("f2", "<f4", ">f8", "i1", ">i4", "u8", "?", "c8", "g")},
    "column-major": np.asfortranarray(ROWS),
    "cut out": ROWS[::2, 1:3],
    "empty": np.empty((0, 4)),
    "no dimension": np.array(3.5),
    "text": TEXT,
    "text of the other byte order": TEXT.astype(">U3"),
    "bytes": np.array([b"cat", b"doge"]),
    "objects": np.array(["cat", 3, None], object),
}


class Reader(pickle.Unpickler):
    """Calls stand-ins alone."""

    def find_class(self, module, name):
        if module == "_codecs":  # Which PyTorch lets pass.
            return super().find_class(module, name)
        return {path: function for function, path in STAND_INS}[f"{module}.{name}"]


def read(value):
    return Reader(io.BytesIO(pickle.dumps(value, protocol=2))).load()


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_the_same_to_the_bit(kind):
    array = ARRAYS[kind]
    found = read(array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.flags.f_contiguous == array.flags.f_contiguous or kind == "cut out"
    np.testing.assert_array_equal(np.asarray(found), array)


@pytest.mark.parametrize("value", [np.float32(0.1), np.int64(-3), np.bool_(True), np.str_("cat")])
def test_numbers_by_themselves(value):
    assert read({"a": value}) == {"a": value}


BAD = {
    "fields": (Dtype("f8,O"), (1,), bytes(16), "of the type 'f8,O'"),
    "raw bytes": (Dtype("V8"), (1,), bytes(8), "of the type 'V8'"),
    "an array in each element": (Dtype("(2,)f8"), (1,), bytes(16), r"of the type '\(2,\)f8'"),
    "dates": (Dtype("M8[s]"), (1,), bytes(8), "of the type 'M8"),
    "too few bytes": (Dtype("f8"), (2,), bytes(8), r"8 bytes or elements for .* float64 \[2\]"),
    "negative": (Dtype("f8"), (-1, -1), bytes(8), "form that is not known"),
    "too large for any memory": (Dtype("f8"), (2**62, 2), bytes(8), "8 bytes or elements"),
    "pointers in place of objects": (Dtype("O"), (1,), bytes(8), "form that is not known"),
    "too few objects": (Dtype("O"), (2,), [1], "1 bytes or elements"),
    "objects in place of bytes": (Dtype("f8"), (1,), [1.0], "form that is not known"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_fit_is_refused(kind):
    """NumPy itself would read some of these as pointers."""
    dtype, shape, contents, message = BAD[kind]
    with pytest.raises(VCIError, match=message):
        Array().__setstate__((1, shape, dtype, False, contents))


def test_nothing_is_allocated_that_a_file_asks_for():
    assert Array((2**40,), "f8").shape == (0,)
    with pytest.raises(VCIError, match="bytes or elements"):
        scalar(Dtype("U99999999"), b"")
