import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from unet_helpers import prediction
from unet_helpers.evaluation import evaluate_model
from unet_helpers.images import GREY, resize_image
from unet_helpers.model import unet_model, with_keras_layers_only
from unet_helpers.networks import Network
from unet_helpers.pipeline import make_batches
from unet_helpers.prediction import (
    Piece,
    plan_tiles,
    predict_logits,
    predict_mask,
    predict_masks,
    stride_and_reach,
    write_prediction,
)


@pytest.fixture
def bright():
    """A network that answers class 1 where its 4x6 picture is bright in red, else class 0."""
    inputs = keras.Input((4, 6, 3))
    logits = keras.layers.Conv2D(2, 1)
    model = keras.Model(inputs, logits(inputs))
    logits.set_weights([np.float32([[[[0, 1], [0, 0], [0, 0]]]]), np.float32([100, 0])])
    return model


def recorder(shape):
    """A network that passes its input through, and the list of what arrives there."""
    inputs = keras.Input(shape)
    seen = []

    class Recorder(keras.Model):
        def predict_on_batch(self, x):
            seen.append(np.asarray(x))
            return super().predict_on_batch(x)

    return Recorder(inputs, keras.layers.Identity()(inputs)), seen


def random_network(depth=2, **options):
    """Answers that depend on far pixels: of a new network, but with the normalization of a trained one."""
    model = unet_model((None, None, 3), 4, 3, depth=depth, **options)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    for _ in range(20):
        model(images, training=True)
    return with_keras_layers_only(model)


def noise(height, width, seed=1):
    """A picture with coarse and fine structure, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 200, (-(-height // 8), -(-width // 8), 3)), np.ones((8, 8, 1), int))
    return (coarse[:height, :width] + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def test_the_mask_has_the_pictures_own_size(bright, tmp_path):
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[20:] = 200
    Image.fromarray(picture).save(tmp_path / "p.png")
    mask = predict_mask(bright, picture)
    assert (mask.shape, mask.dtype) == ((40, 60), np.uint8)
    assert mask[:18].max() == 0
    assert mask[22:].min() == 1
    np.testing.assert_array_equal(predict_mask(bright, tmp_path / "p.png"), mask)
    np.testing.assert_array_equal(predict_mask(bright, str(tmp_path / "p.png")), mask)


def test_enlarging_logits_puts_edges_between_pixels(bright):
    images = np.zeros((1, 4, 6, 3), np.float32)
    images[:, 2:] = 110  # just over the threshold, so the edge moves towards the bright side
    assert predict_masks(bright, images)[0, :, 0].sum() == 2
    piece = Piece(images[0], (0, 0, 16, 24), (4, 4))
    enlarged = write_prediction(piece, predict_logits(bright, images)[0], np.empty((16, 24), np.uint8))
    assert enlarged[:, 0].sum() < 8


def test_a_picture_and_its_mirror_image_are_both_asked():
    """Columns count: class 1 wherever the network sees the left edge, unless the mirrored answer outvotes it."""
    inputs = keras.Input((4, 6, 3))
    edge = np.zeros((1, 1, 6, 2), np.float32)
    edge[..., 0, 1], edge[..., 1, 0] = 3, 1
    model = keras.Model(inputs, keras.ops.zeros_like(inputs[..., :2]) + edge)
    images = np.zeros((2, 4, 6, 3), np.float32)
    assert predict_masks(model, images, tta=False)[0, 0].tolist() == [1, 0, 0, 0, 0, 0]
    assert predict_masks(model, images)[0, 0].tolist() == [1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("own_size", [(32, 48), (48, 32), (17, 90)])
def test_prediction_training_and_scores_see_the_same_picture(own_size, write_pair, labels):
    pair = write_pair(size=own_size)
    model, seen = recorder((16, 24, 3))
    predict_mask(model, pair.image)
    evaluate_model(model, [pair], labels, (16, 24))
    images, _ = next(iter(make_batches([pair], labels, (16, 24), 1)))
    for number in (0, 2):
        np.testing.assert_array_equal(seen[number], images)
        np.testing.assert_array_equal(seen[number + 1], images[:, :, ::-1])


def test_a_network_for_any_size_has_to_be_told_the_size(bright):
    inputs = keras.Input((None, None, 3))
    free = keras.Model(inputs, bright.layers[-1](inputs))
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    np.testing.assert_array_equal(predict_mask(free, picture, (4, 6)), predict_mask(bright, picture))
    with pytest.raises(ValueError, match="image_size: this network takes any size"):
        predict_mask(free, picture)


def test_bad_pictures_are_named(bright, tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: .*No such file"):
        predict_mask(bright, tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png: it can't be read as an image; save it anew as PNG"):
        predict_mask(bright, tmp_path / "text.png")
    with pytest.raises(ValueError, match=r"expected an \(H, W, 3\) uint8 RGB array, found \(4, 6\) uint8"):
        predict_mask(bright, np.zeros((4, 6), np.uint8))
    for shape, dtype in (((4, 6, 3), np.float32), ((4, 6, 4), np.uint8), ((0, 6, 3), np.uint8), ((4, 6, 3), np.uint16)):
        # numbers from 0 to 1, an alpha channel, nothing: each would get some answer
        found = re.escape(f"{shape} {np.dtype(dtype)}")
        with pytest.raises(ValueError, match=rf"image: expected an \(H, W, 3\) uint8 RGB array, found {found}"):
            predict_mask(bright, np.ones(shape, dtype))


@pytest.mark.parametrize("size", [(40, 64), (32, 33), (0, 32), (32, 32, 3), 32])
def test_a_size_that_does_not_fit_is_named(size):
    network = unet_model((None, None, 3), 2, 3, depth=4)
    picture = np.zeros((40, 60, 3), np.uint8)
    assert predict_mask(network, picture, (32, 64)).shape == (40, 60)
    with pytest.raises(ValueError, match=r"image_size: (found .*multiples of 32|.* must be whole numbers)"):
        predict_mask(network, picture, size)


def test_the_size_that_is_asked_for_goes_before_that_of_the_training(labels):
    model, seen = recorder((None, None, 3))
    network, picture = Network(model, labels, (48, 64)), noise(100, 100)
    for size, options in (((32, 32), {}), ((16, 24), {"tiles": True, "margin": 4})):
        predict_mask(network, picture, size, **options)
        assert {batch.shape for batch in seen} == {(1, *size, 3)}
        seen.clear()
    predict_mask(network, picture)
    assert {batch.shape for batch in seen} == {(1, 48, 64, 3)}


def test_a_network_of_one_size_takes_no_other(bright):
    with pytest.raises(ValueError, match=r"image_size: found \(8, 6\), but this network takes pictures of \(4, 6\)"):
        predict_mask(bright, np.zeros((40, 60, 3), np.uint8), (8, 6))


# ---- any proportions ----


@pytest.mark.parametrize("half", [False, True])
def test_a_picture_of_the_trainings_proportions_is_answered_as_always(half, monkeypatch):
    """One stretch of logits from the network's size to the picture's, whole and in strips."""
    network, picture = random_network(half_resolution=half), noise(90, 120)
    logits = network.predict_on_batch(resize_image(picture, (48, 64))[None])
    expected = tf.argmax(tf.image.resize(logits, (90, 120)), axis=-1)[0]
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(predict_mask(network, picture, (48, 64), tta=False), expected)
    both = (logits + predict_logits(network, resize_image(picture, (48, 64))[None], flipped=True)) / 2
    both = tf.argmax(tf.image.resize(both, (90, 120)), axis=-1)[0]
    monkeypatch.setattr(prediction, "STRIP", 1000)
    np.testing.assert_array_equal(predict_mask(network, picture, (48, 64)), both)


@pytest.mark.parametrize("size", [(90, 60), (20, 400), (300, 10), (7, 5)])
def test_a_picture_keeps_its_proportions_and_its_place(size):
    """A disc stays a disc on its way into the network, grey beside it; and what comes back lies where it was."""
    model, seen = recorder((48, 64, 3))
    height, width = size
    rows, columns = np.ogrid[:height, :width]
    radius = min(size) / 3
    disc = (rows - height / 2 + 0.5) ** 2 + (columns - width / 2 + 0.5) ** 2 <= radius**2
    picture = np.where(disc[..., None], np.uint8([0, 250, 0]), np.uint8([250, 0, 0]))
    mask = predict_mask(model, picture)
    assert mask.shape == size
    edge = 2 * max(height / 48, width / 64, 1)  # of the picture, a pixel or two of the network's
    inner = (rows - height / 2 + 0.5) ** 2 + (columns - width / 2 + 0.5) ** 2 <= max(0, radius - edge) ** 2
    outer = (rows - height / 2 + 0.5) ** 2 + (columns - width / 2 + 0.5) ** 2 >= (radius + edge) ** 2
    assert (mask[inner] == 1).all()
    assert (mask[outer] == 0).all()
    assert [image.shape for image in seen] == [(1, 48, 64, 3)] * 2
    grey = (seen[0][0] == GREY).all(axis=-1)
    fitted = np.array(size) * min(48 / height, 64 / width)
    assert np.sqrt((~grey).sum()) == pytest.approx(np.sqrt(fitted.prod()), abs=2)
    if min(fitted) > 20:
        green = seen[0][0, ..., 1] > 125.5
        green &= ~grey
        assert np.ptp(np.flatnonzero(green.any(0))) == pytest.approx(np.ptp(np.flatnonzero(green.any(1))), abs=1)


def test_a_padded_picture_is_answered_by_the_part_of_the_answer_that_lies_on_it():
    """Put into grey by hand, the network's coarser answer read between its pixels with np.interp."""
    network, picture = random_network(half_resolution=True), noise(44, 32)
    whole = np.full((1, 48, 64, 3), GREY, np.float32)
    whole[0, :, 14:48] = resize_image(picture, (48, 34))
    logits = network.predict_on_batch(whole)[0]
    rows = (np.arange(44) + 0.5) * 48 / 44 / 2 - 0.5
    columns = ((np.arange(32) + 0.5) * 34 / 32 + 14) / 2 - 0.5
    logits = np.apply_along_axis(lambda line: np.interp(rows, np.arange(24), line), 0, logits)
    logits = np.apply_along_axis(lambda line: np.interp(columns, np.arange(32), line), 1, logits)
    assert len(np.unique(logits.argmax(axis=-1))) > 1
    np.testing.assert_array_equal(predict_mask(network, picture, (48, 64), tta=False), logits.argmax(axis=-1))


# ---- tiles ----


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("mirror", [False, True])
def test_tiles_answer_as_the_whole_picture_does_away_from_its_borders(half, mirror):
    network = random_network(half_resolution=half)
    stride, reach = stride_and_reach(network)
    assert stride == (8 if half else 4)
    picture = noise(stride * 40, stride * 44)
    (height, width), margin = plan_tiles(network, None, None)
    seams = height - 2 * margin, width - 2 * margin
    assert all(reach < seam < side - reach for seam, side in zip(seams, picture.shape, strict=False))
    whole, certain = predict_mask(network, picture, picture.shape[:2], mirror=mirror, confidence=True)
    mask, confidence = predict_mask(network, picture, tiles=True, mirror=mirror, confidence=True)
    inner = np.s_[reach:-reach, reach:-reach]
    assert len(np.unique(whole[inner])) > 1
    np.testing.assert_allclose(confidence[inner], certain[inner], atol=1e-5)
    np.testing.assert_array_equal(mask[inner], whole[inner])
    assert np.abs(confidence - certain).max() > 1e-3  # at the border there is the mirrored picture, not zeros


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_reach_is_as_far_as_a_pixel_is_seen(half, depth):
    """The picture is 0 after the rescaling but for one pixel, all filters are above 0: what sees it is above 0, too."""
    network = unet_model((None, None, 3), 2, 3, depth=depth, half_resolution=half, normalization=None)
    network.set_weights([np.abs(weight) for weight in network.get_weights()])
    stride, reach = stride_and_reach(network)
    assert stride == 2 ** (depth + half)
    size = -(-3 * reach // stride) * stride
    seen = 0
    for row in range(size // 2, size // 2 + stride):
        image = np.full((1, size, size, 3), 127.5, np.float32)
        image[0, row, row] = 255
        answer = tf.image.resize(network.predict_on_batch(image), (size, size))[0].numpy()
        seen = max(seen, *np.abs(np.flatnonzero(answer.any(axis=(1, 2)))[[0, -1]] - row))
    assert seen == reach


def layers_between(*between):
    """A network of these layers, each with numbers above 0, between its pictures and its one class."""
    outputs = inputs = keras.Input((None, None, 3))
    for layer in [*between, keras.layers.Conv2D(1, 1)]:
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    model.set_weights([np.abs(weight) + 0.1 for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(("stride", "between"), [
    (1, lambda: [keras.layers.Conv2D(2, 3, padding="same", dilation_rate=4)]),
    (1, lambda: [keras.layers.DepthwiseConv2D(5, padding="same"), keras.layers.Conv2D(2, (3, 7), padding="same")]),
    (4, lambda: [keras.layers.AveragePooling2D(4), keras.layers.UpSampling2D(4)]),
    (2, lambda: [layer(2) for layer in 2 * (keras.layers.AveragePooling2D, keras.layers.UpSampling2D)]),
    (2, lambda: [keras.layers.Conv2D(2, 3, strides=2, padding="same"), keras.layers.UpSampling2D(2)]),
    (2, lambda: [keras.layers.Conv2D(2, 3, strides=2, padding="same")]),  # a coarser answer
    (2, lambda: [keras.layers.AveragePooling2D(2), keras.layers.UpSampling2D(2, interpolation="bilinear")]),
    (4, lambda: [layers_between(keras.layers.AveragePooling2D(2)), keras.layers.AveragePooling2D(2)]),
])  # fmt: skip
def test_networks_of_other_layers_never_look_farther_than_the_reach(stride, between):
    """Dilated, by depth, enlarged by copies or bilinearly, one network within another."""
    network = layers_between(*between())
    found, reach = stride_and_reach(network)
    assert found == stride
    size, seen = 64, 0
    for row in range(size // 2, size // 2 + stride):
        image = np.zeros((1, size, size, 3), np.float32)
        quiet = network.predict_on_batch(image)
        image[0, row, row] = 255
        answer = tf.image.resize(network.predict_on_batch(image) - quiet, (size, size))[0].numpy()
        seen = max(seen, *np.abs(np.flatnonzero(answer.any(axis=(1, 2)))[[0, -1]] - row))
        seen = max(seen, *np.abs(np.flatnonzero(answer.any(axis=(0, 2)))[[0, -1]] - row))
    assert 0 < seen <= reach <= seen + 2 * stride


def test_memory_of_tiles_is_bounded_by_the_tile():
    for size, options, largest in (
        ((70, 300), {"image_size": (16, 24), "margin": 4}, 16 * 24),
        ((700, 300), {"image_size": (64, 64), "margin": 4}, 64 * 64),
        ((3, 5), {"image_size": (16, 16), "margin": 4}, 16 * 16),
    ):
        model, seen = recorder((None, None, 3))
        picture = noise(*size)
        mask = predict_mask(model, picture, tiles=True, **options)
        np.testing.assert_array_equal(mask, picture.argmax(axis=-1))  # each pixel once, in its place
        assert max(batch[..., 0].size for batch in seen) == largest


def test_beyond_the_border_tiles_show_the_picture_mirrored():
    model, seen = recorder((None, None, 3))
    picture = noise(8, 12)
    predict_mask(model, picture, (16, 20), tiles=True, margin=4, tta=False)
    np.testing.assert_array_equal(seen[0][0], np.pad(picture, ((4, 4), (4, 4), (0, 0)), mode="symmetric"))


def test_tiles_take_their_size_from_the_network(labels):
    """As large as it was trained with, or large enough for its margins; a network of one size gets that."""
    model, seen = recorder((None, None, 3))
    predict_mask(Network(model, labels, (48, 64)), noise(100, 100), tiles=True)
    assert {batch.shape for batch in seen} == {(1, 48, 64, 3)}
    network = random_network()
    stride, reach = stride_and_reach(network)
    side = 4 * -(-reach // stride) * stride
    assert plan_tiles(network, None, None, (16, 16)) == ((side, side), side // 4)
    assert plan_tiles(network, (16, 32), None) == ((16, 32), 4)  # as much as there is room for
    assert plan_tiles(network, (128, 128), 5) == ((128, 128), 8)
    fixed = unet_model((32, 48, 3), 2, 3, depth=1)
    assert predict_mask(fixed, noise(70, 50), tiles=True).shape == (70, 50)


def test_tiles_that_do_not_fit_are_named():
    network = random_network()
    picture = noise(20, 20)
    for options, message in (
        ({"image_size": (16, 18)}, r"image_size: found \(16, 18\), expected tiles of multiples of 4"),
        ({"image_size": (16, 16), "margin": 8}, "margin: found 8, expected at most 4"),
        ({"margin": -1}, "margin: found -1"),
        ({"margin": 4.5}, r"margin: found 4\.5, expected a whole number of pixels"),
        ({"margin": 4, "tiles": False, "image_size": (16, 16)}, "margin: found 4 without tiles"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_mask(network, picture, **{"tiles": True} | options)
    unpadded = unet_model((44, 44, 3), 2, 3, depth=1, padding="valid")
    with pytest.raises(ValueError, match=r"tiles: the network answers \(\d+, \d+\) for a tile of \(44, 44\)"):
        predict_mask(unpadded, picture, tiles=True)


# ---- confidence ----


def test_confidence_is_the_answered_classes_share_of_the_softmax(bright):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = [98, 99, 100, 101, 103, 200]
    mask, confidence = predict_mask(bright, picture, confidence=True)
    assert (mask.shape, mask.dtype, confidence.shape, confidence.dtype) == ((4, 6), np.uint8, (4, 6), np.float32)
    logistic = 1 / (1 + np.exp(-np.abs(np.float64([98, 99, 100, 101, 103, 200]) - 100)))
    np.testing.assert_allclose(confidence, np.tile(logistic, (4, 1)), atol=1e-6)
    np.testing.assert_array_equal(mask, predict_mask(bright, picture))
    assert mask[0].tolist() == [0, 0, 0, 1, 1, 1]
