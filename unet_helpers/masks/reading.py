"""What a picture or a mask file holds, and its pixels: 8-bit RGB, or the values that stand for classes."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .opening import Opened, has_16_bits, open_file, read_deep, to_rgb, turn
from .report import Unfit

MAX_COLORS = 4096  # in one mask; a map of classes has some dozens
DARK = 16  # a 16-bit picture of which Pillow gives the high 8 bits, and no pixel reaches this: it has 12 bits or fewer
FIRST_FRAME = "the first frame"  # one of `Picture.changes`
# What TensorFlow reads as Pillow does, so that training takes the file as it is.
AS_IT_IS = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "JPEG": ("L", "RGB"), "MPO": ("L", "RGB"), "BMP": ("RGB",)}


class Picture(NamedTuple):
    """What a picture file is. stored, upright: (height, width). highest: the largest value where a channel has 16 bits,
    else 0. changes: why training can't read it as it is; () if it can.
    """

    kind: str
    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int
    highest: int
    changes: tuple[str, ...]


class Mask(NamedTuple):
    """What a mask file holds. values: "grey", "deep" (16 bits), "bit", "palette" (index) or "color" (65536 r + 256 g
    + b). counts: how many pixels have which value. palette: the colours of those that occur, -1 for one that has none.
    size: (height, width). plain: whether training could read it as it is, as far as the file goes.
    """

    kind: str
    size: tuple[int, int]
    values: str
    counts: dict[int, int]
    palette: dict[int, int]
    plain: bool


def examine_picture(path: Path) -> Picture:
    """What a picture file is. Raises Unfit if it can't be read, or has channels that no picture of 8-bit RGB has."""
    opened = open_file(path)
    image, deep = opened.image, read_deep(path, opened)
    changes = ["turned upright"] * (opened.orientation > 1) + [FIRST_FRAME] * opened.more_frames
    changes += ["transparent colour"] * opened.transparent
    if deep is not None:
        changes.append(opened.kind)
    elif image.mode not in AS_IT_IS.get(image.format, ()) or opened.depth > 8:
        changes.append(opened.kind)
        if max(high for _, high in to_rgb(opened).getextrema()) < DARK and opened.depth > 8:
            raise Unfit("it is dark, and only 8 of its 16 bits can be read; save it as an 8-bit RGB PNG", opened.kind)
    size = image.height, image.width
    swapped = size[::-1] if opened.orientation >= 5 else size
    stored, upright = (swapped, size) if opened.turned else (size, swapped)
    highest = 0 if deep is None else int(deep.max())
    return Picture(opened.kind, stored, upright, opened.orientation, highest, tuple(changes))


def read_picture(path: Path, bits: int) -> Image.Image:
    """The picture as 8-bit RGB, upright. bits: how many of 16 are used in the data set; the highest 8 of them stay, and
    what needs more bits is white."""
    opened = open_file(path)
    deep = read_deep(path, opened)
    if deep is None:
        rgb = to_rgb(opened)
    else:
        deep = np.minimum(deep >> (bits - 8), 255).astype(np.uint8)
        rgb = Image.fromarray(deep[..., 0] if deep.shape[2] < 3 else deep[..., :3]).convert("RGB")
    rgb.info.clear()  # Pillow would write a colour profile with it, or fail where that is damaged
    return rgb if opened.turned else turn(rgb, opened.orientation)


def find_bits(paths: Iterable[Path]) -> dict[Path, int]:
    """{path: bits} of the 16-bit pictures among these files: how many bits they use together, for `read_picture`."""
    highest = {}
    for path in filter(has_16_bits, paths):
        with contextlib.suppress(Unfit):  # it is said when it is read
            highest[path] = examine_picture(path).highest
    bits = max([8, *(value.bit_length() for value in highest.values())])
    return {path: bits for path, value in highest.items() if value}


def examine_mask(path: Path) -> Mask:
    """What a mask file holds. Raises Unfit if it can't be read or can't be a map of classes."""
    opened = open_file(path)
    values, pixels = _values(path, opened)
    if values == "color":
        colors = Image.fromarray(pixels).getcolors(MAX_COLORS)
        if colors is None:
            raise Unfit(
                f"it has more than {MAX_COLORS} colours, expected one for each class; is it the mask? If it was made "
                "smaller or saved as a JPEG once, make it again without smoothing, as a PNG"
            )
        counts = {r << 16 | g << 8 | b: n for n, (r, g, b) in colors}
    else:
        numbers = np.bincount(pixels.ravel())
        counts = {int(value): int(numbers[value]) for value in np.flatnonzero(numbers)}
    palette = {}
    if values == "palette":
        colors = np.reshape(opened.image.getpalette("RGB"), (-1, 3)).tolist()
        palette = {k: r << 16 | g << 8 | b for k, (r, g, b) in enumerate(colors) if k in counts}
        palette |= dict.fromkeys(counts.keys() - palette.keys(), -1)  # or a damaged palette would be one of black
    plain = opened.kind in ("PNG of mode L", "PNG of mode RGB", "PNG of mode RGBA")
    plain = plain and opened.orientation == 1 and not opened.transparent
    return Mask(opened.kind, pixels.shape[:2], values, counts, palette, plain)


def read_values(path: Path) -> np.ndarray:
    """(H, W) ints: the values of a mask file, those that `Mask.counts` counts."""
    values, pixels = _values(path, open_file(path))
    if values != "color":
        return pixels
    colors = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):  # in place: a large picture's numbers are large
        colors <<= 8
        colors |= pixels[..., channel]
    return colors


def _values(path: Path, opened: Opened) -> tuple[str, np.ndarray]:
    """(`Mask.values`, pixels): (H, W) ints, or (H, W, 3) uint8 where the values are colours; upright."""
    image = opened.image
    if image.format in ("JPEG", "MPO") or image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        raise Unfit("it is a JPEG inside, which changes class ids; make the mask again, as a PNG")
    if image.format not in ("PNG", "GIF", "BMP", "TIFF"):
        raise Unfit("expected a mask as PNG, GIF, BMP or TIFF; save it as a PNG", opened.kind)
    if opened.more_frames:
        raise Unfit("it holds more than one picture, expected one mask; save each as a PNG", opened.kind)
    deep = read_deep(path, opened)
    if opened.depth > 8 and deep is None or image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA") and deep is None:
        raise Unfit("expected a mask of ids of 8 or 16 bits, or of colours of 8; save it as such a PNG", opened.kind)
    if not opened.turned:
        image = turn(image, opened.orientation)
    if deep is not None and (deep.shape[2] < 3 or not deep[..., 1:3].any() or (deep[..., :2] == deep[..., 1:3]).all()):
        one = Image.fromarray(deep[..., 0])
        return "deep", np.asarray(one if opened.turned else turn(one, opened.orientation))
    if image.mode == "1":
        return "bit", np.asarray(image).astype(np.uint8)
    if image.mode == "P":
        return "palette", np.asarray(image)
    if image.mode in ("L", "LA"):
        # Pillow spreads 2 or 4 bits of grey over 0..255, for a picture's sake.
        return "grey", np.asarray(image.getchannel(0)) // np.uint8(255 // (2**opened.depth - 1))
    return "color", np.asarray(image.convert("RGB"))
