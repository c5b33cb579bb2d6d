"""The rules of the house, by ast: who may import what, and the size of rooms."""

import ast
import graphlib
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("vci_jax", "train", "configs", "probes", "studies")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


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


def importers(imported):
    """Files that import a module or anything below it."""
    return {
        name(f)
        for f in FILES
        if any(i == imported or i.startswith(imported + ".") for i in imports(f))
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


# Each room may import those that stand behind it, and itself.
MAY_IMPORT = {
    "vci_jax": (),
    "vci_jax.conformance": ("vci_jax",),
    "vci_jax.probe": ("vci_jax",),
    "train": ("vci_jax",),
    "configs": ("train",),
    "probes.encoders": ("train",),
    "probes.transfer": ("vci_jax", "vci_jax.probe", "train", "probes.encoders"),
    "probes.ranking": ("vci_jax.probe", "train", "probes.encoders", "probes.transfer"),
    "probes.analysis": ("vci_jax", "train", "probes.transfer"),
    "probes.figures": (
        *("vci_jax", "vci_jax.probe", "train", "probes.transfer", "probes.analysis"),
    ),
    "probes.page": (
        *("vci_jax", "vci_jax.probe", "train"),
        *("probes.transfer", "probes.ranking", "probes.analysis"),
    ),
    "probes.report": ("probes.page",),  # The name that the page's command had.
    # Its command line, and names kept for callers.
    "probes": ("vci_jax", "vci_jax.probe", "train"),
    "studies.cifar10": (
        *("vci_jax", "vci_jax.probe", "train"),
        *("probes.encoders", "probes.transfer", "probes.analysis", "probes.figures"),
    ),
    "studies": (),
}
# Programs that take a config by its name.
TAKE_CONFIGS = ("train/__main__.py", "train/data/__main__.py")


def module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def arrows(path):
    """The files of ours that a file imports, wherever in it: an import in a function counts too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else node.module for name in names)


def room(dotted):
    """The longest name of a room that a module lies in."""
    parts = dotted.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in MAY_IMPORT), None)


def test_every_file_has_a_room():
    """A new folder of a package needs a row above, unless its room is the package itself."""
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        own = room(module(path))
        assert own, name(path)
        if parts[0] == "probes" and len(parts) > 2:
            assert own == f"probes.{parts[1]}", name(path)
    assert len(list((ROOT / "probes").glob("*.py"))) <= 4


def test_arrows_point_one_way():
    """vci_jax <- train <- probes <- studies, and the same between the rooms of probes."""
    for path in FILES:
        own = room(module(path))
        allowed = {own, *MAY_IMPORT[own], *(["configs"] if name(path) in TAKE_CONFIGS else [])}
        for imported in arrows(path):
            assert room(imported) in allowed, f"{name(path)} imports {imported}"


def test_no_room_imports_itself_by_way_of_others():
    """The table itself has no circle; and within probes it has few arrows."""
    order = graphlib.TopologicalSorter(MAY_IMPORT)
    order.prepare()
    rooms = {own for own in MAY_IMPORT if own.startswith("probes.")}
    assert sum(len(rooms & set(MAY_IMPORT[own])) for own in rooms) <= 15


def test_no_file_imports_itself_by_way_of_others():
    """What a function imports counts too: a hidden circle is one all the same."""
    done = set()

    def visit(own, trail):
        assert own not in trail, f"a circle: {trail} {own}"
        if own not in done:
            for other in arrows(MODULES[own]):
                visit(other, (*trail, own))
            done.add(own)

    for own in MODULES:
        visit(own, ())


def test_configs_import_only_dataclasses():
    """And one another: a group varies a run, and must not drift away from it."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.name != "__init__.py":
            ours = {i for i in imports(path) if i.split(".")[0] in PACKAGES}
            allowed = ("train.config", "configs.")
            assert all(i.startswith(allowed) for i in ours), name(path)


@pytest.mark.parametrize(
    ("dependency", "places"),
    [
        ("flax", ("train/models/", "train/step.py")),
        ("optax", ("train/optim.py", "train/losses.py", "train/step.py")),
        ("jax.sharding.Mesh", ("train/mesh.py",)),
        ("matplotlib", ("probes/figures/",)),
        ("tensorflow", ()),
    ],
)
def test_a_dependency_has_one_place(dependency, places):
    strays = {file for file in importers(dependency) if not file.startswith(places)}
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


def test_test_files_that_are_named_exist():
    """The Makefile, documents, comments and reasons of laws give the paths of test files."""
    documents = [ROOT / "Makefile", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for path in [*documents, *FILES, *(ROOT / "tests").rglob("*.py"), *ROOT.glob("tools/**/*.py")]:
        for named in re.findall(r"\btests/[\w/]+\.py", path.read_text()):
            assert (ROOT / named).exists(), f"{name(path)} names {named}"
