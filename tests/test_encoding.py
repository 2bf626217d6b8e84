"""The same masks in every encoding have the same ids, and what can't be told is said."""

import data_files as good
import numpy as np
import pytest
from data_files import NAMED, STEMS, array, ids_from, in_colors, make_ids, prepare, save, write_folder
from fuzzing_files import write_png
from PIL import Image

from unet_helpers.custom_data import camvid_classes, prepare_folder
from unet_helpers.custom_data.class_lists import CAMVID_GROUPS
from unet_helpers.labels import CAMVID, VOID


def in_channels(*channels):
    """Masks of several channels: each is the ids' array times a number, or a constant."""
    return lambda ids: np.stack([ids * 0 + c if c > 1 else ids * np.uint8(c) for c in channels], axis=-1)


def palette(suffix):
    """Ids as places in a palette of the classes' colours."""

    def write(ids, path):
        image = Image.fromarray(ids)
        image.putpalette([*good.COLORS.ravel().tolist(), *[9] * (3 * 253)])
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path.with_name(path.name + suffix), optimize=False)

    return write


def in_png(change, depth, color_type):
    return lambda ids, path: good.save_bytes(
        write_png(change(ids).astype(np.uint16), depth, color_type), path.with_suffix(".png")
    )


def as_csv(root):
    (root / "class_dict.csv").write_text(
        "name, r, g, b\n road ,128,64, 128\nparked car,0, 0,142\nsky, 70,130,180 \nVoid,0,0,0\n\n"
    )


def as_labelmap(root):
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nroad:128,64,128::\nparked car:0,0,142::\nsky:70,130,180::\nvoid:0,0,0::\n"
    )


FIFTEEN = "road\nparked car\nsky\n" + "".join(f"{n}\n" for n in range(3, 15))
TWO = (0, 1, 1, 1)  # ids of masks of two classes
KEPT = {  # how a mask is written that training reads as it is; classes.txt, or what writes another list
    "ids in one channel": (array(".png"), None),
    "ids in red": (array(".png", in_channels(1, 0, 0)), None),
    "ids in one channel, one of them transparent": (array(".png", transparency=1), None),
    "the image's name and .png": (array(".png.png"), None),
    "suffix in capitals": (array(".PNG"), None),
}
CONVERTED = {
    "ids in grey RGB": (array(".png", in_channels(1, 1, 1)), None),
    "ids in grey with alpha": (array(".png", mode="LA"), None),
    "16 bits": (array(".png", lambda ids: np.where(ids == VOID, np.uint16(0xFFFF), ids)), None),
    "16 bits, TIFF, void 255": (array(".tif", lambda ids: ids.astype(np.uint16)), None),
    "4 bits": (in_png(lambda ids: np.where(ids == VOID, 15, ids)[..., None], 4, 0), FIFTEEN + "void"),
    "palette PNG": (palette(".png"), None),
    "palette TIFF": (palette(".tif"), None),
    "GIF of ids, suffix _mask": (array("_mask.gif"), None),
    "BMP of ids": (array(".bmp"), None),
    "TIFF of ids, compressed": (array(".tiff", compression="tiff_lzw"), None),
    "from 1": (array(".png", lambda ids: np.where(ids == VOID, VOID, ids + 1).astype(np.uint8)), None),
    "colours, classes.txt": (array(".png", in_colors), NAMED.replace("70,130,180", "#4682b4")),
    "colours, class_dict.csv": (array(".png", in_colors), as_csv),
    "colours, labelmap.txt": (array(".tif", in_colors), as_labelmap),
    "colours, RGBA": (array(".png", in_colors, "RGBA"), NAMED),
    "colours in a palette of each file": (good.quantized(".png"), NAMED),
    "colours, GIF": (good.quantized(".gif"), NAMED),
    "grey levels, listed": (
        array(".png", lambda ids: np.uint8([10, 120, 240])[np.minimum(ids, 2)] * (ids != VOID)),
        "road 10,10,10\nparked car 120,120,120\nsky 240,240,240\nvoid 0,0,0\n",
    ),
}


def assert_ids(prepared, expected):
    """Training reads expected(number) of each mask. Returns where the masks lie that it reads."""
    read = good.read_as_training_does(prepared)
    assert read.keys() == set(STEMS)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read[stem][1], expected(number))
    (folder,) = {pair.mask.parent for pair in good.pairs_of(prepared).values()}
    return folder


@pytest.mark.parametrize("encoding", [*KEPT, *CONVERTED])
def test_the_same_masks_in_every_encoding_have_the_same_ids(tmp_path, encoding):
    save_mask, classes = (KEPT | CONVERTED)[encoding]
    text = None if callable(classes) else classes or "road\nparked car\nsky"
    root = write_folder(tmp_path / "data", save_mask, classes=text)
    if callable(classes):
        classes(root)
    prepared = prepare(root)
    assert prepared.labels.names[:3] == ("road", "parked car", "sky")
    folder = assert_ids(prepared, make_ids)
    assert folder == (root if encoding in KEPT else tmp_path / "data.prepared") / "masks"
    assert {pair.image.parent for pair in good.pairs_of(prepared).values()} == {root / "images"}


BACK_AND_FRONT = [  # masks of two classes, 0 and 1: how they are written; names without a list; another list
    (array(".png", lambda ids: ids * np.uint8(255)), ("background", "foreground"), "nothing\ncell\n"),
    (array(".gif", lambda ids: ids * np.uint8(255)), ("background", "foreground"), None),
    (array(".png", lambda ids: ids * np.uint16(65535)), ("background", "foreground"), None),
    (array(".png", lambda ids: ids.astype(bool)), ("background", "foreground"), "nothing\ncell\n"),
    (array(".bmp", lambda ids: ids.astype(bool)), ("background", "foreground"), None),
    (array(".png"), ("class 0", "class 1"), "nothing\ncell\n"),
    (array(".png", lambda ids: in_channels(1, 0, 0)(ids * np.uint8(255))), ("background", "foreground"), None),
]  # fmt: skip


@pytest.mark.parametrize(("save_mask", "names", "classes"), BACK_AND_FRONT)
def test_two_classes_in_every_encoding(tmp_path, save_mask, names, classes):
    root = write_folder(tmp_path / "data", save_mask, classes=None, values=TWO)
    for text, expected in ((None, names), (classes, ("nothing", "cell")))[: 1 + bool(classes)]:
        if text:
            (root / "classes.txt").write_text(text)
        prepared = prepare(root)
        assert prepared.labels.names == expected
        assert_ids(prepared, lambda number: make_ids(number, TWO))


def test_255_is_void_as_soon_as_one_mask_holds_more_than_0_and_255(tmp_path):
    root = write_folder(tmp_path / "data", classes="road\ncar\n", values=(0, VOID))
    save(make_ids(0, (0, 1, VOID)), root / "masks" / "p3.png")
    ids = good.read_as_training_does(prepare(root))
    assert {stem: sorted(set(ids[stem][1].ravel().tolist())) for stem in ("p1", "p3")} == {
        "p1": [0, VOID], "p3": [0, 1, VOID],
    }  # fmt: skip


@pytest.mark.parametrize("classes", [None, "road\nparked car\nsky"])
@pytest.mark.parametrize("factor", [256, 257])
def test_ids_of_8_bits_spread_over_16_are_no_other_ids(tmp_path, factor, classes):
    """Some programs save them so: void would be one class more, or all of them void."""
    root = write_folder(tmp_path / "data", array(".png", lambda ids: ids.astype(np.uint16) * factor), classes=classes)
    with pytest.raises(ValueError, match=rf"masks/p1\.png.* \(holds .*{factor}.*\): expected .*class ids"):
        prepare(root)


def test_masks_of_one_bit_among_others_hold_the_ids_0_and_1(tmp_path):
    root = write_folder(tmp_path / "data", classes=None, values=(0, 2))
    save(make_ids(0, (0, 1)).astype(bool), root / "masks" / "p1.png")
    prepared = prepare(root)
    assert prepared.labels.names == ("class 0", "class 1", "class 2")
    read = good.read_as_training_does(prepared)
    np.testing.assert_array_equal(read["p1"][1], make_ids(0, (0, 1)))
    np.testing.assert_array_equal(read["p2"][1], make_ids(1, (0, 2)))


def test_greys_of_a_palette_are_the_values_wherever_they_stand_in_it(tmp_path):
    """Programs that make files small leave out greys that do not occur, or put the most frequent ones first."""
    values = (0, 41, 120, VOID)

    def save_mask(ids, path):
        order = np.random.default_rng(ids.sum()).permutation(4)
        image = Image.fromarray(np.argsort(order)[np.searchsorted(values, ids)].astype(np.uint8))
        image.putpalette(np.uint8(values)[order].repeat(3).tolist())
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path.with_suffix(".png"))

    prepared = prepare(write_folder(tmp_path / "data", save_mask, classes=None, values=values))
    assert prepared.labels.names == ("class 0", "class 41", "class 120")
    assert_ids(prepared, ids_from(values, values[:3]))


def test_void_and_its_pixels_may_be_several_values(tmp_path):
    values = (0, 1, 2, 3)
    prepared = prepare(write_folder(tmp_path / "data", classes="road\nvoid\nsky\nvoid\n", values=values))
    assert prepared.labels.names == ("road", "sky")
    expected = ids_from(values, (0, 2))
    assert_ids(prepared, expected)
    whole = np.stack([expected(number) for number in range(6)])
    assert prepared.report.void == pytest.approx((whole == VOID).mean())
    assert [share for _, _, share in prepared.report.classes] == pytest.approx([(whole == k).mean() for k in (0, 1)])


def test_a_few_pixels_of_other_colours_are_void_and_a_mask_of_colours_among_ids_is_named(tmp_path):
    root = write_folder(tmp_path / "colours", array(".png", in_colors), classes=NAMED)
    values = in_colors(make_ids(0))
    values[20, :8] = 1, 2, 3
    save(values, root / "masks" / "p1.png")
    assert (good.read_as_training_does(prepare(root))["p1"][1][20, :8] == VOID).all()
    root = write_folder(tmp_path / "ids")
    save(in_colors(make_ids(1)), root / "masks" / "p2.png")
    with pytest.raises(ValueError, match=r"ids: masks/p2\.png: it holds colours, and no list"):
        prepare(root)


def test_camvids_colours_become_eleven_classes(tmp_path):
    root, groups = tmp_path / "CamVid", [*CAMVID_GROUPS.values()]
    names = ["Void", *[name for group in groups for name in group]]
    rows = [f"{name}, {8 * n},{n} , {n * n % 256}" for n, name in enumerate(names)]
    text = "name, r, g, b\n" + "\n".join(rows)
    colors = np.uint8([row.split(",")[1:] for row in rows])[None].repeat(24, 0).repeat(2, 1)
    splits = {"train": "train", "validation": "val", "test": "test"}
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for n in range(count):
            save(colors * 0 + n, root / split / f"0001TP_{n}.png")
            save(colors, root / f"{split}_labels" / f"0001TP_{n}_L.png")
    (root / "class_dict.csv").write_text(text)
    folders = {name: (root / split, root / f"{split}_labels") for name, split in splits.items()}
    prepared = prepare_folder(root, tmp_path / "camvid.prepared", folders=folders, classes=camvid_classes(root))
    assert [len(split) for split in (prepared.train, prepared.validation, prepared.test)] == [3, 1, 1]
    assert (prepared.labels.names, prepared.labels.colors) == (CAMVID.names, CAMVID.colors)
    expected = [VOID] + [k for k, group in enumerate(groups) for _ in group]
    for pair in prepared.train + prepared.test:
        assert np.asarray(Image.open(pair.mask))[0].tolist() == np.repeat(expected, 2).tolist()
    assert camvid_classes(root / "train").color_ids == camvid_classes(root).color_ids  # the list may lie above
    (root / "class_dict.csv").write_text(text.replace("Sky,", "Heaven,"))
    with pytest.raises(ValueError, match=r"class_dict\.csv: the class 'sky' is not listed \(1 are missing\)"):
        camvid_classes(root)
