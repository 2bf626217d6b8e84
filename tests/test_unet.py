"""What the figures of a U-Net read from its layers, and the figures themselves."""

import random
import re
from collections import Counter
from itertools import combinations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from unet_helpers.model import conv_block, unet_model, upsampling_block
from unet_helpers.plots import (
    draw_unet,
    receptive_fields,
    show_feature_maps,
    show_receptive_fields,
    show_transposed_convolution,
    unet_levels,
)
from unet_helpers.plots.unet import ARROWS, BOXES

TEXTBOOK = {"normalization": None, "up_kernel_size": 2, "last_conv": False, "dropout_prob": 0}
PAPER = TEXTBOOK | {"padding": "valid"}

# ---- levels ----


def by_hand(depth: int):
    """As in the lesson: blocks stacked by hand, no rescaling, the learner's own names."""
    inputs = x = keras.Input((32, 48, 3))
    skips = []
    for level in range(depth):
        x, skip = conv_block(x, 4 * 2**level)
        skips.append(skip)
    x, _ = conv_block(x, 4 * 2**depth, max_pooling=False)
    for level in reversed(range(depth)):
        x = upsampling_block(x, skips[level], 4 * 2**level)
    return keras.Model(inputs, layers.Softmax()(layers.Conv2D(5, 1, name="mine")(x)))


def test_the_assignments_levels():
    model = unet_model((96, 128, 3), 32, 23, normalization=None)
    assert [(level.name, level.part, level.size) for level in unet_levels(model)] == [
        ("input", "input", "96x128, 3"),
        ("level 1", "down", "96x128, 32"),
        ("level 2", "down", "48x64, 64"),
        ("level 3", "down", "24x32, 128"),
        ("level 4", "down", "12x16, 256"),
        ("bottom", "bottom", "6x8, 512"),
        ("level 4", "up", "12x16, 256"),
        ("level 3", "up", "24x32, 128"),
        ("level 2", "up", "48x64, 64"),
        ("level 1", "up", "96x128, 32"),
        ("output", "output", "96x128, 23"),
    ]


def test_the_papers_levels_and_what_its_skip_connections_are_cropped_to():
    """The numbers of figure 1 in the paper, https://arxiv.org/abs/1505.04597."""
    found = unet_levels(unet_model((572, 572, 1), 4, 2, **PAPER))
    sides = [568, 280, 136, 64, 28, 52, 100, 196, 388]
    assert [level.shape[:2] for level in found] == [(side, side) for side in (572, *sides, 388)]
    assert [level.entering[0] for level in found] == [572, 572, 284, 140, 68, 32, 56, 104, 200, 392, 388]
    up = [level for level in found if level.part == "up"]
    assert [(level.number, level.skip[0]) for level in up] == [(4, 56), (3, 104), (2, 200), (1, 392)]


@pytest.mark.parametrize(("depth", "options"), [(1, {}), (3, {"last_conv": False}), (5, {"normalization": None})])
def test_each_skip_goes_across_at_every_depth(depth, options):
    found = unet_levels(unet_model((64, 96, 3), 2, 5, depth=depth, **options))
    down, up = ([level for level in found if level.part == part] for part in ("down", "up"))
    assert [level.number for level in down] == list(range(1, depth + 1))
    assert [(level.number, level.shape) for level in up] == [(level.number, level.shape) for level in reversed(down)]
    assert [level.skip for level in up] == [level.shape for level in up]
    found = unet_levels(unet_model((64, 96, 3), 2, 5, depth=depth, skip_connections=False, **options))
    assert {level.skip for level in found} == {None}
    assert [level.entering for level in found if level.part == "up"] == [level.shape for level in up]


def test_half_resolution_shrinks_the_picture_before_level_1():
    found = unet_levels(unet_model((64, 96, 3), 2, 5, depth=1, half_resolution=True))
    assert [(level.name, level.number, level.size) for level in found] == [
        ("input", 0, "64x96, 3"),
        ("level 1", 1, "32x48, 2"),
        ("bottom", 2, "16x24, 4"),
        ("level 1", 1, "32x48, 2"),
        ("output", 1, "32x48, 5"),
    ]


def facts(levels) -> list[tuple]:
    return [(level.name, level.shape, level.entering, level.skip) for level in levels]


def test_any_size_is_the_size_that_is_asked_for():
    options = {"depth": 2, "half_resolution": True}
    free, fixed = (unet_model(size, 2, 5, **options) for size in ((None, None, 3), (32, 48, 3)))
    assert facts(unet_levels(free, (32, 48))) == facts(unet_levels(fixed)) == facts(unet_levels(fixed, (32, 48)))


def test_a_network_built_by_hand_and_one_from_a_file_have_the_levels_of_unet_model(tmp_path):
    built = by_hand(3)
    built.save(tmp_path / "mine.keras")
    expected = unet_levels(unet_model((32, 48, 3), 4, 5, depth=3, last_conv=False))
    for model in (built, keras.models.load_model(tmp_path / "mine.keras")):
        assert facts(unet_levels(model)) == facts(expected)
        assert all(level.layer.output.shape[1:] == level.shape for level in unet_levels(model))


@pytest.mark.parametrize("skip_first", [False, True])
def test_what_comes_across_is_told_from_what_comes_from_below(skip_first):
    inputs = keras.Input((8, 8, 3))
    skip = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.Conv2D(8, 3, padding="same")(layers.MaxPooling2D()(skip))
    x = layers.Conv2DTranspose(2, 2, strides=2)(x)
    x = layers.Concatenate()([skip, x] if skip_first else [x, skip])
    up = unet_levels(keras.Model(inputs, layers.Conv2D(5, 1)(layers.Conv2D(6, 3, padding="same")(x))))[-2]
    assert (up.entering, up.skip, up.number, up.shape) == ((8, 8, 2), (8, 8, 4), 1, (8, 8, 6))


def linear_copy(model):
    """The same windows, but each value in them counts: sums instead of maxima, no ReLU, positive weights."""

    def linear(layer):
        if isinstance(layer, layers.ReLU):
            return layers.Activation("linear")
        if isinstance(layer, layers.MaxPooling2D):
            return layers.AveragePooling2D(layer.pool_size, layer.strides, layer.padding)
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=linear)
    copy.set_weights([np.abs(weight) + 0.1 for weight in copy.get_weights()])
    return copy


def seen(model, level, image) -> np.ndarray:
    """(H, W) bool: the pixels on which one value in the middle of the level's answer depends, by its gradient."""
    features = keras.Model(model.inputs, level.layer.output)
    image = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = features([image], training=False)[0, level.shape[0] // 2, level.shape[1] // 2, 0]
    return tape.gradient(value, image).numpy()[0].any(axis=-1)


@pytest.mark.parametrize(
    "options", [{"depth": 2}, {"depth": 1, "padding": "valid"}, {"depth": 2, "half_resolution": True}]
)
def test_receptive_fields_are_what_the_gradient_sees(options):
    side = 144 if "half_resolution" in options else 80
    model = unet_model((side, side, 3), 2, 3, **options)
    fields, linear = receptive_fields(model), linear_copy(model)
    rng = np.random.default_rng(0)
    pairs = zip(unet_levels(model), unet_levels(linear), strict=True)
    pairs = [pair for pair in pairs if pair[0].part in ("down", "bottom")]
    assert list(fields) == [level.name for level, _ in pairs]
    for level, linear_level in pairs:
        field = seen(linear, linear_level, rng.uniform(0, 255, (1, side, side, 3)).astype("f4"))
        rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (fields[level.name],) * 2
        assert field.sum() == fields[level.name] ** 2
        # The network itself sees a part of that, another one in each image: maxima and ReLU hide the rest.
        images = rng.uniform(0, 255, (5, 1, side, side, 3)).astype("f4")
        union = np.any([seen(model, level, image) for image in images], axis=0)
        assert union.any()
        assert not (union & ~field).any()


def test_receptive_fields_of_the_paper_and_of_other_kernels():
    assert receptive_fields(unet_model((572, 572, 1), 2, 2, **PAPER)) == {
        "level 1": 5, "level 2": 14, "level 3": 32, "level 4": 68, "bottom": 140,
    }  # fmt: skip
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(2, 7)(inputs)  # 7
    x = layers.AveragePooling2D(3, 3)(x)  # 7 + 2
    x = layers.Conv2D(2, 3, dilation_rate=2)(x)  # 9 + 4 * 3
    outputs = layers.Conv2D(2, 1)(layers.UpSampling2D(3)(x))
    assert receptive_fields(keras.Model(inputs, outputs)) == {"level 1": 7, "bottom": 21}


def test_what_does_not_fit_is_named():
    free, fixed = unet_model((None, None, 3), 2, 3, depth=2), unet_model((32, 48, 3), 2, 3, depth=2)
    with pytest.raises(ValueError, match="image_size: this network takes images of any size"):
        unet_levels(free)
    with pytest.raises(ValueError, match=r"image_size: \(34, 48\) .* merge .*\(1[78], 24\) and"):
        unet_levels(free, (34, 48))
    with pytest.raises(ValueError, match=r"expected .*32, 48, 3.*found .*32, 32, 3"):
        unet_levels(fixed, (32, 32))
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=r"model: expected a U-Net.*found the steps \['down'\]"):
        unet_levels(keras.Model(inputs, layers.MaxPooling2D()(layers.Conv2D(2, 3)(inputs))))
    twice = layers.Conv2D(3, 3)
    with pytest.raises(ValueError, match=r"model: expected layers that are called once each, found 're_lu"):
        unet_levels(keras.Model(inputs, layers.ReLU()(twice(twice(inputs)))))


# ---- the U ----


NETWORKS = {
    "textbook": ((96, 128, 3), 16, 13, TEXTBOOK),
    "paper": ((572, 572, 1), 16, 2, PAPER),
    "without skips": ((96, 128, 3), 8, 13, {"skip_connections": False}),
    "depth 1": ((64, 96, 3), 2, 2, {"depth": 1}),
    "half resolution": ((1024, 2048, 3), 4, 150, {"depth": 5, "half_resolution": True}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def drawn(request):
    """A network and its figure, laid out."""
    size, n_filters, n_classes, options = NETWORKS[request.param]
    model = unet_model(size, n_filters, n_classes, **options)
    figure = draw_unet(model)
    figure.draw_without_rendering()
    return model, figure


def arrows(axes) -> list[tuple[Bbox, str]]:
    """The line of each arrow, as a box without width, and its colour."""
    return [
        (Bbox(axes.transData.transform([text.xyann, text.xy])), text.arrow_patch.get_edgecolor())
        for text in axes.texts
        if not text.get_text()
    ]


def test_each_level_is_written_with_its_size(drawn):
    model, figure = drawn
    found = unet_levels(model)
    written = [line for text in figure.axes[0].texts for line in text.get_text().split("\n")]
    for level in found:
        assert written.count(level.size) == [each.size for each in found].count(level.size)
        assert f"{level.name} {level.size}" in figure.alt
    assert {"input", "output", "bottom", "level 1"} <= set(written)


def test_no_text_lies_on_another_on_a_box_on_an_arrow_or_outside(drawn):
    _, figure = drawn
    axes = figure.axes[0]
    texts = {text.get_text(): text.get_window_extent() for text in axes.texts if text.get_text()}
    boxes = [box.get_window_extent() for box in axes.patches]
    legend = figure.legends[0].get_window_extent()
    for (name, text), (other_name, other) in combinations(texts.items(), 2):
        assert not text.overlaps(other), f"{name!r} and {other_name!r}"
    for name, text in texts.items():
        assert figure.bbox.containsx(text.x0), name
        assert figure.bbox.containsx(text.x1), name
        assert figure.bbox.containsy(text.y1), name
        assert not text.overlaps(legend), name
        assert not any(text.overlaps(box) for box in boxes), name
        # Below the letters a text's box has room for a comma, which may touch a skip connection's line.
        letters = Bbox.from_extents(text.x0, text.y0 + 0.2 * text.height, text.x1, text.y1)
        assert not any(letters.overlaps(arrow) for arrow, _ in arrows(axes)), name
    assert not any(legend.overlaps(box) for box in boxes)


def test_boxes_overlap_no_others_and_grow_with_height_and_channels(drawn):
    model, figure = drawn
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    for one, other in combinations([patch.get_bbox().padded(-1e-6) for patch in patches], 2):
        assert not one.overlaps(other)
    found = unet_levels(model)
    outs = [patch for patch in patches if patch.get_facecolor() == to_rgba(BOXES["out"])]
    for axis, side in ((0, "get_height"), (2, "get_width")):
        order = np.argsort([level.shape[axis] for level in found], kind="stable")
        drawn_sides = [getattr(outs[i], side)() for i in order]
        assert all(after >= before - 1e-9 for before, after in zip(drawn_sides, drawn_sides[1:], strict=False))
        assert drawn_sides[-1] > drawn_sides[0]


def test_the_legend_names_the_arrows_that_are_drawn(drawn):
    model, figure = drawn
    names, lines = figure.legends[0].get_texts(), figure.legends[0].get_lines()
    kinds = {to_rgba(line.get_color()): name.get_text() for name, line in zip(names, lines, strict=True)}
    n_arrows = Counter(kinds[color] for _, color in arrows(figure.axes[0]))
    layers = [type(layer).__name__ for layer in model.layers]
    expected = {
        "convolutions": layers.count("MaxPooling2D") + 1 + layers.count("Conv2DTranspose"),
        "max pooling": layers.count("MaxPooling2D"),
        "up-convolution": layers.count("Conv2DTranspose"),
        "1x1 convolution": 1,
    }
    n_skips = layers.count("Concatenate")
    if n_skips:
        expected["skip connection, cropped" if layers.count("Cropping2D") else "skip connection"] = n_skips
    if n_arrows.get("convolution, stride 2"):
        assert model.output.shape[1] == model.input.shape[1] // 2
        expected["convolution, stride 2"] = 1
    assert n_arrows == expected
    assert ("No skip connections" in figure.alt) == (n_skips == 0)


def test_each_skip_connection_leaves_its_own_level():
    axes = draw_unet(unet_model((32, 48, 3), 2, 3, depth=2)).axes[0]
    skips = [text for text in axes.texts if not text.get_text()]
    skips = [text for text in skips if text.arrow_patch.get_edgecolor() == to_rgba(ARROWS["skip connection"][1])]
    outs = [patch.get_bbox() for patch in axes.patches if patch.get_facecolor() == to_rgba(BOXES["out"])]
    copies = [patch.get_bbox() for patch in axes.patches if patch.get_facecolor() == to_rgba(BOXES["skip"])]
    _, level_1, level_2, *_ = outs
    for text, start, end in zip(skips, (level_2, level_1), copies, strict=True):
        assert text.xyann == pytest.approx((start.x1, (start.y0 + start.y1) / 2))
        assert text.xy == pytest.approx((end.x0, (end.y0 + end.y1) / 2))
        assert text.xy[1] == pytest.approx(text.xyann[1])


def test_a_network_for_any_size_is_drawn_for_the_size_that_is_given():
    model = unet_model((None, None, 3), 2, 3, depth=1)
    assert draw_unet(model, (32, 48)).alt == draw_unet(unet_model((32, 48, 3), 2, 3, depth=1)).alt


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
    figure = show_receptive_fields(model, image)
    fields = list(reversed(receptive_fields(model).items()))
    assert [(square.get_width(), square.get_height()) for square in squares(figure)] == [(n, n) for _, n in fields]
    assert all(tuple(square.get_center()) == (24, 16) for square in squares(figure))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"{name}: {side} px" for name, side in fields]
    colors = [square.get_edgecolor() for square in squares(figure)]
    assert [patch.get_edgecolor() for patch in legend.get_patches()] == colors
    assert len(set(colors)) == len(colors)
    assert "level 1 5 pixels, level 2 14 pixels, bottom 32 pixels" in figure.alt


@pytest.mark.parametrize("depth", [1, 5])
def test_all_squares_and_labels_are_inside_the_figure(image, depth):
    figure = show_receptive_fields(unet_model((None, None, 3), 2, 3, depth=depth), image)
    figure.draw_without_rendering()
    shown = [square.get_window_extent() for square in squares(figure)]
    legend = figure.legends[0].get_window_extent()
    assert all(figure.bbox.contains(*corner) for box in (*shown, legend) for corner in (box.min, box.max))
    assert not any(legend.overlaps(square) for square in shown)


def test_the_image_is_shown_as_the_network_sees_it(model, image):
    large = image.repeat(2, axis=0).repeat(2, axis=1)
    assert show_receptive_fields(model, large).axes[0].get_images()[0].get_array().shape == (32, 48, 3)
    free = unet_model((None, None, 3), 2, 3, depth=1)
    assert show_receptive_fields(free, large).axes[0].get_images()[0].get_array().shape == (64, 96, 3)


def test_feature_maps_are_the_networks_and_vary_most(model, image):
    figure = show_feature_maps(model, image)
    _, first, _, bottom, _, last, _ = unet_levels(model)
    for row, level in zip(np.reshape(figure.axes, (3, 7)), (first, bottom, last), strict=True):
        np.testing.assert_array_equal(row[0].get_images()[0].get_array(), image)
        maps = keras.Model(model.inputs, level.layer.output).predict_on_batch(image[None])[0]
        shown = [panel.get_images()[0].get_array() for panel in row[1:] if panel.get_images()]
        scaled = [np.clip(map_ / max(np.quantile(map_, 0.99), 1e-6), 0, 1).var() for map_ in np.moveaxis(maps, -1, 0)]
        expected = maps[..., np.argsort(scaled)[::-1][:6]]  # level 1 has four
        np.testing.assert_allclose(np.stack(shown, axis=-1), expected, atol=1e-5)
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


def test_a_grey_image_and_half_precision():
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


def test_an_image_that_does_not_fit_is_named(model, image):
    for wrong in (image[None], image[:16], image[..., :1]):
        with pytest.raises(ValueError, match="expected"):
            show_feature_maps(model, wrong)


# ---- the transposed convolution ----


VALUES = [[1, 2], [3, 4]]
KERNELS = {2: [[1, 2], [3, 5]], 3: [[1, 2, 1], [2, 5, 3], [0, 1, 4]], 4: [[1, 0, 2, 3]] * 3 + [[1, 1, 7, 1]]}


def grid(figure, title: str) -> tuple[np.ndarray, np.ndarray]:
    """What is written in the cells below a title, as it would be read, and the colours of the cells."""
    axes = figure.axes[0]
    head = next(text for text in axes.texts if text.get_text().startswith(title))
    left, top = head.get_position()
    titles = [text.get_position() for text in axes.texts if text.get_ha() == "left"]
    beside, below = [x for x, _ in titles if x > left], [y for x, y in titles if x == left and y < top]
    cells = {}
    for patch in (patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_fill()):
        x, y = patch.get_x() + 0.5, patch.get_y() + 0.5
        if left < x < min(beside, default=np.inf) and max(below, default=-np.inf) < y < top:
            inside = [text.get_text() for text in axes.texts if np.allclose(text.get_position(), (x, y))]
            assert len(inside) == 1
            cells[-y, x] = inside[0], patch.get_facecolor()
    n_columns = len({x for _, x in cells})
    ordered = [cells[place] for place in sorted(cells)]
    return tuple(np.array([cell[i] for cell in ordered], object).reshape(-1, n_columns, *[4] * i) for i in (0, 1))


def numbers(texts: np.ndarray) -> np.ndarray:
    """Each text as the number that it amounts to: "3×2" is 6, "3+4" is 7."""
    return np.vectorize(lambda text: float(np.sum([np.prod([float(factor) for factor in term.split("×")])
                        for term in re.findall(r"-?[^-+\s]+", text)])))(texts)  # fmt: skip


def by_keras(values, kernel, padding: str) -> np.ndarray:
    layer = keras.layers.Conv2DTranspose(1, len(kernel), strides=2, padding=padding, use_bias=False)
    values, kernel = np.asarray(values, "f4"), np.asarray(kernel, "f4")
    layer.build((1, *values.shape, 1))
    layer.set_weights([kernel[..., None, None]])
    return np.asarray(layer(values[None, ..., None]))[0, ..., 0]


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("values", [VALUES, [[1, -2, 0.5]]])
def test_the_numbers_are_those_of_keras(values, size):
    figure = show_transposed_convolution(values, KERNELS[size])
    np.testing.assert_allclose(numbers(grid(figure, "input")[0]), values)
    np.testing.assert_allclose(numbers(grid(figure, "kernel")[0]), KERNELS[size])
    np.testing.assert_allclose(numbers(grid(figure, "stamps")[0]), by_keras(values, KERNELS[size], "valid"))
    np.testing.assert_allclose(numbers(grid(figure, "result")[0]), by_keras(values, KERNELS[size], "same"))


def test_each_value_stamps_in_its_own_shade():
    figure = show_transposed_convolution(VALUES, KERNELS[2])
    shades, texts = grid(figure, "stamps")[1], grid(figure, "stamps")[0]
    inputs = grid(figure, "input")[1]
    for i, j in np.ndindex(2, 2):
        assert (shades[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] == inputs[i, j]).all()
    assert len({tuple(shade) for shade in inputs.reshape(4, 4)}) == 4
    assert texts[2].tolist() == ["3×1", "3×2", "4×1", "4×2"]
    assert "No stamps overlap" in figure.alt


def test_overlaps_are_added_and_shaded_apart():
    figure = show_transposed_convolution(VALUES, KERNELS[3])
    texts, shades = grid(figure, "stamps")
    assert texts.shape == (5, 5)
    assert texts[0].tolist() == ["1", "2", "1+2", "4", "2"]
    assert texts[2, 2] == "4+0\n+3+4"
    inputs = {tuple(shade) for shade in grid(figure, "input")[1].reshape(4, 4)}
    overlaps = np.vectorize(lambda text: "+" in text)(texts)
    for place in np.ndindex(5, 5):
        assert (tuple(shades[place]) in inputs) != overlaps[place]
    result = "; ".join(" ".join(f"{number:g}" for number in row) for row in by_keras(VALUES, KERNELS[3], "same"))
    assert f"input 1 2; 3 4, kernel 1 2 1; 2 5 3; 0 1 4, result {result}." in figure.alt
    assert "Stamps overlap and are added. What is outside the frame is cropped." in figure.alt


def test_all_numbers_fit_into_their_cells():
    for size in KERNELS:
        figure = show_transposed_convolution(VALUES, KERNELS[size])
        figure.draw_without_rendering()
        axes = figure.axes[0]
        cell = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
        cells = [text for text in axes.texts if text.get_ha() == "center" and text.get_text() != "→"]
        assert max(text.get_window_extent().width for text in cells) <= cell


def test_other_shapes_are_named():
    with pytest.raises(ValueError, match="not enough values to unpack"):
        show_transposed_convolution([1, 2, 3], KERNELS[2])
    for kernel in ([[1, 2]], [[1]], [1, 2]):
        with pytest.raises(ValueError, match="kernel: expected a square of 2x2 numbers or more"):
            show_transposed_convolution(VALUES, kernel)
