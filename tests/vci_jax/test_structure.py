"""Metrics over pairs of classes: any blocks, unbiased, undefined where means are rounding."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vci_jax
from vci_jax import structure
from vci_jax.geometry import factorize
from vci_jax.pairs import split, sum_over_pairs

per_class = importlib.import_module("vci_jax.per_class")


def geometry_of(features, labels, classes=None, dtype="float64"):
    classes = int(max(labels)) + 1 if classes is None else classes
    state = vci_jax.init(classes, features.shape[1], dtype=dtype)
    return factorize(vci_jax.jit_update(state, features, labels))


def random_geometry(classes=23, dim=5, absent=(0, 11, 22)):
    """Classes of 2 to 6 samples, three of them absent: the first, one inside, the last."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(classes), rng.integers(2, 7, classes))
    labels = labels[~np.isin(labels, absent)]
    features = 4 * rng.normal(size=(classes, dim))[labels] + rng.normal(size=(len(labels), dim))
    return features, labels, geometry_of(features, labels, classes)


@pytest.mark.parametrize("size", [1, 2, 7, 12])
@pytest.mark.parametrize("block", [1, 2, 3, 5, 12, 100])
def test_every_ordered_pair_counts_once_whatever_the_blocks(size, block):
    """The sum of x_j x_k over j != k is (sum x)^2 - sum x^2, in integers; so is the number."""
    values = jnp.arange(1, size + 1, dtype=jnp.int32)

    def term(left, right, different):
        real = (left[:, None] > 0) & (right > 0)
        products = left[:, None] * right
        return jnp.sum(jnp.where(different, products, 0)), jnp.sum(different & real)

    total, pairs = sum_over_pairs(term, values, block)
    assert int(total) == int(values.sum() ** 2 - (values**2).sum())
    assert int(pairs) == size * (size - 1)
    blocked, blocks = split(values, block)
    assert blocked.shape[0] == blocks
    assert blocked.shape[1] <= block
    assert int(blocked.sum()) == int(values.sum())


@pytest.mark.parametrize("block", [1, 4, 22, 23])
def test_blocks_change_no_metric(x64, monkeypatch, block):
    """Against all pairs at once, for each function over pairs, absent classes included."""
    _, _, geometry = random_geometry()
    functions = ("cdnv", "cdnv_adjusted", "equiangularity", "etf_error")
    whole = {name: getattr(structure, name)(geometry) for name in functions}
    nearest = per_class._nearest(geometry)
    original = sum_over_pairs
    monkeypatch.setattr(
        structure, "sum_over_pairs", lambda term, classes, _=0, **__: original(term, classes, block)
    )
    monkeypatch.setattr(per_class, "_PAIRS", 23 * block)
    for name, value in whole.items():
        assert np.isfinite(value)
        np.testing.assert_allclose(
            getattr(structure, name)(geometry), value, rtol=1e-13, err_msg=name
        )
    np.testing.assert_array_equal(per_class._nearest(geometry), nearest)


def test_more_classes_than_a_block_against_numpy(x64):
    """600 classes are three blocks of cdnv; the pairs are those of NumPy's own table."""
    features, labels, geometry = random_geometry(600, 3)
    present = np.unique(labels)
    means = np.stack([features[labels == k].mean(axis=0) for k in present])
    variance = np.array([features[labels == k].var(axis=0).sum() for k in present])
    gaps = np.sum((means[:, None] - means) ** 2, axis=2)
    np.fill_diagonal(gaps, np.inf)
    table = (variance[:, None] + variance) / 2 / gaps
    expected = table.sum() / (len(present) * (len(present) - 1))
    np.testing.assert_allclose(structure.cdnv(geometry), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        structure.cdnv_and_adjusted,
        structure.equiangularity,
        structure.etf_error,
        per_class._nearest,
    ],
)
def test_imagenet_21k_fits(x64, function):
    """The compiler's own count: no K x K array, which would take 3.8 GB, nor a few of them."""
    _, _, small = random_geometry()
    classes, dim = 21_841, 256

    def grown(leaf):
        shape = tuple({23: classes, 5: dim}.get(size, size) for size in leaf.shape)
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    large = jax.tree.map(grown, small)
    compiled = jax.jit(function).lower(large).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**29


def test_adjusted_cdnv_is_its_formula(x64):
    """By loops over pairs of classes of unequal sizes."""
    features, labels, geometry = random_geometry()
    terms = []
    for j in np.unique(labels):
        for k in np.unique(labels):
            if j < k:
                a, b = features[labels == j], features[labels == k]
                s, t = (rows.var(axis=0, ddof=1).sum() for rows in (a, b))
                square = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
                terms.append((s + t) / 2 / (square - s / len(a) - t / len(b)))
    assert len(terms) == 190
    np.testing.assert_allclose(structure.cdnv_adjusted(geometry), np.mean(terms), rtol=1e-10)
    plain, adjusted = structure.cdnv_and_adjusted(geometry)
    assert plain == structure.cdnv(geometry)
    assert adjusted == structure.cdnv_adjusted(geometry)


@pytest.mark.parametrize(
    ("sizes", "scales", "plain_bias", "bound"),
    [
        (np.full(10, 5), np.ones(10), -0.32, 0.06),
        (np.full(10, 10), np.ones(10), -0.17, 0.03),
        (np.full(10, 20), np.ones(10), -0.094, 0.015),
        (np.arange(8, 28, 2), np.linspace(0.5, 1.5, 10), -0.13, 0.03),
        (np.arange(8, 28, 2)[::-1], np.linspace(0.5, 1.5, 10), -0.15, 0.03),
    ],
)
def test_adjusted_cdnv_takes_the_bias_of_few_samples_out(x64, sizes, scales, plain_bias, bound):
    """Gaussian classes of known means and variances; 200 draws, standard error below 0.006."""
    rng = np.random.default_rng(0)
    classes, dim = 10, 32
    means, variance = rng.standard_normal((classes, dim)), dim * scales**2
    true = np.mean(
        [
            (variance[j] + variance[k]) / 2 / np.sum((means[j] - means[k]) ** 2)
            for j in range(classes)
            for k in range(j)
        ]
    )
    labels = np.repeat(np.arange(classes), sizes).astype(np.int32)

    @jax.jit
    def both(features):
        state = vci_jax.update(vci_jax.init(classes, dim, dtype="float64"), features, labels)
        return structure.cdnv_and_adjusted(factorize(state))

    draws = rng.standard_normal((200, len(labels), dim))
    values = np.array([both(means[labels] + scales[labels, None] * draw) for draw in draws])
    plain, adjusted = values.mean(axis=0) / true - 1
    assert plain == pytest.approx(plain_bias, abs=0.03)
    assert abs(adjusted) < bound


def test_adjusted_cdnv_is_undefined_where_the_data_cannot_tell(x64):
    """A class of one sample; means no farther apart than noise puts them; one class alone."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4)) + 9 * np.eye(4)[np.arange(30) % 3]
    assert np.isfinite(structure.cdnv_adjusted(geometry_of(features, np.arange(30) % 3)))
    one = np.where(np.arange(30) == 0, 3, np.arange(30) % 3)
    assert np.isnan(structure.cdnv_adjusted(geometry_of(features, one)))
    assert np.isfinite(structure.cdnv(geometry_of(features, one)))
    twins = np.tile([[1.0, 2], [-1, 0.5], [1, -0.5], [-1, -2]], (2, 1))
    twins[4:] += 0.1  # the means differ by 0.02 in squared distance, the noise is 1.6
    assert np.isnan(structure.cdnv_adjusted(geometry_of(twins, np.repeat([0, 1], 4))))
    assert np.isnan(structure.cdnv_adjusted(geometry_of(features, np.zeros(30, int))))


VECTOR = np.random.default_rng(1).normal(size=6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_a_mean_at_the_centre_to_rounding_has_no_direction(dtype, scale):
    """The middle of three means v (0.1, 0.2, 0.3) lies 1e-17 from the centre, not at it."""
    with jax.enable_x64(dtype == "float64"):
        means = scale * VECTOR * np.array([[0.1], [0.2], [0.3]])
        wobble = scale * 0.01 * np.tile([[1.0], [-1]], (6, 1)) * np.eye(6)[0]
        features, labels = np.repeat(means, 4, axis=0) + wobble, np.repeat(np.arange(3), 4)
        geometry = geometry_of(features, labels, dtype=dtype)
        assert np.isnan(structure.equiangularity(geometry))
        result = vci_jax.per_class(geometry.moments)
        assert np.isinf(result["squared_distance"][1])
        assert np.all(np.isfinite(result["squared_distance"][np.array([0, 2])]))
        for function in (structure.cdnv, structure.equinorm, structure.etf_error):
            assert np.isfinite(function(geometry))
        # A thousand times the rounding off the centre, the direction is a fact again.
        features[4:8] += 1e3 * scale * np.finfo(dtype).eps * np.eye(6)[2]
        assert np.isfinite(structure.equiangularity(geometry_of(features, labels, dtype=dtype)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_means_that_coincide_to_rounding_are_not_apart(dtype):
    """0.1 + 0.2 and 0.3 are one mean: infinite CDNV, and no geometry if there is no other."""
    with jax.enable_x64(dtype == "float64"):
        wobble = np.tile([[1.0], [-1]], (8, 1)) * np.eye(6)[0]
        labels = np.repeat(np.arange(4), 4)
        factors = np.array([0.1 + 0.2, 0.3, 0.3 * (1 + np.finfo(dtype).eps), 0.3])
        same = np.repeat(VECTOR * factors[:, None], 4, axis=0) + wobble
        geometry = geometry_of(same, labels, dtype=dtype)
        assert np.isinf(structure.cdnv(geometry))
        assert np.isnan(structure.cdnv_adjusted(geometry))
        for function in (structure.equinorm, structure.equiangularity, structure.etf_error):
            assert np.isnan(function(geometry)), function
        assert np.isnan(structure.self_duality(geometry, jnp.ones((6, 4))))
        result = vci_jax.per_class(geometry.moments)
        assert np.all(np.isinf(result["squared_distance"]))
        assert np.all(np.isinf(result["nearest_cdnv"]))
        pair = same + 5 * (labels >= 2)[:, None]
        result = vci_jax.per_class(geometry_of(pair, labels, dtype=dtype).moments)
        np.testing.assert_array_equal(result["nearest"], [1, 0, 3, 2])
        assert np.all(np.isinf(result["nearest_cdnv"]))
        assert np.all(np.isfinite(result["squared_distance"]))


def test_a_collapsed_frame_keeps_its_digits(x64):
    """The error of an ETF perturbed by 1e-9 is of that size: nothing cancels on the way."""
    frame = 3 * np.eye(5)[np.repeat(np.arange(5), 2)]
    assert float(structure.etf_error(geometry_of(frame, np.repeat(np.arange(5), 2)))) < 1e-14
    frame[0, 1] += 6e-9
    frame[1, 1] += 6e-9
    error = float(structure.etf_error(geometry_of(frame, np.repeat(np.arange(5), 2))))
    means = frame[::2] - frame[::2].mean(axis=0)
    gram = np.array([[np.longdouble(a) @ np.longdouble(b) for b in means] for a in means])
    ideal = (np.eye(5, dtype=np.longdouble) - np.longdouble(1) / 5) / 2
    expected = np.sqrt(np.sum((gram / np.sqrt(np.sum(gram**2)) - ideal) ** 2))
    assert 1e-10 < expected < 1e-8
    np.testing.assert_allclose(error, float(expected), rtol=1e-5)


@pytest.mark.parametrize("gap", [2.0**-20, 2.0**-14, 2.0**-8, 0.25, 0.5, 1.0])
def test_near_neighbours_keep_their_digits(x64, gap):
    """Two classes a gap apart at distance one from a third: 2^-20 would lose 12 of 16 digits."""
    means = np.array([[1.0, 0.7, -0.3], [1.0, 0.7, gap - 0.3], [0, 0, 0]])
    wobble = np.tile([[2.0**-9], [-(2.0**-9)]], (3, 1)) * np.eye(3)[1]
    geometry = geometry_of(np.repeat(means, 2, axis=0) + wobble, np.repeat(np.arange(3), 2))
    pairs = [(0, 1), (0, 2), (1, 2)]
    squares = [float(np.sum((means[j] - means[k]).astype(np.longdouble) ** 2)) for j, k in pairs]
    expected = np.mean(2.0**-18 / np.array(squares))
    np.testing.assert_allclose(structure.cdnv(geometry), expected, rtol=1e-9)
    table = structure.pairwise_cdnv(geometry)
    np.testing.assert_allclose(table[0, 1], 2.0**-18 / squares[0], rtol=1e-9)
