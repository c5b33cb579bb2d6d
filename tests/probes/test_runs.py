"""Work directories in any state, read back."""

import dataclasses
import json

import numpy as np
import pytest

from probes.analysis import cohorts, runs
from probes.figures import correlate_command
from probes.page import tables
from probes.transfer import odds, summary
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


def test_numbers_that_are_not_finite_are_undefined(tmp_path):
    """NaN and the infinities, nested ones and 1e999 too; how many lines have them is said."""
    tail = (
        '{"epoch": 1, "split": "train", "vci": NaN, "spectrum": {"total": [Infinity, 1.5]}}\n'
        '{"epoch": 2, "split": "train", "vci": -Infinity, "loss": 1e999}\n'
    )
    run = runs.read_run(write(tmp_path / "run", tail=tail))
    assert run.curve("vci", "train") == ([0], [0.5])
    assert run.rows[1]["spectrum"]["total"] == [None, 1.5]
    assert run.rows[2]["loss"] is None
    said = "metrics.jsonl: numbers that are not finite, on 2 line(s), count as undefined."
    assert said in run.notes


def test_blank_lines_are_no_rows(tmp_path):
    """Between rows and after them; line numbers count them."""
    line = json.dumps(ROW)
    path = write(tmp_path / "run", tail=f"\n  \n{line}\n\n\n")
    run = runs.read_run(path)
    assert run.rows == [ROW, ROW]
    assert run.notes == []
    (path / "metrics.jsonl").write_text(f'{line}\n\n{{"epoch"\n\n')
    assert "line 3, the last, is cut off" in runs.read_run(path).notes[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [('{"name": "a', "not valid JSON"), ("", "not valid JSON"), ("[1]", "not an object")],
)
def test_a_damaged_config_is_a_note(tmp_path, text, reason):
    path = write(tmp_path / "run")
    (path / "config.json").write_text(text)
    run = runs.read_run(path)
    assert (run.config, run.rows, run.group) == ({}, [ROW], tmp_path.name)
    assert reason in run.notes[0]


def test_missing_files_are_notes_and_nothing_at_all_is_an_error(tmp_path):
    path = write(tmp_path / "run")
    (path / "config.json").unlink()
    run = runs.read_run(path)
    assert run.config == {}
    assert run.notes == ["config.json is missing."]
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
    del c.config["loss"]["temperature"]  # As if c were of a version that had no such field.
    assert runs.differences([a, c]) == {}
    d = runs.read_run(write(tmp_path / "d", loss=LossConfig(temperature=0.1)))
    assert runs.differences([c, d]) == {"loss.temperature": [1.0, 0.1]}


def test_runs_without_a_config_are_settings_of_their_own(tmp_path):
    found = [runs.read_run(write(tmp_path / name)) for name in "ab"]
    bare = [run._replace(config={}) for run in found]
    assert runs.settings(found) == [0, 0]
    assert runs.settings(bare) == [0, 1]


TASKS = {"pets": 0.9, "dtd": 0.7, "cars": 0.6}


def scored(path, index, accuracy=0.8, tasks=tuple(TASKS), **config):
    """A probed run: fuzziness rises with the index, VCI too, and so does every score."""
    rows = [
        ROW | {"epoch": epoch, "split": split, "accuracy": accuracy, "fuzziness": 1.0 + index}
        for epoch in (0, 1)
        for split in ("train", "test")
    ]
    rows[2]["vci"], rows[3]["vci"] = 0.1 * index, 0.2 * index
    transfer = [{"task": task, "score": TASKS[task] + 0.01 * index} for task in tasks]
    return write(path, rows, transfer, **config)


def test_a_study_takes_last_metrics_and_common_tasks(tmp_path):
    """The split asked for; tasks of which a run has no score are out, and named."""
    for index in range(3):
        tasks = ("pets", "dtd") if index else tuple(TASKS)
        scored(tmp_path / f"run_{index}", index, tasks=tasks, seed=index)
    found = runs.read_runs([tmp_path])
    side = cohorts.from_runs(found, "test")
    assert side.names == ["run_0", "run_1", "run_2"]
    assert side.settings == [0, 0, 0]
    np.testing.assert_allclose(side.metrics["vci"], [0, 0.2, 0.4])
    np.testing.assert_allclose(cohorts.from_runs(found, "train").metrics["vci"], [0, 0.1, 0.2])
    assert np.isnan(side.metrics["cosine_similarity"]).all()
    assert side.notes == ["tasks that not every run was scored on are left out: cars."]
    assert side.mlog[1] == odds.mlog([0.91, 0.71], 0.8)
    assert list(side.members()) == [tmp_path.name]


def test_a_study_leaves_out_what_is_no_share_and_says_so(tmp_path):
    """1 of an unknown number of images, more than 1, no accuracy; each with its remedy."""
    for index in range(2):
        scored(tmp_path / f"good_{index}", index)
    scored(tmp_path / "blank", 1, accuracy=None)
    scored(tmp_path / "perfect", 1, accuracy=1.0)
    write(tmp_path / "unprobed")
    scored(tmp_path / "solved", 10)  # Pets: 0.9 + 0.1.
    rescore(scored(tmp_path / "percent", 1), score=91.7)
    side = cohorts.from_runs(runs.read_runs([tmp_path]), "train")
    assert side.names == ["good_0", "good_1"]
    unknown = "which has no log odds. Of n images it would be taken half an image from there, but n"
    assert side.notes == [
        "blank: left out, it has no test accuracy in metrics.jsonl.",
        "percent: left out, pets is 91.7, which is no share of images; divide per cent by 100.",
        f"perfect: left out, its test accuracy is 1, {unknown} is not recorded; write it as "
        '"samples" into metrics.jsonl.',
        f'solved: left out, pets is 1, {unknown} is not recorded; write it as "test_size" into '
        "transfer.jsonl.",
        "unprobed: left out, it has no scores in transfer.jsonl.",
    ]
    alone = runs.read_runs([tmp_path / "good_0", tmp_path / "perfect"])
    with pytest.raises(
        ValueError, match=r"1 of 2 run\(s\) can be compared(.|\n)*perfect: left out"
    ) as caught:
        cohorts.from_runs(alone, "train")
    assert "python -m probes transfer" not in str(caught.value), "both are probed"


def test_correlate_and_transfer_take_a_perfect_accuracy_alike(tmp_path):
    """Half of one of 360 images below 1; and a score of 0 of 50; on the page, too."""
    paths = [scored(tmp_path / f"run_{index}", index) for index in range(3)]
    lines = (paths[0] / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"accuracy": 1.0, "samples": 360} for line in lines]
    (paths[0] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for index in range(3):
        rescore(paths[0], index, score=(0.0, 0.7, 0.6)[index], test_size=50)
    found = runs.read_runs(paths)
    side = cohorts.from_runs(found, "train")
    assert side.names == ["run_0", "run_1", "run_2"]
    assert side.notes == [
        "run_0: pets is 0, taken as 0.01: half of one of its 50 images above 0.",
        "run_0: its test accuracy is 1, taken as 0.9986: half of one of its 360 images below 1.",
    ]
    expected = odds.mlog([0.01, 0.7, 0.6], 1 - 1 / 720)
    assert side.mlog[0] == pytest.approx(expected, abs=1e-12)
    scores = {row["task"]: row for row in found[0].transfer}
    result = summary.ModelScores(paths[0], scores, found[0].last("test"))
    (row,) = summary.summarise([result], list(scores))
    assert row["mlog"] == pytest.approx(expected, abs=1e-12)
    assert tables.transfer_score(found[0], list(scores), gain=True) == pytest.approx(expected)


@pytest.mark.parametrize(
    "row", [{"task": None, "score": 0.5}, {"task": "pets", "score": "0.5"}, {"task": 3, "score": 1}]
)
def test_a_score_that_is_none_names_its_file(tmp_path, row):
    path = write(tmp_path / "run", transfer=[row])
    with pytest.raises(ValueError, match=r"transfer.jsonl has a row with the task .* a task is a"):
        runs.read_run(path)


def rescore(path, index=0, **fields):
    """Changes a row of transfer.jsonl; all of them for a step."""
    file = path / "transfer.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows if "step" in fields else rows[index : index + 1]:
        row.update(fields)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_null_score_is_none(tmp_path):
    paths = [scored(tmp_path / f"run_{index}", index) for index in range(3)]
    rescore(paths[0], score=None)
    for index in range(3):
        rescore(paths[2], index, score=None)
    side = cohorts.from_runs(runs.read_runs(paths), "train")
    assert list(side.scores) == ["dtd", "cars"]
    assert side.notes[:2] == [
        "run_2: left out, it has no scores in transfer.jsonl.",
        "run_0: its score on pets is null.",
    ]


def test_scores_meet_the_metrics_of_their_step(tmp_path):
    """The row of the same step where there is one; else the last, and both steps are named."""
    for index in range(3):
        path = scored(tmp_path / f"run_{index}", index)
        kinds = [(10, "train"), (10, "test"), (20, "train"), (20 + index // 2, "test")]
        rows = [
            ROW | {"step": step, "split": split, "accuracy": step / 100, "vci": step}
            for step, split in kinds
        ]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rescore(path, step=(10, 15, 20)[index])
    side = cohorts.from_runs(runs.read_runs([tmp_path]), "train")
    assert side.metrics["vci"].tolist() == [10, 20, 20]
    assert side.accuracy.tolist() == [0.1, 0.2, 0.21]
    assert side.notes == [
        "run_1: its scores are of step 15, but its train metrics of 20.",
        "run_1: its scores are of step 15, but its test metrics of 20.",
        "run_2: its scores are of step 20, but its test metrics of 21.",
        "run_2: its last train row is of step 20, its last test of 21.",
    ]


def test_runs_are_judged_from_the_command_line(tmp_path, capsys):
    """Two groups, three temperatures of two seeds: what differs, what is missing, seeds apart."""
    for group in ("a", "b"):
        for index in range(6):
            loss = LossConfig(temperature=1.0 + index // 2)
            path = tmp_path / group / f"run_{index}"
            scored(path, index + index % 3, loss=loss, seed=index % 2, name=f"{group}/run_{index}")
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--resamples", "99"]
    assert correlate_command.main([*arguments, "--out", str(tmp_path / "figures")]) == 0
    said = capsys.readouterr()
    assert "a: loss.temperature is 1.0 (a/run_0), 1.0 (a/run_1), 2.0 (a/run_2)" in said.err
    assert "b: seed is 0 (b/run_0), 1 (b/run_1), 0 (b/run_2)" in said.err
    assert "**Noise of the seed**" in said.out
    assert "| 3 (6 runs)  |" in said.out
    assert "| 3 (12 runs) |" in said.out
    assert "0 setting(s) in a have cosine_similarity: a correlation takes three." in said.out
    assert "vci: + in a (not significant), + in b (not significant): one sign" in said.out
    assert (tmp_path / "figures" / "figure7_transfer.svg").exists()
    assert correlate_command.main([str(tmp_path / "a" / "run_0")]) == 2
    assert "1 of 1 run(s) can be compared" in capsys.readouterr().err
