"""Each metric against its definition, outside libraries, and the identities it must obey."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import gaussian_classes
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LinearRegression
from statsmodels.multivariate.manova import MANOVA

import vci_jax
from vci_jax import structure, transferability

pytestmark = pytest.mark.usefixtures("x64")

update = jax.jit(vci_jax.update)
collapse_metrics = jax.jit(vci_jax.collapse_metrics, static_argnames="weighting")
invariant = ("vci", "vci_adjusted", "probe_mse", "h_score")

# name: samples, classes, dim; the edge cases of the issue by name
SHAPES = {
    "many samples": (300, 5, 8),
    "more classes than dimensions": (300, 12, 4),
    "as many dimensions as classes less one": (300, 5, 4),
    "two classes": (200, 2, 6),
    "one dimension": (100, 4, 1),
    "one spare sample": (13, 3, 11),
    "imbalanced": (301, 7, 9),
}


def moments_of(features, labels, weighting="sample"):
    classes = int(labels.max()) + 1
    counts = np.bincount(labels) if weighting == "class" else None
    state = vci_jax.init(classes, features.shape[1], class_counts=counts, dtype=np.float64)
    return update(state, features, labels)


def data(name):
    samples, classes, dim = SHAPES[name]
    features, labels = gaussian_classes(7, samples, classes, dim)
    if name == "imbalanced":
        labels = np.minimum(np.random.default_rng(3).geometric(0.4, samples) - 1, classes - 1)
    return features, labels


@pytest.mark.parametrize("weighting", ["sample", "class"])
@pytest.mark.parametrize("name", SHAPES)
def test_metrics_equal_their_definitions(name, weighting):
    """One pass and a factorisation give what two passes and explicit pseudo-inverses give."""
    features, labels = data(name)
    got = collapse_metrics(moments_of(features, labels, weighting), weighting=weighting)
    expected = reference.metrics(features, labels, weighting)
    assert set(got) == {*expected, "kept_rank", "between_rank", "discriminant_rank"}
    for metric, value in expected.items():
        if metric.endswith("adjusted") and name == "one spare sample":
            continue  # the reference needs a scatter of full rank
        # atol: the pinv of the reference loses eps times a condition number of 1e5
        np.testing.assert_allclose(got[metric], value, rtol=1e-9, atol=1e-10, err_msg=metric)


def test_trace_is_statsmodels_pillai():
    """Tr[Sigma_T^+ Sigma_B] is the Pillai-Bartlett trace of a MANOVA on the class."""
    for name in ("many samples", "more classes than dimensions", "imbalanced"):
        features, labels = data(name)
        got = collapse_metrics(moments_of(features, labels))
        design = np.column_stack([np.ones(len(labels)), np.eye(labels.max() + 1)[labels][:, 1:]])
        contrast = np.eye(design.shape[1])[1:]
        test = MANOVA(features, design).mv_test([("class", contrast)])
        pillai = test.results["class"]["stat"].loc["Pillai's trace", "Value"]
        np.testing.assert_allclose(got["h_score"], pillai, rtol=1e-8)
        rank = min(features.shape[1], len(np.unique(labels)) - 1)
        np.testing.assert_allclose(got["vci"], 1 - pillai / rank, rtol=1e-8)


def test_probe_mse_is_the_loss_of_scikit_learns_probe():
    """Theorem 5.1, and 1 - VCI the mean R^2 over an orthonormal basis of the class space."""
    for weighting in ("sample", "class"):
        features, labels = data("imbalanced")
        classes, counts = np.unique(labels, return_counts=True)
        targets = np.eye(len(classes))[labels]
        weight = np.ones(len(labels)) if weighting == "sample" else 1 / counts[labels]
        weight = weight / weight.sum()
        probe = LinearRegression().fit(features, targets, sample_weight=weight)
        loss = 0.5 * np.sum(weight[:, None] * (probe.predict(features) - targets) ** 2)
        got = collapse_metrics(moments_of(features, labels, weighting), weighting=weighting)
        np.testing.assert_allclose(got["probe_mse"], loss, rtol=1e-10)
    balanced, labels = data("many samples")
    got = collapse_metrics(moments_of(balanced, labels))
    theorem = 0.5 * (1 - 1 / 5) - got["h_score"] / (2 * 5)
    np.testing.assert_allclose(got["probe_mse"], theorem, rtol=1e-12)
    fit = LinearRegression().fit(balanced, np.eye(5)[labels])
    r2 = fit.score(balanced, np.eye(5)[labels])
    np.testing.assert_allclose(got["vci"], 1 - r2, rtol=1e-12)


def random_map(seed, dim, condition):
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((dim, dim)))[0] for _ in range(2))
    return (left * np.logspace(0, -np.log10(condition), dim)) @ right


@pytest.mark.parametrize(("condition", "tolerance"), [(1e1, 1e-12), (1e3, 1e-11), (1e6, 1e-8)])
def test_vci_is_invariant_under_invertible_maps(condition, tolerance):
    """VCI(A h + b) = VCI(h); the three others do change."""
    features, labels = data("many samples")
    before = collapse_metrics(moments_of(features, labels))
    for seed in range(5):
        mapped = features @ random_map(seed, features.shape[1], condition).T + seed
        after = collapse_metrics(moments_of(mapped, labels))
        for name in invariant:
            np.testing.assert_allclose(after[name], before[name], rtol=tolerance, err_msg=name)
        for name in ("fuzziness", "squared_distance", "cosine_similarity"):
            assert abs(after[name] / before[name] - 1) > 1e-2, name


def test_what_the_others_are_invariant_under():
    """Rotation and scaling: all of them. Translation: all but the uncentred cosines."""
    features, labels = data("many samples")
    before = collapse_metrics(moments_of(features, labels))
    rotated = collapse_metrics(moments_of(3 * features @ random_map(0, 8, 1).T, labels))
    moved = collapse_metrics(moments_of(features + 2, labels))
    scaled = {"within_between_part", "within_orthogonal_part"}
    uncentred = {"cosine_similarity", "class_separation"}
    for name, value in before.items():
        factor = 9 if name in scaled else 1
        np.testing.assert_allclose(rotated[name], factor * value, rtol=1e-11, err_msg=name)
        if name not in uncentred:
            np.testing.assert_allclose(moved[name], value, rtol=1e-11, err_msg=name)
        else:
            assert abs(moved[name] - value) > 1e-2, name


def test_counter_example_of_observation_4_2():
    """Sigma_B = diag(1, 0), Sigma_W = I, A = [[1, 1], [0, 1]]: fuzziness doubles, VCI stays 1/2."""
    noise = np.array([[np.sqrt(2), 0], [-np.sqrt(2), 0], [0, np.sqrt(2)], [0, -np.sqrt(2)]])
    features = np.concatenate([noise + np.array([1, 0]), noise - np.array([1, 0])])
    labels = np.repeat([0, 1], 4)
    before = collapse_metrics(moments_of(features, labels))
    shear = collapse_metrics(moments_of(features @ np.array([[1, 1], [0, 1]]), labels))
    after = collapse_metrics(moments_of(features @ np.array([[1, 1], [0, 1]]).T, labels))
    np.testing.assert_allclose([before["fuzziness"], before["vci"]], [0.5, 0.5], rtol=1e-14)
    np.testing.assert_allclose([after["fuzziness"], after["vci"]], [1.0, 0.5], rtol=1e-14)
    np.testing.assert_allclose(shear["vci"], 0.5, rtol=1e-14)


def test_variability_that_the_classifier_ignores():
    """Proposition 4.1: +a v and -a v added to two samples of a class send Tr Sigma_W to infinity.

    VCI moves by no more than one sample's weight, while the squared distance grows as a^2.
    """
    features, labels = data("many samples")
    pair = np.flatnonzero(labels == 0)[:2]
    direction = np.random.default_rng(0).standard_normal(8)
    blown = features.copy()
    blown[pair] += 1e4 * np.array([[1], [-1]]) * direction
    before, after = (collapse_metrics(moments_of(x, labels)) for x in (features, blown))
    assert after["squared_distance"] > 1e4 * before["squared_distance"]
    assert after["vci"] - before["vci"] < 1 / 4 + 1e-3  # at most one of K - 1 directions is lost


def test_simplex_etf_without_noise_is_the_limit():
    """Every metric at its value of full collapse, and shuffled labels far from it."""
    classes, dim = 4, 6
    simplex = np.eye(classes, dim) - 1 / classes * (np.arange(dim) < classes)
    labels = np.arange(400) % classes
    state = moments_of(simplex[labels], labels)
    head = (jnp.asarray(3 * simplex.T), jnp.zeros(classes))
    got = jax.jit(vci_jax.collapse_metrics)(state, head=head)
    limits = dict.fromkeys(
        ("vci", "fuzziness", "squared_distance", "within_between_part", "within_orthogonal_part",
         "probe_mse", "cdnv", "equinorm", "equiangularity", "etf_error", "self_duality"), 0
    )  # fmt: skip
    limits |= {"cosine_similarity": 1, "class_separation": 1, "h_score": classes - 1}
    for name, value in limits.items():
        np.testing.assert_allclose(got[name], value, atol=1e-7, err_msg=name)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert collapse_metrics(moments_of(simplex[labels], shuffled))["vci"] > 0.9


def test_self_duality_is_its_definition():
    features, labels = data("many samples")
    kernel = np.random.default_rng(0).standard_normal((8, 5))
    state = moments_of(features, labels)
    got = vci_jax.collapse_metrics(state, head=(kernel, np.zeros(5)))["self_duality"]
    offsets = reference.covariances(features, labels)[2]
    expected = np.linalg.norm(kernel.T / np.linalg.norm(kernel) - offsets / np.linalg.norm(offsets))
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"\[D, K\] = \[8, 5\], got \[5, 8\].*weight.T"):
        vci_jax.collapse_metrics(state, head=(kernel.T, np.zeros(5)))


def test_pairwise_cdnv_far_from_the_origin():
    features, labels = data("many samples")
    geometry = jax.jit(vci_jax.factorize)(moments_of(features + 1e6, labels))
    pairs = structure.pairwise_cdnv(geometry)
    np.testing.assert_allclose(pairs, pairs.T, rtol=1e-12)
    expected = reference.structure(features, labels, reference.covariances(features, labels)[2])
    np.testing.assert_allclose(structure.cdnv(geometry), expected["cdnv"], rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-10, 1, 1e10])
def test_scale_of_the_features_does_not_matter(scale):
    features, labels = data("many samples")
    before = collapse_metrics(moments_of(features, labels))
    after = collapse_metrics(moments_of(scale * features, labels))
    for name in ("vci", "fuzziness", "squared_distance", "cosine_similarity", "cdnv", "etf_error"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-11, err_msg=name)


# --- transferability -------------------------------------------------------------------------


def scores(features, labels):
    geometry = vci_jax.factorize(moments_of(features, labels))
    return transferability.transferability_metrics(geometry)


def test_shrinkage_h_score_uses_scikit_learns_ledoit_wolf():
    """From streamed third and fourth moments, merged about other pivots, the same shrinkage."""
    features, labels = gaussian_classes(2, 60, 4, 20)
    features[:30] += 5  # the halves have different pivots
    halves = [
        update(vci_jax.init(4, 20, dtype=np.float64), features[half], labels[half])
        for half in (slice(30), slice(30, None))
    ]
    got = transferability.shrinkage_h_score(vci_jax.factorize(vci_jax.merge(*halves)))
    shrinkage = ledoit_wolf_shrinkage(features)
    within, between, _, _ = reference.covariances(features, labels)
    total = within + between
    shrunk = (1 - shrinkage) * total + shrinkage * np.trace(total) / 20 * np.eye(20)
    expected = (1 - shrinkage) * np.trace(np.linalg.solve(shrunk, between))
    assert 0.01 < shrinkage < 0.9
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_effective_rank_is_the_entropy_of_singular_values():
    features, labels = data("many samples")
    features[:, 5] = features[:, 4]  # one direction is empty
    singular = np.linalg.svd(features)[1]
    share = singular[:-1] / singular[:-1].sum()
    np.testing.assert_allclose(
        scores(features, labels)["effective_rank"], np.exp(-share @ np.log(share)), rtol=1e-9
    )


def log_evidence(features, target, prior, noise):
    """The definition: the density of y under N(0, I / b + F F^T / a), in the axes of F F^T."""
    values, vectors = np.linalg.eigh(features @ features.T)
    variances = 1 / noise + np.maximum(values, 0) / prior[..., None]
    squares = (vectors.T @ target) ** 2
    return -0.5 * np.mean(np.log(2 * np.pi * variances) + squares / variances, axis=-1)


def test_logme_is_the_largest_evidence():
    """No prior and noise near the fixed point give a larger marginal likelihood."""
    features, labels = gaussian_classes(5, 90, 3, 6)
    got = float(scores(features, labels)["logme"])
    prior, noise = np.logspace(0, 4, 41)[:, None], np.logspace(0, 2, 41)[:, None]
    best = np.mean([
        np.max(log_evidence(features, labels == k, prior, noise)) for k in range(3)
    ])  # fmt: skip
    assert best <= got + 1e-6
    np.testing.assert_allclose(got, best, atol=2e-3)  # the grid is 26 % and 12 % coarse


# --- edges -----------------------------------------------------------------------------------


def values(features, labels, classes=None):
    classes = classes or int(labels.max()) + 1
    state = update(vci_jax.init(classes, features.shape[1], dtype=np.float64), features, labels)
    return collapse_metrics(state), vci_jax.factorize(state)


def test_absent_classes_are_masked_not_counted_as_zero_means():
    features, labels = data("many samples")
    dense, _ = values(features, labels)
    sparse, _ = values(features, 3 * labels, classes=20)
    for name, value in dense.items():
        np.testing.assert_allclose(sparse[name], value, rtol=1e-11, err_msg=name)


def test_fewer_samples_than_dimensions():
    """N - 1 <= D: every direction is explained, VCI is 0 and says nothing, adjusted is NaN."""
    features, labels = gaussian_classes(0, 40, 4, 64)
    got, geometry = values(features, labels)
    assert int(geometry.canonical.rank) == 39
    np.testing.assert_allclose(got["vci"], 0, atol=1e-10)
    np.testing.assert_allclose(got["probe_mse"], 0, atol=1e-10)
    assert np.isnan(got["vci_adjusted"])


def test_one_class_and_one_sample_are_undefined():
    features, _ = data("many samples")
    for rows in (300, 1):
        got, _ = values(features[:rows], np.zeros(rows, int), classes=3)
        for name in ("vci", "vci_adjusted", "fuzziness", "squared_distance", "h_score", "cdnv",
                     "etf_error", "equiangularity"):  # fmt: skip
            assert np.isnan(got[name]), name


def test_equal_features_are_undefined():
    """A constant, rounded or not, has no variance: not even 1e-17 of it."""
    labels = np.arange(30) % 3
    for constant in (0.0, 0.1, 1e8 / 3):
        got, geometry = values(np.full((30, 4), constant), labels)
        assert int(geometry.canonical.rank) == 0
        for name in ("vci", "fuzziness", "squared_distance", "h_score"):
            assert np.isnan(got[name]), (constant, name)


def test_coinciding_class_means():
    """Sigma_B = 0 with variance within: VCI is 1, and the ratios to Sigma_B are undefined."""
    features = np.tile([[1.0, 2.0], [-1.0, 0.5], [1.0, -0.5], [-1.0, -2.0]], (3, 1))
    got, _ = values(features, np.repeat(np.arange(3), 4))
    np.testing.assert_allclose(got["vci"], 1, rtol=1e-12)
    assert np.isnan(got["fuzziness"])
    assert np.isnan(got["squared_distance"])


def test_zero_vectors_have_cosine_zero():
    """A dead feature vector has no direction: it counts, with cosine 0 to everything."""
    features = np.array([[1.0, 0], [0, 0], [0, 1], [0, 1]])
    got, _ = values(features, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(got["cosine_similarity"], (0.25 + 1) / 2, rtol=1e-14)


def test_dead_and_dependent_features_change_nothing():
    """Constant, duplicated and summed columns leave VCI alone; the kept rank says so."""
    features, labels = data("many samples")
    before, _ = values(features, labels)
    extra = [features, np.full((300, 2), 0.3), features[:, :2], features[:, :1] + features[:, 1:2]]
    after, geometry = values(np.hstack(extra), labels)
    assert int(geometry.canonical.rank) == 8
    for name in invariant:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-9, err_msg=name)


def test_class_weighting_without_counts_is_nan_only_where_it_must():
    features, labels = data("imbalanced")
    expected = reference.metrics(features, labels, "class")
    got = collapse_metrics(moments_of(features, labels), weighting="class")
    for name in ("squared_distance", "cosine_similarity", "cdnv", "equinorm", "etf_error"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-10, err_msg=name)
    for name in ("vci", "fuzziness", "within_between_part", "probe_mse", "h_score"):
        assert np.isnan(got[name]), name


def test_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match='must be "sample" or "class", got \'both\''):
        vci_jax.collapse_metrics(moments_of(*data("two classes")), weighting="both")
