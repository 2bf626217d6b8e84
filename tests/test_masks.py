import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    COLORS,
    KILLED,
    NAMED,
    REFUSED,
    SIZE,
    STEMS,
    STORED,
    all_masks,
    array,
    coco,
    corners,
    drawn,
    half_a_file,
    in_colors,
    in_picture_palette,
    labelme,
    listed,
    look_at,
    make_ids,
    make_picture,
    pairs_of,
    prepare,
    quantized,
    read_as_training_does,
    save,
    save_bytes,
    split_lists,
    splits_of,
    turned,
    write_folder,
    write_outlines,
)
from fuzzing import write_png
from limits import pipe
from PIL import Image, ImageOps

from unet_helpers import custom_data as masks
from unet_helpers.custom_data import (
    ValidationError,
    camvid_classes,
    examine_folder,
    find_classes,
    prepare_folder,
    prepare_pairs,
)
from unet_helpers.custom_data.report import wrap
from unet_helpers.custom_data.splits import cut_blocks, natural
from unet_helpers.images import decode_mask
from unet_helpers.labels import CAMVID, VOID

PALETTE = [*COLORS.ravel().tolist(), *[9] * (3 * 253)]


# ---- what is no file, or far too large ----


@pytest.mark.parametrize("name", ["images/p2.png", "masks/p2.png", "masks/p2.json"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    root = write_outlines(tmp_path / "data", "masks", labelme) if ".json" in name else write_folder(tmp_path / "data")
    (root / name).unlink()
    with pipe(root / name), pytest.raises(ValidationError, match=rf"{name}.*it is no file, but a folder, a pipe"):
        prepare_folder(root)


def test_a_link_to_a_device_is_refused_and_one_to_a_file_is_read(tmp_path):
    """/dev/null stands for /dev/zero, which has no end."""
    root = write_outlines(tmp_path / "data", "masks", labelme)
    before = prepare(root)
    for name in ("images/p3.png", "masks/p3.json"):
        (root / name).rename(tmp_path / Path(name).name)
        (root / name).symlink_to(tmp_path / Path(name).name)
    np.testing.assert_array_equal(read_as_training_does(prepare(root))["p3"][1], read_as_training_does(before)["p3"][1])
    (root / "masks" / "p2.json").unlink()
    (root / "masks" / "p2.json").symlink_to("/dev/null")
    with pytest.raises(ValidationError, match=r"masks/p2\.json \(it is no file, but a folder, a pipe or a device\)"):
        prepare(root)


def test_json_that_is_too_large_is_not_read(tmp_path):
    root = write_outlines(tmp_path / "data", "masks", labelme)
    os.truncate(root / "masks" / "p2.json", (1 << 30) + 1)  # takes no room on the disk
    with pytest.raises(ValidationError, match=r"masks/p2\.json \(it has 1,073,741,825 bytes, at most 1,073,741,824"):
        prepare_folder(root)


# ---- the same masks in every encoding ----


def in_channels(*channels):
    """Masks of several channels: each is the ids' array times a number, or a constant."""
    return lambda ids: np.stack([ids * 0 + c if c > 1 else ids * np.uint8(c) for c in channels], axis=-1)


def palette(suffix):
    def write(ids, path):
        image = Image.fromarray(ids)
        image.putpalette(PALETTE)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path.with_name(path.name + suffix), optimize=False)

    return write


def low_bits(ids, path):
    save_bytes(write_png(np.where(ids == VOID, 15, ids)[..., None], depth=4, color_type=0), path.with_suffix(".png"))


def deep_rgb(ids, path, factors=(1, 0, 0)):
    samples = np.stack([ids * np.uint8(factor) for factor in factors], -1).astype(np.uint16)
    save_bytes(write_png(samples, depth=16, color_type=2), path.with_suffix(".png"))


def as_csv(root):
    (root / "class_dict.csv").write_text(
        "name, r, g, b\n road ,128,64, 128\nparked car,0, 0,142\nsky, 70,130,180 \nVoid,0,0,0\n\n"
    )


def as_labelmap(root):
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nroad:128,64,128::\nparked car:0,0,142::\nsky:70,130,180::\nvoid:0,0,0::\n"
    )


ENCODINGS = {  # how a mask is written; classes.txt, or what writes another list
    "ids in one channel": (array(".png"), None),
    "ids in red, RGB": (array(".png", in_channels(1, 0, 0)), None),
    "ids in red, RGBA": (array(".png", in_channels(1, 0, 0, 255)), None),
    "ids in grey RGB": (array(".png", in_channels(1, 1, 1)), None),
    "ids in grey with alpha": (array(".png", lambda ids: ids, "LA"), None),
    "ids in one channel, one of them transparent": (array(".png", transparency=1), None),
    "16 bits": (array(".png", lambda ids: np.where(ids == VOID, np.uint16(0xFFFF), ids)), None),
    "16 bits, void 255": (array(".png", lambda ids: ids.astype(np.uint16)), None),
    "16 bits, 8 spread over them": (array(".png", lambda ids: ids.astype(np.uint16) * 257), None),
    "16 bits, TIFF": (array(".tif", lambda ids: ids.astype(np.uint16)), None),
    "16 bits, RGB": (deep_rgb, None),
    "16 bits, grey in RGB": (lambda ids, path: deep_rgb(ids, path, (1, 1, 1)), None),
    "16 bits, ids times 256": (array(".png", lambda ids: ids.astype(np.uint16) * 256), None),
    "4 bits": (low_bits, "\n".join(["road", "parked car", "sky", *map(str, range(3, 15)), "void"])),
    "palette PNG": (palette(".png"), None),
    "palette GIF": (palette(".gif"), None),
    "palette BMP": (palette(".bmp"), None),
    "palette TIFF": (palette(".tif"), None),
    "GIF of ids": (array(".gif"), None),
    "BMP of ids": (array(".bmp"), None),
    "TIFF of ids": (array(".tif"), None),
    "TIFF of ids, compressed": (array(".tiff", compression="tiff_lzw"), None),
    "BMP, ids in red": (array(".bmp", in_channels(1, 0, 0)), None),
    "from 1": (array(".png", lambda ids: np.where(ids == VOID, VOID, ids + 1).astype(np.uint8)), None),
    "from 1, in red": (array(".png", lambda i: in_channels(1, 0, 0)(np.where(i == VOID, i, i + 1).astype("u1"))), None),
    "from 1, GIF": (array(".gif", lambda ids: np.where(ids == VOID, VOID, ids + 1).astype(np.uint8)), None),
    "colours, classes.txt": (array(".png", in_colors), NAMED),
    "colours, classes.txt with #RRGGBB": (array(".png", in_colors), NAMED.replace("70,130,180", "#4682b4")),
    "colours, class_dict.csv": (array(".png", in_colors), as_csv),
    "colours, labelmap.txt": (array(".png", in_colors), as_labelmap),
    "colours, RGBA": (array(".png", in_colors, "RGBA"), NAMED),
    "colours, BMP": (array(".bmp", in_colors), NAMED),
    "colours, TIFF": (array(".tif", in_colors), NAMED),
    "colours in a palette of each file": (quantized(".png"), NAMED),
    "colours, GIF": (quantized(".gif"), NAMED),
    "grey levels, listed": (
        array(".png", lambda ids: np.uint8([10, 120, 240])[np.minimum(ids, 2)] * (ids != VOID)),
        "road 10,10,10\nparked car 120,120,120\nsky 240,240,240\nvoid 0,0,0\n",
    ),
    "suffix _mask": (array("_mask.gif"), None),
    "suffix _L": (array("_L.png"), None),
    "the picture's name and .png": (array(".png.png"), None),
    "suffix in capitals": (array(".PNG"), None),
}  # fmt: skip
KEPT = ("ids in one channel", "ids in red, RGB", "ids in red, RGBA", "suffix _L", "the picture's name and .png",
        "suffix in capitals")  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_masks_in_every_encoding_have_the_same_ids(tmp_path, encoding):
    save_mask, classes = ENCODINGS[encoding]
    root = write_folder(
        tmp_path / "data", save_mask, classes=None if callable(classes) else classes or "road\nparked car\nsky"
    )
    if callable(classes):
        classes(root)
    prepared = prepare(root)
    assert prepared.labels.names[:3] == ("road", "parked car", "sky")
    read = read_as_training_does(prepared)
    assert read.keys() == set(STEMS)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read[stem][1], make_ids(number), encoding)
    kept = {pair.mask.parent == root / "masks" for pair in pairs_of(prepared).values()}
    assert kept == {encoding in KEPT}
    assert {pair.image.parent for pair in pairs_of(prepared).values()} == {root / "images"}


BACK_AND_FRONT = {  # masks of two classes: how they are written; the ids are 0 and 1
    "0 and 255": array(".png", lambda ids: ids * np.uint8(255)),
    "0 and 255, RGB": array(".png", lambda ids: ids * np.uint8(255), "RGB"),
    "0 and 255, GIF": array(".gif", lambda ids: ids * np.uint8(255)),
    "0 and 255, 16 bits": array(".png", lambda ids: ids * np.uint16(65535)),
    "1 bit": array(".png", lambda ids: ids.astype(bool)),
    "1 bit, BMP": array(".bmp", lambda ids: ids.astype(bool)),
    "1 bit, TIFF": array(".tif", lambda ids: ids.astype(bool)),
    "0 and 1": array(".png"),
    "black and red": array(".png", lambda ids: in_channels(1, 0, 0)(ids * np.uint8(255))),
}


@pytest.mark.parametrize("encoding", BACK_AND_FRONT)
@pytest.mark.parametrize("classes", [None, "nothing\ncell\n"])
def test_two_classes_in_every_encoding(tmp_path, encoding, classes):
    prepared = prepare(write_folder(tmp_path / "data", BACK_AND_FRONT[encoding], classes=classes, values=(0, 1, 1, 1)))
    unnamed = ("class 0", "class 1") if encoding == "0 and 1" else ("background", "foreground")
    assert prepared.labels.names == (("nothing", "cell") if classes else unnamed)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], make_ids(number, (0, 1, 1, 1)))
    if encoding.startswith("0 and 255"):
        assert ["0 and 255 in all masks", " 0 is 'nothing', the other 'cell'"][0] in prepared.report.table()


def test_255_is_void_as_soon_as_one_mask_holds_more_than_0_and_255(tmp_path):
    root = write_folder(tmp_path / "data", classes="road\ncar\n", values=(0, VOID))
    save(make_ids(0, (0, 1, VOID)), root / "masks" / "p3.png")
    ids = read_as_training_does(prepare(root))
    assert {stem: sorted(set(ids[stem][1].ravel().tolist())) for stem in ("p1", "p3")} == {
        "p1": [0, VOID], "p3": [0, 1, VOID],
    }  # fmt: skip


def test_ids_without_0_are_from_1_only_if_the_number_of_classes_occurs(tmp_path):
    root = write_folder(tmp_path / "data", values=(1, 2, VOID))
    np.testing.assert_array_equal(read_as_training_does(prepare(root))["p1"][1], make_ids(0, (1, 2, VOID)))


def test_without_a_list_the_values_found_are_the_classes(tmp_path):
    prepared = prepare(write_folder(tmp_path / "data", classes=None, values=(3, 7, 41, VOID)))
    assert prepared.labels.names == ("class 3", "class 7", "class 41")
    table = np.full(256, VOID, np.uint8)
    table[[3, 7, 41]] = 0, 1, 2
    for number, stem in enumerate(STEMS):
        expected = table[make_ids(number, (3, 7, 41, VOID))]
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], expected)


@pytest.mark.parametrize(("values", "own_order"), [((1, 2, 2, VOID), False), ((0, 41, 120, VOID), True)])
def test_greys_of_a_palette_are_the_values_wherever_they_stand_in_it(tmp_path, values, own_order):
    """Programs that make files small leave out greys that do not occur, or put the commonest first."""

    def save_mask(ids, path):
        greys = np.unique(values).astype(np.uint8)
        order = np.random.default_rng(ids.sum()).permutation(len(greys)) if own_order else np.arange(len(greys))
        image = Image.fromarray(np.argsort(order)[np.searchsorted(greys, ids)].astype(np.uint8))
        image.putpalette(greys[order].repeat(3).tolist())
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path.with_suffix(".png"))

    prepared = prepare(write_folder(tmp_path / "data", save_mask, classes=None, values=values))
    known = sorted({*values} - {VOID})
    assert prepared.labels.names == tuple(f"class {value}" for value in known)
    table = np.full(256, VOID, np.uint8)
    table[known] = range(len(known))
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], table[make_ids(number, values)])


def test_masks_of_one_bit_among_others_hold_the_ids_0_and_1(tmp_path):
    root = write_folder(tmp_path / "data", classes=None, values=(0, 2))
    save(make_ids(0, (0, 1)).astype(bool), root / "masks" / "p1.png")
    prepared = prepare(root)
    assert prepared.labels.names == ("class 0", "class 1", "class 2")
    read = read_as_training_does(prepared)
    np.testing.assert_array_equal(read["p1"][1], make_ids(0, (0, 1)))
    np.testing.assert_array_equal(read["p2"][1], make_ids(1, (0, 2)))


# ---- the same pictures in every kind of file ----


def grey(picture):
    return picture[..., 0]


def deep_png(bits, color_type):
    def write(picture, path):
        values = picture.astype(np.uint16)
        samples = values * 257 if bits == 16 else values << (bits - 8)
        save_bytes(
            write_png(samples[..., :1] if color_type == 0 else samples, 16, color_type), path.with_suffix(".png")
        )

    return write


def deep_alpha(picture, path):
    """12 of 16 bits, and opaque throughout: what is opaque tells nothing of how bright the picture is."""
    samples = np.dstack([picture.astype(np.uint16) << 4, np.full(SIZE, 0xFFFF, np.uint16)])
    save_bytes(write_png(samples, 16, 6), path.with_suffix(".png"))


PICTURES = {  # how a picture is written; whether it is grey; whether training reads the file as it is
    "PNG": (array(".png"), False, True),
    "PNG, RGBA": (array(".png", lambda p: np.dstack([p, p[..., 0]])), False, True),
    "PNG, grey": (array(".png", grey), True, True),
    "PNG, grey with alpha": (array(".png", lambda p: p[..., 0], "LA"), True, True),
    "PNG, palette": (in_picture_palette(".png"), False, True),
    "PNG, palette with a transparent colour": (in_picture_palette(".png", transparency=3), False, False),
    "PNG, animated": (in_picture_palette(".png", save_all=True), False, False),
    "PNG, 16 bits grey": (deep_png(16, 0), True, False),
    "PNG, 16 bits RGB": (deep_png(16, 2), False, False),
    "PNG, 12 of 16 bits, grey": (deep_png(12, 0), True, False),
    "PNG, 12 of 16 bits, RGB": (deep_png(12, 2), False, False),
    "TIFF": (array(".tif"), False, False),
    "TIFF, compressed": (array(".tif", compression="tiff_lzw"), False, False),
    "TIFF, CMYK": (array(".tif", lambda p: p, "CMYK"), False, False),
    "TIFF, 16 bits": (array(".tif", lambda p: p[..., 0].astype(np.uint16) * 257), True, False),
    "TIFF, 12 of 16 bits": (array(".tif", lambda p: p[..., 0].astype(np.uint16) * 16), True, False),
    "PNG, 12 of 16 bits, RGBA": (deep_alpha, False, False),
    "PNG, EXIF data damaged": (array(".png", exif=b"Exif\0\0no header of a TIFF"), False, True),
    "TIFF, colour profile damaged": (array(".tif", icc_profile=b"no profile"), False, False),
    "TIFF, pages": (in_picture_palette(".tif", save_all=True), False, False),
    "BMP": (array(".bmp"), False, True),
    "BMP, palette": (in_picture_palette(".bmp"), False, False),
    "GIF, animated": (in_picture_palette(".gif", save_all=True), False, False),
    "WEBP": (array(".webp", lossless=True), False, False),
    "PPM": (array(".ppm"), False, False),
    "JPEG suffix, PNG inside": (array(".jpg", format="PNG"), False, True),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_the_same_pictures_in_every_kind_of_file_have_the_same_pixels(tmp_path, kind):
    write, is_grey, as_it_is = PICTURES[kind]

    def save_picture(picture, path):
        # Two hundred colours: a palette holds them, and GIF
        write(np.repeat(picture[..., :1], 3, 2) if is_grey else picture, path)

    root = write_folder(tmp_path / "data", save_picture=save_picture)
    prepared = prepare(root)
    read = read_as_training_does(prepared)
    for number, stem in enumerate(STEMS):
        expected = np.repeat(make_picture(number)[..., :1], 3, 2) if is_grey else make_picture(number)
        np.testing.assert_array_equal(read[stem][0], expected, kind)
    assert {pair.image.parent == root / "images" for pair in pairs_of(prepared).values()} == {as_it_is}
    if not as_it_is:  # what is written is pixels and nothing that another program could take for more
        with Image.open(prepared.train[0].image) as image:
            assert (image.mode, image.info) == ("RGB", {})
    assert {pair.mask.parent for pair in pairs_of(prepared).values()} == {root / "masks"}


def test_a_phones_jpeg_with_more_pictures_behind_it_is_taken_as_it_is(tmp_path):
    """An MPO: a preview or a depth map follows, which no viewer shows."""
    others = [Image.new("RGB", SIZE[::-1], "red")]
    write = array(".jpg", format="MPO", save_all=True, append_images=others, quality=95)
    prepared = prepare(write_folder(tmp_path / "data", save_picture=write))
    assert prepared.report.warnings == []
    assert prepared.report.converted == {}
    for number, (picture, _) in enumerate(read_as_training_does(prepared).values()):
        assert np.abs(picture.astype(int) - make_picture(number)).mean() < 70  # noise; red would be 130


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_pictures_are_read_as_pillow_reads_them(tmp_path, mode):
    root = write_folder(tmp_path / "data", save_picture=array(".jpg", lambda p: p, mode, quality=95))
    prepared = prepare(root)
    read = read_as_training_does(prepared)
    for stem, pair in pairs_of(prepared).items():
        with Image.open(root / "images" / f"{stem}.jpg") as image:
            expected = np.asarray(image.convert("RGB")).astype(int)
        limit = 0 if mode == "CMYK" else 16  # TensorFlow's decoder of JPEG is coarser
        assert np.abs(read[stem][0] - expected).mean() <= limit
        assert (pair.image.parent == root / "images") == (mode != "CMYK")


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("mask_is", ["upright", "stored", "turned by EXIF of its own"])
def test_a_picture_and_its_mask_are_upright(tmp_path, orientation, suffix, mask_is):
    """However the picture is stored and whatever has drawn the mask, where sizes tell; else the mask is upright."""
    options = {"lossless": True} if suffix == ".webp" else {}
    exif = Image.Exif()
    exif[0x0112] = orientation
    store = STORED[orientation]

    def save_picture(picture, path):
        save(store(picture), path.with_name(path.name + suffix), exif=exif, **options)

    def save_mask(ids, path):
        if mask_is == "turned by EXIF of its own":
            save(store(ids), path.with_suffix(".png"), exif=exif)
        else:
            save(store(ids) if mask_is == "stored" and orientation >= 5 else ids, path.with_suffix(".png"))

    root = write_folder(tmp_path / "data", save_mask, save_picture)
    with Image.open(root / "images" / f"p1{suffix}") as image:
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(image)), make_picture(0))
    prepared = prepare(root)
    read = read_as_training_does(prepared)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read[stem][0], make_picture(number))
        np.testing.assert_array_equal(read[stem][1], make_ids(number))
    said = any("does not tell whether its mask is turned" in line for line in prepared.report.warnings)
    assert said == (orientation in (2, 3, 4))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_mask_of_16_bits_is_turned_by_exif_of_its_own(tmp_path, orientation):
    def save_mask(ids, path):
        turned(orientation, ".png")(ids.astype(np.uint16), path)

    prepared = prepare(write_folder(tmp_path / "data", save_mask))
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], make_ids(number))


def test_masks_of_both_kinds_tell_nothing_of_those_upside_down(tmp_path):
    """One was made of stored pixels, one of the upright picture: the third is taken as upright."""
    root = write_folder(tmp_path / "data")
    for stem, orientation in (("p1", 6), ("p2", 6), ("p3", 3)):
        turned(orientation, ".png")(make_picture(int(stem[1]) - 1), root / "images" / stem)
    save(STORED[6](make_ids(0)), root / "masks" / "p1.png")
    prepared = prepare(root)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], make_ids(number))
    assert [line for line in prepared.report.warnings if "images/p3.png" in line and "taken as upright" in line]


def test_masks_of_stored_pixels_tell_how_to_take_those_upside_down(tmp_path):
    orientations = iter([6, 8, 3, 1, 6, 3])
    current = []

    def save_picture(picture, path):
        current[:] = [next(orientations)]
        turned(current[0], ".png")(picture, path)

    root = write_folder(
        tmp_path / "data", lambda ids, p: save(STORED[current[0]](ids), p.with_suffix(".png")), save_picture
    )
    prepared = prepare(root)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], make_ids(number))
    assert any("images/p3.png, images/p6.png: " in w and "taken as stored" in w for w in prepared.report.warnings)


# ---- outlines ----


@pytest.mark.parametrize(
    "where", ["images", "masks", "annotations.json", "annotations/instances.json", "images/_annotations.coco.json"]
)
@pytest.mark.parametrize("classes", [None, "sky\nbackground\nparked car\n", "parked car\nsky\n"])
def test_outlines_are_drawn(tmp_path, where, classes):
    root = write_outlines(tmp_path / "data", where, lambda n: coco(STEMS) if ".json" in where else labelme(n))
    if classes:
        (root / "classes.txt").write_text(classes)
    prepared = prepare(root)
    names = tuple(classes.splitlines()) if classes else ("background", "parked car", "sky")
    assert prepared.labels.names == names
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], drawn(number, names))


@pytest.mark.parametrize("name", ["void", "Void"])
@pytest.mark.parametrize("where", ["images", "annotations.json"])
@pytest.mark.parametrize("listed", [False, True])
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


def test_one_coco_file_may_be_for_several_splits(tmp_path):
    """Each takes the pictures that it has; a LabelMe file that lies above belongs to no picture."""
    root = tmp_path / "data"
    for split, stems in (("train", STEMS[:4]), ("val", STEMS[4:])):
        for stem in stems:
            save(make_picture(STEMS.index(stem)), root / split / "images" / f"{stem}.png")
    (root / "annotations.json").write_text(json.dumps(coco(STEMS)))
    (root / "p1.json").write_text(json.dumps(labelme(3)))
    (root / "train" / "p2.json").write_text(json.dumps(labelme(3)))
    prepared = prepare(root)
    assert splits_of(prepared) == {"train": STEMS[:4], "validation": STEMS[4:], "test": []}
    names = ("background", "parked car", "sky")
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], drawn(number, names))


def test_outlines_and_pictures_of_masks_are_not_mixed(tmp_path):
    root = tmp_path / "data"
    for split in ("train", "val"):
        write_stems(root / split, STEMS)
    for number, stem in enumerate(STEMS):
        (root / "val" / "masks" / f"{stem}.png").unlink()
        (root / "val" / "masks" / f"{stem}.json").write_text(json.dumps(labelme(number)))
    with pytest.raises(
        ValueError, match=r"train/masks/p1\.png: it is a picture, but other masks are outlines in JSON; make all of one"
    ):
        prepare(root)


# ---- what is refused ----


@pytest.mark.parametrize("fault", REFUSED)
def test_each_fault_is_named_with_its_file_and_what_to_do(tmp_path, fault):
    change, sentence = REFUSED[fault]
    root = write_folder(tmp_path / "data")
    change(root)
    with pytest.raises(ValueError, match=sentence) as caught:
        prepare(root)
    assert type(caught.value) in (ValueError, ValidationError)
    assert str(caught.value).startswith(str(root))
    assert len(str(caught.value).splitlines()) == 1, caught.value
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # nothing is left beside it


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_very_many_pixels_is_named(tmp_path, monkeypatch):
    """Pillow itself only warns up to twice its limit."""
    root = write_folder(tmp_path / "data")
    save(np.zeros((30, 36, 3), np.uint8), root / "images" / "p2.png")
    save(np.zeros((30, 36), np.uint8), root / "masks" / "p2.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(
        ValidationError, match=r"images/p2\.png, masks/p2\.png \(1080 pixels, and the limit is 1000\): too la"
    ):
        prepare(root)


def test_one_coloured_mask_among_ids_is_named_alone(tmp_path):
    root = write_folder(tmp_path / "data")
    save(in_colors(make_ids(1)), root / "masks" / "p2.png")
    with pytest.raises(
        ValueError, match=r"data: masks/p2\.png: it holds colours \(is it the mask\? the others hold none\)"
    ):
        prepare(root)


def test_all_faults_are_named_at_once_ten_names_each(tmp_path):
    root = write_folder(tmp_path / "data")
    for number in range(20):
        save(make_picture(number), root / "images" / f"q{number:02}.png")
        save(make_ids(number), root / "masks" / f"q{number:02}.png")
        (root / "masks" / f"q{number:02}.png").write_bytes(b"damaged")
    (root / "masks" / "p1.png").unlink()
    save(make_ids(1) + 90, root / "masks" / "p2.png")
    with pytest.raises(ValueError, match="3 kinds of problems in its files") as caught:
        prepare(root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "and 10 more: it can't be read" in str(caught.value)
    assert "q10.png" not in str(caught.value)
    report = examine_folder(root)
    assert report.errors == lines[1:]
    assert report.table().count("ERROR") == 3


# ---- the others, where some are faulty ----

SINGLE = (
    "mask is a JPEG", "mask has another size", "mask is half a file", "mask is a photograph",
    "mask with an unknown id", "picture of floats", "picture is half a file", "picture without a mask",
    "mask without a picture", "two pictures of a stem",
)  # fmt: skip


@pytest.mark.parametrize("fault", SINGLE)
def test_pairs_of_faulty_files_can_be_left_out_and_no_other_pair_changes_its_split(tmp_path, fault):
    root = write_stems(tmp_path / "data", [f"p{n}" for n in range(1, 21)])
    (root / "classes.txt").write_text("road\nparked car\nsky\n")
    expected = {name: [stem for stem in stems if stem != "p2"] for name, stems in splits_of(prepare(root)).items()}
    change, sentence = REFUSED[fault]
    change(root)
    prepared = prepare(root, skip_bad=True)
    assert splits_of(prepared) == expected
    assert len(prepared.report.errors) == 1
    assert re.search(sentence, prepared.report.errors[0])
    for stem, (picture, ids) in read_as_training_does(prepared).items():
        np.testing.assert_array_equal(picture, make_picture(int(stem[1:]) - 1))
        np.testing.assert_array_equal(ids, make_ids((int(stem[1:]) - 1) % 4, (0, 1, 2)))


@pytest.mark.parametrize("missing", ["masks", "images"])
@pytest.mark.parametrize("split_by", [None, r"film\d\d"])
def test_what_was_learned_does_not_come_to_the_test_where_many_files_are_missing(tmp_path, missing, split_by):
    root = write_stems(tmp_path / "data", [f"film{n:02}" for n in range(40)])
    before = splits_of(prepare(root, split_by=split_by))
    for n in range(26, 36):
        (root / missing / f"film{n}.png").unlink()
    splits = splits_of(prepare(root, split_by=split_by, skip_bad=True))
    gone = {f"film{n}" for n in range(26, 36)}
    assert splits == {name: [stem for stem in stems if stem not in gone] for name, stems in before.items()}


def test_a_pair_of_a_list_may_be_left_out(tmp_path):
    root = write_folder(tmp_path / "data")
    split_lists(train="p1\np2\np3\n", val="p4\np5\n", test="p6\n")(root)
    (root / "masks" / "p5.png").unlink()
    splits = splits_of(prepare(root, skip_bad=True))
    assert splits == {"train": ["p1", "p2", "p3"], "validation": ["p4"], "test": ["p6"]}


def test_what_is_written_of_a_faulty_folder_is_never_taken_for_the_whole(tmp_path, capsys):
    root = write_folder(tmp_path / "data", array(".gif"), array(".tif"))
    good = (root / "masks" / "p4.gif").read_bytes()
    (root / "masks" / "p4.gif").write_bytes(good[:50])
    first = prepare(root, skip_bad=True)
    assert "writing 10 pictures and masks" in capsys.readouterr().out
    assert first.report.errors[0].startswith("masks/p4.gif (")
    assert read_as_training_does(first).keys() == set(STEMS) - {"p4"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # all else goes with the process
    with pytest.raises(ValidationError, match=r"p4\.gif"):
        prepare(root)
    (root / "masks" / "p4.gif").write_bytes(good)
    assert read_as_training_does(prepare(root)).keys() == set(STEMS)
    assert "writing 12 pictures and masks" in capsys.readouterr().out
    (root / "masks" / "p4.gif").write_bytes(good[:50])
    assert pairs_of(prepare(root, skip_bad=True)).keys() == set(STEMS) - {"p4"}


def test_a_fault_that_is_not_one_of_single_files_is_refused_as_ever(tmp_path):
    for number, (change, options, sentence) in enumerate((
        (all_masks(array(".png", in_colors)), {}, "it holds colours"),  # no pair is left
        (all_masks(array(".png", lambda ids: ids * 0)), {}, "all masks hold only 'road'"),
        (split_lists(train="p1\np2\n", val="p1\n"), {}, "this pair is in two lists"),
        (half_a_file("masks/p2.png"), {"split_by": "p[1-4]"}, "finds no group in its name"),
    )):  # fmt: skip
        root = write_folder(tmp_path / f"{number}" / "data")
        change(root)
        with pytest.raises(ValidationError, match=sentence) as caught:
            prepare(root, skip_bad=True, **options)
        errors = caught.value.report.errors
        assert len(set(errors)) == len(errors) > 0
        assert [path.name for path in root.parent.iterdir()] == ["data"]


def test_the_faults_are_said_also_where_the_others_can_not_be_written(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", array(".gif"))
    half_a_file("masks/p2.gif")(root)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(ValueError, match=r"(?s)2 kinds of problems.*masks/p2\.gif.*No space left on device"):
        prepare(root, skip_bad=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# ---- names and colours of classes ----


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_names_may_hold_spaces(tmp_path, encoding, end):
    text = end.join(["traffic light", "chaussée", "class 3", "", ""])
    (tmp_path / "classes.txt").write_bytes(text.encode(encoding))
    assert find_classes(tmp_path).names == ("traffic light", "chaussée", "class 3")
    (tmp_path / "classes.txt").write_bytes(end.join(["traffic light 1,2,3", "Straße:\t4, 5 ,6"]).encode(encoding))
    classes = find_classes(tmp_path)
    assert classes.names == ("traffic light", "Straße")
    assert classes.color_ids == {0x010203: 0, 0x040506: 1}
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


def test_void_and_its_pixels_may_be_several_values(tmp_path):
    root = write_folder(tmp_path / "data", classes="road\nvoid\nsky\nvoid\n", values=(0, 1, 2, 3))
    prepared = prepare(root)
    assert prepared.labels.names == ("road", "sky")
    table = np.uint8([0, VOID, 1, VOID])
    for number, stem in enumerate(STEMS):
        ids = table[make_ids(number, (0, 1, 2, 3))]
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], ids)
    whole = np.stack([table[make_ids(number, (0, 1, 2, 3))] for number in range(6)])
    assert prepared.report.void == pytest.approx((whole == VOID).mean())
    assert [share for _, _, share in prepared.report.classes] == pytest.approx([(whole == k).mean() for k in (0, 1)])


def test_what_is_named_void_is_no_class(tmp_path):
    root = write_folder(tmp_path / "data", classes="road\nvoid\nsky\n", values=(0, 1, 2))
    prepared = prepare(root)
    assert prepared.labels.names == ("road", "sky")
    expected = np.uint8([0, VOID, 1])[make_ids(0, (0, 1, 2))]
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], expected)


def test_no_class_has_the_colour_of_void_and_all_differ(tmp_path):
    listed("road 255,255,255\nparked car 0,0,142\nsky 70,130,180\nvoid 0,0,0\n")(tmp_path)
    white = np.vstack([COLORS, [[0, 0, 0]] * 253]).astype(np.uint8)
    white[0] = 255
    root = write_folder(tmp_path / "data", array(".png", lambda ids: white[ids]), classes=None)
    (tmp_path / "classes.txt").rename(root / "classes.txt")
    labels = prepare(root).labels
    assert labels.colors[1:] == ((0, 0, 142), (70, 130, 180))
    assert (255, 255, 255) not in labels.colors
    for first, second in ("255,255,255", "0,0,0"), ("0,0,0", "255,255,255"), ("255,255,255", "230,159,0"):
        (tmp_path / "classes.txt").write_text(f"building {first}\nbackground {second}\n")
        classes = find_classes(tmp_path)
        colors = masks.class_lists.make_labels(classes.names, classes.colors).colors
        assert len({*colors, (255, 255, 255)}) == 3
        assert {text for text in (first, second) if text != "255,255,255"} < {"{},{},{}".format(*c) for c in colors}
    for n in (2, 8, 9, 30):
        colors = masks.class_lists.make_labels(tuple(map(str, range(n)))).colors
        assert len({*colors, (255, 255, 255)}) == n + 1


def test_a_few_pixels_of_other_colours_are_void_and_said(tmp_path):
    root = write_folder(tmp_path / "data", array(".png", in_colors), classes=NAMED)
    values = in_colors(make_ids(0))
    values[20, :8] = 1, 2, 3
    save(values, root / "masks" / "p1.png")
    prepared = prepare(root)
    assert (read_as_training_does(prepared)["p1"][1][20, :8] == VOID).all()
    assert prepared.report.warnings == [
        "masks/p1.png: a few pixels have colours that classes.txt does not list; they become void"
    ]


def test_a_class_without_a_pixel_is_a_warning(tmp_path):
    prepared = prepare(write_folder(tmp_path / "data", classes="road\nparked car\nsky\ntram\n"))
    assert prepared.report.warnings == ["class 'tram' has no pixel in any mask"]
    assert prepared.labels.names[3] == "tram"


CAMVID_CSV = "name, r, g, b\n" + "".join(
    f"{name}, {8 * n},{n} , {n * n % 256}\n"
    for n, name in enumerate(["Void", *[name for names in masks.class_lists.CAMVID_GROUPS.values() for name in names]])
)


def test_camvids_colours_become_eleven_classes(tmp_path):
    root = tmp_path / "CamVid"
    colors = np.uint8([line.split(",")[1:] for line in CAMVID_CSV.splitlines()[1:]])
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for n in range(count):
            save(make_picture(n), root / split / f"0001TP_{n}.png")
            save(
                np.repeat(colors[None], 24, 0).repeat(2, 1)[:, : SIZE[1] * 2],
                root / f"{split}_labels" / f"0001TP_{n}_L.png",
            )
            save(np.zeros((24, 2 * len(colors), 3), np.uint8) + n, root / split / f"0001TP_{n}.png")
    (root / "class_dict.csv").write_text(CAMVID_CSV)
    folders = {
        name: (root / s, root / f"{s}_labels")
        for name, s in (("train", "train"), ("validation", "val"), ("test", "test"))
    }
    prepared = prepare_pairs(root, folders, camvid_classes(root), tmp_path / "camvid.prepared")
    assert [len(split) for split in (prepared.train, prepared.validation, prepared.test)] == [3, 1, 1]
    assert prepared.labels.names == CAMVID.names
    assert prepared.labels.colors == CAMVID.colors
    groups = [*masks.class_lists.CAMVID_GROUPS.values()]
    expected = [VOID] + [k for k, names in enumerate(groups) for _ in names]
    for pair in prepared.train + prepared.test:
        values = np.asarray(Image.open(pair.mask))[0]
        assert values.tolist() == np.repeat(expected, 2).tolist()
    assert camvid_classes(root / "train").color_ids == camvid_classes(root).color_ids  # the list may lie above
    (root / "class_dict.csv").write_text(CAMVID_CSV.replace("Sky,", "Heaven,"))
    with pytest.raises(
        ValueError, match=r"class_dict\.csv: the class 'sky' is not listed \(1 are missing\); get it again"
    ):
        camvid_classes(root)


# ---- names of files ----


@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ("{}", "{}_mask"),
        ("{}", "{}-gt"),
        ("{}_sat", "{}_mask"),
        ("{}_leftImg8bit", "{}_gtFine_labelIds"),
        ("im{}", "im{}_L"),
    ],
)
def test_masks_are_found_by_an_ending_that_all_have(tmp_path, picture, mask):
    root = tmp_path / "data"
    names = [f"{n}" for n in range(1, 13)]  # "1" is the beginning of "10"
    for n, name in enumerate(names):
        save(make_picture(n), root / "images" / f"{picture.format(name)}.png")
        save(make_ids(n % 5, (0, 1, n % 3)), root / "masks" / f"{mask.format(name)}.png")
    pairs = pairs_of(prepare(root))
    assert {stem: pair.mask.stem for stem, pair in pairs.items()} == {
        picture.format(name): mask.format(name) for name in names
    }


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


# ---- splits ----


def write_stems(root, stems, values=(0, 1, 2)):
    for n, stem in enumerate(stems):
        save(make_picture(n), root / "images" / f"{stem}.png")
        save(make_ids(n % 4, values), root / "masks" / f"{stem}.png")
    return root


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


@pytest.mark.parametrize(("n", "sizes"), [(4, [3, 1, 0]), (5, [4, 1, 0]), (6, [4, 1, 1])])
def test_a_few_pairs_are_enough(tmp_path, n, sizes):
    prepared = prepare(write_stems(tmp_path / "data", STEMS[:n]))
    assert [len(names) for names in splits_of(prepared).values()] == sizes


@pytest.mark.parametrize(("val", "suffix"), [("val", ""), ("valid", ""), ("validation", ""), ("val", "_mask")])
def test_folders_of_splits(tmp_path, val, suffix):
    root = tmp_path / "data"
    for split, n in (("train", 4), (val, 2), ("test", 1)):
        write_stems(root / split, STEMS[:n])  # the same names in each
        for mask in (root / split / "masks").iterdir():
            mask.rename(mask.with_name(f"{mask.stem}{suffix}.png"))
        save(make_ids(0, (1, 2, 3)), root / split / "masks" / f"p1{suffix}.png")
    (root / "classes.txt").write_text("road\nparked car\nsky\n")  # the ids of p1 are from 1 to 3
    with pytest.raises(ValueError, match="train/masks/p1"):
        prepare(root)
    (root / "classes.txt").unlink()
    splits = splits_of(prepare(root))
    assert splits == {"train": STEMS[:4], "validation": STEMS[:2], "test": STEMS[:1]}
    save((make_ids(3, (1, 2, 3)) * 0 + 9).astype(np.uint16), root / val / "masks" / f"p2{suffix}.png")
    prepared = prepare(root)
    assert "class 'class 9' occurs in no training mask, so it can't be learned" in prepared.report.warnings
    ids = read_as_training_does(prepared)  # the last of equal names: test's p1, validation's p2
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
            np.testing.assert_array_equal(decode_mask(str(pair.mask), prepared.labels)[..., 0], make_ids(number))


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


@pytest.mark.parametrize("counts", [(1, 1), (3, 1), (1, 1, 1), (2, 5, 1, 7, 1, 1), (1, 1, 18), (18, 1, 1), (5,) * 20])
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


def test_a_class_that_training_does_not_see_is_named(tmp_path):
    root = write_folder(tmp_path / "data")
    save(make_ids(5, (3, 3, 3)), root / "masks" / "p6.png")
    (root / "classes.txt").write_text("road\nparked car\nsky\ntram\n")
    assert prepare(root).report.warnings == ["class 'tram' occurs in no training mask, so it can't be learned"]


# ---- once, whole or not at all, and again when a file has changed ----


def test_what_needs_nothing_is_read_where_it_is(tmp_path):
    prepared = prepare(write_folder(tmp_path / "data"))
    assert {path.parents[1] for pair in pairs_of(prepared).values() for path in pair} == {tmp_path / "data"}
    assert [path.name for path in (tmp_path / "data.prepared").iterdir()] == ["prepared.json"]
    assert prepared.report.converted == {}


def test_it_is_written_once_and_again_for_what_has_changed(tmp_path, monkeypatch, capsys):
    root = write_folder(tmp_path / "data", array(".gif"), array(".tif"))
    first = prepare(root)
    assert "writing 12 pictures and masks" in capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for pair in pairs_of(first).values() for path in pair}

    def forbidden(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(masks.preparation, "examine_items", forbidden)
        assert prepare(root) == first
        root.rename(tmp_path / "moved")
        (tmp_path / "data.prepared").rename(tmp_path / "moved.prepared")
        moved = prepare(tmp_path / "moved")
        assert moved.labels == first.labels
        (tmp_path / "moved").rename(root)
        (tmp_path / "moved.prepared").rename(tmp_path / "data.prepared")
        for path in (*(root / "images").iterdir(), root / "masks" / "p1.gif", root / "classes.txt"):
            content = path.read_bytes()
            path.write_bytes(content)
            os.utime(path, ns=(1, 1))
        assert prepare(root) == first  # the same content, whatever the time
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert capsys.readouterr().out == ""
    for change in (
        lambda: save(make_ids(3), root / "masks" / "p1.gif"),
        lambda: save(make_picture(3), root / "images" / "p1.tif"),
        lambda: (root / "classes.txt").write_text("sky\nroad\nparked car\n"),
        lambda: (save(make_ids(0), root / "masks" / "q.gif"), save(make_picture(0), root / "images" / "q.tif")),
        lambda: ((root / "masks" / "q.gif").unlink(), (root / "images" / "q.tif").unlink()),
        lambda: (tmp_path / "data.prepared" / "masks" / "p4.png").unlink(),
    ):
        change()
        prepared = prepare(root)
        assert "pictures and masks that training can't read as they are, once" in capsys.readouterr().out
        read = read_as_training_does(prepared)
        with Image.open(root / "masks" / "p1.gif") as mask, Image.open(root / "images" / "p1.tif") as picture:
            np.testing.assert_array_equal(read["p1"][0], np.asarray(picture))
            np.testing.assert_array_equal(read["p1"][1], np.asarray(mask.convert("L")))
    assert prepared.labels.names == ("sky", "road", "parked car")
    assert read.keys() == set(STEMS)


def test_what_an_older_version_wrote_is_written_anew(tmp_path, capsys):
    root = write_folder(tmp_path / "data", array(".gif"))
    prepare(root)
    record = tmp_path / "data.prepared" / "prepared.json"
    old = json.loads(record.read_text()) | {"format": masks.preparation.FORMAT - 1}
    record.write_text(json.dumps({name: value for name, value in old.items() if name != "written"}))
    (tmp_path / "data.prepared" / "masks" / "p1.png").write_bytes(b"as it was written then")
    capsys.readouterr()
    prepared = prepare(root)
    assert "writing 6 pictures and masks" in capsys.readouterr().out
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], make_ids(0))


def test_a_record_of_an_older_version_without_content_is_followed(tmp_path, capsys):
    root = write_folder(tmp_path / "data", array(".gif"))
    first = prepare(root)
    path = tmp_path / "data.prepared" / "prepared.json"
    record = json.loads(path.read_text())
    del record["written"]
    record["sources"] = {name: note[:2] for name, note in record["sources"].items()}
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert prepare(root) == first
    assert capsys.readouterr().out == ""
    save(make_ids(4), root / "masks" / "p1.gif")
    np.testing.assert_array_equal(read_as_training_does(prepare(root))["p1"][1], make_ids(4))


def test_copies_that_are_made_anew_are_the_same_to_the_byte(tmp_path):
    """A training goes on from them: `runs.run_folder` knows its data by their content."""
    root = write_folder(tmp_path / "data", array(".gif"), array(".tif"))
    copies = [path for pair in pairs_of(prepare(root)).values() for path in pair]
    content = [path.read_bytes() for path in copies]
    shutil.rmtree(tmp_path / "data.prepared")
    prepare(root)
    assert len(copies) == 12
    assert [path.read_bytes() for path in copies] == content


def test_what_is_not_ours_among_the_copies_is_never_deleted(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    prepare(root)
    copies = tmp_path / "data.prepared"
    (copies / "mine.txt").write_text("the work of a week")
    save(make_ids(2), copies / "masks" / "mine.png")
    (copies / "masks" / ".DS_Store").write_bytes(b"of the system")
    assert prepare(root).report.warnings == []  # nothing has to be written
    save(make_ids(3), root / "masks" / "p1.gif")
    before = look_at(copies)
    said = r"data\.prepared: masks/mine\.png, mine\.txt: not written here, or changed since, and all of the folder"
    with pytest.raises(ValueError, match=said):
        prepare(root)
    assert look_at(copies) == before
    (copies / "mine.txt").unlink()
    (copies / "masks" / "mine.png").unlink()
    np.testing.assert_array_equal(read_as_training_does(prepare(root))["p1"][1], make_ids(3))


def test_a_copy_that_was_edited_is_said_and_never_lost(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    prepare(root)
    copy = tmp_path / "data.prepared" / "masks" / "p2.png"
    os.utime(copy, (1, 1))
    assert prepare(root).report.warnings == []  # its content is what was written
    save(make_ids(4), copy)
    prepared = prepare(root)
    (warning,) = prepared.report.warnings
    assert re.match(rf"{copy}: changed since it was written here, and read as it is; delete the folder to", warning)
    np.testing.assert_array_equal(read_as_training_does(prepared)["p2"][1], make_ids(4))
    save(make_ids(3), root / "masks" / "p1.gif")
    content = copy.read_bytes()
    with pytest.raises(ValueError, match=r"data\.prepared: masks/p2\.png: not written here, or changed since"):
        prepare(root)
    assert copy.read_bytes() == content
    shutil.rmtree(copy.parents[1])
    read = read_as_training_does(prepare(root))
    np.testing.assert_array_equal(read["p2"][1], make_ids(1))


def test_a_file_of_the_same_time_but_another_size_is_read_anew(tmp_path):
    """As copying programs leave it that keep the times."""
    root = write_folder(tmp_path / "data", array(".bmp"), classes=None)
    prepare(root)
    path = root / "masks" / "p1.bmp"
    time = path.stat().st_mtime_ns
    array(".bmp", in_channels(1, 0, 0))(make_ids(3), root / "masks" / "p1")
    os.utime(path, ns=(time, time))
    np.testing.assert_array_equal(read_as_training_does(prepare(root))["p1"][1], make_ids(3))


def test_what_lies_in_the_second_place_is_not_made_again(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", array(".gif"))
    (tmp_path / "file").write_text("no folder")
    targets = tmp_path / "file" / "ids", tmp_path / "other" / "ids"
    first = prepare_folder(root, *targets)

    def forbidden(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(masks.preparation, "examine_items", forbidden)
    assert prepare_folder(root, *targets) == first


def test_without_a_lock_nothing_of_another_process_is_deleted(tmp_path):
    """It may be writing: nobody knows where no lock can be had."""
    root = write_folder(tmp_path / "data", array(".gif"))
    theirs = tmp_path / "data.prepared.partial-1" / "p1.png"
    save(make_ids(0), theirs)
    (tmp_path / ".data.prepared.lock").mkdir()
    assert read_as_training_does(prepare_folder(root)).keys() == set(STEMS)
    assert theirs.is_file()


def test_what_is_written_of_good_pairs_goes_with_its_process(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    half_a_file("masks/p2.gif")(root)
    (tmp_path / "temporary").mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        f"from unet_helpers import masks\nprint(masks.prepare_folder({str(root)!r}, skip_bad=True).train[0].mask)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    mask = Path(done.stdout.splitlines()[-1])
    assert mask.is_relative_to(tmp_path / "temporary")
    assert not mask.parents[2].exists()


MOMENTS = {
    "before the first file": "Image.Image.save = counting(Image.Image.save, 1)",
    "after the third file": "Image.Image.save = counting(Image.Image.save, 3, half=True)",
    "at the last file": "Image.Image.save = counting(Image.Image.save, 12)",
    "before the record": "writing.json.dumps = counting(writing.json.dumps, 1)",
    "before the first rename": "writing.os.replace = counting(writing.os.replace, 1)",
    "after the first rename": "writing.os.replace = counting(writing.os.replace, 1, half=True)",
}
AGAIN = MOMENTS | {"while the old ones are deleted": "os.unlink = counting(os.unlink, 3)"}


@pytest.mark.parametrize(("moment", "again"), [(m, False) for m in MOMENTS] + [(m, True) for m in AGAIN])
def test_a_killed_preparation_leaves_nothing_half(tmp_path, moment, again):
    root = write_folder(tmp_path / "data", array(".gif"), array(".tif"))
    if again:
        prepare(root)
        save(make_ids(3), root / "masks" / "p1.gif")
    before = look_at(root)
    code = KILLED.format(repository=str(Path(__file__).parents[1]), root=str(root), patch=AGAIN[moment])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert look_at(root) == before
    if (tmp_path / "data.prepared").exists():  # the one before, or all of the new one
        assert len(list((tmp_path / "data.prepared").rglob("*.png"))) == 12
    read = read_as_training_does(prepare(root))  # which finds that no partial folder is left
    assert hashlib.sha256(read["p3"][0].tobytes()).digest() == hashlib.sha256(make_picture(2).tobytes()).digest()
    np.testing.assert_array_equal(read["p3"][1], make_ids(2))


def test_two_at_once_write_once(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    code = KILLED.format(
        repository=str(Path(__file__).parents[1]), root=str(root),
        patch="import time\nreal = writing._write_whole\n"
        "writing._write_whole = lambda *a: (time.sleep(0.5), real(*a))",
    )  # fmt: skip
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted("writing 6" in output for output in outputs) == [False, True]
    assert "".join(outputs).count("waiting for it") <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.prepared"]


def test_nothing_is_written_into_the_folder_or_over_the_work_of_others(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    with pytest.raises(
        ValueError, match=r"data/cache: it is in .*data, where nothing is written; give a folder outside"
    ):
        prepare_folder(root, root / "cache")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "work.txt").write_text("of a week")
    with pytest.raises(
        ValueError, match=r"mine: its files are not those that are written here; move it away or delete"
    ):
        prepare_folder(root, mine)
    assert [path.name for path in mine.iterdir()] == ["work.txt"]


def test_two_places_for_what_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    beside, elsewhere = masks.places_for("a/data", "cache")
    assert (beside, elsewhere.parent) == (Path("a/data.prepared"), Path("cache"))
    assert masks.places_for("b/data", "cache")[1] != elsewhere  # or one would replace the other's files
    root = write_folder(tmp_path / "data", array(".gif"))
    monkeypatch.chdir(root)
    assert prepare_folder(".").train[0].mask.is_relative_to(tmp_path / "data.prepared")


def test_the_first_place_where_one_may_write_is_taken(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    (tmp_path / "file").write_text("no folder")
    prepared = prepare_folder(root, tmp_path / "file" / "ids", tmp_path / "other" / "ids")
    assert prepared.train[0].mask.is_relative_to(tmp_path / "other" / "ids")
    with pytest.raises(
        ValueError, match=r"can't be written anew to .*ids \(Not a directory\); make one of these writable"
    ):
        prepare_folder(root, tmp_path / "file" / "ids")
    kept = write_folder(tmp_path / "kept")
    assert len(prepare_folder(kept, tmp_path / "file" / "ids").train) == 4  # nothing has to be written


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", array(".gif"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(
        ValueError, match=r"its 6 pictures and masks can't be written \(No space left on device\); make ro"
    ):
        prepare(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# ---- the report ----


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
                 "warning    class 'tram' has no pixel", "4 train, 1 validation, 1 test"):  # fmt: skip
        assert text in " ".join(table.split("\n           "))
    assert "ERROR" not in table
    assert prepare(root).report == report  # from the record, too
    assert examine_folder(root).table(999) == report.table(999).replace(
        f"; the copies are in {root}.prepared, your files are as they were", ""
    )


def test_only_looking_writes_nothing(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"), array(".tif"))
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
    report = masks.Report("data")
    report.count(["road", "sky"], {"train": [30, 10, 60], "validation": [5, 45, 50], "test": [0, 0, 0]})
    assert report.classes == [(0, "road", 35 / 200), (1, "sky", 55 / 200)]
    assert report.void == 110 / 200
    rows = [line.split() for line in report.table().splitlines()]
    assert ["pixels,", "%", "all", "train", "validation"] in rows  # no column for what is empty
    assert ["class", "1", "27.500", "10.000", "45.000", "sky"] in rows
    assert ["void", "55.000", "60.000", "50.000", "neither", "learned", "nor", "scored"] in rows
