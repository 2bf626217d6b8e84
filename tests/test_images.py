import numpy as np
import pytest
import tensorflow as tf
from fuzzing_files import save, write_png
from PIL import Image, ImageOps

from unet_helpers.images import (
    GREY,
    ORIENTATION,
    decode_image,
    decode_mask,
    examine_image,
    fit_image,
    fit_mask,
    fitted_box,
    resize_image,
    resize_mask,
)
from unet_helpers.labels import VOID
from unet_helpers.model import unet_model
from unet_helpers.pipeline import make_batches


def test_resizing_never_invents_a_class(write_pair, labels):
    """Between 0 and 2 lies 1: bilinear masks would hold it."""
    values = np.zeros((32, 48), np.uint8)
    values[:, 1::2] = 2
    _, mask = next(iter(make_batches([write_pair(values=values)], labels, (24, 40), 1)))
    assert set(np.unique(fit_mask(values[..., None], (12, 20), (24, 32)))) <= {0, 2, VOID}
    assert set(np.unique(mask)) <= {0, 2, VOID}
    assert set(np.unique(resize_mask(tf.constant(values[..., None]), (13, 17)))) <= {0, 2}


def test_shrinking_a_picture_averages_its_pixels():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::4] = 200  # without antialiasing only two of four columns would be looked at, both black
    shrunk = resize_image(tf.constant(stripes), (8, 8)).numpy()
    assert shrunk.dtype == np.uint8
    assert 30 <= shrunk[4, 4, 0] <= 70


def test_void_values_of_the_file_become_255(write_pair, labels):
    values = np.uint8([[0, 1], [3, 255]])
    _, mask = next(iter(make_batches([write_pair(values=values)], labels, (2, 2), 1)))
    assert mask.numpy()[0, ..., 0].tolist() == [[0, 1], [VOID, VOID]]


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


PNGS = {  # kinds of PNG: how noise is made one
    "RGB": lambda pixels: save(pixels), "RGBA": lambda pixels: save(np.dstack([pixels, pixels[..., 0]])),
    "grey": lambda pixels: save(pixels[..., 0]), "grey with alpha": lambda pixels: save(pixels, mode="LA"),
    "palette": lambda pixels: save(pixels, mode="P"), "1 bit": lambda pixels: save(pixels, mode="1"),
    "4 bits": lambda pixels: write_png(pixels[..., :1] // 16, 4, 0),
    "interlaced": lambda pixels: write_png(pixels, interlaced=True),
}  # fmt: skip


@pytest.mark.parametrize("kind", PNGS)
def test_a_png_has_the_pixels_that_tensorflow_decodes(tmp_path, kind):
    content = PNGS[kind](noise(20, 30))
    (tmp_path / "a.png").write_bytes(content)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), tf.io.decode_png(content, channels=3))


@pytest.mark.parametrize("kind", ["grey", "RGB", "RGBA"])
def test_a_mask_has_the_ids_that_tensorflow_decodes(tmp_path, labels, kind):
    content = PNGS[kind](noise(20, 30))
    (tmp_path / "m.png").write_bytes(content)
    red = tf.io.decode_png(content, channels=3)[..., :1].numpy()
    expected = np.where(red < 3, red, VOID)
    ids = decode_mask(tmp_path / "m.png", labels)
    assert (ids.dtype, ids.shape, len(np.unique(ids))) == (np.uint8, (20, 30, 1), 4)
    np.testing.assert_array_equal(ids, expected)


def test_a_jpeg_has_nearly_the_pixels_that_tensorflow_decodes_exactly(tmp_path):
    picture = np.uint8(128 + 100 * np.sin(np.indices((48, 64)).sum(0) / 9))[..., None] + np.uint8([0, 9, 20])
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=90)
    exact = tf.io.decode_jpeg((tmp_path / "a.jpg").read_bytes(), dct_method="INTEGER_ACCURATE")
    assert np.abs(decode_image(tmp_path / "a.jpg").astype(int) - exact).max() <= 2


def test_files_of_other_kinds_are_8_bit_rgb_too(tmp_path):
    pixels = noise(20, 30)
    picture, grey = Image.fromarray(pixels), pixels[..., 0]
    picture.save(tmp_path / "a.bmp")
    picture.save(tmp_path / "a.tiff")
    picture.save(tmp_path / "a.webp", lossless=True)
    picture.convert("CMYK").save(tmp_path / "cmyk.tiff")
    Image.fromarray(grey).save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(255 - grey)])
    Image.fromarray(grey.astype(np.uint16) << 8 | 77).save(tmp_path / "deep.png")
    Image.fromarray(grey.astype(np.uint16) << 4 | 7).save(tmp_path / "deep.tiff")  # 12 of 16 bits
    (tmp_path / "rgb.png").write_bytes(write_png(pixels.astype(np.uint16) << 8 | 77, 16))
    for name in ("a.bmp", "a.tiff", "a.webp", "cmyk.tiff", "rgb.png"):
        np.testing.assert_array_equal(decode_image(tmp_path / name), pixels, name)
    for name in ("a.gif", "deep.png", "deep.tiff"):
        np.testing.assert_array_equal(decode_image(tmp_path / name), np.repeat(grey[..., None], 3, axis=2), name)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_images_and_masks_are_turned_upright_as_a_viewer_shows_them(tmp_path, labels, suffix):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        Image.fromarray(noise(20, 30)).save(tmp_path / f"p{suffix}", exif=exif)
        with Image.open(tmp_path / f"p{suffix}") as image:
            upright = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(decode_image(tmp_path / f"p{suffix}"), upright)
        assert examine_image(tmp_path / f"p{suffix}").stored == (20, 30)
        if suffix == ".png":
            ids = np.where(upright[..., :1] < 3, upright[..., :1], VOID)
            np.testing.assert_array_equal(decode_mask(tmp_path / f"p{suffix}", labels), ids)


@pytest.mark.parametrize("content", [None, b"", b"text", "half"])
def test_a_file_that_can_not_be_read_is_named(tmp_path, labels, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(save(noise(20, 30))[:900] if content == "half" else content)
    for decode in (decode_image, lambda path: decode_mask(path, labels)):
        with pytest.raises(ValueError, match=r"a\.png: it can't be read as an image; save it anew as PNG.*found: \w"):
            decode(str(path))


@pytest.mark.parametrize("own_size", [(32, 48), (96, 128), (60, 81), (33, 47)])
def test_a_picture_of_these_proportions_fills_the_size(own_size):
    rng = np.random.default_rng(0)
    image, mask = (rng.integers(0, 256, (*own_size, n), np.uint8) for n in (3, 1))
    for size in ((24, 32), (48, 64)):
        if max(np.divide(size, own_size)) / min(np.divide(size, own_size)) < 1.05:
            np.testing.assert_array_equal(fit_image(image, size), resize_image(image, size))
            np.testing.assert_array_equal(fit_mask(mask, size, size), resize_mask(mask, size))
            half = size[0] // 2, size[1] // 2
            np.testing.assert_array_equal(fit_mask(mask, half, size), resize_mask(mask, half))


@pytest.mark.parametrize("own_size", [(90, 60), (60, 90), (20, 400), (300, 10), (57, 131)])
@pytest.mark.parametrize("half", [False, True])
def test_a_disc_stays_a_disc_under_its_mask(own_size, half):
    """The fitted mask marks the disc in the fitted picture, to half a pixel; grey is void, and nothing else is."""
    size = (96, 128)
    rows, columns = np.ogrid[: own_size[0], : own_size[1]]
    radius = min(own_size) / 3
    disc = (rows - own_size[0] / 2 + 0.5) ** 2 + (columns - own_size[1] / 2 + 0.5) ** 2 < radius**2
    image, mask = np.uint8(np.stack([250 * disc] * 3, -1)), np.uint8(disc)[..., None]
    output_size = (size[0] // 2, size[1] // 2) if half else size
    fitted, ids = fit_image(image, size), fit_mask(mask, output_size, size)[..., 0]
    if half:
        fitted = fitted.reshape(*output_size[:1], 2, output_size[1], 2, 3).mean((1, 3))
    top, left, bottom, right = fitted_box(own_size, size)
    assert (bottom - top, right - left) == pytest.approx(np.array(own_size) * min(np.divide(size, own_size)), abs=1)
    assert abs(top - (size[0] - bottom)) <= 2
    assert abs(left - (size[1] - right)) <= 2  # in the middle
    known = ids != VOID
    step = 2 if half else 1
    rows, columns = ((np.arange(side) + 0.5) * step for side in output_size)
    inside = ((top <= rows) & (rows < bottom))[:, None] & ((left <= columns) & (columns < right))
    np.testing.assert_array_equal(known, inside)
    assert (fitted[~known] == GREY).all()
    if half:  # none of its pixels lies half on grey
        assert inside.sum() * step**2 == (bottom - top) * (right - left)
    sure = known & ((fitted[..., 0] > 200) | (fitted[..., 0] < 50))
    assert ((ids == 1) == (fitted[..., 0] > 125))[sure].mean() > 0.99
    down, across = (np.flatnonzero((ids == 1).any(axis=axis)) for axis in (1, 0))
    if len(down) > 8:
        assert len(down) == pytest.approx(len(across), abs=2)


def test_batches_of_pictures_of_all_sizes_keep_their_proportions(write_pair, labels):
    sizes = [(30, 40), (40, 30), (12, 60)]
    pairs = [write_pair(stem=str(n), size=size) for n, size in enumerate(sizes)]
    images, masks = next(iter(make_batches(pairs, labels, (48, 64), 3, mask_size=(24, 32))))
    for image, mask, pair in zip(images.numpy(), masks.numpy(), pairs, strict=True):
        picture, ids = np.asarray(Image.open(pair.image)), decode_mask(pair.mask, labels)
        np.testing.assert_array_equal(image, fit_image(picture, (48, 64)))
        np.testing.assert_array_equal(mask, fit_mask(ids, (24, 32), (48, 64)))
    assert [(mask == VOID).mean() > 0.1 for mask in masks.numpy()] == [False, True, True]


def test_grey_around_a_picture_is_nothing_to_the_network():
    """As much as the zeros beyond the picture's borders: what its rescaling makes of grey is nearly 0."""
    fitted = fit_image(np.full((60, 30, 3), 255, np.uint8), (64, 64))
    rescaling = next(layer for layer in unet_model((None, None, 3), 2, 2, depth=1).layers if "rescaling" in layer.name)
    seen = np.asarray(rescaling(fitted[None].astype(np.float32)))[0]
    assert np.abs(seen[:, :16]).max() < 0.01
    assert seen[32, 32].min() == 1


def test_a_picture_of_nearly_these_proportions_fills_the_size_and_others_do_not():
    assert fitted_box((480, 616), (96, 128)) == (0, 0, 96, 128)  # 4 % narrower: as 360x480 beside 720x960 cut by hand
    assert fitted_box((480, 600), (96, 128)) == (0, 4, 96, 124)  # 7 %
    assert fitted_box((100, 100), (96, 128)) == (0, 16, 96, 112)


def test_a_very_long_picture_still_has_two_rows():
    """One of an answer of half the size."""
    picture = np.full((1, 400, 3), 200, np.uint8)
    fitted = fit_image(picture, (48, 64))
    assert (fitted == 200).all(axis=(1, 2)).sum() == 2
    assert (fit_mask(np.ones((1, 400, 1), np.uint8), (48, 64), (48, 64)) == 1).sum() == 2 * 64


def test_shrunk_pixels_are_rounded():
    """Else all pictures would be darker in training than they are, by half a step."""
    chess = np.indices((8, 8)).sum(0)[..., None] % 2 * np.uint8([1, 3, 255])
    shrunk = resize_image(np.uint8(chess), (4, 4)).numpy()[1:3, 1:3].reshape(-1, 3)
    np.testing.assert_allclose(shrunk, [[0.5, 1.5, 127.5]] * 4, atol=0.5)
    assert (resize_image(np.uint8([[[10], [13]]] * 2).repeat(3, -1), (2, 3)).numpy()[0, :, 0] >= [10, 11, 13]).all()
    ramp = np.arange(0, 200, 10, np.uint8)[None, :, None].repeat(3, -1).repeat(2, 0)
    enlarged = resize_image(ramp, (2, 60)).numpy()[0, 1:-1, 0]  # between the first and the last centre
    exact = (np.arange(60) + 0.5) / 3 * 10 - 5
    np.testing.assert_allclose(enlarged, exact[1:-1].round(), atol=1e-3)
