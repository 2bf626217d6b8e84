"""Outlines in JSON: each image gets its own, or the file that leaves it open is named."""

import copy
import functools
import json
import re
import unicodedata
from pathlib import Path

import data_files as good
import numpy as np
import pytest

from unet_helpers.custom_data import examine_folder, prepare_folder
from unet_helpers.images import decode_mask

NAMES = [f"{n:04}.png" for n in range(4)]
HEIGHT, WIDTH = good.SIZE


def box_of(number: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom), both ends included, another one for each number below 8."""
    return 2 + 3 * number, 1 + number, 10 + 3 * number, 9 + 2 * (number % 4)


def boxed(box) -> np.ndarray:
    """The mask of one box: 1 inside, 0 outside."""
    ids = np.zeros(good.SIZE, np.uint8)
    left, top, right, bottom = box
    ids[top : bottom + 1, left : right + 1] = 1
    return ids


def coco(boxes: dict[str, tuple], **more) -> dict:
    """A COCO file of one car in each image {file_name: box}."""
    return {
        "images": [{"id": n, "file_name": name, "height": HEIGHT, "width": WIDTH} for n, name in enumerate(boxes, 1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [sum(good.corners(b), [])]}
            for n, b in enumerate(boxes.values(), 1)
        ],
        "categories": [{"id": 1, "name": "car"}],
    } | more  # fmt: skip


def write(root, files: dict) -> None:
    """Images for the names that end in .png, each another one, and JSON for the others {name: content}."""
    for number, (name, content) in enumerate(files.items()):
        path = root / name
        if path.suffix == ".png":
            good.save(good.make_picture(number), path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")


def images(*folders: str) -> dict:
    return {f"{folder}/{name}": None for folder in folders for name in NAMES}


def boxes(folder: str, first: int) -> dict[str, tuple]:
    """{file_name: box} of the four images; folder: in file_name, with its slash, or ""."""
    return {folder + name: box_of(first + n) for n, name in enumerate(NAMES)}


def masks_of(pairs, labels) -> dict[str, np.ndarray]:
    return {pair.image.name: decode_mask(str(pair.mask), labels).numpy()[..., 0] for pair in pairs}


def errors_of(root) -> str:
    """All errors, a line each."""
    before = good.look_at(root)
    errors = examine_folder(root).errors
    assert good.look_at(root) == before
    return "\n".join(errors)


# ---- which image an outline belongs to ----

TWO = {  # JSON files of two folders, whose images have the same names: 4 boxes of train, 4 others of val
    "folders in file_name": {"annotations.json": coco(boxes("train/", 0) | boxes("val/", 4))},
    "folders of COCO in file_name": {"annotations.json": coco(boxes("train2017/", 0) | boxes("val2017/", 4))},
    "a path of Windows in file_name": {"all.json": coco(boxes("D:\\my\\train\\", 0) | boxes("D:\\my\\val\\", 4))},
    "a file for each": {
        "annotations/instances_train.json": coco(boxes("", 0)), "annotations/instances_val.json": coco(boxes("", 4)),
    },
    "COCO's names": {"instances_val2017.json": coco(boxes("", 4)), "instances_train2017.json": coco(boxes("", 0))},
    "a file in each folder": {
        "train/_annotations.coco.json": coco(boxes("", 0)), "val/_annotations.coco.json": coco(boxes("", 4)),
    },
    "a file of one, folders in the other": {
        "a.json": coco(boxes("val/", 4)), "instances_train.json": coco(boxes("images/", 0)),
    },
}  # fmt: skip


@pytest.mark.parametrize("files", TWO.values(), ids=TWO)
@pytest.mark.parametrize("inner", ["", "/images"])
def test_images_of_one_name_get_the_outlines_of_their_own_folder(tmp_path, files, inner):
    write(tmp_path / "data", images(f"train{inner}", f"val{inner}") | files)
    prepared = prepare_folder(tmp_path / "data")
    for pairs, first in ((prepared.train, 0), (prepared.validation, 4)):
        masks = masks_of(pairs, prepared.labels)
        assert sorted(masks) == NAMES
        for number, name in enumerate(NAMES):
            np.testing.assert_array_equal(masks[name], boxed(box_of(first + number)))


def test_names_that_are_one_folders_only_are_read_whatever_split_the_file_names(tmp_path):
    """Who splits COCO's images anew keeps its file."""
    names = {f"val2017/{n:04}.png": box_of(n) for n in range(8)}
    there = {f"{'train' if n < 5 else 'val'}/{n:04}.png": None for n in range(8)}
    write(tmp_path / "data", there | {"annotations/instances_val2017.json": coco(names)})
    prepared = prepare_folder(tmp_path / "data")
    masks = masks_of(prepared.train + prepared.validation, prepared.labels)
    assert (len(prepared.train), len(masks)) == (5, 8)
    for number in range(8):
        np.testing.assert_array_equal(masks[f"{number:04}.png"], boxed(box_of(number)))


FOLDERS = ("train", "val")
ONE = coco(boxes("a/", 0))
UNCLEAR = ": nothing tells which of the outlines of its name are its own; write the folder into their file_name"
OPEN = {  # folders of images, JSON files, and the sentence
    "the other split's file is not there": (
        FOLDERS, {"annotations/instances_train.json": coco(boxes("", 0))},
        rf"val/0000\.png, val/0001\.png, .*\(instances_train\.json\){UNCLEAR}",
    ),
    "nothing names a folder": (
        FOLDERS, {"annotations.json": coco(boxes("", 0))},
        rf"train/0000\.png, .*val/0000\.png.* \(annotations\.json\){UNCLEAR}",
    ),
    "two records of a name": (
        ("images",), {"annotations.json": coco(boxes("a/", 0) | {"b/0000.png": box_of(5)})},
        rf"images/0000\.png \(annotations\.json\){UNCLEAR}",
    ),
    "two records of a name, one without things": (
        ("images",),
        {"a.json": ONE | {"images": ONE["images"] + [ONE["images"][0] | {"id": 9, "file_name": "b/0000.png"}]}},
        rf"images/0000\.png \(a\.json\){UNCLEAR}",
    ),
    "two files": (
        ("images",), {"annotations/a.json": coco(boxes("", 0)), "annotations/b.json": coco(boxes("", 4))},
        rf"images/0000\.png, images/0001\.png, .* \(a\.json and b\.json\){UNCLEAR}",
    ),
    "two images of an id": (
        ("images",), {"a.json": ONE | {"images": ONE["images"] + [ONE["images"][0] | {"file_name": "c/9.png"}]}},
        r"a\.json \(a/0000\.png and c/9\.png\): two images have the same id; export it again",
    ),
    "two categories of an id": (
        ("images",), {"a.json": ONE | {"categories": [{"id": 1, "name": "car"}, {"id": 1, "name": "bus"}]}},
        r"a\.json: two categories have the same id; export it again",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("folders", "files", "sentence"), OPEN.values(), ids=OPEN)
def test_what_leaves_open_whose_an_outline_is_is_refused(tmp_path, folders, files, sentence):
    write(tmp_path / "data", images(*folders) | files)
    errors = errors_of(tmp_path / "data")
    assert len(errors.splitlines()) == 1
    assert re.match(sentence, errors), errors


def test_a_test_without_masks_does_not_get_those_of_training(tmp_path):
    files = {
        "annotations/instances_train.json": coco(boxes("", 0)),
        "annotations/instances_val.json": coco(boxes("", 4)),
    }
    write(tmp_path / "data", images("train", "val", "test") | files)
    prepared = prepare_folder(tmp_path / "data")
    assert [len(prepared.train), len(prepared.validation), len(prepared.test)] == [4, 4, 0]
    assert "test: there are no masks for its images; they are left out" in prepared.report.warnings


def test_names_of_a_mac_are_the_same_names(tmp_path):
    """It writes a letter and its dots as two characters; what exported the outlines may have written one."""
    names = [f"M\u00fchle {n}.png" for n in range(4)]
    form, other = "NFD", "NFC"
    content = coco({unicodedata.normalize(other, name): box_of(n) for n, name in enumerate(names)})
    there = {f"images/{unicodedata.normalize(form, name)}": None for name in names}
    write(tmp_path / "data", there | {"annotations.json": content})
    prepared = prepare_folder(tmp_path / "data")
    masks = masks_of(prepared.train + prepared.validation + prepared.test, prepared.labels)
    for number, name in enumerate(names):
        np.testing.assert_array_equal(masks[unicodedata.normalize(form, name)], boxed(box_of(number)))


# ---- other files of COCO beside the outlines ----

JOINTS = {"id": 1, "name": "car", "keypoints": ["left", "right"], "skeleton": [[1, 2]]}
BESIDE = {
    "captions_train.json": coco(boxes("", 0), annotations=[{"id": 1, "image_id": 1, "caption": "A car."}]),
    "person_keypoints_train.json": coco(boxes("", 4), categories=[JOINTS]),
    "panoptic_train.json": coco(boxes("", 0), annotations=[{"image_id": 1, "file_name": "1.png", "segments_info": []}]),
}


def test_captions_and_joints_beside_the_outlines_are_not_read(tmp_path):
    files = {f"annotations/{name}": content for name, content in BESIDE.items()}
    write(tmp_path / "data", images("train") | {"annotations/instances_train.json": coco(boxes("", 0))} | files)
    write(tmp_path / "data", {f"val/1{name}": None for name in NAMES})
    write(tmp_path / "data", {"val/instances.json": coco(boxes("1", 4))})
    prepared = prepare_folder(tmp_path / "data")
    for number, name in enumerate(NAMES):
        np.testing.assert_array_equal(masks_of(prepared.train, prepared.labels)[name], boxed(box_of(number)))


def test_the_outlines_of_joints_are_read_where_there_are_no_others(tmp_path):
    write(tmp_path / "data", images("images") | {"person_keypoints.json": BESIDE["person_keypoints_train.json"]})
    prepared = prepare_folder(tmp_path / "data")
    masks = masks_of(prepared.train + prepared.validation + prepared.test, prepared.labels)
    np.testing.assert_array_equal(masks["0002.png"], boxed(box_of(6)))


# ---- what is in a COCO file ----


def changed(number: int, key: str, *value) -> dict:
    """COCO with another value of a key in one annotation, or without the key."""
    content = coco(boxes("", 0))
    del content["annotations"][number][key]
    return content | {"annotations": [
        each | ({key: value[0]} if n == number and value else {}) for n, each in enumerate(content["annotations"])
    ]}  # fmt: skip


NO_OUTLINE = r"\(annotation 3, 'car'\): an object has a box but no outline"
BAD_COCO = {
    "an empty outline": (changed(2, "segmentation", []), NO_OUTLINE),
    "no outline": (changed(2, "segmentation"), NO_OUTLINE),
    "an odd number": (changed(2, "segmentation", [[1, 1, 9, 1, 9, 9, 1]]), r"\(annotation 3, 'car': 7 numbers\): .*x "),
    "two points": (changed(2, "segmentation", [[1, 1, 9, 9]]), r"\(annotation 3, 'car': 4 numbers\): .*three points"),
    "no category": (changed(2, "category_id"), r"\(annotations: KeyError: 'category_id'\): it is no whole COCO file"),
    "of no image": (changed(2, "image_id", 99), r"\(annotations: KeyError: 99\): it is no whole COCO file"),
    "ids of two kinds": (
        coco(boxes("", 0), categories=[{"id": 1, "name": "car"}, {"id": "2", "name": "bus"}]),
        r"\(categories: TypeError: .*\): it is no whole COCO file; export it again",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), BAD_COCO.values(), ids=BAD_COCO)
def test_what_is_wrong_in_a_coco_file_is_said_once(tmp_path, content, sentence):
    write(tmp_path / "data", images("images") | {"annotations.json": content})
    errors = errors_of(tmp_path / "data")
    assert re.fullmatch(rf"annotations\.json {sentence}.*", errors), errors


def test_outlines_of_another_size_are_refused_for_the_image(tmp_path):
    turned = [image | {"height": WIDTH, "width": HEIGHT} for image in coco(boxes("", 0))["images"]]
    write(tmp_path / "data", images("images") | {"annotations.json": coco(boxes("", 0), images=turned)})
    assert re.match(r"images/0000\.png, .*\(annotations\.json: 36x24, .* 24x36\)", errors_of(tmp_path / "data"))


WRONG = (None, -1, 10**400, "x", [], {"a": 1}, [[1]], "\x1b[2J", [None, None], float("nan"))


def places_in(content, place=()):
    """All places in a JSON, with those of the first of each list only."""
    yield place
    keys = content if isinstance(content, dict) else range(min(1, len(content))) if isinstance(content, list) else ()
    for key, value in ((key, content[key]) for key in keys):
        yield from places_in(value, (*place, key))


@pytest.mark.parametrize("kind", ["LabelMe", "COCO"])
def test_values_of_other_types_are_refused_with_the_files_name(tmp_path, kind):
    name = "images/p1.json" if kind == "LabelMe" else "annotations.json"
    whole = good.labelme(0) if kind == "LabelMe" else good.coco(good.STEMS)
    good.write_outlines(tmp_path / "data", name if kind == "COCO" else "images", lambda number: whole)
    n_refused = 0
    for place in places_in(whole):
        for wrong in WRONG if place else ():
            content = copy.deepcopy(whole)
            inner = functools.reduce(lambda part, key: part[key], place[:-1], content)
            inner[place[-1]] = wrong
            (tmp_path / "data" / name).write_text(json.dumps(content))
            errors = errors_of(tmp_path / "data")  # and nothing is raised
            assert "\x1b" not in errors
            n_refused += name in errors
    assert n_refused > 60


TYPES = {  # what is said of a value of another type: the file, and the field
    ("images/p1.json", "shapes", 0, "label"): ({"a": 1}, r"\(shape 1: .*found \{'a': 1\}, expected plain text\)"),
    ("images/p1.json", "shapes", 0, "points"): (5, r"\(shape 1: .*\): a shape lacks label or points"),
    ("images/p1.json", "shapes", 0, "points", 0, 0): (10**400, r"\(shape 1: .*int too large .*\): a shape lacks"),
    ("images/p1.json", "shapes", 1, "label"): ("a\x1b[2J", r"\(shape 2: .*found 'a\\x1b\[2J', expected plain"),
    ("annotations.json", "images", 0, "file_name"): ([], r"\(images: ValueError: found \[\], expected plain text\)"),
    ("annotations.json", "images", 0, "height"): ("24", r"\(24 x 36\): it lacks the image's size"),
    ("annotations.json", "annotations", 0, "segmentation"): (5, r"\(annotation 1, .*, segmentation: .*\): it is no"),
    ("annotations.json", "annotations", 0, "segmentation", 0, 1): (10**400, r"\(annotation 1, .*, segmentation: Over"),
}


@pytest.mark.parametrize("place", TYPES, ids=lambda place: ".".join(map(str, place)))
def test_a_value_of_another_type_is_named_with_its_field(tmp_path, place):
    (name, *place), (wrong, sentence) = place, TYPES[place]
    content = good.labelme(0) if "p1" in name else good.coco(good.STEMS)
    good.write_outlines(tmp_path / "data", "images" if "p1" in name else name, lambda number: content)
    content = copy.deepcopy(content)
    functools.reduce(lambda part, key: part[key], place[:-1], content)[place[-1]] = wrong
    (tmp_path / "data" / name).write_text(json.dumps(content))
    assert re.search(rf"{re.escape(name)} {sentence}", errors_of(tmp_path / "data"))


def test_a_file_that_two_splits_share_is_named_once(tmp_path):
    content = coco(boxes("train/", 0) | boxes("val/", 4))
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
    write(tmp_path / "data", images("train", "val") | {"annotations.json": content})
    assert errors_of(tmp_path / "data").count("annotations.json") == 1


def test_objects_of_images_that_are_not_there_are_not_looked_at(tmp_path):
    content = coco(boxes("", 0) | {"elsewhere.png": box_of(5)})
    content["annotations"][4]["segmentation"] = []
    write(tmp_path / "data", images("images") | {"annotations.json": content})
    assert errors_of(tmp_path / "data") == ""


def test_sizes_may_be_written_as_48_point_0(tmp_path):
    content = coco(boxes("", 0))
    content["images"] = [image | {"height": 24.0, "width": 36.0} for image in content["images"]]
    write(tmp_path / "data", images("images") | {"annotations.json": content})
    assert errors_of(tmp_path / "data") == ""
    content["images"][1]["height"] = 24.5
    write(tmp_path / "data", {"annotations.json": content})
    assert errors_of(tmp_path / "data").startswith("annotations.json (24.5 x 36.0): it lacks the image's size")


# ---- JSON that is there, but is not used ----

LABELME = good.labelme(0)
UNUSED = {  # file and content
    "another tool's": ("via.json", {"p.jpg1": {"regions": []}}),
    "a list": ("images/project.json", [{"annotations": []}]),
    "other names": ("result.json", coco({f"../upload/8f3a-{name}": box_of(0) for name in NAMES})),
    "no images": ("result.json", coco({})),
    "sentences": ("annotations/captions.json", BESIDE["captions_train.json"]),
    "LabelMe's elsewhere": ("annotations/0000.json", LABELME),
}


@pytest.mark.parametrize(("name", "content"), UNUSED.values(), ids=UNUSED)
def test_json_that_is_not_used_is_named_only_where_there_are_no_masks(tmp_path, name, content):
    write(tmp_path / "data", images("images") | {name: content})
    said = rf"images \({Path(name).name}\): found no masks .*LabelMe's JSON in masks/.*COCO's JSON with polygons"
    assert re.match(said, errors_of(tmp_path / "data"))
    write(tmp_path / "data", {"instances.json": coco(boxes("", 0))})
    assert errors_of(tmp_path / "data") == ""
    (tmp_path / "data" / "instances.json").unlink()
    for number, image in enumerate(NAMES):
        good.save(boxed(box_of(number)), tmp_path / "data" / "masks" / image)
    assert errors_of(tmp_path / "data") == ""


def test_a_test_may_do_without_masks_whatever_json_is_there(tmp_path):
    write(tmp_path / "data", images("train", "test") | {"train/a.json": coco(boxes("", 0)), "package.json": {"a": 1}})
    report = examine_folder(tmp_path / "data")
    assert report.errors == []
    assert "test: there are no masks for its images; they are left out" in report.warnings


# ---- shapes of LabelMe and its kin ----


def labelled(shape_type, points) -> dict:
    return good.labelme(0, shapes=[{"label": "car", "shape_type": shape_type, "points": points}])


TURNED = [[18, 2], [28, 12], [18, 22], [8, 12]]  # a square on its corner
CORNERS = good.corners((4, 3, 20, 15))
SHAPES = {  # kind and points that programs write; the points of the polygon that it is
    "rectangle of two points": ("rectangle", [[20, 15], [4, 3]], CORNERS),
    "rectangle of four points": ("rectangle", CORNERS, CORNERS),
    "rectangle of four points, row by row": ("rectangle", [[4, 3], [20, 3], [4, 15], [20, 15]], CORNERS),
    "turned rectangle": ("rotation", TURNED, TURNED),
    "turned rectangle, called a rectangle": ("rectangle", TURNED, TURNED),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "points", "polygon"), SHAPES.values(), ids=SHAPES)
def test_a_rectangle_is_what_all_of_its_points_span(tmp_path, kind, points, polygon):
    for name, each in (("data", labelled(kind, points)), ("expected", labelled("polygon", polygon))):
        content = {f"images/{image[:-4]}.json": each for image in NAMES}
        write(tmp_path / name, images("images") | content)
    read, expected = (
        masks_of(prepared.train, prepared.labels)
        for prepared in (prepare_folder(tmp_path / name) for name in ("data", "expected"))
    )
    np.testing.assert_array_equal(read["0000.png"], expected["0000.png"])
    y, x = np.indices(good.SIZE)
    inside = abs(x - 18) + abs(y - 12) < 9 if points is TURNED else (x >= 4) & (x <= 20) & (y >= 3) & (y <= 15)
    outside = abs(x - 18) + abs(y - 12) > 11 if points is TURNED else ~inside
    assert (read["0000.png"][inside] == 1).all()
    assert (read["0000.png"][outside] == 0).all()
