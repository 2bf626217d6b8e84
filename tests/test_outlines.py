import numpy as np
import pytest

from unet_helpers.labels import CARLA, VOID, LabelMap
from unet_helpers.plots.figures import new_figure
from unet_helpers.plots.outlines import borders, draw_outline, hard_to_tell, middle


def test_borders_lie_between_pixels_of_different_classes():
    mask = np.uint8([[0, 0], [0, 1]])
    assert sorted(borders(mask).tolist()) == [[[0.5, 0.5], [0.5, 1.5]], [[0.5, 0.5], [1.5, 0.5]]]
    assert len(borders(np.zeros((3, 3), np.uint8))) == 0


@pytest.mark.parametrize("pair", [(4, 9), (12, 6), (2, 5)])
def test_colours_that_the_colour_blind_mix_up_are_found_where_both_occur(pair):
    """Pedestrian and vegetation, sign and line, fence and pole."""
    assert set(hard_to_tell(np.uint8([pair]), CARLA)) == set(pair)
    assert len(hard_to_tell(np.uint8([[pair[0], VOID]]), CARLA)) == 0


def test_colours_far_apart_need_no_name():
    assert len(hard_to_tell(np.uint8([[0, 8, 10, 12]]), CARLA)) == 0


@pytest.mark.parametrize("scale", [1, 40])
def test_the_middle_is_inside_the_region_and_far_from_its_border(scale):
    region = np.zeros((9, 20), bool)
    region[1:8, 2:9] = region[4, 9:18] = True
    row, column, radius = middle(np.kron(region, np.ones((scale, scale), bool)))
    assert row // scale == 4
    assert column // scale in (5, 6)
    assert radius == pytest.approx(4 * scale, rel=0.3)


def test_the_middle_of_one_pixel_in_a_large_mask_is_that_pixel():
    region = np.zeros((600, 800), bool)
    region[301, 407] = True
    assert middle(region)[:2] == (301, 407)


def names(mask, labels):
    _, axes = new_figure("", size=(4, 3))
    draw_outline(axes, mask, labels, 4)
    return {text.get_text(): text.get_position()[::-1] for text in axes.texts}


def test_names_stand_on_large_things_and_above_small_ones():
    mask = np.full((96, 128), 9, np.uint8)
    mask[60:64, 100:103] = 4
    found = names(mask, CARLA)
    assert set(found) == {"vegetation", "pedestrian"}
    assert mask[tuple(np.int64(found["vegetation"]))] == 9
    row, column = found["pedestrian"]
    assert 40 < row < 58
    assert 90 < column < 112


def test_the_larger_class_keeps_its_name_where_two_would_overlap():
    labels = LabelMap(("a long name", "another one", "third"), ((100, 100, 100), (110, 110, 110), (0, 0, 255)))
    mask = np.full((96, 128), 2, np.uint8)
    mask[40:60, 40:60], mask[40:60, 60:70] = 0, 1
    assert set(names(mask, labels)) == {"a long name"}


def test_names_stay_inside_the_picture():
    mask = np.full((96, 128), 9, np.uint8)
    mask[0:2, 126:] = 4
    row, column = names(mask, CARLA)["pedestrian"]
    assert row > 1
    assert column < 120
