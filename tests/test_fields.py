import random

import keras
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from unet_helpers.model import unet_model
from unet_helpers.plots.fields import show_feature_maps, show_receptive_fields
from unet_helpers.plots.levels import receptive_fields, unet_levels


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return unet_model((32, 48, 3), 4, 3, depth=2)


def squares(figure) -> list:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]


@pytest.mark.parametrize("point", [None, (5, 40)])
def test_the_squares_have_the_sides_of_the_receptive_fields_around_the_point(model, image, point):
    figure = show_receptive_fields(model, image, point=point)
    fields = receptive_fields(model)
    assert [(square.get_width(), square.get_height()) for square in reversed(squares(figure))] == [
        (side, side) for side in fields.values()
    ]
    for square in squares(figure):
        assert square.get_center()[::-1] == pytest.approx(point or (16, 24))
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels == [f"{name}: {side} px" for name, side in reversed(fields.items())]
    assert "level 1 5 pixels, level 2 14 pixels, bottom 32 pixels" in figure.alt


def test_each_label_is_tied_to_its_square_by_one_colour_of_its_own(model, image):
    axes = show_receptive_fields(model, image).axes[0]
    colors = [square.get_edgecolor() for square in squares(axes.figure)]
    assert len(set(colors)) == len(colors)
    for square, line, text in zip(squares(axes.figure), axes.lines, axes.texts, strict=True):
        assert square.get_edgecolor() == to_rgba(line.get_color())
        (x0, x1), (y0, y1) = line.get_data()
        assert (x0, y0) == (square.get_x() + square.get_width(), square.get_y())
        assert y1 == text.get_position()[1]
        assert x1 < text.get_position()[0]


def test_all_squares_and_labels_are_inside_the_figure(image):
    for depth in (1, 5):
        model = unet_model((None, None, 3), 2, 3, depth=depth)
        figure = show_receptive_fields(model, image, (64, 96), point=(60, 2))
        figure.draw_without_rendering()
        axes = figure.axes[0]
        shown = [patch.get_window_extent() for patch in axes.patches]
        texts = [text.get_window_extent() for text in axes.texts]
        assert all(figure.bbox.contains(*corner) for box in (*shown, *texts) for corner in (box.min, box.max))
        assert not any(text.overlaps(square) for text in texts for square in shown)
        assert not any(one.overlaps(other) for i, one in enumerate(texts) for other in texts[:i])
        assert axes.get_images()[0].get_array().shape == (64, 96, 3)


def test_the_picture_is_shown_as_the_network_sees_it(model, image):
    large = image.repeat(2, axis=0).repeat(2, axis=1)
    assert show_receptive_fields(model, large).axes[0].get_images()[0].get_array().shape == (32, 48, 3)
    free = unet_model((None, None, 3), 2, 3, depth=1)
    assert show_receptive_fields(free, large).axes[0].get_images()[0].get_array().shape == (64, 96, 3)


def test_feature_maps_are_the_networks_and_vary_most(model, image):
    figure = show_feature_maps(model, image, n_maps=3)
    rows = np.reshape(figure.axes, (3, 4))
    _, first, _, bottom, _, last, _ = unet_levels(model)
    for row, level in zip(rows, (first, bottom, last), strict=True):
        np.testing.assert_array_equal(row[0].get_images()[0].get_array(), image)
        maps = keras.Model(model.inputs, level.layer.output).predict_on_batch(image[None])[0]
        shown = [panel.get_images()[0].get_array() for panel in row[1:]]
        scaled = [np.clip(map_ / max(np.quantile(map_, 0.99), 1e-6), 0, 1).var() for map_ in np.moveaxis(maps, -1, 0)]
        expected = maps[..., np.argsort(scaled)[::-1][:3]]
        np.testing.assert_allclose(np.stack(shown, axis=-1), expected, atol=1e-5)
        assert all(any(np.allclose(each, maps[..., k], atol=1e-5) for k in range(maps.shape[-1])) for each in shown)
        assert not any(panel.axison for panel in row)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    ways = ["level 1, way down, 32x48, 4 channels", "bottom, 8x12, 16 channels", "level 1, way up, 32x48, 4 channels"]
    assert titles == ways
    assert all(title in figure.alt for title in titles)


def test_a_few_bright_pixels_neither_come_first_nor_darken_the_rest_of_their_map():
    """Red is even but for one pixel, green falls from left to right."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[..., 0], image[..., 1] = 1, np.arange(48)
    image[3, 3, 0] = 255
    model = unet_model((32, 48, 3), 2, 3, depth=1, normalization=None)
    weights = model.get_weights()
    for kernel in weights[0], weights[2]:
        kernel[:] = 0
    weights[0][1, 1, 0, 0], weights[0][1, 1, 1, 1], weights[1][:] = 1275, 127.5, (1275, 127.5)  # undo the rescaling
    weights[2][1, 1] = np.eye(2)
    model.set_weights(weights)
    figure = show_feature_maps(model, image)
    first, second = (axes.get_images()[0] for axes in figure.axes[1:3])
    np.testing.assert_allclose(first.get_array(), image[..., 1], atol=1e-3)
    assert second.get_array().max() == pytest.approx(2550)
    assert second.get_clim()[1] == pytest.approx(10)


def test_other_levels_and_fewer_channels_than_maps(image):
    model = unet_model((None, None, 3), 2, 3, depth=1, half_resolution=True)
    first = unet_levels(model, (32, 48))[1]
    figure = show_feature_maps(model, image, [first])
    assert [len(axes.get_images()) for axes in figure.axes] == [1, 1, 1, 0, 0, 0, 0]
    assert figure.axes[1].get_images()[0].get_array().shape == (16, 24)


def test_a_grey_picture_and_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = unet_model((44, 44, 1), 2, 3, depth=1, padding="valid")
    finally:
        keras.config.set_dtype_policy("float32")
    image = np.zeros((44, 44, 1), np.uint8)
    show_feature_maps(model, image).draw_without_rendering()
    show_receptive_fields(model, image).draw_without_rendering()


def test_looking_changes_neither_the_network_nor_the_random_numbers(model, image):
    before, state = model.get_weights(), random.getstate()
    show_feature_maps(model, image)
    show_receptive_fields(model, image)
    assert random.getstate() == state
    for weight, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_a_picture_that_does_not_fit_is_named(model, image):
    with pytest.raises(ValueError, match=r"image: expected one picture \(height, width, 3\), found the shape"):
        show_feature_maps(model, image[None])
    with pytest.raises(ValueError, match=r"image_size: .*\(32, 48\) is what this network takes.*found \(16, 48\)"):
        show_feature_maps(model, image[:16])
