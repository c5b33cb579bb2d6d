"""The pilot of the next study: its data, its tables, and its text against the raw files."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from test_train_sources import make_tfds, numbers

import configs
from probes.analysis import runs
from probes.analysis.runs import Run
from studies.cifar10 import pilot, relabel
from studies.cifar10.pilot import Pilot
from train import data
from train.config import ConfigError, DataConfig

PILOT = pathlib.Path(__file__).parents[1] / "docs" / "study" / "pilot"


def test_a_copy_has_the_new_classes_and_leaves_out_what_is_in_none(tmp_path, monkeypatch):
    """Image i of the source has the class i mod 3: blue, green, red."""
    make_tfds(tmp_path, "tiny")
    copy = relabel.Relabelled("tiny", "1.0.0", {"warm": ("red",), "cold": ("blue",)})
    monkeypatch.setitem(relabel.COPIES, "tiny_warmth", copy)
    place = relabel.prepare(tmp_path, "tiny_warmth")
    assert relabel.prepare(tmp_path, "tiny_warmth") == place  # Once it is there, nothing is done.
    made = data.load(DataConfig(source="tfds:tiny_warmth:1.0.0", data_dir=str(tmp_path)))
    assert tuple(made.classes) == ("warm", "cold")
    expected = {i: {2: 0, 0: 1}[i % 3] for i in range(40) if i % 3 != 1}
    assert numbers(made.train) == expected
    assert made.test.size == 7
    with pytest.raises(ConfigError, match="'tiny_cold' is no copy"):
        relabel.prepare(tmp_path, "tiny_cold")


@pytest.mark.parametrize("name", ["cifar10_pairs", "cifar10_kinds", "cifar100_coarse"])
def test_every_class_of_the_source_is_in_one_new_class(name):
    copy = relabel.COPIES[name]
    olds = [old for group in copy.classes.values() for old in group]
    assert len(set(olds)) == len(olds) == {"cifar10": 10, "cifar100": 100}[copy.source]


def made(setting, seed, score, accuracy=0.5):
    """A run of one task with 10,000 test images."""
    rows = [
        {"split": "test", "epoch": 1, "accuracy": accuracy, "samples": 10_000},
    ]
    transfer = [{"task": "one", "score": score, "test_size": 10_000}]
    run = Run(setting, "pilot", pathlib.Path(setting), {"seed": seed}, rows, transfer, [])
    mlo = np.log(score / (1 - score))
    return Pilot("regime", setting, seed, run, mlo, mlo - np.log(accuracy / (1 - accuracy)))


def test_errors_are_those_of_resampled_test_sets():
    """Delta method against 20,000 binomial draws, to 3 % (their own error is 0.5 %)."""
    mlo, mlog = pilot.errors(made("tau_1.0", 0, 0.2, 0.6).run)
    draws = np.random.default_rng(0).binomial(10_000, [[0.2, 0.6]] * 20_000) / 10_000
    task, own = np.log(draws / (1 - draws)).T
    np.testing.assert_allclose(mlo, np.std(task), rtol=0.03)
    np.testing.assert_allclose(mlog, np.std(task - own), rtol=0.03)


def test_the_noise_of_seeds_is_pooled_within_settings():
    """Differences of 0.2 and 0 between two seeds: variances of 0.02 and 0, on average 0.01."""
    found = [made("tau_1.0", 0, 0.5), made("tau_1.0", 1, 0.5), made("tau_0.05", 0, 0.9)]
    found = [one._replace(mlo=value) for one, value in zip(found, (1.0, 1.2, 7.0), strict=True)]
    assert pilot.seed_noise(found, "mlo") == pytest.approx(np.sqrt(0.02))
    found.append(found[2]._replace(seed=1))
    assert pilot.seed_noise(found, "mlo") == pytest.approx(0.1)
    assert np.isnan(pilot.seed_noise(found[1:3], "mlo"))


def test_plain_cross_entropy_is_in_both_groups():
    found = [made("tau_1.0", 0, 0.5), made("tau_0.05", 0, 0.6), made("lambda_0.5", 0, 0.7)]
    rows = pilot.table_of_effects(found).rows
    assert [row[:3] for row in rows] == [
        ["regime", "temperature", "2 (2)"],
        ["regime", "regulariser", "2 (2)"],
    ]
    assert [row[3] for row in rows] == ["0.405", "0.847"]  # log(0.6 / 0.4), log(0.7 / 0.3)


def test_a_run_without_scores_is_refused(tmp_path):
    work = tmp_path / "seed_0" / "deep_tau_1.0"
    work.mkdir(parents=True)
    (work / "metrics.jsonl").write_text(json.dumps({"split": "test", "epoch": 1}) + "\n")
    with pytest.raises(ValueError, match=r"tau_1\.0 has no scores"):
        pilot.read(tmp_path)
    work.rename(work.with_name("deep"))
    with pytest.raises(ValueError, match="not named REGIME_tau_T"):
        pilot.read(tmp_path)


def test_a_run_is_trained_then_probed_on_classes_that_it_was_not_trained_on():
    work = pathlib.Path("runs/seed_1/kinds_tau_1.0")
    train, probe = pilot.commands("kinds_tau_1.0", 1, work, pathlib.Path("data"))
    assert train[:6] == ["-m", "train", "pilot", "runs/seed_1", "--run", "kinds_tau_1.0"]
    assert train[6:8] == ["--seed", "1"]
    assert probe[:4] == ["-m", "probes", "transfer", str(work)]
    assert probe[-3:] == ["--task", "cifar10", "cifar100"]
    _, probe = pilot.commands("terminal_tau_1.0", 1, work, pathlib.Path("data"))
    assert probe[-2:] == ["--task", "cifar100"]
    with pytest.raises(ConfigError, match="'kind' is no run of pilot"):
        pilot.commands("kind", 0, work, pathlib.Path("data"))


def test_the_raw_files_of_a_run_are_made_once(tmp_path, monkeypatch):
    """Two commands, then the copies; with the copies there, nothing runs."""
    ran = []
    monkeypatch.setattr(pilot.subprocess, "run", lambda command, check: ran.append(command))
    work = tmp_path / "runs" / "seed_3" / "kinds_tau_1.0"
    work.mkdir(parents=True)
    for name in ("metrics.jsonl", "transfer.jsonl", "run.json"):
        (work / name).write_text("{}\n")
    (work / "config.json").write_text('{"data": {"data_dir": "/somewhere"}}')
    for _ in range(2):
        pilot.make("kinds_tau_1.0", 3, tmp_path / "kept", tmp_path / "runs", tmp_path)
    assert [command[2] for command in ran] == ["train", "probes"]
    config = json.loads((tmp_path / "kept/seed_3/kinds_tau_1.0/config.json").read_text())
    assert config == {"data": {"data_dir": ""}}


def test_the_text_has_the_tables_of_the_raw_files():
    text = PILOT.with_suffix(".md").read_text()
    assert pilot.with_tables(text, pilot.read(PILOT)) == text
    with pytest.raises(ValueError, match="no part between"):
        pilot.with_tables("nothing", [])


@pytest.mark.parametrize("kept", sorted(PILOT.glob("seed_*/*")), ids=lambda path: path.name)
def test_raw_files_are_of_the_configs(kept):
    """In every setting but those that change no number, and how often it was measured and saved."""
    seed = int(kept.parent.name.removeprefix("seed_"))
    expected = dataclasses.replace(configs.runs("pilot")[kept.name], seed=seed)
    stored = runs.read_run(kept)
    assert not stored.notes
    assert stored.last("test")["epoch"] == stored.last("train")["epoch"] == expected.epochs
    config = json.loads(json.dumps(dataclasses.asdict(expected)))
    assert not runs.differences([stored, stored._replace(config=config)])
