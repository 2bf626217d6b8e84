"""A folder of one's own from end to end: outlines, names, splits and the report."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    SIZE,
    STEMS,
    array,
    as_labelmap,
    coco,
    corners,
    deep_grey,
    drawn,
    in_colors,
    labelme,
    look_at,
    make_ids,
    make_picture,
    prepare,
    read_as_training_does,
    save,
    split_lists,
    splits_of,
    turned,
    write_folder,
    write_outlines,
    write_stems,
)
from PIL import Image

from unet_helpers.custom_data import Report, ValidationError, examine_folder, find_classes
from unet_helpers.custom_data.class_lists import make_labels
from unet_helpers.custom_data.report import wrap
from unet_helpers.custom_data.splits import cut_blocks, natural
from unet_helpers.images import decode_mask
from unet_helpers.labels import VOID


@pytest.mark.parametrize(
    ("where", "classes"),
    [
        ("images", None), ("masks", "sky\nbackground\nparked car\n"), ("annotations.json", "parked car\nsky\n"),
        ("annotations/instances.json", "sky\nbackground\nparked car\n"), ("images/_annotations.coco.json", None),
    ],
)  # fmt: skip
def test_outlines_are_drawn(tmp_path, where, classes):
    root = write_outlines(tmp_path / "data", where, lambda n: coco(STEMS) if ".json" in where else labelme(n))
    if classes:
        (root / "classes.txt").write_text(classes)
    prepared = prepare(root)
    names = tuple(classes.splitlines()) if classes else ("background", "parked car", "sky")
    assert prepared.labels.names == names
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], drawn(number, names))


@pytest.mark.parametrize(
    ("name", "where", "listed"), [("void", "images", True), ("Void", "annotations.json", False)]
)
def test_outlines_of_void_are_no_class(tmp_path, name, where, listed):
    def renamed(content):
        return json.loads(json.dumps(content).replace('"sky"', f'"{name}"'))

    root = write_outlines(tmp_path / "data", where, lambda n: renamed(coco(STEMS) if ".json" in where else labelme(n)))
    if listed:
        (root / "classes.txt").write_text(f"background\nparked car\n{name}\n")
    prepared = prepare(root)
    assert prepared.labels.names == ("background", "parked car")
    for number, stem in enumerate(STEMS):
        expected = drawn(number, ("background", "parked car", "sky"))
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], np.where(expected == 2, VOID, expected))


def test_a_circle_and_void_of_labelme(tmp_path):
    shapes = [{"label": "sky", "shape_type": "circle", "points": [[10, 10], [10, 15]]},
              {"label": "__ignore__", "shape_type": "rectangle", "points": [[35, 23], [30, 20]]}]  # fmt: skip
    root = write_outlines(tmp_path / "data", "images", lambda n: labelme(n, shapes=shapes))
    ids = read_as_training_does(prepare(root))["p1"][1]
    y, x = np.indices(SIZE)
    distance = np.hypot(x - 10, y - 10)
    assert (ids[distance < 4.5] == 1).all()
    assert (ids[distance > 6][:5] == 0).all()
    assert (ids[20:, 30:] == VOID).all()
    assert (ids == VOID).sum() == 4 * 6


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_outlines_are_upright_as_labelling_tools_show_the_picture(tmp_path, orientation):
    root = write_outlines(tmp_path / "data", "images", labelme)
    for number, stem in enumerate(STEMS):
        turned(orientation, ".png")(make_picture(number), root / "images" / stem)
    read = read_as_training_does(prepare(root))
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read[stem][0], make_picture(number))
        np.testing.assert_array_equal(read[stem][1], drawn(number, ("background", "parked car", "sky")))


def test_outlines_drawn_on_the_stored_picture_are_turned_with_it(tmp_path):
    """By a tool that shows pictures without their EXIF data: the size in its files tells."""
    shapes = [{"label": "sky", "shape_type": "rectangle", "points": [[2, 5], [9, 30]]}]
    content = labelme(0, shapes=shapes, imageHeight=SIZE[1], imageWidth=SIZE[0])
    root = write_outlines(tmp_path / "data", "images", lambda n: content)
    for number, stem in enumerate(STEMS):
        turned(6, ".png")(make_picture(number), root / "images" / stem)
    stored = np.zeros(SIZE[::-1], np.uint8)
    stored[5:31, 2:10] = 1
    for number, (picture, ids) in enumerate(read_as_training_does(prepare(root)).values()):
        np.testing.assert_array_equal(picture, make_picture(number))
        np.testing.assert_array_equal(ids, np.rot90(stored, -1))


def test_outlines_as_other_tools_write_them(tmp_path):
    """LabelMe's own names, no kind of shape, a UTF-8 mark, capitals; COCO with several outlines of one thing."""
    left, right, cut = corners((0, 0, 4, 23)), corners((30, 0, 35, 23)), corners((2, 10, 12, 12))
    shapes = [
        {"label": "sky", "points": left}, {"label": "sky", "shape_type": None, "points": right},
        {"label": "_background_", "points": cut}, {"label": "void", "points": corners((20, 0, 21, 23))},
    ]  # fmt: skip
    root = write_outlines(tmp_path / "data", "images", lambda n: labelme(n, shapes=shapes))
    for path in (root / "images").glob("*.json"):
        path.with_suffix(".JSON").write_text(path.read_text(), encoding="utf-8-sig")
        path.unlink()
    (root / "classes.txt").write_text("Background\nsky\nvoid\n")
    expected = np.zeros(SIZE, np.uint8)
    expected[:, :5], expected[:, 30:], expected[:, 20:22] = 1, 1, VOID
    expected[10:13, 2:5] = 0
    for _, ids in read_as_training_does(prepare(root)).values():
        np.testing.assert_array_equal(ids, expected)

    content = coco(STEMS, annotations=[
        {"id": n, "image_id": n, "category_id": 7, "segmentation": [sum(left, []), sum(right, [])]} for n in range(6)
    ])  # fmt: skip
    for image, stem in zip(content["images"], STEMS, strict=True):
        image["file_name"] = f"C:\\films\\{stem}.png"
    root = write_outlines(tmp_path / "coco", "annotations.json", lambda n: content)
    (root / "classes.txt").write_text("sky\nBackground\n")
    expected = np.ones(SIZE, np.uint8)
    expected[:, :5], expected[:, 30:] = 0, 0
    for _, ids in read_as_training_does(prepare(root)).values():
        np.testing.assert_array_equal(ids, expected)


def test_outlines_and_pictures_of_masks_are_not_mixed(tmp_path):
    root = tmp_path / "data"
    for split in ("train", "val"):
        write_stems(root / split, STEMS)
    for number, stem in enumerate(STEMS):
        (root / "val" / "masks" / f"{stem}.png").unlink()
        (root / "val" / "masks" / f"{stem}.json").write_text(json.dumps(labelme(number)))
    with pytest.raises(
        ValueError, match=r"train/masks/p1\.png: it is an image, but other masks are outlines in JSON; make all of one"
    ):
        prepare(root)


def test_names_may_hold_spaces_and_other_letters(tmp_path):
    text = "\r\n".join(["traffic light", "chaussée", "class 3", "", ""])
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8-sig", newline="")
    assert find_classes(tmp_path).names == ("traffic light", "chaussée", "class 3")
    assert find_classes(tmp_path / "elsewhere") is None


def test_of_several_lists_the_one_for_masks_of_any_kind_counts(tmp_path):
    """classes.txt, which may stand beside a list of colours that a tool has exported."""
    (tmp_path / "labelmap.txt").write_text("a:1,2,3::\nb:4,5,6::\n")
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nc,1,2,3\nd,4,5,6\n")
    assert find_classes(tmp_path).names == ("c", "d")
    (tmp_path / "classes.txt").write_text("e\nf\n")
    assert find_classes(tmp_path).names == ("e", "f")


def test_columns_of_class_dict_are_found_by_their_names(tmp_path):
    (tmp_path / "class_dict.csv").write_text("id,B,g,r,Name\n0,3,2,1,road\n1,6,5,4,sky\n")
    classes = find_classes(tmp_path)
    assert (classes.names, classes.color_ids) == (("road", "sky"), {0x010203: 0, 0x040506: 1})
    assert classes.colors == ((1, 2, 3), (4, 5, 6))


def test_no_class_has_the_colour_of_void_and_all_differ():
    for given in ((255, 255, 255), (0, 0, 0)), ((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (230, 159, 0)):
        colors = make_labels(("building", "background"), given).colors
        assert len({*colors, (255, 255, 255)}) == 3
        assert set(given) - {(255, 255, 255)} < set(colors)
    for n in (2, 8, 9, 30):
        assert len({*make_labels(tuple(map(str, range(n)))).colors, (255, 255, 255)}) == n + 1


def test_a_class_without_a_pixel_is_a_warning(tmp_path):
    prepared = prepare(write_folder(tmp_path / "data", classes="road\nparked car\nsky\ntram\n"))
    assert prepared.report.warnings == ["1 of 4 classes have no pixel in any mask: 'tram'"]
    assert prepared.labels.names[3] == "tram"


def test_a_mask_without_a_picture_does_not_hide_the_ending_of_the_others(tmp_path):
    root = write_folder(tmp_path / "data", array("_mask.png"))
    save(make_ids(0), root / "masks" / "a_mask.png")  # the first by its name
    with pytest.raises(ValidationError, match=r"data: masks/a_mask\.png: it has no image") as caught:
        prepare(root)
    assert len(caught.value.report.errors) == 1


def test_files_that_are_no_pictures_are_said_or_not_looked_at(tmp_path):
    root = write_folder(tmp_path / "data")
    for name in ("p1.heic", "notes.txt", "Thumbs.db", ".hidden.png"):
        (root / "images" / name).write_bytes(b"?")
    prepared = prepare(root)
    assert [line.split(":")[0] for line in prepared.report.warnings] == ["images/p1.heic"]


def test_blocks_of_names_in_their_natural_order(tmp_path):
    stems = [f"frame{n}" for n in range(1, 21)]
    splits = splits_of(prepare(write_stems(tmp_path / "data", stems)))
    assert sorted(sum(splits.values(), []), key=natural) == stems
    assert [len(names) for names in splits.values()] == [14, 3, 3]
    assert set(splits["validation"]) == {"frame15", "frame16", "frame17"}


def test_each_number_of_pairs_trains_and_validates():
    for n in range(4, 1000):
        first, second = cut_blocks(n)
        assert 0 < first < second <= n
        assert abs(first / n - 0.7) < 0.11
        assert n < 6 or second < n


def test_four_pairs_are_enough_and_six_also_test(tmp_path):
    for n, sizes in ((4, [3, 1, 0]), (6, [4, 1, 1])):
        prepared = prepare(write_stems(tmp_path / str(n) / "data", STEMS[:n]))
        assert [len(names) for names in splits_of(prepared).values()] == sizes


def test_masks_of_all_splits_are_looked_at_together(tmp_path):
    root = tmp_path / "data"
    for split, n in (("train", 4), ("val", 2), ("test", 1)):
        write_stems(root / split, STEMS[:n])  # the same names in each
        save(make_ids(0, (1, 2, 3)), root / split / "masks" / "p1.png")
    (root / "classes.txt").write_text("road\nparked car\nsky\n")  # the ids of p1 are from 1 to 3
    with pytest.raises(ValueError, match="train/masks/p1"):
        prepare(root)
    (root / "classes.txt").unlink()
    save((make_ids(3, (1, 2, 3)) * 0 + 9).astype(np.uint16), root / "val" / "masks" / "p2.png")
    prepared = prepare(root)
    assert splits_of(prepared) == {"train": STEMS[:4], "validation": STEMS[:2], "test": STEMS[:1]}
    assert "class 'class 9' occurs in no training mask, so it can't be learned" in prepared.report.warnings
    ids = read_as_training_does(prepared)  # the last of equal names: validation's p2
    assert (ids["p2"][1] == prepared.labels.names.index("class 9")).all()


def test_equal_names_in_several_splits_are_written_apart(tmp_path):
    root, numbers = tmp_path / "data", {"train": range(4), "val": (4, 5), "test": (3,)}
    for split, of_split in numbers.items():
        for stem, number in zip(STEMS, of_split, strict=False):
            array(".tif")(make_picture(number), root / split / "images" / stem)
            array(".gif")(make_ids(number), root / split / "masks" / stem)
    prepared = prepare(root)
    for pairs, of_split in zip((prepared.train, prepared.validation, prepared.test), numbers.values(), strict=True):
        for pair, number in zip(pairs, of_split, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(pair.image)), make_picture(number))
            np.testing.assert_array_equal(decode_mask(pair.mask, prepared.labels)[..., 0], make_ids(number))


def test_an_export_of_cvat_is_read_as_it_is_unpacked(tmp_path):
    """In the layout of the PASCAL challenge: JPEGImages, SegmentationClass, labelmap.txt, lists in ImageSets."""
    root = write_folder(tmp_path / "data", array(".png", in_colors), array(".jpg", quality=95), classes=None)
    (root / "images").rename(root / "JPEGImages")
    (root / "masks").rename(root / "SegmentationClass")
    (root / "SegmentationObject").mkdir()
    as_labelmap(root)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    split_lists(train="p1\np2\np4\np5\n", val="p3\np6\n")(root / "ImageSets" / "Segmentation")
    prepared = prepare(root)
    assert splits_of(prepared) == {"train": ["p1", "p2", "p4", "p5"], "validation": ["p3", "p6"], "test": []}
    assert prepared.labels.names == ("road", "parked car", "sky")
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], make_ids(number))


def test_pictures_and_their_coco_file_may_lie_in_the_folder_of_a_split(tmp_path):
    root = tmp_path / "data"
    for split, stems in (("train", STEMS[:4]), ("valid", STEMS[4:])):
        for stem in stems:
            save(make_picture(STEMS.index(stem)), root / split / f"{stem}.png")
        content = coco(STEMS)
        content["images"] = [image for image in content["images"] if Path(image["file_name"]).stem in stems]
        of_these = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in of_these]
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    prepared = prepare(root)
    assert splits_of(prepared) == {"train": STEMS[:4], "validation": STEMS[4:], "test": []}
    for number, stem in enumerate(STEMS):
        ids = drawn(number, ("background", "parked car", "sky"))
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], ids)


def test_folders_without_validation_and_a_test_folder_without_masks(tmp_path):
    root = tmp_path / "data"
    write_stems(root / "train", STEMS)
    save(make_picture(0), root / "test" / "images" / "q.png")
    prepared = prepare(root)
    assert splits_of(prepared) == {"train": STEMS[:5], "validation": STEMS[5:], "test": []}
    assert [line.split(";")[0] for line in prepared.report.warnings] == [
        "test/images: there are no masks for its images", "there are no pairs for validation",
    ]  # fmt: skip


def test_the_last_of_the_training_folder_validate_where_no_folder_does(tmp_path):
    """In their natural order, one at least: never so few that none is left."""
    write_stems(tmp_path / "data" / "train", [f"f{n}" for n in range(1, 13)])
    assert splits_of(prepare(tmp_path / "data"))["validation"] == ["f11", "f12"]
    write_stems(tmp_path / "few" / "train", STEMS[:3])
    write_stems(tmp_path / "few" / "test", STEMS[3:4])
    assert splits_of(prepare(tmp_path / "few")) == {"train": ["p1", "p2"], "validation": ["p3"], "test": ["p4"]}


def test_names_with_digits_of_other_kinds_are_sorted_too():
    """A superscript is a digit to Python, but no number."""
    assert sorted(["m1²10", "m1²9", "m1", "٣", "٢"], key=natural) == ["٢", "٣", "m1", "m1²9", "m1²10"]


def test_a_group_is_what_the_brackets_find_and_the_last_ones_test(tmp_path):
    """Not all that the pattern matches, which may hold the frame's number; in the natural order of the groups."""
    stems = [f"film{g}_{n}" for g in range(8, 13) for n in range(4)]
    root = write_stems(tmp_path / "data", stems)
    for pattern in (r"^(film\d+)_\d+$", r"^(other\d+)?(film\d+)_\d+$"):
        splits = splits_of(prepare(root, split_by=pattern))
        groups = {name: {stem.split("_")[0] for stem in found} for name, found in splits.items()}
        assert groups == {"train": {"film8", "film9", "film10"}, "validation": {"film11"}, "test": {"film12"}}


@pytest.mark.parametrize("folder", [".", "ImageSets/Segmentation"])
def test_lists_of_splits(tmp_path, folder):
    root = write_stems(tmp_path / "data", [*STEMS, "a b.c"])
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "train.txt").write_text("p6\nimages/p1.png\n/far/away/p3.jpg /far/away/p3_mask.png\n\n")
    (root / folder / "valid.txt").write_text("a b.c\n")
    (root / folder / "test.txt").write_text("p2.png\np4\n")
    prepared = prepare(root, split_by="p")
    assert splits_of(prepared) == {"train": ["p1", "p3", "p6"], "validation": ["a b.c"], "test": ["p2", "p4"]}
    assert prepared.report.warnings == [
        "images/p5.png: it is in none of the lists; it is left out",
        "the pattern for groups in names is not used, because folders or lists tell the splits",
    ]


@pytest.mark.parametrize("counts", [(1, 1), (2, 5, 1, 7, 1, 1), (18, 1, 1), (5,) * 20])
def test_groups_are_not_cut(tmp_path, counts):
    stems = [f"film{g}_{n}" for g, count in enumerate(counts) for n in range(count * 2)]
    splits = splits_of(prepare(write_stems(tmp_path / "data", stems), split_by=r"(film\d+)_"))
    groups = [{stem.split("_")[0] for stem in names} for names in splits.values()]
    assert sum(map(len, groups)) == len(counts) == len(set().union(*groups))
    assert all(groups) or (len(counts) == 2 and groups[0] and groups[1])
    if counts == (5,) * 20:
        assert [len(g) for g in groups] == [14, 3, 3]


def test_patterns_that_find_no_groups(tmp_path):
    root = write_stems(tmp_path / "data", ["a1", "a2", "b1", "b2"])
    for pattern, sentence in (
        ("x", r"images/a1\.png, .*b2\.png: SPLIT_BY 'x' finds no group in its name; correct the pattern"),
        ("[ab](?=2)", r"images/a1\.png, images/b1\.png: SPLIT_BY '\[ab\]\(\?=2\)' finds no group"),
        ("[ab]*", None),
        ("^", r"SPLIT_BY '\^' finds the one group '' in all names, expected 2 at least; correct the pattern"),
    ):
        if sentence is None:
            assert splits_of(prepare(root, split_by=pattern))["validation"] == ["b1", "b2"]
        else:
            with pytest.raises(ValueError, match=sentence):
                prepare(root, split_by=pattern)


def test_the_report_says_what_was_found_in_one_table(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"), array(".tif"), classes="road\nparked car\nsky\ntram\n")
    save(make_picture(0)[:12], root / "images" / "p1.tif")
    save(make_ids(0)[:12], root / "masks" / "p1.gif")
    report = prepare(root).report
    assert report.pairs == {"train": 4, "validation": 1, "test": 1}
    assert report.sizes == {"24x36": 5, "12x36": 1}
    assert report.pictures == {"TIFF of mode RGB": 6}
    shares = np.bincount(np.concatenate([make_ids(n)[: 24 - 12 * (n == 0)].ravel() for n in range(6)]), minlength=256)
    expected = shares / shares.sum()
    assert [name for _, name, _ in report.classes] == ["road", "parked car", "sky", "tram"]
    np.testing.assert_allclose([share for _, _, share in report.classes], expected[:4])
    assert report.void == pytest.approx(expected[VOID])
    table = report.table()
    for text in ("5 of 24x36, 1 of 12x36", "6 TIFF of mode RGB", f"{100 * expected[0]:.3f}  road",
                 "6 masks (GIF of mode", f"the copies are in {root}.prepared, your",
                 "warning    1 of 4 classes have no pixel", "4 train, 1 validation, 1 test"):  # fmt: skip
        assert text in " ".join(table.split("\n           "))
    assert "ERROR" not in table
    assert prepare(root).report == report  # from the record, too
    assert examine_folder(root).table(999) == report.table(999).replace(
        f"; the copies are in {root}.prepared, your files are as they were", ""
    )


def test_only_looking_writes_nothing(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"), deep_grey)
    before = look_at(root)
    assert examine_folder(root).errors == []
    assert look_at(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_table_fits_the_columns_and_cuts_no_name(tmp_path):
    root = write_folder(tmp_path / "data")
    names = [f"street-{n:02}-{'x' * 20}.png" for n in range(12)]
    for name in names:
        save(make_picture(0), root / "images" / name)
    report = examine_folder(root)
    for width in (60, 80, 100):
        lines = report.table(width).splitlines()
        assert max(map(len, lines[1:])) <= width  # the first is the folder's own name
        assert all(re.match(r"\S.{10}\S| {11}\S", line) for line in lines[1:])
        assert all(f"images/{name}" in " ".join(lines).replace(",", " ").split() for name in names[:9])
    assert wrap("note: ", "one two three", 14).splitlines() == ["note: one two", "      three"]


def test_the_share_of_each_class_in_each_split():
    report = Report("data")
    report.count(["road", "sky"], {"train": [30, 10, 60], "validation": [5, 45, 50], "test": [0, 0, 0]})
    assert report.classes == [(0, "road", 35 / 200), (1, "sky", 55 / 200)]
    assert report.void == 110 / 200
    rows = [line.split() for line in report.table().splitlines()]
    assert ["pixels,", "%", "all", "train", "validation"] in rows  # no column for what is empty
    assert ["class", "1", "27.500", "10.000", "45.000", "sky"] in rows
    assert ["void", "55.000", "60.000", "50.000", "neither", "learned", "nor", "scored"] in rows
