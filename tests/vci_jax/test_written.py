"""Files that are always whole, and numbers as JSON has them."""

import json
import math

import numpy as np
import pytest

from vci_jax.written import json_ready, replace_text, replacing


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    replace_text(path, "one\n")
    with replacing(path) as file:
        file.write("two ä\n")
        file.flush()
        assert path.read_text() == "one\n"
    assert path.read_text(encoding="utf-8") == "two ä\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.jsonl"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "moments.npz"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), replacing(path, "wb") as file:
        file.write("text where bytes belong")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_are_those_of_json():
    value = {
        "nan": math.nan,
        "list": (np.float32(0.5), np.int64(3), math.inf),
        "text": "nan",
        "bool": np.True_,
        "none": None,
    }
    expected = {"nan": None, "list": [0.5, 3, None], "text": "nan", "bool": True, "none": None}
    assert json_ready(value) == expected
    json.dumps(json_ready(value), allow_nan=False)
