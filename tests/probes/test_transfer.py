"""The sweep: rows, skips, failures, the table; and the command line."""

import functools
import io
import json
import math

import numpy as np
import pytest
from PIL import Image
from probed_run import make_run
from rich.console import Console

from probes import __main__ as entry
from probes.encoders.config import TransferConfig
from probes.transfer import display, odds, runner, score_log, summary
from train.config import ConfigError
from train.errors import DamagedRunError
from vci_jax.probe import _solver, selection

FIELDS = {"run", "task", "score", "score_name", "l2", "validation_score"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of 20 images, of which brightness tells two apart."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("dim", 40), ("light", 150)):
        (root / name).mkdir()
        for number in range(20):
            pixels = rng.integers(low, low + 100, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("template") / "run"
    make_run(workdir, steps=(0, 3))
    return workdir


@pytest.fixture
def run(template, tmp_path):
    """A copy, as its rows and features are written beside it."""
    workdir = tmp_path / "run"
    for path in template.rglob("*"):
        if path.is_file():
            target = workdir / path.relative_to(template)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return workdir


@pytest.fixture
def few_penalties(monkeypatch):
    """Six instead of 97; the grid itself is tested in test_probes_sweep. Counts the probes."""
    calls = []
    values = np.geomspace(1e-2, 1e3, 6)
    whole = functools.partial(selection.sweep, values=values)

    def counted(*arguments, **options):
        calls.append(options)
        return whole(*arguments, **options)

    monkeypatch.setattr(runner.selection, "sweep", counted)
    return calls


def go(run, *tasks, runs=None, **options):
    """Returns the failures, what was printed, and the rows."""
    console = Console(file=io.StringIO(), width=200)
    options = TransferConfig(task=tasks, batch_size=128, **options)
    failures = runner.transfer([str(r) for r in runs or [run]], options, console)
    path = run / "transfer.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return failures, console.file.getvalue(), [json.loads(line) for line in lines]


def test_a_row_a_task_and_none_twice(run, photos, few_penalties):
    """The second call computes nothing; other settings, or another checkpoint, all of it."""
    tasks = ("digits", f"folder:{photos}")
    failures, said, rows = go(run, *tasks)
    assert not failures
    assert [row["task"] for row in rows] == list(tasks)
    digits, folder = rows
    assert set(digits) >= FIELDS
    assert (digits["run"], digits["step"]) == ("run", 3)
    assert (digits["train_size"], digits["test_size"]) == (1437, 360)
    assert digits["l2"] == digits["value"] / 1437
    assert digits["validation_score"] == max(digits["validation_curve"])
    assert len(digits["validation_curve"]) == 6
    assert "the network was trained on these images: this is no transfer." in digits["warnings"]
    assert (folder["train_size"], folder["test_size"], folder["num_classes"]) == (48, 12, 3)
    # Chance is 1/10 and 1/3; random features of 8 x 8 pixels tell most of it.
    assert digits["score"] > 0.5
    assert folder["score"] > 0.6
    assert min(digits["knn_score"], digits["least_squares_score"]) > 0.5
    assert f"{digits['score']:.4f}" in said
    again = go(run, *tasks)
    assert again[2] == rows
    assert len(few_penalties) == 2
    assert go(run, "digits", seed=1)[2][-1]["key"] != digits["key"]
    assert go(run, "digits", seed=1, step=0)[2][-1]["step"] == 0
    assert len(few_penalties) == 4


@pytest.mark.parametrize("damaged", [False, True])
def test_an_interrupted_probe_goes_on_where_it_was(run, few_penalties, monkeypatch, damaged):
    """Killed after the first block of the path, whose file is gone once the score is known.

    A file that a power cut left empty only costs what it held.
    """
    follow, calls, fatal = _solver.follow, [], [2]

    def counted(*arguments):
        calls.append(0)
        if len(calls) in fatal:
            raise KeyboardInterrupt
        return follow(*arguments)

    monkeypatch.setattr(_solver, "follow", counted)
    with pytest.raises(KeyboardInterrupt):
        go(run, "digits")
    (kept,) = (run / "features").glob("path-*.npz")
    if damaged:
        kept.write_bytes(b"")
    failures, _, rows = go(run, "digits")
    resumed = len(calls) - 2
    assert not failures
    assert not list((run / "features").glob("path-*.npz"))
    (run / "transfer.jsonl").unlink()
    again = go(run, "digits")[2]
    assert len(calls) - 2 - resumed == resumed + (not damaged)
    for name in ("score", "l2", "validation_curve"):
        assert rows[0][name] == again[0][name]


def test_features_are_shared_and_kept_unless_told_otherwise(run, few_penalties):
    go(run, "digits")
    kept = sorted((run / "features").iterdir())
    assert len(kept) == 2
    times = [(path / "features.npy").stat().st_mtime_ns for path in kept]
    go(run, "digits", seed=1)
    assert [(path / "features.npy").stat().st_mtime_ns for path in kept] == times
    go(run, "digits", seed=2, keep_features=False)
    assert not (run / "features").exists()


def test_what_fails_is_said_and_only_that_is_done_again(run, photos, tmp_path, few_penalties):
    """A set that is not there, with its remedy, does not keep the next task from being done."""
    missing = tmp_path / "later"
    failures, said, rows = go(run, "sign_digits", f"folder:{photos}", data_dir=str(tmp_path))
    assert list(failures) == [(str(run), "sign_digits")]
    assert "there is no such folder" in failures[str(run), "sign_digits"]
    assert "--sources sign_digits folder:PATH" in failures[str(run), "sign_digits"]
    assert [row["task"] for row in rows] == [f"folder:{photos}"]
    assert "MLO (1 of 2 tasks)" in said
    missing.mkdir()
    for name in "0123456789":
        (missing / name).mkdir()
        for number in range(10):
            colour = (25 * int(name), 100, number)
            Image.new("RGB", (9, 9), colour).save(missing / name / f"{number}.JPG", "JPEG")
    sources = {"sign_digits": f"folder:{missing}"}
    failures, _, rows = go(
        run, "sign_digits", f"folder:{photos}", data_dir=str(tmp_path), sources=sources
    )
    assert not failures
    assert [row["task"] for row in rows] == [f"folder:{photos}", "sign_digits"]
    assert len(few_penalties) == 2


def test_a_run_that_cannot_be_read_does_not_stop_the_next(run, photos, tmp_path, few_penalties):
    nowhere = tmp_path / "nowhere"
    failures, _, rows = go(run, f"folder:{photos}", runs=[nowhere, run])
    assert list(failures) == [(str(nowhere), "all tasks")]
    assert "is neither a model nor an existing directory" in failures[str(nowhere), "all tasks"]
    assert len(rows) == 1


@pytest.mark.slow
def test_a_broken_image_is_left_out_and_counted(run, photos, tmp_path, few_penalties):
    """Where allowed; where not, the task fails with its name, in the words of this command."""
    mine = tmp_path / "mine"
    for path in photos.rglob("*.png"):
        target = mine / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"torn" if path.name == "7.png" else path.read_bytes())
    failures, _, rows = go(run, f"folder:{mine}")
    (why,) = failures.values()
    assert "more than --max-unreadable" in why
    assert "--data." not in why
    assert not rows
    failures, _, rows = go(run, f"folder:{mine}", max_unreadable=3)
    assert not failures
    assert rows[0]["train_size"] + rows[0]["test_size"] == 57
    assert any("could not be read" in warning for warning in rows[0]["warnings"])
    failures, _, _ = go(run, f"folder:{mine}", seed=1)  # The features are there by now.
    assert "more than --max-unreadable" in "".join(failures.values())


def result(path, scores, test=None):
    rows = {task: {"score": score, "test_size": 50} for task, score in scores.items()}
    return summary.ModelScores(path, rows, test if test is not None else {"accuracy": 0.8})


def test_means_are_over_the_tasks_that_all_runs_have(tmp_path):
    """(0.9, 0.6) and (0.8, 0.5): c is left out for both, and said; MLOG takes 0.8 off."""
    results = [
        result(tmp_path / "one", {"a": 0.9, "b": 0.6, "c": 0.7}),
        result(tmp_path / "two", {"a": 0.8, "b": 0.5}),
    ]
    one, two = summary.summarise(results, ["a", "b", "c"])
    assert one["tasks"] == two["tasks"] == ["a", "b"]
    assert one["mlo"] == pytest.approx((math.log(9) + math.log(1.5)) / 2)
    assert one["mlog"] == pytest.approx(one["mlo"] - math.log(4))
    assert two["mlo"] == pytest.approx(math.log(4) / 2)
    assert one["notes"] == ["left out, as not every run has a score: c."]
    assert summary.best(results, "a") == {0}
    assert summary.best(results, "c") == {0}


def test_perfect_scores_are_half_an_image_away_and_said(tmp_path):
    perfect = result(tmp_path, {"a": 1.0, "b": 0.0, "c": 0.5})
    (found,) = summary.summarise([perfect], ["a", "b", "c"])
    assert found["mlo"] == pytest.approx(odds.mlo([0.99, 0.01, 0.5]))
    assert found["notes"] == [
        "a is 1, taken as 0.99: half of one of its 50 images below 1.",
        "b is 0, taken as 0.01: half of one of its 50 images above 0.",
    ]


def test_a_perfect_score_of_unknown_images_leaves_the_mean_out_and_says_why(tmp_path):
    """The probes of hours are not lost to a traceback; the same for the run's own accuracy."""
    unknown = summary.ModelScores(tmp_path, {"a": {"score": 1.0}}, {"accuracy": 1.0})
    other = result(tmp_path, {"a": 0.5}, test={"accuracy": 1.0, "samples": 360})
    one, two = summary.summarise([unknown, other], ["a"])
    assert one["mlo"] is one["mlog"] is None
    why = "which has no log odds. Of n images it would be taken half an image from there, but n is"
    assert one["notes"] == [
        f'no MLO: a is 1, {why} not recorded; write it as "test_size" into transfer.jsonl.',
        f"no MLOG: its test accuracy is 1, {why} not recorded; write it as "
        '"samples" into metrics.jsonl.',
    ]
    assert two["mlog"] == pytest.approx(-math.log(719))
    assert two["notes"] == [
        "its test accuracy is 1, taken as 0.9986: half of one of its 360 images below 1."
    ]


def test_a_score_that_is_null_is_none(tmp_path):
    """As a score log writes what is not finite."""
    one, two = (result(tmp_path, {"a": score, "b": 0.5}) for score in (None, 0.5))
    found = summary.summarise([one, two], ["a", "b"])
    assert [row["tasks"] for row in found] == [["b"], ["b"]]
    assert summary.best([one, two], "a") == {1}
    console = Console(file=io.StringIO(), width=120)
    display.print_table(console, [one, two], found, ["a", "b"])
    assert "-" in console.file.getvalue()


def test_without_a_test_row_there_is_mlo_and_no_mlog(tmp_path):
    (found,) = summary.summarise([result(tmp_path, {"a": 0.5}, test={})], ["a"])
    assert (found["mlo"], found["mlog"]) == (0.0, None)
    assert "metrics.jsonl has no test accuracy" in found["notes"][0]
    (none,) = summary.summarise([result(tmp_path, {})], ["a"])
    assert none["mlo"] is none["mlog"] is None


def test_the_table_marks_the_best_of_a_row(tmp_path):
    """Ties are both best, by rounding too; one name is told apart by the directory above."""
    results = [
        result(tmp_path / "s1" / "tau", {"a": 0.9, "b": 0.6}),
        result(tmp_path / "s2" / "tau", {"a": 0.8, "b": 0.1 + 0.2 + 0.3}),
    ]
    console = Console(file=io.StringIO(), width=120)
    summaries = summary.summarise(results, ["a", "b"])
    display.print_table(console, results, summaries, ["a", "b"])
    said = console.file.getvalue()
    assert "s1/tau" in said
    assert "s2/tau" in said
    assert "0.9000*" in said
    assert "0.8000*" not in said
    assert said.count("0.6000*") == 2


def test_a_score_log_survives_a_kill(tmp_path):
    """Half a line at the end is dropped, and the next row begins on a line of its own."""
    path = tmp_path / "transfer.jsonl"
    first = {"task": "a", "key": "1", "score": 0.5}
    path.write_text(json.dumps(first) + '\n{"task": "b", "sco')
    book = score_log.ScoreLog(path)
    assert book.rows == {"a": first}
    book.add({"task": "a", "key": "2", "score": math.nan, "curve": [1.0, math.inf]})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [first, {"task": "a", "key": "2", "score": None, "curve": [1.0, None]}]
    reopened = score_log.ScoreLog(path)
    assert reopened.has("a", "2")
    assert not reopened.has("a", "1")
    path.write_text("{\n" + json.dumps(first) + "\n")
    with pytest.raises(DamagedRunError, match="line 1, is not valid JSON"):
        score_log.ScoreLog(path)
    path.write_text(json.dumps(first) + "\nnull\n")
    with pytest.raises(ConfigError, match="line 2, is not a row"):
        score_log.ScoreLog(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no such command"),
        (["transmit"], "no such command: 'transmit'"),
        (["transfer"], "no model given"),
        (["transfer", "run", "--task", "flower"], "Did you mean 'flowers'"),
        (["probe", "a.npz", "b.npz"], "a.npz"),
    ],
)
def test_mistakes_cost_a_message_and_exit_code_2(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("train.runtime.quiet", lambda: None)
    assert entry.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err


def test_a_missing_data_set_costs_exit_code_1(run, tmp_path, capsys, monkeypatch):
    """What is missing and the command that gets it, at the end, on stderr."""
    monkeypatch.setattr("train.runtime.quiet", lambda: None)
    where = ["--data-dir", str(tmp_path)]
    assert entry.main(["transfer", str(run), "--task", "dtd", "aircraft", *where]) == 1
    error = capsys.readouterr().err
    assert "2 score(s) missing; the same command tries them again" in error
    assert "tfds build dtd:3.0.1 --file_format=array_record" in error
    assert "fgvc-aircraft-2013b.tar.gz" in error


def test_features_are_made_without_a_probe(run, photos, capsys, monkeypatch, few_penalties):
    monkeypatch.setattr("train.runtime.quiet", lambda: None)
    assert entry.main(["features", str(run), "--task", f"folder:{photos}"]) == 0
    said = capsys.readouterr().out
    assert not few_penalties
    for path in (run / "features").iterdir():
        assert str(path) in said.replace("\n", "")


@pytest.mark.slow
def test_saved_features_are_probed(tmp_path, capsys, few_penalties):
    """Four clouds far apart: all right, as JSON and as lines; other sizes are refused."""
    rng = np.random.default_rng(0)
    for name, size, dim in (("train", 200, 6), ("test", 40, 6), ("other", 40, 5)):
        labels = np.arange(size) % 4
        features = rng.normal(size=(size, dim)) + 9 * np.eye(4, dim)[labels]
        np.savez(tmp_path / f"{name}.npz", features=features.astype(np.float32), labels=labels)
    train, test, other = (str(tmp_path / f"{n}.npz") for n in ("train", "test", "other"))
    assert entry.main(["probe", train, test, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["score"] == row["knn_score"] == row["least_squares_score"] == 1.0
    assert (row["train_size"], row["validation_size"], row["num_classes"]) == (200, 0, 4)
    assert entry.main(["probe", train, test, "--validation", test]) == 0
    assert "validation_size       40" in capsys.readouterr().out
    assert entry.main(["probe", train, other]) == 2
    assert "different sizes" in capsys.readouterr().err
