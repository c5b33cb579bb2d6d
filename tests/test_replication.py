"""The study: its text against its raw files, its verdicts against known truths, its jobs."""

import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import threading
import time

import numpy as np
import pytest
from rich.console import Console

import configs
import vci_jax
from probes.analysis import correlation, published
from probes.analysis.runs import Run
from studies.cifar10 import claims, document, jobs, records, small_samples
from studies.cifar10.__main__ import main
from vci_jax.probe.selection import Samples

STUDY = pathlib.Path(__file__).parents[1] / "docs" / "study"
EVIDENCE = sorted((STUDY / "runs").glob("seed_*/*"))


def test_the_text_is_what_the_raw_files_say():
    readme = str(STUDY.parents[1] / "README.md")
    assert main([str(STUDY), "--readme", readme, "--check"]) == 0


def test_a_changed_number_is_found(tmp_path, capsys):
    shutil.copytree(STUDY, tmp_path / "study")
    text = STUDY.with_suffix(".md").read_text()
    number = re.search(r"\d\.\d{4}", text)[0]
    (tmp_path / "study.md").write_text(text.replace(number, "0.1234", 1))
    assert main([str(tmp_path / "study"), "--check"]) == 1
    assert "0.1234" in capsys.readouterr().err


def test_the_prose_has_no_number_of_its_own():
    """Other than names and settings, which the raw files do not hold."""
    prose = (STUDY / "text.md").read_text() + (STUDY / "readme.md").read_text()
    prose = re.sub(r"```.*?```|\{\{\w+\}\}|`[^`]*`|\]\([^)]*\)", "", prose, flags=re.DOTALL)
    names = r"CIFAR-100?|ResNet-\d+|Figures? \d|2023"
    settings = r"2,000 |97 penalties|5 %|300 epochs|2 cores|24 GiB|200 of its 500"
    assert not re.findall(r"\d+", re.sub(f"{names}|{settings}", "", prose))


def test_the_prose_may_not_name_what_there_is_not():
    with pytest.raises(ValueError, match=r"names no_such_number; there are claims, "):
        document.render({"claims": "", "runs": ""}, "{{claims}} {{no_such_number}}")


def test_a_readme_without_a_place_for_the_study_is_refused(tmp_path, capsys):
    (tmp_path / "README.md").write_text("nothing")
    assert main([str(STUDY), "--readme", str(tmp_path / "README.md")]) == 2
    assert "has no part between" in capsys.readouterr().err


@pytest.mark.parametrize("kept", EVIDENCE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_raw_files_are_whole_and_of_the_configs(kept):
    config = configs.runs("cifar10_study")[kept.name]
    seed = int(kept.parent.name.removeprefix("seed_"))
    assert records.is_complete(kept, config.epochs, jobs.TASKS)
    expected = json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(config, seed=seed))))
    assert json.loads((kept / "config.json").read_text()) == expected
    rows = [json.loads(line) for line in (kept / small_samples.FILE).read_text().splitlines()]
    assert len(rows) == 2 * small_samples.DRAWS


def test_every_run_of_the_group_is_there():
    assert {path.name for path in EVIDENCE} >= set(configs.runs("cifar10_study"))


def test_a_half_finished_run_is_not_complete(tmp_path):
    kept = tmp_path / "run"
    shutil.copytree(EVIDENCE[0], kept)
    epochs = configs.runs("cifar10_study")[EVIDENCE[0].name].epochs
    assert records.is_complete(kept, epochs, jobs.TASKS)
    assert not records.is_complete(kept, epochs + 1, jobs.TASKS)
    assert not records.is_complete(kept, epochs, (*jobs.TASKS, "pets"))
    (kept / small_samples.FILE).unlink()
    assert not records.is_complete(kept, epochs, jobs.TASKS)


def run_of(knob, values):
    """A run whose train and test rows have a metric at the given values, from epoch 0 on."""
    rows = [
        {"split": split, "epoch": epoch, "vci": value, "accuracy": 0.5}
        for epoch, value in enumerate(values)
        for split in ("train", "test")
    ]
    config = {"loss": {"temperature": knob}}
    return Run(f"tau_{knob}", "temperature", pathlib.Path(f"tau_{knob}"), config, rows, [], [])


def test_the_change_is_from_the_first_pass_after_training_began():
    assert claims.change(run_of(1.0, [0.9, 0.7, 0.8, 0.2]), "vci", "test") == (0.7, 0.2)


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [
        ([True] * 14, claims.CONFIRMED),
        ([False] * 14, claims.REFUTED),
        ([True, False] * 7, claims.OPEN),
        ([True] * 5, claims.OPEN),  # 2 / 2^5 = 0.0625
        ([True] * 6, claims.CONFIRMED),  # 2 / 2^6 = 0.03125
        ([False] * 6, claims.REFUTED),
        ([True] * 6 + [None] * 8, claims.CONFIRMED),  # Where nothing changes is no evidence.
        ([None] * 14, claims.OPEN),
    ],
)
def test_a_statement_about_runs_takes_an_exact_sign_test(holds, verdict):
    assert claims._counted("", "", holds, "").verdict == verdict


@pytest.mark.parametrize(
    ("values", "sign", "verdict"),
    [
        ([1, 2, 3, 4, 5], 1, claims.CONFIRMED),  # p = 2 / 5! = 0.017
        ([1, 2, 3, 4, 5], -1, claims.REFUTED),
        ([1, 3, 2, 5, 4], 1, claims.OPEN),  # p = 0.13
        ([1, 2, 3, 4], 1, claims.OPEN),  # p = 2 / 4! = 0.083
    ],
)
def test_a_statement_about_a_setting_takes_an_exact_permutation_test(values, sign, verdict):
    runs = [run_of(float(i), [value]) for i, value in enumerate(values, start=1)]
    found = claims._monotone(
        "", "", runs, lambda run: run.config["loss"]["temperature"], claims._last("vci"), sign
    )
    assert found.verdict == verdict


def test_significant_against_a_statement_is_contradicted():
    """Of all kinds of statements, and in the words that the study prints."""
    assert (claims.CONFIRMED, claims.REFUTED, claims.OPEN) == (
        "confirmed", "contradicted", "not decidable",
    )  # fmt: skip
    found = correlation.correlate(published.study(), claims.PLAN)
    (one,) = [c for c in found if (c.group, c.metric) == ("regulariser", "squared_distance")]
    assert claims._positive("", "", one).verdict == "contradicted"
    (one,) = [c for c in found if (c.group, c.metric) == ("regulariser", "fuzziness")]
    assert claims._positive("", "", one).verdict == "not decidable"


def test_what_does_not_change_moves_neither_way():
    """A part of the variability that is 0 from the first pass on neither rises nor falls."""
    assert claims._moves(0.0, 0.0, 1) is None
    assert claims._moves(0.3, 0.1 + 0.2, 1) is None
    assert claims._moves(0.3, 0.31, 1) is True
    assert claims._moves(0.3, 0.31, -1) is False


def test_seeds_of_one_setting_are_one_point():
    runs = [run_of(float(i), [i + shift]) for i in range(1, 6) for shift in (0.0, 0.1)]
    found = claims._monotone(
        "", "", runs, lambda run: run.config["loss"]["temperature"], claims._last("vci"), 1
    )
    assert "over 5 settings" in found.numbers
    assert "1.05 at 1, 5.05 at 5" in found.numbers


def test_small_samples_are_the_library_on_those_rows():
    rng = np.random.default_rng(0)
    labels = np.arange(2500) % 4
    features = (rng.normal(size=(2500, 6)) + np.eye(4, 6)[labels]).astype(np.float32)
    found = small_samples.measure(Samples(features, labels), 4)
    assert len(found) == small_samples.DRAWS
    rows = np.random.default_rng(3).permutation(2500)[: small_samples.SIZE]
    moments = vci_jax.update(vci_jax.init(4, 6), features[rows], labels[rows])
    expected = vci_jax.report(moments)
    for name in small_samples.METRICS:
        assert found[3][name] == pytest.approx(expected[name], rel=1e-5)
    assert len({values["vci"] for values in found}) == small_samples.DRAWS


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="1999 images are too few to draw 2000 from"):
        small_samples.measure(Samples(np.zeros((1999, 2), np.float32), np.zeros(1999, int)), 2)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Jobs whose commands write the raw files of a real run, or do what ``scripts`` says."""
    scripts = {}
    source = EVIDENCE[0]

    def commands(job, places):
        work = places.work / job.place
        copy = f"import shutil; shutil.copytree({str(source)!r}, {str(work)!r}, dirs_exist_ok=True)"
        return [["-c", scripts.get(job.name, copy)]]

    monkeypatch.setattr(jobs, "commands", commands)
    epochs = configs.runs("cifar10_study")[source.name].epochs

    def make(*names):
        return [jobs.Job("cifar10_study", name, 0, epochs) for name in names]

    places = jobs.Places(tmp_path / "study", tmp_path / "work", tmp_path)
    return scripts, make, places, Console(file=io.StringIO(), width=300)


def test_what_is_done_is_skipped_and_a_failure_stops_nothing_else(fake):
    scripts, make, places, console = fake
    scripts["b"] = "import sys; print('no such data'); sys.exit(2)"
    assert jobs.work_off(make("a", "b", "c"), places, 2, console) == 1
    assert all(jobs.is_done(job, places) for job in make("a", "c"))
    said = console.file.getvalue()
    assert "seed_0/b: exit code 2" in said
    assert "no such data" in said
    del scripts["b"]
    scripts["a"] = "raise SystemExit('this was done before')"
    assert jobs.work_off(make("a", "b", "c"), places, 2, console) == 0
    assert "1 of 3 runs are missing" in console.file.getvalue()
    assert jobs.work_off(make("a", "b", "c"), places, 2, console) == 0
    assert "All 3 runs are there" in console.file.getvalue()


def test_sigterm_ends_the_running_jobs_and_begins_no_more(fake, tmp_path):
    scripts, make, places, console = fake
    for name in ("a", "b"):
        scripts[name] = f"open({str(tmp_path / name)!r}, 'w'); import time; time.sleep(60)"

    def ask():
        while not all((tmp_path / name).exists() for name in ("a", "b")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    start = time.monotonic()
    assert jobs.work_off(make("a", "b", "c"), places, 2, console) == 75
    assert time.monotonic() - start < 30
    assert not any(jobs.is_done(job, places) for job in make("a", "b", "c"))


def test_paths_of_the_machine_are_not_kept(tmp_path):
    work = tmp_path / "work"
    shutil.copytree(EVIDENCE[0], work)
    config = json.loads((work / "config.json").read_text())
    config["data"]["data_dir"] = "/home/somebody/tfds"
    (work / "config.json").write_text(json.dumps(config))
    records.collect(work, tmp_path / "kept")
    assert "somebody" not in (tmp_path / "kept" / "config.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data-dir", "x"], "--data-dir and --work-dir are needed together"),
        (["--data-dir", "x", "--work-dir", "y", "--run", "tau_9"], "--run tau_9: cifar10_study"),
    ],
)
def test_mistakes_are_named(arguments, said, capsys):
    assert main([str(STUDY), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_study_without_runs_says_so(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert str(tmp_path / "runs") in capsys.readouterr().err


def test_the_commands_are_those_of_the_project():
    """The real ones: names of modules and options that exist."""
    places = jobs.Places(pathlib.Path("s"), pathlib.Path("w"), pathlib.Path("d"))
    train, probe, small = jobs.commands(jobs.Job("cifar10_study", "tau_1.0", 1, 10), places)
    assert train[:4] == ["-m", "train", "cifar10_study", "w/seed_1"]
    assert train[4:8] == ["--run", "tau_1.0", "--seed", "1"]
    assert probe[:4] == ["-m", "probes", "transfer", "w/seed_1/tau_1.0"]
    assert small[1] == small_samples.__name__
    assert sys.modules[small[1]] is small_samples
