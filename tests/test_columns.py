import re

import numpy as np
import pytest

from unet_helpers.labels import CAMVID, CARLA, VOID, LabelMap
from unet_helpers.plots import columns as plots


@pytest.fixture
def picture():
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


def test_columns_have_titles_fixed_colours_and_a_legend_of_what_occurs(labels, picture, mask):
    figure = plots.show_pairs([picture], [mask], labels, row_titles=["frame 1"])
    assert [axes.get_title() for axes in figure.axes] == ["image", "mask", "mask over image"]
    assert shown(figure.axes[1])[1, 0].tolist() == [128, 64, 128]
    assert shown(figure.axes[2])[1, 0].tolist() == [50 + 64, 50 + 32, 50 + 64]
    assert figure.axes[0].get_ylabel() == "frame 1"
    assert legend(figure) == ["sky", "road", "void"]
    assert "mask: road 67 %, sky 33 %" in figure.alt


def test_no_mask_is_interpolated(labels, picture, mask):
    figure = plots.show_pairs([picture], [mask], labels)
    assert {axes.get_images()[0].get_interpolation() for axes in figure.axes} == {"none"}


def test_small_masks_are_enlarged_without_new_ids():
    assert plots.enlarge(np.uint8([[0, 2]]), (2, 4)).tolist() == [[0, 0, 2, 2]] * 2


def test_masks_get_outlines_where_there_is_room_or_on_request(labels, mask):
    def outlined(n, **option):
        figure = plots.show_columns({str(k): [mask] for k in range(n)}, labels, **option)
        return [bool(axes.collections) for axes in figure.axes]

    assert outlined(3) == [True] * 3
    assert outlined(4) == [False] * 4
    assert outlined(4, outline=True) == [True] * 4
    assert outlined(1, outline=False) == [False]


WRONG = np.zeros((2, 2), bool)


@pytest.mark.parametrize(
    "columns", [{}, {"a": []}, {"a": [WRONG], "b": []}, {"a": [np.zeros((2, 2))]}, {"a": [np.zeros((1, 2, 2, 3))]}]
)
def test_columns_that_cannot_be_shown_are_refused(labels, columns):
    with pytest.raises(ValueError, match=r"column.*: found .*expected"):
        plots.show_columns(columns, labels)


@pytest.mark.parametrize("known", [CARLA, CAMVID, LabelMap(("a", "b"), ((255, 140, 0), (0, 235, 255)))])
def test_errors_have_a_colour_that_no_class_and_not_void_has(known):
    used = np.array([*known.colors, (255, 255, 255)])
    assert np.abs(used - plots.error_color(known)[1]).sum(axis=1).min() > 100


def test_errors_are_told_in_the_title_and_void_is_never_wrong(labels, picture, mask, predicted):
    figure = plots.show_predictions([picture], [mask], [predicted], labels)
    name, color = plots.error_color(labels)
    errors = shown(figure.axes[3])
    assert figure.axes[3].get_title() == f"errors ({name})"
    assert np.argwhere((errors == color).all(axis=-1)).tolist() == [[0, 0]]
    assert np.ptp(errors[1:]) == 0  # the grey picture
    assert 0 < errors[1, 0, 0] < 100
    assert "Wrong pixels, row by row: 5.6 %." in figure.alt


def test_errors_are_shown_over_a_picture_of_another_size(labels, mask):
    large = np.zeros((8, 12, 3), np.uint8)
    large[:, 6:] = 200
    errors = shown(plots.show_predictions([large], [mask], [mask], labels).axes[3])
    assert errors.shape == (4, 6, 3)
    assert errors[2, 0, 0] < 30 < 100 < errors[2, 5, 0]


def test_the_overlap_adds_up_to_the_union(labels, picture):
    true = np.uint8([[1, 1, 1, 0, 0, VOID]] * 4)
    predicted = np.uint8([[0, 1, 1, 1, 0, 1]] * 4)
    figure = plots.show_overlap(picture, true, predicted, 1, labels)
    title = "IoU = intersection / union = 8 / 16 = 0.50"
    assert figure.get_suptitle() == title
    assert title in figure.alt
    assert legend(figure) == ["both: 8 pixels", "only truth: 4 pixels", "only prediction: 4 pixels"]
    overlay = shown(figure.axes[3])
    for part, columns in (("only truth", [0]), ("both", [1, 2]), ("only prediction", [3])):
        assert np.unique(np.argwhere((overlay == plots.OVERLAP[part]).all(axis=-1))[:, 1]).tolist() == columns
    for panel, columns in ((1, [0, 1, 2]), (2, [1, 2, 3])):
        in_color = (shown(figure.axes[panel]) == labels.colors[1]).all(axis=-1)
        assert np.unique(np.argwhere(in_color)[:, 1]).tolist() == columns


def test_the_overlap_of_an_absent_class_is_no_number(labels, picture, mask):
    assert "absent" in plots.show_overlap(picture, mask, mask, 2, labels).get_suptitle()


def test_confidence_has_one_scale_and_its_numbers_in_words(labels, picture, mask, predicted):
    confidence = np.full(mask.shape, 0.75)
    confidence[0, 0], confidence[3] = 0.25, 0
    figure = plots.show_confidence(picture, mask, predicted, confidence, labels)
    image = figure.axes[2].get_images()[-1]
    assert image.get_clim() == (0, 1)
    assert np.array_equal(shown(figure.axes[2]), confidence)
    assert (shown(figure.axes[3]) == plots.error_color(labels)[1]).all(axis=-1).sum() == 1
    assert re.search(r"right: 0\.75, where wrong: 0\.25", figure.alt)
    assert legend(figure) == ["sky", "road", "car"]


def test_confidence_of_a_faultless_answer(labels, picture, mask):
    figure = plots.show_confidence(picture, mask, mask, np.ones(mask.shape), labels)
    assert "where wrong: no pixel" in figure.alt
