"""Work directories in any state, read back."""

import dataclasses
import json

import pytest

from probes import runs
from train.config import Config, LossConfig, MeshConfig

ROW = {"step": 0, "epoch": 0, "split": "train", "vci": 0.5}


def write(path, rows=(ROW,), transfer=(), tail="", **config):
    """A work directory as a training leaves it."""
    path.mkdir(parents=True)
    settings = json.dumps(dataclasses.asdict(Config(**config)))
    (path / "config.json").write_text(settings)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    if transfer:
        (path / "transfer.jsonl").write_text("".join(json.dumps(r) + "\n" for r in transfer))
    return path


def test_a_run_is_what_its_directory_holds(tmp_path):
    scores = [{"task": "pets", "score": s} for s in (0.8, 0.9)] + [{"task": "dtd", "score": 0.7}]
    path = write(tmp_path / "tau" / "tau_1", transfer=scores, name="digits")
    run = runs.read_run(path / "metrics.jsonl")
    assert (run.name, run.group, run.path) == ("tau_1", "tau", path)
    assert run.config["optim"]["lr"] == 0.1
    assert run.rows == [ROW]
    assert run.transfer == scores[1:]
    assert run.notes == ["transfer.jsonl: of tasks scored more than once, the last score counts."]


def test_curves_skip_what_is_undefined(tmp_path):
    rows = [{"epoch": e, "split": s} for e in range(4) for s in ("train", "test")]
    rows[2]["vci"], rows[3]["vci"], rows[4]["vci"], rows[6]["vci"] = 0.5, 0.6, None, 0.4
    run = runs.read_run(write(tmp_path / "run", rows))
    assert run.curve("vci", "train") == ([1, 3], [0.5, 0.4])
    assert run.last("train") == rows[6]
    assert run.last("validation") == {}


@pytest.mark.parametrize("tail", ['{"epoch": 4, "sp', "{", '{"epoch": 1, "split": "test"'])
def test_a_torn_last_line_is_left_out_and_said(tmp_path, tail):
    run = runs.read_run(write(tmp_path / "run", tail=tail))
    assert run.rows == [ROW]
    assert "metrics.jsonl: line 2, the last, is cut off and left out." in run.notes


def test_a_last_line_without_its_newline_is_whole(tmp_path):
    run = runs.read_run(write(tmp_path / "run", tail=json.dumps(ROW)))
    assert run.rows == [ROW, ROW]


@pytest.mark.parametrize("line", ['{"epoch"', '{"epoch": 1}', "[1]", "1"])
def test_damage_elsewhere_is_an_error_that_names_the_line(tmp_path, line):
    path = write(tmp_path / "run")
    (path / "metrics.jsonl").write_text(f"{json.dumps(ROW)}\n{line}\n{json.dumps(ROW)}\n")
    with pytest.raises(ValueError, match=r"run/metrics\.jsonl, line 2, "):
        runs.read_run(path)


def test_missing_files_are_notes_and_nothing_at_all_is_an_error(tmp_path):
    path = write(tmp_path / "run")
    (path / "config.json").unlink()
    run = runs.read_run(path)
    assert run.config == {}
    assert run.notes == ["config.json: there is none.", "transfer.jsonl: there is none."]
    for empty in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match=str(empty)):
            runs.read_run(empty)
    with pytest.raises(ValueError, match="does not exist"):
        runs.read_runs([tmp_path / "nowhere"])
    (path / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"no metrics\.jsonl below"):
        runs.read_runs([tmp_path])


def test_a_directory_of_runs_stands_for_them_all_once(tmp_path):
    for seed in (0, 1):
        for tau in (0.1, 1.0):
            loss = LossConfig(temperature=tau)
            path = tmp_path / f"s{seed}" / f"tau_{tau}"
            write(path, loss=loss, seed=seed, name=f"taus/tau_{tau}")
    write(tmp_path / "other")
    found = runs.read_runs([tmp_path / "s0", tmp_path, tmp_path / "s0" / "tau_0.1"])
    names = ["s0/tau_0.1", "s0/tau_1.0", "other", "s1/tau_0.1", "s1/tau_1.0"]
    assert [run.name for run in found] == names
    assert [run.group for run in found] == ["taus", "taus", tmp_path.name, "taus", "taus"]


def test_differences_are_those_that_change_numbers(tmp_path):
    a = runs.read_run(write(tmp_path / "a", name="a"))
    b = runs.read_run(write(tmp_path / "b", name="b", seed=3, mesh=MeshConfig(model=2)))
    c = runs.read_run(write(tmp_path / "c", loss=LossConfig(temperature=0.5)))
    assert runs.differences([a, a]) == {}
    assert runs.differences([a, b, c]) == {"seed": [0, 3, 0], "loss.temperature": [1.0, 1.0, 0.5]}
    assert runs.settings([a, b, c]) == [0, 0, 1]
    del c.config["loss"]["temperature"]
    assert runs.differences([a, c]) == {"loss.temperature": [1.0, None]}


def test_runs_without_a_config_are_settings_of_their_own(tmp_path):
    found = [runs.read_run(write(tmp_path / name)) for name in "ab"]
    bare = [run._replace(config={}) for run in found]
    assert runs.settings(found) == [0, 0]
    assert runs.settings(bare) == [0, 1]
