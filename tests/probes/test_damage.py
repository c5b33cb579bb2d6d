"""Damaged files of a run: a page without them, or one message that names the file."""

import json

import made_runs
import pytest

from probes.page import command
from probes.transfer.score_log import ScoreLog
from train.errors import RunError

FILES = (
    "per_class.json", "metrics.jsonl", "transfer.jsonl", "pictures.jsonl", "run.json",
    "config.json",
)  # fmt: skip
CONTENTS = (
    b"", b"\xff\xfe\0", b"[]", b"{}", b"null", b"NaN", b"3", b"[1]", b"[{}]", b'{"train": 3}',
    b'{"train": {"squared_distance": null}}', b'{"train": {"squared_distance": ["x"], "name": 3}}',
    b'{"train": {"squared_distance": [1], "name": []}, "test": [2]}', b'{"task": 3}\n',
    b'{"task": "a", "score": "x"}\n', b'{"split": "test", "step": "x"}\n',
    b'{"step": 1, "epoch": "x", "split": "test", "label": [1], "x": [1, 2], "y": null}\n',
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_ends_no_page_with_a_traceback(name, tmp_path, capsys):
    """Where it ends one at all, the message names the run or the file."""
    made_runs.write_group(tmp_path / "runs", 3)
    for content in CONTENTS:
        (tmp_path / "runs" / "tau_1" / name).write_bytes(content)
        code = command.main([str(tmp_path / "runs"), "--out", str(tmp_path / "page.html")])
        said = capsys.readouterr().err
        assert code == 0 or (code == 2 and ("tau_1" in said or name in said)), (content, said)


@pytest.mark.parametrize("content", [b"\xff\n\n", b'{"task": 3}\n', b"3\n", b"null\n", b"[]\n"])
def test_a_row_that_is_none_is_named(content, tmp_path):
    path = tmp_path / "transfer.jsonl"
    path.write_bytes(content + json.dumps({"task": "a", "score": 0.5}).encode() + b"\n")
    with pytest.raises(RunError, match=r"transfer.jsonl, line 1"):
        ScoreLog(path)
