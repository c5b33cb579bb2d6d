"""Gradients of the metrics against central differences, where autodiff of eigenvectors is NaN.

Legend: N samples, K classes, D feature dimension.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vci_jax

STEP = 1e-5


def draw(samples=60, dim=5, classes=3, spread=1.0):
    labels = np.arange(samples) % classes
    rng = np.random.default_rng(samples + dim + classes)
    means = rng.normal(size=(classes, dim))
    return means[labels] + spread * rng.normal(size=(samples, dim)), labels


def dead_first():
    features, labels = draw(dim=6)
    features[:, 0] = 0
    return features, labels


def dead_other():
    features, labels = draw(dim=6)
    features[:, 3] = 0
    return features, labels


def low_rank():
    """Exact rank 6 of 12."""
    features, labels = draw(samples=80, dim=6, classes=4)
    return features @ np.random.default_rng(1).normal(size=(6, 12)), labels


def white():
    """Within-class scatter that is a multiple of the identity: all its eigenvalues are equal."""
    dim, classes = 4, 3
    signs = np.concatenate([np.eye(dim), -np.eye(dim)])
    features = np.concatenate([2 * np.eye(classes, dim)[k] + signs for k in range(classes)])
    return features, np.repeat(np.arange(classes), 2 * dim)


def simplex():
    """Class means at the corners of a simplex: all eigenvalues of Sigma_B are equal."""
    features, labels = draw(samples=60, dim=6, classes=4)
    for k in range(4):
        features[labels == k] += 3 * np.eye(6)[k] - features[labels == k].mean(axis=0)
    return features, labels


def collapsed():
    """Every sample is its class' mean."""
    features, labels = draw(samples=40, dim=5, classes=4, spread=0)
    return features, labels


def one_collapsed_class():
    features, labels = draw()
    features[labels == 0] = features[labels == 0].mean(axis=0)
    return features, labels


def one_collapsed_direction():
    """A column that is the number of the class: a discriminant direction without any variance."""
    features, labels = draw(classes=4)
    features[:, 1] = labels
    return features, labels


def copied():
    features, labels = draw(dim=4)
    return np.concatenate([features, features[:, :2]], axis=1), labels


def imbalanced():
    features, labels = draw(samples=70, dim=5, classes=4)
    return features, np.where(np.arange(70) % 7 == 0, labels, labels % 2)


CASES = {
    "plain": draw,
    "dead first unit": dead_first,
    "dead unit": dead_other,
    "rank 6 of 12": low_rank,
    "white": white,
    "simplex": simplex,
    "one collapsed class": one_collapsed_class,
    "one collapsed direction": one_collapsed_direction,
    "two classes": lambda: draw(classes=2),
    "fewer samples than features": lambda: draw(samples=9, dim=12, classes=3),
    "copied columns": copied,
    "fewer features than classes": lambda: draw(samples=80, dim=2, classes=6),
    "imbalanced": imbalanced,
}
DEFICIENT = ("rank 6 of 12", "copied columns", "dead first unit", "dead unit")
# Smooth wherever ranks do not change.
SMOOTH = ["vci", "h_score", "probe_mse", "squared_distance", "cosine_similarity",
          "class_separation", "cdnv", "equinorm", "equiangularity", "etf_error"]  # fmt: skip
# Roots of sums of squares, which have a kink where they are zero.
KINKED = ["equinorm", "equiangularity", "etf_error"]
# Functions of Sigma_B^+ and of the adjusted equation, where there are samples enough.
MORE = ["fuzziness", "within_between_part", "within_orthogonal_part", "vci_adjusted",
        "h_score_adjusted", "probe_mse_adjusted", "squared_distance_adjusted",
        "cdnv_adjusted"]  # fmt: skip


def metrics_of(features, labels, weighting, dtype, mask=None):
    classes = int(labels.max()) + 1
    counts = np.bincount(labels if mask is None else labels[mask > 0], minlength=classes)
    counts = counts if weighting == "class" else None
    state = vci_jax.init(classes, features.shape[1], class_counts=counts, dtype=dtype)
    state = vci_jax.update(state, features, labels, mask)
    return vci_jax.collapse_metrics(state, weighting=weighting)


def derivative(features, labels, names, weighting, direction, dtype=jnp.float64, mask=None):
    """Derivatives along a direction, by reverse mode."""

    def values(features):
        found = metrics_of(features, labels, weighting, dtype, mask)
        return [found[name] for name in names]

    rows = jax.jit(jax.jacrev(values))(jnp.asarray(features, dtype))
    return [float(jnp.sum(row * direction)) for row in rows], rows


def differences(features, labels, names, weighting, direction, mask=None):
    values = jax.jit(lambda f: metrics_of(f, labels, weighting, jnp.float64, mask))
    low, high = values(features - STEP * direction), values(features + STEP * direction)
    return [(float(high[n]) - float(low[n])) / (2 * STEP) for n in names]


def ways(name, features):
    """Directions that keep the rank: any, or what a linear layer in front would do."""
    rng = np.random.default_rng(5)
    direction = rng.normal(size=features.shape)
    if name in DEFICIENT:
        weights = rng.normal(size=(features.shape[0], features.shape[0])) / features.shape[0]
        direction = weights @ features  # within the span of the columns
    return direction


@pytest.mark.parametrize(
    ("name", "weighting"),
    [
        (name, weighting)
        if weighting == "sample" or name == "imbalanced"
        else pytest.param(name, weighting, marks=pytest.mark.slow)
        for name in CASES
        for weighting in ("sample", "class")
    ],
)
def test_gradients_are_central_differences(name, weighting, x64):
    """To 1e-6 in float64, at every kind of degenerate data, in both weightings."""
    features, labels = CASES[name]()
    names = SMOOTH + (MORE if name != "fewer samples than features" else [])
    if name in ("white", "simplex", "two classes"):  # standard deviations that are zero there
        names = [metric for metric in names if metric not in KINKED]
    direction = ways(name, features)
    got, rows = derivative(features, labels, names, weighting, direction)
    wanted = differences(features, labels, names, weighting, direction)
    for metric, a, b, row in zip(names, got, wanted, rows, strict=True):
        if not np.isfinite(b):
            continue  # undefined here, and so is its derivative
        assert np.isfinite(row).all(), metric
        assert a == pytest.approx(b, rel=1e-6, abs=2e-8), metric


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_float32(name):
    """To 1e-3 of the largest entry, and along what keeps the rank; never NaN."""
    features, labels = CASES[name]()
    narrow = features.astype(np.float32)

    def value(features):
        return metrics_of(features, labels, "sample", features.dtype)["vci"]

    got = np.asarray(jax.jit(jax.grad(value))(narrow))
    with jax.enable_x64(True):
        wanted = np.asarray(jax.jit(jax.grad(value))(features))
    assert np.isfinite(got).all()
    along = ways(name, features)
    # Where the gradient is zero, as of a VCI of zero, its entries are rounding of order eps.
    rounding = np.finfo(np.float32).eps * np.mean(np.abs(along))
    off = 1e-3 * np.sum(np.abs(wanted * along)) + rounding
    assert np.sum(got * along) == pytest.approx(np.sum(wanted * along), abs=off)
    if name not in DEFICIENT:
        assert np.abs(got - wanted).max() <= 1e-3 * np.abs(wanted).max() + 1e-7


def test_full_collapse_is_a_minimum(x64):
    """VCI is zero, and so is its gradient; the adjusted form likewise."""
    features, labels = collapsed()
    for name in ("vci", "vci_adjusted", "probe_mse", "squared_distance"):
        value, gradient = jax.jit(
            jax.value_and_grad(lambda f, n=name: metrics_of(f, labels, "sample", f.dtype)[n])
        )(features)
        assert value == pytest.approx(0, abs=1e-15)
        np.testing.assert_allclose(gradient, 0, atol=1e-10)


def test_masked_rows_have_no_gradient(x64):
    """Padding holds NaN; refused rows too. What counts has the gradient it has alone."""
    features, labels = draw()
    padded = np.concatenate([features, np.full((4, 5), np.nan)])
    mask = np.r_[np.ones(60), np.zeros(4)]

    def value(features, labels, mask):
        state = vci_jax.init(3, 5, dtype=jnp.float64)
        state = vci_jax.update(state, features, labels, mask)
        return vci_jax.collapse_metrics(state)["vci"]

    gradient = jax.jit(jax.grad(value))
    whole = gradient(padded, np.r_[labels, 0, 1, 2, 0].astype(np.int32), mask)
    alone = gradient(features, labels.astype(np.int32), np.ones(60))
    np.testing.assert_allclose(whole[:60], alone, rtol=1e-12)
    np.testing.assert_array_equal(whole[60:], 0)


def test_zero_rows_and_single_samples_have_finite_gradients(x64):
    """A row of zeros has no direction, a class of one sample no spread."""
    features, labels = draw()
    features[0], labels[-1] = 0, 3
    names = (*SMOOTH, "fuzziness", "within_between_part")

    def values(features):
        found = metrics_of(features, labels, "sample", jnp.float64)
        return [found[name] for name in names]

    for name, row in zip(names, jax.jit(jax.jacrev(values))(features), strict=True):
        assert np.isfinite(row).all(), name


def test_forward_mode_vmap_and_jit_agree(x64):
    """One derivative, however it is asked for."""
    features, labels = draw()
    direction = np.random.default_rng(1).normal(size=features.shape)

    def value(features):
        return metrics_of(features, labels, "sample", jnp.float64)["vci"]

    gradient = jax.jit(jax.grad(value))(features)
    along = float(jnp.sum(gradient * direction))
    forward = jax.jit(lambda f, d: jax.jvp(value, (f,), (d,))[1])
    assert float(forward(features, direction)) == pytest.approx(along, rel=1e-12)
    stacked = jax.jit(jax.vmap(jax.grad(value)))(jnp.stack([features, 2 * features]))
    np.testing.assert_allclose(stacked[0], gradient, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(stacked[1], gradient / 2, rtol=1e-9, atol=1e-14)


def test_second_derivatives_say_that_there_are_none(x64):
    """Rather than the zero that constants would give."""
    features, labels = draw()

    def value(scale):
        return metrics_of(scale * features**3, labels, "sample", jnp.float64)["vci"]

    for twice in (jax.grad(jax.grad(value)), jax.hessian(value), jax.jacfwd(jax.jacfwd(value))):
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            twice(1.0)


def test_earlier_batches_pass_their_gradient_on(x64):
    """Through two updates, and through a merge."""
    features, labels = draw()

    def by(parts):
        def value(features):
            halves = [
                vci_jax.update(vci_jax.init(3, 5, dtype=jnp.float64), features[s], labels[s])
                for s in parts
            ]
            state = halves[0]
            for other in halves[1:]:
                state = vci_jax.merge(state, other)
            return vci_jax.collapse_metrics(state)["vci"]

        return jax.grad(value)(features)

    def twice(features):
        state = vci_jax.init(3, 5, dtype=jnp.float64)
        for part in (slice(0, 20), slice(20, 60)):
            state = vci_jax.update(state, features[part], labels[part])
        return vci_jax.collapse_metrics(state)["vci"]

    whole = by([slice(0, 60)])
    np.testing.assert_allclose(by([slice(0, 20), slice(20, 60)]), whole, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(jax.grad(twice)(features), whole, rtol=1e-9, atol=1e-13)
