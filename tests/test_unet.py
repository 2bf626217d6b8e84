"""What the figures of a U-Net read from its layers, and the figures themselves."""

import random
from collections import Counter
from itertools import combinations

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from unet_helpers import plots
from unet_helpers.model import conv_block, unet_model, upsampling_block
from unet_helpers.plots.unet import ARROWS, BOXES

PAPER = {"normalization": None, "up_kernel_size": 2, "last_conv": False, "dropout_prob": 0, "padding": "valid"}

# ---- levels ----


def test_the_papers_levels_and_what_its_skip_connections_are_cropped_to():
    """The numbers of figure 1 in the paper, https://arxiv.org/abs/1505.04597."""
    found = plots.unet_levels(unet_model((572, 572, 1), 4, 2, **PAPER))
    sides = [572, 568, 280, 136, 64, 28, 52, 100, 196, 388, 388]
    assert [level.shape[:2] for level in found] == [(side, side) for side in sides]
    assert [level.entering[0] for level in found] == [572, 572, 284, 140, 68, 32, 56, 104, 200, 392, 388]
    assert [level.part for level in found] == ["input", *["down"] * 4, "bottleneck", *["up"] * 4, "output"]
    up = [level for level in found if level.part == "up"]
    assert [(level.number, level.skip[0]) for level in up] == [(4, 56), (3, 104), (2, 200), (1, 392)]


def test_half_resolution_shrinks_the_image_before_level_1_and_any_size_is_the_one_that_is_given():
    free, fixed = (unet_model(size, 2, 5, depth=1, half_resolution=True) for size in ((None, None, 3), (64, 96, 3)))
    sizes = [(0, "64x96, 3"), (1, "32x48, 2"), (2, "16x24, 4"), (1, "32x48, 2"), (1, "32x48, 5")]
    for found in (plots.unet_levels(fixed), plots.unet_levels(free, (64, 96))):
        assert [(level.number, level.size) for level in found] == sizes
    assert plots.draw_unet(free, (64, 96)).alt == plots.draw_unet(fixed).alt


def test_a_network_built_by_hand_and_loaded_from_a_file_has_the_levels_of_unet_model(tmp_path):
    """As in the lesson: blocks stacked by hand, no rescaling, the learner's own names."""
    inputs = keras.Input((32, 48, 3))
    x, skip = conv_block(inputs, 4)
    x, _ = conv_block(x, 8, max_pooling=False)
    x = upsampling_block(x, skip, 4)
    keras.Model(inputs, layers.Softmax()(layers.Conv2D(5, 1, name="mine")(x))).save(tmp_path / "mine.keras")
    found = plots.unet_levels(keras.models.load_model(tmp_path / "mine.keras"))
    expected = plots.unet_levels(unet_model((32, 48, 3), 4, 5, depth=1, last_conv=False))
    for field in ("name", "part", "shape", "entering", "skip"):
        assert [getattr(level, field) for level in found] == [getattr(level, field) for level in expected]
    assert all(level.layer.output.shape[1:] == level.shape for level in found)


def test_what_comes_across_is_told_from_what_comes_from_below():
    """Also if the skip connection is merged first and has more channels."""
    inputs = keras.Input((8, 8, 3))
    skip = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.Conv2D(8, 3, padding="same")(layers.MaxPooling2D()(skip))
    x = layers.Concatenate()([skip, layers.Conv2DTranspose(2, 2, strides=2)(x)])
    up = plots.unet_levels(keras.Model(inputs, layers.Conv2D(5, 1)(layers.Conv2D(6, 3, padding="same")(x))))[-2]
    assert (up.entering, up.skip, up.number, up.shape) == ((8, 8, 2), (8, 8, 4), 1, (8, 8, 6))


def test_receptive_fields_of_the_paper_and_of_other_kernels():
    assert plots.receptive_fields(unet_model((572, 572, 1), 2, 2, **PAPER)) == {
        "level 1": 5, "level 2": 14, "level 3": 32, "level 4": 68, "bottleneck": 140,
    }  # fmt: skip
    half = unet_model((None, None, 3), 2, 2, depth=1, half_resolution=True)  # 3 + 2 * 2 * 2, + 2 + 2 * 2 * 4
    assert plots.receptive_fields(half) == {"level 1": 11, "bottleneck": 29}
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(2, 7)(inputs)  # 7
    x = layers.AveragePooling2D(3, 3)(x)  # 7 + 2
    x = layers.Conv2D(2, 3, dilation_rate=2)(x)  # 9 + 4 * 3
    outputs = layers.Conv2D(2, 1)(layers.UpSampling2D(3)(x))
    assert plots.receptive_fields(keras.Model(inputs, outputs)) == {"level 1": 7, "bottleneck": 21}


def test_what_does_not_fit_is_named():
    free, fixed = unet_model((None, None, 3), 2, 3, depth=2), unet_model((32, 48, 3), 2, 3, depth=2)
    inputs, twice = keras.Input((8, 8, 3)), layers.Conv2D(3, 3)
    no_way_up = keras.Model(inputs, layers.MaxPooling2D()(layers.Conv2D(2, 3)(inputs)))
    called_twice = keras.Model(inputs, twice(twice(upsampling_block(*conv_block(inputs, 3), 3))))
    for model, size, said in (
        (free, None, "image_size: .*any size"), (free, (34, 48), r"image_size: \(34, 48\).*\(1[78], 24\)"),
        (fixed, (32, 32), r"expected .*32, 48, 3.*found .*32, 32, 3"),
        (no_way_up, None, r"model: .*\['down'\]"), (called_twice, None, "model: .*once each"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            plots.unet_levels(model, size)


# ---- the U ----

NETWORKS = {  # cropped skips; neither skips nor depth; large sizes, many classes and levels
    "paper": ((572, 572, 1), 16, 2, PAPER),
    "no skips": ((64, 96, 3), 2, 2, {"depth": 1, "skip_connections": False}),
    "the lesson's": ((96, 128, 3), 16, 13, {"last_conv": False}),
    "half resolution": ((1024, 2048, 3), 4, 150, {"depth": 5, "half_resolution": True}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def drawn(request):
    """A network and its figure, laid out."""
    size, n_filters, n_classes, options = NETWORKS[request.param]
    model = unet_model(size, n_filters, n_classes, **options)
    figure = plots.draw_unet(model)
    figure.draw_without_rendering()
    return model, figure


def arrows(axes) -> list:
    return [text for text in axes.texts if not text.get_text()]


def test_labels_are_readable_and_tell_each_size(drawn):
    model, figure = drawn
    (axes,), found = figure.axes, plots.unet_levels(model)
    written = [line for text in axes.texts for line in text.get_text().split("\n")]
    assert {"input", "output", "bottleneck", "level 1"} <= set(written)
    for level in found:
        assert written.count(level.size) == [each.size for each in found].count(level.size)
        assert f"{level.name} {level.size}" in figure.alt
    texts = [(text.get_text(), text.get_window_extent()) for text in axes.texts if text.get_text()]
    boxes = [box.get_window_extent() for box in (*axes.patches, *figure.legends)]
    assert not any(one.padded(-1e-6).overlaps(other) for one, other in combinations(boxes, 2))
    lines = [Bbox(axes.transData.transform([arrow.xyann, arrow.xy])) for arrow in arrows(axes)]
    for (name, text), (other_name, other) in combinations(texts, 2):
        assert not text.overlaps(other), f"{name!r} and {other_name!r}"
    for name, text in texts:
        assert figure.bbox.containsx(text.x0) & figure.bbox.containsx(text.x1) & figure.bbox.containsy(text.y1), name
        assert not any(text.overlaps(box) for box in boxes), name
        # Below the letters a text's box has room for a comma, which may touch a skip connection's line.
        letters = Bbox.from_extents(text.x0, text.y0 + 0.2 * text.height, text.x1, text.y1)
        assert not any(letters.overlaps(line) for line in lines), name


def test_the_legend_names_the_arrows_that_are_drawn(drawn):
    model, figure = drawn
    names, lines = figure.legends[0].get_texts(), figure.legends[0].get_lines()
    kinds = {to_rgba(line.get_color()): name.get_text() for name, line in zip(names, lines, strict=True)}
    n_arrows = Counter(kinds[arrow.arrow_patch.get_edgecolor()] for arrow in arrows(figure.axes[0]))
    count = Counter(type(layer).__name__ for layer in model.layers)
    pools, ups, skips = count["MaxPooling2D"], count["Conv2DTranspose"], count["Concatenate"]
    skip = "skip connection" + ", cropped" * (model.output.shape[1] == 388)
    expected = {"convolutions": pools + 1 + ups, "max pooling": pools, "transposed convolution": ups}
    expected |= {"1x1 convolution": 1}
    expected |= {skip: skips, "convolution, stride 2": int(model.output.shape[1] == 512)}
    assert n_arrows == {kind: n for kind, n in expected.items() if n}
    assert ("across from: none." in figure.alt) == (skips == 0)


def test_each_skip_connection_leaves_its_own_level():
    axes = plots.draw_unet(unet_model((32, 48, 3), 2, 3, depth=2)).axes[0]
    pink = to_rgba(ARROWS["skip connection"][1])
    skips = [arrow for arrow in arrows(axes) if arrow.arrow_patch.get_edgecolor() == pink]
    outs, copies = (
        [patch for patch in axes.patches if patch.get_facecolor() == to_rgba(BOXES[kind])] for kind in ("out", "skip")
    )
    ends = [(arrow.arrowprops["patchA"], arrow.arrowprops["patchB"]) for arrow in skips]
    assert ends == [(outs[2], copies[0]), (outs[1], copies[1])]
    assert all(arrow.xy[1] == pytest.approx(arrow.xyann[1]) for arrow in skips)


# ---- receptive fields and feature maps ----


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return unet_model((32, 48, 3), 4, 3, depth=2)


def squares(figure) -> list:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]


def test_the_squares_have_the_sides_of_the_receptive_fields_and_the_legend_their_colours(model, image):
    figure = plots.show_receptive_fields(model, image.repeat(2, axis=0).repeat(2, axis=1))
    assert figure.axes[0].get_images()[0].get_array().shape == (32, 48, 3)  # as the network sees it
    fields, shown = list(reversed(plots.receptive_fields(model).items())), squares(figure)
    assert [(square.get_width(), square.get_height()) for square in shown] == [(n, n) for _, n in fields]
    assert all(tuple(square.get_center()) == (24, 16) for square in shown)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"{name}: {side} px" for name, side in fields]
    colors = [patch.get_edgecolor() for patch in legend.get_patches()]
    assert colors == list(dict.fromkeys(square.get_edgecolor() for square in shown))
    assert "level 1 5 pixels, level 2 14 pixels, bottleneck 32 pixels" in figure.alt
    # Of a network for any size: the image, here a grey one, as it is, and all is visible, also larger squares.
    figure = plots.show_receptive_fields(unet_model((None, None, 1), 2, 3, depth=4), image[:, :40, :1])
    assert figure.axes[0].get_images()[0].get_array().shape == (32, 40)
    figure.draw_without_rendering()
    *shown, legend = (part.get_window_extent() for part in (*squares(figure), *figure.legends))
    assert all(figure.bbox.contains(*corner) for box in (*shown, legend) for corner in (box.min, box.max))
    assert not any(legend.overlaps(square) for square in shown)


def test_feature_maps_are_those_that_vary_most_and_nothing_is_changed(model, image):
    before, state = model.get_weights(), random.getstate()
    figure = plots.show_feature_maps(model, image)
    assert random.getstate() == state
    assert all(map(np.array_equal, before, model.get_weights()))
    _, first, _, bottom, _, last, _ = plots.unet_levels(model)
    for row, level in zip(np.reshape(figure.axes[:6], (3, 2)), (first, bottom, last), strict=True):  # and the bar
        maps = keras.Model(model.inputs, level.layer.output).predict_on_batch(image[None])[0]
        shown = [panel.get_images()[0].get_array() for panel in row if panel.get_images()]
        scaled = [np.clip(map_ / max(np.quantile(map_, 0.99), 1e-6), 0, 1).var() for map_ in np.moveaxis(maps, -1, 0)]
        expected = maps[..., np.argsort(scaled)[::-1][:2]]
        np.testing.assert_allclose(np.stack(shown, axis=-1), expected, atol=1e-5)
        # A few bright pixels do not darken the rest of their map.
        limits = [panel.get_images()[0].get_clim()[1] for panel in row]
        np.testing.assert_allclose(limits, np.quantile(expected, 0.99, axis=(0, 1)), rtol=1e-4)
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]
    ways = [
        "level 1, way down: 32x48, 4 channels",
        "bottleneck: 8x12, 16 channels",
        "level 1, way up: 32x48, 4 channels",
    ]
    assert titles == ways
    assert all(title in figure.alt for title in titles)
    assert not plots.show_feature_maps(unet_model((32, 48, 3), 1, 3, depth=1), image).axes[1].get_images()


# ---- the transposed convolution ----

VALUES = [[1, 2], [3, 4]]
KERNELS = {2: [[1, 2], [3, 5]], 3: [[1, 2, 1], [2, 5, 3], [0, 1, 4]]}


def grid(figure, title: str) -> np.ndarray:
    """What is written in the cells below a title, as it would be read."""
    axes = figure.axes[0]
    titles = {text.get_text().split(",")[0].split(":")[0]: text.get_position() for text in axes.texts}
    left, top = titles[title]
    others = [text.get_position() for text in axes.texts if text.get_ha() == "left"]
    right = min((x for x, _ in others if x > left), default=np.inf)
    bottom = max((y for x, y in others if x == left and y < top), default=-np.inf)
    cells = {}
    for patch in (patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_fill()):
        x, y = patch.get_x() + 0.5, patch.get_y() + 0.5
        if left < x < right and bottom < y < top:
            (cells[-y, x],) = (text.get_text() for text in axes.texts if np.allclose(text.get_position(), (x, y)))
    return np.array([cells[place] for place in sorted(cells)]).reshape(-1, len({x for _, x in cells}))


def numbers(texts: np.ndarray) -> np.ndarray:
    """Each text as the number that it amounts to: "3×2" is 6."""
    return np.vectorize(lambda text: np.prod([float(factor) for factor in text.split("×")]), otypes=[float])(texts)


def by_keras(values, kernel) -> np.ndarray:
    layer = layers.Conv2DTranspose(1, len(kernel), strides=len(kernel), use_bias=False)
    values, kernel = np.asarray(values, "f4"), np.asarray(kernel, "f4")
    layer.build((1, *values.shape, 1))
    layer.set_weights([kernel[..., None, None]])
    return np.asarray(layer(values[None, ..., None]))[0, ..., 0]


@pytest.mark.parametrize(("values", "size"), [(VALUES, 2), ([[1, -2, 0.5]], 3)])
def test_the_numbers_are_those_of_keras_and_fit_into_their_cells(values, size):
    figure = plots.show_transposed_convolution(values, KERNELS[size])
    np.testing.assert_allclose(numbers(grid(figure, "input")), values)
    np.testing.assert_allclose(numbers(grid(figure, "kernel")), KERNELS[size])
    np.testing.assert_allclose(numbers(grid(figure, "stamps")), by_keras(values, KERNELS[size]))
    np.testing.assert_allclose(numbers(grid(figure, "result")), by_keras(values, KERNELS[size]))
    assert "-0" not in grid(figure, "result")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    cell = np.diff(axes.transData.transform([(0, 0), (1, 0)])[:, 0])
    texts = [text for text in axes.texts if text.get_ha() == "center" and text.get_text() != "→"]
    assert max(text.get_window_extent().width for text in texts) <= cell


def test_the_cells_of_a_stamp_have_the_shade_of_their_value():
    figure = plots.show_transposed_convolution(VALUES, KERNELS[2])
    assert grid(figure, "stamps")[2].tolist() == ["3×1", "3×2", "4×1", "4×2"]
    shades = [patch.get_facecolor() for patch in figure.axes[0].patches]
    white = to_rgba("white")
    assert {color: n for color, n in Counter(shades).items() if color != white} == dict.fromkeys(shades[:4], 1 + 4 + 4)
    assert shades[8:24] == shades[24:]  # stamps and result
    assert shades[8:12] == [shades[0], shades[0], shades[1], shades[1]]
    assert "input 1 2; 3 4, kernel 1 2; 3 5, result 1 2 2 4; 3 5 6 10; 3 6 4 8; 9 15 12 20." in figure.alt
