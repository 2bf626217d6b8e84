from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from unet_helpers.labels import CAMVID, CARLA, VOID, LabelMap
from unet_helpers.plots import columns as plots
from unet_helpers.plots.figures import new_figure


@pytest.fixture
def image():
    return np.full((4, 6, 3), 100, np.uint8)


@pytest.fixture
def mask():
    return np.uint8([[0] * 6, [1] * 6, [1] * 6, [VOID] * 6])


@pytest.fixture
def predicted(mask):
    """Wrong in one pixel, and in the void row, where nothing is wrong."""
    predicted = mask.copy()
    predicted[0, 0], predicted[3] = 2, 0
    return predicted


def shown(axes):
    return np.asarray(axes.get_images()[-1].get_array())


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.axison]


def test_a_pair_has_titles_fixed_colours_without_interpolation_and_a_legend_of_what_occurs(labels, image, mask):
    figure = plots.show_pairs([image], [mask], labels, row_titles=["frame 1"])
    assert titles(figure) == ["frame 1, image", "mask", "mask over image"]
    assert shown(figure.axes[1])[1, 0].tolist() == [128, 64, 128]
    assert shown(figure.axes[2])[1, 0].tolist() == [50 + 64, 50 + 32, 50 + 64]
    assert legend(figure) == ["sky", "road", "void"]
    assert "mask: road 67%, sky 33%." in figure.alt
    assert {axes.get_images()[0].get_interpolation() for axes in figure.axes if axes.axison} == {"none"}
    with pytest.raises(ValueError, match="shape"):
        plots.show_pairs([image], [mask[:2, :3]], labels)


@pytest.mark.parametrize("kind", [Path, str])
def test_pairs_may_be_files_whose_stems_are_their_titles(labels, write_pair, kind):
    pairs = [tuple(map(kind, write_pair(stem, (8, 12), seed=seed))) for seed, stem in enumerate("ab")]
    figure = plots.show_pairs(*zip(*pairs, strict=True), labels)
    assert titles(figure) == ["a, image", "mask", "b, image", "mask"]
    for (file, mask_file), panels in zip(pairs, np.reshape(figure.axes, (2, 2)), strict=True):
        assert np.array_equal(shown(panels[0]), np.asarray(Image.open(file)))
        assert np.array_equal(shown(panels[1]), labels.palette[np.asarray(Image.open(mask_file))])
    assert titles(plots.show_pairs(*zip(*pairs, strict=True), labels, ["one", "two"]))[::2] == [
        "one, image",
        "two, image",
    ]
    assert len(titles(plots.show_pairs(*[[part] for part in pairs[0]], labels))) == 3


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_two_images_are_in_a_line_and_an_odd_place_is_empty(labels, mask, n):
    figure = plots.show_columns({f"column {k}": [mask, mask] for k in range(n)}, labels, ["first", "second"])
    across = min(n, 2)
    assert figure.axes[0].get_gridspec().ncols == across
    assert figure.axes[0].get_gridspec().nrows == 2 * -(-n // across)
    assert [axes.axison for axes in figure.axes] == ([True] * n + [False] * (-n % across)) * 2
    assert all(axes.collections for axes in figure.axes if axes.axison)
    assert titles(figure)[::n] == ["first, column 0", "second, column 0"]
    with pytest.raises(ValueError, match="shorter"):
        plots.show_columns({"a": [mask], "b": []}, labels)


def test_images_of_other_proportions_fill_their_places_and_long_titles_their_lines(labels):
    tall, wide, title = np.zeros((30, 20, 3), np.uint8), np.zeros((10, 40, 3), np.uint8), "a title of some words " * 4
    figure = plots.show_columns({title: [tall, wide], "b": [wide, tall]}, labels)
    figure.draw_without_rendering()
    assert all(axes.get_window_extent().width > 0.45 * figure.bbox.width for axes in figure.axes)
    for axes in figure.axes[::2]:
        box = axes.title.get_window_extent()
        assert (box.x0 > 0) & (box.x1 < figure.bbox.width / 2)


def test_errors_have_a_colour_that_no_class_and_not_void_has():
    for known in (CARLA, CAMVID, LabelMap(("a", "b"), ((255, 140, 0), (0, 235, 255)))):
        used = np.array([*known.colors, (255, 255, 255)])
        assert np.abs(used - plots.error_color(known)[1]).sum(axis=1).min() > 100


def test_errors_are_told_in_the_title_and_void_is_never_wrong(labels, mask, predicted):
    large = np.zeros((8, 12, 3), np.uint8)  # an image of another size
    large[:, 6:] = 200
    figure = plots.show_predictions([large], [mask], [predicted], labels)
    name, color = plots.error_color(labels)
    errors = shown(figure.axes[3])
    assert titles(figure) == ["image", "ground truth", "prediction", f"errors ({name})"]
    assert np.argwhere((errors == color).all(axis=-1)).tolist() == [[0, 0]]
    assert (shown(figure.axes[2])[3] == 255).all()  # void, as in the ground truth
    assert errors.shape == (4, 6, 3)
    assert np.ptp(errors[2], axis=-1).max() == 0  # the grey image, darkened
    assert errors[2, 0, 0] < 30 < 100 < errors[2, 5, 0] < 200
    assert "Wrong pixels, row by row: 5.6 %." in figure.alt
    void = np.full_like(mask, VOID)
    assert "Wrong pixels, row by row: all void." in plots.show_predictions([large], [void], [predicted], labels).alt


def test_the_overlap_adds_up_to_the_union(labels, image, mask):
    true = np.uint8([[1, 1, 1, 0, 0, VOID]] * 4)
    predicted = np.uint8([[0, 1, 1, 1, 0, 1]] * 4)
    figure = plots.show_overlap(image, true, predicted, 1, labels)
    title = "IoU = intersection / union = 8 / 16 = 0.50"
    assert (figure.get_suptitle(), title in figure.alt) == (title, True)
    assert legend(figure) == ["both: 8 pixels", "only ground truth: 4 pixels", "only prediction: 4 pixels"]
    colors = plots.OVERLAP | {"road": labels.colors[1]}
    for panel, part, columns in ((3, "only ground truth", [0]), (3, "both", [1, 2]), (2, "road", [1, 2, 3])):
        in_color = (shown(figure.axes[panel]) == colors[part]).all(axis=-1)
        assert np.unique(np.argwhere(in_color)[:, 1]).tolist() == columns
    assert "absent" in plots.show_overlap(image, mask, mask, 2, labels).get_suptitle()


# ---- contours and names ----


def test_contours_lie_between_pixels_of_different_classes():
    mask = np.uint8([[0, 0], [0, 1]])
    assert sorted(plots.contours_of(mask).tolist()) == [[[0.5, 0.5], [0.5, 1.5]], [[0.5, 0.5], [1.5, 0.5]]]
    assert len(plots.contours_of(np.zeros((3, 3), np.uint8))) == 0


def seen_with_deuteranopia(colors) -> np.ndarray:
    """(K, 3) 0..255 -> (K, 3) CIELAB. Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB."""
    rgb = np.divide(colors, 255)
    rgb = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.clip(rgb @ np.transpose(seen), 0, 1) @ np.transpose(to_xyz) / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@pytest.mark.parametrize("known", [CARLA, CAMVID], ids=["carla", "camvid"])
def test_colours_that_look_alike_with_deuteranopia_are_found_where_both_occur(known):
    colors = seen_with_deuteranopia(known.colors)
    pairs = list(combinations(range(known.n_classes), 2))
    alike = {pair for pair in pairs if np.linalg.norm(np.subtract(*colors[list(pair)])) < 16}
    found = {pair for pair in pairs if len(plots.hard_to_tell(np.uint8([pair]), known))}
    assert alike <= found
    assert len(found) <= len(alike) + 2  # few others, which need no name
    if known is CARLA:  # pedestrian and vegetation, fence and pole, road and wall, line and sign
        assert alike == {(4, 9), (2, 5), (7, 11), (6, 12)}
    for pair in alike:
        assert set(plots.hard_to_tell(np.uint8([pair]), known)) == set(pair)
        assert len(plots.hard_to_tell(np.uint8([[pair[0], VOID]]), known)) == 0


def names(mask, labels, width=4):
    figure, axes = new_figure("", size=(width, 0.75 * width))
    axes.set_axis_off()
    axes.imshow(mask)
    plots.draw_contours(axes, mask, labels, width)
    figure.draw_without_rendering()
    to_pixels = axes.transData.inverted()
    boxes = {text.get_text(): Text.get_window_extent(text).transformed(to_pixels) for text in axes.texts}
    return axes, {name: np.array([[box.y0, box.x0], [box.y1, box.x1]]) for name, box in boxes.items()}


def test_a_name_is_on_a_large_thing_and_beside_a_small_one_with_a_line_to_it():
    mask = np.full((96, 128), 9, np.uint8)
    for row, column in ((60, 100), (0, 124), (92, 0)):  # in the middle, and in corners
        mask[:] = 9
        mask[row : row + 4, column : column + 4] = 4
        axes, found = names(mask, CARLA)
        assert set(found) == {"vegetation", "pedestrian"}
        (top, bottom), (left, right) = np.sort(found["pedestrian"], axis=0).T
        assert (bottom <= row + 0.5) | (top >= row + 3) | (right <= column + 0.5) | (left >= column + 3)  # not on it
        assert (min(left, top) >= -1) & (right <= 128) & (bottom <= 96)
        lines = {text.get_text(): text.xy[::-1] for text in axes.texts if text.arrow_patch}
        assert list(lines) == ["pedestrian"]
        assert mask[tuple(lines["pedestrian"])] == 4


def test_all_that_are_hard_to_tell_have_a_name_and_no_two_names_overlap():
    """Each of four pairs beside each other, as wide as in a figure of two columns."""
    mask = np.full((240, 320), 0, np.uint8)
    mask[120:] = 7
    for n, k in enumerate((4, 9, 2, 5, 11, 6, 12)):
        mask[100:130, 30 + 40 * n : 42 + 40 * n] = k
    _, found = names(mask, CARLA, 3.92)
    assert set(found) == {CARLA.names[k] for k in (4, 9, 2, 5, 7, 11, 6, 12)}
    boxes = [Bbox(box[:, ::-1]) for box in found.values()]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    figure = plots.show_columns({"a": [mask], "b": [mask]}, CARLA)
    assert [{text.get_text() for text in axes.texts} for axes in figure.axes] == [set(found)] * 2
