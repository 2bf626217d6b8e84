import numpy as np
import pytest

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


def test_columns_have_titles_fixed_colours_without_interpolation_and_a_legend_of_what_occurs(labels, image, mask):
    figure = plots.show_pairs([image], [mask], labels, row_titles=["frame 1"])
    assert [axes.get_title() for axes in figure.axes] == ["image", "mask", "mask over image"]
    assert shown(figure.axes[1])[1, 0].tolist() == [128, 64, 128]
    assert shown(figure.axes[2])[1, 0].tolist() == [50 + 64, 50 + 32, 50 + 64]
    assert figure.axes[0].get_ylabel() == "frame 1"
    assert legend(figure) == ["sky", "road", "void"]
    assert "mask: road 67%, sky 33%." in figure.alt
    assert {axes.get_images()[0].get_interpolation() for axes in figure.axes} == {"none"}
    with pytest.raises(ValueError, match="shape"):
        plots.show_pairs([image], [mask[:2, :3]], labels)


def test_masks_get_contours_where_there_is_room(labels, mask):
    for n in (3, 4):
        figure = plots.show_columns({str(k): [mask] for k in range(n)}, labels)
        assert {bool(axes.collections) for axes in figure.axes} == {n == 3}
    with pytest.raises(ValueError, match="shorter"):
        plots.show_columns({"a": [mask], "b": []}, labels)


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
    assert [axes.get_title() for axes in figure.axes] == ["image", "ground truth", "prediction", f"errors ({name})"]
    assert np.argwhere((errors == color).all(axis=-1)).tolist() == [[0, 0]]
    assert (shown(figure.axes[2])[3] == 255).all()  # void, as in the ground truth
    assert errors.shape == (4, 6, 3)
    assert np.ptp(errors[2], axis=-1).max() == 0  # the grey image, darkened
    assert errors[2, 0, 0] < 30 < 100 < errors[2, 5, 0] < 200
    assert "Wrong pixels, row by row: 5.6 %." in figure.alt


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


def test_confidence_has_one_scale_and_its_numbers_in_words(labels, image, mask, predicted):
    confidence = np.full(mask.shape, 0.75)
    confidence[0, 0], confidence[3] = 0.25, 0
    figure = plots.show_confidence(image, mask, predicted, confidence, labels)
    assert figure.axes[2].get_images()[-1].get_clim() == (0, 1)
    assert np.array_equal(shown(figure.axes[2]), confidence)
    assert (shown(figure.axes[3]) == plots.error_color(labels)[1]).all(axis=-1).sum() == 1
    assert "right: 0.75, where wrong: 0.25" in figure.alt
    assert legend(figure) == ["sky", "road", "car", "void"]
    assert (shown(figure.axes[1])[3] == 255).all()  # where the mask is void
    assert "where wrong: no pixel" in plots.show_confidence(image, mask, mask, confidence, labels).alt


# ---- contours and names ----


def test_contours_lie_between_pixels_of_different_classes():
    mask = np.uint8([[0, 0], [0, 1]])
    assert sorted(plots.contours_of(mask).tolist()) == [[[0.5, 0.5], [0.5, 1.5]], [[0.5, 0.5], [1.5, 0.5]]]
    assert len(plots.contours_of(np.zeros((3, 3), np.uint8))) == 0


def test_colours_that_the_colour_blind_mix_up_are_found_where_both_occur():
    for pair in ((4, 9), (12, 6), (2, 5)):  # pedestrian and vegetation, sign and line, fence and pole
        assert set(plots.hard_to_tell(np.uint8([pair]), CARLA)) == set(pair)
        assert len(plots.hard_to_tell(np.uint8([[pair[0], VOID]]), CARLA)) == 0
    assert len(plots.hard_to_tell(np.uint8([[0, 8, 10, 12]]), CARLA)) == 0  # far apart


def names(mask, labels):
    _, axes = new_figure("", size=(4, 3))
    plots.draw_contours(axes, mask, labels, 4)
    return {text.get_text(): text.get_position()[::-1] for text in axes.texts}


def test_names_stand_on_large_things_above_small_ones_and_inside_the_image():
    mask = np.full((96, 128), 9, np.uint8)
    mask[60:64, 100:103] = 4
    found = names(mask, CARLA)
    assert set(found) == {"vegetation", "pedestrian"}
    assert mask[tuple(np.int64(found["vegetation"]))] == 9
    row, column = found["pedestrian"]
    assert (40 < row < 58) & (90 < column < 112)
    mask[:] = 9
    mask[0:2, 126:] = 4
    row, column = names(mask, CARLA)["pedestrian"]
    assert (row > 1) & (column < 120)


def test_the_larger_class_keeps_its_name_where_two_would_overlap():
    labels = LabelMap(("a long name", "another one", "third"), ((100, 100, 100), (110, 110, 110), (0, 0, 255)))
    mask = np.full((96, 128), 2, np.uint8)
    mask[40:60, 40:60], mask[40:60, 60:70] = 0, 1
    assert set(names(mask, labels)) == {"a long name"}
