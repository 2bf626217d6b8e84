"""Images, masks and annotations of every kind, written for the tests, and what training reads of them."""

import json

import numpy as np
from PIL import Image

from unet_helpers.custom_data import ValidationError, prepare_folder
from unet_helpers.datasets import check_pairs
from unet_helpers.images import decode_image, decode_mask
from unet_helpers.labels import VOID

SIZE = (24, 36)  # height, width
STEMS = [f"p{n}" for n in range(1, 7)]
COLORS = np.uint8([[128, 64, 128], [0, 0, 142], [70, 130, 180]])  # of the ids 0, 1, 2
NAMED = "road 128,64,128\nparked car 0,0,142\nsky 70,130,180\nvoid 0,0,0\n"


def make_ids(number: int, values=(0, 1, 2, VOID)) -> np.ndarray:
    """(24, 36) ids in areas that every rotation or flip changes; some masks lack some ids."""
    ids = np.full(SIZE, values[0], np.uint8)
    ids[3 + number : 15, 4:20] = values[-1] if number % 2 else values[1]
    ids[18:, 9:] = values[min(2, len(values) - 1)]
    ids[:2, :5] = values[-1]
    return ids


def ids_from(values, known):
    """For masks that hold these values, of which those known are the classes in this order: expected ids."""
    table = np.full(256, VOID, np.uint8)
    table[list(known)] = range(len(known))
    return lambda number: table[make_ids(number, values)]


def make_image(number: int) -> np.ndarray:
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


def write_folder(root, save_mask=None, save_image=None, classes="road\nparked car\nsky\n", values=(0, 1, 2, VOID)):
    """Six pairs: save_mask(ids, path without suffix), save_image(image, path without suffix)."""
    for number, stem in enumerate(STEMS):
        (save_image or array(".png"))(make_image(number), root / "images" / stem)
        (save_mask or array(".png"))(make_ids(number, values), root / "masks" / stem)
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


def write_stems(root, stems, values=(0, 1, 2)):
    for n, stem in enumerate(stems):
        save(make_image(n), root / "images" / f"{stem}.png")
        save(make_ids(n % 4, values), root / "masks" / f"{stem}.png")
    return root


def look_at(root):
    """Everything in a folder that a call could change."""
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


def report_of(root):
    """The report of a folder, whatever is wrong with it."""
    try:
        return prepare(root).report
    except ValidationError as error:
        return error.report


def pairs_of(prepared):
    pairs = prepared.train + prepared.validation + prepared.test
    return {pair.image.stem: pair for pair in pairs}


def read_as_training_does(prepared):
    """{stem: (image, ids)}; all files must pass the check, too."""
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


def deep_grey(image, path):
    save(image[..., 0].astype(np.uint16) * 257, path.with_suffix(".tif"))


def quantized(suffix):
    """Colours in a palette that each file has in an order of its own, as programs do that make files small."""

    def write(ids, path):
        colors, index = np.unique(in_colors(ids).reshape(-1, 3), axis=0, return_inverse=True)
        order = np.random.default_rng(ids.sum()).permutation(len(colors))
        image = Image.fromarray(np.argsort(order)[index].reshape(SIZE).astype(np.uint8))
        image.putpalette(colors[order].ravel().tolist())
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path.with_name(path.name + suffix))

    return write


def in_palette(suffix, **options):
    """save_image in a palette; save_all: with a second image, turned."""

    def write(image, path):
        colors, index = np.unique(image.reshape(-1, 3), axis=0, return_inverse=True)
        first = Image.fromarray(index.reshape(SIZE).astype(np.uint8))
        first.putpalette(colors.ravel().tolist())
        others = [first.transpose(Image.Transpose.ROTATE_180)] * ("save_all" in options)
        path.parent.mkdir(parents=True, exist_ok=True)
        first.save(path.with_name(path.name + suffix), append_images=others, **options)

    return write


# EXIF's orientation: how an upright image is stored, after which showing it that way makes it upright again.
STORED = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2), 8: lambda a: np.rot90(a, 3),
}  # fmt: skip


def turned(orientation, suffix=".png", **options):
    """save_image or save_mask as a camera stores it, with its EXIF data."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return array(suffix, STORED[orientation], exif=exif, **options)


def boxes(number):
    """Outlines that Pillow fills exactly: corners of boxes, both ends included."""
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


def unlink(*names):
    return lambda root: [(root / name).unlink() for name in names]


def replace(name, write):
    """Another file in the place of one: write(image or ids of p2, path without suffix)."""

    def change(root):
        (root / name).unlink()
        write(make_ids(1) if "masks" in name else make_image(1), (root / name).with_suffix(""))

    return change


def mask_of(change, suffix=".png", **options):
    return replace("masks/p2.png", array(suffix, change, **options))


def all_masks(save_mask):
    def change(root):
        for number, stem in enumerate(STEMS):
            (root / "masks" / f"{stem}.png").unlink()
            save_mask(make_ids(number), root / "masks" / stem)

    return change


def chain_of(*changes):
    return lambda root: [change(root) for change in changes]


def half_a_file(name):
    def change(root):
        (root / name).write_bytes((root / name).read_bytes()[:60])

    return change


def outlines(change=lambda content: content):
    """LabelMe's files in place of the masks; change(content of the first)."""

    def write(root):
        unlink(*[f"masks/{stem}.png" for stem in STEMS])(root)
        write_outlines(root, "masks", lambda number: labelme(number) if number else change(labelme(0)))
        listed("background\nsky\nparked car\n")(root)

    return write


def coco_file(**more):
    """annotations.json in place of the masks."""

    def write(root):
        unlink(*[f"masks/{stem}.png" for stem in STEMS])(root)
        write_outlines(root, "annotations.json", lambda _: coco(STEMS, **more))
        listed("background\nsky\nparked car\n")(root)

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


def masks_like(change, classes=None):
    """All masks written anew, as change(ids) says, with another list of classes."""
    return chain_of(all_masks(array(".png", change)), *([listed(classes)] if classes else []))


def splits_of(prepared):
    return {name: [pair.image.stem for pair in getattr(prepared, name)] for name in ("train", "validation", "test")}


KILLED = """
import itertools, os, signal, sys
sys.path.insert(0, {repository!r})
from PIL import Image
from unet_helpers.custom_data import prepare_folder
calls = itertools.count(1)
def counting(function, at):
    def call(*arguments, **options):
        result = function(*arguments, **options)
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
{patch}
prepare_folder({root!r})
"""
