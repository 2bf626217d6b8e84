"""Lists of classes as tools and people write them; masks of ids, grey levels or interpolated edges."""

import data_files as good
import numpy as np
import pytest
from data_files import COLORS, STEMS, array, ids_from, make_ids, prepare, write_folder
from PIL import Image

from unet_helpers.custom_data import ValidationError, find_classes
from unet_helpers.custom_data.layout import read_list
from unet_helpers.labels import VOID

TWO = (0, 1, 1, 1)  # ids of masks of two classes
ROAD_CAR_SKY = ("road", "parked car", "sky")


def assert_read(root, names, expected=make_ids) -> list[str]:
    """The names, and the ids expected(number of the mask), are those that training reads. Returns the warnings."""
    prepared = prepare(root)
    assert prepared.labels.names == names
    read = good.read_as_training_does(prepared)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read[stem][1], expected(number))
    return prepared.report.warnings


def interpolated(ids):
    image = Image.fromarray(ids * np.uint8(255)).resize((100, 70), Image.Resampling.BICUBIC)
    return np.asarray(image.resize(ids.shape[::-1], Image.Resampling.LANCZOS))


@pytest.mark.parametrize("classes", ["nothing\ncell\n", None])
def test_interpolated_masks_of_0_and_255_are_refused_and_what_the_message_says_mends_them(tmp_path, classes):
    root = write_folder(tmp_path / "data", array(".png", interpolated), classes=classes, values=TWO)
    with pytest.raises(ValidationError, match=r"masks/p1\.png.*between 0 and 255.*128 or more 255, the rest 0"):
        prepare(root)
    good.all_masks(array(".png", lambda ids: np.where(interpolated(ids % 2) >= 128, 255, 0).astype(np.uint8)))(root)
    read = good.read_as_training_does(prepare(root))
    for number, stem in enumerate(STEMS):
        assert (read[stem][1] != make_ids(number) % 2).mean() < 0.1


GREYS, COLORED = (0, 85, 170, VOID), "{0} {1},{1},{1}\n"


@pytest.mark.parametrize(("values", "line"), [(GREYS, COLORED), (GREYS, "{1}: {0}\n"), ((180, 90, 0, VOID), COLORED)])
def test_classes_as_grey_levels_are_refused_until_they_are_listed(tmp_path, values, line):
    """However many pixels are 0 or 255; numbers in the list tell them, too."""
    ids = range(4)
    root = write_folder(tmp_path / "data", array(".png", lambda ids: np.uint8(values)[ids]), classes=None, values=ids)
    with pytest.raises(ValidationError, match="if they are classes, list them all"):
        prepare(root)
    (root / "classes.txt").write_text("".join(line.format(f"grey{k}", v) for k, v in enumerate(values)))
    assert_read(root, tuple(f"grey{k}" for k in ids), lambda number: make_ids(number, ids))


@pytest.mark.parametrize("values", [(3, 7, 41, VOID), (0, 127, 254), (0, 1, VOID)])
def test_ids_and_void_without_a_list_are_read_as_ever(tmp_path, values):
    known = sorted(set(values) - {VOID})
    root = write_folder(tmp_path / "data", classes=None, values=values)
    notes = assert_read(root, tuple(f"class {value}" for value in known), ids_from(values, known))
    assert not any("255" in line for line in notes)


def test_many_ids_without_a_list_may_be_classes_or_interpolated(tmp_path):
    root = write_folder(tmp_path / "data", classes=None)
    good.save((np.arange(24 * 36).reshape(24, 36) // 9).astype(np.uint8), root / "masks" / "p2.png")
    with pytest.raises(ValidationError, match=r"at most 64 class ids, .*classes\."):
        prepare(root)


def test_ids_that_may_begin_with_1_are_said_and_numbers_settle_it(tmp_path):
    names, values = ("road", "car", "sky", "tram"), (1, 2, 3)
    root = write_folder(tmp_path / "data", classes="\n".join(names), values=values)
    notes = assert_read(root, names, lambda number: make_ids(number, values))
    assert any("0 is taken as 'road', though the masks hold only 3 of 4 ids" in line for line in notes)
    (root / "classes.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(names, 1)))
    notes = assert_read(root, names, lambda number: make_ids(number, values) - 1)
    assert not any("is taken as" in line for line in notes)


def test_a_list_much_longer_than_the_ids_is_said(tmp_path):
    names, values = tuple(f"thing{k}" for k in range(1, 151)), (0, 5, 20)
    root = write_folder(tmp_path / "data", classes="\n".join(names), values=values)
    notes = prepare(root).report.warnings
    assert any("0 is taken as 'thing1', though the masks hold only 3 of 150 ids" in line for line in notes)
    assert sum("without a pixel in any mask, 147 of 150" in line for line in notes) == 1
    (root / "classes.txt").write_text("0 void\n" + "".join(f"{k} {name}\n" for k, name in enumerate(names, 1)))
    notes = assert_read(root, names, ids_from(values, range(1, 151)))
    assert not any("is taken as" in line for line in notes)


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_the_masks_contradict_are_refused(tmp_path, first):
    """0, 1, 2 in the list and 1, 2, 3 in the masks, or the other way round: nobody knows which is wrong."""
    text = "".join(f"{first + k} {name}\n" for k, name in enumerate(ROAD_CAR_SKY))
    root = write_folder(tmp_path / "data", classes=text, values=range(1 - first, 4 - first))
    with pytest.raises(ValidationError, match=rf"ids {first}\.\.{first + 2} .*classes\."):
        prepare(root)


@pytest.mark.parametrize("how", ["{},{},{},{}", "{}: {}, {}, {}", "{} #{:02x}{:02x}{:02X}", "{} {},{},{} (8.3%)"])
def test_colours_behind_the_names(tmp_path, how):
    """The last: with the share that our own message shows."""
    rows = [*((name, *color) for name, color in zip(ROAD_CAR_SKY, COLORS.tolist(), strict=True)), ("void", 0, 0, 0)]
    (tmp_path / "classes.txt").write_text("".join(how.format(*row) + "\n" for row in rows))
    classes = find_classes(tmp_path)
    assert (classes.names, classes.colors) == (ROAD_CAR_SKY, tuple(map(tuple, COLORS.tolist())))
    assert classes.color_ids[0] == VOID


@pytest.mark.parametrize(
    ("text", "values", "names"),
    [
        ("# mine\n2: sky\n0: road\n1: parked car\n", (0, 1, 2, VOID), ROAD_CAR_SKY),
        ("1\troad\n2\tparked car\n3\tsky", (1, 2, 3, VOID), ROAD_CAR_SKY),
        ("26, car\n0, other\n7, road\n", (0, 7, 26, VOID), ("other", "road", "car")),
        ("2: way street\n1: lane road\n", (1, 2), ("lane road", "way street")),
        ("7: road\n11: void\n8: sky\n", (7, 8, 11), ("road", "sky")),
        ("0: 2 way street\n1: 4 lane road\n", (0, 1), ("2 way street", "4 lane road")),
    ],
)
def test_numbers_are_values_where_nothing_else_can_be_meant(tmp_path, text, values, names):
    root = write_folder(tmp_path / "data", classes=text, values=values)
    assert_read(root, names, ids_from(values, values[: len(names)]))


@pytest.mark.parametrize("within", ["\u2028", "\f"])
def test_lines_end_where_editors_end_them(tmp_path, within):
    """`str.splitlines` ends a line at each of these."""
    (tmp_path / "val.txt").write_text(f"p1{within}2\np3\n", encoding="utf-8")
    assert [number for number, *_ in read_list(tmp_path / "val.txt")] == [1, 2]
    (tmp_path / "classes.txt").write_text(f"road\r\nparked{within}car\r\nsky\r\n", encoding="utf-8", newline="")
    with pytest.raises(ValueError, match=r"classes\.txt, line 2: .*control character"):
        find_classes(tmp_path)


@pytest.mark.parametrize("text", ["road\n2 wheeler\n4 wheeler\n", "0\n1\n2\n", "lot 2019 2020\nroad 1 2\nb (50%)\n"])
def test_names_that_hold_numbers_are_names(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    classes = find_classes(tmp_path)
    assert classes.names == tuple(text.splitlines())
    assert classes.value_ids == {0: 0, 1: 1, 2: 2}
    assert not classes.color_ids


COLOR, NUMBER = "what its colour is", "write an id and a colon"
UNCLEAR = {
    "road 128,64,128,255\nsky 1,2,3,255\n": f"line 1: found 'road 128,64,128,255'.*{COLOR}",
    "road 128 64 128\nsky 1 2 3\n": f"line 1: .*{COLOR}",
    "sky\nroad,128,64,128\n": f"line 1: found 'sky'.*{COLOR}",
    "Pixel Value, Class\n0, road\n1, sky\n": f"line 1: found 'Pixel Value, Class'.*{NUMBER}.*a title",
    "4 lane road\n2 way street\n1 track\n": f"line 1: found '4 lane road'.*{NUMBER}",
    "7 road\n11 void\n8 sky\n": f"line 1: found '7 road'.*{NUMBER}",
    "1 lane road\n2 lane road\n": "line 2: 'lane road' has the same name as line 1",
    "0 road\n1 car\n1 sky\n": "line 3: 'sky' has the same value as line 2",
    "road 1,2,3\nvoid 1,2,3\nsky 4,5,6\n": "line 2: 'void' has the same colour as line 1",
    "road 1,2,3\nsky 1,2,256\n": "line 2: .*'1,2,256'",
}


@pytest.mark.parametrize(("text", "said"), UNCLEAR.items())
def test_what_is_not_clear_is_refused_with_its_line(tmp_path, text, said):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"classes\.txt, {said}"):
        find_classes(tmp_path)


def test_lists_of_too_few_or_too_many_names_and_lines_without_a_name_are_refused(tmp_path):
    for n in (1, 256):
        (tmp_path / "classes.txt").write_text("\n".join(map(str, range(n))))
        with pytest.raises(ValueError, match=rf"classes\.txt: found {n} names?, expected 2 to 255"):
            find_classes(tmp_path)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,1,2,3\n,4,5,6\n")
    with pytest.raises(ValueError, match=r"class_dict\.csv, line 3: .*name"):
        find_classes(tmp_path)


def test_labelmes_own_list(tmp_path):
    """Its converter counts from -1: __ignore__ is 255 in the masks that it has written, the background 0."""
    text = "__ignore__\n_background_\nparked car\nsky\n"
    root = good.write_outlines(tmp_path / "outlines", "images", good.labelme)
    (root / "classes.txt").write_text(text)
    names = ("background", "parked car", "sky")
    assert_read(root, names, lambda number: good.drawn(number, names))
    assert_read(write_folder(tmp_path / "masks", classes=text), names)


def test_masks_with_an_opaque_alpha_channel_are_not_called_transparent(tmp_path):
    assert assert_read(write_folder(tmp_path / "data", array(".png", mode="LA")), ROAD_CAR_SKY) == []
