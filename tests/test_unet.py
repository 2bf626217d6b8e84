from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from unet_helpers.model import unet_model
from unet_helpers.plots.levels import unet_levels
from unet_helpers.plots.unet import ANSWERED, ARROWS, COPIED, draw_unet

TEXTBOOK = {"normalization": None, "up_kernel_size": 2, "last_conv": False, "dropout_prob": 0}
NETWORKS = {
    "textbook": ((96, 128, 3), 16, 13, TEXTBOOK),
    "paper": ((572, 572, 1), 16, 2, TEXTBOOK | {"padding": "valid"}),
    "without skips": ((96, 128, 3), 8, 13, {"skip_connections": False}),
    "depth 1": ((64, 96, 3), 2, 2, {"depth": 1}),
    "depth 2": ((64, 96, 3), 2, 2, {"depth": 2}),
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
    answers = [patch for patch in patches if patch.get_facecolor() == to_rgba(ANSWERED)]
    for axis, side in ((0, "get_height"), (2, "get_width")):
        order = np.argsort([level.shape[axis] for level in found], kind="stable")
        drawn_sides = [getattr(answers[i], side)() for i in order]
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
    answers = [patch.get_bbox() for patch in axes.patches if patch.get_facecolor() == to_rgba(ANSWERED)]
    copies = [patch.get_bbox() for patch in axes.patches if patch.get_facecolor() == to_rgba(COPIED)]
    _, level_1, level_2, *_ = answers
    for text, start, end in zip(skips, (level_2, level_1), copies, strict=True):
        assert text.xyann == pytest.approx((start.x1, (start.y0 + start.y1) / 2))
        assert text.xy == pytest.approx((end.x0, (end.y0 + end.y1) / 2))
        assert text.xy[1] == pytest.approx(text.xyann[1])


def test_a_network_for_any_size_is_drawn_for_the_size_that_is_given():
    model = unet_model((None, None, 3), 2, 3, depth=1)
    assert draw_unet(model, (32, 48)).alt == draw_unet(unet_model((32, 48, 3), 2, 3, depth=1)).alt
    with pytest.raises(ValueError, match="image_size: this network takes pictures of any size"):
        draw_unet(model)
