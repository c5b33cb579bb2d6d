"""Configs: overrides, refusals and the claim on a work directory."""

import dataclasses

import jax
import pytest

import configs
from train import losses, models, optim
from train.config import Config, ConfigError, OptimConfig, flatten, override, validate
from train.data import augment, mix
from train.errors import DamagedRunError
from train.workdir import claim


def test_override_changes_that_field_alone():
    """An argument reaches its field with its type, and nothing else moves."""
    base = configs.get("digits")
    changed = override(base, ["--optim.lr", "0.5"])
    assert changed.optim.lr == 0.5
    back = dataclasses.replace(changed, optim=dataclasses.replace(changed.optim, lr=base.optim.lr))
    assert back == base


def test_automatic_workers_fill_the_cores(monkeypatch):
    """A thread for each core that the process may use, whatever the host has."""
    config = configs.get("imagenet_resnet50")
    for cores, threads, expected in ((112, 2, 56), (8, 3, 2), (1, 2, 1), (6, 0, 6)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)))
        some = override(config, ["--data.workers", "auto", "--data.threads", str(threads)])
        assert some.data.workers == "auto"
        assert some.data.processes == expected
    assert override(config, ["--data.workers", "3"]).data.processes == 3
    assert override(configs.get("digits"), ["--data.workers", "auto"]).data.processes == 0


@pytest.mark.parametrize("wrong", ["--optim.lrr", "--optm.lr", "--optim.learning"])
def test_misspelt_override_suggests_the_field(wrong, capsys):
    """Exit code 2, and the message on stderr contains the right spelling."""
    with pytest.raises(SystemExit) as error:
        override(configs.get("digits"), [wrong, "0.1"])
    assert error.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert wrong in captured.err
    if wrong != "--optim.learning":
        assert "--optim.lr FLOAT" in captured.err


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--epochs", "0"], "--epochs is 0"),
        (["--data.batch-size", "0"], "--data.batch_size is 0"),
        (["--optim.lr", "-1"], "--optim.lr is -1.0"),
        (["--loss.temperature", "0"], "--loss.temperature is 0.0"),
        (["--epochs", "3"], "--optim.warmup_epochs"),
    ],
)
def test_impossible_values_are_named(arguments, field):
    """Values that cannot be run are refused before anything starts."""
    with pytest.raises(ConfigError, match=field):
        override(configs.get("digits"), arguments)


def test_unknown_config_lists_the_known_ones():
    """The message suggests the nearest name and lists them all."""
    with pytest.raises(ConfigError, match=r"Did you mean 'digits'\? Known configs: .*digits"):
        configs.get("digit")


@pytest.mark.parametrize("name", configs.names())
def test_every_config_is_valid_and_knows_its_name(name):
    """What is in configs/ can be run, and the summary that the command line lists is there."""
    assert configs.summaries()[name]
    if not configs.is_group(name):
        assert validate(configs.get(name)).name == name
        return
    runs = configs.runs(name)
    assert len(runs) > 1
    assert len({dataclasses.replace(validate(run), name="") for run in runs.values()}) == len(runs)
    assert [run.name for run in runs.values()] == [f"{name}/{run}" for run in runs]
    with pytest.raises(ConfigError, match=next(iter(runs))):
        configs.get(name)


@pytest.mark.parametrize("name", configs.names())
def test_every_config_builds_its_transform_mixing_model_and_loss(name):
    """Settings that contradict one another come out here, not in hour one on an accelerator."""
    runs = configs.runs(name).values() if configs.is_group(name) else [configs.get(name)]
    for config in runs:
        augment.training_transform(config.data)
        augment.test_transform(config.data)
        mixing = mix.build(config.data.mix, 10, config.data.repeats)
        size = config.data.batch_size
        batch = {
            "image": jax.ShapeDtypeStruct((size, 8, 8, 3), "uint8"),
            "label": jax.ShapeDtypeStruct((size,), "int32"),
        }
        assert jax.eval_shape(mixing, jax.random.key(0), batch)["target"].shape == (size, 10)
        models.build(config.model, 10)
        losses.build(config.loss)
        losses.build_regulariser(config.loss, 10)
        optim.build(config.optim, lambda step: 0.1)


def test_a_single_run_is_not_a_group():
    """Asking for its members says so."""
    with pytest.raises(ConfigError, match="digits is a single run"):
        configs.runs("digits")


def test_claim_accepts_the_same_and_names_what_differs(tmp_path):
    """The second process of a run passes; another run is refused with both values."""
    config = Config(epochs=20)
    claim(config, tmp_path / "run")
    claim(config, tmp_path / "run")
    other = Config(epochs=21, optim=OptimConfig(lr=0.25))
    with pytest.raises(ConfigError) as error:
        claim(other, tmp_path / "run")
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert [line for line in lines if " there, " in line] == [
        "epochs: 20 there, 21 now",
        "optim.lr: 0.1 there, 0.25 now",
    ]


def test_claim_refuses_a_broken_file(tmp_path):
    """A config.json that is no JSON is an error that names it, not a traceback."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DamagedRunError, match=r"config\.json is not valid JSON"):
        claim(Config(), tmp_path)


def test_claim_refuses_a_path_that_is_a_file(tmp_path):
    """A work directory cannot be where a file is."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made a work directory"):
        claim(Config(), tmp_path / "file")


def test_flatten_names_fields_as_the_command_line_does():
    """Nested sections become dotted names."""
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b.c": 2, "b.d.e": 3}
