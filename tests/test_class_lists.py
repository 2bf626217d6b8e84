"""Lists of classes as tools and people write them, and masks whose values may be ids, grey levels or smoothed edges."""

import io

import numpy as np
import pytest
from data_files import (
    COLORS,
    STEMS,
    all_masks,
    array,
    drawn,
    in_colors,
    labelme,
    make_ids,
    make_picture,
    prepare,
    read_as_training_does,
    save,
    write_folder,
    write_outlines,
)
from PIL import Image

from unet_helpers.custom_data import ValidationError, examine_folder, find_classes
from unet_helpers.custom_data.layout import read_list
from unet_helpers.labels import VOID

TWO = (0, 1, 1, 1)  # ids of masks of two classes


def ids_of(root):
    """{stem: ids as training reads them}."""
    return {stem: ids for stem, (_, ids) in read_as_training_does(prepare(root)).items()}


# ---- 0 and 255, and what lies between ----


def halved(ids):
    """Drawn at twice the size, each pixel the mean of four: 0, 64, 128, 191 and 255."""
    large = np.roll(ids.repeat(2, 0).repeat(2, 1), 1, (0, 1)) * 255.0
    return np.round((large[::2, ::2] + large[1::2, ::2] + large[::2, 1::2] + large[1::2, 1::2]) / 4).astype(np.uint8)


def resized(ids):
    image = Image.fromarray(ids * np.uint8(255)).resize((100, 70), Image.Resampling.BICUBIC)
    return np.asarray(image.resize(ids.shape[::-1], Image.Resampling.LANCZOS))


def through_jpeg(ids):
    file = io.BytesIO()
    Image.fromarray(ids * np.uint8(255)).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


SMOOTHED = {"halved": halved, "resized": resized, "a JPEG once": through_jpeg}


@pytest.mark.parametrize("how", SMOOTHED)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("classes", [None, "nothing\ncell\n"])
def test_smoothed_masks_of_0_and_255_are_refused(tmp_path, how, mode, classes):
    root = write_folder(tmp_path / "data", array(".png", SMOOTHED[how], mode), classes=classes, values=TWO)
    with pytest.raises(
        ValidationError,
        match=r"data: masks/p1\.png.* \(holds \d+.*\): it holds values between 0 and 255, as resizing or JPEG makes "
        r"of masks of these two; make what is 128 or more 255, the rest 0, and save it as a PNG, or, if each value is "
        r"a class, list all in classes\.txt, a line 'NAME 128,128,128' each$",
    ):
        prepare(root)


@pytest.mark.parametrize("how", SMOOTHED)
def test_what_the_message_says_mends_them(tmp_path, how):
    def thresholded(ids):
        return np.where(SMOOTHED[how](ids) >= 128, 255, 0).astype(np.uint8)

    root = write_folder(tmp_path / "data", array(".png", thresholded), classes=None, values=TWO)
    for number, stem in enumerate(STEMS):
        assert (ids_of(root)[stem] != make_ids(number, TWO)).mean() < 0.1


def test_only_the_smoothed_of_them_are_named_and_the_others_can_be_used(tmp_path):
    root = write_folder(tmp_path / "data", array(".png", lambda ids: ids * np.uint8(255)), classes=None, values=TWO)
    save(resized(make_ids(1, TWO)), root / "masks" / "p2.png")
    (error,) = examine_folder(root).errors
    assert error.startswith("masks/p2.png (holds ")
    assert "p1.png" not in error


GREYS = {"three": (0, 127, VOID), "three, too": (0, 128, VOID), "four": (0, 85, 170, VOID)}


@pytest.mark.parametrize("levels", GREYS)
def test_classes_as_grey_levels_are_refused_until_they_are_listed(tmp_path, levels):
    values = GREYS[levels]
    root = write_folder(tmp_path / "data", array(".png", lambda ids: np.uint8(values)[ids]), classes=None,
                        values=range(len(values)))  # fmt: skip
    with pytest.raises(ValidationError, match="if each value is a class, list all in classes.txt"):
        prepare(root)
    for text in (
        "".join(f"grey{k} {v},{v},{v}\n" for k, v in enumerate(values)),
        "".join(f"{v} grey{k}\n" for k, v in enumerate(values)),
    ):
        (root / "classes.txt").write_text(text)
        for number, stem in enumerate(STEMS):
            np.testing.assert_array_equal(ids_of(root)[stem], make_ids(number, range(len(values))))


HONEST = {
    "from 0": (0, 1, 2, VOID), "some of many": (0, 7, 26, VOID), "without 0": (3, 7, 41, VOID),
    "without void": (0, 127, 254), "two and void": (0, 1, VOID),
    "those of COCO": (0, 1, 90, VOID), "below the middle": (0, 126, VOID),
}  # fmt: skip


@pytest.mark.parametrize("values", HONEST.values(), ids=HONEST)
def test_ids_and_void_without_a_list_are_read_as_ever(tmp_path, values):
    prepared = prepare(write_folder(tmp_path / "data", classes=None, values=values))
    known = sorted(set(values) - {VOID})
    assert prepared.labels.names == tuple(f"class {value}" for value in known)
    table = np.full(256, VOID, np.uint8)
    table[known] = range(len(known))
    for number, stem in enumerate(STEMS):
        expected = table[make_ids(number, values)]
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], expected)
    assert not any("255" in line for line in prepared.report.warnings)


def test_large_ids_on_most_pixels_are_ids_and_void_is_said(tmp_path):
    """As in a part of COCO-Stuff: what is smoothed is mostly 0 and 255."""
    root = write_folder(tmp_path / "data", classes=None, values=(180, 90, 0, VOID))
    prepared = prepare(root)
    assert prepared.labels.names == ("class 0", "class 90", "class 180")
    assert any("255 is taken as void, though 180 occurs, too" in line for line in prepared.report.warnings)


def test_many_ids_without_a_list_may_be_classes_or_smoothed(tmp_path):
    root = write_folder(tmp_path / "data", classes=None)
    save((np.arange(24 * 36).reshape(24, 36) // 9).astype(np.uint8), root / "masks" / "p2.png")
    with pytest.raises(
        ValidationError, match=r"expected at most 64 class ids where no list names them; write .* to classes\."
    ):
        prepare(root)
    (root / "classes.txt").write_text("".join(f"thing {k}\n" for k in range(96)))
    assert len(prepare(root).labels.names) == 96


# ---- where ids begin ----


@pytest.mark.parametrize(
    ("names", "values"), [(("road", "car", "sky", "tram"), (1, 2, 3)), (("pet", "background", "border"), (1, 2))]
)
def test_ids_that_may_begin_with_1_are_said_and_numbers_settle_it(tmp_path, names, values):
    root = write_folder(tmp_path / "data", classes="\n".join(names), values=values)
    prepared = prepare(root)
    (note,) = [line for line in prepared.report.warnings if "no mask holds 0" in line]
    assert f"0 is taken as '{names[0]}'; if that is not so, write each id in front of its name" in note
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], make_ids(0, values))
    (root / "classes.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(names, 1)))
    prepared = prepare(root)
    assert prepared.labels.names == names
    assert not any("no mask holds 0" in line for line in prepared.report.warnings)
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], make_ids(0, values) - 1)


def test_a_list_much_longer_than_the_ids_is_said(tmp_path):
    root = write_folder(tmp_path / "data", classes="".join(f"thing{k}\n" for k in range(1, 151)), values=(0, 5, 20))
    notes = prepare(root).report.warnings
    assert any("the masks hold only 3 of 150 ids, and 0 is taken as 'thing1'" in line for line in notes)
    assert sum("no pixel in any mask" in line for line in notes) == 1
    assert any(line.startswith("147 of 150 classes have no pixel in any mask: 'thing2', ") for line in notes)
    (root / "classes.txt").write_text("0 void\n" + "".join(f"{k} thing{k}\n" for k in range(1, 151)))
    prepared = prepare(root)
    assert not any("is taken as" in line for line in prepared.report.warnings)
    expected = np.select([make_ids(0, (0, 5, 20)) == v for v in (5, 20)], [4, 19], VOID)
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], expected)


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_the_masks_contradict_are_refused(tmp_path, first):
    """0, 1, 2 in the list and 1, 2, 3 in the masks, or the other way round: nobody knows which begin wrongly."""
    text = "".join(f"{first + k} {name}\n" for k, name in enumerate(("road", "car", "sky")))
    root = write_folder(tmp_path / "data", classes=text, values=range(1 - first, 4 - first))
    expected = rf"expected class ids {first}\.\.{first + 2}, the numbers in classes\.txt, or 255 = void; correct"
    with pytest.raises(ValidationError, match=expected):
        prepare(root)


# ---- what is written in a list ----

ROWS = [("road", (128, 64, 128)), ("parked car", (0, 0, 142)), ("sky", (70, 130, 180)), ("void", (0, 0, 0))]
COLORED = {
    "commas": "{0},{1},{2},{3}", "semicolons": "{0};{1};{2};{3}", "brackets": "{0} ({1},{2},{3})",
    "square brackets": "{0}: [{1}, {2}, {3}]", "spaces": "{0} {1} {2} {3}", "colour first": "{1},{2},{3} {0}",
    "CamVid's": "{1} {2} {3}\t\t{0}",
}  # fmt: skip


@pytest.mark.parametrize("how", COLORED)
def test_colours_in_other_syntaxes(tmp_path, how):
    text = "".join(COLORED[how].format(name, *rgb) + "\n" for name, rgb in ROWS)
    root = write_folder(tmp_path / "data", array(".png", in_colors), classes=text)
    prepared = prepare(root)
    assert prepared.labels.names == ("road", "parked car", "sky")
    assert prepared.labels.colors == tuple(map(tuple, COLORS.tolist()))
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], make_ids(number))


def test_the_shares_of_our_own_message_may_stand_behind_colours(tmp_path):
    (tmp_path / "classes.txt").write_text("class 3 1,2,3 (81.83%)\nroad,4,5,6 (8%)\nb (50%) 7,8,9\n")
    classes = find_classes(tmp_path)
    assert classes.names == ("class 3", "road", "b (50%)")
    assert classes.colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


@pytest.mark.parametrize("title", ["", "# my classes\n", "#road first\n"])
@pytest.mark.parametrize("line", ["{} {}", "{}: {}", "{}, {}", "{}\t{}"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_numbers_and_comments(tmp_path, title, line, order):
    names = ("road", "parked car", "sky")
    text = title + "\n".join(line.format(k, names[k]) for k in order)
    root = write_folder(tmp_path / "data", classes=text)
    prepared = prepare(root)
    assert prepared.labels.names == names
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], make_ids(0))


def test_numbers_may_leave_some_out(tmp_path):
    root = write_folder(tmp_path / "data", classes="26 car\n0 other\n7 road\n", values=(0, 7, 26, VOID))
    prepared = prepare(root)
    assert prepared.labels.names == ("other", "road", "car")
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], make_ids(0))


# What the masks hold decides: the values in them, the names of these values, and what a note says if both may be meant
NUMBERS_OR_NAMES = {
    "2 way street\n4 lane road\n": [
        ((0, 1, VOID), ("2 way street", "4 lane road"), ""), ((2, 4, VOID), ("way street", "lane road"), ""),
        ((0, VOID), ("2 way street", "4 lane road"), ""),
        ((1, 2), ("2 way street", "4 lane road"), "parts of them, so that the first is '2 way street'"),
    ],
    "7 road\n11 building\n": [((7, 11, VOID), ("road", "building"), "")],
    "4 lane road\n2 way street\n1 track\n": [
        ((0, 1, 2), ("4 lane road", "2 way street", "1 track"), "parts of them, so that the first is '4 lane road'"),
        ((1, 2, 4), ("track", "way street", "lane road"), ""),
    ],
    "2 lane road\n4 lane road\n": [((0, 1, VOID), ("2 lane road", "4 lane road"), "")],
    "1 lane road\n2 lane road\n": [((0, 1, VOID), ("1 lane road", "2 lane road"), "")],
    "2 way street\n1 track\n": [((1, 2), ("track", "way street"), "the masks' values, so that 1 is 'track'")],
    "2: way street\n1: lane road\n": [((1, 2), ("lane road", "way street"), "")],
}


@pytest.mark.parametrize("text", NUMBERS_OR_NAMES)
def test_masks_decide_whether_a_number_is_a_value_or_part_of_the_name(tmp_path, text):
    for values, names, note in NUMBERS_OR_NAMES[text]:
        root = write_folder(tmp_path / "-".join(map(str, values)), classes=text, values=values)
        prepared = prepare(root)
        assert prepared.labels.names == names
        notes = [line for line in prepared.report.warnings if "classes.txt" in line]
        assert [note in line for line in notes] == [True] * bool(note)
        table = np.full(256, VOID, np.uint8)
        known = [value for value in values if value != VOID or len(values) == 2]
        table[known] = range(len(known))
        np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], table[make_ids(0, values)])


def test_numbers_are_values_or_names_as_the_outlines_labels_say(tmp_path):
    root = write_outlines(tmp_path / "data", "images", labelme)
    for path in root.rglob("*.json"):
        path.write_text(path.read_text().replace("parked car", "2 way street").replace("sky", "4 lane road"))
    (root / "classes.txt").write_text("2 way street\n4 lane road\n")
    prepared = prepare(root)
    assert prepared.labels.names == ("2 way street", "4 lane road")
    for number, stem in enumerate(STEMS):
        expected = drawn(number, ("parked car", "sky"))
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], expected)


@pytest.mark.parametrize("within", ["\u2028", "\x85", "\f", "\v", "\x1c"])
def test_lines_end_where_editors_end_them(tmp_path, within):
    """`str.splitlines` ends a line at each of these."""
    (tmp_path / "val.txt").write_text(f"p1{within}2\np3\n", encoding="utf-8")
    assert [number for number, *_ in read_list(tmp_path / "val.txt")] == [1, 2]
    (tmp_path / "classes.txt").write_text(f"road\r\nparked{within}car\r\nsky\r\n", encoding="utf-8", newline="")
    with pytest.raises(ValueError, match=r"classes\.txt, line 2: .*control character"):
        find_classes(tmp_path)


NAMES_AS_EVER = ("road\n2 wheeler\n4 wheeler\n", "a 1\na 2\na 3\n", "0\n1\n2\n", "road 1\ncar 2 3 4\nsky\n",
                 "class 3\nzone 1 2 3\nb (50%)\n",
                 "lot 2019 2020 2021\nlot 2020 2021 2022\nlot 2021 2022 2023\n")  # fmt: skip


@pytest.mark.parametrize("text", NAMES_AS_EVER)
def test_names_that_hold_numbers_are_names(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    classes = find_classes(tmp_path)
    assert classes.names == tuple(text.splitlines())
    assert classes.value_ids == {0: 0, 1: 1, 2: 2}
    assert not classes.color_ids


UNCLEAR = {
    "road 128,64,128,255\nsky 1,2,3,255\n": "line 1: found 'road 128,64,128,255', and it is not clear which numbers ar",
    "class 3,128,64,128\nsky,1,2,3\n": "line 1: found 'class 3,128,64,128', and it is not clear which numbers are the",
    "0 128 64 128 road\n1 1 2 3 sky\n": "line 1: found '0 128 64 128 road', and it is not clear which numbers are the",
    "sky\nroad,128,64,128\n": "line 2: found 'road,128,64,128', and it is not clear which numbers are the colour; writ",
    "Pixel Value, Class\n0, road\n1, sky\n": "line 1: 'Pixel Value, Class' has no number, but all other lines have; wr",
    "0 road\n1 car\n1 sky\n": "line 3: '1 sky' has the same number as line 2; give each class its own",
}


@pytest.mark.parametrize("text", UNCLEAR)
def test_what_is_not_clear_is_refused_with_its_line(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=r"classes\.txt, line ") as caught:
        find_classes(tmp_path)
    assert UNCLEAR[text] in str(caught.value)


def test_a_list_of_names_only_is_named_where_masks_hold_colours(tmp_path):
    root = write_folder(tmp_path / "data")
    all_masks(array(".png", in_colors))(root)
    with pytest.raises(ValidationError, match=r"classes\.txt is there, but gives no colour to 'road'$"):
        prepare(root)


@pytest.mark.parametrize("start", ["__ignore__\n_background_\n", "_background_\n"])
def test_labelmes_own_list(tmp_path, start):
    root = write_outlines(tmp_path / "data", "images", labelme)
    (root / "classes.txt").write_text(f"{start}parked car\nsky\n")
    names = ("background", "parked car", "sky")
    prepared = prepare(root)
    assert prepared.labels.names == names
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], drawn(number, names))


def test_labelmes_own_list_with_masks_that_it_has_written(tmp_path):
    """Its converter counts from -1: __ignore__ is 255, the background 0."""
    root = write_folder(tmp_path / "data", classes="__ignore__\n_background_\nroad\nsky\n")
    prepared = prepare(root)
    assert prepared.labels.names == ("background", "road", "sky")
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], make_ids(0))


# ---- where a list lies ----


@pytest.mark.parametrize("name", ["Classes.txt", "CLASSES.TXT", "classes.txt.txt", "Labelmap.txt"])
def test_other_spellings_are_read(tmp_path, name):
    root = write_folder(tmp_path / "data", classes=None)
    is_labelmap = name == "Labelmap.txt"
    (root / name).write_text("a:1,1,1::\nb:2,2,2::\nc:3,3,3::\n" if is_labelmap else "a\nb\nc\n")
    assert prepare(root).labels.names == ("a", "b", "c")
    (root / "classes.txt").write_text("road\ncar\nsky\n")
    assert prepare(root).labels.names == ("road", "car", "sky")


def test_two_spellings_are_refused(tmp_path):
    root = write_folder(tmp_path / "data", classes=None)
    for name in ("Classes.txt", "classes.txt.txt"):
        (root / name).write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match=r"Classes\.txt: classes\.txt\.txt is there, too; keep one list of classes, a"):
        prepare(root)


@pytest.mark.parametrize(
    "name", ["masks/classes.txt", "class_names.txt", "labels.txt", "images/_classes.csv", "class_dict_seg.csv"]
)
def test_what_may_be_a_list_but_is_not_read_is_said(tmp_path, name):
    root = write_folder(tmp_path / "data", classes=None)
    (root / name).write_text("a\nb\nc\n")
    (root / "images" / "p1.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    prepared = prepare(root)
    assert prepared.labels.names == ("class 0", "class 1", "class 2")
    (note,) = prepared.report.warnings
    assert note.startswith(f"{name}: it is not read, for the list of classes is classes.txt in the folder that holds i")
    (root / "classes.txt").write_text("road\ncar\nsky\n")
    assert prepare(root).report.warnings == []


def test_texts_beside_pictures_are_no_lists(tmp_path):
    root = tmp_path / "data"
    for number in range(4):
        save(make_picture(number), root / "images" / f"classroom{number}.png")
        save(make_ids(number), root / "masks" / f"classroom{number}.png")
        (root / "images" / f"classroom{number}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert prepare(root).report.warnings == []


# ---- transparency, and one pair ----


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_masks_that_are_partly_transparent_are_said(tmp_path, mode):
    def save_mask(ids, path):
        image = Image.fromarray(ids).convert(mode)
        image.putalpha(Image.fromarray(np.where(ids == 1, 0, 255).astype(np.uint8)))
        save(image, path.with_suffix(".png"))

    root = write_folder(tmp_path / "data", save_mask)
    prepared = prepare(root)
    (note,) = prepared.report.warnings
    assert note.startswith("masks/p1.png, masks/p3.png, masks/p5.png: parts of it are transparent, and the values or c")
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], make_ids(0))
    all_masks(array(".png", lambda ids: ids, mode))(root)
    assert prepare(root).report.warnings == []


def test_one_pair_is_too_few(tmp_path):
    root = tmp_path / "data"
    save(make_picture(0), root / "images" / "p1.png")
    save(make_ids(0), root / "masks" / "p1.png")
    assert examine_folder(root).errors == ["found 1 pairs, expected 4 at least, one of them to validate; add some"]
