"""Every public function obeys laws: what may be done to its input, and what becomes of the answer.

The tables are documents, a sentence a law: ``laws.library``, ``laws.numerics``, ``laws.probes`` and
``laws.studies``.
"""

import ast
import pathlib

import jax
import pytest
from laws import violations
from laws.library import EXEMPT as LIBRARY_EXEMPT
from laws.library import EXEMPT_MODULES as LIBRARY_MODULES
from laws.library import LIBRARY
from laws.numerics import NUMERICS
from laws.probes import EXEMPT as PROBES_EXEMPT
from laws.probes import EXEMPT_MODULES as PROBES_MODULES
from laws.probes import PROBES
from laws.studies import EXEMPT as STUDY_EXEMPT
from laws.studies import STUDY

import vci_jax

ROOT = pathlib.Path(__file__).parents[2]
LAWS = (*LIBRARY, *NUMERICS, *PROBES, *STUDY)
EXEMPT = LIBRARY_EXEMPT | PROBES_EXEMPT | STUDY_EXEMPT
EXEMPT_MODULES = LIBRARY_MODULES | PROBES_MODULES


def title(law):
    places = law.functions[0].removeprefix("vci_jax.").removeprefix("probes.")
    return f"{places}: {law.statement}"


def marked(law):
    marks = [pytest.mark.xfail(strict=True, reason=law.fails)] if law.fails else []
    return pytest.param(law, id=title(law), marks=marks)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("law", [marked(law) for law in LAWS])
def test_law(law):
    """The answer to changed data is what the law says."""
    assert not violations(law)


@pytest.mark.parametrize("law", [pytest.param(law, id=title(law)) for law in LAWS if not law.fails])
def test_each_law_can_fail(law):
    """An implementation that takes the changed data for something else breaks the law."""
    assert violations(law, law.mistake)


def public_functions():
    """Dotted names of the functions of the packages, and of the classes that have methods."""
    for room in ("vci_jax", "probes", "studies"):
        for path in sorted((ROOT / room).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    yield f"{module}.{node.name}"


def home(name):
    """The name of a function where it is defined, for one that ``vci_jax`` re-exports."""
    place, _, function = name.rpartition(".")
    found = getattr(vci_jax, function, None) if place == "vci_jax" else None
    return f"{found.__module__}.{found.__name__}" if callable(found) else name


def test_every_public_function_has_a_law_or_a_reason():
    """A new function needs a row in a table of laws, or a reason why none would say anything."""
    covered = {home(name) for law in LAWS for name in law.functions}
    exempt = {
        name
        for name in public_functions()
        if name in EXEMPT or any(name.startswith(f"{module}.") for module in EXEMPT_MODULES)
    }
    everything = set(public_functions())
    missing = everything - covered - exempt
    assert not missing, f"without a law or a reason: {sorted(missing)}"
    assert not covered & set(EXEMPT), "has a law, and needs no exemption any more"
    gone = (covered | set(EXEMPT)) - everything - METHODS
    assert not gone, f"in a table, but no longer there: {sorted(gone)}"
    exported = {name for name in vci_jax.__all__ if callable(getattr(vci_jax, name))}
    assert {home(f"vci_jax.{name}") for name in exported} - TYPES <= covered


# Classes: states without behaviour, and estimators whose methods the laws name.
TYPES = {
    "vci_jax.moments.ClassMoments", "vci_jax.geometry.Geometry", "vci_jax._report.Report",
    "vci_jax.compare.Comparison", "vci_jax.errors.VCIError", "vci_jax.errors.Caveat",
}  # fmt: skip
METHODS = {"vci_jax.probe.estimator.LogisticProbe", "vci_jax.monitor.Monitor"}


def test_laws_are_sentences():
    """Each statement reads alone, and no two laws of a function say the same."""
    for law in LAWS:
        assert law.statement.endswith("."), law.statement
    assert len({title(law) for law in LAWS}) == len(LAWS)
    assert all(len(reason) > 15 for reason in (EXEMPT | EXEMPT_MODULES).values())
