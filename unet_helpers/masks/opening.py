"""Picture files as Pillow opens them, with what it alone would lose: how they are turned, and more than 8 bits.

All that training and prediction read comes this way first: `open_file` refuses what is damaged, as far as files tell.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from .report import Unfit

ORIENTATION = 0x0112  # EXIF's number for how a picture is to be turned when it is shown
TURNS = {  # EXIF's orientation: what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class Opened(NamedTuple):
    """image: as it is stored, or upright already: turned, as Pillow does with TIFF. orientation: EXIF's, 1..8. depth:
    bits of a channel. more_frames: besides the first. transparent: by a colour, not by a channel. kind: for people.
    """

    image: Image.Image
    orientation: int
    turned: bool
    depth: int
    more_frames: bool
    transparent: bool
    kind: str


def open_file(path: Path) -> Opened:
    """The first frame of a picture file, loaded to its end. Raises Unfit if it can't be read."""
    _refuse_special(path)
    try:
        with Image.open(path) as image:
            image.verify()  # the checksums of a PNG, which loading skips; it leaves nothing to load
        with Image.open(path) as image:
            n_pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
            if limit and n_pixels > limit:  # up to twice the limit, Pillow itself only warns
                raise Image.DecompressionBombError(f"{n_pixels} pixels, and the limit is {limit}")
            orientation = _orientation(image) if image.format == "TIFF" else 1  # Pillow turns it while it loads
            depth = _depth(path, image)
            # Some phones put more pictures behind a JPEG: an MPO.
            more_frames = getattr(image, "is_animated", False) and image.format != "MPO"
            image.load()
            if image.format != "TIFF":  # not earlier: asked before, a PNG loads itself, and a fault would be lost
                orientation = _orientation(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unfit("too large or damaged; make it smaller or get it again", str(error)) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more for damaged files
        reason = _what_it_is(path) or getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "")
        raise Unfit("it can't be read as a picture; save it anew as PNG, or get it again", reason) from error
    transparent = image.info.pop("transparency", None) is not None  # training drops it; Pillow would warn
    kind = f"{image.format} of mode {image.mode}" + (f", {depth} bits" if depth not in (1, 8) else "")
    return Opened(image, orientation, image.format == "TIFF", depth, more_frames, transparent, kind)


def to_rgb(opened: Opened) -> Image.Image:
    """The image as 8-bit RGB. Raises Unfit for a mode that Pillow can't convert, or not without a scale."""
    try:
        if opened.image.mode.startswith(("I", "F")):
            raise ValueError("no scale")
        return opened.image.convert("RGB")
    except ValueError:
        sentence = "expected a picture in grey, RGB or CMYK of 8 or 16 bits; save it as an 8-bit RGB PNG"
        raise Unfit(sentence, opened.kind) from None


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn or mirror a stored picture as its EXIF orientation says."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def read_deep(path: Path, opened: Opened) -> np.ndarray | None:
    """(H, W, 1 or 3) uint16 of a file of 16 bits, without alpha, in opened.image's position; None for all others, and
    where nobody here reads all 16 bits."""
    image = opened.image
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return values[..., None].astype(np.uint16) if values.min() >= 0 and values.max() < 1 << 16 else None
    if opened.depth == 16 and image.format == "PNG":  # Pillow keeps only the high 8 bits where there are more channels
        import tensorflow as tf  # here, because it takes seconds

        try:
            with tf.device("CPU:0"):
                values = tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()
        except Exception as error:  # TensorFlow's errors have no base class of their own
            raise Unfit("TensorFlow can't decode it; save it anew with 8 bits, as PNG", opened.kind) from error
        return values[..., : 1 if values.shape[2] < 3 else 3]
    return None


def has_16_bits(path: Path) -> bool:
    """Whether a file says that its channels have more than 8 bits; False if it can't be read. Nothing is decoded."""
    try:
        _refuse_special(path)
        with Image.open(path) as image:
            return image.mode.startswith("I") or _depth(path, image) > 8
    except Exception:  # what is wrong with it is said when it is read
        return False


def _refuse_special(path: Path) -> None:
    """Raises Unfit for what is there but no file: to open a pipe waits for ever, and a device may never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise Unfit("it is no file, but a folder, a pipe or a device; move it away")


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data turn nothing, wherever the picture is shown
        return 1
    return orientation if orientation in TURNS else 1


def _depth(path: Path, image: Image.Image) -> int:
    if image.format == "PNG":
        with open(path, "rb") as file:
            start = file.read(25)
        if start[12:16] != b"IHDR":
            raise SyntaxError("its header is not in front")
        return start[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # the number of BitsPerSample
    return 1 if image.mode == "1" else 8


def _what_it_is(path: Path) -> str:
    """That a file is empty, or what a TIFF holds that Pillow can't read; "" for another file."""
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                return "an empty file"
            file.seek(0)
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        channels, bits = tags.get(277, 1), max(tags.get(258, (1,)))
        grey = channels > 1 and tags.get(262) in (0, 1)  # as satellites' pictures of red, green, blue and infrared are
        if not tags or not grey and (channels in (1, 3, 4) and bits <= 8 or (channels, bits) == (1, 16)):
            return ""  # it is damaged, and Pillow says more of that
        not_rgb = " that it calls grey, not RGB" * grey
        return f"a TIFF with {channels} channels of {bits} bits{not_rgb}, expected 1, 3 or 4 of 8, or 1 of 16"
    except Exception:  # it is no TIFF, or damaged
        return ""
