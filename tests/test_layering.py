"""The rules of the house, by ast: who may import what, and the size of rooms."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("vci_jax", "train", "probes", "studies", "configs")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imports(path):
    """Top-level and dotted names a file imports, wherever in it they stand."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path):
    return str(path.relative_to(ROOT))


def importers(module):
    """Files that import a module or anything below it."""
    return {
        name(f) for f in FILES if any(i == module or i.startswith(module + ".") for i in imports(f))
    }


def roots(path):
    return {module.split(".")[0] for module in imports(path)}


def test_the_library_needs_jax_alone():
    """jax brings numpy and scipy; jaxtyping is for annotations."""
    allowed = {"jax", "jaxtyping", "numpy", "scipy", "vci_jax"} | set(sys.stdlib_module_names)
    for path in FILES:
        if path.is_relative_to(ROOT / "vci_jax"):
            further = {"sklearn"} if name(path) == "vci_jax/probe/estimator.py" else set()
            assert roots(path) <= allowed | further, name(path)


def _is_program(path):
    return path.name == "__main__.py" or '__name__ == "__main__"' in path.read_text()


def test_arrows_point_one_way():
    """vci_jax <- train <- probes; only what is a program itself (has ``__main__``) sees further."""
    for path in FILES:
        room, entry = path.relative_to(ROOT).parts[0], _is_program(path)
        forbidden = {
            "vci_jax": {"train", "probes", "studies", "configs"},
            "train": {"probes", "studies"} | (set() if entry else {"configs"}),
            "probes": {"studies", "configs"},
            "studies": set() if entry else {"configs"},
            "configs": {"vci_jax", "probes", "studies"},
        }[room]
        assert not roots(path) & forbidden, name(path)


def test_configs_import_only_dataclasses():
    """And one another: a group varies a run, and must not drift away from it."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.name != "__init__.py":
            ours = {i for i in imports(path) if i.split(".")[0] in ROOMS}
            allowed = ("train.config", "configs.")
            assert all(i.startswith(allowed) for i in ours), name(path)


@pytest.mark.parametrize(
    ("module", "places"),
    [
        ("flax", ("train/models/", "train/step.py")),
        ("optax", ("train/optim.py", "train/losses.py", "train/step.py")),
        ("jax.sharding.Mesh", ("train/mesh.py",)),
        ("matplotlib", ("probes/figures/",)),
        ("tensorflow", ()),
    ],
)
def test_a_dependency_has_one_place(module, places):
    strays = {file for file in importers(module) if not file.startswith(places)}
    assert not strays


def test_eigenproblems_are_solved_in_one_file():
    """Nobody else calls eigh, svd, pinv or inv: a cutoff elsewhere would act unseen."""
    forbidden = {"eigh", "eigvalsh", "svd", "pinv", "pinvh", "inv"}
    for path in FILES:
        calls = {
            node.func.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value) != "linalg"
        }
        if name(path) != "vci_jax/linalg.py":
            assert not calls & forbidden, name(path)


def test_rooms_stay_small():
    """Files up to 450 lines, functions up to 80 without their docstring, no drawer for odds."""
    for path in FILES:
        assert path.stem not in {"utils", "common", "helpers"}, name(path)
        text = path.read_text()
        assert text.count("\n") <= 450, name(path)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                doc = (
                    node.body[0].end_lineno - node.body[0].lineno + 1
                    if ast.get_docstring(node)
                    else 0
                )
                size = node.end_lineno - node.lineno + 1 - doc
                assert size <= 80, f"{name(path)}: {node.name} has {size} lines"


def test_public_names_are_documented():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name(path)}: {node.name}"
