"""Policies: the tables entry by entry, each operation pixel by pixel, and the laws of chance."""

import math
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from train.config import ConfigError, DataConfig
from train.data import policies

# "operation probability/level", from the specification of this project (AutoAugment, Table 9) ...
IMAGENET = """
1 Posterize .4/8, Rotate .6/9; 2 Solarize .6/5, AutoContrast .6; 3 Equalize .8, Equalize .6;
4 Posterize .6/7, Posterize .6/6; 5 Equalize .4, Solarize .2/4; 6 Equalize .4, Rotate .8/8;
7 Solarize .6/3, Equalize .6; 8 Posterize .8/5, Equalize 1; 9 Rotate .2/3, Solarize .6/8;
10 Equalize .6, Posterize .4/6; 11 Rotate .8/8, Color .4/0; 12 Rotate .4/9, Equalize .6;
13 Equalize 0, Equalize .8; 14 Invert .6, Equalize 1; 15 Color .6/4, Contrast 1/8;
16 Rotate .8/8, Color 1/2; 17 Color .8/8, Solarize .8/7; 18 Sharpness .4/7, Invert .6;
19 ShearX .6/5, Equalize 1; 20 Color .4/0, Equalize .6; 21 = 5; 22 = 2; 23 = 14; 24 = 15; 25 = 3
"""
# ... and from AutoAugment's Table 7, without the levels of operations that have no range.
CIFAR10 = """
1 Invert .1, Contrast .2/6; 2 Rotate .7/2, TranslateX .3/9; 3 Sharpness .8/1, Sharpness .9/3;
4 ShearY .5/8, TranslateY .7/9; 5 AutoContrast .5, Equalize .9; 6 ShearY .2/7, Posterize .3/7;
7 Color .4/3, Brightness .6/7; 8 Sharpness .3/9, Brightness .7/9; 9 Equalize .6, Equalize .5;
10 Contrast .6/7, Sharpness .6/5; 11 Color .7/7, TranslateX .5/8; 12 Equalize .3, AutoContrast .4;
13 TranslateY .4/3, Sharpness .2/6; 14 Brightness .9/6, Color .2/8; 15 Solarize .5/2, Invert 0;
16 Equalize .2, AutoContrast .6; 17 Equalize .2, Equalize .6; 18 Color .9/9, Equalize .6;
19 AutoContrast .8, Solarize .2/8; 20 Brightness .1/3, Color .7/0;
21 Solarize .4/5, AutoContrast .9; 22 TranslateY .9/9, TranslateY .7/9;
23 AutoContrast .9, Solarize .8/3; 24 Equalize .8, Invert .1; 25 TranslateY .7/9, AutoContrast .9
"""


def parse(text):
    pairs = {}
    for entry in text.replace("\n", " ").split(";"):
        number, rest = entry.strip().split(" ", 1)
        if rest.startswith("="):
            pairs[int(number)] = pairs[int(rest[1:])]
            continue
        steps = []
        for step in rest.split(", "):
            name, numbers = step.split()
            probability, _, level = numbers.partition("/")
            steps.append((name, float(probability), int(level or 0)))
        pairs[int(number)] = tuple(steps)
    return tuple(pairs[number] for number in range(1, 26))


TABLES = {
    "autoaugment_imagenet": (policies.AUTOAUGMENT_IMAGENET, parse(IMAGENET)),
    "autoaugment_cifar10": (policies.AUTOAUGMENT_CIFAR10, parse(CIFAR10)),
}
SIGNED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
SIGNED |= {"Brightness", "Color", "Contrast", "Sharpness"}


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_the_published_one(name):
    """All 25 pairs, in order."""
    ours, published = TABLES[name]
    assert ours == published


def test_settings_are_those_of_the_specification():
    """Level by level; the translations for an image of 331 x 662 pixels."""
    levels = range(10)

    def settings(name):
        return [policies.setting(name, level, 9, (331, 662)) for level in levels]

    for name in ("ShearX", "ShearY"):
        assert settings(name) == pytest.approx([0.3 * level / 9 for level in levels])
    assert settings("TranslateX") == pytest.approx([150 * level / 9 for level in levels])
    assert settings("TranslateY") == pytest.approx([300 * level / 9 for level in levels])
    assert settings("Rotate") == pytest.approx([30 * level / 9 for level in levels])
    for name in ("Brightness", "Color", "Contrast", "Sharpness"):
        assert settings(name) == pytest.approx([0.1 * level for level in levels])
    assert settings("Posterize") == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert settings("Solarize") == pytest.approx([255 - 85 * level / 3 for level in levels])
    assert settings("Solarize")[3] == 170  # exactly, or the value 170 would be on the wrong side
    for name in ("AutoContrast", "Equalize", "Invert", "Identity"):
        assert settings(name) == [0] * 10


def test_randaugment_has_torchvisions_operations_and_settings():
    """Magnitude 9 of 30; the identity is one of fourteen."""
    assert len(policies.RANDAUGMENT) == len(set(policies.RANDAUGMENT)) == 14
    assert set(policies.RANDAUGMENT) == SIGNED | {
        *("Identity", "Posterize", "Solarize", "AutoContrast", "Equalize")
    }
    expected = {"ShearX": 0.09, "TranslateY": 0.3 * 150 / 331 * 224, "Rotate": 9, "Color": 0.27}
    expected |= {"Posterize": 7, "Solarize": 178.5}
    for name, value in expected.items():
        assert policies.setting(name, 9, 30, (100, 224)) == pytest.approx(value)


# Each operation again, in NumPy, on the pixels as integers.


def grey(image):
    return (image @ [19595, 38470, 7471] + 0x8000 >> 16)[..., None]


def blend(start, image, change):
    """In float32; truncates, as a cast from float to integer does."""
    start, image = np.float32(start), np.float32(image)
    return np.trunc(np.clip(start + np.float32(1 + change) * (image - start), 0, 255))


def smooth(image):
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    rows, columns = image.shape[:2]
    shifts = [(i, j) for i in range(3) for j in range(3)]
    total = sum(padded[i : i + rows, j : j + columns] for i, j in shifts) + 4 * image
    result = image.copy()
    result[1:-1, 1:-1] = np.floor(total / 13 + 0.5)[1:-1, 1:-1]
    return result


def stretch(channel):
    low, high = channel.min(), channel.max()
    if low == high:
        return channel
    scale = 255 / (high - low)
    return np.trunc(channel * scale - low * scale)


def flatten(channel):
    below = np.array([(channel < value).sum() for value in range(256)])
    step = below[channel.max()] // 255
    return channel if step == 0 else np.minimum((step // 2 + below[channel]) // step, 255)


def by_channel(function):
    return lambda image, _: np.stack([function(image[..., c]) for c in range(3)], -1)


def moved(image, right, down):
    result = np.zeros_like(image)
    rows, columns = image.shape[:2]
    for y in range(rows):
        for x in range(columns):
            if 0 <= y - down < rows and 0 <= x - right < columns:
                result[y, x] = image[y - down, x - right]
    return result


POINTWISE = {
    "Identity": lambda image, _: image,
    "Brightness": lambda image, change: blend(0 * image, image, change),
    "Color": lambda image, change: blend(grey(image), image, change),
    "Contrast": lambda image, change: blend(math.floor(grey(image).mean() + 0.5), image, change),
    "Sharpness": lambda image, change: blend(smooth(image), image, change),
    "Posterize": lambda image, bits: image // 2 ** (8 - bits) * 2 ** (8 - bits),
    "Solarize": lambda image, threshold: np.where(image < threshold, image, 255 - image),
    "AutoContrast": by_channel(stretch),
    "Equalize": by_channel(flatten),
    "Invert": lambda image, _: 255 - image,
    "TranslateX": lambda image, pixels: moved(image, math.trunc(pixels), 0),
    "TranslateY": lambda image, pixels: moved(image, 0, math.trunc(pixels)),
}


def turn(degrees, width, height):
    """Pixel (x, y) of the turned image -> where it was; the centre stays."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def source(x, y):
        across, down = x - width / 2, y - height / 2
        return cos * across - sin * down + width / 2, sin * across + cos * down + height / 2

    return source


GEOMETRIC = {
    "ShearX": lambda slope, width, height: lambda x, y: (x + slope * y, y),
    "ShearY": lambda slope, width, height: lambda x, y: (x, y + slope * x),
    "Rotate": turn,
}


def picture(kind):
    rng = np.random.default_rng(5)
    if kind == "noise":
        return rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)
    if kind == "dark":
        return rng.integers(20, 110, (40, 37, 3), dtype=np.uint8)
    if kind == "flat":
        return np.full((9, 12, 3), (7, 130, 255), np.uint8)
    y, x = np.mgrid[:60, :50]
    return np.stack([2 * x + y, 3 * y + 40, 255 - 4 * x], -1).astype(np.uint8)


def settings(name, image):
    size = image.shape[1::-1]
    values = [policies.setting(name, level, top, size) for top in (9, 30) for level in range(top)]
    values = sorted({*values, policies.setting(name, 9, 9, size)})
    return [sign * value for value in values for sign in ((1, -1) if name in SIGNED else (1,))]


@pytest.mark.parametrize("kind", ["noise", "dark", "flat", "slope"])
@pytest.mark.parametrize("name", POINTWISE)
def test_an_operation_is_what_numpy_says(name, kind):
    """Bit for bit, for every level of 9 and of 30, with both signs."""
    image = picture(kind)
    for value in settings(name, image):
        result = np.asarray(policies.apply(Image.fromarray(image), name, value))
        expected = POINTWISE[name](image.astype(int), value)
        np.testing.assert_array_equal(result, expected, err_msg=f"{name} {value}")


@pytest.mark.parametrize("kind", ["noise", "slope"])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_an_affine_operation_takes_the_pixel_that_geometry_says(name, kind):
    """The pixel whose square the centre falls into, black outside.

    Where the centre falls within 1/500 of an edge between two pixels either will do: Pillow counts
    in steps of 2**-16, and adds up the error over a row.
    """
    image = picture(kind)
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    for value in settings(name, image):
        result = np.asarray(policies.apply(Image.fromarray(image), name, value))
        u, v = GEOMETRIC[name](value, width, height)(x, y)
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        columns = np.clip(u, 0, width - 1).astype(int)
        rows = np.clip(v, 0, height - 1).astype(int)
        expected = np.where(inside[..., None], image[rows, columns], 0)
        sure = (np.abs(u - np.rint(u)) > 2e-3) & (np.abs(v - np.rint(v)) > 2e-3)
        assert sure.mean() > 0.7
        np.testing.assert_array_equal(result[sure], expected[sure], err_msg=f"{name} {value}")


def record(monkeypatch, policy, draws):
    """What the policy would have done to that many images: lists of (operation, setting)."""
    done = []
    monkeypatch.setattr(
        policies, "apply", lambda image, name, value: done[-1].append((name, value)) or image
    )
    transform = policies.build(DataConfig(policy=policy, randaugment=(3, 12)))
    image, rng = Image.new("RGB", (331, 331)), np.random.default_rng(0)
    for _ in range(draws):
        done.append([])
        transform(image, rng)
    return done


@pytest.mark.parametrize("policy", TABLES)
def test_autoaugment_draws_pairs_and_steps_by_their_odds(policy, monkeypatch):
    """Each sequence of operations, signs included, is as frequent as the table makes it.

    A count of n draws with chance p stays within 5 sqrt(n p (1 - p)) but once in two million.
    """
    chances = Counter()
    for pair in TABLES[policy][1]:
        outcomes = [[((), 1.0)], []]
        for name, probability, level in pair:
            value = policies.setting(name, level, 9, (331, 331))
            signs = (1, -1) if name in SIGNED and value else (1,)
            options = [((), 1 - probability)]
            options += [(((name, sign * value),), probability / len(signs)) for sign in signs]
            outcomes[0] = [(a + b, p * q) for a, p in outcomes[0] for b, q in options]
        for sequence, chance in outcomes[0]:
            chances[sequence] += chance / 25
    draws = 20_000
    recorded = record(monkeypatch, policy, draws)
    counts = Counter(tuple(done) for done in recorded)
    assert sum(chances.values()) == pytest.approx(1)
    assert set(counts) <= {sequence for sequence, chance in chances.items() if chance > 0}
    for sequence, chance in chances.items():
        slack = 5 * math.sqrt(draws * chance * (1 - chance))
        assert abs(counts[sequence] - draws * chance) <= slack + 1e-9, sequence
    signs = [value > 0 for done in recorded for name, value in done if name in SIGNED and value]
    assert abs(sum(signs) - len(signs) / 2) < 5 * math.sqrt(len(signs) / 4)


def test_randaugment_draws_each_operation_alike(monkeypatch):
    """Three of fourteen, with replacement; half of the signs are negative."""
    draws = 5_000
    done = record(monkeypatch, "randaugment", draws)
    assert {len(steps) for steps in done} == {3}
    counts = Counter(name for steps in done for name, _ in steps)
    for name in policies.RANDAUGMENT:
        assert abs(counts[name] - 3 * draws / 14) < 5 * math.sqrt(3 * draws / 14)
        values = [value for steps in done for other, value in steps if other == name]
        assert {abs(v) for v in values} == {policies.setting(name, 12, 30, (331, 331))}
        negative = sum(value < 0 for value in values)
        expected = len(values) / 2 if name in SIGNED else 0
        assert abs(negative - expected) <= 5 * math.sqrt(expected / 2)


@pytest.mark.parametrize("policy", [*TABLES, "randaugment"])
def test_a_policy_follows_its_generator_wherever_it_is(policy):
    """The same seed gives the same pixels, also after pickling, and other seeds others."""
    transform = policies.build(DataConfig(policy=policy))
    copy = pickle.loads(pickle.dumps(transform))
    image = Image.fromarray(picture("slope"))
    seen = set()
    for seed in range(20):
        result = transform(image, np.random.default_rng(seed)).tobytes()
        assert result == copy(image, np.random.default_rng(seed)).tobytes()
        seen.add(result)
    assert len(seen) > 5


def test_no_policy_is_none():
    assert policies.build(DataConfig(policy="none")) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (4.88,), "std": (6.01,)}, r"three channels.*--data.policy none"),
        ({"randaugment": (0, 9)}, r"--data.randaugment is \(0, 9\).*at least 1"),
        ({"randaugment": (2, 31)}, r"--data.randaugment is \(2, 31\).*from 0 to 30"),
    ],
)
def test_settings_that_no_image_could_follow_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        policies.build(DataConfig(policy="randaugment", **changes))
