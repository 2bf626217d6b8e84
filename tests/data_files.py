"""Images, masks and annotations of every kind, written for the tests, and what training reads of them."""

import json

import numpy as np
from fuzzing import write_png
from fuzzing_files import chunk, write_tiff
from PIL import Image

from unet_helpers.custom_data import (
    prepare_folder,
)
from unet_helpers.datasets import check_pairs
from unet_helpers.images import decode_image, decode_mask
from unet_helpers.labels import VOID

SIZE = (24, 36)  # height, width


STEMS = [f"p{n}" for n in range(1, 7)]


COLORS = np.uint8([[128, 64, 128], [0, 0, 142], [70, 130, 180]])  # of the ids 0, 1, 2


NAMED = "road 128,64,128\nparked car 0,0,142\nsky 70,130,180\nvoid 0,0,0\n"


def make_ids(number: int, values=(0, 1, 2, VOID)) -> np.ndarray:
    """(24, 36) ids in areas that no turning or mirroring leaves as they are; some masks lack some ids."""
    ids = np.full(SIZE, values[0], np.uint8)
    ids[3 + number : 15, 4:20] = values[-1] if number % 2 else values[1]
    ids[18:, 9:] = values[min(2, len(values) - 1)]
    ids[:2, :5] = values[-1]
    return ids


def make_picture(number: int) -> np.ndarray:
    """(24, 36, 3) of a few dozen colours, dark to bright."""
    steps = np.random.default_rng(number).integers(0, 6, (*SIZE, 3))
    steps[0, 0], steps[0, 1] = 0, 5
    return (steps * 51).astype(np.uint8)


def save(array, path, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array))
    (image.convert(mode) if mode else image).save(path, **options)


def save_bytes(content: bytes, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_folder(root, save_mask=None, save_picture=None, classes="road\nparked car\nsky\n", values=(0, 1, 2, VOID)):
    """Six pairs: save_mask(ids, path without suffix), save_picture(picture, path without suffix)."""
    for number, stem in enumerate(STEMS):
        (save_picture or (lambda a, p: save(a, p.with_suffix(".png"))))(make_picture(number), root / "images" / stem)
        ids = make_ids(number, values)
        (save_mask or (lambda a, p: save(a, p.with_suffix(".png"))))(ids, root / "masks" / stem)
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


def look_at(root):
    """All that could be changed in a folder."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in [root, *root.rglob("*")]
    }


def prepare(root, **options):
    """prepare_folder, whatever happens without a trace in the folder or of a half-written one beside it."""
    before = look_at(root)
    try:
        return prepare_folder(root, **options)
    finally:
        assert look_at(root) == before
        assert not list(root.parent.glob("*.partial*"))


def pairs_of(prepared):
    pairs = prepared.train + prepared.validation + prepared.test
    return {pair.image.stem: pair for pair in pairs}


def read_as_training_does(prepared):
    """{stem: (picture, ids)}; all files must pass the check, too."""
    pairs = pairs_of(prepared)
    check_pairs(pairs.values(), prepared.labels)
    return {
        stem: (decode_image(str(pair.image)).numpy(), decode_mask(str(pair.mask), prepared.labels).numpy()[..., 0])
        for stem, pair in pairs.items()
    }


def in_colors(ids):
    return np.concatenate([COLORS, np.zeros((253, 3), np.uint8)])[ids]


def array(suffix, change=lambda ids: ids, mode=None, **options):
    return lambda ids, path: save(change(ids), path.with_name(path.name + suffix), mode, **options)


def quantized(suffix):
    """Colours in a palette that each file has in an order of its own, as programs that make files small do."""

    def write(ids, path):
        colors, index = np.unique(in_colors(ids).reshape(-1, 3), axis=0, return_inverse=True)
        order = np.random.default_rng(ids.sum()).permutation(len(colors))
        image = Image.fromarray(np.argsort(order)[index].reshape(SIZE).astype(np.uint8))
        image.putpalette(colors[order].ravel().tolist())
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path.with_name(path.name + suffix))

    return write


def in_picture_palette(suffix, **options):
    def write(picture, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        colors, index = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
        image = Image.fromarray(index.reshape(SIZE).astype(np.uint8))
        image.putpalette(colors.ravel().tolist())
        others = [image.transpose(Image.Transpose.ROTATE_180)] * ("save_all" in options)
        image.save(path.with_name(path.name + suffix), append_images=others, **options)

    return write


# EXIF's orientation: how an upright picture is stored, after which showing it that way makes it upright again.
STORED = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2), 8: lambda a: np.rot90(a, 3),
}  # fmt: skip


def turned(orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return lambda picture, path: save(STORED[orientation](picture), path.with_name(path.name + suffix), exif=exif)


def boxes(number):
    """Outlines that Pillow fills without a question: corners of boxes, both ends included."""
    return [("parked car", (4, 3 + number, 19, 14)), ("sky", (9, 18, 35, 23)), ("parked car", (20, 20, 22, 21))]


def drawn(number, names):
    ids = np.full(SIZE, names.index("background") if "background" in names else VOID, np.uint8)
    for label, (left, top, right, bottom) in boxes(number):
        ids[top : bottom + 1, left : right + 1] = names.index(label)
    return ids


def labelme(number, **more):
    shapes = [
        {"label": label, "shape_type": "rectangle", "points": [[x0, y0], [x1, y1]]}
        for label, (x0, y0, x1, y1) in boxes(number)
    ]
    shapes[0] |= {"shape_type": "polygon", "points": corners(boxes(number)[0][1])}
    return {"shapes": shapes, "imagePath": "else.png", "imageHeight": SIZE[0], "imageWidth": SIZE[1]} | more


def corners(box):
    x0, y0, x1, y1 = box
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def coco(stems, **more):
    categories = [{"id": 7, "name": "sky"}, {"id": 3, "name": "parked car"}]
    ids = {"sky": 7, "parked car": 3}
    return {
        "images": [{"id": n, "file_name": f"some/{s}.png", "height": 24, "width": 36} for n, s in enumerate(stems)],
        "categories": categories,
        "annotations": [
            {"id": 1, "image_id": n, "category_id": ids[label], "segmentation": [sum(corners(box), [])]}
            for n in range(len(stems)) for label, box in boxes(n)
        ],
    } | more  # fmt: skip


def write_outlines(root, where, content_of):
    """where: file of a COCO data set, or folder of LabelMe's files."""
    write_folder(root, save_mask=lambda ids, path: None, classes=None)
    for number, stem in enumerate(STEMS if not where.endswith(".json") else ["all"]):
        path = root / where if where.endswith(".json") else root / where / f"{stem}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content_of(number)))
    return root


def replace(name, write):
    """Another file in the place of one: write(path without suffix)."""

    def change(root):
        (root / name).unlink()
        write((root / name).with_suffix(""))

    return change


def all_masks(save_mask):
    def change(root):
        for number, stem in enumerate(STEMS):
            (root / "masks" / f"{stem}.png").unlink()
            save_mask(make_ids(number), root / "masks" / stem)

    return change


def chain_of(*changes):
    return lambda root: [change(root) for change in changes]


def gradient(ids):
    return np.arange(ids.size).reshape(ids.shape).astype(np.uint8)


def smoothed(ids):
    return np.asarray(
        Image.fromarray(ids * np.uint8(100)).resize((360, 240), Image.Resampling.BILINEAR).resize(SIZE[::-1])
    )


def cut_palette(ids, path):
    """Colours of the first three ids only, the last one first: void has none, which is not black."""
    samples = np.where(ids == VOID, 3, 2 - np.minimum(ids, 2))[..., None]
    colors = chunk(b"PLTE", COLORS[::-1].tobytes())
    save_bytes(write_png(samples, color_type=3, before=[colors]), path.with_suffix(".png"))


def half_a_file(name):
    def change(root):
        (root / name).write_bytes((root / name).read_bytes()[:60])

    return change


def pixels_of_another_file(root):
    content = (root / "images" / "p2.png").read_bytes()
    start = content.index(b"IDAT") + 300
    (root / "images" / "p2.png").write_bytes(content[:start] + b"\xff" * 50 + content[start + 50 :])


def many_channels(path):
    """A TIFF of five channels, which Pillow can't read."""
    save(np.zeros((*SIZE, 4), np.uint8), path.with_suffix(".tif"))
    content = path.with_suffix(".tif").read_bytes()
    entry = content.index(b"\x15\x01\x03\x00\x01\x00\x00\x00\x04")  # SamplesPerPixel = 4
    path.with_suffix(".tif").write_bytes(content[: entry + 8] + b"\x05" + content[entry + 9 :])


def outlines(change):
    """LabelMe's files in place of the masks; change(content of the first)."""

    def write(root):
        for number, stem in enumerate(STEMS):
            (root / "masks" / f"{stem}.png").unlink()
            content = labelme(number)
            if number == 0:
                content = change(content)
            (root / "masks" / f"{stem}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        (root / "classes.txt").write_text("background\nsky\nparked car\n")

    return write


def annotations(**more):
    def write(root):
        outlines(lambda content: content)(root)
        for path in (root / "masks").iterdir():
            path.unlink()
        (root / "annotations.json").write_text(json.dumps(coco(STEMS) | more))

    return write


def one_shape(**shape):
    return outlines(lambda content: content | {"shapes": [content["shapes"][0] | shape]})


def listed(text, encoding="utf-8"):
    return lambda root: (root / "classes.txt").write_text(text, encoding=encoding)


def split_lists(**lists):
    def write(root):
        for name, text in lists.items():
            (root / f"{name}.txt").write_text(text)

    return write


RLE = [{"id": 5, "image_id": 0, "category_id": 7, "iscrowd": 1, "segmentation": {"counts": "a0", "size": [24, 36]}}]


REFUSED = {  # what is done to six good pairs, and the sentence that names the file, what was found, expected, to do
    "mask is a JPEG": (
        replace("masks/p2.png", lambda p: save(make_ids(1), p.with_suffix(".jpg"), quality=100)),
        r"masks/p2\.jpg: it is a JPEG inside, which changes class ids; make the mask again, as a PNG",
    ),
    "mask is a JPEG inside a TIFF": (
        replace("masks/p2.png", lambda p: save(make_ids(1), p.with_suffix(".tif"), compression="jpeg")),
        r"masks/p2\.tif: it is a JPEG inside, which changes class ids; make the mask again, as a PNG",
    ),
    "mask is a WEBP": (
        replace("masks/p2.png", lambda p: save(make_ids(1), p.with_suffix(".webp"))),
        r"masks/p2\.webp \(WEBP of mode RGB\): expected a mask as PNG, GIF, BMP or TIFF; save it as a PNG",
    ),
    "mask is animated": (
        replace("masks/p2.png", lambda p: in_picture_palette(".gif", save_all=True)(make_picture(1), p)),
        r"masks/p2\.gif \(GIF of mode P\): it holds more than one picture, expected one mask; save each as a PNG",
    ),
    "mask is of floats": (
        replace("masks/p2.png", lambda p: save(make_ids(1).astype(np.float32), p.with_suffix(".tif"))),
        r"masks/p2\.tif \(TIFF of mode F, 32 bits\): expected a mask of ids of 8 or 16 bits, or of colours of 8; save",
    ),
    "mask has another size": (
        replace("masks/p2.png", lambda p: save(make_ids(1)[:, :-1], p.with_suffix(".png"))),
        r"masks/p2\.png \(24x35, its picture 24x36\): a mask and its picture need the same height x width; make the ma",
    ),
    "mask is half a file": (half_a_file("masks/p2.png"), r"masks/p2\.png \(.+\): it can't be read as a picture; save"),
    "masks with a palette that lacks their colours": (
        lambda root: (all_masks(cut_palette)(root), listed(NAMED)(root)),
        r"masks/p1\.png, .* \(1% of it, such as no colour of 8 bits\); .*: it has colours that cla",
    ),
    "mask is a photograph": (
        replace("masks/p2.png", lambda p: save(
            np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8), p.with_suffix(".png"))),
        r"masks/p2\.png: it has more than 4096 colours, expected one for each class; is it the mask\? .*make it again",
    ),
    "mask with an unknown id": (
        replace("masks/p2.png", lambda p: save(make_ids(1, (0, 1, 9, 4)), p.with_suffix(".png"))),
        r"masks/p2\.png \(holds \[4, 9\]\): expected class ids 0\.\.2 or 255 = void; correct the list of classes, or",
    ),
    "masks smoothed": (
        all_masks(array(".png", smoothed)),
        r"masks/p1\.png \(holds \[\d+, .*\] and \d+ more values\).*: expected class ids 0\.\.2 .*; smoothing makes suc",
    ),
    "grey pictures in place of the masks, without a list": (
        chain_of(all_masks(array(".png", gradient)), lambda root: (root / "classes.txt").unlink()),
        r"masks/p1\.png, .* \(holds \[0, 1, 2, 3, 4\] and 250 more values\): expected at most 64 class ids "
        r"where no list names them; write all their names to classes\.txt",
    ),
    "masks of grey levels": (
        all_masks(array(".png", lambda ids: np.uint8([0, 100, 200])[ids % 3])),
        r"masks/p1\.png, masks/p3\.png, .* \(holds \[100, 200\]\); masks/p2.* \(holds \[200\]\): expected .* grey leve",
    ),
    "masks of colours without a list": (
        all_masks(array(".png", in_colors)),
        r"masks/p1\.png, masks/p2\.png, .*: it holds colours, and no list says which class is which: found 128,64,128 "
        r"\(\d+\.\d+%\), .* in all masks; write each with a name to classes\.txt, a line 'NAME R,G,B' each",
    ),
    "masks of colours in palettes of their own": (
        all_masks(quantized(".png")),
        r"masks/p1\.png, .*: it holds colours, and no list says which class is which: found 128,64,128 \(62\.50%\), ",
    ),
    "mask with a colour that is not listed": (
        lambda root: (all_masks(array(".png", in_colors))(root), listed(NAMED.replace("0,0,142", "0,0,143"))(root)),
        r"masks/p1\.png \(\d+% of it, such as 0,0,142\); .*: it has colours that classes\.txt does not list; is it the",
    ),
    "0 and 255, but three names": (
        all_masks(array(".png", lambda ids: np.where(ids > 0, 255, 0).astype(np.uint8))),
        r"data: all masks hold only 0 and 255, which are two classes, but classes\.txt has 3 names; write two names",
    ),
    "nothing labelled": (
        all_masks(array(".png", lambda ids: ids * 0)),
        r"data: all masks hold only 'road' \(class ids in one channel\), expected two classes at least; label the othe",
    ),
    "picture of floats": (
        replace("images/p2.png", lambda p: save(np.zeros(SIZE, np.float32), p.with_suffix(".tif"))),
        r"images/p2\.tif \(TIFF of mode F, 32 bits\): expected a picture in grey, RGB or CMYK of 8 or 16 bits; save it",
    ),
    "picture of 32 bits": (
        replace("images/p2.png", lambda p: save(make_ids(1).astype(np.int32) << 16, p.with_suffix(".tif"))),
        r"images/p2\.tif \(TIFF of mode I, 32 bits\): expected a picture in grey, RGB or CMYK of 8 or 16 bits; save it",
    ),
    "mask of 32 bits": (
        replace("masks/p2.png", lambda p: save(make_ids(1).astype(np.int32) << 16, p.with_suffix(".tif"))),
        r"masks/p2\.tif \(TIFF of mode I, 32 bits\): expected a mask of ids of 8 or 16 bits, or of colours of 8; save",
    ),
    "picture of 16 bits that is dark and can't be read whole": (
        replace("images/p2.png", lambda p: save_bytes(
            write_tiff(make_picture(1).astype(np.uint16) << 4), p.with_suffix(".tif"))),
        r"images/p2\.tif \(TIFF of mode RGB, 16 bits\): it is dark, and only 8 of its 16 bits can be read; save it as",
    ),
    "picture of more channels": (
        replace("images/p2.png", many_channels),
        r"images/p2\.tif \(a TIFF with 5 channels of 8 bits, expected 1, 3 or 4 .*\): it can't be read as a picture; s",
    ),
    "picture is half a file": (half_a_file("images/p2.png"), r"images/p2\.png \(.+\): it can't be read as a picture;"),
    "picture without its last lines": (
        lambda root: (root / "images" / "p2.png").write_bytes((root / "images" / "p2.png").read_bytes()[:-400]),
        r"images/p2\.png \(.+\): it can't be read as a picture; save it an",
    ),
    "picture damaged in the middle": (pixels_of_another_file, r"images/p2\.png \(.+\): it can't be read as a picture"),
    "picture without a mask": (
        lambda root: (root / "masks" / "p2.png").unlink(),
        r"images/p2\.png: it has no mask; .*; add the mask or move the image away",
    ),
    "mask without a picture": (
        lambda root: (root / "images" / "p2.png").unlink(),
        r"masks/p2\.png: it has no image of the same stem.*; add the image.* or move the mask away",
    ),
    "two pictures of a stem": (
        lambda root: save(make_picture(1), root / "images" / "p2.jpg"),
        r"images/p2\.png \(and p2\.jpg\): two files have this stem; keep one of them in the folder",
    ),
    "no masks": (
        lambda root: [path.unlink() for path in (root / "masks").iterdir()],
        r"images: found no masks for its images, expected image files or LabelMe's JSON in masks/.*; put them there",
    ),
    "three pairs": (
        lambda root: [(root / f / f"p{n}.png").unlink() for f in ("images", "masks") for n in (1, 3, 4)],
        r"data: found 3 pairs, expected 4 at least, one of them to validate; add some",
    ),
    "no folders": (
        lambda root: (root / "images").rename(root / "photos"),
        r"data: found classes\.txt, masks, photos; expected images/ and masks/, or train/ and val/ .*; make them, or",
    ),
    "outline is a line": (
        one_shape(shape_type="linestrip"),
        r"masks/p1\.json \(shape 1, 'parked car': 'linestrip' of 4 points\): a shape is not supported, expected one of",
    ),
    "outline is a bitmap": (one_shape(shape_type="mask"), r"masks/p1\.json \(shape 1, .*: 'mask' of 4.*expected one o"),
    "outline of two points": (one_shape(points=[[1, 2], [3, 4]]), r"masks/p1\.json \(shape 1, .* 'polygon' of 2 point"),
    "outline that is not finite": (
        one_shape(points=[[1, 2], [3, float("inf")], [5, 6]]),
        r"masks/p1\.json \(shape 1: .*a point is not finite.*\): a shape lacks label or points; save it aga",
    ),
    "outline of an unknown class": (
        one_shape(label="tram"),
        r"masks/p1\.json \('tram'\): expected the labels background, sky, parked car; add others to the list of classe",
    ),
    "outlines of another picture": (
        outlines(lambda content: content | {"imageWidth": 10**9}),
        r"masks/p1\.json \(24x1000000000, its picture 24x36\): a mask and its picture need the same height x width; ma",
    ),
    "outlines without a size": (
        outlines(lambda content: content | {"imageWidth": None}),
        r"masks/p1\.json \(24 x None\): it lacks the image's size, expected two whole numbers; save it again",
    ),
    "outlines cut off": (
        outlines(lambda content: json.dumps(content)[:99]),
        r"masks/p1\.json \(.*char.*\): it is no JSON; export it again from the labelling tool",
    ),
    "COCO with run lengths": (
        annotations(annotations=RLE),
        r"annotations\.json \(annotation 5, 'sky'\): run lengths \(RLE, iscrowd\) are not supported, expected polygons",
    ),
    "COCO that is not whole": (
        annotations(categories=[]),
        r"annotations\.json \(annotations: KeyError: .*\): it is no whole COCO file; export it again",
    ),
    "COCO with a polygon of a crowd": (
        annotations(annotations=[RLE[0] | {"segmentation": [[1, 2, 3, 4, 5, 6]]}]),
        r"annotations\.json \(annotation 5, 'sky'\): run lengths \(RLE, iscrowd\) are not supported, expected polygons",
    ),
    "COCO with a line": (
        annotations(annotations=[RLE[0] | {"iscrowd": 0, "segmentation": [[1, 2, 3, 4]]}]),
        r"annotations\.json \(annotation 5, 'sky': 4 numbers\): an outline needs .* three points",
    ),
    "outlines of a picture in two files": (
        chain_of(annotations(), lambda root: save_bytes(
            json.dumps(coco(STEMS[1:2])).encode(), root / "annotations" / "again.json")),
        r"images/p2\.png \(annotations\.json and again\.json\): it is not clear which outlines of this name belong",
    ),
    "an empty line": (listed("road\n\nsky\n"), r"classes\.txt, line 2: it is empty; write the name of value 1, or del"),
    "a name twice": (listed("road\nsky\nroad\n"), r"classes\.txt, line 3: 'road' has the same name as line 1; give ea"),
    "a colour twice": (listed("road 1,2,3\nsky 1,2,3"), r"classes\.txt, line 2: 'sky' has the same colour as line 1;"),
    "a colour too few": (listed("road 1,2,3\nsky\n"), r"classes\.txt, line 2: found 'sky', and it is not clear what"),
    "a colour too large": (listed("road 1,2,3\nsky 1,2,256"), r"line 2: found the colour '1,2,256', expected R,G,B, t"),
    "one name": (listed("road\n"), r"classes\.txt: found 1 names, expected 2 to 255, one for each class; what surroun"),
    "256 names": (listed("\n".join(map(str, range(256)))), r"classes\.txt: found 256 names, expected 2 to 255, one f"),
    "a line without a name": (
        chain_of(
            lambda root: (root / "class_dict.csv").write_text("name,r,g,b\nroad,1,2,3\n,4,5,6\n"),
            lambda root: (root / "classes.txt").unlink(),
        ),
        r"class_dict\.csv, line 3: found \['', '4', '5', '6'\], expected a name and r, g, b; complete it",
    ),
    "no name": (listed(""), r"classes\.txt: found 0 names, expected 2 to 255"),
    "names in UTF-16": (listed("road\nsky\n", "utf-16"), r"classes\.txt: it is not UTF-8 text \(.*\); save it as UTF-"),
    "names in UTF-16 without its mark": (
        listed("road\nsky\n", "utf-16-le"), r"classes\.txt: it holds zero bytes, as UTF-16 does; save it as UTF-8"
    ),
    "a list of an unknown name": (
        split_lists(train="p1\np2\np3\np4\n", val="p5\np7\n"),
        r"val\.txt \(line 2: 'p7'\): there is no pair of this name; correct the list",
    ),
    "a name in two lists": (
        split_lists(train="p1\np2\np3\np4\n", val="p5\np4\n"),
        r"val\.txt \(line 2: 'p4' is also for train\): this pair is in two lists; keep one of them",
    ),
    "an empty list": (
        split_lists(train="p1\np2\n", val="\n"),
        r"data: no pair is for validation, expected one at least; put some there",
    ),
}  # fmt: skip


def splits_of(prepared):
    return {
        name: [pair.image.stem for pair in getattr(prepared, name)] for name in ("train", "validation", "test")
    }  # fmt: skip


KILLED = """
import itertools, os, signal, sys
sys.path.insert(0, {repository!r})
from PIL import Image
from unet_helpers import custom_data as masks
from unet_helpers.custom_data import preparation as writing
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
calls = itertools.count(1)
def counting(function, at, half=False):
    def call(*arguments, **options):
        number = next(calls)
        if number == at and not half:
            kill()
        result = function(*arguments, **options)
        if number == at:
            kill()
        return result
    return call
{patch}
masks.prepare_folder({root!r})
print("not killed")
"""
