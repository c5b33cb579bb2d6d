"""Every public function in every way JAX has of placing a computation: one table, all of it run.

``docs/layouts.md`` shows the table; ``test_layouts.py`` checks whole passes and their collectives.

Legend: P devices, N rows of a batch, D feature dimension, K classes.
"""

import contextlib
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import vci_jax

DEVICES, CLASSES, DIM, ROWS = 8, 3, 4, 160
SPLIT, COPIED = PartitionSpec("data"), PartitionSpec()
PAGE = Path(__file__).parents[2] / "docs" / "layouts.md"


def batch(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    features = 3 + np.eye(CLASSES, DIM)[labels] + rng.normal(size=(ROWS, DIM))
    return features.astype(np.float32), labels


@functools.cache
def states():
    """Two states, and both as a stack, on one device."""
    each = [vci_jax.update(vci_jax.init(CLASSES, DIM), *batch(seed)) for seed in (0, 1)]
    return *each, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def logits():
    return np.eye(CLASSES, dtype=np.float32)[batch(0)[1]][:, ::-1].copy()


# What each function is given: the name says how it is placed, "rows" along the mesh, "whole" on all
# of it.
FUNCTIONS = {
    "init": (lambda rows: vci_jax.update(vci_jax.init(CLASSES, DIM), *rows), ("rows",)),
    "update": (lambda state, rows: vci_jax.update(state, *rows), ("whole", "rows")),
    "merge": (vci_jax.merge, ("whole", "whole")),
    "merge_axis": (vci_jax.merge_axis, ("whole",)),
    "collapse_metrics": (vci_jax.collapse_metrics, ("whole",)),
    "per_class": (vci_jax.per_class, ("whole",)),
    "agreement": (
        lambda state, rows: vci_jax.agreement.ncc_agreement(
            vci_jax.agreement.update(vci_jax.agreement.init(state), *rows)
        ),
        ("whole", "rows"),
    ),
}


def arguments(name):
    one, two, stack = states()
    return {
        "init": (batch(0),),
        "update": (one, batch(1)),
        "merge": (one, two),
        "merge_axis": (stack,),
        "collapse_metrics": (one,),
        "per_class": (one,),
        "agreement": (one, (batch(0)[0], logits())),
    }[name]


def mesh(kind):
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,))


def placed(arguments, kinds, where):
    specs = {"rows": SPLIT, "whole": COPIED}
    return tuple(
        jax.device_put(argument, NamedSharding(where, specs[kind]))
        for argument, kind in zip(arguments, kinds, strict=True)
    )


def copies(arguments, number):
    return jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * number), arguments)


def first(result):
    """Of what is stacked, on the host or inside a region."""
    if not isinstance(jax.tree.leaves(result)[0], jax.core.Tracer):
        result = jax.device_get(result)
    return jax.tree.map(lambda leaf: leaf[0], result)


def by_scan(function, arguments):
    """In every step of a loop; a state is carried where there is one."""

    def loop(*arguments):
        return jax.lax.scan(lambda _, __: (0, function(*arguments)), 0, None, length=2)[1]

    return first(jax.jit(loop)(*arguments))


def by_shard_map(function, arguments, where):
    """Each device has its own copies, and checks that types say so (``check_vma``)."""

    def own(*args):
        return jax.tree.map(lambda leaf: leaf[None], function(*first(args)))

    stacked = placed(copies(arguments, DEVICES), ["rows"] * len(arguments), where)
    return first(jax.jit(jax.shard_map(own, mesh=where, in_specs=SPLIT, out_specs=SPLIT))(*stacked))


def by_gather(function, arguments, where):
    """State copied on all devices, rows cut among them; what differs is gathered inside."""
    del function, arguments
    features, labels = placed((*batch(0),), ["rows", "rows"], where)

    def region(features, labels):
        own = vci_jax.update(vci_jax.init(CLASSES, DIM), features, labels)
        return vci_jax.collapse_metrics(vci_jax.merge_axis(jax.lax.all_gather(own, "data")))

    out = jax.jit(
        jax.shard_map(
            lambda *rows: jax.tree.map(lambda leaf: leaf[None], region(*rows)),
            mesh=where,
            in_specs=SPLIT,
            out_specs=SPLIT,
        )
    )(features, labels)
    return first(out)


TRANSFORMS = {
    "eager": lambda f, a, _: f(*a),
    "jit": lambda f, a, _: jax.jit(f)(*a),
    "jit, donated": lambda f, a, _: jax.jit(f, donate_argnums=tuple(range(len(a))))(
        *jax.tree.map(lambda leaf: leaf + 0, a)
    ),
    "remat": lambda f, a, _: jax.jit(jax.checkpoint(f))(*a),
    "scan": lambda f, a, _: by_scan(f, a),
    "vmap": lambda f, a, _: first(jax.jit(jax.vmap(f))(*copies(a, 3))),
}
# Each of them on one device and on meshes; those below bring their own placement.
CONTEXTS = {
    "one device": None,
    "Auto": (AxisType.Auto, False),
    "Auto, set_mesh": (AxisType.Auto, True),
    "Explicit": (AxisType.Explicit, False),
    "Explicit, set_mesh": (AxisType.Explicit, True),
}
COLUMNS = [f"{t}: {c}" for t in TRANSFORMS for c in CONTEXTS] + [
    "pmap: one device each",
    *(f"shard_map: {context}" for context, kind in CONTEXTS.items() if kind),
]


# One of each kind; the others are slow.
OFTEN = {
    "jit: one device",
    "eager: Explicit",
    "jit: Explicit",
    "jit, donated: Explicit, set_mesh",
    "scan: Explicit, set_mesh",
    "vmap: Explicit",
    "remat: Auto, set_mesh",
    "pmap: one device each",
    "shard_map: Auto",
    "shard_map: Explicit, set_mesh",
}


def run(name, column):
    function, kinds = FUNCTIONS[name]
    transform, _, context = column.partition(": ")
    given = arguments(name)
    if transform == "pmap":
        return first(jax.pmap(function)(*copies(given, DEVICES)))
    if CONTEXTS[context] is None:
        return TRANSFORMS[transform](function, given, None)
    kind, ambient = CONTEXTS[context]
    where = mesh(kind)
    with jax.set_mesh(where) if ambient else contextlib.nullcontext():
        if transform == "shard_map":
            return by_shard_map(function, given, where)
        return TRANSFORMS[transform](function, placed(given, kinds, where), where)


@functools.cache
def expected(name):
    return jax.device_get(jax.jit(FUNCTIONS[name][0])(*arguments(name)))


def assert_same(got, wanted):
    """Equal to 1e-5 of the largest entry; a state by what is reported of it."""
    if isinstance(wanted, vci_jax.ClassMoments):
        got, wanted = (vci_jax.report(state) for state in (got, wanted))
        drop = {"caveats", "warnings", "spectrum", "weighting"}
        got, wanted = ({k: v for k, v in r.items() if k not in drop} for r in (got, wanted))
    for a, b in zip(jax.tree.leaves(jax.device_get(got)), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "column", [c if c in OFTEN else pytest.param(c, marks=pytest.mark.slow) for c in COLUMNS]
)
def test_every_function_in_every_layout(column, name):
    """The same numbers as on one device, whatever the mesh and the transformation."""
    assert_same(run(name, column), expected(name))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_metrics_of_all_devices_inside_a_region(kind):
    """``init`` inside, ``all_gather``, ``merge_axis`` and the metrics, with check_vma."""
    got = by_gather(None, None, mesh(kind))
    assert_same(got, jax.device_get(vci_jax.collapse_metrics(states()[0])))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("ambient", [False, True])
def test_a_scanned_training_step_under_a_mesh(kind, ambient):
    """A state in the carry of a jitted loop over sharded batches keeps its type."""
    where = mesh(kind)
    rows = tuple(np.stack(part) for part in zip(batch(0), batch(1), strict=True))
    spec = NamedSharding(where, PartitionSpec(None, "data"))
    steps = jax.device_put(rows, spec)
    empty = jax.device_put(vci_jax.init(CLASSES, DIM), NamedSharding(where, COPIED))

    @functools.partial(jax.jit, donate_argnums=0)
    def train(state, steps):
        return jax.lax.scan(lambda s, rows: (vci_jax.update(s, *rows), None), state, steps)[0]

    with jax.set_mesh(where) if ambient else contextlib.nullcontext():
        state = jax.block_until_ready(train(empty, steps))
    assert_same(state, jax.device_get(vci_jax.merge(*states()[:2])))
    assert all(leaf.sharding.is_fully_replicated for leaf in state)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_states_under_a_mesh_are_reported_and_measured(kind):
    """``report`` takes the state where it lies; ``measure`` takes batches that lie on a mesh."""
    where = mesh(kind)
    one, two, stack = states()
    for given, wanted in ((one, one), (stack, stack)):
        state = jax.device_put(given, NamedSharding(where, COPIED))
        got, plain = vci_jax.report(state), vci_jax.report(wanted)
        assert got["vci"] == plain["vci"]
    batches = [
        {"image": image, "label": label}
        for image, label in (placed(batch(seed), ["rows", "rows"], where) for seed in (0, 1))
    ]
    result = vci_jax.measure(lambda images: images, batches, num_classes=CLASSES)
    wanted = vci_jax.report(vci_jax.merge(one, two))
    assert result["vci"] == pytest.approx(wanted["vci"], rel=1e-5)


def table():
    """The table of docs/layouts.md."""
    head = ["", *CONTEXTS]
    lines = [head, ["---"] * len(head)]
    lines += [[name, *("yes" for _ in CONTEXTS)] for name in TRANSFORMS]
    lines.append(["pmap", "yes", "-", "-", "-", "-"])
    lines.append(["shard_map", "-", "yes", "yes", "yes", "yes"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def test_the_page_shows_the_table_that_was_run():
    """The documentation's table has the rows and columns of this file."""
    text = PAGE.read_text()
    assert table() in text
    for name in FUNCTIONS:
        assert re.search(rf"`{name}`", text), name
