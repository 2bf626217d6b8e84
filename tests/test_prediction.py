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
from unet_helpers.networks import Network, save_network
from unet_helpers.pipeline import make_batches
from unet_helpers.prediction import predict_logits, predict_mask, predict_masks


@pytest.fixture(scope="module")
def bright():
    """A network that predicts class 1 where its 4x6 image is bright in red, else class 0."""
    inputs = keras.Input((4, 6, 3))
    logits = keras.layers.Conv2D(2, 1)
    model = keras.Model(inputs, logits(inputs))
    logits.set_weights([np.float32([[[[0, 1], [0, 0], [0, 0]]]]), np.float32([100, 0])])
    return model


@pytest.fixture(scope="module")
def trained():
    """A network with coarser logits that depend on distant pixels, and the statistics of a trained one."""
    keras.utils.set_random_seed(0)
    model = unet_model((None, None, 3), 4, 3, depth=2, half_resolution=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    for _ in range(20):
        model(images, training=True)
    return with_keras_layers_only(model)


def recorder(shape):
    """A network that passes its input through, and the list of what arrives there."""
    inputs = keras.Input(shape)
    seen = []

    class Recorder(keras.Model):
        def predict_on_batch(self, x):
            seen.append(np.asarray(x))
            return super().predict_on_batch(x)

    return Recorder(inputs, keras.layers.Identity()(inputs)), seen


def noise(height, width, seed=1):
    """An image with coarse and fine structure, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 200, (-(-height // 8), -(-width // 8), 3)), np.ones((8, 8, 1), int))
    return (coarse[:height, :width] + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def test_the_flipped_image_is_averaged_unless_without_tta():
    """Columns count: class 1 wherever the network sees the left edge, unless the flipped image's logits outvote it."""
    inputs = keras.Input((4, 6, 3))
    edge = np.zeros((1, 1, 6, 2), np.float32)
    edge[..., 0, 1], edge[..., 1, 0] = 3, 1
    model = keras.Model(inputs, keras.ops.zeros_like(inputs[..., :2]) + edge)
    images = np.zeros((2, 4, 6, 3), np.float32)
    for tta, expected in ((False, [1, 0, 0, 0, 0, 0]), (True, [1, 0, 0, 0, 0, 1])):
        assert predict_masks(model, images, tta=tta)[0, 0].tolist() == expected
        assert predict_mask(model, images[0].astype(np.uint8), tta=tta)[0].tolist() == expected
    np.testing.assert_allclose(predict_logits(model, images, tta=True)[0, 0, :, 1], [1.5, 0, 0, 0, 0, 1.5])
    np.testing.assert_allclose(predict_logits(model, images)[0, 0, :, 1], [3, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("own_size", [(32, 48), (17, 90)])
def test_prediction_training_and_scores_see_the_same_image(own_size, write_pair, labels):
    pair = write_pair(size=own_size)
    model, seen = recorder((16, 24, 3))
    predict_mask(model, pair.image)
    evaluate_model(model, [pair], labels, (16, 24))
    images, _ = next(iter(make_batches([pair], labels, (16, 24), 1)))
    for number in (0, 2):
        np.testing.assert_array_equal(seen[number], images)
        np.testing.assert_array_equal(seen[number + 1], images[:, :, ::-1])


def test_the_size_that_is_given_goes_before_that_of_the_training(labels, tmp_path):
    model, seen = recorder((None, None, 3))
    predict_mask(Network(model, labels, (48, 64)), noise(100, 100), (32, 32), tta=False)
    predict_mask(Network(model, labels, (48, 64)), noise(100, 100), tta=False)
    assert [batch.shape for batch in seen] == [(1, 32, 32, 3), (1, 48, 64, 3)]
    with pytest.raises(ValueError, match="image_size: .*found .*None, None"):
        predict_mask(model, noise(40, 60))
    save_network(tmp_path / "n.keras", with_keras_layers_only(model), labels, (16, 24))  # a file is enough
    expected = predict_mask(model, noise(40, 60), (16, 24))
    np.testing.assert_array_equal(predict_mask(str(tmp_path / "n.keras"), noise(40, 60)), expected)


def test_a_size_that_does_not_fit_is_named(trained, bright):
    image = np.zeros((40, 60, 3), np.uint8)
    assert predict_mask(trained, image, (32, 64)).shape == (40, 60)
    for model, size, said in (
        (trained, (32, 33), "multiples of"), (trained, (0, 32), ""), (trained, 32, "whole numbers"),
        (trained, (32, 32, 3), "whole numbers"), (bright, (32, 32), r"\(4, 6\)"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"image_size: .*{said}"):
            predict_mask(model, image, size)


def test_bad_images_are_named(bright):
    """Numbers from 0 to 1, an alpha channel, nothing: each would get some mask."""
    for shape, dtype in (((4, 6), np.uint8), ((4, 6, 3), np.float32), ((4, 6, 4), np.uint8), ((0, 6, 3), np.uint8)):
        found = re.escape(f"{shape} {np.dtype(dtype)}")
        with pytest.raises(ValueError, match=rf"image: expected an \(H, W, 3\) uint8 RGB array, found {found}"):
            predict_mask(bright, np.ones(shape, dtype))


def test_an_image_of_the_trainings_proportions_is_enlarged_once(trained, monkeypatch):
    """One interpolation of the logits from the network's size to the image's, whole and in strips."""
    image = noise(90, 120)
    seen = resize_image(image, (48, 64)).numpy()[None]
    logits = trained.predict_on_batch(seen)
    expected = tf.argmax(tf.image.resize(logits, (90, 120)), axis=-1)[0]
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(predict_mask(trained, image, (48, 64), tta=False), expected)
    both = (logits + trained.predict_on_batch(seen[:, :, ::-1])[:, :, ::-1]) / 2
    both = tf.image.resize(both, (90, 120))[0]
    monkeypatch.setattr(prediction, "STRIP", 1000)
    mask, confidence = predict_mask(trained, image, (48, 64), confidence=True)
    np.testing.assert_array_equal(mask, tf.argmax(both, axis=-1))
    np.testing.assert_allclose(confidence, tf.reduce_max(tf.nn.softmax(both), axis=-1), atol=1e-5)
    assert (mask.dtype, confidence.dtype) == (np.uint8, np.float32)


@pytest.mark.parametrize(("height", "width", "box"), [(44, 32, (0, 14, 48, 48)), (20, 400, (22, 0, 26, 64))])
def test_a_letterboxed_image_is_predicted_from_the_logits_that_lie_on_it(trained, height, width, box):
    """Letterboxed by hand, the network's coarser logits read between its pixels with np.interp."""
    (top, left, bottom, right), image = box, noise(height, width)
    whole = np.full((1, 48, 64, 3), GREY, np.float32)
    whole[0, top:bottom, left:right] = resize_image(image, (bottom - top, right - left))
    logits = trained.predict_on_batch(whole)[0]
    rows = ((np.arange(height) + 0.5) * (bottom - top) / height + top) / 2 - 0.5
    columns = ((np.arange(width) + 0.5) * (right - left) / width + left) / 2 - 0.5
    logits = np.apply_along_axis(lambda line: np.interp(rows, np.arange(24), line), 0, logits)
    logits = np.apply_along_axis(lambda line: np.interp(columns, np.arange(32), line), 1, logits)
    assert len(np.unique(logits.argmax(axis=-1))) > 1
    np.testing.assert_array_equal(predict_mask(trained, image, (48, 64), tta=False), logits.argmax(axis=-1))


def test_an_image_brighter_than_any_in_training_is_white(tmp_path):
    """Of 16 bits, those that were in use in training are taken."""
    Image.fromarray(np.tile(np.uint16([0, 2048, 4095, 65535]), (4, 1))).save(tmp_path / "a.png")
    model, seen = recorder((4, 4, 3))
    predict_mask(Network(model, None, None, bits=12), tmp_path / "a.png", tta=False)
    assert seen[0][0, 0, :, 0].tolist() == [0, 128, 255, 255]
