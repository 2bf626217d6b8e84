"""Damaged and odd pictures and masks, by the thousand: what is checked or prepared has to name each file that training
would not read as it is.

    python -m tests.fuzzing 10000 --seed 0

Even numbers are pairs for `check_pair`, odd ones folders for `prepare_folder` (`fuzzing_folders`). For each file either
ValueError is raised with its name ("refused"), or training's decoders give the pixels that were written to it before it
was damaged ("equal"). Where no checksum can tell of the damage (only PNG has them, and some damages make them anew),
they may also give what Pillow reads now ("unseen"). What is between is counted, listed, and makes the exit code 1.
`--only 123` makes number 123 again and keeps its files.
"""

import argparse
import collections
import io
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))  # run as tests.fuzzing, its neighbours would not be found

import numpy as np
from fuzzing_damages import damage
from fuzzing_files import GOOD, make_kinds, save, write_png  # noqa: F401  other tests take write_png from here
from fuzzing_folders import judge_folder, make_folder
from PIL import Image, ImageOps

from unet_helpers.custom_data import prepare_folder
from unet_helpers.datasets import check_pair
from unet_helpers.images import decode_image, decode_mask
from unet_helpers.labels import VOID, LabelMap, Pair

LABELS = LabelMap(("sky", "road", "car"), ((0, 0, 255), (128, 64, 128), (255, 0, 0)), void_values=(3, VOID))


def make_pixels(rng) -> tuple[np.ndarray, np.ndarray]:
    """A picture, (H, W, 3) uint8, and a mask, (H, W, 1) uint8 of ids 0..2, 3 and VOID, that has to do with it."""
    size = (24, 32) if rng.random() < 0.8 else tuple(rng.integers(1, 41, 2))
    ids = rng.choice(np.uint8([0, 1, 2, 3, VOID]), (*size, 1))
    if rng.random() < 0.5:
        ids[:] = np.sort(ids, axis=0)
    picture = np.uint8([[90, 130, 220], [90, 90, 90], [200, 40, 40], [0, 0, 0]])[np.minimum(ids[..., 0], 3)]
    picture += rng.integers(0, 50, picture.shape).astype(np.uint8)
    return picture, ids


class OddPair(NamedTuple):
    """pair: two files. odd: the odd one of them. kind: what it is. is_good: it must not be refused. must_tell: its
    checksums have to show what has happened to it. pixels: what was written to it, (H, W, 3) uint8, as Pillow read it
    then, or (H, W) ids; None for a picture that Pillow can't read, either.
    """

    pair: Pair
    odd: Path
    kind: str
    is_good: bool
    must_tell: bool
    pixels: np.ndarray | None


def make_pair(folder: Path, seed: int, number: int) -> OddPair:
    """Write pair `number` of a seed."""
    rng = np.random.default_rng([seed, number])
    picture, ids = make_pixels(rng)
    kinds = make_kinds(rng, picture, ids)
    name = str(rng.choice(list(kinds)))
    data, kind = kinds[name](), name
    is_good, must_tell, is_mask = name in GOOD, True, name.startswith("mask")
    pixels = LABELS.value_to_id[ids[..., 0]] if is_mask else read(io.BytesIO(data))
    if rng.random() < 0.75:
        data, kind, must_tell = damage(rng, data)
        is_good, kind = False, f"mask {kind}" if is_mask else kind
    suffix = str(rng.choice([".png", ".jpg", ".bmp", ".JPEG"]))  # often the wrong one
    pair = Pair(folder / f"p{number}{suffix}", folder / f"m{number}.png")
    odd = pair.mask if is_mask else pair.image
    pair.image.write_bytes(save(picture))
    pair.mask.write_bytes(save(ids[..., 0]))
    odd.write_bytes(data)
    return OddPair(pair, odd, kind, is_good, must_tell, pixels)


def read(file) -> np.ndarray | None:
    """What Pillow sees in a picture, upright, (H, W, 3) uint8; None where it sees none of 8 bits."""
    try:
        with Image.open(file) as opened:
            opened.load()
            if opened.mode.startswith(("I", "F")):
                return None
            try:
                upright = ImageOps.exif_transpose(opened)
            except Exception:  # damaged EXIF data
                upright = opened
            return np.asarray(upright.convert("RGB"))
    except Exception:
        return None


def judge(made: OddPair, check) -> tuple[str, str]:
    """("refused", the message), ("equal", ""), ("unseen", "") or ("between", why)."""
    pair = made.pair
    try:
        counts = check(pair, LABELS)
    except ValueError as error:
        message = str(error)
        return ("refused" if type(error) is ValueError and str(made.odd) in message else "between"), message
    except BaseException as error:
        return "between", f"the check raises {error!r}"
    try:
        image = decode_image(pair.image)
        mask = decode_mask(pair.mask, LABELS)[..., 0]
    except Exception as error:
        return "between", f"training raises {error!r}"
    if counts.tolist() != [int((mask == k).sum()) for k in range(LABELS.n_classes)]:
        return "between", f"the check counts {counts}"
    if image.shape[:2] != mask.shape:
        return "between", f"training reads {image.shape} and {mask.shape}"
    found = image if made.odd == pair.image else mask
    written, seen = made.pixels, None if made.must_tell else read(made.odd)
    if seen is not None and made.odd == pair.mask:
        seen = LABELS.value_to_id[seen[..., 0]]
    why = "nobody can read it"
    for verdict, expected in (("equal", written), ("unseen", seen)):
        if expected is not None:
            if np.array_equal(found, expected):
                return verdict, ""
            why = f"{found.shape} pixels, {expected.shape} expected, and other ones"
    return "between", why


def try_number(folder: Path, seed: int, number: int, check=check_pair, prepare=prepare_folder):
    """Make number and judge it: the odd file, what it is, whether it is good, the verdict and why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if number % 2:
            rng = np.random.default_rng([seed, number])
            picture, ids = make_pixels(rng)
            made = make_folder(folder / str(number) / "data", rng, picture, ids[..., 0])
            return made.odd, made.kind, made.is_whole, *judge_folder(made, prepare)
        made = make_pair(folder, seed, number)
        return made.odd, made.kind, made.is_good, *judge(made, check)


def fuzz(folder: Path, numbers, seed: int, **functions) -> tuple[dict, list[str]]:
    """How often each kind was judged how, and a line for each number that is a fault. functions: of `try_number`."""
    table, faults = collections.defaultdict(collections.Counter), []
    for number in numbers:
        _, kind, good, verdict, why = try_number(folder, seed, number, **functions)
        table[kind][verdict] += 1
        if verdict == "between" or (good and verdict == "refused"):
            faults.append(f"number {number}: {kind}: {verdict}: {why}")
        for path in folder.iterdir():  # the files of a number that ends Python stay
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return table, faults


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, nargs="?", default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make this one alone, keep its files and say why")
    options = parser.parse_args(arguments)
    if options.only is not None:
        odd, kind, _, verdict, why = try_number(Path(tempfile.mkdtemp(prefix="fuzzing_")), options.seed, options.only)
        print(odd, kind, verdict, why, sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzzing_") as folder:
        table, faults = fuzz(Path(folder), range(options.number), options.seed)
    verdicts = ("refused", "equal", "unseen", "between")
    rows = [(kind, count.total(), *(count[verdict] for verdict in verdicts)) for kind, count in sorted(table.items())]
    rows.append(("together", *(sum(row[k] for row in rows) for k in range(1, 6))))
    for row in [("kind", "tried", *verdicts), *rows]:
        print(f"{row[0]:44}" + "".join(f"{cell:>9}" for cell in row[1:]))
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
