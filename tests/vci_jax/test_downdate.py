"""The jackknife's short way, taking each block off the whole, against merging the other blocks."""

import jax
import numpy as np
import pytest

import vci_jax
from vci_jax import interval

B = 5


def stack(features, labels, dtype, deal=None, **options):
    """Partial states of blocks of rows; every B-th row goes to one unless ``deal`` says where."""
    deal = np.arange(len(labels)) % B if deal is None else deal
    with jax.enable_x64(True):
        empty = vci_jax.init(int(labels.max()) + 1, features.shape[1], dtype=dtype, **options)
        parts = [
            vci_jax.jit_update(
                empty, features[deal == b].astype(dtype), labels[deal == b], donate=False
            )
            for b in range(B)
        ]
        return jax.device_get(jax.tree.map(lambda *leaves: np.stack(leaves), *parts))


def draw(samples, dim, classes, spread=0.7, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=samples)
    mix = np.eye(dim) + 0.5 * rng.standard_normal((dim, dim)) / np.sqrt(dim)
    features = spread * rng.standard_normal((classes, dim))[labels]
    return (features + rng.standard_normal((samples, dim))) @ mix, labels, rng


def both_ways(blocks, weighting="sample"):
    """``vci_adjusted`` without each block: the short way (None if it declines), and by merging."""
    options = {"weighting": weighting, "data_eps": float(np.finfo(blocks.mean.dtype).eps)}
    names = ("vci_adjusted",)
    with jax.enable_x64(True):
        known = jax.device_get(interval._of_all(blocks, names, **options))
        short = interval._downdate.without_each(blocks, known.whole, **options)
        merged = jax.device_get(interval._without_each(blocks, names, **options))["vci_adjusted"]
    full = blocks.count.sum(axis=1) > 0
    return None if short is None else short[full], merged[full]


def dead_and_scaled(features, labels, rng):
    features = features * 10.0 ** rng.integers(-6, 6, features.shape[1])
    features[:, 3] = 0
    return features, labels, None


def rare_class(features, labels, rng):
    """The last class has two samples, both in block 1."""
    labels = np.minimum(labels, labels.max() - 1)
    labels[[1, 1 + B]] = labels.max() + 1
    return features, labels, None


def uneven_blocks(features, labels, rng):
    """One of them empty."""
    return (
        features,
        labels,
        np.sort(rng.choice([0, 1, 2, 4], size=len(labels), p=[0.1, 0.2, 0.2, 0.5])),
    )


def far_from_the_origin(features, labels, rng):
    return features + 100, labels, None


def collapsed(features, labels, rng):
    return (
        features + 1e4 * rng.standard_normal((labels.max() + 1, features.shape[1]))[labels],
        labels,
        None,
    )


def plain(features, labels, rng):
    return features, labels, None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [(600, 12, 4), (900, 10, 30), (800, 40, 40)], ids=str)
@pytest.mark.parametrize(
    "kind", [plain, dead_and_scaled, rare_class, uneven_blocks, far_from_the_origin, collapsed]
)
def test_the_short_way_agrees_with_merging(kind, size, dtype):
    features, labels, rng = draw(*size)
    features, labels, deal = kind(features, labels, rng)
    short, merged = both_ways(stack(features, labels, dtype, deal))
    assert short is not None
    np.testing.assert_allclose(short, merged, rtol=1e-7)


def test_classes_of_one_weight():
    features, labels, _ = draw(900, 10, 6)
    labels[labels > 3] = 0
    _, labels = np.unique(labels, return_inverse=True)
    blocks = stack(features, labels, np.float64, class_counts=np.bincount(labels))
    short, merged = both_ways(blocks, "class")
    np.testing.assert_allclose(short, merged, rtol=1e-9)


def copied_column(features, rng):
    return np.concatenate([features, features[:, :1]], axis=1)


def nearly_copied(features, rng):
    return np.concatenate([features, features[:, :1] + 1e-9 * features[:, 1:2]], axis=1)


def copied_to_six_digits(features, rng):
    """All directions are kept in float64, but taking blocks off leaves few digits of this one."""
    noise = 1e-6 * rng.standard_normal((len(features), 1))
    return np.concatenate([features, features[:, :1] + noise], axis=1)


def in_one_block(features, rng):
    """A feature that varies in the samples of block 2 alone."""
    column = np.where(np.arange(len(features)) % B == 2, rng.standard_normal(len(features)), 1.0)
    return np.concatenate([features, column[:, None]], axis=1)


def few_samples(features, rng):
    return features[: len(features[0]) + 4]


@pytest.mark.parametrize(
    "kind", [copied_column, nearly_copied, copied_to_six_digits, in_one_block, few_samples]
)
def test_it_declines_where_something_is_cut(kind):
    features, labels, rng = draw(600, 12, 4)
    features = kind(features, rng)
    short, _ = both_ways(stack(features, labels[: len(features)], np.float64))
    assert short is None


def test_the_interval_is_the_same_where_it_declines():
    """With a feature twice, VCI and its interval are those of the features without."""
    features, labels, rng = draw(600, 12, 4)
    once = vci_jax.report(stack(features, labels, np.float64))
    twice = vci_jax.report(stack(copied_column(features, rng), labels, np.float64))
    assert twice.vci_interval == pytest.approx(once.vci_interval, rel=1e-8)
