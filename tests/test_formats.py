"""Exports of other tools: read where only a name differs, else named with a step that makes them readable."""

import json
import shutil
from pathlib import Path

import data_files as good
import numpy as np
import pytest
from test_annotations import box_of, boxed, boxes, coco

from unet_helpers.datasets import load_dataset
from unet_helpers.images import decode_mask

SPLITS = {"train": (0, 1, 2, 3), "val": (4, 5)}


def ids_of(dataset) -> dict[str, np.ndarray]:
    pairs = dataset.train + dataset.validation + dataset.test
    return {pair.image.stem: decode_mask(pair.mask, dataset.labels)[..., 0] for pair in pairs}


def write_pair(image: Path, mask: Path, number: int) -> None:
    good.save(good.make_image(number), image)
    good.save(good.make_ids(number, (0, 1, 2)), mask)


def assert_ids(dataset) -> None:
    """Each image has its own mask: the number is the last digit of the image's name."""
    found = ids_of(dataset)
    assert len(found) == 6
    for stem, ids in found.items():
        number = int([c for c in stem.split("_leftImg8bit")[0].removesuffix("_0000") if c.isdecimal()][-1])
        np.testing.assert_array_equal(ids, good.make_ids(number, (0, 1, 2)))


def refused(folder: Path) -> str:
    with pytest.raises(ValueError, match=str(folder)) as error:
        load_dataset("folder", folder)
    return str(error.value)


def labelme(number: int) -> dict:
    shape = {"label": "car", "points": good.corners(box_of(number)), "shape_type": "polygon"}
    shape["points"] = np.reshape(shape["points"], (-1, 2)).tolist()
    return {"shapes": [shape], "imageHeight": good.SIZE[0], "imageWidth": good.SIZE[1]}


def test_labelmes_json_beside_the_images_in_one_flat_folder(tmp_path):
    for n in range(6):
        good.save(good.make_image(n), tmp_path / "photos" / f"IMG_{n}.png")
        (tmp_path / "photos" / f"IMG_{n}.json").write_text(json.dumps(labelme(n)))
    for stem, ids in ids_of(load_dataset("folder", tmp_path / "photos")).items():
        np.testing.assert_array_equal(ids, boxed(box_of(int(stem[-1]))))


@pytest.mark.parametrize("above", ["VOCdevkit/VOC2012", "VOC2012", "."])
def test_the_pascal_challenge_as_it_is_unpacked(tmp_path, above):
    root = tmp_path / "data" / above
    for n in range(6):
        write_pair(root / "JPEGImages" / f"2007_{n}.png", root / "SegmentationClass" / f"2007_{n}.png", n)
    assert_ids(load_dataset("folder", tmp_path / "data"))
    shutil.copytree(root, tmp_path / "data" / "VOC2007")  # two of them: which one is meant?
    if above != ".":
        assert "found VOC" in refused(tmp_path / "data")


def test_coco_as_it_is_unpacked(tmp_path):
    for split, first in (("train2017", 0), ("val2017", 4)):
        for n, name in enumerate(boxes("", first)):
            good.save(good.make_image(first + n), tmp_path / split / name)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco(boxes("", first))))
    dataset = load_dataset("folder", tmp_path)
    assert (len(dataset.train), len(dataset.validation)) == (4, 4)
    for first, pairs in ((0, dataset.train), (4, dataset.validation)):
        for pair in pairs:
            ids = decode_mask(pair.mask, dataset.labels)[..., 0]
            np.testing.assert_array_equal(ids, boxed(box_of(first + int(pair.image.stem))))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("img/p{}.png", "masks_machine/p{}.png"),  # Supervisely's "Export as masks"
        ("imagesTr/p{}_0000.png", "labelsTr/p{}.png"),  # nnU-Net
    ],
)
def test_folders_that_only_have_another_name(tmp_path, image, mask):
    for n in range(6):
        write_pair(tmp_path / "data" / image.format(n), tmp_path / "data" / mask.format(n), n)
    assert_ids(load_dataset("folder", tmp_path / "data"))


def test_roboflows_list_of_classes(tmp_path):
    for split, numbers in (("train", (0, 1, 2, 3)), ("valid", (4, 5))):
        for n in numbers:
            path = tmp_path / "data" / split / f"p{n}"
            write_pair(path.with_suffix(".png"), path.with_name(f"p{n}_mask.png"), n)
        list_of_it = "Pixel Value, Class\n2, parked car\n0, background\n1, road\n"
        (tmp_path / "data" / split / "_classes.csv").write_text(list_of_it)
    dataset = load_dataset("folder", tmp_path / "data")
    assert dataset.labels.names == ("background", "road", "parked car")
    assert_ids(dataset)
    (tmp_path / "data" / "train" / "_classes.csv").write_text("Pixel Value, Class\n0, background\nx, road\n")
    with pytest.raises(ValueError, match=r"train/_classes\.csv, line 3: "):
        load_dataset("folder", tmp_path / "data")


def test_cityscapes_is_named_and_readable_after_the_step(tmp_path):
    root = tmp_path / "cityscapes"
    for split, numbers in SPLITS.items():
        for n in numbers:
            name = f"aachen_00000{n}"
            write_pair(
                root / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png",
                root / "gtFine" / split / "aachen" / f"{name}_gtFine_labelIds.png", n,
            )  # fmt: skip
            good.save(good.make_image(n), root / "gtFine" / split / "aachen" / f"{name}_gtFine_color.png")
    message = refused(root)
    assert "this is Cityscapes; copy leftImg8bit/train/*/*.png to train/images/" in message
    for split in SPLITS:
        parts = {"images": f"leftImg8bit/{split}/*/*.png", "masks": f"gtFine/{split}/*/*_labelIds.png"}
        for part, pattern in parts.items():
            (root / split / part).mkdir(parents=True)
            for path in root.glob(pattern):
                shutil.copy(path, root / split / part)
    assert_ids(load_dataset("folder", root))


def test_yolo_is_named_and_readable_after_the_tool(tmp_path):
    """What supervision 0.31 made of two polygons: polygons in COCO's JSON, beside images/ and labels/."""
    for name in boxes("", 0):
        good.save(good.make_image(0), tmp_path / "images" / name)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / name).with_suffix(".txt").write_text("0 0.1 0.1 0.4 0.1 0.4 0.6\n")
    assert "this is YOLO; turn its polygons into COCO's JSON with supervision" in refused(tmp_path)
    made = coco(boxes("", 0), info={}, licenses=[{"id": 1, "url": "", "name": ""}])
    for each in made["annotations"]:
        each |= {"area": 1.0, "segmentation": [each["segmentation"][0]], "iscrowd": 0}
    (tmp_path / "annotations.json").write_text(json.dumps(made))
    for stem, ids in ids_of(load_dataset("folder", tmp_path)).items():
        np.testing.assert_array_equal(ids, boxed(box_of(int(stem))))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("images/p1.png", "masks/task-7-annotation-3-by-1-tag-car-0.png"), "Label Studio's PNG per label; export it"),
        (("ds0/img/p1.png", "ds0/ann/p1.png.json", "meta.json"), "Supervisely; run Supervisely's app 'Export"),
        (("imagesTr/case_0000.nii.gz", "labelsTr/case.nii.gz"), "nnU-Net with volumes; write the slices as PNG"),
    ],
)
def test_other_formats_are_named_with_the_step(tmp_path, files, said):
    for name in files:
        if name.endswith(".png"):
            good.save(good.make_image(1), tmp_path / name)
        else:
            good.save_bytes(b"{}", tmp_path / name)
    assert f"this is {said}" in refused(tmp_path)


def test_a_folder_that_can_be_read_is_no_other_format(tmp_path):
    """Whatever else lies in it."""
    root = good.write_folder(tmp_path / "data")
    for name in ("meta.json", "ann/p.json", "labels/a.txt", "old/task-1-annotation-1-tag-a.png"):
        good.save_bytes(b"{}", root / name)
    assert len(ids_of(load_dataset("folder", root))) == 6
