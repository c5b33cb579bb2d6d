"""The journal: what is on disk, and what a resumed run keeps of it."""

import json

import pytest

from train.errors import DamagedRunError
from train.profile import Stopwatch
from train.writer import MetricWriter

ROW = {"step": 3, "epoch": 1, "split": "train", "vci": 0.5, "spectrum": {"total": [1.0]}}


def _read(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_rows_are_on_disk_when_written(tmp_path):
    """A reader sees a row as soon as ``write`` has returned."""
    with MetricWriter(tmp_path, last_step=-1) as journal:
        journal.write([ROW])
        assert _read(tmp_path) == [ROW]


def test_values_that_are_not_finite_become_null(tmp_path):
    """At any depth: NaN and infinity are not JSON."""
    values = {"vci": float("nan"), "spectrum": {"total": [float("inf"), 1.0]}}
    with MetricWriter(tmp_path, last_step=-1) as journal:
        journal.write([ROW | values])
    (row,) = _read(tmp_path)
    assert (row["vci"], row["spectrum"]["total"]) == (None, [None, 1.0])


@pytest.mark.parametrize(("last_step", "kept"), [(-1, []), (0, [0]), (4, [0, 2, 4])])
def test_rewinding_drops_later_rows_and_a_torn_line(tmp_path, last_step, kept):
    """Rows up to the restored step stay; the next row follows them on a line of its own."""
    lines = [json.dumps(ROW | {"step": step, "split": "test"}) for step in (0, 2, 4, 6)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 8, "vc')
    with MetricWriter(tmp_path, last_step=last_step) as journal:
        journal.write([ROW | {"step": 9}])
    assert [row["step"] for row in _read(tmp_path)] == [*kept, 9]


def test_half_of_a_step_is_dropped(tmp_path):
    """A process killed between the rows of the two splits has not recorded that step."""
    lines = [json.dumps(ROW), json.dumps(ROW | {"split": "test"}), json.dumps(ROW | {"step": 5})]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with MetricWriter(tmp_path, last_step=5) as journal:
        assert journal.has(3)
        assert not journal.has(5)


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    """Nothing but a kill in the last line is expected; anything else is named."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 0\n' + json.dumps(ROW) + "\n")
    with pytest.raises(DamagedRunError, match="line 1"):
        MetricWriter(tmp_path, last_step=5)


def test_stopwatch_does_not_count_the_first_step(monkeypatch):
    """The first step compiles; the rate is that of the others."""
    now = iter([100.0, 102.0])
    monkeypatch.setattr("train.profile.time.perf_counter", lambda: next(now))
    watch = Stopwatch()
    assert watch.rate() is None
    for _ in range(3):
        watch.add(8)
    assert watch.rate() == 8.0


def test_stopwatch_tells_the_share_of_waiting(monkeypatch):
    """Of the time since the first step."""
    now = iter([100.0, 101.0, 101.5, 104.0])
    monkeypatch.setattr("train.profile.time.perf_counter", lambda: next(now))
    watch = Stopwatch()
    assert watch.wait_share() is None
    watch.add(8)
    with watch.waiting():
        pass
    watch.add(8)
    assert watch.wait_share() == 0.125
