"""The same masks in every encoding have the same ids, and what can't be told is said."""

import numpy as np
import pytest
from data_files import (
    COLORS,
    NAMED,
    SIZE,
    STEMS,
    array,
    as_labelmap,
    in_colors,
    make_ids,
    make_picture,
    pairs_of,
    prepare,
    quantized,
    read_as_training_does,
    save,
    save_bytes,
    write_folder,
)
from fuzzing_files import write_png
from PIL import Image

from unet_helpers.custom_data import camvid_classes, prepare_pairs
from unet_helpers.custom_data.class_lists import CAMVID_GROUPS
from unet_helpers.labels import CAMVID, VOID

PALETTE = [*COLORS.ravel().tolist(), *[9] * (3 * 253)]


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
        "suffix in capitals", "ids in one channel, one of them transparent")  # fmt: skip


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


def test_one_coloured_mask_among_ids_is_named_alone(tmp_path):
    root = write_folder(tmp_path / "data")
    save(in_colors(make_ids(1)), root / "masks" / "p2.png")
    with pytest.raises(
        ValueError, match=r"data: masks/p2\.png: it holds colours \(is it the mask\? the others hold none\)"
    ):
        prepare(root)


CAMVID_CSV = "name, r, g, b\n" + "".join(
    f"{name}, {8 * n},{n} , {n * n % 256}\n"
    for n, name in enumerate(["Void", *[name for names in CAMVID_GROUPS.values() for name in names]])
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
    groups = [*CAMVID_GROUPS.values()]
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
