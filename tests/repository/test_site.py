"""The documentation site: it builds strictly, leaves nothing out, and its Python runs.

Blocks of a page are run as a reader would run them: in order, as one program, in a new process with
nothing of the test suite in its environment, from an empty directory.
"""

import ast
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

import vci_jax
import vci_jax.probe
from vci_jax.caveat_codes import CODES

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if "study" not in path.relative_to(DOCS).parts]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
# Packages that the extra [dev] does not bring: pages about them run where they are installed.
OPTIONAL = {"haiku", "lightning", "torch", "transformers"}
# Minutes together, and all of howto/monitor, which train.
SLOW = {"choose.md", "definitions.md", "ranking.md"}
SLOW |= {f"howto/{page}.md" for page in ("compare", "loss", "probe", "rank")}
SETTINGS = ("JAX_", "XLA_", "VCI_")


def name(path):
    return path.relative_to(DOCS).as_posix()


def is_slow(path):
    return name(path) in SLOW or path.parent.name == "monitor"


def program(path):
    """The Python blocks of a page, one after another."""
    return "\n".join(textwrap.dedent(block) for _, block in BLOCK.findall(path.read_text()))


def reader(directory):
    """The environment of a reader: without the settings of the suite."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}
    return kept | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(directory)}


def run(command, directory, **options):
    return subprocess.run(
        command, cwd=directory, env=reader(directory), capture_output=True, text=True, **options
    )


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=name(path), marks=[pytest.mark.slow] * is_slow(path))
        for path in PAGES
        if BLOCK.search(path.read_text())
    ],
)
def test_the_python_of_a_page_runs(path, tmp_path):
    text = program(path)
    imported = {
        module.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module] if isinstance(node, ast.ImportFrom) else
                       [alias.name for alias in node.names])
    }  # fmt: skip
    for package in sorted(imported & OPTIONAL):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}, which the project does not install")
    (tmp_path / "page.py").write_text(text)
    done = run([sys.executable, "page.py"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_has_its_entry():
    """Of ``vci_jax`` and ``vci_jax.probe``; the build fails where an entry names nothing."""
    for module in (vci_jax, vci_jax.probe):
        page = DOCS / "api" / f"{module.__name__.rpartition('.')[2]}.md"
        entries = re.findall(
            rf"^::: {re.escape(module.__name__)}[\w.]*\.(\w+)$", page.read_text(), re.M
        )
        assert sorted(set(entries) & set(module.__all__)) == sorted(module.__all__)


def test_every_caveat_is_explained_and_no_other():
    """The codes that the library can give, as its source has them, are those of the table."""
    given = set()
    for path in (ROOT / "vci_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Caveat":
                code = node.args[0]
                given |= {code.value} if isinstance(code, ast.Constant) else set()
    assert given == set(CODES)
    for one in CODES.values():
        assert one.meaning.endswith("."), one.code
        assert one.remedy.endswith("."), one.code


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: a broken link, anchor, table or name fails here."""
    pytest.importorskip("mkdocs", reason="needs mkdocs: the extra [docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = run([*map(str, command)], ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_asks_no_network(site):
    """Every script, style, font and picture is a file of the site."""
    # A server alone shows 404.html, whose addresses are those of the server.
    pages = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    assert len(pages) > 30
    for path in pages:
        loaded = re.findall(
            r"<(?:script|img|iframe|source)[^>]+src=[\"']?([^\"' >]+)"
            r"|<link[^>]+(?:stylesheet|icon|preconnect)[^>]+href=[\"']?([^\"' >]+)",
            path.read_text(),
        )
        for address in filter(None, (one for pair in loaded for one in pair)):
            assert not address.startswith(("http", "//")), f"{path.name} loads {address}"
            if not address.startswith("data:"):
                assert (path.parent / address.partition("?")[0]).exists(), f"{path}: {address}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", path.read_text()), path.name
