"""One image or mask file as an array, and at the network's size: decoding, EXIF, 16 bits, resizing, letterbox."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from .labels import VOID, LabelMap

if TYPE_CHECKING:
    import tensorflow as tf

ORIENTATION = 0x0112  # EXIF's number for how a picture is to be turned when it is shown
TURNS = {  # EXIF's orientation: what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class InvalidFile(ValueError):
    """What is wrong with a file: a sentence for all such files, what was expected and what to do, and what was found in
    this one. `Problems` adds the file's name."""

    def __init__(self, sentence: str, found: str = ""):
        super().__init__(sentence)
        self.found = found

    def about(self, path: Path) -> str:
        """The sentence for who reads a single file."""
        return f"{path}: {self}" + (f" (found: {self.found})" if self.found else "")


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
    """The first frame of a picture file, loaded to its end. Raises InvalidFile if it can't be read."""
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
        raise InvalidFile("too large or damaged; make it smaller or get it again", str(error)) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more for damaged files
        reason = _what_it_is(path) or getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "")
        raise InvalidFile("it can't be read as a picture; save it anew as PNG, or get it again", reason) from error
    transparent = image.info.pop("transparency", None) is not None  # training drops it; Pillow would warn
    kind = f"{image.format} of mode {image.mode}" + (f", {depth} bits" if depth not in (1, 8) else "")
    return Opened(image, orientation, image.format == "TIFF", depth, more_frames, transparent, kind)


def to_rgb(opened: Opened) -> Image.Image:
    """The image as 8-bit RGB. Raises InvalidFile for a mode that Pillow can't convert, or not without a scale."""
    try:
        if opened.image.mode.startswith(("I", "F")):
            raise ValueError("no scale")
        return opened.image.convert("RGB")
    except ValueError:
        sentence = "expected a picture in grey, RGB or CMYK of 8 or 16 bits; save it as an 8-bit RGB PNG"
        raise InvalidFile(sentence, opened.kind) from None


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn or mirror a stored picture as its EXIF orientation says."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def read_deep(path: Path, opened: Opened) -> np.ndarray | None:
    """(H, W, 1 or 3) uint16 of a file of 16 bits, without alpha, in opened.image's position; None for all others, and
    where nobody here reads all 16 bits."""
    import tensorflow as tf

    image = opened.image
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return values[..., None].astype(np.uint16) if values.min() >= 0 and values.max() < 1 << 16 else None
    if opened.depth == 16 and image.format == "PNG":  # Pillow keeps only the high 8 bits where there are more channels
        try:
            with tf.device("CPU:0"):
                values = tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()
        except Exception as error:  # TensorFlow's errors have no base class of their own
            raise InvalidFile("TensorFlow can't decode it; save it anew with 8 bits, as PNG", opened.kind) from error
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
    """Raises InvalidFile for what is there but no file: to open a pipe waits for ever, and a device may never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InvalidFile("it is no file, but a folder, a pipe or a device; move it away")


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


MAX_COLORS = 4096  # in one mask; a map of classes has some dozens
DARK = 16  # a 16-bit picture of which Pillow gives the high 8 bits, and no pixel reaches this: it has 12 bits or fewer
FIRST_FRAME = "the first frame"  # one of `ImageInfo.changes`
# What TensorFlow reads as Pillow does, so that training takes the file as it is.
AS_IT_IS = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "JPEG": ("L", "RGB"), "MPO": ("L", "RGB"), "BMP": ("RGB",)}


class ImageInfo(NamedTuple):
    """What a picture file is. stored, upright: (height, width). highest: the largest value where a channel has 16 bits,
    else 0. changes: why training can't read it as it is; () if it can.
    """

    kind: str
    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int
    highest: int
    changes: tuple[str, ...]


class MaskInfo(NamedTuple):
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


def examine_image(path: Path) -> ImageInfo:
    """What a picture file is. Raises InvalidFile if it can't be read, or has channels that no 8-bit RGB image has."""
    opened = open_file(path)
    image, deep = opened.image, read_deep(path, opened)
    changes = ["turned upright"] * (opened.orientation > 1) + [FIRST_FRAME] * opened.more_frames
    changes += ["transparent colour"] * opened.transparent
    if deep is not None:
        changes.append(opened.kind)
    elif image.mode not in AS_IT_IS.get(image.format, ()) or opened.depth > 8:
        changes.append(opened.kind)
        if max(high for _, high in to_rgb(opened).getextrema()) < DARK and opened.depth > 8:
            sentence = "it is dark, and only 8 of its 16 bits can be read; save it as an 8-bit RGB PNG"
            raise InvalidFile(sentence, opened.kind)
    size = image.height, image.width
    swapped = size[::-1] if opened.orientation >= 5 else size
    stored, upright = (swapped, size) if opened.turned else (size, swapped)
    highest = 0 if deep is None else int(deep.max())
    return ImageInfo(opened.kind, stored, upright, opened.orientation, highest, tuple(changes))


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
        with contextlib.suppress(InvalidFile):  # it is said when it is read
            highest[path] = examine_image(path).highest
    bits = max([8, *(value.bit_length() for value in highest.values())])
    return {path: bits for path, value in highest.items() if value}


def examine_mask(path: Path) -> MaskInfo:
    """What a mask file holds. Raises InvalidFile if it can't be read or can't be a map of classes."""
    opened = open_file(path)
    values, pixels = _values(path, opened)
    if values == "color":
        colors = Image.fromarray(pixels).getcolors(MAX_COLORS)
        if colors is None:
            raise InvalidFile(
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
    return MaskInfo(opened.kind, pixels.shape[:2], values, counts, palette, plain)


def read_values(path: Path) -> np.ndarray:
    """(H, W) ints: the values of a mask file, those that `MaskInfo.counts` counts."""
    values, pixels = _values(path, open_file(path))
    if values != "color":
        return pixels
    colors = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):  # in place: a large picture's numbers are large
        colors <<= 8
        colors |= pixels[..., channel]
    return colors


def _values(path: Path, opened: Opened) -> tuple[str, np.ndarray]:
    """(`MaskInfo.values`, pixels): (H, W) ints, or (H, W, 3) uint8 where the values are colours; upright."""
    image = opened.image
    if image.format in ("JPEG", "MPO") or image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        raise InvalidFile("it is a JPEG inside, which changes class ids; make the mask again, as a PNG")
    if image.format not in ("PNG", "GIF", "BMP", "TIFF"):
        raise InvalidFile("expected a mask as PNG, GIF, BMP or TIFF; save it as a PNG", opened.kind)
    if opened.more_frames:
        raise InvalidFile("it holds more than one picture, expected one mask; save each as a PNG", opened.kind)
    deep = read_deep(path, opened)
    if opened.depth > 8 and deep is None or image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA") and deep is None:
        sentence = "expected a mask of ids of 8 or 16 bits, or of colours of 8; save it as such a PNG"
        raise InvalidFile(sentence, opened.kind)
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


GREY = 128  # what surrounds a picture of other proportions: the network's rescaling makes it 0, as beyond its borders
STRETCH = 1.05  # proportions that differ by less count as the same: `augmentation.RandomResizedCrop` stretches as much


def decode_image(path) -> "tf.Tensor":
    """ImageInfo file (PNG, JPEG, BMP) -> (H, W, 3) uint8."""
    import tensorflow as tf

    return tf.io.decode_image(Path(path).read_bytes(), channels=3, expand_animations=False)


def decode_mask(path, labels: LabelMap) -> "tf.Tensor":
    """MaskInfo PNG with ids in its one channel or its red channel -> (H, W, 1) uint8 class ids 0..K-1 or 255 = void."""
    import tensorflow as tf

    values = tf.io.decode_png(Path(path).read_bytes(), channels=3)[..., :1]
    return tf.gather(tf.constant(labels.value_to_id), tf.cast(values, tf.int32))


def resize_image(image, size: tuple[int, int]) -> "tf.Tensor":
    """(..., H, W, 3) uint8 -> (..., *size, 3) uint8, bilinear; antialias averages pixels where it shrinks."""
    import tensorflow as tf

    resized = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.cast(tf.round(resized), tf.uint8)


def resize_mask(mask, size: tuple[int, int]) -> "tf.Tensor":
    """(..., H, W, 1) ids -> (..., *size, 1) ids. Nearest neighbour: a mean of two ids would be a third class."""
    import tensorflow as tf

    return tf.image.resize(mask, size, method="nearest")


def fitted_box(own_size: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a picture of own_size in the middle of one of size, as large as it fits.

    Its proportions are kept, unless they are those of size but for a few percent: then it fills size. What it does not
    fill begins and ends at even pixels: an answer of half the size has no pixel half on the grey around it.
    """
    own, size = np.array(own_size), np.array(size)
    factors = size / own
    fills = factors < STRETCH * factors.min()
    fitted = np.where(fills, size, np.clip(2 * np.round(own * factors.min() / 2).astype(int), 2, size))
    before = (size - fitted) // 4 * 2
    return *before.tolist(), *(before + fitted).tolist()


def fit_image(image, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3) uint8: the whole picture in its `fitted_box`, and grey around it."""
    top, left, bottom, right = fitted_box(image.shape[:2], size)
    fitted = np.full((*size, 3), GREY, np.uint8)
    fitted[top:bottom, left:right] = resize_image(image, (bottom - top, right - left))
    return fitted


def fit_mask(mask, size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """(H, W, 1) ids -> (*size, 1) uint8 ids for a picture that `fit_image` puts into image_size, and void around it.

    size: that of the network's answer, which may be smaller than image_size. Nearest neighbour, as in `resize_mask`.
    """
    top, left, bottom, right = fitted_box(mask.shape[:2], image_size)
    rows, row_inside = _nearest(mask.shape[0], size[0], image_size[0], top, bottom)
    columns, column_inside = _nearest(mask.shape[1], size[1], image_size[1], left, right)
    inside = (row_inside[:, None] & column_inside)[..., None]
    return np.where(inside, np.asarray(mask)[np.ix_(rows, columns)], np.uint8(VOID))


def _nearest(own: int, answer: int, whole: int, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of the answer's pixels along one side, the one of own pixels that lies there, and whether any does.

    The answer's pixels spread over whole pixels, of which those from start to end show the picture.
    """
    twice_centres = (2 * np.arange(answer) + 1) * whole  # times answer: whole numbers, which nothing rounds
    index = (twice_centres - 2 * answer * start) * own // (2 * answer * (end - start))
    return index.clip(0, own - 1), (index >= 0) & (index < own)
