"""Decoding: every orientation and colour space, boxes in the decoder, and files that are broken."""

import io

import numpy as np
import pytest
from PIL import Image
from shared_data import SHARED

from train.data import decode

# Visual side of the stored image's first row and first column, CIPA DC-008 (EXIF), Orientation.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def ramp(width, height):
    """Red rises to the right, green downwards, and blue is constant."""
    image = np.empty((height, width, 3))
    image[..., 0] = np.linspace(10, 245, width)
    image[..., 1] = np.linspace(10, 245, height)[:, None]
    image[..., 2] = 90
    return np.rint(image).astype(np.uint8)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def store(upright, orientation, kind, **options):
    """Encodes an upright image as a camera held in that orientation does."""
    row, column = SIDES[orientation]
    stored = upright
    if "bottom" in (row, column):
        stored = stored[::-1]
    if "right" in (row, column):
        stored = stored[:, ::-1]
    if row in ("left", "right"):
        stored = stored.swapaxes(0, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(np.ascontiguousarray(stored), kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", SIDES)
def test_any_orientation_comes_out_upright(orientation, kind):
    """Lossless formats return the very pixels that were upright before they were stored."""
    upright = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    photo = decode.read(store(upright, orientation, kind, **options))
    assert (photo.width, photo.height) == (7, 5)
    np.testing.assert_array_equal(decode.pixels(photo, "RGB"), upright)


@pytest.mark.parametrize(("size", "longest"), [((16, 10), 101), ((150, 100), 401)])
@pytest.mark.parametrize("orientation", SIDES)
def test_a_box_of_a_rotated_jpeg_is_the_upright_box(orientation, size, longest):
    """Decoded at an eighth and at a half of its 801 pixels, it matches the whole image.

    The ramp differs by 40 levels on average from a box turned or mirrored wrongly, and by 1.2 if
    an eighth were half a pixel off.
    """
    upright = ramp(801, 603)
    photo = decode.read(store(upright, orientation, "JPEG", quality=95))
    box = (301, 103, 701, 403)
    image = decode.resized(photo, box, size, "RGB")
    expected = Image.fromarray(upright).resize(size, Image.Resampling.BILINEAR, box=box)
    error = np.asarray(image, float) - np.asarray(expected, float)
    assert max(photo.image.size) == longest
    assert np.abs(error).max() <= 4
    assert np.abs(error.mean((0, 1))).max() < 0.5


def test_a_box_that_needs_every_pixel_is_decoded_exactly():
    """Without spare pixels, the result is Pillow's resize of the whole image, bit for bit."""
    data = encode(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8), "JPEG")
    box = (11, 5, 100, 80)
    image = decode.resized(decode.read(data), box, (50, 50), "RGB")
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    expected = whole.resize((50, 50), Image.Resampling.BILINEAR, box=box)
    np.testing.assert_array_equal(image, expected)


def test_a_box_of_a_png_is_decoded_exactly():
    """Other formats have no smaller decoding; the box is cut from the whole image."""
    upright = ramp(400, 300)
    image = decode.resized(decode.read(encode(upright, "PNG")), (0, 0, 400, 300), (40, 30), "RGB")
    np.testing.assert_array_equal(
        image, Image.fromarray(upright).resize((40, 30), Image.Resampling.BILINEAR)
    )


def luma(rgb):
    """ITU-R 601-2, in Pillow's 16-bit fixed point."""
    return ((rgb.astype(int) @ [19595, 38470, 7471] + 0x8000) >> 16).astype(np.uint8)


RGB = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = RGB[..., 1:2]


def palette_with_alpha():
    """Sixteen colours, of which some are transparent."""
    image = Image.fromarray(GREY & 15, "P")
    image.putpalette(RGB.reshape(-1)[:48].tolist())
    return encode(image, "PNG", transparency=bytes(range(0, 256, 16)))


CONVERSIONS = {
    "grey": (encode(GREY, "PNG"), np.stack([GREY] * 3, -1)),
    "grey and alpha": (
        encode(np.concatenate([GREY[..., None], ALPHA], -1), "PNG"),
        np.stack([GREY] * 3, -1),
    ),
    "colour and alpha": (encode(np.concatenate([RGB, ALPHA], -1), "PNG"), RGB),
    "palette and alpha": (palette_with_alpha(), RGB.reshape(-1)[:48].reshape(16, 3)[GREY & 15]),
    "one bit": (encode(Image.fromarray(GREY > 127), "PNG"), np.stack([(GREY > 127) * 255] * 3, -1)),
    "sixteen bits": (encode(GREY.astype(np.uint16) << 8 | 7, "PNG"), np.stack([GREY] * 3, -1)),
}


@pytest.mark.parametrize("case", CONVERSIONS)
@pytest.mark.filterwarnings("error")
def test_other_pixels_become_eight_bit_colour(case):
    """Alpha is dropped, grey is repeated, 16 bits lose the lower 8; and nothing warns."""
    data, expected = CONVERSIONS[case]
    np.testing.assert_array_equal(decode.decode(data, "RGB"), expected)


def test_colour_becomes_grey_where_one_channel_is_asked_for():
    """A data set of one channel gets the luma of a colour image, and grey pixels as they are."""
    np.testing.assert_array_equal(decode.decode(encode(RGB, "PNG"), "L")[..., 0], luma(RGB))
    np.testing.assert_array_equal(decode.decode(encode(GREY, "PNG"), "L")[..., 0], GREY)


def test_cmyk_jpegs_have_the_colours_of_their_inks():
    """R = (255 - C)(255 - K) / 255, and so on; JPEG itself costs up to three levels."""
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 200)]
    inks += [(60, 120, 180, 40)]
    for ink in inks:
        data = encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
        assert Image.open(io.BytesIO(data)).mode == "CMYK"
        expected = (255 - np.array(ink[:3])) * (255 - ink[3]) / 255
        pixels = np.asarray(decode.decode(data, "RGB"), float)
        assert np.abs(pixels - expected).max() <= 3, ink


def test_a_png_named_jpeg_is_a_png(tmp_path):
    """The bytes decide, whatever the name says."""
    path = tmp_path / "n02105855_2933.JPEG"
    path.write_bytes(encode(RGB, "PNG"))
    np.testing.assert_array_equal(decode.decode(path.read_bytes(), "RGB"), RGB)


JPEG = encode(ramp(64, 48), "JPEG")
BROKEN = {
    "no bytes": (b"", "the file is empty"),
    "text": (b"<html>404 Not Found</html>", "cannot identify"),
    "noise": (np.random.default_rng(0).bytes(1000), "cannot identify"),
    "zeros": (bytes(1000), "cannot identify"),
    "JPEG, magic only": (JPEG[:4], "cannot identify|Truncated"),
    "JPEG, header only": (JPEG[: JPEG.index(b"\xff\xda")], "cannot load"),
    "JPEG, half": (JPEG[: len(JPEG) // 2], "Truncated"),
    "JPEG, but for 40 bytes": (JPEG[:-40], "truncated|broken"),
    "PNG, half": (encode(RGB, "PNG")[:150], "truncated|broken"),
    "WEBP, half": (encode(RGB, "WEBP", lossless=True)[:80], "decoder"),
    "float TIFF": (encode(Image.new("F", (4, 4)), "TIFF"), "no known range"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused(case):
    """Never half an image, never another exception."""
    data, message = BROKEN[case]
    with pytest.raises(decode.UnreadableImage, match=message):
        decode.decode(data, "RGB")


def test_a_truncated_jpeg_is_refused_in_a_box_too():
    """Also where the cut lies behind the box, and where the decoder shrinks."""
    data = encode(ramp(800, 600), "JPEG")
    for side in (20, 90):
        photo = decode.read(data[: len(data) * 3 // 4])
        with pytest.raises(decode.UnreadableImage, match="truncated"):
            decode.resized(photo, (0, 0, 200, 200), (side, side), "RGB")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_leaves_the_image_readable():
    """Its orientation is then unknown, which is what most images say too."""
    data = encode(ramp(16, 8), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xffgarbage")
    assert decode.decode(data, "RGB").shape == (8, 16, 3)
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decode.decode(encode(ramp(16, 8), "JPEG", exif=exif), "RGB").shape == (8, 16, 3)


def test_real_photographs_decode():
    """The middle of a photograph, decoded at a fraction, is the middle of the whole one.

    The inverse DCT of fewer coefficients is another low-pass than an average, so fine texture
    differs; a tenth of what a mirrored image differs by leaves room for that, and for no mistake.
    """
    paths = sorted((SHARED / "imagenet_sample").glob("*/*"))
    if not paths:
        pytest.skip("needs imagenet_sample, which does not ship with the project")
    for path in paths[::4]:
        photo = decode.read(path.read_bytes())
        width, height = photo.width, photo.height
        box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
        image = decode.resized(photo, box, (64, 64), "RGB")
        whole = Image.open(path).convert("RGB")
        expected = whole.resize((64, 64), Image.Resampling.BILINEAR, box=box)
        ours, theirs = np.asarray(image, float), np.asarray(expected, float)
        wrong = np.abs(theirs - theirs[:, ::-1]).mean()
        assert np.abs(ours - theirs).mean() < 0.1 * wrong, path.name
