"""The laws of the state: it does not matter how the data are cut, ordered, padded or merged."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import gaussian_classes

import vci_jax
from vci_jax.moments import rebase, rebase_units

K, D, N = 5, 8, 240
FEATURES, LABELS = gaussian_classes(0, N, K, D)
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}

update = jax.jit(vci_jax.update)
merge = jax.jit(vci_jax.merge)
collapse_metrics = jax.jit(vci_jax.collapse_metrics, static_argnames="data_eps")


def metrics(moments):
    """The float64 finish, as ``report`` has it, so that only the stream is on trial."""
    eps = float(np.finfo(moments.mean.dtype).eps)
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda leaf: np.asarray(leaf, float) if leaf.dtype.kind == "f" else np.asarray(leaf),
            jax.device_get(moments),
        )
        return collapse_metrics(wide, data_eps=eps)


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    with jax.enable_x64(request.param == np.float64):
        yield request.param


def moments_of(features, labels, dtype, mask=None):
    return update(vci_jax.init(K, features.shape[1], dtype=dtype), features, labels, mask)


def assert_same(a, b, dtype):
    """All metrics, and the moments behind them, agree to the tolerance the design promises."""
    chex.assert_trees_all_close(metrics(a), metrics(b), rtol=TOLERANCE[dtype])
    np.testing.assert_array_equal(a.count, b.count)
    scale = np.abs(a.scatter).max()
    np.testing.assert_allclose(
        a.scatter + a.scatter_residual,
        b.scatter + b.scatter_residual,
        atol=TOLERANCE[dtype] * scale,
    )
    centre = jnp.zeros_like(a.pivot)
    left, right = (rebase_units(rebase(x, centre), centre) for x in (a, b))
    names = ("mean", "radial_cubic", "radial_quartic", "unit_sum", "unit_square", "class_scatter")
    for name in (*names, "directed"):
        x, y = getattr(left, name), getattr(right, name)
        np.testing.assert_allclose(x, y, atol=TOLERANCE[dtype] * np.abs(x).max(), err_msg=name)


def test_fields_are_the_definitions(x64):
    """Every field equals the sum its name says, computed by loops."""
    state = moments_of(FEATURES, LABELS, np.float64)
    means = np.stack([FEATURES[LABELS == k].mean(axis=0) for k in range(K)])
    rows = FEATURES - means[LABELS]
    shifted = FEATURES - np.asarray(state.pivot)
    radius = np.sum(shifted**2, axis=1)
    units = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    apart = units - units.mean(axis=0)
    expected = {
        "count": np.bincount(LABELS, minlength=K),
        "pivot": FEATURES.mean(axis=0),
        "mean": means - np.asarray(state.pivot),
        "scatter": rows.T @ rows,
        "class_scatter": [np.sum(rows[LABELS == k] ** 2) for k in range(K)],
        "class_weight": np.ones(K),
        "unit_pivot": units.mean(axis=0),
        "unit_sum": np.stack([np.sum(apart[LABELS == k], axis=0) for k in range(K)]),
        "unit_square": [np.sum(apart[LABELS == k] ** 2) for k in range(K)],
        "directed": np.bincount(LABELS, minlength=K),
        "radial_cubic": radius @ shifted,
        "radial_quartic": np.sum(radius**2),
        "label_out_of_range": 0,
        "non_finite": 0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(
            getattr(state, name), value, rtol=1e-12, atol=1e-12, err_msg=name
        )
    np.testing.assert_allclose(vci_jax.class_means(state), means, rtol=1e-12)


@pytest.mark.parametrize("batches", [1, 7, 100])
def test_any_cut_gives_the_same_metrics(dtype, batches):
    state = vci_jax.init(K, D, dtype=dtype)
    parts = zip(np.array_split(FEATURES, batches), np.array_split(LABELS, batches), strict=True)
    for features, labels in parts:
        size = -len(features) % 8  # few shapes, few compilations
        state = update(
            state,
            np.pad(features, [(0, size), (0, 0)]),
            np.pad(labels, (0, size)),
            np.arange(len(features) + size) < len(features),
        )
    assert_same(moments_of(FEATURES, LABELS, dtype), state, dtype)


@pytest.mark.parametrize("size", [2500, 9500])
def test_a_large_batch_is_taken_in_pieces(dtype, size):
    """Of 1024 rows on a CPU, the last of which overlaps: no row is lost, none counts twice."""
    features, labels = gaussian_classes(9, size, K, D)
    keep = np.arange(size) % 7 > 0
    for row in (5, 1480, 1490, 2047, 2048, 2499):  # 1476 is where one may begin
        features[row, 0] = np.nan
        keep[row] = True
    labels[[6, 1481, 2049]], keep[[6, 1481, 2049]] = K, True
    whole = moments_of(features, labels, dtype, keep)
    parts = vci_jax.init(K, D, dtype=dtype)
    for rows in np.split(np.arange(size), 10):
        parts = update(parts, features[rows], labels[rows], keep[rows])
    assert_same(whole, parts, dtype)
    assert (int(whole.non_finite), int(whole.label_out_of_range)) == (6, 3)
    assert int(whole.count.sum()) == keep.sum() - 9


def test_the_halves_of_wide_rows_make_one_scatter(dtype):
    """From 1536 columns on a CPU, here an odd number of them and weighted classes."""
    features, labels = gaussian_classes(8, 1100, K, 1537)
    features = features.astype(dtype)
    count = np.bincount(labels, minlength=K)
    state = vci_jax.init(K, 1537, dtype=dtype, class_counts=count)
    state = update(state, features, labels)
    means = np.stack([features[labels == k].mean(axis=0, dtype=float) for k in range(K)])
    rows = features - means[labels]
    weighted = rows * np.sqrt(count.mean() / count)[labels, None]
    scatter = np.asarray(state.scatter, float) + np.asarray(state.scatter_residual, float)
    np.testing.assert_array_equal(state.scatter[:769, 769:], state.scatter[769:, :769].T)
    exact = weighted.T @ weighted
    np.testing.assert_allclose(scatter, exact, atol=TOLERANCE[dtype] * exact.max())
    squares = [np.sum(rows[labels == k] ** 2) for k in range(K)]
    np.testing.assert_allclose(state.class_scatter, squares, rtol=TOLERANCE[dtype])


def test_order_does_not_matter(dtype):
    """Even sorted by class, where the first batch holds one class only."""
    order = np.argsort(LABELS, kind="stable")
    state = vci_jax.init(K, D, dtype=dtype)
    for rows in np.split(order, 10):
        state = update(state, FEATURES[rows], LABELS[rows])
    assert_same(moments_of(FEATURES, LABELS, dtype), state, dtype)


def test_masked_rows_change_nothing_whatever_they_hold(dtype):
    """A mask equals dropping the rows: NaN, infinity and wrong labels under it are not counted."""
    keep = np.arange(N) % 3 > 0
    features = np.where(keep[:, None], FEATURES, [np.nan, np.inf, 1e30, -np.inf, 0, 1, 2, 3])
    labels = np.where(keep, LABELS, -7)
    masked = moments_of(features, labels, dtype, keep)
    assert_same(moments_of(FEATURES[keep], LABELS[keep], dtype), masked, dtype)
    assert (int(masked.label_out_of_range), int(masked.non_finite)) == (0, 0)


def test_rows_that_cannot_be_used_are_left_out_and_counted(dtype):
    features, labels = FEATURES.copy(), LABELS.copy()
    features[3, 1], features[9, 0] = np.nan, -np.inf
    labels[[4, 5, 9]] = [-1, K, 2**31 - 1]  # row 9 has a wrong label and infinity: one fault
    good = np.delete(np.arange(N), [3, 4, 5, 9])
    state = moments_of(features, labels, dtype)
    assert_same(moments_of(FEATURES[good], LABELS[good], dtype), state, dtype)
    assert (int(state.label_out_of_range), int(state.non_finite)) == (3, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_value_that_is_not_finite_is_found(dtype, value):
    """In any column: a compiled maximum over 4096 numbers, as here, loses NaN on CPU."""
    features = np.random.default_rng(0).standard_normal((64, 64))
    features[np.arange(64), np.arange(64)] = value
    keep = np.arange(64) != 5
    state = moments_of(features, np.arange(64) % K, dtype, keep)
    assert (int(state.non_finite), int(state.count.sum())) == (63, 0)


def test_init_is_the_identity_of_merge(dtype):
    """Exactly, on both sides: not a bit of the state changes."""
    state, empty = moments_of(FEATURES, LABELS, dtype), vci_jax.init(K, D, dtype=dtype)
    chex.assert_trees_all_equal(merge(empty, state), state)
    chex.assert_trees_all_equal(merge(state, empty), state)
    chex.assert_trees_all_equal(merge(empty, empty), empty)


def test_merge_is_associative_and_commutative(dtype):
    a, b, c = (moments_of(FEATURES[i::3], LABELS[i::3], dtype) for i in range(3))
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)), dtype)
    assert_same(merge(a, b), merge(b, a), dtype)
    assert_same(merge(merge(a, b), c), moments_of(FEATURES, LABELS, dtype), dtype)


def test_merge_axis_folds_what_merge_folds(dtype):
    parts = [moments_of(FEATURES[i::4], LABELS[i::4], dtype) for i in range(4)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    assert_same(
        vci_jax.merge_axis(stack),
        merge(merge(merge(parts[0], parts[1]), parts[2]), parts[3]),
        dtype,
    )


def test_partial_states_far_from_each_other_merge(dtype):
    """Each part has one class and its own pivot, 1e4 standard deviations from the next."""
    features = FEATURES + 1e4 * np.arange(K)[LABELS][:, None]
    parts = [moments_of(features[LABELS == k], LABELS[LABELS == k], dtype) for k in range(K)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    expected = metrics(moments_of(features, LABELS, dtype))
    tolerance = {np.float32: 1e-3, np.float64: 1e-11}[dtype]  # the inputs lost 4 digits
    for name in ("vci", "squared_distance", "cdnv"):
        np.testing.assert_allclose(
            metrics(merged)[name], expected[name], rtol=tolerance, err_msg=name
        )


def test_a_mean_of_1e4_standard_deviations_costs_no_digits():
    """Float32 of shifted data, against the float64 truth of the same float32 numbers."""
    shifted = (FEATURES + 1e4 * FEATURES.std(axis=0)).astype(np.float32)
    with jax.enable_x64(True):
        exact = metrics(moments_of(shifted, LABELS, np.float64))
    state = vci_jax.init(K, D)
    for rows in np.split(np.arange(N), 10):
        state = update(state, shifted[rows], LABELS[rows])
    invariant = ("vci", "fuzziness", "squared_distance", "cdnv", "etf_error")
    for name in invariant:
        np.testing.assert_allclose(metrics(state)[name], exact[name], rtol=1e-5, err_msg=name)


def test_a_long_stream_keeps_its_digits():
    """20 000 batches in float32: the compensated scatter stays at rounding of one batch."""
    features = jnp.asarray(FEATURES[:8], jnp.float32)
    labels = jnp.asarray(LABELS[:8])
    steps = 20_000
    once = update(vci_jax.init(K, D), features, labels)
    state = jax.jit(
        lambda state: jax.lax.fori_loop(
            0, steps, lambda _, s: vci_jax.update(s, features, labels), state
        )
    )(vci_jax.init(K, D))
    np.testing.assert_allclose(
        (state.scatter + state.scatter_residual) / steps, once.scatter, rtol=3e-6, atol=1e-6
    )
    assert int(state.count.sum()) == 8 * steps


def test_counts_pass_2_to_the_24():
    """Float32 counts would stick at 16 777 216."""
    state = moments_of(FEATURES, LABELS, np.float32)
    big = state._replace(count=state.count.at[0].set(2**24))
    one = update(big, FEATURES[LABELS == 0][:1], np.zeros(1, int))
    assert int(one.count[0]) == 2**24 + 1


def test_update_traces_once():
    traced = jax.jit(chex.assert_max_traces(vci_jax.update, n=1))
    state = vci_jax.init(K, D)
    for rows in np.split(np.arange(N), 4):
        state = traced(state, FEATURES[rows].astype(np.float32), LABELS[rows])
    assert int(state.count.sum()) == N


def test_one_product_a_batch_and_no_second_pass():
    """The compiled update holds a single D x D product, in full precision (narrow features)."""
    text = jax.jit(vci_jax.update).lower(vci_jax.init(K, D), FEATURES, LABELS).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    squares = [line for line in products if f"tensor<{D}x{D}xf32>" in line.split("->")[-1]]
    assert len(squares) == 1
    assert all("HIGHEST" in line for line in products)


@pytest.mark.parametrize("kind", [np.float16, jnp.bfloat16, np.int8, np.uint8, np.int32])
def test_narrow_features_are_taken_at_their_value(kind):
    """A float16 or integer feature is the number it holds, nothing more, nothing less."""
    features = jnp.asarray(np.clip(np.round(3 * FEATURES + 8), 0, 16), kind)
    wide = np.asarray(features).astype(np.float32)
    chex.assert_trees_all_equal(
        moments_of(features, LABELS, np.float32), moments_of(wide, LABELS, np.float32)
    )


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint32])
def test_narrow_labels(kind):
    """K = 300 does not fit int8 or uint8: comparisons must not wrap around."""
    start = vci_jax.init(300, D)
    labels = LABELS.astype(kind)
    chex.assert_trees_all_equal(
        update(start, FEATURES, labels), update(start, FEATURES, LABELS.astype(np.int32))
    )


def test_class_counts_give_class_weights(x64):
    """Declared counts pool each class with weight mean(counts) / counts, absent classes with 1."""
    counts = np.array([10, 20, 30, 0, 40])
    labels = np.repeat(np.arange(K), counts)
    features, _ = gaussian_classes(1, len(labels), K, D)
    state = update(vci_jax.init(K, D, class_counts=counts, dtype=np.float64), features, labels)
    present = [k for k in range(K) if counts[k]]
    expected = sum(25 * np.cov(features[labels == k].T, bias=True) for k in present)
    np.testing.assert_allclose(state.scatter + state.scatter_residual, expected, rtol=1e-12)
    np.testing.assert_allclose(state.class_weight, [2.5, 1.25, 25 / 30, 1, 0.625])


def test_states_of_different_class_weights_do_not_mix():
    plain = moments_of(FEATURES, LABELS, np.float32)
    weighted = vci_jax.init(K, D, class_counts=np.arange(1, K + 1))
    assert np.isfinite(metrics(merge(plain, weighted))["vci"])  # it is empty: no harm
    mixed = merge(plain, update(weighted, FEATURES, LABELS))
    assert np.isnan(metrics(mixed)["vci"])


@pytest.mark.parametrize(
    ("features", "labels", "mask", "words"),
    [
        (np.ones((4, D + 1)), np.zeros(4, int), None, r"features must be \[N, 8\], got \(4, 9\)"),
        (np.ones((4, 2, 2, D)), np.zeros(4, int), None, "Pool or flatten"),
        (np.ones((4, D), complex), np.zeros(4, int), None, "real numbers, got complex"),
        (np.ones((4, D), bool), np.zeros(4, int), None, "real numbers, got bool"),
        (np.ones((4, D)), np.zeros(3, int), None, r"labels must have one entry.*\(3,\)"),
        (np.ones((4, D)), np.zeros(4), None, "labels must be integers 0 .. 4, got float"),
        (np.ones((4, D)), np.eye(4, dtype=int), None, "labels must have one entry"),
        (np.ones((4, D)), np.zeros(4, int), np.ones(5), "mask must have one entry"),
    ],
)
def test_wrong_batches_are_refused_at_trace_time(features, labels, mask, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(vci_jax.update, vci_jax.init(K, D), features, labels, mask)


def test_wrong_states_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        vci_jax.init(0, 3)
    with pytest.raises(ValueError, match="float32 or float64, got dtype=bfloat16"):
        vci_jax.init(2, 3, dtype=jnp.bfloat16)
    with pytest.raises(vci_jax.VCIError, match="float32 or float64, got 'junk'"):
        vci_jax.init(2, 3, dtype="junk")
    with pytest.raises(ValueError, match="enable_x64"):
        vci_jax.init(2, 3, dtype=np.float64)
    with pytest.raises(ValueError, match=r"class_counts must be integers of shape \(2,\)"):
        vci_jax.init(2, 3, class_counts=np.ones(3, int))
    with pytest.raises(ValueError, match=r"count is int32 \(2,\).*\(3,\)"):
        vci_jax.merge(vci_jax.init(2, 3), vci_jax.init(3, 3))
    with pytest.raises(ValueError, match="merge_axis folds a leading axis"):
        vci_jax.merge_axis(vci_jax.init(2, 3))
    stack = jax.tree.map(lambda leaf: leaf[None], vci_jax.init(2, 3))
    with pytest.raises(ValueError, match=r"jax.vmap\(update\)"):
        vci_jax.update(stack, np.ones((1, 3)), np.zeros(1, int))
    with pytest.raises(ValueError, match="Fold them with merge_axis"):
        vci_jax.collapse_metrics(stack)


def test_an_empty_batch_changes_nothing():
    state = moments_of(FEATURES, LABELS, np.float32)
    same = vci_jax.update(state, np.zeros((0, D)), np.zeros(0, int))
    chex.assert_trees_all_equal(state, same)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    classes=st.integers(1, 6),
    dim=st.integers(1, 6),
    sizes=st.lists(st.sampled_from([1, 2, 5, 9]), min_size=1, max_size=4),
    kind=st.sampled_from([np.float32, np.float16, np.int8]),
)
def test_any_stream_is_the_sum_of_its_parts(seed, classes, dim, sizes, kind):
    """Random shapes, dtypes, masks, labels and cuts: counts add up, scatter is that of all."""
    rng = np.random.default_rng(seed)
    state, kept = vci_jax.init(classes, dim), []
    offered = wrong = 0
    for size in sizes:
        features = (3 * rng.standard_normal((size, dim))).astype(kind)
        labels = rng.integers(-1, classes + 1, size)
        mask = rng.random(size) < 0.8
        state = update(state, features, labels, mask)
        inside = (labels >= 0) & (labels < classes)
        offered, wrong = offered + mask.sum(), wrong + (mask & ~inside).sum()
        kept += [(labels[i], features[i].astype(float)) for i in np.flatnonzero(mask & inside)]
    assert int(state.count.sum()) == len(kept) == offered - wrong
    assert int(state.label_out_of_range) == wrong
    scatter = np.zeros((dim, dim))
    for k in range(classes):
        rows = np.array([row for label, row in kept if label == k]).reshape(-1, dim)
        rows = rows - rows.mean(axis=0) if len(rows) else rows
        scatter += rows.T @ rows
    np.testing.assert_allclose(state.scatter + state.scatter_residual, scatter, atol=2e-4)


def test_integers_of_64_bits_do_not_wrap():
    """JAX has 32; NumPy's labels beyond are out of range, NumPy's features become floats."""
    labels = np.array([2**32, 1, 0], np.int64)
    state = vci_jax.update(vci_jax.init(2, 1), np.array([[2**40], [2], [4]]), labels)
    np.testing.assert_array_equal(state.count, [1, 1])
    assert int(state.label_out_of_range) == 1
    state = vci_jax.update(vci_jax.init(1, 1), np.full((3, 1), 2**40), np.zeros(3, int))
    np.testing.assert_allclose(vci_jax.class_means(state), [[2.0**40]])


def test_a_total_beyond_int32_is_not_no_samples():
    """Four classes of 2^30 samples sum to 2^32, which is 0 in int32."""
    state = moments_of(FEATURES, LABELS, np.float32)
    full = state._replace(count=jnp.full(K, 2**30, jnp.int32).at[4].set(0))
    again = update(full, FEATURES[:8], LABELS[:8])
    np.testing.assert_array_equal(again.pivot, state.pivot)
    np.testing.assert_array_equal(merge(full, state).pivot, state.pivot)
    # With so many samples nothing is left of the bias; the scatter is that of a few, so scale it.
    full = full._replace(scatter=full.scatter * (2**32 / N))
    adjusted = jax.jit(vci_jax.collapse_metrics)(full)
    np.testing.assert_allclose(adjusted["vci_adjusted"], adjusted["vci"], rtol=1e-5)
