import numpy as np
import pytest
import tensorflow as tf
from fuzzing_files import save, write_png
from PIL import Image, ImageOps

from unet_helpers import images
from unet_helpers.images import GREY, ORIENTATION, decode_image, decode_mask, fit_image, fit_mask, fitted_box
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
    assert set(np.unique(images.resize_mask(tf.constant(values[..., None]), (13, 17)))) <= {0, 2}


def test_void_values_of_the_file_become_255(write_pair, labels):
    _, mask = next(iter(make_batches([write_pair(values=np.uint8([[0, 1], [3, 255]]))], labels, (2, 2), 1)))
    assert mask.numpy()[0, ..., 0].tolist() == [[0, 1], [VOID, VOID]]


def test_shrinking_averages_pixels_and_rounds_them():
    """Else all images would be darker in training than they are, by half a step."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::4] = 200  # without antialiasing only two of four columns would be looked at, both black
    shrunk = images.resize_image(tf.constant(stripes), (8, 8)).numpy()
    assert shrunk.dtype == np.uint8
    assert 30 <= shrunk[4, 4, 0] <= 70
    chess = np.indices((8, 8)).sum(0)[..., None] % 2 * np.uint8([1, 3, 255])
    shrunk = images.resize_image(np.uint8(chess), (4, 4)).numpy()[1:3, 1:3].reshape(-1, 3)
    np.testing.assert_allclose(shrunk, [[0.5, 1.5, 127.5]] * 4, atol=0.5)
    enlarged = images.resize_image(np.uint8([[[10], [13]]] * 2).repeat(3, -1), (2, 3)).numpy()
    assert (enlarged[0, :, 0] >= [10, 11, 13]).all()
    ramp = np.arange(0, 200, 10, np.uint8)[None, :, None].repeat(3, -1).repeat(2, 0)
    enlarged = images.resize_image(ramp, (2, 60)).numpy()[0, 1:-1, 0]  # between the first and the last centre
    exact = (np.arange(60) + 0.5) / 3 * 10 - 5
    np.testing.assert_allclose(enlarged, exact[1:-1].round(), atol=1e-3)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


PNGS = {  # kinds of PNG: how noise is made one
    "RGB": save, "RGBA": lambda pixels: save(np.dstack([pixels, pixels[..., 0]])), "grey": lambda p: save(p[..., 0]),
    "grey with alpha": lambda pixels: save(pixels, mode="LA"), "palette": lambda pixels: save(pixels, mode="P"),
    "1 bit": lambda pixels: save(pixels, mode="1"), "4 bits": lambda pixels: write_png(pixels[..., :1] // 16, 4, 0),
    "interlaced": lambda pixels: write_png(pixels, interlaced=True),
}  # fmt: skip


@pytest.mark.parametrize("kind", PNGS)
def test_a_png_has_the_pixels_and_ids_that_tensorflow_decodes(tmp_path, labels, kind):
    content = PNGS[kind](noise(20, 30))
    (tmp_path / "a.png").write_bytes(content)
    expected = tf.io.decode_png(content, channels=3).numpy()
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), expected)
    if kind in ("RGB", "RGBA", "grey"):
        ids = decode_mask(tmp_path / "a.png", labels)
        assert (ids.dtype, ids.shape, len(np.unique(ids))) == (np.uint8, (20, 30, 1), 4)
        np.testing.assert_array_equal(ids[..., 0], np.where(expected[..., 0] < 3, expected[..., 0], VOID))


def test_files_of_other_kinds_are_8_bit_rgb_too(tmp_path):
    """A JPEG has nearly the pixels that TensorFlow decodes exactly."""
    image = np.uint8(128 + 100 * np.sin(np.indices((48, 64)).sum(0) / 9))[..., None] + np.uint8([0, 9, 20])
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=90)
    exact = tf.io.decode_jpeg((tmp_path / "a.jpg").read_bytes(), dct_method="INTEGER_ACCURATE")
    assert np.abs(decode_image(tmp_path / "a.jpg").astype(int) - exact).max() <= 2
    pixels = noise(20, 30)
    grey = pixels[..., 0]
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.tiff")
    (tmp_path / "rgb.png").write_bytes(write_png(pixels.astype(np.uint16) << 8 | 77, 16))
    Image.fromarray(grey.astype(np.uint16) << 8 | 77).save(tmp_path / "deep.png")
    Image.fromarray(grey.astype(np.uint16) << 4 | 7).save(tmp_path / "deep.tiff")  # 12 of 16 bits
    for name in ("cmyk.tiff", "rgb.png"):
        np.testing.assert_array_equal(decode_image(tmp_path / name), pixels, name)
    for name in ("deep.png", "deep.tiff"):
        np.testing.assert_array_equal(decode_image(tmp_path / name), np.repeat(grey[..., None], 3, axis=2), name)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_images_and_masks_are_turned_upright_as_a_viewer_shows_them(tmp_path, labels, suffix):
    path = tmp_path / f"p{suffix}"
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        Image.fromarray(noise(20, 30)).save(path, exif=exif)
        with Image.open(path) as image:
            upright = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(decode_image(path), upright)
        assert images.examine_image(path).stored == (20, 30)
        if suffix == ".png":
            ids = np.where(upright[..., :1] < 3, upright[..., :1], VOID)
            np.testing.assert_array_equal(decode_mask(path, labels), ids)


@pytest.mark.parametrize("content", [None, "half"])
def test_a_file_that_can_not_be_read_is_named(tmp_path, labels, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(save(noise(20, 30))[:900] if content == "half" else content)
    for decode in (decode_image, lambda path: decode_mask(path, labels)):
        with pytest.raises(ValueError, match=r"a\.png: it can't be read as an image"):
            decode(str(path))


def test_an_image_of_nearly_these_proportions_fills_the_size_and_others_do_not():
    rng = np.random.default_rng(0)
    for own_size, size, half in (((96, 128), (24, 32), (12, 16)), ((60, 81), (48, 64), (24, 32))):
        image, mask = (rng.integers(0, 256, (*own_size, n), np.uint8) for n in (3, 1))
        np.testing.assert_array_equal(fit_image(image, size), images.resize_image(image, size))
        np.testing.assert_array_equal(fit_mask(mask, size, size), images.resize_mask(mask, size))
        np.testing.assert_array_equal(fit_mask(mask, half, size), images.resize_mask(mask, half))
    assert fitted_box((480, 616), (96, 128)) == (0, 0, 96, 128)  # 4 % narrower: as 360x480 beside 720x960 cut by hand
    assert fitted_box((480, 600), (96, 128)) == (0, 4, 96, 124)  # 7 %
    assert fitted_box((100, 100), (96, 128)) == (0, 16, 96, 112)


@pytest.mark.parametrize(
    ("own_size", "half"),
    [((90, 60), False), ((60, 90), True), ((20, 400), False), ((300, 10), True), ((57, 131), False), ((57, 131), True)],
)
def test_a_disc_stays_a_disc_under_its_mask(own_size, half):
    """The fitted mask marks the disc in the fitted image, to half a pixel; grey is void, and nothing else is."""
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


def test_batches_of_images_of_all_sizes_keep_their_proportions(write_pair, labels):
    sizes = [(30, 40), (40, 30), (12, 60)]
    pairs = [write_pair(stem=str(n), size=size) for n, size in enumerate(sizes)]
    batch, masks = next(iter(make_batches(pairs, labels, (48, 64), 3, mask_size=(24, 32))))
    for image, mask, pair in zip(batch.numpy(), masks.numpy(), pairs, strict=True):
        np.testing.assert_array_equal(image, fit_image(np.asarray(Image.open(pair.image)), (48, 64)))
        np.testing.assert_array_equal(mask, fit_mask(decode_mask(pair.mask, labels), (24, 32), (48, 64)))
    assert [(mask == VOID).mean() > 0.1 for mask in masks.numpy()] == [False, True, True]


def test_padding_is_nothing_to_the_network():
    """As much as the zeros beyond the image's borders: what its rescaling makes of grey is nearly 0."""
    fitted = fit_image(np.full((60, 30, 3), 255, np.uint8), (64, 64))
    rescaling = next(layer for layer in unet_model((None, None, 3), 2, 2, depth=1).layers if "rescaling" in layer.name)
    seen = np.asarray(rescaling(fitted[None].astype(np.float32)))[0]
    assert np.abs(seen[:, :16]).max() < 0.01
    assert seen[32, 32].min() == 1


def test_a_very_long_image_still_has_two_rows():
    """One of a prediction of half the size."""
    fitted = fit_image(np.full((1, 400, 3), 200, np.uint8), (48, 64))
    assert (fitted == 200).all(axis=(1, 2)).sum() == 2
    assert (fit_mask(np.ones((1, 400, 1), np.uint8), (48, 64), (48, 64)) == 1).sum() == 2 * 64
