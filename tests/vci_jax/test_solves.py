"""The paper's metrics by Cholesky solves: when they are taken, and that they are the same."""

import math

import jax
import numpy as np
import pytest

import vci_jax
from vci_jax import _report, linalg, solves
from vci_jax.geometry import factorize

PAPER = ("vci", "fuzziness", "squared_distance", "cosine_similarity")


def data(samples=600, dim=24, classes=7, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    means = rng.normal(size=(classes, dim))
    mixed = rng.normal(size=(samples, dim))
    mixed = mixed + 0.5 * mixed @ rng.normal(size=(dim, dim)) * dim**-0.5
    return means[labels] + spread * mixed, labels


def moments(features, labels, classes=None, counted=False):
    """Float64 moments; with one class more than there are labels for."""
    classes = labels.max() + 2 if classes is None else classes
    counts = np.bincount(labels, minlength=classes) if counted else None
    with jax.enable_x64(True):
        state = vci_jax.init(classes, features.shape[1], class_counts=counts, dtype=np.float64)
        return jax.device_get(vci_jax.jit_update(state, features, labels))


def dead_units(features, labels):
    features[:, [0, 5]] = 0
    return features, labels


def constant_column(features, labels):
    features[:, 3] = 0.1  # Whose mean is rounded.
    return features, labels


def units(features, labels):
    return features * np.logspace(-1, 1, features.shape[1]), labels


def decades(features, labels):
    return features * np.logspace(0, 7, features.shape[1]), labels


def offset(features, labels):
    return features + 100.0, labels


def imbalance(features, labels):
    return features, np.where(np.arange(len(labels)) < 300, 0, labels)


def singles(features, labels):
    labels = np.where(labels == 3, 0, labels)
    labels[17] = 3
    return features, labels


def correlated(features, labels):
    return features @ (np.eye(features.shape[1]) + 0.5), labels


def nearly_dependent(features, labels):
    return features @ (np.eye(features.shape[1]) + 1e4), labels


def nearly_collapsed(features, labels):
    means = np.stack([features[labels == k].mean(axis=0) for k in range(labels.max() + 1)])[labels]
    return means + 1e-4 * (features - means), labels


WELL_CONDITIONED = [
    dead_units, constant_column, units, offset, imbalance, singles, correlated, nearly_collapsed
]  # fmt: skip


def copied_column(features, labels):
    features[:, 3] = features[:, 8]
    return features, labels


def few_samples(features, labels):
    return features[:20], labels[:20]


def equal_means(features, labels):
    for k in (1, 4):
        features[labels == k] -= features[labels == k].mean(axis=0)
    return features, labels


def collapsed(features, labels):
    return np.stack([features[labels == k].mean(axis=0) for k in range(7)])[labels], labels


def collapsed_column(features, labels):
    features[:, 2] = labels
    return features, labels


def one_class(features, labels):
    return features, np.zeros_like(labels)


def many_classes(features, labels):
    return features[:, :5], labels


def noisy_scales(features, labels):
    features[:, 0] *= 1e9
    return features, labels


NOT_PROVED = [
    copied_column, nearly_dependent, noisy_scales, decades, few_samples, equal_means, collapsed,
    collapsed_column, one_class, many_classes,
]  # fmt: skip


@pytest.fixture
def by_eigenvectors(monkeypatch):
    """How often a report went the way through eigenvectors."""
    calls = []

    def finish(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    original = _report._finish
    monkeypatch.setattr(_report, "_finish", finish)
    return calls


def assert_same(only, full, tolerance=1e-9):
    for name in PAPER:
        assert only[name] == pytest.approx(full[name], rel=tolerance, nan_ok=True), name
    for name in ("kept_rank", "between_rank", "samples", "classes"):
        assert only[name] == full[name], name
    wanted = {*PAPER, "samples"}
    of_full = {c.code: wanted & set(c.metrics) for c in full.caveats if wanted & set(c.metrics)}
    of_only = {c.code: wanted & set(c.metrics) for c in only.caveats if wanted & set(c.metrics)}
    assert of_only == of_full


@pytest.mark.parametrize("weighting", ["sample", "class"])
@pytest.mark.parametrize("change", WELL_CONDITIONED, ids=lambda f: f.__name__)
def test_the_same_without_an_eigenvector(change, weighting, by_eigenvectors):
    state = moments(*change(*data()), counted=weighting == "class")
    only = vci_jax.report(state, only=PAPER, weighting=weighting)
    assert not by_eigenvectors
    assert_same(only, vci_jax.report(state, weighting=weighting))
    assert len(by_eigenvectors) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [3, 5, 10])
def test_units_over_decades(dim, dtype):
    """Terms of a trace may be far larger than it; then it is not the trace that is returned."""
    for decades in range(3, 9):
        features, labels = data(200, dim, 4, seed=decades)
        features = (features * np.logspace(0, decades, dim)).astype(dtype)
        with jax.enable_x64(True):
            state = vci_jax.init(4, dim, dtype=dtype)
            state = jax.device_get(vci_jax.jit_update(state, features, labels))
        only, full = vci_jax.report(state, only=PAPER), vci_jax.report(state)
        assert_same(only, full, 1e-9 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize(("dim", "classes"), [(6, 7), (7, 7), (300, 5), (530, 2)])
def test_the_same_at_the_edges_of_shapes(dim, classes, by_eigenvectors):
    """Means that span all dimensions, and more dimensions than are factored at once."""
    state = moments(*data(5 * dim + 100, dim, classes))
    only = vci_jax.report(state, only=PAPER)
    assert not by_eigenvectors
    assert_same(only, vci_jax.report(state))


@pytest.mark.parametrize("change", NOT_PROVED, ids=lambda f: f.__name__)
def test_eigenvectors_where_something_may_be_cut(change, by_eigenvectors):
    state = moments(*change(*data()))
    only = vci_jax.report(state, only=PAPER)
    assert len(by_eigenvectors) == 1
    assert_same(only, vci_jax.report(state))


@pytest.mark.parametrize("name", PAPER)
def test_each_by_itself(name, by_eigenvectors):
    state = moments(*data())
    only, full = vci_jax.report(state, only=[name]), vci_jax.report(state, only=PAPER)
    assert not by_eigenvectors
    assert only[name] == full[name]
    assert set(PAPER) & set(only) == {name}


def test_unknown_scatter_is_left_to_the_other_way(by_eigenvectors):
    state = moments(*imbalance(*data()))
    only = vci_jax.report(state, only=PAPER, weighting="class")
    assert len(by_eigenvectors) == 1
    assert math.isnan(only.vci)


def test_the_error_covers_what_float32_lost():
    """Of moments in float32, against those of the same numbers in float64; seeds of all kinds."""
    for seed in range(12):
        features, labels = data(seed=seed, spread=[1.0, 1e-2][seed % 2])
        change = [dead_units, offset, imbalance, correlated][seed % 4]
        features, labels = change(features, labels)
        features = features.astype(np.float32)
        single = vci_jax.jit_update(vci_jax.init(8, features.shape[1]), features, labels)
        truth = vci_jax.report(moments(features.astype(np.float64), labels, 8))
        with jax.enable_x64(True):
            state = linalg.widen(jax.device_get(single))
            traces = solves.by_name(factorize(state, data_eps=float(np.finfo(np.float32).eps)))
        for name, trace in traces.items():
            off = abs(float(trace.value) / truth[name] - 1)
            assert trace.complete
            assert off < float(trace.error) < 1e4 * max(off, 1e-7), (seed, name, off, trace)
