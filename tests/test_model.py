import ast
import inspect

import keras
import numpy as np
import pytest

from unet_helpers import model as model_module
from unet_helpers.model import check_image_size, conv_block, unet_model, upsampling_block


def test_the_assignments_network():
    model = unet_model((96, 128, 3), 32, 23, normalization=None)
    assert model.count_params() == 8_640_471
    assert model.output_shape == (None, 96, 128, 23)


def test_the_papers_network():
    model = unet_model(
        (572, 572, 1), 64, 2, normalization=None, padding="valid", up_kernel_size=2, last_conv=False, dropout_prob=0
    )
    assert model.output_shape == (None, 388, 388, 2)
    assert model.count_params() == 31_030_658
    convolutions = [n for n in model.layers if isinstance(n, (keras.layers.Conv2D, keras.layers.Conv2DTranspose))]
    assert len(convolutions) == 23


def test_conv_block_halves_and_keeps_the_skip_connection():
    inputs = keras.Input((16, 24, 3))
    following, skip = conv_block(inputs, 4, dropout_prob=0.3, normalization=None)
    assert (following.shape, skip.shape) == ((None, 8, 12, 4), (None, 16, 24, 4))
    assert keras.Model(inputs, following).count_params() == (3 * 9 + 1) * 4 + (4 * 9 + 1) * 4
    following, skip = conv_block(inputs, 4, max_pooling=False)
    assert following is skip


def test_upsampling_block_doubles_and_concatenates():
    below, skip = keras.Input((8, 12, 8)), keras.Input((16, 24, 4))
    x = upsampling_block(below, skip, 4, normalization=None)
    assert x.shape == (None, 16, 24, 4)
    up, first, second = (8 * 9 + 1) * 4, (8 * 9) * 4 + 4, (4 * 9 + 1) * 4
    assert keras.Model([below, skip], x).count_params() == up + first + second


def test_without_skip_connections_the_decoder_sees_only_the_level_below():
    with_skips = unet_model((32, 32, 3), 4, 3, depth=2)
    without = unet_model((32, 32, 3), 4, 3, depth=2, skip_connections=False)
    assert without.output_shape == with_skips.output_shape
    # Each of the two decoder levels has half the input channels in its first convolution.
    assert with_skips.count_params() - without.count_params() == 9 * (8 * 8 + 4 * 4)


def test_logits_are_linear():
    """A ReLU on the logits would keep a network from ever answering below 0, the fault of several public U-Nets."""
    model = unet_model((32, 32, 3), 4, 3, depth=2)
    logits = model.predict_on_batch(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)))
    assert logits.min() < 0 < logits.max()
    assert not np.allclose(logits.sum(axis=-1), 1)


def test_pictures_are_rescaled_once_inside():
    rescalings = [n for n in unet_model((32, 32, 3), 4, 3, depth=2).layers if isinstance(n, keras.layers.Rescaling)]
    assert len(rescalings) == 1
    np.testing.assert_allclose(rescalings[0](np.float32([0, 127.5, 255])), [-1, 0, 1])


@pytest.mark.parametrize("size", [(32, 48), (48, 80)])
def test_half_resolution_answers_at_half_the_pictures_size(size):
    """48/2 is not divisible by 16: the decoder must crop what pooling has rounded up."""
    model = unet_model((*size, 3), 2, 3, half_resolution=True)
    assert model.output_shape == (None, size[0] // 2, size[1] // 2, 3)
    full = unet_model((32, 48, 2), 2, 3)
    assert model.count_params() == full.count_params() + (9 * 3 + 1) * 2


def test_logits_stay_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = unet_model((32, 32, 3), 2, 3, depth=2, half_resolution=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == "float32"
    assert model.get_layer("logits").compute_dtype == "float32"


def test_a_network_for_any_size_answers_as_the_one_for_that_size():
    free, fixed = unet_model((None, None, 3), 2, 3, depth=2), unet_model((32, 48, 3), 2, 3, depth=2)
    fixed.set_weights(free.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3))
    np.testing.assert_allclose(free.predict_on_batch(image), fixed.predict_on_batch(image), atol=1e-5)


def test_bad_sizes_and_switches_are_named():
    with pytest.raises(ValueError, match=r"input_size: .* divisible by 16, .* found \(600, 800\); try .*\(608, 800\)"):
        unet_model((600, 800, 3))
    for wrong in ((96, 0), (96, -1), (96, 1 << 14), (96, 1.5), (96,), (96, 96, 3), "96", 96, None, ((1, 2), 3), {}):
        with pytest.raises(ValueError, match=r"size: height and width must be whole numbers from 1 to 8192, found"):
            check_image_size("size", wrong)
    for right in ([96, 128], (96, 128), np.array([96, 128]), (np.int32(96), 128)):
        assert check_image_size("size", right, step=32, least=64) == (96, 128)
    with pytest.raises(ValueError, match="normalization.*'group'"):
        unet_model((32, 32, 3), normalization="group")


def test_no_block_is_copied():
    """The blocks stand in two loops: one call of each in the source."""
    calls = [
        node.func.id
        for node in ast.walk(ast.parse(inspect.getsource(model_module.unet_model)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert calls.count("conv_block") == calls.count("upsampling_block") == 1
