"""Folders and names of a reader's own images and masks: which are paired, in which split, and which are refused."""

import re
import unicodedata
from pathlib import Path

import data_files as good
import numpy as np
import pytest
from PIL import Image, features

from unet_helpers.custom_data import ValidationError
from unet_helpers.custom_data.matching import match
from unet_helpers.datasets import check_pairs
from unet_helpers.images import decode_image, decode_mask
from unet_helpers.labels import SPLITS

NUMBERS = range(1, 13)  # "1" is the beginning of "10", and the end of "11"


def write_pairs(root, image, mask, numbers=NUMBERS):
    """Pairs of names with a number in them; no two images and no two masks are alike."""
    for n in numbers:
        if image:
            good.save(good.make_image(n), root / image.format(n))
        if mask:
            good.save(good.make_ids(n % 12, (0, 1, 2)), root / mask.format(n))
    return root


def assert_pair(pair, labels, n):
    check_pairs([pair], labels)
    np.testing.assert_array_equal(decode_image(pair.image), good.make_image(n))
    np.testing.assert_array_equal(decode_mask(pair.mask, labels)[..., 0], good.make_ids(n % 12, (0, 1, 2)))


FLAT = [
    ("jpegimages/p{}.png", "segmentationclass/p{}.png"),
    ("IMG/p{}.png", "mask/p{}.png"),
    ("images/p{}.png", "Annotations/p{}.png"),
    ("images/um_{}.png", "labels/um_road_{}.png"),
    ("images/image{:03}.png", "masks/mask{:03}.png"),
    ("images/frame_{}.png", "masks/frame_{}_0.png"),
    ("images/{}_leftImg8bit.png", "masks/{}_gtFine_labelIds.png"),
    ("images/{}_sat.png", "images/{}_MASK.png"),
]


@pytest.mark.parametrize(("image", "mask"), FLAT)
def test_pairs_are_found_in_these_folders_and_names(tmp_path, image, mask):
    root = write_pairs(tmp_path / "data", image, mask)
    prepared = good.prepare(root)
    pairs = prepared.train + prepared.validation + prepared.test
    assert {pair.image.name for pair in pairs} == {Path(image.format(n)).name for n in NUMBERS}
    for pair in pairs:
        assert_pair(pair, prepared.labels, int(re.search(r"\d+", pair.image.stem)[0]))
    assert prepared.report.warnings == []


SPLIT_LAYOUTS = [  # the folders of splits, image, mask
    ("training validation testing", "images/{}/p{{}}.png", "annotations/{}/p{{}}.png"),  # as ADE20K
    ("Train VAL Test", "{}/images/p{{}}.png", "{}/masks/gt_p{{}}.png"),
    ("train valid test", "{}/p{{}}_png.rf.0f3.png", "{}/p{{}}_png.rf.0f3_mask.png"),  # as Roboflow
    ("train val test", "{}/p{{}}.png", "{}/labels/p{{}}.png"),
]


@pytest.mark.parametrize(("names", "image", "mask"), SPLIT_LAYOUTS)
def test_splits_are_found_in_these_folders(tmp_path, names, image, mask):
    numbers = {"train": (1, 2, 3), "validation": (4, 5), "test": (6,)}
    for split, name in zip(SPLITS, names.split(), strict=True):
        for place, n in enumerate(numbers[split]):  # the names in each split are the same
            good.save(good.make_image(n), tmp_path / "data" / image.format(name).format(place))
            good.save(good.make_ids(n, (0, 1, 2)), tmp_path / "data" / mask.format(name).format(place))
    prepared = good.prepare(tmp_path / "data")
    for split in SPLITS:
        for pair, n in zip(sorted(getattr(prepared, split)), numbers[split], strict=True):
            assert_pair(pair, prepared.labels, n)
    assert prepared.report.warnings == []


OTHERS = [
    ("images/p{}.png", "SegmentationClass/p{}.png", "Annotations/p{}.png"),
    ("JPEGImages/p{}.png", "SegmentationClass/p{}.png", "train/p{}.png"),
    ("images/p{}.png", "masks/p{}.png", "img/p{}.png"),
]


@pytest.mark.parametrize(("image", "mask", "other"), OTHERS)
def test_the_usual_folders_are_taken_where_there_are_others(tmp_path, image, mask, other):
    root = write_pairs(tmp_path / "data", image, mask, range(6))
    write_pairs(root, other, None, range(3, 9))
    pairs = good.prepare(root).train
    assert {pair.image.parent for pair in pairs} == {(root / image).parent}
    assert {pair.mask.parent for pair in pairs} == {(root / mask).parent}


def write(*pairs, numbers=range(1, 7)):
    return lambda root: [write_pairs(root, image, mask, numbers) for image, mask in pairs]


P, chain = "images/p{}.png", good.chain_of
REFUSED = [  # how the folder is made; the only error, or the only two
    (  # another number is no ending
        chain(write(("images/frame_{}.png", None)), write((None, "masks/frame_{}.png"), numbers=range(15, 75, 10))),
        r"images/frame_1\.png, .*frame_6\.png: it has no mask.*\n.*masks/frame_15\.png, .*: it has no image",
    ),
    (write(("images/{}.png", "masks/car_{}.png"), (None, "masks/road_{}.png")), r"masks/(car|road)_1\.png, .*merge"),
    (chain(write((P, "masks/p{}.png")), write((None, "masks/p3_ignore.png"), numbers=[3])), "p3_ignore.*another"),
    (  # masks for one split only
        chain(write(("Images/TRAIN/p{}.png", "MASKS/train/p{}.png")), write(("Images/Val/p{}.png", None))),
        r"Images/Val: found no masks .* in MASKS/Val/",
    ),
    (
        write(("Train/images/p{}.png", "Train/masks/p{}.png"), ("training/images/p{}.png", "training/masks/p{}.png")),
        "the folders Train, training could all be train/",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED)
def test_what_is_not_clear_is_refused_by_name(tmp_path, change, sentence):
    change(tmp_path / "data")
    with pytest.raises(ValueError, match=sentence) as caught:
        good.prepare(tmp_path / "data")
    lines = str(caught.value).splitlines()
    assert len(lines) == (1 if r"\n" not in sentence else 3)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("images", "masks", "pairs"),
    [
        ("1 10 11 100", "m1 m10 m11 m100", "1-m1 10-m10 11-m11 100-m100"),
        ("x1 x2 x3", "x1_m x2_m y_m", "x1-x1_m x2-x2_m"),
        ("frame1 frame2", "frame12 frame22", ""),
        ("frame12 frame22", "frame1 frame2", ""),
        ("a1 a2 a3", "task-1-tag-car-1 task-2-tag-car-1 task-1-tag-road-1", ""),  # alike by chance
        ("a", "a_mask", "a-a_mask"),  # one in a split
        ("x1 y2 z3", "x1_m o_m p_m", ""),
        ("a b", "a_mask a_seg b_mask", "a-a_mask b-b_mask"),
        ("p1 p2", "p1 p2 p1_2", "p1-p1 p2-p2"),
    ],
)
def test_names_that_are_paired(images, masks, pairs):
    assert {f"{image}-{mask}" for image, mask in match(images.split(), masks.split()).items()} == set(pairs.split())


def test_images_that_no_list_names_need_no_mask(tmp_path):
    folder = "ImageSets/Segmentation"
    root = write_pairs(tmp_path / "data", "JPEGImages/p{}.png", "SegmentationClass/p{}.png", range(1, 7))
    write_pairs(root, "JPEGImages/q{}.png", None, range(1, 5))
    (root / folder).mkdir(parents=True)
    (root / folder / "train.txt").write_text("p1\np2\nJPEGImages/p3.png\np4\n")
    with pytest.raises(ValidationError, match=r"JPEGImages/q1\.png, .*q4\.png: it has no mask"):
        good.prepare(root)  # a list alone is not used
    (root / folder / "val.txt").write_text("p5\np6\n")
    prepared = good.prepare(root)
    assert good.splits_of(prepared) == {"train": ["p1", "p2", "p3", "p4"], "validation": ["p5", "p6"], "test": []}
    (note,) = prepared.report.warnings
    assert re.fullmatch(r"JPEGImages/q1\.png, .*q4\.png: .*in none of the lists; it is left out", note)
    (root / folder / "val.txt").write_text("p5\np6\nq2.png\n")
    with pytest.raises(ValidationError, match=r"JPEGImages/q2\.png: it has no mask"):
        good.prepare(root)


def test_names_as_macs_write_them(tmp_path):
    of_images, of_masks = "NFD", "NFC"
    image = unicodedata.normalize(of_images, "images/Mühle {}.png")
    root = write_pairs(tmp_path / "data", image, unicodedata.normalize(of_masks, "masks/Mühle {}_mask.png"))
    prepared = good.prepare(root)
    assert {pair.image.name for pair in prepared.train} <= {Path(image).name.format(n) for n in NUMBERS}
    for pair in prepared.train:
        assert_pair(pair, prepared.labels, int(pair.image.stem.split()[1]))
    for split, numbers in (("train", range(1, 10)), ("val", range(10, 13))):
        lines = [unicodedata.normalize(of_masks, f"Mühle {n}") for n in numbers]
        (root / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    assert len(good.prepare(root).validation) == 3


def test_images_in_folders_among_images_are_said(tmp_path):
    root = write_pairs(tmp_path / "data", P, "masks/p{}.png")
    write_pairs(root, "images/more/p{}.png", None)
    (note,) = good.prepare(root).report.warnings
    assert re.match("images/more: .*move the images in it up", note)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_images_are_read(tmp_path):
    root = write_pairs(tmp_path / "data", "images/p{}.avif", "masks/p{}.png", range(4))
    for stem, (image, _) in good.read_as_training_does(good.prepare(root)).items():
        with Image.open(root / "images" / f"{stem}.avif") as expected:
            np.testing.assert_array_equal(image, np.asarray(expected.convert("RGB")))
