"""The README's example runs, its links lead somewhere, its commands exist."""

import pathlib
import re

import jax
import pytest

import vci_jax

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_example_runs_and_gives_a_sensible_number(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    on_arrays, example, watched, on_many_devices, as_a_loss = blocks
    names = {}
    exec(compile(on_arrays, "README.md", "exec"), names)
    shown = capsys.readouterr().out
    assert f"{vci_jax.vci(names['features'], names['labels'])}" in shown
    assert f"{names['report'].vci:.6g} v variability collapse index" in shown
    assert "clean is more collapsed" in shown
    exec(compile(example, "README.md", "exec"), names)
    # Class means of variance 1 under noise of variance 1, both isotropic, in 64 dimensions with
    # 10 classes: the 9 between/within ratios scatter about 64 / 10, so VCI is near 1 / 7.4.
    assert 0.08 < names["result"]["vci"] < 0.25
    assert names["result"]["samples"] == 5120
    assert names["result"]["warnings"] == []
    assert f"{names['result']['vci']}" in capsys.readouterr().out
    exec(compile(watched, "README.md", "exec"), names)
    assert len((tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()) == 2
    exec(compile(on_many_devices, "README.md", "exec"), names)
    alone = vci_jax.report(vci_jax.update(vci_jax.init(10, 64), names["features"], names["labels"]))
    assert names["result"]["samples"] == 3 * 256 * jax.device_count()
    assert names["result"]["fuzziness"] == pytest.approx(alone["fuzziness"], rel=1e-4)
    exec(compile(as_a_loss, "README.md", "exec"), names)
    assert 0 < names["loss"] < 1
    assert names["gradient"].shape == (256, 64)
    assert 0 < abs(names["gradient"]).max() < 1


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_make_targets_named_are_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
