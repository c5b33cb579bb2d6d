"""The transforms: what each draw does to the pixels, and the laws that the draws follow."""

import io
import math
import pickle

import numpy as np
import pytest
from PIL import Image

from train.config import ConfigError, DataConfig
from train.data import augment, policies
from train.data.decode import UnreadableImage

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
PHOTO = np.asarray(Image.fromarray(NOISE).resize((150, 90), Image.Resampling.BICUBIC))


def training(**changes):
    return augment.training_transform(DataConfig(**changes))


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def kolmogorov(sample, low, high):
    """Distance of a sample's distribution from the uniform one."""
    sample = np.sort((np.asarray(sample) - low) / (high - low))
    steps = np.arange(len(sample) + 1) / len(sample)
    return max(np.abs(sample - steps[1:]).max(), np.abs(sample - steps[:-1]).max())


def critical(n, m=math.inf):
    """Kolmogorov and Smirnov's bound, exceeded by chance once in a million."""
    return math.sqrt(-math.log(1e-6 / 2) / 2) * math.sqrt(1 / n + 1 / m)


# Crops and flips.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [1, 4])
def test_the_padded_crop_is_a_window_at_the_drawn_place(padding, channels):
    """Two integers from the generator, top and left, into the zero-padded image."""
    image = NOISE[..., :channels]
    number = (1.0,) * channels
    transform = training(crop="pad", crop_padding=padding, mean=number, std=number)
    for seed in range(100):
        top, left = np.random.default_rng(seed).integers(0, 2 * padding + 1, size=2)
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        expected = padded[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(transform(image, np.random.default_rng(seed)), expected)


@pytest.mark.parametrize("bits", [np.random.Philox, np.random.PCG64, np.random.MT19937])
def test_two_draws_are_one_draw_of_two(bits):
    """NumPy's integers come one by one as they come together, so runs of before repeat."""
    one, two = np.random.Generator(bits(5)), np.random.Generator(bits(5))
    for _ in range(100):
        assert [one.integers(9), one.integers(9)] == two.integers(0, 9, size=2).tolist()
        assert one.random() == two.random()


@pytest.mark.parametrize(("stored", "draws"), [(PHOTO, 2000), (png(PHOTO), 100)])
def test_half_of_the_images_are_mirrored(stored, draws):
    """The count of fair draws stays within 5 standard deviations of a half."""
    transform, rng = training(flip=True), np.random.default_rng(1)
    mirrored = 0
    for _ in range(draws):
        image = transform(stored, rng)
        is_mirrored = np.array_equal(image, PHOTO[:, ::-1])
        assert is_mirrored or np.array_equal(image, PHOTO)
        mirrored += is_mirrored
    assert abs(mirrored - draws / 2) < 5 * math.sqrt(draws / 4)


@pytest.mark.parametrize("kind", FILTERS)
def test_the_random_crop_resizes_its_box(kind):
    """Bytes and pixels alike: the drawn box, resized by Pillow, and then the flip."""
    transform = training(crop="random_resized", image_size=24, flip=True, interpolation=kind)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        box = augment._random_box(150, 90, (0.08, 1.0), rng)
        expected = np.asarray(Image.fromarray(PHOTO).resize((24, 24), FILTERS[kind], box=box))
        if rng.random() < 0.5:
            expected = expected[:, ::-1]
        for stored in (PHOTO, png(PHOTO)):
            image = transform(stored, np.random.default_rng(seed))
            np.testing.assert_array_equal(image, expected)


def test_boxes_are_uniform_in_area_log_ratio_and_place():
    """Where every box fits, area, log ratio and place are those uniform and independent draws.

    The largest, sqrt(0.5 * 4 / 3), is 0.82 of the side. Rounding a side of at least 400 pixels
    moves a distribution by less than 0.005.
    """
    rng, side, draws = np.random.default_rng(2), 2000, 5000
    boxes = [augment._random_box(side, side, (0.08, 0.5), rng) for _ in range(draws)]
    left, top, right, bottom = np.array(boxes, float).T
    wide, high = right - left, bottom - top
    area, ratio = wide * high / side**2, np.log(wide / high)
    bound = critical(draws) + 0.005
    assert kolmogorov(area, 0.08, 0.5) < bound
    assert kolmogorov(ratio, math.log(3 / 4), math.log(4 / 3)) < bound
    assert kolmogorov(left / (side - wide), 0, 1) < bound
    assert kolmogorov(top / (side - high), 0, 1) < bound
    correlations = np.corrcoef([area, ratio, left / (side - wide), top / (side - high)])
    assert np.abs(correlations - np.eye(4)).max() < 5 / math.sqrt(draws)


def torchvision_box(width, height, scale, rng):
    """RandomResizedCrop.get_params of torchvision, told again: the ten attempts by rejection."""
    for _ in range(10):
        area = rng.uniform(scale[0], scale[1]) * width * height
        ratio = 0.75 * (16 / 9) ** rng.uniform(0, 1)
        wide, high = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < wide <= width and 0 < high <= height:
            return wide, high
    if width / height < 0.75:
        return width, round(width / 0.75)
    if width / height > 4 / 3:
        return round(height * 4 / 3), height
    return width, height


@pytest.mark.parametrize("size", [(500, 375), (300, 900), (640, 100)])
def test_boxes_of_other_shapes_follow_torchvision(size):
    """Where boxes are turned down, and where all ten are: the same law as the statement above."""
    draws = 3000
    ours, theirs = np.random.default_rng(3), np.random.default_rng(4)
    boxes = [augment._random_box(*size, (0.08, 1.0), ours) for _ in range(draws)]
    left, top, right, bottom = np.array(boxes).T
    assert left.min() >= 0 <= top.min()
    assert right.max() <= size[0]
    assert bottom.max() <= size[1]
    expected = np.array([torchvision_box(*size, (0.08, 1.0), theirs) for _ in range(draws)]).T
    for mine, other in zip((right - left, bottom - top), expected, strict=True):
        values = np.unique([mine, other])
        gap = [abs((mine <= value).mean() - (other <= value).mean()) for value in values]
        assert max(gap) < critical(draws, draws)


def test_a_ribbon_is_cropped_in_its_centre():
    """1,000 x 10 pixels hold no box of 1 % of a wider area than 10 x 13: the fallback."""
    box = augment._random_box(1000, 10, (0.9, 1.0), np.random.default_rng(0))
    assert box == (493, 0, 506, 10)
    assert augment._random_box(10, 1000, (0.9, 1.0), np.random.default_rng(0)) == (0, 493, 10, 506)


# Policy and erasing.


@pytest.mark.parametrize("crop", ["pad", "random_resized"])
def test_the_policy_follows_the_flip(crop):
    """Crop, flip, policy draw from one generator in this order."""
    size = {"crop_padding": 4} if crop == "pad" else {"image_size": 16}
    plain = training(crop=crop, flip=True, **size)
    policy = policies.build(DataConfig(policy="autoaugment_cifar10"))
    transform = training(crop=crop, flip=True, policy="autoaugment_cifar10", **size)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        expected = policy(Image.fromarray(plain(NOISE, rng)), rng)
        np.testing.assert_array_equal(transform(NOISE, np.random.default_rng(seed)), expected)


MEAN, STD = (120.0, 90.0, 130.0), (25.0, 20.0, 30.0)
BLACK = np.zeros((60, 80, 3), np.uint8)


def erased(draws, chance):
    """Rectangles ``(top, left, height, width)`` and their noise, which is never as low as 0."""
    transform = training(erasing=chance, mean=MEAN, std=STD)
    rng, rectangles, noise = np.random.default_rng(6), [], []
    for _ in range(draws):
        image = transform(BLACK, rng)
        rows, columns = np.flatnonzero(image.any((1, 2))), np.flatnonzero(image.any((0, 2)))
        if len(rows):
            rectangles.append((rows[0], columns[0], len(rows), len(columns)))
            inside = np.ix_(range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1))
            assert np.all(rows == np.arange(rows[0], rows[-1] + 1))
            noise.append(image[inside].reshape(-1, 3))
            image = image.copy()
            image[inside] = 0
        assert not image.any()
    assert not BLACK.any()
    return np.array(rectangles), np.concatenate(noise)


def timm_rectangle(height, width, rng):
    """RandomErasing of timm, told again: area of 2 % to a third, log-uniform ratio from 0.3."""
    for _ in range(10):
        area = rng.uniform(0.02, 1 / 3) * height * width
        ratio = 0.3 * (1 / 0.09) ** rng.uniform(0, 1)
        high, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if high < height and wide < width:
            return rng.integers(height - high + 1), rng.integers(width - wide + 1), high, wide
    return None


def test_rectangles_are_erased_by_the_law_of_timm():
    """As often as asked, of its shapes, at its places: Kolmogorov and Smirnov on each."""
    draws = 4000
    rectangles, _ = erased(draws, 0.5)
    assert abs(len(rectangles) - draws / 2) < 5 * math.sqrt(draws / 4)
    assert rectangles[:, 2].max() < 60, "never a whole side"
    rng = np.random.default_rng(7)
    expected = np.array([timm_rectangle(60, 80, rng) for _ in range(draws)])
    for mine, other in zip(rectangles.T, expected.T, strict=True):
        gap = [abs((mine <= v).mean() - (other <= v).mean()) for v in range(81)]
        assert max(gap) < critical(len(mine), draws)


def test_erased_pixels_are_standard_normal_after_normalisation():
    """Mean, deviation and independence of channels, up to the rounding to whole levels.

    Nearly nothing is clipped: 0 and 255 are more than 4.1 deviations away, 1 in 40,000.
    """
    _, noise = erased(300, 1.0)
    normal = (noise - np.array(MEAN)) / np.array(STD)
    n = len(normal)
    assert n > 100_000
    # Rounding adds a variance of 1/12 level: 2e-4 deviations at most. Clipping removes less.
    assert np.abs(normal.mean(0)).max() < 5 / math.sqrt(n) + 1e-3
    assert np.abs(normal.var(0) - 1).max() < 5 * math.sqrt(2 / n) + 2e-3
    assert np.abs(np.corrcoef(normal.T) - np.eye(3)).max() < 5 / math.sqrt(n)
    neighbours = np.corrcoef(normal[:-1, 0], normal[1:, 0])[0, 1]
    assert abs(neighbours) < 5 / math.sqrt(n)


def test_noise_beyond_the_range_of_a_pixel_is_clipped():
    """Never wrapped round: with mean 250, about half of the noise is 255, none is near 0."""
    transform = training(erasing=1.0, mean=(250.0,), std=(20.0,))
    rng = np.random.default_rng(8)
    images = [transform(np.full((40, 40, 1), 100, np.uint8), rng) for _ in range(20)]
    noise = np.concatenate([image[image != 100] for image in images])
    assert noise.min() > 100
    # P(N > (254.5 - 250) / 20) = P(N > 0.225) = 0.411.
    assert abs((noise == 255).mean() - 0.411) < 5 * 0.5 / math.sqrt(len(noise))


# The test transform.


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(
    ("shape", "config", "resized"),
    [
        ((90, 150), {"image_size": 28}, (53, 32)),
        ((150, 90), {"image_size": 28}, (32, 53)),
        ((87, 150), {"image_size": 28}, (55, 32)),
        ((90, 150), {"image_size": 28, "resize": 28}, (46, 28)),
        ((20, 31), {"image_size": 28, "resize": 40}, (62, 40)),
        ((50, 50), {"image_size": 28, "resize": 33}, (33, 33)),
        ((300, 225), {"image_size": 28}, (32, 42)),
    ],
)
def test_the_test_transform_resizes_and_takes_the_centre(shape, config, resized, kind):
    """Torchvision's Resize and CenterCrop: (width, height) after the first, then 28 x 28.

    It is done in one go, so the filter's weights may be rounded differently, by one grey level.
    """
    image = np.asarray(Image.fromarray(NOISE).resize(shape[::-1], Image.Resampling.BICUBIC))
    left, top = round((resized[0] - 28) / 2), round((resized[1] - 28) / 2)
    whole = np.asarray(Image.fromarray(image).resize(resized, FILTERS[kind]), int)
    expected = whole[top : top + 28, left : left + 28]
    transform = augment.test_transform(DataConfig(**config, interpolation=kind))
    for stored in (image, png(image)):
        result = transform(stored)
        assert result.dtype == np.uint8
        assert np.abs(result - expected).max() <= 1
        assert (result != expected).mean() < 0.02


def test_the_test_transform_leaves_the_stored_size():
    """With image_size 0, and where nothing is left to do, the pixels are the stored ones."""
    for config in (DataConfig(), DataConfig(image_size=32, resize=32)):
        transform = augment.test_transform(config)
        np.testing.assert_array_equal(transform(NOISE), NOISE)
        np.testing.assert_array_equal(transform(png(NOISE)), NOISE)


def test_no_crop_and_padding_start_from_the_resized_centre():
    """Images of a folder all reach image_size, whatever the training crop is."""
    centre = augment.test_transform(DataConfig(image_size=40, resize=40))(PHOTO)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(training(image_size=40)(PHOTO, rng), centre)
    padded = training(image_size=40, crop="pad", crop_padding=2)
    shifted = training(crop="pad", crop_padding=2)
    for seed in range(5):
        np.testing.assert_array_equal(
            padded(png(PHOTO), np.random.default_rng(seed)),
            shifted(centre, np.random.default_rng(seed)),
        )


# Contracts.

EVERYTHING = DataConfig(
    image_size=20, crop="random_resized", flip=True, policy="randaugment", erasing=0.5
)


def test_transforms_travel_to_other_processes():
    """Pickled, they give the same pixels for the same seed, and other seeds others."""
    transform = augment.training_transform(EVERYTHING)
    copy = pickle.loads(pickle.dumps(transform))
    results = [transform(PHOTO, np.random.default_rng(seed)) for seed in range(10)]
    for seed, result in enumerate(results):
        assert result.shape == (20, 20, 3)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, copy(png(PHOTO), np.random.default_rng(seed)))
    assert len({result.tobytes() for result in results}) == 10
    test = augment.test_transform(EVERYTHING)
    np.testing.assert_array_equal(test(PHOTO), pickle.loads(pickle.dumps(test))(PHOTO))


def test_the_stored_image_is_never_written_to():
    """Sources hand out views of what they hold."""
    image = PHOTO.copy()
    image.flags.writeable = False
    for config in (EVERYTHING, DataConfig(crop="pad", crop_padding=3, erasing=1.0, flip=True)):
        transform = augment.training_transform(config)
        for seed in range(5):
            transform(image, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, PHOTO)


def test_grey_data_sets_have_one_channel():
    """One number in mean: grey files stay grey, and colour files become grey."""
    config = {"mean": (5.0,), "std": (6.0,), "image_size": 16}
    transform = training(crop="random_resized", flip=True, erasing=0.5, **config)
    test = augment.test_transform(DataConfig(**config))
    for stored in (PHOTO[..., :1], png(PHOTO), png(PHOTO[..., 0])):
        assert transform(stored, np.random.default_rng(0)).shape == (16, 16, 1)
        assert test(stored).shape == (16, 16, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": "random_resized"}, "set --data.image_size"),
        ({"interpolation": "bicubic"}, "set --data.image_size"),
        ({"crop_padding": 4}, r"crop_padding is 4, but --data.crop is 'none'.*--data.crop pad"),
        ({"resize": 256}, r"--data.resize is 256.*image_size 0"),
        ({"resize": 200, "image_size": 224}, r"0 < image_size <= resize"),
        ({"crop_scale": (0.0, 1.0)}, r"crop_scale is \(0.0, 1.0\)"),
        ({"crop_scale": (0.5, 0.2)}, r"smallest <= largest"),
        ({"erasing": 1.5}, r"--data.erasing is 1.5"),
        ({"mean": (1.0,)}, r"one number for each channel"),
        ({"mean": (1.0,) * 4, "std": (1.0,) * 4}, r"which is 1 or 3"),
        ({"mean": (1.0,), "std": (1.0,), "policy": "autoaugment_cifar10"}, "three channels"),
    ],
)
def test_contradictions_are_refused_before_the_first_image(changes, message):
    with pytest.raises(ConfigError, match=message):
        training(**changes)


@pytest.mark.parametrize("image", [NOISE[..., :1], NOISE[..., 0], NOISE.astype(np.float32)])
def test_pixels_of_another_kind_are_refused(image):
    """Not broadcast, not rounded."""
    with pytest.raises(ConfigError, match=r"must be uint8 \[H W 3\]"):
        training()(image, np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"must be uint8 \[H W 3\]"):
        augment.test_transform(DataConfig(image_size=8))(image)


def test_broken_bytes_are_unreadable():
    """Both transforms pass the decoder's error on."""
    with pytest.raises(UnreadableImage):
        training()(b"", np.random.default_rng(0))
    with pytest.raises(UnreadableImage):
        augment.test_transform(DataConfig(image_size=8))(png(PHOTO)[:100])
