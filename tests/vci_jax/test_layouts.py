"""One data set through every way JAX has of placing a computation: the same metrics.

Legend: S batches, P devices, N rows of a batch on a device, D feature dimension, K classes.
"""

from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import vci_jax
from tools.compile_tpu import collectives
from vci_jax import linalg

CLASSES, DIM, ROWS, DEVICES = 6, 10, 800, 8
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
SPLIT, COPIED = PartitionSpec("data"), PartitionSpec()


def data():
    """Imbalanced, off the origin, condition number 100, half sorted: most devices miss a class."""
    rng = np.random.default_rng(0)
    labels = rng.choice(CLASSES, ROWS, p=[0.35, 0.25, 0.15, 0.15, 0.08, 0.02])
    labels[: ROWS // 2].sort()
    means = rng.normal(size=(CLASSES, DIM))
    noise = rng.normal(size=(ROWS, DIM)) * np.arange(1, DIM + 1) ** -1.0
    rotation, _ = np.linalg.qr(rng.normal(size=(DIM, DIM)))
    features = 3 + (means[labels] + noise) @ rotation
    return features.astype(np.float32), labels.astype(np.int32)


def cut(batches):
    """The data as [S, P, N, ...] arrays: S ragged batches, each padded with masked NaN rows."""
    features, labels = data()
    size = -(-ROWS // (batches * DEVICES)) * DEVICES
    whole = np.full((batches, size, DIM), np.nan, np.float32), np.full((batches, size), -1)
    mask = np.zeros((batches, size), bool)
    for step, rows in enumerate(np.array_split(np.arange(ROWS), batches)):
        whole[0][step, : len(rows)], whole[1][step, : len(rows)] = features[rows], labels[rows]
        mask[step, : len(rows)] = True
    return tuple(part.reshape(batches, DEVICES, -1, *part.shape[2:]) for part in (*whole, mask))


def flat(batches):
    return tuple(part.reshape(len(part), -1, *part.shape[3:]) for part in cut(batches))


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,))


def placed(tree, spec, kind=AxisType.Auto):
    return jax.device_put(tree, NamedSharding(mesh(kind), spec))


def partial_states(dtype):
    """One empty state a device; ``init`` is the identity, so all may start from it."""
    state = vci_jax.init(CLASSES, DIM, dtype=dtype)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (DEVICES, *leaf.shape)), state)


def through_jit(batches, dtype):
    update = jax.jit(vci_jax.update, donate_argnums=0)
    moments = vci_jax.init(CLASSES, DIM, dtype=dtype)
    for batch in zip(*flat(batches), strict=True):
        moments = update(moments, *batch)
    return moments


def through_scan(batches, dtype):
    def step(moments, batch):
        return vci_jax.update(moments, *batch), None

    return jax.jit(lambda *args: jax.lax.scan(step, *args)[0])(
        vci_jax.init(CLASSES, DIM, dtype=dtype), flat(batches)
    )


def through_vmap(batches, dtype):
    update, stack = jax.jit(jax.vmap(vci_jax.update), donate_argnums=0), partial_states(dtype)
    for batch in zip(*cut(batches), strict=True):
        stack = update(stack, *batch)
    return jax.jit(vci_jax.merge_axis)(stack)


def through_pmap(batches, dtype):
    update, stack = jax.pmap(vci_jax.update, donate_argnums=0), partial_states(dtype)
    for batch in zip(*cut(batches), strict=True):
        stack = update(stack, *batch)
    return jax.jit(vci_jax.merge_axis)(stack)


def shard_mapped(kind=AxisType.Auto):
    """Inside, a device holds a leading axis of one partial state and its own rows of the batch."""

    def update(stack, *batch):
        own = jax.tree.map(lambda leaf: leaf[0], stack)
        return jax.tree.map(lambda leaf: leaf[None], vci_jax.update(own, *batch))

    mapped = jax.shard_map(update, mesh=mesh(kind), in_specs=SPLIT, out_specs=SPLIT)
    return jax.jit(mapped, donate_argnums=0)


def through_shard_map(batches, dtype):
    update, stack = shard_mapped(), placed(partial_states(dtype), SPLIT)
    for batch in zip(*flat(batches), strict=True):
        stack = update(stack, *placed(batch, SPLIT))
    return merge_on_mesh(stack)


@jax.jit(donate_argnums=0)
def sharded_update(stack, *batch):
    """What a loop of one jitted step writes: the batch as it comes, [P N, ...] over the devices."""
    own = [part.reshape(DEVICES, -1, *part.shape[1:]) for part in batch]
    return jax.vmap(vci_jax.update)(stack, *own)


def through_sharded_jit(batches, dtype):
    stack = placed(partial_states(dtype), SPLIT)
    for batch in zip(*flat(batches), strict=True):
        stack = sharded_update(stack, *placed(batch, SPLIT))
        assert all(leaf.sharding.spec[0] == "data" for leaf in stack)
    return merge_on_mesh(stack)


def through_replicated_state(batches, dtype):
    """The most natural code: one state for all devices. Right, at the price of collectives."""
    update = jax.jit(vci_jax.update, donate_argnums=0)
    moments = placed(vci_jax.init(CLASSES, DIM, dtype=dtype), COPIED)
    for batch in zip(*flat(batches), strict=True):
        # On simulated devices two programs with collectives in flight take each other's threads and
        # wait for ever; accelerators queue them.
        moments = jax.block_until_ready(update(moments, *placed(batch, SPLIT)))
    return moments


def merge_on_mesh(stack):
    return jax.jit(vci_jax.merge_axis, out_shardings=NamedSharding(mesh(), COPIED))(stack)


def numbers(moments):
    """Every number of the report, spectra included."""
    result = vci_jax.report(moments)
    assert result.pop("warnings") == []
    assert result.pop("caveats") == []
    assert result.pop("weighting") == "sample"
    result |= {f"spectrum_{name}": part for name, part in result.pop("spectrum").items()}
    return result


@pytest.fixture(scope="module")
def expected():
    """One batch on one device in float64."""
    features, labels = data()
    with jax.enable_x64(True):
        state = vci_jax.init(CLASSES, DIM, dtype=jnp.float64)
        result = numbers(jax.jit(vci_jax.update)(state, features, labels))
    assert len(result) == 30
    assert (result["samples"], result["classes"], result["kept_rank"]) == (ROWS, CLASSES, DIM)
    assert 0.05 < result["vci"] < 0.95
    return result


LAYOUTS = [
    through_jit,
    through_scan,
    through_vmap,
    through_pmap,
    through_shard_map,
    through_sharded_jit,
    through_replicated_state,
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batches", [1, 7, 100])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_any_cut_gives_the_same_metrics(layout, batches, dtype, expected):
    """1, 7 and 100 ragged batches on 1 and on 8 devices: every number of the report agrees."""
    with jax.enable_x64(dtype == "float64"):
        moments = layout(batches, dtype)
        assert moments.mean.dtype == dtype
        result = numbers(moments)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=TOLERANCE[dtype], err_msg=name)


def test_report_takes_the_sharded_stack_as_it_is(expected):
    """The merge may also happen in the report, in float64 on the host, and gives an interval."""
    stack = placed(partial_states(jnp.float32), SPLIT)
    for batch in zip(*flat(10), strict=True):
        stack = sharded_update(stack, *placed(batch, SPLIT))
    result = vci_jax.report(stack)
    low, high = result["vci_interval"]
    assert low < result["vci_adjusted"] < high
    for name in ("vci", "fuzziness", "squared_distance", "cosine_similarity"):
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-5, err_msg=name)


def compiled(update, state, spec, batch, batch_spec, kind=AxisType.Auto):
    return update.lower(placed(state, spec, kind), *placed(batch, batch_spec, kind)).compile()


def first_batch(batches):
    return tuple(part[0] for part in batches)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_program_of_a_batch_moves_nothing_between_devices(dtype, kind):
    """With one partial state a device none of the programs has a collective."""
    with jax.enable_x64(dtype == "float64"):
        stack, blocked, rows = partial_states(dtype), first_batch(cut(10)), first_batch(flat(10))
        mapped = jax.jit(jax.vmap(vci_jax.update))
        programs = {
            "vmap": compiled(mapped, stack, SPLIT, blocked, SPLIT, kind),
            "sharded jit": compiled(sharded_update, stack, SPLIT, rows, SPLIT, kind),
            "shard_map": compiled(shard_mapped(kind), stack, SPLIT, rows, SPLIT, kind),
            "pmap": jax.pmap(vci_jax.update).lower(stack, *blocked).compile(),
        }
        assert {name: collectives(program) for name, program in programs.items()} == {
            name: [] for name in programs
        }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_device_ever_holds_all_partial_states(dtype):
    """The merge adds up over devices, rather than gathering P states on each: four are enough."""
    with jax.enable_x64(dtype == "float64"):
        state = jax.eval_shape(lambda: vci_jax.init(3, 64, dtype=dtype))

        def stacked(leaf):
            shape, split = (DEVICES, *leaf.shape), NamedSharding(mesh(), SPLIT)
            return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=split)

        stack = jax.tree.map(stacked, state)
        merge = jax.jit(vci_jax.merge_axis, out_shardings=NamedSharding(mesh(), COPIED))
        program = merge.lower(stack).compile()
    memory = program.memory_analysis()
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in state)
    assert memory.argument_size_in_bytes == pytest.approx(held, rel=0.01)
    assert memory.temp_size_in_bytes < 4 * held
    assert "all-reduce" in collectives(program)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sum_over_devices_keeps_what_one_number_cannot_hold(dtype):
    """Over 64 parts, in any order, a sum is good to 2^-36 (float32) or 2^-90 of its peak."""
    rng = np.random.default_rng(0)
    parts = np.exp(rng.normal(scale=4, size=(64, 5, 5))) * rng.choice([-1, 1], (64, 5, 5))
    parts = parts.astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        total, residual = jax.tree.map(np.asarray, jax.jit(linalg.exact_sum)(parts))
        turned = jax.jit(linalg.exact_sum)(parts[::-1])[0]
    np.testing.assert_array_equal(total, turned)
    peak, narrow = np.abs(parts).max(axis=0), dtype == "float32"
    for index in np.ndindex(5, 5):
        column = (Fraction(float(part)) for part in parts[:, *index])
        error = sum(column) - Fraction(float(total[index])) - Fraction(float(residual[index]))
        assert abs(error) <= Fraction(float(peak[index])) * (
            Fraction(1, 2**36) if narrow else Fraction(1, 2**90)
        )


def test_a_replicated_state_costs_collectives_in_every_batch():
    """Why one partial state a device: GSPMD otherwise reduces the D x D product of each batch."""
    program = compiled(
        jax.jit(vci_jax.update),
        vci_jax.init(CLASSES, DIM),
        COPIED,
        first_batch(flat(10)),
        SPLIT,
    )
    assert set(collectives(program)) == {"all-reduce"}
    assert all(sharding.is_fully_replicated for sharding in program.output_shardings)


def test_batches_of_one_shape_trace_once():
    """Neither the first batch, an empty one nor a merge back into the loop retraces."""
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(stack, *batch):
        return jax.vmap(vci_jax.update)(stack, *batch)

    stack = placed(partial_states(jnp.float32), SPLIT)
    for batch in zip(*cut(7), strict=True):
        stack = update(stack, *placed(batch, SPLIT))
    *rows, mask = placed(first_batch(cut(7)), SPLIT)
    idle = update(stack, *rows, jnp.zeros_like(mask))
    chex.assert_trees_all_equal(idle, stack)
    assert int(idle.count.sum()) == ROWS


def test_a_donated_stack_is_updated_in_place():
    """The buffers of the old stack are given to the new one, on every device."""
    stack = placed(partial_states(jnp.float32), SPLIT)
    new = sharded_update(stack, *placed(first_batch(flat(10)), SPLIT))
    assert all(leaf.is_deleted() for leaf in stack if leaf.size > DEVICES)
    assert int(new.count.sum()) == ROWS // 10
