"""Moments on disk: what comes back is what went in, to the bit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import vci_jax
from vci_jax import ClassMoments

CLASSES, DIM = 3, 4


def batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.normal(size=(20, DIM)).astype(np.float32), rng.integers(-1, CLASSES, 20)


def stream(moments, data):
    update = jax.jit(vci_jax.update)
    for features, labels in data:
        moments = update(moments, features, labels.astype(np.int32))
    return moments


def through_npz(moments, folder):
    vci_jax.save(folder / "moments.npz", moments)
    return vci_jax.load(folder / "moments.npz")


def through_orbax(moments, folder):
    template = jax.tree.map(jnp.zeros_like, moments)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "moments", moments)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "moments", template)


both_ways = pytest.mark.parametrize("through", [through_npz, through_orbax])


def assert_identical(a, b):
    assert type(a) is type(b) is vci_jax.ClassMoments
    chex.assert_trees_all_equal_shapes_and_dtypes(a, b)
    chex.assert_trees_all_equal(a, b)


@both_ways
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_survives(through, dtype, tmp_path):
    """All fields, dtypes and refusals come back, and the type with them."""
    with jax.enable_x64(dtype == "float64"):
        moments = stream(vci_jax.init(CLASSES, DIM, dtype=dtype), batches(3))
        assert int(moments.label_out_of_range) > 0
        assert float(jnp.max(jnp.abs(moments.scatter_residual))) > 0
        assert_identical(through(moments, tmp_path), moments)


@both_ways
def test_a_stack_of_partial_states_survives(through, tmp_path):
    """Jackknife blocks and devices keep their leading axis."""
    states = [stream(vci_jax.init(CLASSES, DIM), [batch]) for batch in batches(4)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    loaded = through(stack, tmp_path)
    assert_identical(loaded, stack)
    assert vci_jax.report(loaded)["vci_interval"] == vci_jax.report(stack)["vci_interval"]


@both_ways
def test_a_pass_cut_in_the_middle_ends_with_the_same_bits(through, tmp_path):
    """Save after three batches of seven, load, go on: nothing tells it from one pass."""
    data = list(batches(7))
    whole = stream(vci_jax.init(CLASSES, DIM), data)
    halfway = through(stream(vci_jax.init(CLASSES, DIM), data[:3]), tmp_path)
    resumed = stream(halfway, data[3:])
    assert_identical(resumed, whole)
    assert int(resumed.count.sum() + resumed.label_out_of_range) == 7 * 20


def test_saving_replaces_the_file_whole(tmp_path):
    """A second save leaves one file with the second state, and no temporary one."""
    through_npz(vci_jax.init(CLASSES, DIM), tmp_path)
    moments = stream(vci_jax.init(CLASSES, DIM), batches(1))
    assert_identical(through_npz(moments, tmp_path), moments)
    assert [path.name for path in tmp_path.iterdir()] == ["moments.npz"]


def test_another_file_is_refused_by_name(tmp_path):
    """The error says what is missing, what is there, and how to write it."""
    np.savez(tmp_path / "features.npz", features=np.zeros(3), count=np.zeros(2))
    with pytest.raises(ValueError, match=r"lacks pivot, mean, .* has features, count"):
        vci_jax.load(tmp_path / "features.npz")


def test_a_torn_file_is_refused(tmp_path):
    """Half a file, as a full disk leaves it, is a ValueError that names the file."""
    path = tmp_path / "torn.npz"
    vci_jax.save(path, vci_jax.init(2, 3))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"torn\.npz is not a readable npz file"):
        vci_jax.load(path)


def test_files_of_another_byte_order_and_wide_counts_are_read(tmp_path):
    """As other programs write them; a count beyond int32 is saturated, which report refuses."""
    moments = stream(vci_jax.init(CLASSES, DIM), batches(2))
    arrays = jax.device_get(moments)._asdict()
    swapped = {name: leaf.astype(leaf.dtype.newbyteorder(">")) for name, leaf in arrays.items()}
    np.savez(tmp_path / "swapped.npz", **swapped)
    assert_identical(vci_jax.load(tmp_path / "swapped.npz"), ClassMoments(**arrays))
    wide = swapped | {"count": np.full(CLASSES, 2**40)}
    np.savez(tmp_path / "wide.npz", **wide)
    loaded = vci_jax.load(tmp_path / "wide.npz")
    np.testing.assert_array_equal(loaded.count, np.full(CLASSES, 2**31 - 1, np.int32))
    with pytest.raises(ValueError, match="overflowed"):
        vci_jax.report(loaded)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mean", "f2"), ("scatter", "g"), ("count", "f4"), ("pivot", "c8"), ("mean", "f8")],
)
def test_moments_of_another_dtype_are_refused(tmp_path, name, kind):
    arrays = jax.device_get(vci_jax.init(CLASSES, DIM))._asdict()
    np.savez(tmp_path / "odd.npz", **(arrays | {name: arrays[name].astype(kind)}))
    with pytest.raises(ValueError, match=f"does not hold moments.*{name} {np.dtype(kind)}"):
        vci_jax.load(tmp_path / "odd.npz")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mean", (DIM,)), ("mean", (0, DIM)), ("scatter", (DIM, DIM + 1)), ("count", (CLASSES + 1,)),
     ("pivot", (2, DIM))],
)  # fmt: skip
def test_moments_of_other_shapes_are_refused(tmp_path, name, shape):
    """One array of another K, D or number of blocks; a stack of blocks is none such."""
    moments = vci_jax.init(CLASSES, DIM)
    arrays = jax.device_get(moments)._asdict()
    np.savez(tmp_path / "odd.npz", **arrays | {name: np.zeros(shape, arrays[name].dtype)})
    with pytest.raises(ValueError, match=f"do not fit each other, mean .*{name}"):
        vci_jax.load(tmp_path / "odd.npz")
