"""A reader's own folder from end to end: outlines, names, splits and the report."""

import json
import re

import data_files as good
import numpy as np
import pytest
from data_files import SIZE, STEMS, array, corners, make_ids, make_image, prepare, save, splits_of, write_stems
from PIL import Image

from unet_helpers.custom_data import Report, ValidationError, find_classes
from unet_helpers.custom_data.class_lists import make_labels
from unet_helpers.custom_data.layout import cut_blocks, natural
from unet_helpers.images import decode_mask
from unet_helpers.labels import VOID

NAMES = ("background", "parked car", "sky")


def write_labelme(root, name="sky", **more):
    """The same outlines for each image; more: other values of the file."""
    text = json.dumps(good.labelme(0, **more)).replace('"sky"', f'"{name}"')
    return good.write_outlines(root, "images", lambda n: json.loads(text))


def write_coco(root, name="sky", **more):
    text = json.dumps(good.coco(STEMS, **more)).replace('"sky"', f'"{name}"')
    return good.write_outlines(root, "annotations.json", lambda n: json.loads(text))


def assert_ids(root, expected, image=None):
    """Training reads expected(number), and of the images image(number)."""
    read = good.read_as_training_does(prepare(root))
    assert list(read) == STEMS
    for number, (pixels, ids) in enumerate(read.values()):
        np.testing.assert_array_equal(ids, expected(number))
        np.testing.assert_array_equal(pixels, (image or make_image)(number))


@pytest.mark.parametrize(
    ("where", "classes"),
    [("images", None), ("masks", "sky\nbackground\nparked car\n"), ("annotations.json", "parked car\nsky\n")],
)
def test_outlines_are_drawn(tmp_path, where, classes):
    content_of = (lambda _: good.coco(STEMS)) if ".json" in where else good.labelme
    root = good.write_outlines(tmp_path / "data", where, content_of)
    if classes:
        (root / "classes.txt").write_text(classes)
    names = tuple(classes.splitlines()) if classes else NAMES
    assert prepare(root).labels.names == names
    assert_ids(root, lambda number: good.drawn(number, names))


@pytest.mark.parametrize(("write", "name", "listed"), [(write_labelme, "void", True), (write_coco, "Void", False)])
def test_outlines_of_void_are_no_class(tmp_path, write, name, listed):
    root = write(tmp_path / "data", name)
    if listed:
        (root / "classes.txt").write_text(f"background\nparked car\n{name}\n")
    prepared = prepare(root)
    assert prepared.labels.names == NAMES[:2]
    ids = good.drawn(0, NAMES)
    np.testing.assert_array_equal(good.read_as_training_does(prepared)["p1"][1], np.where(ids == 2, VOID, ids))


def test_a_circle_and_void_of_labelme(tmp_path):
    shapes = [{"label": "sky", "shape_type": "circle", "points": [[10, 10], [10, 15]]},
              {"label": "__ignore__", "shape_type": "rectangle", "points": [[35, 23], [30, 20]]}]  # fmt: skip
    ids = good.read_as_training_does(prepare(write_labelme(tmp_path / "data", shapes=shapes)))["p1"][1]
    y, x = np.indices(SIZE)
    distance = np.hypot(x - 10, y - 10)
    assert (ids[distance < 4.5] == 1).all()
    assert (ids[distance > 6][:5] == 0).all()
    assert (ids[20:, 30:] == VOID).all()
    assert (ids == VOID).sum() == 4 * 6


def test_outlines_drawn_on_the_stored_image_are_turned_with_it(tmp_path):
    """By a tool that shows images without their EXIF data: the size in its files tells."""
    shapes = [{"label": "sky", "shape_type": "rectangle", "points": [[2, 5], [9, 30]]}]
    root = write_labelme(tmp_path / "data", shapes=shapes, imageHeight=SIZE[1], imageWidth=SIZE[0])
    for number, stem in enumerate(STEMS):
        good.turned(6)(make_image(number), root / "images" / stem)
    stored = np.zeros(SIZE[::-1], np.uint8)
    stored[5:31, 2:10] = 1
    assert_ids(root, lambda number: np.rot90(stored, -1))


def test_outlines_as_other_tools_write_them(tmp_path):
    """LabelMe's own names, no kind of shape, a UTF-8 mark, capitals; COCO with several outlines of one thing."""
    left, right, cut = corners((0, 0, 4, 23)), corners((30, 0, 35, 23)), corners((2, 10, 12, 12))
    shapes = [
        {"label": "sky", "points": left}, {"label": "sky", "shape_type": None, "points": right},
        {"label": "_background_", "points": cut}, {"label": "void", "points": corners((20, 0, 21, 23))},
    ]  # fmt: skip
    root = write_labelme(tmp_path / "data", shapes=shapes)
    for path in (root / "images").glob("*.json"):
        path.with_suffix(".JSON").write_text(path.read_text(), encoding="utf-8-sig")
        path.unlink()
    (root / "classes.txt").write_text("Background\nsky\nvoid\n")
    expected = np.zeros(SIZE, np.uint8)
    expected[:, :5], expected[:, 30:], expected[:, 20:22] = 1, 1, VOID
    expected[10:13, 2:5] = 0
    assert_ids(root, lambda number: expected)

    one = {"category_id": 7, "segmentation": [sum(left, []), sum(right, [])]}
    root = write_coco(tmp_path / "coco", annotations=[one | {"id": n, "image_id": n} for n in range(6)])
    (root / "classes.txt").write_text("sky\nBackground\n")
    expected = np.ones(SIZE, np.uint8)
    expected[:, :5], expected[:, 30:] = 0, 0
    assert_ids(root, lambda number: expected)


def test_outlines_and_images_of_masks_are_not_mixed(tmp_path):
    write_stems(tmp_path / "data" / "train", STEMS)
    write_labelme(tmp_path / "data" / "val")
    with pytest.raises(ValueError, match=r"train/masks/p1\.png: it is an image, but other masks are outlines in JSON"):
        prepare(tmp_path / "data")


def test_of_several_lists_classes_txt_counts_and_columns_are_found_by_their_names(tmp_path):
    """It may stand beside a list of colours that a tool has exported, and is for masks of any kind."""
    (tmp_path / "labelmap.txt").write_text("a:1,2,3::\nb:4,5,6::\n")
    (tmp_path / "class_dict.csv").write_text("id,B,g,r,Name\n0,3,2,1,road\n1,6,5,4,sky\n")
    classes = find_classes(tmp_path)
    assert (classes.names, classes.color_ids) == (("road", "sky"), {0x010203: 0, 0x040506: 1})
    assert classes.colors == ((1, 2, 3), (4, 5, 6))
    (tmp_path / "classes.txt").write_text("e\nf\n")
    assert find_classes(tmp_path).names == ("e", "f")


def test_other_files_do_not_hide_the_ending_of_the_masks_and_are_said(tmp_path):
    root = good.write_folder(tmp_path / "data", array("_mask.png"))
    for name in ("p1.heic", "notes.txt", "Thumbs.db", ".hidden.png"):
        (root / "images" / name).write_bytes(b"?")
    assert [line.split(":")[0] for line in prepare(root).report.warnings] == ["images/p1.heic"]
    save(make_ids(0), root / "masks" / "a_mask.png")  # the first by its name
    with pytest.raises(ValidationError, match=r"data: masks/a_mask\.png: it has no image") as caught:
        prepare(root)
    assert len(caught.value.report.errors) == 1


def test_names_may_hold_spaces_and_other_letters(tmp_path):
    text = "\r\n".join(["traffic light", "chaussée", "class 3", "", ""])
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8-sig", newline="")
    assert find_classes(tmp_path).names == ("traffic light", "chaussée", "class 3")
    assert find_classes(tmp_path / "elsewhere") is None


def test_no_class_has_the_colour_of_void_and_all_differ():
    for given in ((255, 255, 255), (0, 0, 0)), ((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (230, 159, 0)):
        colors = make_labels(("building", "background"), given).colors
        assert len({*colors, (255, 255, 255)}) == 3
        assert set(given) - {(255, 255, 255)} < set(colors)
    for n in (2, 8, 9, 30):
        assert len({*make_labels(tuple(map(str, range(n)))).colors, (255, 255, 255)}) == n + 1


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
    ids = good.read_as_training_does(prepared)  # the last of equal names: validation's p2
    assert (ids["p2"][1] == prepared.labels.names.index("class 9")).all()


def test_equal_names_in_several_splits_are_written_apart(tmp_path):
    root, numbers = tmp_path / "data", {"train": range(4), "val": (4, 5), "test": (3,)}
    for split, of_split in numbers.items():
        for stem, number in zip(STEMS, of_split, strict=False):
            array(".tif")(make_image(number), root / split / "images" / stem)
            array(".gif")(make_ids(number), root / split / "masks" / stem)
    prepared = prepare(root)
    for pairs, of_split in zip((prepared.train, prepared.validation, prepared.test), numbers.values(), strict=True):
        for pair, number in zip(pairs, of_split, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(pair.image)), make_image(number))
            np.testing.assert_array_equal(decode_mask(pair.mask, prepared.labels)[..., 0], make_ids(number))


def test_names_with_digits_of_other_kinds_are_sorted_too():
    """A superscript is a digit to Python, but no number."""
    assert sorted(["m1²10", "m1²9", "m1", "٣", "٢"], key=natural) == ["٢", "٣", "m1", "m1²9", "m1²10"]


def test_a_group_is_what_the_brackets_find_and_the_last_ones_test(tmp_path):
    """Not all that the pattern matches, which may hold the frame's number; in the natural order of the groups."""
    stems = [f"seq{g}_{n}" for g in range(8, 13) for n in range(4)]
    root = write_stems(tmp_path / "data", stems)
    for pattern in (r"^(seq\d+)_\d+$", r"^(other\d+)?(seq\d+)_\d+$"):
        splits = splits_of(prepare(root, split_by=pattern))
        groups = {name: {stem.split("_")[0] for stem in found} for name, found in splits.items()}
        assert groups == {"train": {"seq8", "seq9", "seq10"}, "validation": {"seq11"}, "test": {"seq12"}}


@pytest.mark.parametrize("counts", [(1, 1), (2, 5, 1, 7, 1, 1), (9, 1, 1), (1,) * 20])
def test_groups_are_not_cut(tmp_path, counts):
    stems = [f"seq{g}_{n}" for g, count in enumerate(counts) for n in range(count * 2)]
    splits = splits_of(prepare(write_stems(tmp_path / "data", stems), split_by=r"(seq\d+)_"))
    groups = [{stem.split("_")[0] for stem in names} for names in splits.values()]
    assert sum(map(len, groups)) == len(counts) == len(set().union(*groups))
    assert all(groups) or (len(counts) == 2 and groups[0] and groups[1])
    if len(counts) == 20:
        assert [len(g) for g in groups] == [14, 3, 3]


def test_patterns_that_find_no_groups(tmp_path):
    root = write_stems(tmp_path / "data", ["a1", "a2", "b1", "b2"])
    assert splits_of(prepare(root, split_by="[ab]*"))["validation"] == ["b1", "b2"]
    with pytest.raises(ValueError, match=r"images/a1\.png, images/b1\.png: SPLIT_BY '\[ab\]\(\?=2\)' finds no group"):
        prepare(root, split_by="[ab](?=2)")
    with pytest.raises(ValueError, match="no pair is for validation, .*the pattern find more"):
        prepare(root, split_by="^")


def test_the_share_of_each_class_in_each_split():
    report = Report("data")
    report.count(["road", "sky"], {"train": [30, 10, 60], "validation": [5, 45, 50], "test": [0, 0, 0]})
    assert report.classes == [(0, "road", 35 / 200), (1, "sky", 55 / 200)]
    assert report.void == 110 / 200
    rows = [line.split() for line in report.table().splitlines()]
    assert ["pixels,", "%", "all", "train", "validation"] in rows  # no column for what is empty
    assert ["class", "1", "27.500", "10.000", "45.000", "sky"] in rows
    assert ["void", "55.000", "60.000", "50.000", "neither", "learned", "nor", "scored"] in rows


def test_the_last_of_the_training_folder_validate_where_no_folder_does(tmp_path):
    """In their natural order, one at least: never so few that none is left."""
    root = write_stems(tmp_path / "data" / "train", [f"f{n}" for n in range(1, 13)]).parent
    save(make_image(0), root / "test" / "images" / "q.png")
    prepared = prepare(root)
    assert splits_of(prepared)["validation"] == ["f11", "f12"]
    assert [line.split(";")[0] for line in prepared.report.warnings] == [
        "test/images: there are no masks for its images", "there are no pairs for validation",
    ]  # fmt: skip
    write_stems(tmp_path / "few" / "train", STEMS[:3])
    write_stems(tmp_path / "few" / "test", STEMS[3:4])
    assert splits_of(prepare(tmp_path / "few")) == {"train": ["p1", "p2"], "validation": ["p3"], "test": ["p4"]}


def test_lists_of_splits(tmp_path):
    root = write_stems(tmp_path / "data", [*STEMS, "a b.c"])
    text = "p6\nimages/p1.png\n/far/away/p3.jpg /far/away/p3_mask.png\n\n"
    good.split_lists(train=text, valid="a b.c\n", test="p2.png\np4\n")(root)
    prepared = prepare(root, split_by="p")
    assert splits_of(prepared) == {"train": ["p1", "p3", "p6"], "validation": ["a b.c"], "test": ["p2", "p4"]}
    left_out, not_used = prepared.report.warnings
    assert re.match(r"images/p5\.png: .*left out", left_out)
    assert re.match("the pattern .* is not used", not_used)


def test_the_report_says_what_was_found_in_one_table(tmp_path):
    root = good.write_folder(tmp_path / "data", array(".gif"), array(".tif"), "road\nparked car\nsky\ntram\n")
    save(make_image(0)[:12], root / "images" / "p1.tif")
    save(make_ids(0)[:12], root / "masks" / "p1.gif")
    report = prepare(root).report
    assert report.pairs == {"train": 4, "validation": 1, "test": 1}
    assert report.sizes == {"24x36": 5, "12x36": 1}
    assert report.images == {"TIFF of mode RGB": 6}
    counts = np.bincount(np.concatenate([make_ids(n)[: 24 - 12 * (n == 0)].ravel() for n in range(6)]), minlength=256)
    shares = counts / counts.sum()
    assert [name for _, name, _ in report.classes] == ["road", "parked car", "sky", "tram"]
    np.testing.assert_allclose([share for _, _, share in report.classes], shares[:4])
    assert report.void == pytest.approx(shares[VOID])
    table = " ".join(report.table().split("\n           "))
    for text in ("5 of 24x36, 1 of 12x36", "6 TIFF of mode RGB", f"{100 * shares[0]:.3f}  road",
                 f"{root}.prepared", "6 masks (GIF of mode", "a pixel in any mask, 1 of 4: 'tram'",
                 "4 train, 1 validation, 1 test"):  # fmt: skip
        assert text in table
    assert "ERROR" not in table
    assert prepare(root).report == report  # from the record, too


def test_a_table_fits_the_columns_and_cuts_no_name(tmp_path):
    root = good.write_folder(tmp_path / "data")
    names = [f"street-{n:02}-{'x' * 20}.png" for n in range(12)]
    for name in names:
        save(make_image(0), root / "images" / name)
    lines = good.report_of(root).table(60).splitlines()
    assert max(map(len, lines[1:])) <= 60  # the first is the folder's own name
    assert all(re.match(r"\S.{10}\S| {11}\S", line) for line in lines[1:])
    assert all(f"images/{name}" in " ".join(lines).replace(",", " ").split() for name in names[:9])
