"""The built wheel in a new environment: what a user of ``pip install`` has."""

import json
import os
import pathlib
import re
import subprocess
import sys
import venv
import zipfile

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]

# Runs the cells of a notebook, and prints what Jupyter shows of the last line of each.
RUN_NOTEBOOK = """
import ast, json, sys
names = {}
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        *body, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        print("" if value is None else value._repr_html_())
"""

USER = """
import numpy as np

import vci_jax

rng = np.random.default_rng(0)
labels = rng.integers(0, 10, 500)
features = rng.normal(size=(500, 8))
report: vci_jax.Report = vci_jax.measure_arrays(features, labels)
value: float = vci_jax.vci(features, labels)
moments = vci_jax.jit_update(vci_jax.init(num_classes=10, dim=8), features, labels)
print(value, report.to_json(), vci_jax.report(moments)["vci"], vci_jax.METRICS["vci"].title)
print(vci_jax.compare({"a": (features, labels), "b": (2 * features, labels)}))
"""


def run(*command, cwd):
    """Runs a program without this repository on its path; returns what it prints."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")}
    command = [str(part) for part in command]
    done = subprocess.run(
        command, cwd=cwd, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of a new environment that has the wheel, what it needs, and scikit-learn."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python, constraints = folder / "bin" / "python", ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "-q", wheel, "scikit-learn", "-c", constraints, cwd=folder)
    return python


def test_the_wheel_says_what_it_has(wheel):
    """Types, and a description that names no program of the repository as if it were there."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert "vci_jax/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"vci_jax"}
    assert not re.search(r"make demo|python -m (train|probes)", metadata)


def test_the_notebook_of_ten_lines_compares_two_files(python, tmp_path):
    """From the wheel alone: a comparison, and the report of a file, as HTML."""
    notebook = ROOT / "examples" / "compare.ipynb"
    cells = json.loads(notebook.read_text())["cells"]
    code = [line for c in cells if c["cell_type"] == "code" for line in c["source"]]
    assert len([line for line in code if line.strip()]) <= 10
    shown = run(python, "-c", RUN_NOTEBOOK, notebook, cwd=tmp_path)
    assert "pixels is more collapsed" in shown
    assert shown.count("<table") >= 2
    assert "variability collapse index" in shown


def test_a_users_file_passes_mypy_strict(python, tmp_path):
    """With the types of the wheel, from ``py.typed``; and it runs."""
    file = tmp_path / "user.py"
    file.write_text(USER)
    run(python, file, cwd=tmp_path)
    run(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", python),
        *("--cache-dir", tmp_path / "cache", file),
        cwd=tmp_path,
    )
