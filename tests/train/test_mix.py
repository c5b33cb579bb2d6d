"""Mixing on the device: what becomes of pixels and targets, the laws of the draws, the devices."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from train.config import ConfigError, MixConfig
from train.data import mix

CLASSES, SIZE, SIDES = 20, 8, (8, 12)
MIXUP = MixConfig(mixup=0.8, prob=0.5)
CUTMIX = MixConfig(cutmix=1.0)
BOTH = MixConfig(mixup=0.8, cutmix=1.0, switch_prob=0.3, label_smoothing=0.1)

# Any two images differ in every pixel, and each has a class of its own.
LEVELS = np.tile(7 + 30 * np.arange(SIZE)[:, None, None, None], (1, *SIDES, 2))
BATCH = {
    "image": np.random.default_rng(0).permuted(LEVELS, axis=0).astype(np.uint8),
    "label": np.arange(SIZE) * 2,
}
MEAN, STD = np.float32([120, 90]), np.float32([60, 50])
PARTNERS = [1, 0, 3, 2, 5, 4, 7, 6]


@pytest.fixture(scope="module")
def drawn():
    """``drawn(config)``: the batch mixed under 3,000 keys, compiled and drawn once a config."""
    results = {}
    keys = jax.random.split(jax.random.key(0), 3000)

    def draw(config):
        if config not in results:
            function = mix.build(config, CLASSES, 1)
            mapped = jax.jit(jax.vmap(lambda key: function(key, BATCH)))(keys)
            results[config] = {name: np.asarray(array) for name, array in mapped.items()}
        return results[config]

    return draw


def shares(result):
    """What of each target is the image's own: its label never is its partner's."""
    return result["target"][:, np.arange(SIZE), BATCH["label"]]


def is_cut(result):
    """A cut image is made of pixels of two images and of nothing else; one draw a batch."""
    own, other = BATCH["image"], BATCH["image"][PARTNERS]
    return np.all((result["image"] == own) | (result["image"] == other), axis=(1, 2, 3, 4))


def test_mixup_mixes_each_pixel_as_it_mixes_the_labels(drawn):
    """``lam x_i + (1 - lam) x_j`` with the lam that is in the target, one for the whole batch."""
    result = drawn(MIXUP)
    lam = shares(result)[:, :1]
    np.testing.assert_array_equal(shares(result), np.repeat(lam, SIZE, axis=1))
    onehot = np.eye(CLASSES)[BATCH["label"]]
    expected = lam[..., None] * onehot + (1 - lam[..., None]) * onehot[PARTNERS]
    np.testing.assert_allclose(result["target"], expected, atol=1e-7)
    weight = lam[:, :, None, None, None].astype(float)
    pixels = BATCH["image"].astype(float)
    expected = weight * pixels + (1 - weight) * pixels[PARTNERS]
    # Three roundings of float32 numbers up to 255.
    np.testing.assert_allclose(result["image"], expected, atol=3 * 255 * 2**-24)


def test_lam_has_the_moments_of_its_beta(drawn):
    """Mean 1/2 and variance 1/(4 (2 alpha + 1)), where the batch is mixed; 1 elsewhere.

    Bounds are 5 standard errors; that of the variance is from the fourth moment, which for numbers
    in [0, 1] about 1/2 is at most a quarter of the variance.
    """
    lam = shares(drawn(MIXUP))[:, 0]
    mixed = lam < 1
    n, draws = mixed.sum(), len(lam)
    assert abs(n - MIXUP.prob * draws) < 5 * math.sqrt(draws / 4)
    variance = 1 / (4 * (2 * MIXUP.mixup + 1))
    assert abs(lam[mixed].mean() - 0.5) < 5 * math.sqrt(variance / n)
    assert abs(((lam[mixed] - 0.5) ** 2).mean() - variance) < 5 * math.sqrt(variance / 4 / n)


def test_a_batch_that_is_not_mixed_is_as_it_was(drawn):
    """With chance 1 - prob, pixels and targets are the image's own, exactly."""
    result = drawn(MIXUP)
    left = shares(result)[:, 0] == 1
    assert left.any()
    np.testing.assert_array_equal(
        result["image"][left], np.broadcast_to(BATCH["image"], result["image"][left].shape)
    )


def test_cutmix_shares_the_label_as_the_pixels_are_shared(drawn):
    """The weight of the own label is the part of the own pixels, to the last bit of float32."""
    result = drawn(CUTMIX)
    own = result["image"] == BATCH["image"]
    foreign = result["image"] == BATCH["image"][PARTNERS]
    np.testing.assert_array_equal(own, ~foreign)
    assert np.all(own == own[:, :1, :, :, :1]), "the box is one, for all images and channels"
    area = foreign[:, 0, :, :, 0].sum((1, 2))
    expected = np.repeat(1 - area[:, None] / math.prod(SIDES), SIZE, axis=1)
    np.testing.assert_allclose(shares(result), expected, rtol=0, atol=2**-24)
    assert np.all(shares(result)[area == 0] == 1)
    assert len(np.unique(area)) > 10


def test_cutmix_takes_a_box(drawn):
    """The foreign pixels fill a rectangle of at most the shape of the image."""
    foreign = (drawn(CUTMIX)["image"] != BATCH["image"])[:, 0, :, :, 0]
    rows, columns = foreign.any(2), foreign.any(1)
    np.testing.assert_array_equal(foreign, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):
        starts = (np.diff(line.astype(int), axis=1, prepend=0) == 1).sum(1)
        assert starts.max() == 1, "in one piece"


def timm_area(rng, height, width):
    """The clipped box of timm's rand_bbox, told again."""
    ratio = math.sqrt(1 - rng.beta(CUTMIX.cutmix, CUTMIX.cutmix))
    extents = []
    for side in (height, width):
        half, centre = int(side * ratio) // 2, rng.integers(side)
        extents.append(min(centre + half, side) - max(centre - half, 0))
    return extents


def test_boxes_follow_the_law_of_timm(drawn):
    """Height, width and area: Kolmogorov-Smirnov against the statement above, one in a million."""
    foreign = (drawn(CUTMIX)["image"] != BATCH["image"])[:, 0, :, :, 0]
    high, wide = foreign.any(2).sum(1), foreign.any(1).sum(1)
    rng = np.random.default_rng(1)
    expected = np.array([timm_area(rng, *SIDES) for _ in range(20_000)])
    expected[expected.prod(1) == 0] = 0  # No height without a width, in pixels.
    bound = math.sqrt(-math.log(1e-6 / 2) / 2 * (1 / len(high) + 1 / 20_000))
    for ours, theirs in (
        (high, expected[:, 0]),
        (wide, expected[:, 1]),
        (high * wide, expected.prod(1)),
    ):
        gap = [abs((ours <= v).mean() - (theirs <= v).mean()) for v in range(math.prod(SIDES) + 1)]
        assert max(gap) < bound


def test_batches_are_cut_as_often_as_asked(drawn):
    """switch_prob is the chance of cutmix; mixup leaves whole pixels with a chance of 1e-5."""
    cut = is_cut(drawn(BOTH))
    draws, chance = len(cut), BOTH.switch_prob
    assert abs(cut.sum() - chance * draws) < 5 * math.sqrt(draws * chance * (1 - chance))


def test_smoothing_spreads_its_mass_over_all_classes(drawn):
    """Before mixing: 1 - s + s/K for the class and s/K for the others; rows add up to 1."""
    targets = drawn(BOTH)["target"]
    np.testing.assert_allclose(targets.sum(-1), 1, atol=CLASSES * 2**-24)
    others = np.ones(CLASSES, bool)
    others[BATCH["label"]] = False
    np.testing.assert_allclose(targets[..., others], 0.1 / CLASSES, rtol=1e-6)
    pair = shares(drawn(BOTH))
    other = targets[:, np.arange(SIZE), BATCH["label"][PARTNERS]]
    np.testing.assert_allclose(pair + other, 0.9 + 0.2 / CLASSES, rtol=1e-6)


def test_without_mixing_images_are_not_touched():
    """Only the target is new, even in type."""
    function = jax.jit(mix.build(MixConfig(label_smoothing=0.2), CLASSES, 1))
    result = function(jax.random.key(0), BATCH)
    assert result["image"].dtype == jnp.uint8
    np.testing.assert_array_equal(result["image"], BATCH["image"])
    np.testing.assert_array_equal(result["label"], BATCH["label"])
    expected = np.full((SIZE, CLASSES), 0.01)
    expected[np.arange(SIZE), BATCH["label"]] = 0.81
    np.testing.assert_allclose(result["target"], expected, rtol=1e-6)


@pytest.mark.parametrize("repeats", [1, 2, 3, 5, 8])
def test_no_version_of_an_image_meets_another_of_it(repeats):
    """Nor do two of its versions meet one image, wherever in a batch their first one is."""
    size = 4 * mix._side(repeats) ** 2
    rows = np.arange(size)
    partners = np.asarray(mix._partners(jnp.asarray(rows)[:, None], repeats))[:, 0]
    np.testing.assert_array_equal(partners[partners], rows)
    for begin in range(repeats):
        images = (rows + begin) // repeats
        assert np.all(images[partners] != images)
        met = {(image, images[partner]) for image, partner in zip(images, partners, strict=True)}
        assert len(met) == size


@pytest.fixture(scope="module")
def on_devices():
    """The program and result on eight devices, a pair each; on one, that of normalised pixels."""
    mesh = jax.make_mesh((8,), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    pixels = {name: np.concatenate([array, array]) for name, array in BATCH.items()}
    normal = {**pixels, "image": (pixels["image"].astype(np.float32) - MEAN) / STD}
    function, key = jax.jit(mix.build(BOTH, CLASSES, 1)), jax.random.key(4)
    placed = jax.device_put(pixels, split)
    program = function.lower(key, placed).compile()
    return program, program(key, placed), split, function(key, normal)


def test_devices_keep_their_images(on_devices):
    """The compiled program moves nothing between devices, and each holds its part of the result."""
    program, result, split, _ = on_devices
    moves = r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    assert not re.search(moves, program.as_text())
    assert all(array.sharding.is_equivalent_to(split, array.ndim) for array in result.values())


def test_devices_and_normalisation_change_nothing(on_devices):
    """``normalise(mix(x))`` on eight devices is ``mix(normalise(x))`` on one.

    In every pixel the shares add up to 1. Each side rounds numbers up to 255 a few times in
    float32, and divides by at least 50.
    """
    _, pixels, _, normal = on_devices
    assert pixels["image"].dtype == normal["image"].dtype == jnp.float32
    assert np.any(np.asarray(pixels["target"]).max(1) < 0.8), "this key mixes"
    np.testing.assert_allclose(pixels["target"], normal["target"], atol=2**-23)
    mixed = (np.asarray(pixels["image"]) - MEAN) / STD
    np.testing.assert_allclose(mixed, normal["image"], atol=5 * 255 * 2**-24 / 50)


@pytest.mark.parametrize("size", [31, 48])
def test_a_batch_without_whole_pairs_is_refused(size):
    """When traced, with the batch sizes that will do."""
    batch = {"image": np.zeros((size, 4, 4, 1), np.uint8), "label": np.zeros(size, np.int32)}
    with pytest.raises(ConfigError, match=rf"a batch of {size} .*multiple of 32"):
        jax.eval_shape(mix.build(MixConfig(mixup=1.0), CLASSES, 3), jax.random.key(0), batch)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("mixup", -0.1), ("cutmix", math.inf), ("cutmix", math.nan)],
        *[("switch_prob", 1.1), ("prob", -1), ("label_smoothing", 2.0)],
    ],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"--data.mix.{field} is {value}"):
        mix.build(dataclasses.replace(MixConfig(), **{field: value}), CLASSES, 1)
