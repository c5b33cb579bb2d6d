"""The README's example runs, its links lead somewhere, its commands exist."""

import pathlib
import re

import pytest

import vci_jax

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_the_example_runs_and_gives_a_sensible_number(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (on_arrays,) = blocks  # test_site.py runs those that moved to the pages
    names = {}
    exec(compile(on_arrays, "README.md", "exec"), names)
    shown = capsys.readouterr().out
    assert f"{vci_jax.vci(names['features'], names['labels'])}" in shown
    assert f"{names['report'].vci:.6g} v variability collapse index" in shown
    assert "clean is more collapsed" in shown


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_make_targets_named_are_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
