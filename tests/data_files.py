"""Images, masks and annotations of every kind, written for the tests, and what training reads of them."""

import json

import numpy as np
from fuzzing_files import chunk, write_png, write_tiff
from PIL import Image

from unet_helpers.custom_data import prepare_folder
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


def write_stems(root, stems, values=(0, 1, 2)):
    for n, stem in enumerate(stems):
        save(make_picture(n), root / "images" / f"{stem}.png")
        save(make_ids(n % 4, values), root / "masks" / f"{stem}.png")
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
        stem: (decode_image(pair.image), decode_mask(pair.mask, prepared.labels)[..., 0])
        for stem, pair in pairs.items()
    }


def in_colors(ids):
    return np.concatenate([COLORS, np.zeros((253, 3), np.uint8)])[ids]


def array(suffix, change=lambda ids: ids, mode=None, **options):
    return lambda ids, path: save(change(ids), path.with_name(path.name + suffix), mode, **options)


def deep_grey(picture, path):
    save(picture[..., 0].astype(np.uint16) * 257, path.with_suffix(".tif"))


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


def as_labelmap(root):
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nroad:128,64,128::\nparked car:0,0,142::\nsky:70,130,180::\nvoid:0,0,0::\n"
    )


def split_lists(**lists):
    def write(root):
        for name, text in lists.items():
            (root / f"{name}.txt").write_text(text)

    return write


RLE = [{"id": 5, "image_id": 0, "category_id": 7, "iscrowd": 1, "segmentation": {"counts": "a0", "size": [24, 36]}}]


def masks_like(change, classes=None):
    """All masks written anew, as change(ids) says, with another list of classes."""
    return chain_of(all_masks(array(".png", change)), *([listed(classes)] if classes else []))


def mask_of(change, suffix=".png", **options):
    return replace("masks/p2.png", lambda path: array(suffix, change, **options)(make_ids(1), path))


def image_of(change, suffix=".png", **options):
    return replace("images/p2.png", lambda path: array(suffix, change, **options)(make_picture(1), path))


def as_it_is(pixels):
    return pixels


def unlink(*names):
    return lambda root: [(root / name).unlink() for name in names]


def lists_of_csv(root):
    (root / "class_dict.csv").write_text("name,r,g,b\nroad,1,2,3\n,4,5,6\n")
    (root / "classes.txt").unlink()


REFUSED = {  # what is done to six good pairs; the file that is named, and key words of what was found and what to do
    "mask is a JPEG": (mask_of(as_it_is, ".jpg", quality=100), r"masks/p2\.jpg: it is a JPEG inside.*as a PNG"),
    "mask is a JPEG inside a TIFF": (mask_of(as_it_is, ".tif", compression="jpeg"), r"p2\.tif: it is a JPEG inside"),
    "mask is a WEBP": (mask_of(as_it_is, ".webp"), r"masks/p2\.webp \(WEBP of mode RGB\): .* save it as a PNG"),
    "mask is animated": (
        replace("masks/p2.png", lambda p: in_picture_palette(".gif", save_all=True)(make_picture(1), p)),
        r"masks/p2\.gif \(GIF of mode P\): it holds more than one image.* as a PNG",
    ),
    "mask has another size": (mask_of(lambda ids: ids[:, :-1]), r"p2\.png \(24x35, its image 24x36\): .*same"),
    "mask is half a file": (half_a_file("masks/p2.png"), r"masks/p2\.png \(.+\): it can't be read as an image; save"),
    "masks with a palette that lacks their colours": (
        chain_of(all_masks(cut_palette), listed(NAMED)), r"masks/p1\.png, .* \(1% of it, such as no colour of 8 bits\)",
    ),
    "mask is a photograph": (
        mask_of(lambda _: np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)),
        r"masks/p2\.png: it has more than 4096 colours.*make it again",
    ),
    "mask with an unknown id": (
        mask_of(lambda _: make_ids(1, (0, 1, 9, 4))), r"p2\.png \(holds \[4, 9\]\): expected class ids 0\.\.2",
    ),
    "masks smoothed": (masks_like(smoothed), r"p1\.png \(holds .* and \d+ more values\).*nearest neighbour"),
    "grey pictures in place of the masks, without a list": (
        chain_of(masks_like(gradient), unlink("classes.txt")),
        r"masks/p1\.png, .* and 250 more values\): expected at most 64 class ids .*classes\.txt",
    ),
    "masks of grey levels": (
        masks_like(lambda ids: np.uint8([0, 100, 200])[ids % 3]), r"p1\.png, .*\(holds \[100, 200\]\); .*levels",
    ),
    "masks of colours without a list": (
        masks_like(in_colors), r"p1\.png, .*: it holds colours, and no list .* 128,64,128 \(\d+\.\d+%\)",
    ),
    "masks of colours in palettes of their own": (
        all_masks(quantized(".png")), r"masks/p1\.png, .*: it holds colours, and no list .* 128,64,128 \(62\.50%\), ",
    ),
    "mask with a colour that is not listed": (
        masks_like(in_colors, NAMED.replace("0,0,142", "0,0,143")), r"masks/p1\.png \(\d+% of it, such as 0,0,142\); ",
    ),
    "0 and 255, but three names": (
        masks_like(lambda ids: np.where(ids > 0, 255, 0).astype(np.uint8)), "all masks hold only .* void .*two names",
    ),
    "nothing labelled": (masks_like(lambda ids: ids * 0), r"data: all masks hold only 'road' .* label the others"),
    "picture of floats": (
        image_of(lambda p: np.zeros(SIZE, np.float32), ".tif"), r"images/p2\.tif \(TIFF of mode F, 32 bits\): .*RGB",
    ),
    "mask of 32 bits": (
        mask_of(lambda ids: ids.astype(np.int32) << 16, ".tif"), r"masks/p2\.tif \(TIFF of mode I, 32 bits\): .*save",
    ),
    "picture of 16 bits that is dark and can't be read whole": (
        replace("images/p2.png", lambda p: save_bytes(
            write_tiff(make_picture(1).astype(np.uint16) << 4), p.with_suffix(".tif"))),
        r"images/p2\.tif \(TIFF of mode RGB, 16 bits\): it is dark, .*save it as an 8-bit RGB PNG",
    ),
    "picture of more channels": (
        replace("images/p2.png", many_channels), r"images/p2\.tif \(a TIFF with 5 channels of 8 bits, .*\)",
    ),
    "picture without its last lines": (
        lambda root: (root / "images" / "p2.png").write_bytes((root / "images" / "p2.png").read_bytes()[:-400]),
        r"images/p2\.png \(.+\): it can't be read as an image",
    ),
    "picture damaged in the middle": (pixels_of_another_file, r"images/p2\.png \(.+\): it can't be read as an image"),
    "picture without a mask": (unlink("masks/p2.png"), r"images/p2\.png: it has no mask; .*add the mask or move"),
    "mask without a picture": (unlink("images/p2.png"), r"masks/p2\.png: it has no image of the same stem.*add"),
    "two pictures of a stem": (
        lambda root: save(make_picture(1), root / "images" / "p2.jpg"), r"images/p2\.png \(and p2\.jpg\): .*keep one",
    ),
    "no masks": (unlink(*[f"masks/{stem}.png" for stem in STEMS]), r"images: found no masks.*put them there"),
    "three pairs": (
        unlink(*[f"{folder}/p{n}.png" for folder in ("images", "masks") for n in (1, 3, 4)]), "found 3 pairs.*add",
    ),
    "no folders": (
        lambda root: (root / "images").rename(root / "photos"), r"data: found classes\.txt, masks, photos; ",
    ),
    "outline is a line": (one_shape(shape_type="linestrip"), r"p1\.json \(shape 1, .*'linestrip' of 4 points\)"),
    "outline of two points": (one_shape(points=[[1, 2], [3, 4]]), r"p1\.json \(shape 1, .* 'polygon' of 2"),
    "outline that is not finite": (
        one_shape(points=[[1, 2], [3, float("inf")], [5, 6]]), r"p1\.json \(shape 1: .*a point is not finite",
    ),
    "outline of an unknown class": (one_shape(label="tram"), r"masks/p1\.json \('tram'\): expected the labels"),
    "outlines of another picture": (
        outlines(lambda content: content | {"imageWidth": 10**9}), r"p1\.json \(24x1000000000, its image 24x36\)",
    ),
    "outlines without a size": (
        outlines(lambda content: content | {"imageWidth": None}), r"masks/p1\.json \(24 x None\): .*save it again",
    ),
    "outlines cut off": (
        outlines(lambda content: json.dumps(content)[:99]), r"masks/p1\.json \(.*char.*\): it is no JSON",
    ),
    "COCO with run lengths": (annotations(annotations=RLE), r"annotations\.json \(annotation 5, 'sky'\): .*polygons"),
    "COCO that is not whole": (annotations(categories=[]), r"annotations\.json \(annotations: KeyError"),
    "COCO with a line": (
        annotations(annotations=[RLE[0] | {"iscrowd": 0, "segmentation": [[1, 2, 3, 4]]}]),
        r"annotations\.json \(annotation 5, 'sky': 4 numbers\)",
    ),
    "an empty line": (listed("road\n\nsky\n"), r"classes\.txt, line 2: it is empty"),
    "a name twice": (listed("road\nsky\nroad\n"), r"classes\.txt, line 3: 'road' has the same name as line 1"),
    "a colour twice": (listed("road 1,2,3\nsky 1,2,3"), r"classes\.txt, line 2: 'sky' has the same colour as line 1"),
    "a colour too few": (listed("road 1,2,3\nsky\n"), r"classes\.txt, line 2: found 'sky'"),
    "a colour too large": (listed("road 1,2,3\nsky 1,2,256"), r"classes\.txt, line 2: .*'1,2,256'"),
    "one name": (listed("road\n"), r"classes\.txt: found 1 names, expected 2 to 255"),
    "256 names": (listed("\n".join(map(str, range(256)))), r"classes\.txt: found 256 names, expected 2 to 255"),
    "a line without a name": (lists_of_csv, r"class_dict\.csv, line 3: .*expected a name"),
    "names in UTF-16": (listed("road\nsky\n", "utf-16"), r"classes\.txt: it is not UTF-8 text .*save it as UTF-8"),
    "a list of an unknown name": (
        split_lists(train="p1\np2\np3\np4\n", val="p5\np7\n"), r"val\.txt \(line 2: 'p7'\): .*correct the list",
    ),
    "a name in two lists": (
        split_lists(train="p1\np2\np3\np4\n", val="p5\np4\n"), r"val\.txt \(line 2: 'p4' .*keep one of them",
    ),
    "an empty list": (split_lists(train="p1\np2\n", val="\n"), "data: no pair is for validation"),
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
