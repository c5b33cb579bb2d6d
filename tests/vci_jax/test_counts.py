"""Counts beyond 2^31 - 1 stop there, in every operation that adds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vci_jax
from vci_jax import agreement
from vci_jax.counts import MAX_COUNT, add_counts, sum_counts

EDGES = np.array([0, 1, 2, 2**16 - 1, 2**16, 2**24 + 1, 2**30, 2**31 - 2, 2**31 - 1], np.int64)


def test_sums_of_two_are_clipped_sums_of_wide_integers():
    a, b = (side.ravel() for side in np.meshgrid(EDGES, EDGES))
    got = jax.jit(add_counts)(a.astype(np.int32), b.astype(np.int32))
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, np.minimum(a + b, MAX_COUNT))


@pytest.mark.parametrize("parts", [1, 2, 3, 8, 4096])
def test_sums_over_an_axis_are_clipped_sums_of_wide_integers(parts):
    """Random orders of magnitude; 4096 times 2^31 is 2^43, far beyond a single wrap."""
    rng = np.random.default_rng(parts)
    counts = (2 ** rng.uniform(0, 31, (parts, 64)) - 1).astype(np.int64)
    counts[:, 0], counts[:, 1] = MAX_COUNT, 2**20 - 1
    counts[:, 2] = MAX_COUNT // parts
    got = jax.jit(sum_counts)(counts.astype(np.int32))
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, np.minimum(counts.sum(axis=0), MAX_COUNT))


def test_counts_that_wrapped_before_are_saturated():
    """States of older versions may hold negative counts."""
    assert int(add_counts(jnp.int32(-5), jnp.int32(10))) == MAX_COUNT
    assert int(add_counts(jnp.int32(3), jnp.int32(-1))) == MAX_COUNT
    assert int(sum_counts(jnp.array([7, -(2**31), 0], jnp.int32))) == MAX_COUNT
    assert int(sum_counts(jnp.array([-1, -1], jnp.int32))) == MAX_COUNT


def full(near):
    """A state of three classes whose counters are all close to the largest int32."""
    features, labels = np.eye(3, dtype=np.float32), np.arange(3)
    state = vci_jax.update(vci_jax.init(3, 3), features, labels)
    large = jnp.int32(MAX_COUNT - near)
    return state._replace(count=jnp.full(3, large), label_out_of_range=large, non_finite=large)


def counters(state):
    return [*np.asarray(state.count), int(state.label_out_of_range), int(state.non_finite)]


def test_update_stops_at_the_largest_count():
    features = np.ones((15, 3), np.float32)
    features[12:] = np.nan
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 9, 9, 9, 0, 1, 2])
    assert counters(vci_jax.update(full(3), features, labels)) == [MAX_COUNT] * 5
    assert counters(vci_jax.update(full(2), features, labels)) == [MAX_COUNT] * 5
    assert counters(vci_jax.update(full(4), features, labels)) == [MAX_COUNT - 1] * 5


def test_merging_stops_at_the_largest_count():
    """Also where the sum passes 2^32 and would look like a small count again."""
    state = full(0)
    assert counters(vci_jax.merge(state, state)) == [MAX_COUNT] * 5
    for parts in (2, 3, 5):
        stack = jax.tree.map(lambda leaf, parts=parts: jnp.stack([leaf] * parts), state)
        assert counters(vci_jax.merge_axis(stack)) == [MAX_COUNT] * 5
    half = full(2**30)
    assert counters(vci_jax.merge(half, half)) == [2 * (MAX_COUNT - 2**30)] * 5


def test_a_mean_of_a_saturated_count_stays_a_mean():
    """The share of a small batch beside 2^31 - 1 samples is small and positive."""
    state = full(0)
    after = vci_jax.update(state, np.full((4, 3), 2.0, np.float32), np.zeros(4, int))
    np.testing.assert_allclose(after.mean, state.mean, atol=1e-6)


@pytest.mark.parametrize("near", [0, 1])
def test_report_refuses_saturated_counts(near):
    """One state, or a stack of states that only saturate together."""
    state = full(near)
    with pytest.raises(ValueError, match="2\\^31"):
        vci_jax.report(vci_jax.merge(state, state)._replace(scatter=jnp.eye(3)))
    with pytest.raises(ValueError, match="2\\^31"):
        vci_jax.report(jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state))


def test_agreement_stops_at_the_largest_count():
    """And gives no share of what it could not count."""
    start = agreement.init(vci_jax.update(vci_jax.init(3, 3), np.eye(3), np.arange(3)))
    large = jnp.int32(MAX_COUNT - 1)
    state = start._replace(agreed=large, count=large, non_finite=large)
    features, logits = np.eye(3)[[0, 1, 2, 0, 1]], np.eye(3)[[0, 1, 2, 0, 1]]
    features[3:] = np.nan
    after = agreement.update(state, features, logits)
    both = agreement.merge(state, state)
    stacked = agreement.merge_axis(jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), state))
    for result in (after, both, stacked):
        assert (int(result.agreed), int(result.count), int(result.non_finite)) == (MAX_COUNT,) * 3
        assert np.isnan(agreement.ncc_agreement(result))
    assert float(agreement.ncc_agreement(state)) == 1
