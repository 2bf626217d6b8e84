import keras
import numpy as np
import pytest
from PIL import Image

from unet_helpers.model import unet_model
from unet_helpers.pipeline import make_batches
from unet_helpers.prediction import predict_mask, predict_masks


@pytest.fixture
def bright():
    """A network that answers class 1 where its 4x6 picture is bright in red, else class 0."""
    inputs = keras.Input((4, 6, 3))
    logits = keras.layers.Conv2D(2, 1)
    model = keras.Model(inputs, logits(inputs))
    logits.set_weights([np.float32([[[[0, 1], [0, 0], [0, 0]]]]), np.float32([100, 0])])
    return model


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
    assert predict_masks(bright, images, (16, 24))[0, :, 0].sum() < 8
    assert predict_masks(bright, images).shape == (1, 4, 6)


def test_a_picture_and_its_mirror_image_are_both_asked():
    """Columns count: class 1 wherever the network sees the left edge, unless the mirrored answer outvotes it."""
    inputs = keras.Input((4, 6, 3))
    edge = np.zeros((1, 1, 6, 2), np.float32)
    edge[..., 0, 1], edge[..., 1, 0] = 3, 1
    model = keras.Model(inputs, keras.ops.zeros_like(inputs[..., :2]) + edge)
    images = np.zeros((2, 4, 6, 3), np.float32)
    assert predict_masks(model, images, mirror=False)[0, 0].tolist() == [1, 0, 0, 0, 0, 0]
    assert predict_masks(model, images)[0, 0].tolist() == [1, 0, 0, 0, 0, 1]


def test_prediction_and_training_see_the_same_picture(write_pair, labels):
    """A network that passes its input through shows what arrives there."""
    pair = write_pair()
    inputs = keras.Input((16, 24, 3))
    seen = []

    class Recorder(keras.Model):
        def predict_on_batch(self, x):
            seen.append(np.asarray(x))
            return super().predict_on_batch(x)

    predict_mask(Recorder(inputs, keras.layers.Identity()(inputs)), pair.image)
    images, _ = next(iter(make_batches([pair], labels, (16, 24), 1)))
    np.testing.assert_array_equal(seen[0], images)
    np.testing.assert_array_equal(seen[1], images[:, :, ::-1])


def test_a_network_for_any_size_has_to_be_told_the_size(bright):
    inputs = keras.Input((None, None, 3))
    free = keras.Model(inputs, bright.layers[-1](inputs))
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    np.testing.assert_array_equal(predict_mask(free, picture, (4, 6)), predict_mask(bright, picture))
    with pytest.raises(ValueError, match="image_size: this network takes any size"):
        predict_mask(free, picture)


def test_bad_pictures_are_named(bright, tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*none\.png"):
        predict_mask(bright, tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png: can't be read"):
        predict_mask(bright, tmp_path / "text.png")
    with pytest.raises(ValueError, match=r"expected an \(H, W, 3\) uint8 RGB array, found \(4, 6\) uint8"):
        predict_mask(bright, np.zeros((4, 6), np.uint8))


@pytest.mark.parametrize("size", [(40, 64), (32, 33), (0, 32), (32, 32, 3), 32])
def test_a_size_that_does_not_fit_is_named(size):
    network = unet_model((None, None, 3), 2, 3, depth=4)
    picture = np.zeros((40, 60, 3), np.uint8)
    assert predict_mask(network, picture, (32, 64)).shape == (40, 60)
    with pytest.raises(ValueError, match=r"image_size: found .*multiples of 32"):
        predict_mask(network, picture, size)


def test_a_network_of_one_size_takes_no_other(bright):
    with pytest.raises(ValueError, match=r"image_size: found \(8, 6\), but this network takes pictures of \(4, 6\)"):
        predict_mask(bright, np.zeros((40, 60, 3), np.uint8), (8, 6))
