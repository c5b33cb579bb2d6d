"""The per-class view, against NumPy one class at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vci_jax
from vci_jax.geometry import factorize
from vci_jax.metrics import cosine_similarity
from vci_jax.per_class import per_class
from vci_jax.structure import pairwise_cdnv

RNG = np.random.default_rng(5)
LABELS = RNG.permutation(np.repeat([0, 1, 2, 4], [3, 9, 20, 31]))  # class 3 is absent
FEATURES = RNG.normal(size=(63, 6)) * (1 + LABELS)[:, None] + 3 * np.eye(6)[LABELS]


def moments_of(features, labels, classes=5, dtype="float64"):
    state = vci_jax.init(classes, features.shape[1], dtype=dtype)
    return vci_jax.update(state, features, labels)


def reference(features, labels, weighting):
    """Straight from the docstring, in loops; absent classes stay NaN."""
    present = np.unique(labels)
    means = {k: features[labels == k].mean(axis=0) for k in present}
    centre = features.mean(axis=0) if weighting == "sample" else np.mean([*means.values()], axis=0)
    fields = ("variance", "distance", "squared_distance", "cosine_similarity", "nearest_cdnv")
    result = {name: np.full(5, np.nan) for name in fields}
    result |= {"count": np.bincount(labels, minlength=5), "nearest": np.full(5, -1)}
    variance = {k: features[labels == k].var(axis=0).sum() for k in present}
    for k in present:
        units = [row / np.linalg.norm(row) for row in features[labels == k]]
        gaps = {j: np.sum((means[k] - means[j]) ** 2) for j in present if j != k}
        nearest = min(gaps, key=gaps.get)
        result["variance"][k] = variance[k]
        result["distance"][k] = np.linalg.norm(means[k] - centre)
        result["squared_distance"][k] = variance[k] / np.sum((means[k] - centre) ** 2)
        result["cosine_similarity"][k] = np.mean([a @ b for a in units for b in units])
        result["nearest"][k] = nearest
        result["nearest_cdnv"][k] = (variance[k] + variance[nearest]) / 2 / gaps[nearest]
    return result


@pytest.mark.parametrize("weighting", ["sample", "class"])
def test_every_entry_is_what_the_docstring_says(x64, weighting):
    """All seven arrays, absent class included, to a few roundings of float64."""
    result = per_class(moments_of(FEATURES, LABELS), weighting=weighting)
    expected = reference(FEATURES, LABELS, weighting)
    assert set(result) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=1e-12, err_msg=name)


def test_classes_add_up_to_the_metrics(x64):
    """Weighted sums over classes are Tr Sigma_W, Tr Sigma_B and the cosine similarity."""
    moments = moments_of(FEATURES, LABELS)
    result, geometry = jax.device_get(per_class(moments)), factorize(moments)
    share = result["count"] / 63
    within = np.nansum(share * result["variance"])
    between = np.nansum(share * result["distance"] ** 2)
    np.testing.assert_allclose(within, jnp.trace(geometry.within), rtol=1e-12)
    np.testing.assert_allclose(between, jnp.sum(geometry.between.squares), rtol=1e-12)
    np.testing.assert_allclose(
        np.nanmean(result["cosine_similarity"]), cosine_similarity(geometry), rtol=1e-12
    )
    pairs = np.asarray(pairwise_cdnv(geometry))
    for k in (0, 1, 2, 4):
        np.testing.assert_allclose(
            result["nearest_cdnv"][k], pairs[k, result["nearest"][k]], rtol=1e-9
        )


def test_a_collapsed_class_is_told_from_a_loose_one(x64):
    """Noise in one class moves that class' entries and no other variance."""
    labels = np.repeat([0, 1, 2], 20)
    features = 5 * np.eye(4)[labels] + np.where(labels == 1, 1, 1e-6)[:, None] * RNG.normal(
        size=(60, 4)
    )
    result = per_class(moments_of(features, labels, classes=3))
    assert np.argmax(result["squared_distance"]) == 1
    assert np.argmin(result["cosine_similarity"]) == 1
    np.testing.assert_array_less(result["variance"][np.array([0, 2])], 1e-10)
    assert 0.1 < result["squared_distance"][1] < 1


def test_close_classes_far_from_the_rest_keep_their_distance():
    """In float32, means 1e-3 apart beside one 1e3 away: differences count, not a Gram matrix."""
    means = np.array([[0.0, 0], [2**-10, 0], [0, 1024]])
    features = np.repeat(means, 2, axis=0) + np.tile([[0, 2.0**-12], [0, -(2.0**-12)]], (3, 1))
    result = per_class(moments_of(features, np.repeat([0, 1, 2], 2), classes=3, dtype="float32"))
    np.testing.assert_array_equal(result["nearest"][:2], [1, 0])
    np.testing.assert_allclose(result["nearest_cdnv"][:2], 2.0**-4, rtol=1e-3)


def test_edges():
    """A lone class has no neighbour; coinciding means are infinitely close; no data is no class."""
    alone = per_class(moments_of(np.ones((4, 2)), np.full(4, 1), classes=3, dtype="float32"))
    np.testing.assert_array_equal(alone["count"], [0, 4, 0])
    np.testing.assert_array_equal(alone["nearest"], [-1, -1, -1])
    np.testing.assert_array_equal(alone["variance"], [np.nan, 0, np.nan])
    assert np.all(np.isnan(alone["nearest_cdnv"]))
    square = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]] * 2)
    twins = per_class(moments_of(square, np.repeat([0, 1], 4), classes=2, dtype="float32"))
    np.testing.assert_array_equal(twins["nearest_cdnv"], [np.inf, np.inf])
    np.testing.assert_array_equal(twins["squared_distance"], [np.inf, np.inf])
    nothing = per_class(vci_jax.init(3, 2))
    np.testing.assert_array_equal(nothing["count"], [0, 0, 0])
    assert np.all(np.isnan(nothing["distance"]))


def test_runs_inside_jit_without_an_eigenproblem():
    """It can sit in a training step: what it compiles to holds no eigh."""
    state = moments_of(FEATURES, LABELS, dtype="float32")
    compiled = jax.jit(per_class).lower(state).compile()
    assert "syevd" not in compiled.as_text()
    assert "syevd" in jax.jit(factorize).lower(state).compile().as_text()
    np.testing.assert_array_equal(compiled(state)["count"], [3, 9, 20, 0, 31])


def test_bad_input_is_refused():
    """Partial states and unknown weightings raise at trace time, with the remedy."""
    state = vci_jax.init(3, 2)
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    with pytest.raises(ValueError, match="merge_axis"):
        per_class(stack)
    with pytest.raises(ValueError, match="weighting"):
        per_class(state, weighting="classes")
