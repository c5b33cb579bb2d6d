"""Mistakes in settings: exit code 2 and one message, before anything is written."""

import pytest

from train import __main__ as entry
from train import check, processes
from train.config import ConfigError, MeshConfig

MISTAKES = {
    "--checkpoint.keep-best 1 --checkpoint.best acc": "known metrics: accuracy",
    "--checkpoint.keep-best 1 --checkpoint.best vci_interval": "known metrics: accuracy",
    "--checkpoint.every-steps -1": "checkpoint.every_steps is -1",
    "--checkpoint.every-minutes nan": "checkpoint.every_minutes is nan",
    "--checkpoint.keep 100000000": "free some, or lower --checkpoint.keep",
    "--optim.accumulate 100000": "no weight would ever change",
    "--optim.warmup-epochs 80": "leaves none of the 80 epochs",
    "--optim.final-lr 1": "above --optim.lr 0.1",
    "--optim.warmup-lr 5": "above --optim.lr 0.1",
    "--optim.schedule step --optim.step-factor 2": "would raise the learning rate",
    "--optim.head-decay -1": "optim.head_decay is -1",
    "--optim.ema 1": "optim.ema is 1.0",
    "--eval.averaged": "set --optim.ema",
    "--eval.blocks 1000000000": "lower --eval.blocks",
    "--data.source digitz": "known sources",
    "--data.source folder:/nowhere": "no such folder",
    "--data.source tfds:cifar10 --data.data_dir /nowhere": "tfds build cifar10",
    "--data.source synthetic:10x10": "IMAGESxSIDExCLASSES",
    "--data.test-split test": "splits are fixed",
    "--data.batch-size 5000": "more than the 1437 training images",
    "--data.batch-size 60 --loss.cosine 0.1 --loss.cosine-group 7": "does not divide",
    "--data.batch-size 40 --data.mix.mixup 0.2 --data.repeats 3": "a multiple of 32",
    "--data.repeats 100": "more than the 64 images of a batch",
    "--data.std 1 1 1": "one number for each channel",
    "--data.mean nan": "all must be finite",
    "--data.std 0": "must be positive",
    "--data.crop random_resized": "set --data.image_size",
    "--data.crop-padding 100": "as much as the images have pixels",
    "--data.crop-padding 0": "set it to 4",
    "--data.image-size 16 --data.resize 8": "centre crop",
    "--data.image-size 100000": "a batch takes 2,384 GiB",
    "--data.erasing 1.5": "it is a chance",
    "--data.workers 100000": "at most 1024",
    "--data.policy randaugment": "three channels",
    "--data.mix.label-smoothing 1.5": "from 0 to 1",
    "--model.name resnet19": "known models",
    "--model.name deit_ti": "has no such setting",
    "--model.dropout 1.5": "model.dropout is 1.5",
    "--model.bn-group 7": "does not divide",
    "--model.width 1000000": "checkpoints need",
    "--loss.vci 0.1 --data.batch-size 16": "VCI of a batch of 16 rows",
    "--loss.vci nan": "loss.vci is nan",
    "--loss.name mse --loss.mse-target 0": "loss.mse_target is 0",
    "--loss.name mse --loss.temperature 0.5": "has no effect",
    "--loss.cosine 0.1 --data.mix.mixup 0.2": "of no one class",
    "--mesh.model 3": "does not divide the 8 devices",
    "--log.profile-steps 100000": "the run has 1750 steps",
    "--log.wandb p": "wandb",
    "--seed 4294967296": "less than 2**32",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_leaves_an_empty_directory(mistake, tmp_path, monkeypatch, capsys):
    """In the check as in the run, so that the corrected command runs in the same directory."""
    for variable in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    for arguments in (["check", "digits"], ["digits"]):
        assert entry.main([*arguments, str(tmp_path / "run"), *mistake.split()]) == 2
        said = capsys.readouterr().err
        assert MISTAKES[mistake] in said
        assert said.startswith("error: ")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", ["gs://bucket", "s3://bucket", "hdfs://host:9000"])
def test_a_bucket_is_refused_before_anything_is_written(scheme, tmp_path, monkeypatch, capsys):
    """Neither of work directories nor of data does a folder called gs: come into being."""
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["digits", f"{scheme}/run"],
        ["check", "digits", f"{scheme}/run"],
        ["digits", "run", f"--data.source=folder:{scheme}/images"],
        ["digits", "run", "--data.source=tfds:cifar10", f"--data.data-dir={scheme}/tfds"],
    ):
        assert entry.main(arguments) == 2
        said = capsys.readouterr().err
        assert f"{scheme}" in said
        assert "mount the bucket" in said
    monkeypatch.setenv("TFDS_DATA_DIR", f"{scheme}/tfds")
    assert entry.main(["digits", "run", "--data.source=tfds:cifar10"]) == 2
    assert "TFDS_DATA_DIR is" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mistake", ["--optim.lrr 3", "--optim.lr abc", "--data.crop nonsense"])
def test_what_is_no_setting_leaves_an_empty_directory(mistake, tmp_path):
    with pytest.raises(SystemExit) as error:
        entry.main(["digits", str(tmp_path / "run"), *mistake.split()])
    assert error.value.code == 2
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_work_directory_is_named(tmp_path, capsys):
    (tmp_path / "run").write_text("mine")
    for arguments in (["check", "digits"], ["digits"]):
        assert entry.main([*arguments, str(tmp_path / "run"), "--epochs=11"]) == 2
        assert str(tmp_path / "run") in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "mine"


def test_what_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr(check, "device_bytes", lambda: 10**9)
    check.memory(4 * 10**8, 5 * 10**8, 10**8)
    with pytest.raises(ConfigError, match=r"has 1 GB, and needs 1.1 GB .*lower --eval.blocks"):
        check.memory(4 * 10**8, 6 * 10**8, 10**8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_COORDINATOR_ADDRESS", "10.0.0.1"),
        ("JAX_COORDINATOR_ADDRESS", "host:"),
        ("JAX_NUM_PROCESSES", "two"),
        ("JAX_PROCESS_ID", ""),
        ("JAX_PROCESS_ID", "-1"),
    ],
)
def test_mistakes_in_the_environment_of_processes(name, value, monkeypatch):
    """Named before JAX looks for the others, which would end in its own traceback."""
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name} is {value!r}"):
        processes.join(MeshConfig(distributed=True))
