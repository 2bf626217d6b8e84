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
    return masks_of(prepared.train + prepared.validation + prepared.test, prepared.labels)


def errors_of(root) -> str:
    """All errors, a line each."""
    before = good.look_at(root)
    errors = examine_folder(root).errors
    assert good.look_at(root) == before
    return "\n".join(errors)


# ---- which image an outline belongs to ----

TWO = {  # JSON files of two folders, whose images have the same names: 4 boxes of train, 4 others of val
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


@pytest.mark.parametrize(("number", "files"), list(enumerate(TWO.values())), ids=TWO)
def test_images_of_one_name_get_the_outlines_of_their_own_folder(tmp_path, number, files):
    inner = "/images" if number % 2 else ""
    prepared = prepare_folder(write(tmp_path / "data", images(f"train{inner}", f"val{inner}") | files))
    for pairs, first in ((prepared.train, 0), (prepared.validation, 4)):
        masks = masks_of(pairs, prepared.labels)
        assert sorted(masks) == NAMES
        for n, name in enumerate(NAMES):
            np.testing.assert_array_equal(masks[name], boxed(box_of(first + n)))


def test_names_that_are_one_folders_only_are_read_whatever_split_the_file_names(tmp_path):
    """Who splits COCO's images anew keeps its file."""
    there = {f"{'train' if n < 5 else 'val'}/{n:04}.png": None for n in range(8)}
    names = {f"val2017/{n:04}.png": box_of(n) for n in range(8)}
    masks = all_masks(write(tmp_path / "data", there | {"annotations/instances_val2017.json": coco(names)}))
    assert len(masks) == 8
    for number in range(8):
        np.testing.assert_array_equal(masks[f"{number:04}.png"], boxed(box_of(number)))


FOLDERS, ONE = ("train", "val"), coco(boxes("a/", 0))
UNCLEAR = ": it is not clear which outlines of this name belong to it; write the folder into their file_name"
OPEN = {  # folders of images, JSON files, and the sentence
    "the other split's file is not there": (
        FOLDERS, {"annotations/instances_train.json": coco(boxes("", 0))},
        rf"val/0000\.png, val/0001\.png, .*\(instances_train\.json\){UNCLEAR}",
    ),
    "nothing names a folder": (
        FOLDERS, {"annotations.json": coco(boxes("", 0))},
        rf"train/0000\.png, .*val/0000\.png.* \(annotations\.json\){UNCLEAR}",
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
    "LabelMe's and COCO's": (
        ("images",), {"images/0000.json": good.labelme(0), "a.json": ONE},
        rf"images/0000\.png \(0000\.json and a\.json\){UNCLEAR}, .* keep one of several files",
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
    errors = errors_of(write(tmp_path / "data", images(*folders) | files))
    assert len(errors.splitlines()) == 1
    assert re.match(sentence, errors), errors


def test_a_test_without_masks_does_not_get_those_of_training_and_no_json_matters(tmp_path):
    files = {"instances_train.json": coco(boxes("", 0)), "instances_val.json": coco(boxes("", 4)), "a.json": {"a": 1}}
    prepared = prepare_folder(write(tmp_path / "data", images("train", "val", "test") | files))
    assert [len(prepared.train), len(prepared.validation), len(prepared.test)] == [4, 4, 0]
    assert "test: there are no masks for its images; they are left out" in prepared.report.warnings


def test_names_of_a_mac_are_the_same_names(tmp_path):
    """It writes a letter and its dots as two characters; what exported the outlines may have written one."""
    names = [unicodedata.normalize("NFC", f"Mühle {n}.png") for n in range(4)]
    there = {f"images/{unicodedata.normalize('NFD', name)}": None for name in names}
    content = coco({name: box_of(n) for n, name in enumerate(names)})
    masks = all_masks(write(tmp_path / "data", there | {"annotations.json": content}))
    for number, name in enumerate(names):
        np.testing.assert_array_equal(masks[unicodedata.normalize("NFD", name)], boxed(box_of(number)))


# ---- other JSON files ----

JOINTS = {"id": 1, "name": "car", "keypoints": ["left", "right"], "skeleton": [[1, 2]]}
BESIDE = {
    "captions_train.json": coco(boxes("", 0), annotations=[{"id": 1, "image_id": 1, "caption": "A car."}]),
    "person_keypoints_train.json": coco(boxes("", 4), categories=[JOINTS]),
    "panoptic_train.json": coco(boxes("", 0), annotations=[{"image_id": 1, "file_name": "1.png", "segments_info": []}]),
}


def test_captions_and_joints_are_not_read_but_joints_alone_are(tmp_path):
    files = {f"annotations/{name}": content for name, content in BESIDE.items()}
    files |= {f"val/1{name}": None for name in NAMES} | {"val/instances.json": coco(boxes("1", 4))}
    instances = {"annotations/instances_train.json": coco(boxes("", 0))}
    alone = {"person_keypoints.json": BESIDE["person_keypoints_train.json"]}
    masks = all_masks(write(tmp_path / "data", images("train") | instances | files))
    masks_of_joints = all_masks(write(tmp_path / "joints", images("images") | alone))
    for number, name in enumerate(NAMES):
        np.testing.assert_array_equal(masks[name], boxed(box_of(number)))
        np.testing.assert_array_equal(masks_of_joints[name], boxed(box_of(4 + number)))


UNUSED = {  # file and content
    "another tool's": ("via.json", {"p.jpg1": {"regions": []}}),
    "a list": ("images/project.json", [{"annotations": []}]),
    "other names": ("result.json", coco({f"../upload/8f3a-{name}": box_of(0) for name in NAMES})),
    "captions": ("annotations/captions.json", BESIDE["captions_train.json"]),
    "LabelMe's elsewhere": ("annotations/0000.json", good.labelme(0)),
}


@pytest.mark.parametrize(("name", "content"), UNUSED.values(), ids=UNUSED)
def test_json_that_is_not_used_is_named_only_where_there_are_no_masks(tmp_path, name, content):
    root = write(tmp_path / "data", images("images") | {name: content})
    said = rf"images \({Path(name).name}\): found no masks .*LabelMe's JSON in masks/.*COCO's JSON with polygons"
    assert re.match(said, errors_of(root))
    write(root, {"instances.json": coco(boxes("", 0))})
    assert errors_of(root) == ""
    (root / "instances.json").unlink()
    for number, image in enumerate(NAMES):
        good.save(boxed(box_of(number)), root / "masks" / image)
    assert errors_of(root) == ""


# ---- what is in a file ----


def changed(key: str, *value) -> dict:
    """COCO with another value of a key in the third annotation, or without the key."""
    content = coco(boxes("", 0))
    del content["annotations"][2][key]
    content["annotations"][2] |= dict.fromkeys([key] * len(value), *value)
    return content


NO_OUTLINE = r"\(annotation 3, 'car'\): an object has a box but no outline"
IMAGES = coco(boxes("", 0))["images"]
TURNED_SIZES = [image | {"height": WIDTH, "width": HEIGHT} for image in IMAGES]
BAD_COCO = {
    "an empty outline": (changed("segmentation", []), NO_OUTLINE),
    "no outline": (changed("segmentation"), NO_OUTLINE),
    "an odd number": (changed("segmentation", [[1, 1, 9, 1, 9, 9, 1]]), r"\(annotation 3, 'car': 7 numbers\): .*x and"),
    "two points": (changed("segmentation", [[1, 1, 9, 9]]), r"\(annotation 3, 'car': 4 numbers\): .*three points"),
    "no category": (changed("category_id"), r"\(annotations: KeyError: 'category_id'\): it is no whole COCO file"),
    "of no image": (changed("image_id", 99), r"\(annotations: KeyError: 99\): it is no whole COCO file"),
    "ids of two kinds": (
        coco(boxes("", 0), categories=[{"id": 1, "name": "car"}, {"id": "2", "name": "bus"}]),
        r"\(categories: TypeError: .*\): it is no whole COCO file; export it again",
    ),
    "half a pixel": (
        coco(boxes("", 0), images=[IMAGES[0] | {"height": 24.5}, *IMAGES[1:]]),
        r"\(24\.5 x 36\): it lacks the image's size, expected two whole numbers",
    ),
    "sides exchanged": (coco(boxes("", 0), images=TURNED_SIZES), r": 36x24, .* 24x36\)"),
}


@pytest.mark.parametrize(("content", "sentence"), BAD_COCO.values(), ids=BAD_COCO)
def test_what_is_wrong_in_a_coco_file_is_said_once(tmp_path, content, sentence):
    write(tmp_path / "data", images("train", "val") | {"annotations/instances_train.json": content})
    for path in (tmp_path / "data" / "val").iterdir():
        path.unlink()
    write(tmp_path / "data", {"val/9.png": None, "annotations/instances_val.json": coco({"9.png": box_of(1)})})
    errors = errors_of(tmp_path / "data")
    assert re.fullmatch(rf".*instances_train\.json ?{sentence}.*", errors), errors


def test_a_file_that_two_splits_share_is_named_once_and_only_for_images_that_are_there(tmp_path):
    content = coco(boxes("train/", 0) | boxes("val/", 4))
    content["annotations"][4]["segmentation"] = []
    root = write(tmp_path / "data", images("train") | {"annotations.json": content})
    assert errors_of(root) == ""
    write(root, images("val"))
    content["annotations"][0]["segmentation"] = []
    assert errors_of(write(root, {"annotations.json": content})).count("annotations.json") == 1


WRONG = (None, -1, 10**400, "x", [], {"a": 1}, [[1]], "\x1b[2J", [None, None], float("nan"))


def places_in(content, place=()):
    """All places in a JSON, with those of the first of each list only."""
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
    assert n_refused > 60


# ---- shapes of LabelMe and its kin ----

TURNED = [[18, 2], [28, 12], [18, 22], [8, 12]]  # a square on its corner
CORNERS = good.corners((4, 3, 20, 15))
ROW_BY_ROW = [[4, 3], [20, 3], [4, 15], [20, 15]]


@pytest.mark.parametrize(
    ("kind", "points", "polygon"),
    [
        ("rectangle", [[20, 15], [4, 3]], CORNERS), ("rectangle", CORNERS, CORNERS),
        ("rectangle", ROW_BY_ROW, CORNERS), ("rotation", TURNED, TURNED), ("rectangle", TURNED, TURNED),
    ],
)  # fmt: skip
def test_a_rectangle_is_what_all_of_its_points_span(kind, points, polygon):
    read, expected = (
        np.asarray(draw(read_labelme(Path("p.json"), good.labelme(0, shapes=[shape])), ("background", "car")))
        for shape in (
            {"label": "car", "shape_type": kind, "points": points},
            {"label": "car", "shape_type": "polygon", "points": polygon},
        )
    )
    np.testing.assert_array_equal(read, expected)
    y, x = np.indices(good.SIZE)
    inside = abs(x - 18) + abs(y - 12) < 9 if points is TURNED else (x >= 4) & (x <= 20) & (y >= 3) & (y <= 15)
    outside = abs(x - 18) + abs(y - 12) > 11 if points is TURNED else ~inside
    assert (read[inside] == 1).all()
    assert (read[outside] == 0).all()
