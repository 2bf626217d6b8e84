"""A reader's folders with one odd picture or mask each, for `prepare_folder`: it has to refuse the odd file by name, or
training has to decode from what was prepared what is in the file.

What is in it is known, because it was made of these pixels. Where no checksum can tell that a file was damaged, it may
also be what Pillow reads now.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fuzzing_damages import damage
from fuzzing_files import PNG_START, save
from fuzzing_kinds import COLORS, TWO_NAMES, MaskKind, make_masks, make_pictures
from PIL import Image, ImageOps

from unet_helpers import datasets as checking
from unet_helpers.custom_data import prepare_folder
from unet_helpers.images import decode_image, decode_mask
from unet_helpers.labels import VOID

ODD = "p0"  # stem of the odd pair
MAX_NOISE = 0.01  # of a mask's pixels may have colours that no list names; they become void


class OddFolder(NamedTuple):
    """root: a folder of four pairs. odd: the odd picture or mask in it. kind: what it is. is_whole: nothing has
    happened to it; must_tell: its checksums have to show what has. pixels: what was written to it, (H, W, 3) uint8 or
    (H, W) ids; of a kind that does not keep them, as Pillow read it then. mask_kind: how all masks are written.
    """

    root: Path
    odd: Path
    kind: str
    is_whole: bool
    must_tell: bool
    pixels: np.ndarray
    mask_kind: MaskKind


def make_folder(root: Path, rng, picture: np.ndarray, ids: np.ndarray) -> OddFolder:
    """Write a folder whose odd pair holds the picture, (H, W, 3) uint8, or the mask, (H, W) ids."""
    masks = make_masks(rng)
    is_mask = rng.random() < 0.5
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
        data, pixels, odd = mask_kind.write(ids), ids, root / "masks" / f"{ODD}{mask_kind.suffix}"
        (root / "images" / f"{ODD}.png").write_bytes(save(picture))
    else:
        pictures = make_pictures(rng, picture)
        name = str(rng.choice(list(pictures)))
        suffix, data, pixels = pictures[name]()
        odd = root / "images" / f"{ODD}{suffix}"
        if pixels is None:
            odd.write_bytes(data)
            with Image.open(odd) as opened:
                pixels, _ = read_picture(odd, opened)
        (root / "masks" / f"{ODD}.png").write_bytes(save(ids))
    is_whole, must_tell = rng.random() < 0.25, True
    if not is_whole:
        data, name, must_tell = damage(rng, data)
    odd.write_bytes(data)
    return OddFolder(root, odd, f"prepared {'mask ' * is_mask}{name}", is_whole, must_tell, pixels, mask_kind)


def judge_folder(folder: OddFolder, prepare=prepare_folder) -> tuple[str, str]:
    """("refused", the message), ("equal", how near to what was written), ("unseen", how near to what Pillow reads,
    where nothing tells that the file was damaged) or ("between", why)."""
    before = folder.odd.read_bytes()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            prepared = prepare(folder.root)
        pairs = {pair.image.stem: pair for pair in prepared.train + prepared.validation + prepared.test}
        pair = pairs[ODD]
        counts = checking.check_pair(pair, prepared.labels)
    except ValueError as error:
        return _judge_refusal(folder, error)
    except BaseException as error:
        return "between", f"preparing raises {error!r}"
    if folder.odd.read_bytes() != before:
        return "between", "the file itself is another one now"
    if len(pairs) != 4:
        return "between", f"only {sorted(pairs)} are left"
    image, mask = decode_image(pair.image), decode_mask(pair.mask, prepared.labels)[..., 0]
    if image.shape[:2] != mask.shape:
        return "between", f"the picture is {image.shape}, the mask {mask.shape}"
    if counts.tolist() != np.bincount(mask.ravel(), minlength=256)[: len(counts)].tolist():
        return "between", f"the check counts {counts}"
    if folder.odd.parent.name == "images":
        return _judge_picture(folder, image)
    if np.array_equal(mask, folder.pixels):
        return "equal", ""
    read = [] if folder.must_tell else list(read_mask(folder.odd, folder.mask_kind))
    if any(np.array_equal(mask, ids) for ids in read):
        return "unseen", ""
    apart = f"{(mask != folder.pixels).mean():.1%}" if mask.shape == folder.pixels.shape else f"{mask.shape}"
    return "between", f"{apart} of the ids are not those that were written"


def _judge_refusal(folder: OddFolder, error: ValueError) -> tuple[str, str]:
    """Both files of the pair may be named, for a picture that is turned may not fit to its mask any more."""
    message = str(error)
    if not isinstance(error, ValueError) or not any(f"{name}/{ODD}." in message for name in ("images", "masks")):
        return "between", f"{type(error).__name__}: {message}"
    if ".prepared" in message:
        return "between", f"what was prepared is refused: {message}"
    return "refused", message


def _judge_picture(folder: OddFolder, image: np.ndarray) -> tuple[str, str]:
    with Image.open(folder.odd) as opened:
        opened.load()
        if opened.mode.startswith("F"):
            return "between", "floats were taken"
        read, unseen = read_picture(folder.odd, opened)
    if np.array_equal(image, folder.pixels):
        return "equal", ""
    if not folder.must_tell and np.array_equal(image >> unseen, read):
        return "unseen", ""
    return "between", f"{image.shape} pixels, {folder.pixels.shape} expected, and other ones"


def read_picture(path: Path, opened: Image.Image) -> tuple[np.ndarray, int]:
    """What Pillow sees in a picture, upright, (H, W, 3) ints; how many low bits of what is prepared it can't see.

    A picture of 16 bits is divided by one power of two, so that its largest value has 8 bits at most. Of colours it
    gives the high 8 of 16 bits.
    """
    upright = _turn(opened)
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)
        return np.repeat(values[..., None] >> max(0, int(values.max()).bit_length() - 8), 3, -1), 0
    seen = np.asarray(upright.convert("RGB")).astype(int)
    is_deep = opened.format == "PNG" and path.read_bytes()[24] == 16
    return seen, 8 - int(seen.max()).bit_length() if is_deep else 0


def _turn(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data turn nothing
        return image


def read_mask(path: Path, kind: MaskKind) -> Iterator[np.ndarray]:
    """Yields the (H, W) ids of a mask as Pillow reads it, -1 for what stands for nothing. More than one array where
    the palette is one of greys only, for both the grey and its place in the palette may be meant."""
    with Image.open(path) as opened:
        opened.load()
        image = _turn(opened)
    rgb = np.asarray(image.convert("RGB")).astype(int)
    if kind.by == "color":
        ids = np.full(rgb.shape[:2], -1)
        for color, k in zip(COLORS, (0, 1, 2, VOID), strict=True):
            ids[(rgb == color).all(-1)] = k
        yield np.where(ids < 0, VOID, ids) if (ids < 0).mean() <= MAX_NOISE else ids
        return
    if image.mode in ("P", "1") or image.mode.startswith("I"):
        yield _ids(np.asarray(image), kind)
    else:
        yield _ids(np.asarray(image.getchannel(0)) // _spread(path), kind)
    if image.mode == "P" and (rgb == rgb[..., :1]).all():
        yield _ids(rgb[..., 0], kind)


def _ids(values: np.ndarray, kind: MaskKind) -> np.ndarray:
    if kind.classes == TWO_NAMES and set(np.unique(values)) <= {0, 255}:
        return (values > 0).astype(int)
    table = {0: 0, 1: 1, 2: 2, kind.void: VOID, 255: VOID}
    return np.vectorize(lambda value: table.get(value, -1))(values)


def _spread(path: Path) -> int:
    """By what Pillow multiplies the values of a PNG with fewer than 8 bits of grey."""
    data = path.read_bytes()
    return 255 // (2 ** data[24] - 1) if data.startswith(PNG_START) and data[24] < 8 else 1
