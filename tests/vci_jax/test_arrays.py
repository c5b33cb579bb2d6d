"""Host arrays of every dtype: read as the numbers they hold at every door, or refused by name."""

import doctest
import importlib
import warnings

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import vci_jax
from vci_jax import agreement
from vci_jax.arrays import as_native, canonicalize_reals, check_head, labelled_rows

K, D, N = 3, 4, 24
RNG = np.random.default_rng(0)
FEATURES = RNG.integers(0, 16, (N, D)).astype(np.float32)  # exact in every dtype below
LABELS = np.arange(N) % K
LOGITS = RNG.integers(0, 16, (N, K)).astype(np.float32)

WHOLE = [np.dtype(code) for code in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")]
WHOLE += [kind.newbyteorder(">") for kind in WHOLE if kind.itemsize > 1]
REAL = [np.dtype(code) for code in ("f2", "f4", "f8", "g", ">f2", ">f4", ">f8", ">g")]
REAL += [np.dtype(kind) for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e5m2)]
SWAPPED = [kind for kind in WHOLE + REAL if not kind.isnative]
UNREAL = [
    FEATURES != 0,
    FEATURES.astype(np.complex64),
    FEATURES.astype(np.clongdouble),
    FEATURES.astype(object),
    FEATURES.astype(str),
    FEATURES.astype(bytes),
    FEATURES.astype("m8[s]"),
    FEATURES.astype(int).astype("M8[s]"),
    FEATURES.view("V4"),
]


def name(kind):
    return kind.str.replace("|", "") if kind.kind != "V" else kind.name


real = pytest.mark.parametrize("kind", WHOLE + REAL, ids=name)
swapped = pytest.mark.parametrize("kind", SWAPPED, ids=name)
unreal = pytest.mark.parametrize("values", UNREAL, ids=lambda values: values.dtype.str)


def state():
    return vci_jax.init(K, D)


EXPECTED = vci_jax.jit_update(state(), FEATURES, LABELS)


@real
def test_features_are_the_numbers_they_hold(kind):
    """The same bits as float32 gives, also after a native array of that shape was compiled."""
    features = FEATURES if kind.itemsize > 1 else FEATURES % 4  # float8 has three bits
    expected = vci_jax.jit_update(state(), features, LABELS)
    if kind != np.longdouble:
        native = features.astype(kind.newbyteorder("="))
        chex.assert_trees_all_equal(vci_jax.jit_update(state(), native, LABELS), expected)
    got = vci_jax.jit_update(state(), features.astype(kind), LABELS)
    chex.assert_trees_all_equal(got, expected)


@pytest.mark.parametrize("kind", WHOLE, ids=name)
def test_labels_are_the_classes_they_name(kind):
    labels = LABELS.astype(kind)
    chex.assert_trees_all_equal(vci_jax.jit_update(state(), FEATURES, labels), EXPECTED)
    beyond = labels.copy()
    beyond[0] = min(np.iinfo(kind).max, 2**40)
    got = vci_jax.jit_update(state(), FEATURES, beyond)
    assert (int(got.label_out_of_range), int(got.count.sum())) == (1, N - 1)


@swapped
def test_the_doors_that_are_not_compiled_swap_bytes_too(kind):
    """update, both of agreement, and measure with its labels and mask."""
    features = FEATURES.astype(kind)
    labels = LABELS.astype(kind if kind.kind in "iu" else ">i8")
    mask = np.ones(N, kind)
    got = vci_jax.update(state(), features, labels, mask)
    np.testing.assert_array_equal(got.count, EXPECTED.count)
    np.testing.assert_allclose(got.scatter, EXPECTED.scatter, rtol=1e-5)
    start = agreement.init(EXPECTED)
    expected = agreement.ncc_agreement(agreement.update(start, FEATURES, LOGITS))
    assert 0 < expected < 1
    for update in (agreement.update, agreement.jit_update):
        result = update(start, features, LOGITS.astype(kind), mask)
        assert int(result.count) == N
        assert agreement.ncc_agreement(result) == expected
    batches = [(features, labels, mask)]
    counts = np.bincount(LABELS).astype(labels.dtype)
    result = vci_jax.measure(lambda x: x, batches, K, class_counts=counts, weighting="class")
    plain = vci_jax.measure(lambda x: x, [(FEATURES, LABELS)], K, weighting="class")
    np.testing.assert_allclose(result["vci"], plain["vci"], rtol=1e-6)


@unreal
def test_what_is_no_real_number_is_refused(values):
    """At every door, as ValueError with the dtype in it, never an error of NumPy or JAX."""
    start = agreement.init(EXPECTED)
    doors = [
        lambda: vci_jax.update(state(), values, LABELS),
        lambda: vci_jax.jit_update(state(), values, LABELS),
        lambda: vci_jax.measure(lambda x: x, [(values, LABELS)], K),
        lambda: vci_jax.canonicalize_batch(values, LABELS),
        lambda: agreement.update(start, values, LOGITS),
        lambda: agreement.update(start, FEATURES, values[:, :K]),
        lambda: agreement.jit_update(start, FEATURES, values[:, :K]),
        lambda: check_head((values[:D].T[:D, :K], None), D, K),
    ]
    for door in doors:
        with pytest.raises(ValueError, match="must be real numbers, got"):
            door()


@pytest.mark.parametrize(
    "labels",
    [LABELS / 2, LABELS > 0, LABELS.astype(str), LABELS.astype(object), LABELS.astype("m8[s]")],
)
def test_labels_that_are_not_integers_are_refused(labels):
    for update in (vci_jax.update, vci_jax.jit_update):
        with pytest.raises(ValueError, match="labels must be integers"):
            update(state(), FEATURES, labels)


def test_masks_are_truth_values():
    """2^40 is nonzero, although int32 has nothing left of it."""
    for mask in (np.full(N, 2**40), np.full(N, 1e-320, np.longdouble), [True] * N):
        got = vci_jax.jit_update(state(), FEATURES, LABELS, mask)
        chex.assert_trees_all_equal(got, EXPECTED)
    for mask in (np.full(N, "x"), np.full(N, 1j), np.full(N, None)):
        with pytest.raises(ValueError, match="mask must be numbers or truth values"):
            vci_jax.jit_update(state(), FEATURES, LABELS, mask)


def test_wide_features_become_floats():
    """64-bit integers, and long doubles beyond float64, which are infinite and counted."""
    wide = np.array([[2**40, 1, 2, 3]] * 2)
    got = vci_jax.jit_update(state(), wide, [0, 1])
    np.testing.assert_array_equal(vci_jax.class_means(got)[0], [2.0**40, 1, 2, 3])
    long = np.ones((2, D), np.longdouble)
    long[0, 0] = np.longdouble("1e4000")
    got = vci_jax.jit_update(state(), long, [0, 1])
    assert (int(got.non_finite), int(got.count.sum())) == (1, 1)


def test_masked_arrays_and_foreign_objects_are_refused():
    hidden = np.ma.masked_equal(FEATURES, FEATURES[0, 0])
    with pytest.raises(ValueError, match="masked array with"):
        vci_jax.jit_update(state(), hidden, LABELS)
    plain = np.ma.masked_array(FEATURES, mask=False)
    chex.assert_trees_all_equal(vci_jax.jit_update(state(), plain, LABELS), EXPECTED)
    with pytest.raises(ValueError, match="cannot be read as a NumPy array"):
        vci_jax.jit_update(state(), [[1, 2], [3]], LABELS)

    class Tensor:
        def __array__(self, *args, **kwargs):
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")

    with pytest.raises(ValueError, match=r"cuda:0 device type tensor"):
        vci_jax.measure(lambda x: Tensor(), [(FEATURES, LABELS)], K)


def test_memory_maps_stay_on_disk(tmp_path):
    np.save(tmp_path / "features.npy", FEATURES)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert canonicalize_reals("features", mapped, np.float32) is mapped


def test_jit_update_is_update_for_tracers_and_jax_arrays():
    """Inside jit, vmap and scan, and without a copy of what is a JAX array already."""
    features, labels = jnp.asarray(FEATURES), jnp.asarray(LABELS)
    assert as_native("features", features) is features
    chex.assert_trees_all_equal(vci_jax.jit_update(state(), features, labels), EXPECTED)
    inside = jax.jit(lambda *batch: vci_jax.jit_update(state(), *batch))
    chex.assert_trees_all_close(inside(features, labels), EXPECTED, atol=1e-5)
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), state())
    pair = (features.reshape(2, -1, D), labels.reshape(2, -1))
    merged = vci_jax.merge_axis(jax.vmap(vci_jax.jit_update)(stack, *pair))
    np.testing.assert_array_equal(merged.count, EXPECTED.count)
    scanned, _ = jax.lax.scan(lambda s, b: (vci_jax.jit_update(s, *b), None), state(), pair)
    np.testing.assert_array_equal(scanned.count, EXPECTED.count)


def test_moments_of_the_other_byte_order_are_updated():
    foreign = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(leaf.dtype.newbyteorder(">")), EXPECTED
    )
    chex.assert_trees_all_equal(
        vci_jax.jit_update(foreign, FEATURES, LABELS, donate=False),
        vci_jax.jit_update(EXPECTED, FEATURES, LABELS, donate=False),
    )
    assert vci_jax.report(foreign)["vci"] == vci_jax.report(EXPECTED)["vci"]


def test_donation_is_a_choice():
    """By default the state is updated in place, and using it again is refused with the remedy."""
    start = state()
    after = vci_jax.jit_update(start, FEATURES, LABELS, donate=False)
    chex.assert_trees_all_equal(after, EXPECTED)
    np.testing.assert_array_equal(start.count, 0)
    vci_jax.jit_update(start, FEATURES, LABELS)
    assert start.mean.is_deleted()
    with pytest.raises(ValueError, match="donate=False"):
        vci_jax.jit_update(start, FEATURES, LABELS)


def test_a_jit_of_ones_own_is_safe_after_canonicalize_batch():
    """Without it jit folds 2^40 into class 0: the reason for all this."""
    mine = jax.jit(vci_jax.update)
    labels = np.array([2**40, 1, 2])
    assert int(mine(state(), FEATURES[:3], labels).count[0]) == 1
    batch = vci_jax.canonicalize_batch(FEATURES[:3].astype(">f4"), labels)
    got = mine(state(), *batch)
    assert (int(got.count[0]), int(got.label_out_of_range)) == (0, 1)


def test_only_two_marks_mean_that_a_row_has_no_label():
    np.testing.assert_array_equal(labelled_rows(np.array([0, -1, 7, -100])), [1, 0, 1, 0])
    np.testing.assert_array_equal(labelled_rows(np.array([255], np.uint8)), [1])
    with pytest.raises(ValueError, match="2 labels are negative, the first is -2 in row 1"):
        labelled_rows(np.array([-1, -2, 0, -9]))


def test_class_counts_beyond_int32_do_not_wrap():
    """Their sum is 2^33 + 2^32; relative weights are those of counts 2^33 times smaller."""
    large = vci_jax.init(3, 2, class_counts=np.array([2**33, 2**32, 0])).class_weight
    small = vci_jax.init(3, 2, class_counts=np.array([2, 1, 0])).class_weight
    np.testing.assert_array_equal(large, small)
    total = vci_jax.init(4, 2, class_counts=jnp.full(4, 2**30, jnp.int32)).class_weight
    np.testing.assert_array_equal(total, 1)
    with pytest.raises(ValueError, match="must not be negative, got -3"):
        vci_jax.init(2, 2, class_counts=np.array([4, -3]))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ((np.full((D, K), np.nan), np.zeros(K)), "kernel holds NaN or infinity in 12 of 12"),
        ((np.ones((D, K)), np.array([0, np.inf, 1])), "bias holds NaN or infinity in 1 of 3"),
        ((np.ones((D, K), complex), np.zeros(K)), "kernel must be real numbers, got complex128"),
        ((np.ones((D, K), object), np.zeros(K)), "kernel must be real numbers, got object"),
        ((np.ones((K, D)), np.zeros(K)), r"must be \[D, K\] = \[4, 3\], got \[3, 4\].*weight.T"),
        ((np.ones((D, K)), np.zeros(D)), r"bias must be \[K\] = \[3\], got \[4\]"),
        ((np.ones((D, K)), np.zeros(K), 1), "got 3 arrays"),
    ],
)
def test_heads_are_checked_as_features_are(head, words):
    with pytest.raises(ValueError, match=words):
        vci_jax.report(EXPECTED, head=head)
    with pytest.raises(ValueError, match=words):
        vci_jax.measure(lambda x: x, [(FEATURES, LABELS)], K, head=head)


def test_heads_of_any_real_dtype_are_read():
    kernel, bias = RNG.integers(-3, 4, (D, K)), np.zeros(K)
    expected = vci_jax.report(EXPECTED, head=(kernel.astype(float), bias))["self_duality"]
    for kind in (">f4", "g", ">i8", "i1", ml_dtypes.bfloat16):
        got = vci_jax.report(EXPECTED, head=(kernel.astype(kind), None), only=["self_duality"])
        np.testing.assert_allclose(got["self_duality"], expected, rtol=1e-12, err_msg=str(kind))


MODULES = (
    *("_report", "arrays", "compare", "files", "in_memory", "jit_update", "loss", "measure"),
    *("monitor", "picture"),
)


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = doctest.testmod(importlib.import_module(f"vci_jax.{module}"))
    assert results.attempted
    assert not results.failed
