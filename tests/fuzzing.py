"""Damaged and odd images and masks, by the thousand: each file that training would not read as it is must be named.

    python -m tests.fuzzing 10000 --seed 0

Each number is a folder with one odd file. Even numbers are checked as they are, by `check_pair`, odd ones prepared, by
`prepare_folder`. Either ValueError is raised with the file's name ("refused"), or training decodes the pixels that were
written to the file before it was damaged ("equal"). Where no checksum can tell of the damage (only PNG has them, and
some damages make them anew), it may also decode what Pillow reads now ("unseen"). All else ("between"), and a good file
that is refused, is listed and makes the exit code 1. `--only 123` makes number 123 again and keeps its files.
"""

import argparse
import collections
import contextlib
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))  # run as tests.fuzzing, its neighbours would not be found

import numpy as np
from fuzzing_files import PNG_START, damage, save
from fuzzing_kinds import COLORS, NAMES, TWO_NAMES, MaskKind, make_images, make_masks
from PIL import Image, ImageOps

from unet_helpers.custom_data import prepare_folder
from unet_helpers.datasets import check_pair
from unet_helpers.images import decode_image, decode_mask
from unet_helpers.labels import VOID, LabelMap, Pair

LABELS = LabelMap(("sky", "road", "car"), ((0, 0, 255), (128, 64, 128), (255, 0, 0)))
ODD = "p0"  # stem of the odd pair
MAX_NOISE = 0.01  # of a mask's pixels may have colours that no list names; they become void


class OddFolder(NamedTuple):
    """A folder of four pairs, one of them odd."""

    root: Path
    odd: Path  # the odd image or mask
    mate: Path  # the other file of its pair
    kind: str  # what it is, and what happened to it
    is_whole: bool  # nothing has happened to it
    must_tell: bool  # its checksums must show what has happened to it
    pixels: np.ndarray  # written to it, (H, W, 3) uint8 or (H, W) ids; of a lossy kind, as Pillow read it then
    mask_kind: MaskKind  # how all masks are written

    @property
    def is_image(self) -> bool:
        return self.odd.parent.name == "images"


def make_pixels(rng) -> tuple[np.ndarray, np.ndarray]:
    """An image, (H, W, 3) uint8, and a mask, (H, W) uint8 of ids 0..2 and VOID, that has to do with it."""
    size = (24, 32) if rng.random() < 0.8 else tuple(rng.integers(1, 41, 2))
    ids = rng.choice(np.uint8([0, 1, 2, VOID]), size)
    if rng.random() < 0.5:
        ids[:] = np.sort(ids, axis=0)
    image = np.uint8([[90, 130, 220], [90, 90, 90], [200, 40, 40], [0, 0, 0]])[np.minimum(ids, 3)]
    return image + rng.integers(0, 35, image.shape).astype(np.uint8), ids


def make_folder(root: Path, rng, is_checked: bool) -> OddFolder:
    """is_checked: for `check_pair`, which takes ids alone."""
    image, ids = make_pixels(rng)
    masks, is_mask = make_masks(rng), rng.random() < 0.5
    if is_checked:
        masks = {name: kind for name, kind in masks.items() if (kind.classes, kind.by) == (NAMES, "value")}
    name = str(rng.choice(list(masks))) if is_mask else "PNG"
    mask_kind = masks[name]
    ids = np.where(np.isin(ids, mask_kind.ids), ids, mask_kind.ids[1]).astype(np.uint8)
    some = np.resize(np.uint8(mask_kind.ids), (8, 8))
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(1, 4):
        (root / "images" / f"p{number}.png").write_bytes(save(np.full((8, 8, 3), 60 * number, np.uint8)))
        (root / "masks" / f"p{number}{mask_kind.suffix}").write_bytes(mask_kind.write(np.roll(some, number)))
    (root / "classes.txt").write_text(mask_kind.classes)
    if is_mask:
        suffix, data, pixels = mask_kind.suffix, mask_kind.write(ids), ids
    else:
        images = make_images(rng, image)
        name = str(rng.choice(list(images)))
        suffix, data, pixels = images[name]()
    here, there = ("masks", "images") if is_mask else ("images", "masks")
    odd, mate = root / here / f"{ODD}{suffix}", root / there / f"{ODD}.png"
    mate.write_bytes(save(image if is_mask else ids))
    if pixels is None:
        odd.write_bytes(data)
        pixels = read_image(odd)
    is_whole, must_tell = rng.random() < 0.25, True
    if not is_whole:
        data, name, must_tell = damage(rng, data)
    odd.write_bytes(data)
    return OddFolder(root, odd, mate, f"{'mask ' * is_mask}{name}", is_whole, must_tell, pixels, mask_kind)


def judge(made: OddFolder, read_pair) -> tuple[str, str]:
    """("refused", the message), ("equal", ""), ("unseen", "") or ("between", why). read_pair: of `made`, (the pair that
    training reads, its labels, the pixels of each class)."""
    before = made.odd.read_bytes()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            pair, labels, counts = read_pair(made)
    except ValueError as error:
        message = str(error)  # both files may be named, for an image that is turned may not fit its mask any more
        names = any(f"{folder}/{ODD}." in message for folder in ("images", "masks"))
        return ("refused" if names and ".prepared" not in message else "between"), message
    except BaseException as error:
        return "between", f"it raises {error!r}"
    try:
        image, mask = decode_image(pair.image), decode_mask(pair.mask, labels)[..., 0]
    except Exception as error:
        return "between", f"training raises {error!r}"
    if image.shape[:2] != mask.shape or made.odd.read_bytes() != before:
        return "between", f"the image is {image.shape}, the mask {mask.shape}, or the file itself is another one now"
    if counts.tolist() != [int((mask == k).sum()) for k in range(labels.n_classes)]:
        return "between", f"the check counts {counts}"
    found = image if made.is_image else mask
    if np.array_equal(found, made.pixels):
        return "equal", ""
    if not made.must_tell:
        now = [read_image(made.odd)] if made.is_image else read_mask(made.odd, made.mask_kind)
        if any(np.array_equal(found, seen) for seen in now):
            return "unseen", ""
    return "between", f"{found.shape} pixels, {made.pixels.shape} were written, and other ones"


def read_checked(made: OddFolder, check=check_pair) -> tuple:
    pair = Pair(made.odd, made.mate) if made.is_image else Pair(made.mate, made.odd)
    return pair, LABELS, check(pair, LABELS)


def read_prepared(made: OddFolder, prepare=prepare_folder) -> tuple:
    prepared = prepare(made.root)
    pairs = {pair.image.stem: pair for pair in prepared.train + prepared.validation + prepared.test}
    assert len(pairs) == 4, f"only {sorted(pairs)} are left"
    return pairs[ODD], prepared.labels, check_pair(pairs[ODD], prepared.labels)


def read_image(path: Path) -> np.ndarray:
    """What Pillow sees in an image, upright, (H, W, 3) ints; grey of 16 bits is divided by a power of two, until its
    largest value has 8 bits."""
    upright = _open_upright(path)
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)
        return np.repeat(values[..., None] >> max(0, int(values.max()).bit_length() - 8), 3, -1)
    return np.asarray(upright.convert("RGB")).astype(int)


def read_mask(path: Path, kind: MaskKind) -> Iterator[np.ndarray]:
    """Yields the (H, W) ids of a mask as Pillow reads it, -1 for what stands for nothing. More than one array where
    the palette is one of greys only, for both the grey and its index may be meant."""
    image = _open_upright(path)
    rgb = np.asarray(image.convert("RGB")).astype(int)
    if kind.by == "color":
        ids = np.full(rgb.shape[:2], -1)
        for color, k in zip(COLORS, (0, 1, 2, VOID), strict=True):
            ids[(rgb == color).all(-1)] = k
        yield np.where(ids < 0, VOID, ids) if (ids < 0).mean() <= MAX_NOISE else ids
        return
    values = np.asarray(image if image.mode in ("P", "1") or image.mode.startswith("I") else image.getchannel(0))
    data = path.read_bytes()
    if data.startswith(PNG_START) and data[24] < 8 and image.mode == "L":  # Pillow spreads values of few bits
        values = values // (255 // (2 ** data[24] - 1))
    for meant in [values, rgb[..., 0]] if image.mode == "P" and (rgb == rgb[..., :1]).all() else [values]:
        if kind.classes == TWO_NAMES and set(np.unique(meant)) <= {0, 255}:
            yield (meant > 0).astype(int)
        else:
            table = {0: 0, 1: 1, 2: 2, kind.void: VOID, 255: VOID}
            yield np.vectorize(lambda value, table=table: table.get(value, -1))(meant)


def _open_upright(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data turn nothing
        return image


def try_number(folder: Path, seed: int, number: int, checked=read_checked, prepared=read_prepared) -> tuple:
    """Make a number and judge it: the folder, whether it is good, the verdict and why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        is_checked = number % 2 == 0
        made = make_folder(folder / str(number) / "data", np.random.default_rng([seed, number]), is_checked)
        is_plain = made.kind in ("mask PNG", "mask PNG red") or (made.is_image and "16-bit" not in made.kind)
        is_good = made.is_whole and (not is_checked or is_plain)
        return made, is_good, *judge(made, checked if is_checked else prepared)


def fuzz(folder: Path, numbers, seed: int, **functions) -> tuple[dict, list[str]]:
    """How often each kind was judged how, and a line for each number that is an error. functions: of `try_number`."""
    table, errors = collections.defaultdict(collections.Counter), []
    for number in numbers:
        made, is_good, verdict, why = try_number(folder, seed, number, **functions)
        table[f"{'prepared' if number % 2 else 'checked'} {made.kind}"][verdict] += 1
        if verdict == "between" or (is_good and verdict == "refused"):
            errors.append(f"number {number}: {made.kind}: {verdict}: {why}")
        shutil.rmtree(folder / str(number))  # the files of a number that ends Python stay
    return table, errors


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, nargs="?", default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make this one alone, keep its files and say why")
    options = parser.parse_args(arguments)
    if options.only is not None:
        made, _, verdict, why = try_number(Path(tempfile.mkdtemp(prefix="fuzzing_")), options.seed, options.only)
        print(made.odd, made.kind, verdict, why, sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzzing_") as folder:
        table, errors = fuzz(Path(folder), range(options.number), options.seed)
    verdicts = ("refused", "equal", "unseen", "between")
    rows = [(kind, count.total(), *(count[verdict] for verdict in verdicts)) for kind, count in sorted(table.items())]
    together = ("together", *(sum(row[k] for row in rows) for k in range(1, 6)))
    for row in [("kind", "tried", *verdicts), *rows, together]:
        print(f"{row[0]:44}" + "".join(f"{cell:>9}" for cell in row[1:]))
    print(*errors, sep="\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
