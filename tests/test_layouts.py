"""Folders and names of a reader's own pictures and masks: which are paired, in which split, and which are refused."""

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from data_files import coco, drawn, labelme, make_ids, make_picture, prepare, read_as_training_does, save, splits_of
from PIL import Image, features

from unet_helpers.custom_data import ValidationError, prepare_folder
from unet_helpers.custom_data.layout import SPLIT_FOLDERS
from unet_helpers.custom_data.matching import match
from unet_helpers.datasets import check_pairs
from unet_helpers.images import decode_image, decode_mask

NUMBERS = range(1, 13)  # "1" is the beginning of "10", and the end of "11"
SPLITS = tuple(SPLIT_FOLDERS)


def write_pairs(root, picture, mask, numbers=NUMBERS):
    """Pairs of names with a number in them; no two pictures and no two masks are alike."""
    for n in numbers:
        if picture:
            save(make_picture(n), root / picture.format(n))
        if mask:
            save(make_ids(n % 12, (0, 1, 2)), root / mask.format(n))
    return root


def assert_pair(pair, labels, n):
    check_pairs([pair], labels)
    np.testing.assert_array_equal(decode_image(pair.image), make_picture(n))
    np.testing.assert_array_equal(decode_mask(pair.mask, labels)[..., 0], make_ids(n % 12, (0, 1, 2)))


FLAT = {
    "folders in capitals": ("IMAGES/p{}.png", "Masks/p{}.png"),
    "folders of PASCAL in other letters": ("jpegimages/p{}.png", "segmentationclass/p{}.png"),
    "imgs": ("imgs/p{}.png", "masks/p{}.png"),
    "img and mask": ("img/p{}.png", "mask/p{}.png"),
    "Image and Label": ("Image/p{}.png", "Label/p{}.png"),
    "labels": ("images/p{}.png", "labels/p{}.png"),
    "annotations": ("images/p{}.png", "Annotations/p{}.png"),
    "SegmentationClass": ("images/p{}.png", "SegmentationClass/p{}.png"),
    "a beginning of all masks": ("images/{}.png", "masks/gt_{}.png"),
    "a beginning of both": ("images/image_{}.png", "masks/mask_{}.png"),
    "a beginning that goes on": ("images/um_{}.png", "masks/um_road_{}.png"),
    "a beginning and zeros": ("images/image{:03}.png", "masks/mask{:03}.png"),
    "an ending that is a number": ("images/frame_{}.png", "masks/frame_{}_0.png"),
    "one folder": ("images/p{}.png", "images/p{}_mask.png"),
    "one folder, endings of both": ("images/{}_sat.png", "images/{}_MASK.png"),
}


@pytest.mark.parametrize("layout", FLAT)
def test_pairs_are_found_in_these_folders_and_names(tmp_path, layout):
    picture, mask = FLAT[layout]
    prepared = prepare(write_pairs(tmp_path / "data", picture, mask))
    pairs = prepared.train + prepared.validation + prepared.test
    assert {pair.image.name for pair in pairs} == {Path(picture.format(n)).name for n in NUMBERS}
    for pair in pairs:
        assert_pair(pair, prepared.labels, int(re.search(r"\d+", pair.image.stem)[0]))
    assert prepared.report.warnings == []


@pytest.mark.parametrize("layout", ["labels", "one folder"])
def test_json_of_another_kind_is_no_fault_where_masks_have_other_names(tmp_path, layout):
    root = write_pairs(tmp_path / "data", *FLAT[layout])
    (root / "info.json").write_text(json.dumps({"author": "somebody"}))
    prepared = prepare(root)
    assert len(prepared.train + prepared.validation + prepared.test) == len(NUMBERS)


SPLIT_LAYOUTS = {  # the folders of splits, picture, mask
    "splits in images/ and masks/": (("train", "val", "test"), "images/{}/p{{}}.png", "masks/{}/p{{}}.png"),
    "as ADE20K": (("training", "validation", "testing"), "images/{}/p{{}}.png", "annotations/{}/p{{}}.png"),
    "Images, Labels": (("Train", "Valid", "Test"), "Images/{}/{{}}.png", "Labels/{}/gt_{{}}.png"),
    "JPEGImages": (("train", "val", "test"), "JPEGImages/{}/p{{}}.png", "SegmentationClass/{}/p{{}}.png"),
    "in capitals": (("Train", "VAL", "Test"), "{}/images/p{{}}.png", "{}/masks/p{{}}.png"),
    "training": (("training", "validation", "testing"), "{}/images/p{{}}.png", "{}/masks/p{{}}.png"),
    "image and mask": (("train", "val", "test"), "{}/image/p{{}}.png", "{}/mask/p{{}}.png"),
    "as Roboflow": (("train", "valid", "test"), "{}/p{{}}_png.rf.0f3.png", "{}/p{{}}_png.rf.0f3_mask.png"),
    "masks in the pictures' folder": (("train", "val", "test"), "{}/p{{}}.png", "{}/labels/p{{}}.png"),
}


@pytest.mark.parametrize("layout", SPLIT_LAYOUTS)
def test_splits_are_found_in_these_folders(tmp_path, layout):
    names, picture, mask = SPLIT_LAYOUTS[layout]
    numbers = {"train": (1, 2, 3), "validation": (4, 5), "test": (6,)}
    for split, name in zip(SPLITS, names, strict=True):
        for place, n in enumerate(numbers[split]):  # the names in each split are the same
            save(make_picture(n), tmp_path / "data" / picture.format(name).format(place))
            save(make_ids(n, (0, 1, 2)), tmp_path / "data" / mask.format(name).format(place))
    prepared = prepare(tmp_path / "data")
    for split in SPLITS:
        pairs = sorted(getattr(prepared, split))
        assert len(pairs) == len(numbers[split])
        for pair, n in zip(pairs, numbers[split], strict=True):
            assert_pair(pair, prepared.labels, n)
    assert prepared.report.warnings == []


# ---- what was read before these folders and names were known is read the same ----


def test_the_usual_folders_are_taken_where_there_are_others(tmp_path):
    for number, (picture, mask, other) in enumerate((
        ("images/p{}.png", "masks/p{}.png", "labels/p{}.png"),
        ("images/p{}.png", "masks/p{}.png", "JPEGImages/p{}.png"),
        ("images/p{}.png", "SegmentationClass/p{}.png", "Annotations/p{}.png"),
        ("images/p{}.png", "masks/p{}.png", "imgs/p{}.png"),
        ("images/p{}.png", "masks/p{}.png", "train/p{}.png"),
        ("train/images/p{}.png", "train/masks/p{}.png", "imgs/p{}.png"),
        ("train/images/p{}.png", "train/masks/p{}.png", "training/images/p{}.png"),
        ("train/p{}.png", "train/masks/p{}.png", "train/imgs/p{}.png"),
    )):  # fmt: skip
        root = write_pairs(tmp_path / f"{number}" / "data", picture, mask)
        write_pairs(root, other, None, range(3, 9))
        pairs = prepare(root).train
        assert {pair.image.parent for pair in pairs} == {(root / picture).parent}
        assert {pair.mask.parent for pair in pairs} == {(root / mask).parent}


def test_outlines_are_taken_before_masks_in_a_folder_of_another_name(tmp_path):
    root = write_pairs(tmp_path / "data", "train/p{}.png", "train/labels/p{}.png", range(6))
    (root / "train" / "_annotations.coco.json").write_text(json.dumps(coco([f"p{n}" for n in range(6)])))
    prepared = prepare(root)
    expected = drawn(0, ("background", "parked car", "sky"))
    np.testing.assert_array_equal(read_as_training_does(prepared)["p0"][1], expected)


# ---- what is refused ----


def write(*pairs, numbers=range(1, 7)):
    return lambda root: [write_pairs(root, picture, mask, numbers) for picture, mask in pairs]


def frames(images, masks):
    """Numbers of the pictures and of the masks."""
    return lambda root: (
        write_pairs(root, "images/frame_{}.png", None, images), write_pairs(root, None, "masks/frame_{}.png", masks)
    )  # fmt: skip


def files(*names):
    def put(root):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"?")

    return put


def chain(*changes):
    return lambda root: [change(root) for change in changes]


P = "images/p{}.png"
REFUSED = {  # how the folder is made; each kind of fault that is said, in this order
    "another number is no ending": (
        frames(range(1, 7), range(15, 75, 10)),
        [r"images/frame_1\.png, .*frame_6\.png: it has no mask; .* add", r"masks/frame_15\.png, .*: it has no picture"],
    ),
    "another number is no ending, of pictures": (
        frames(range(10, 70, 10), range(1, 7)),
        [r"images/frame_10\.png, .*frame_60\.png: it has no mask", r"masks/frame_1\.png, .*: it has no picture of"],
    ),
    "another number is no beginning": (
        lambda root: (write_pairs(root, "images/{}.png", None, range(1, 7)),
                      write_pairs(root, None, "masks/1{}.png", range(1, 7))),
        [r"images/1\.png, images/2\.png, .*: it has no mask; .*", r"masks/11\.png, .*masks/16\.png: it has no picture"],
    ),
    "names that end in a number alike by chance": (
        write(("images/a{}.png", None), (None, "masks/task-{}-tag-car-1.png"), (None, "masks/task-{}-tag-road-1.png")),
        [r"images/a1\.png, .*a6\.png: it has no mask; .*", r"masks/task-1-tag-car-1\.png, .*: it has no picture"],
    ),
    "a mask for each class": (
        write((P, None), (None, "masks/p{}_car.png"), (None, "masks/p{}_road.png")),
        [r"images/p1\.png \(p1_car\.png, p1_road\.png\); images/p2\.png .*p6_road\.png\): several masks belong to it by"
         r" their names; merge them into one, or keep one kind of masks only"],
    ),
    "a mask for each class, told by the beginning": (
        write(("images/{}.png", None), (None, "masks/car_{}.png"), (None, "masks/road_{}.png"), numbers=NUMBERS),
        [r"images/1\.png \(car_1\.png, road_1\.png\); .*: several masks belong to it by their names; merge them into"],
    ),
    "masks as Cityscapes has them": (
        write(("images/{}_leftImg8bit.png", "masks/{}_gtFine_color.png"), (None, "masks/{}_gtFine_instanceIds.png"),
              (None, "masks/{}_gtFine_labelIds.png")),
        [r"images/1_leftImg8bit\.png \(1_gtFine_color\.png, 1_gtFine_instanceIds\.png, 1_gtFine_labelIds\.png\); .*: se"
         r"veral masks belong"],
    ),
    "a mask for each thing": (
        write((P, None), *[(None, f"masks/p{{}}_{k}.png") for k in range(6)]),
        [r"images/p1\.png \(p1_0\.png, p1_1\.png, p1_2\.png, p1_3\.png and 2 more\); .*: several masks belong to it"],
    ),
    "one mask too many": (
        chain(write((P, "masks/p{}.png")), write((None, "masks/p{}_ignore.png"), numbers=[3])),
        [r"data: images/p3\.png \(p3\.png, p3_ignore\.png\): several masks belong to it by their names; merge them"],
    ),
    "picture and mask of one stem in one folder": (
        write((P, None), ("images/p{}.bmp", None)),
        [r"images/p1\.png \(and p1\.bmp\); .*: two files have this stem, and there are no masks; if one of each is the "
         r"mask, move the masks to masks/"],
    ),
    "the same in folders of splits": (
        write(("train/p{}.png", None), ("train/p{}.bmp", None)),
        [r"train/p1\.png \(and p1\.bmp\); .*: two files have .*, move the masks to train/masks/"],
    ),
    "only masks in one folder": (
        write(("images/p{}_mask.png", None)),
        [r"images: found no masks, as picture files or as LabelMe or COCO JSON, beside it; put them into a folder mas"],
    ),
    "pictures straight in train/, masks beside it": (
        write(("train/p{}.png", "masks/p{}.png")),
        [r"train: found no masks, .* JSON, for its pictures; put them into a folder train/masks/"],
    ),
    "masks for one split only": (
        chain(write(("images/train/p{}.png", "masks/train/p{}.png")), write(("images/val/p{}.png", None))),
        [r"images/val: found no masks, .* JSON, for its pictures; put them into a folder masks/val/"],
    ),
    "folders of no splits": (
        write(("images/patient1/p{}.png", "masks/patient1/p{}.png"), ("images/patient2/p{}.png", None)),
        [r"data: images \(patient1, patient2\): found folders, but no pictures directly in it; expected pictures, or fo"
         r"lders train/ and val/ with pictures in each; move them"],
    ),
    "masks of one split in capitals": (
        chain(write(("Images/TRAIN/p{}.png", "MASKS/train/p{}.png")), write(("Images/Val/p{}.png", None))),
        [r"Images/Val: found no masks, .* JSON, for its pictures; put them into a folder MASKS/Val/"],
    ),
    "a folder to validate only": (
        write(("images/val/p{}.png", "masks/val/p{}.png")),
        [r"images \(val\): found folders, but no pictures directly in it; expected pictures, or folders train/"],
    ),
    "masks in folders of classes": (
        write((P, "masks/car/p{}.png"), (None, "masks/road/p{}.png")),
        [r"masks \(car, road\): found no masks, as picture files or as LabelMe or COCO JSON, in it; put them there"],
    ),
    "masks of NumPy": (
        chain(write((P, None)), files(*[f"masks/p{n}.npy" for n in range(6)])),
        [r"masks \(p0\.npy, p1\.npy, p2\.npy, p3\.npy and 2 more\): found no masks, as picture files or as LabelMe or"],
    ),
    "HEIC": (
        chain(write((None, "masks/p{}.png")), files(*[f"images/p{n}.HEIC" for n in range(1, 7)], "images/notes.txt")),
        [r"images \(p1\.HEIC, p2\.HEIC, p3\.HEIC, p4\.HEIC and 2 more\): found no picture that can be read; save these "
         r"files as PNG or JPEG"],
    ),
    "no pictures": (
        chain(write((None, "masks/p{}.png")), files("images/notes.txt")),
        [r"data: images: found no pictures in it; put them there"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_not_clear_is_refused_by_name(tmp_path, fault):
    change, sentences = REFUSED[fault]
    change(tmp_path / "data")
    with pytest.raises(ValidationError) as caught:
        prepare(tmp_path / "data")
    lines = caught.value.report.errors
    assert len(lines) == len(sentences), lines
    for line, sentence in zip(lines, sentences, strict=True):
        assert re.match(sentence.removeprefix("data: "), line), line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


AMBIGUOUS = {
    "two folders that may be masks/": (
        write((P, "labels/p{}.png"), (None, "annotations/p{}.png")),
        r"data: the folders annotations, labels could all be masks/; call the one that is meant masks/$",
    ),
    "as DRIVE: mask/ is where the camera saw anything": (
        write(("training/images/{}_training.png", "training/1st_manual/{}_manual1.png"),
              (None, "training/mask/{}_training_mask.png")),
        r"data/training: the folders 1st_manual, mask could all be masks/; call the one that is meant masks/$",
    ),
    "the same in folders of splits": (
        write(("images/train/p{}.png", "labels/train/p{}.png"), (None, "instances/train/p{}.png")),
        r"data: the folders instances, labels could all be masks/; call the one that is meant masks/$",
    ),
    "two folders that may be images/": (
        write(("Images/p{}.png", "masks/p{}.png"), ("imgs/p{}.png", None)),
        r"data: the folders Images, imgs could all be images/; call the one that is meant images/$",
    ),
    "two folders to train": (
        write(("Train/images/p{}.png", "Train/masks/p{}.png"), ("training/images/p{}.png", "training/masks/p{}.png")),
        r"data: the folders Train, training could all be train/; call the one that is meant train/$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_folders_that_could_be_the_same_are_refused(tmp_path, case):
    change, sentence = AMBIGUOUS[case]
    change(tmp_path / "data")
    with pytest.raises(ValueError, match=sentence):
        prepare(tmp_path / "data")


def test_only_the_pictures_with_several_masks_are_left_out(tmp_path):
    root = write_pairs(tmp_path / "data", P, "masks/p{}.png", range(1, 21))
    before = splits_of(prepare(root))
    write_pairs(root, None, "masks/p{}_car.png", [3, 16])
    after = splits_of(prepare(root, skip_bad=True))
    assert after == {split: [stem for stem in stems if stem not in ("p3", "p16")] for split, stems in before.items()}


@pytest.mark.parametrize(
    ("images", "masks", "pairs"),
    [
        ("1 10 11 100", "m1 m10 m11 m100", "1-m1 10-m10 11-m11 100-m100"),
        ("a.1 a.2", "a.1.png a.2.png", "a.1-a.1.png a.2-a.2.png"),
        ("x1 x2 x3", "x1_m x2_m y_m", "x1-x1_m x2-x2_m"),
        ("frame1 frame2", "frame12 frame22", ""),
        ("frame12 frame22", "frame1 frame2", ""),
        ("1 2", "31 32", ""),
        ("a", "a_mask", "a-a_mask"),  # one in a split
        ("x1 y2 z3", "x1_m", "x1-x1_m"),
        ("x1 y2 z3", "x1_m o_m p_m", ""),
        ("a b", "a_mask a_seg b_mask", "b-b_mask"),  # a has several
        ("p1 p2", "p1 p2 p1_2", "p2-p2"),
    ],
)
def test_names_that_are_paired(images, masks, pairs):
    mask_of, several = match(images.split(), masks.split())
    assert {f"{image}-{mask}" for image, mask in mask_of.items()} == set(pairs.split())
    assert set(several) <= {"a", "p1"}


# ---- lists, names of other systems, other files ----


@pytest.mark.parametrize("folder", ["ImageSets/Segmentation", "."])
def test_pictures_that_no_list_names_need_no_mask(tmp_path, folder):
    root = write_pairs(tmp_path / "data", "JPEGImages/p{}.png", "SegmentationClass/p{}.png", range(1, 7))
    write_pairs(root, "JPEGImages/q{}.png", None, range(1, 5))
    (root / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(ValidationError, match=r"JPEGImages/q1\.png, .*q4\.png: it has no mask"):
        prepare(root)
    (root / folder / "train.txt").write_text("p1\np2\nJPEGImages/p3.png\np4\n")
    with pytest.raises(ValidationError, match=r"JPEGImages/q1\.png, .*q4\.png: it has no mask"):
        prepare(root)  # a list alone is not used
    (root / folder / "val.txt").write_text("p5\np6\n")
    prepared = prepare(root)
    assert splits_of(prepared) == {"train": ["p1", "p2", "p3", "p4"], "validation": ["p5", "p6"], "test": []}
    left_out = ", ".join(f"JPEGImages/q{n}.png" for n in range(1, 5))
    assert prepared.report.warnings == [f"{left_out}: it has no mask and is in none of the lists; it is left out"]
    (root / folder / "val.txt").write_text("p5\np6\nq2.png\n")
    with pytest.raises(ValidationError) as caught:
        prepare(root)
    assert any(re.match(r"JPEGImages/q2\.png: it has no mask", line) for line in caught.value.report.errors)


@pytest.mark.parametrize(("of_pictures", "of_masks"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
@pytest.mark.parametrize("mask", ["masks/Mühle {}.png", "masks/Mühle {}_mask.png"])
def test_names_as_macs_write_them(tmp_path, of_pictures, of_masks, mask):
    picture = unicodedata.normalize(of_pictures, "images/Mühle {}.png")
    root = write_pairs(tmp_path / "data", picture, unicodedata.normalize(of_masks, mask))
    prepared = prepare(root)
    assert {pair.image.name for pair in prepared.train} <= {Path(picture).name.format(n) for n in NUMBERS}
    for pair in prepared.train:
        assert_pair(pair, prepared.labels, int(pair.image.stem.split()[1]))
    for split, numbers in (("train", range(1, 10)), ("val", range(10, 13))):
        lines = [unicodedata.normalize(of_masks, f"Mühle {n}") for n in numbers]
        (root / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    assert len(prepare(root).validation) == 3


@pytest.mark.parametrize(("of_pictures", "of_files"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_outlines_of_names_as_macs_write_them(tmp_path, of_pictures, of_files):
    root = write_pairs(tmp_path / "data", unicodedata.normalize(of_pictures, "images/{0} ü {0}.png"), None, range(6))
    for n in range(6):
        path = root / "masks" / unicodedata.normalize(of_files, f"{n} ü {n}.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(labelme(n)))
    read = read_as_training_does(prepare(root))
    expected = drawn(4, ("background", "parked car", "sky"))
    np.testing.assert_array_equal(read[unicodedata.normalize(of_pictures, "4 ü 4")][1], expected)


def test_pictures_in_folders_among_pictures_are_said(tmp_path):
    root = write_pairs(tmp_path / "data", P, "masks/p{}.png")
    write_pairs(root, "images/more/p{}.png", None)
    (root / "images" / "none").mkdir()
    assert prepare(root).report.warnings == [
        "images/more: it holds pictures, but folders among pictures are not looked at; move them up"
    ]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_pictures_are_read(tmp_path):
    root = write_pairs(tmp_path / "data", None, "masks/p{}.png")
    (root / "images").mkdir()
    for n in NUMBERS:
        Image.fromarray(make_picture(n)).save(root / "images" / f"p{n}.avif", quality=100)
    read = read_as_training_does(prepare(root))
    for n in NUMBERS:
        with Image.open(root / "images" / f"p{n}.avif") as image:
            np.testing.assert_array_equal(read[f"p{n}"][0], np.asarray(image.convert("RGB")))


def test_a_tiff_of_four_bands_is_said_to_be_grey_and_a_damaged_one_to_be_damaged(tmp_path):
    root = write_pairs(tmp_path / "data", P, "masks/p{}.png")
    save(np.zeros((24, 36, 4), np.uint8), tmp_path / "rgba.tif")
    content = (tmp_path / "rgba.tif").read_bytes()
    entry = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x02")  # PhotometricInterpretation = RGB
    (root / "images" / "p2.png").unlink()
    (root / "images" / "p2.tif").write_bytes(content[: entry + 8] + b"\x01" + content[entry + 9 :])
    sentence = (
        r"p2\.tif \(a TIFF with 4 channels of 8 bits that it calls grey, not RGB, expected 1, 3 or 4 of 8, or 1 of 16\)"
    )
    with pytest.raises(ValidationError, match=sentence):
        prepare_folder(root)
    compression = content.index(b"\x03\x01\x03\x00\x01\x00\x00\x00\x01")  # none
    (root / "images" / "p2.tif").write_bytes(content[: compression + 8] + b"\x09" + content[compression + 9 :])
    with pytest.raises(ValidationError, match=r"images/p2\.tif \((?!.*expected 1).+\): it can't be read as an image"):
        prepare_folder(root)
