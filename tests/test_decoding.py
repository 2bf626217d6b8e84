import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from unet_helpers.images import (
    GREY,
    decode_mask,
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


def test_ids_in_the_red_channel_are_read_too(tmp_path, labels):
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[..., 0] = [[0, 1], [2, 255]]
    tf.io.write_file(str(tmp_path / "m.png"), tf.io.encode_png(rgb))
    assert decode_mask(str(tmp_path / "m.png"), labels).numpy()[..., 0].tolist() == [[0, 1], [2, 255]]


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
        picture, ids = np.asarray(Image.open(pair.image)), decode_mask(str(pair.mask), labels)
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
