import numpy as np
import pytest

from unet_helpers.labels import CAMVID, CARLA, VOID, LabelMap, class_pixels, colorize


def test_each_class_has_a_name_and_a_colour_of_its_own_and_carlas_are_kaggles():
    for labels in (CARLA, CAMVID):
        assert len(set(labels.names)) == len(set(labels.colors)) == labels.n_classes
    assert (CARLA.n_classes, CAMVID.n_classes) == (13, 11)
    assert CARLA.names[CARLA.ego_class] == "vehicle"
    assert CARLA.colors[7] == (128, 64, 128)


def test_camvid_file_value_11_is_void_and_12_is_unknown():
    assert CAMVID.value_to_id[[0, 10, 11, 255]].tolist() == [0, 10, VOID, VOID]
    assert CAMVID.known_values[[10, 11, 12, 254, 255]].tolist() == [True, True, False, False, True]


def test_a_class_id_may_be_void_and_a_value_above_the_largest_is_unknown():
    labels = LabelMap(("unlabelled", "road", "car"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), void_values=(0, 255))
    assert labels.value_to_id[[0, 1, 2, 3]].tolist() == [VOID, 1, 2, VOID]
    assert np.flatnonzero(labels.known_values).tolist() == [0, 1, 2, 255]


def test_colorize_gives_a_class_one_colour_whatever_else_is_in_the_mask(labels):
    few, many = np.uint8([[1, 1]]), np.uint8([[0, 1, 2, VOID]])
    assert colorize(few, labels)[0, 0].tolist() == colorize(many, labels)[0, 1].tolist() == [128, 64, 128]
    assert colorize(many, labels)[0, 3].tolist() == [255, 255, 255]


def test_class_pixels_leaves_void_out(labels):
    assert class_pixels(np.uint8([[0, 2], [2, VOID]]), labels).tolist() == [1, 0, 2]


def test_a_wrong_label_map_says_what_is_wrong():
    with pytest.raises(ValueError, match="colors: .* one for each name"):
        LabelMap(("a", "b"), ((0, 0, 0),))
    with pytest.raises(ValueError, match="names: .* different texts"):
        LabelMap(("a", "a"), ((0, 0, 0), (1, 1, 1)))
