"""Outlines in JSON: each image gets its own, or the ambiguous file is named."""

import copy
import functools
import json
import re
import unicodedata
from pathlib import Path

import data_files as good
import numpy as np
import pytest

from unet_helpers.custom_data import prepare_folder
from unet_helpers.custom_data.annotations import draw, read_labelme
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
    """A COCO file of one car in each image {file_name: box}. Some programs write sizes as 24.0."""
    size = {"height": float(HEIGHT), "width": WIDTH}
    return {
        "images": [{"id": n, "file_name": name} | size for n, name in enumerate(boxes, 1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [sum(good.corners(b), [])]}
            for n, b in enumerate(boxes.values(), 1)
        ],
        "categories": [{"id": 1, "name": "car"}],
    } | more  # fmt: skip


def boxes(folder: str, first: int) -> dict[str, tuple]:
    """{file_name: box} of the four images; folder: in file_name, with its slash, or ""."""
    return {folder + name: box_of(first + n) for n, name in enumerate(NAMES)}


def images(*folders: str) -> dict:
    return {f"{folder}/{name}": None for folder in folders for name in NAMES}


def write(root, files: dict) -> Path:
    """Images for the names that end in .png, each another one, and JSON for the others {name: content}."""
    for number, (name, content) in enumerate(files.items()):
        path = root / name
        if path.suffix == ".png":
            good.save(good.make_image(number), path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
    return root


def masks_of(pairs, labels) -> dict[str, np.ndarray]:
    return {pair.image.name: decode_mask(pair.mask, labels)[..., 0] for pair in pairs}


def all_masks(root) -> dict[str, np.ndarray]:
    prepared = prepare_folder(root)
    return masks_of(good.pairs_of(prepared).values(), prepared.labels)


def errors_of(root) -> str:
    """All errors, a line each."""
    return "\n".join(good.report_of(root).errors)


TWO = {  # JSON files of two folders, whose images have the same names: 4 boxes of train, 4 others of val
    "COCO's names": {"instances_val2017.json": coco(boxes("", 4)), "instances_train2017.json": coco(boxes("", 0))},
    "a file in each folder": {
        "train/_annotations.coco.json": coco(boxes("", 0)), "val/_annotations.coco.json": coco(boxes("", 4)),
    },
    "a path of Windows in file_name": {
        "train/instances_val.json": coco(boxes("D:\\my\\val\\", 0)),
        "annotations/instances_val.json": coco(boxes("D:\\my\\train\\", 4)),
    },
}  # fmt: skip


@pytest.mark.parametrize(("number", "files"), list(enumerate(TWO.values())), ids=TWO)
def test_images_of_one_name_get_the_outlines_of_their_own_folder(tmp_path, number, files):
    inner = "/images" if number % 2 else ""
    prepared = prepare_folder(write(tmp_path / "data", images(f"train{inner}", f"val{inner}") | files))
    for pairs, first in ((prepared.train, 0), (prepared.validation, 4)):
        masks = masks_of(pairs, prepared.labels)
        assert sorted(masks) == NAMES
        for n, name in enumerate(NAMES):
            np.testing.assert_array_equal(masks[name], boxed(box_of(first + n)))


def test_a_file_that_names_no_split_is_for_all_of_them(tmp_path):
    """A Mac writes a letter and its dots as two characters."""
    there = {unicodedata.normalize("NFD", f"{'train' if n < 5 else 'val'}/Mühle {n}.png"): None for n in range(8)}
    content = coco({unicodedata.normalize("NFC", f"val2017/Mühle {n}.png"): box_of(n) for n in range(8)})
    masks = all_masks(write(tmp_path / "data", there | {"annotations/all.json": content}))
    for n in range(8):
        np.testing.assert_array_equal(masks[unicodedata.normalize("NFD", f"Mühle {n}.png")], boxed(box_of(n)))


A, B, ONE = coco(boxes("", 0)), coco(boxes("", 4)), coco(boxes("a/", 0))
RECORDS, RECORD = ONE["images"], A["images"][0]
TWICE = [{"id": 1, "name": "car"}, {"id": 1, "name": "bus"}]
OPEN = [  # folders of images, JSON files, and the sentence
    ("train val", {"annotations/instances_train.json": A}, r"val \(instances_train\.json\): found no masks .*split"),
    ("train val", {"annotations.json": A}, r"train/0000\.png, .*val/0000\.png.* not clear .*instances_train"),
    ("train val", {"all.json": coco(boxes("train/", 0) | boxes("val/", 4))}, r"train/0000.*val/0000.* not clear"),
    ("train", {"annotations/instances_val.json": A}, r"train \(instances_val\.json\): found no masks"),
    ("images", {"instances_train.json": A, "person_keypoints_train.json": A}, r".*person_keypoints.*that of instances"),
    (  # two records of a name, one of them without outlines
        "images", {"a.json": ONE | {"images": [*RECORDS, RECORD | {"id": 9, "file_name": "b/0000.png"}]}},
        r"images/0000\.png \(a\.json\).* not clear",
    ),
    ("images", {"annotations/a.json": A, "annotations/b.json": B}, r"images/0000\.png.*a\.json and b\.json.*clear"),
    ("images", {"images/0000.json": good.labelme(0), "a.json": ONE}, r"images/0000.*0000\.json and a\.json.*keep one"),
    ("images", {"a.json": ONE | {"images": [*RECORDS, RECORD | {"file_name": "9.png"}]}}, r"a\.json .*9\.png.*same id"),
    ("images", {"a.json": ONE | {"categories": TWICE}}, r"a\.json: two categories .*same id"),
]  # fmt: skip


@pytest.mark.parametrize(("folders", "files", "sentence"), OPEN)
def test_what_leaves_open_whose_an_outline_is_is_refused(tmp_path, folders, files, sentence):
    errors = errors_of(write(tmp_path / "data", images(*folders.split()) | files))
    assert len(errors.splitlines()) == 1
    assert re.match(sentence, errors), errors


def test_a_test_without_masks_does_not_get_those_of_training_and_no_json_matters(tmp_path):
    files = {"instances_train.json": A, "instances_val.json": B, "a.json": {"a": 1}}
    prepared = prepare_folder(write(tmp_path / "data", images("train", "val", "test") | files))
    assert [len(prepared.train), len(prepared.validation), len(prepared.test)] == [4, 4, 0]
    assert "test: there are no masks for its images; they are left out" in prepared.report.warnings


def test_captions_and_panoptic_masks_are_not_read(tmp_path):
    segments = {"image_id": 1, "file_name": "1.png", "segments_info": []}
    files = {
        "annotations/captions_train.json": A | {"annotations": [{"id": 1, "image_id": 1, "caption": "A car."}]},
        "annotations/panoptic_train.json": A | {"annotations": [segments]},
        "annotations/person_keypoints_train.json": A,
    }
    masks = all_masks(write(tmp_path / "data", images("images") | files))
    for number, name in enumerate(NAMES):
        np.testing.assert_array_equal(masks[name], boxed(box_of(number)))


def changed(key: str, value) -> dict:
    """COCO with another value of a key in the third annotation."""
    content = coco(boxes("", 0))
    content["annotations"][2][key] = value
    return content


SHAPES = r"\(annotation 3, 'car'"
BAD_COCO = [
    (changed("segmentation", []), rf"{SHAPES}\): expected polygons"),
    (changed("segmentation", [[1, 1, 9, 1, 9, 9, 1]]), rf"{SHAPES}\): .*three or more"),
    (changed("segmentation", [[1, 1, 9, 9]]), rf"{SHAPES}\): .*three or more"),
    (changed("segmentation", {"counts": "a0", "size": [24, 36]}), rf"{SHAPES}\): .*RLE"),
    (changed("iscrowd", 1), rf"{SHAPES}\): .*RLE"),
    (A | {"categories": []}, r"\(annotations: KeyError: 1\): .*whole COCO file"),
    (changed("image_id", 99), r"\(annotations: KeyError: 99\): .*whole COCO file"),
    (A | {"categories": [TWICE[0], {"id": "2", "name": "bus"}]}, r"\(categories: TypeError: .*\): .*export it again"),
    (A | {"images": [RECORD | {"height": 24.5}, *A["images"][1:]]}, r"\(24\.5 x 36\): .*two whole numbers"),
    (A | {"images": [image | {"height": WIDTH, "width": HEIGHT} for image in A["images"]]}, r": 36x24, .* 24x36\)"),
]


@pytest.mark.parametrize(("content", "sentence"), BAD_COCO)
def test_what_is_wrong_in_a_coco_file_is_said_once(tmp_path, content, sentence):
    of_val = {"val/9.png": None, "annotations/instances_val.json": coco({"9.png": box_of(1)})}
    write(tmp_path / "data", images("train") | {"annotations/instances_train.json": content} | of_val)
    errors = errors_of(tmp_path / "data")
    assert re.fullmatch(rf".*instances_train\.json ?{sentence}.*", errors), errors


def test_a_file_that_two_splits_share_is_named_once_and_only_for_images_that_are_there(tmp_path):
    content = coco(boxes("", 0) | boxes("v", 4))
    content["annotations"][4]["segmentation"] = []
    root = write(tmp_path / "data", images("train") | {"annotations.json": content})
    assert errors_of(root) == ""
    content["annotations"][0]["segmentation"] = []
    of_val = {f"val/v{name}": None for name in NAMES}
    assert errors_of(write(root, of_val | {"annotations.json": content})).count("annotations.json") == 1


WRONG = (None, 10**400, {"a": 1}, "\x1b[2J", float("inf"))


def places_in(content, place=()):
    """All places in a JSON, of each list only those in its first item."""
    yield place
    keys = content if isinstance(content, dict) else range(min(1, len(content))) if isinstance(content, list) else ()
    for key, value in ((key, content[key]) for key in keys):
        yield from places_in(value, (*place, key))


WHOLE = {"images/p1.json": good.labelme(0), "annotations.json": good.coco(good.STEMS)}


@pytest.mark.parametrize("name", WHOLE)
def test_values_of_other_types_are_refused_with_the_files_name(tmp_path, name):
    root = good.write_outlines(tmp_path / "data", "images" if "p1" in name else name, lambda number: WHOLE[name])
    n_refused = 0
    for place in filter(None, places_in(WHOLE[name])):
        for wrong in WRONG:
            content = copy.deepcopy(WHOLE[name])
            functools.reduce(lambda part, key: part[key], place[:-1], content)[place[-1]] = wrong
            errors = errors_of(write(root, {name: content}))  # and nothing is raised
            assert "\x1b" not in errors
            n_refused += bool(re.match(rf"{re.escape(name)} \(.*(shape|categories|images|annotation| x )", errors))
    assert n_refused > 30


TURNED = [[18, 2], [28, 12], [18, 22], [8, 12]]  # a square on its corner


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("rectangle", [[20, 15], [4, 3]]), ("rectangle", good.corners((4, 3, 20, 15))), ("rectangle", TURNED),
        ("polygon", good.corners((4, 3, 20, 15))), ("rotation", TURNED),
    ],
)  # fmt: skip
def test_a_shape_is_what_all_of_its_points_span(kind, points):
    shape = {"label": "car", "shape_type": kind, "points": points}
    read = np.asarray(draw(read_labelme(Path("p.json"), good.labelme(0, shapes=[shape])), ("background", "car")))
    y, x = np.indices(good.SIZE)
    inside = abs(x - 18) + abs(y - 12) < 9 if points is TURNED else (x >= 4) & (x <= 20) & (y >= 3) & (y <= 15)
    outside = abs(x - 18) + abs(y - 12) > 11 if points is TURNED else ~inside
    assert (read[inside] == 1).all()
    assert (read[outside] == 0).all()


def test_what_no_outline_covers_is_void_where_no_class_is_background():
    """Else all that nobody outlined would be learned as the first class."""
    shape = {"label": "car", "shape_type": "polygon", "points": good.corners((4, 3, 20, 15))}
    for names, outside in ((("sky", "car"), 255), (("Background", "car"), 0), (("car", "background"), 1)):
        read = np.asarray(draw(read_labelme(Path("p.json"), good.labelme(0, shapes=[shape])), names))
        assert (read[5, 10], read[20, 30]) == (names.index("car"), outside)
