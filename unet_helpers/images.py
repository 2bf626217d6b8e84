"""One image or mask file as an array, and at the network's size: decoding, EXIF, 16 bits, resizing, letterbox."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .labels import VOID, LabelMap

ORIENTATION = 0x0112  # EXIF's tag: how a stored image must be turned to be upright
MAX_COLORS = 4096  # in one mask; a map of classes has some dozens
DARK = 16  # if the high 8 of 16 bits are all below this, the image uses 12 bits or fewer, and most of them are lost
GREY = 128  # of the padding: the network's rescaling makes it 0, as beyond the image's borders
STRETCH = 1.05  # proportions that differ by less count as the same: `augmentation.RandomResizedCrop` stretches as much


class InvalidFile(ValueError):
    """What is wrong with a file: a sentence for all such files (expected, what to do), and what this one holds."""

    def __init__(self, sentence: str, found: str = ""):
        super().__init__(sentence)
        self.found = found


@contextlib.contextmanager
def naming_file(path: str | Path) -> Iterator[None]:
    """Raises ValueError with the file's name where the block raises InvalidFile."""
    try:
        yield
    except InvalidFile as error:
        raise ValueError(f"{path}: {error}" + (f" (found: {error.found})" if error.found else "")) from error


class Opened(NamedTuple):
    image: Image.Image  # the first frame, loaded to its end: a TIFF upright, all others as stored
    kind: str  # for people: format, mode, bits
    orientation: int  # EXIF's, 1..8
    turns: int  # EXIF's orientation by which the image must still be turned; 1: it is upright
    depth: int  # bits of a channel
    more_frames: bool  # besides the first


def open_file(path: Path) -> Opened:
    """Open and load an image or mask file of any format that Pillow reads. Raises InvalidFile if it can't be read."""
    _refuse_special(path)
    try:
        with Image.open(path) as image:
            image.verify()  # a PNG's checksums, which loading skips; it leaves nothing to load
        with Image.open(path) as image:
            n_pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
            if limit and n_pixels > limit:  # up to twice the limit, Pillow itself only warns
                raise Image.DecompressionBombError(f"{n_pixels} pixels, and the limit is {limit}")
            is_tiff, depth = image.format == "TIFF", _depth(path, image)
            orientation = _orientation(image) if is_tiff else 1  # Pillow turns it while it loads
            more_frames = has_more_frames(image)
            image.load()
            if not is_tiff:  # not earlier: asked before, a PNG loads itself and hides an error
                orientation = _orientation(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidFile("too large or damaged; make it smaller or get it again", str(error)) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more for damaged files
        is_empty = os.path.isfile(path) and not os.path.getsize(path)
        reason = getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "")
        sentence = "it can't be read as an image; save it anew as PNG, or get it again"
        raise InvalidFile(sentence, "an empty file" if is_empty else reason) from error
    image.info.pop("transparency", None)  # a transparent colour counts as that colour; Pillow would warn
    kind = f"{image.format} of mode {image.mode}" + (f", {depth} bits" if depth not in (1, 8) else "")
    return Opened(image, kind, orientation, 1 if is_tiff else orientation, depth, more_frames)


def has_more_frames(image: Image.Image) -> bool:
    return getattr(image, "is_animated", False) and image.format != "MPO"  # a phone's, with a preview


def _refuse_special(path: Path) -> None:
    """Raises InvalidFile for a folder, a pipe or a device: opening a pipe waits for ever, a device may never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InvalidFile("it is no file, but a folder, a pipe or a device; move it away")


def read_orientation(path: Path) -> int:
    """EXIF's orientation of an image file, 1..8, from its header alone; 1 where it can't be read."""
    try:
        with Image.open(path) as image:
            return _orientation(image)
    except OSError:
        return 1


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data turn nothing in any viewer
        return 1
    return orientation if orientation in range(1, 9) else 1


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


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) pixels as stored -> upright. orientation: EXIF's, 1..8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


class ImageInfo(NamedTuple):
    kind: str  # for people
    size: tuple[int, int]  # (height, width), upright
    stored: tuple[int, int]  # (height, width) before it is turned upright
    orientation: int  # EXIF's, 1..8
    bits: int | None  # in use, 8..16, of a grey 16-bit image; None for all others
    more_frames: bool  # besides the first


def decode_image(path: str | Path, bits: int | None = None) -> np.ndarray:
    """Image file of any kind that Pillow reads -> (H, W, 3) uint8 RGB, upright; of an animation, the first frame.
    bits: of a grey 16-bit image, how many are in use in its data set: the highest 8 of them are kept, and larger values
        are white. None: as many as this image uses. Of 16 bits in RGB, the highest 8 are kept.
    Raises ValueError, naming the file, if it can't be read."""
    with naming_file(path):
        pixels = _read_pixels(open_file(Path(path)))
    if pixels.dtype != np.uint16:
        return pixels
    shallow = np.minimum(pixels >> ((bits or _count_bits(pixels)) - 8), 255).astype(np.uint8)
    return np.repeat(shallow[..., None], 3, axis=2)


def examine_image(path: Path) -> ImageInfo:
    """What an image file is, decoded once. Raises InvalidFile if `decode_image` can't read it."""
    opened = open_file(path)
    pixels = _read_pixels(opened)
    size = pixels.shape[:2]
    stored = size[::-1] if opened.orientation >= 5 else size
    bits = _count_bits(pixels) if pixels.dtype == np.uint16 else None
    return ImageInfo(opened.kind, size, stored, opened.orientation, bits, opened.more_frames)


def find_bits(paths: Iterable[Path]) -> dict[Path, int]:
    """{path: bits} of the grey 16-bit images among these files: how many they use together, for `decode_image`."""
    found = {}
    for path in paths:
        with contextlib.suppress(Exception):  # what is wrong with a file is said when it is read
            _refuse_special(path)
            with Image.open(path) as image:
                is_deep = image.mode.startswith("I")
            if is_deep and (bits := examine_image(path).bits):
                found[path] = bits
    return dict.fromkeys(found, max(found.values(), default=0))


def _count_bits(deep: np.ndarray) -> int:
    return max(8, int(deep.max()).bit_length())


def _read_pixels(opened: Opened) -> np.ndarray:
    """(H, W, 3) uint8 RGB or, of a grey 16-bit file, (H, W) uint16, upright. Raises InvalidFile for others."""
    deep, image = _read_deep(opened), opened.image
    if deep is not None:
        return turn(deep, opened.turns)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        sentence = "expected an image in grey, RGB or CMYK of 8 or 16 bits; save it as an 8-bit RGB PNG"
        raise InvalidFile(sentence, opened.kind)
    rgb = image if image.mode == "RGB" else image.convert("RGB")  # which would copy
    if opened.depth > 8 and max(high for _, high in rgb.getextrema()) < DARK:
        raise InvalidFile("it is dark, and only 8 of its 16 bits can be read; save it as an 8-bit RGB PNG", opened.kind)
    return turn(np.asarray(rgb), opened.turns)


def _read_deep(opened: Opened) -> np.ndarray | None:
    """(H, W) uint16 of a grey file of 16 bits, not turned; None for all others."""
    if not opened.image.mode.startswith("I"):
        return None
    values = np.asarray(opened.image)
    return values.astype(np.uint16) if values.min() >= 0 and values.max() < 1 << 16 else None


class MaskInfo(NamedTuple):
    kind: str  # for people
    size: tuple[int, int]  # (height, width), upright
    values: str  # "grey", "deep" (16 bits), "bit", "palette" (index) or "color" (65536 r + 256 g + b)
    counts: dict[int, int]  # how many pixels have which value
    palette: dict[int, int]  # the colours of the indices that occur, -1 for one that has none
    plain: bool  # whether `decode_mask` reads its values, if they are class ids
    transparent: bool = False  # in parts


def decode_mask(path: str | Path, labels: LabelMap) -> np.ndarray:
    """Mask file with ids in its one channel or its red channel -> (H, W, 1) uint8 class ids 0..K-1 or 255 = void.
    Raises ValueError, naming the file, if it can't be read or has other channels."""
    with naming_file(path):
        return labels.ids_of(read_channels(Path(path))[..., 0])[..., None]


def read_channels(path: Path) -> np.ndarray:
    """(H, W, 1 or 3) uint8: a mask with class ids in one channel, or in red. Raises InvalidFile for others."""
    opened, values, pixels = _values(path)
    if values not in ("grey", "color"):
        raise InvalidFile("expected 8-bit class ids in one channel or in the red channel; convert it", opened.kind)
    return np.atleast_3d(pixels)


def examine_mask(path: Path) -> MaskInfo:
    """What a mask file holds, decoded once. Raises InvalidFile if it can't be read or can't be a map of classes."""
    opened, values, pixels = _values(path)
    image, palette = opened.image, {}
    if values == "color":
        colors = Image.fromarray(pixels).getcolors(MAX_COLORS)
        if colors is None:
            todo = "If it was made smaller or saved as a JPEG once, make it again by nearest neighbour, as a PNG"
            raise InvalidFile(f"it has more than {MAX_COLORS} colours, expected one per class; is it the mask? {todo}")
        counts = {r << 16 | g << 8 | b: n for n, (r, g, b) in colors}
    else:
        numbers = np.bincount(pixels.ravel())
        counts = {int(value): int(numbers[value]) for value in np.flatnonzero(numbers)}
    if values == "palette":
        colors = np.reshape(image.getpalette("RGB"), (-1, 3)).tolist()
        palette = {k: r << 16 | g << 8 | b for k, (r, g, b) in enumerate(colors) if k in counts}
        palette |= dict.fromkeys(counts.keys() - palette.keys(), -1)  # or a damaged palette would be one of black
    plain = opened.kind in ("PNG of mode L", "PNG of mode RGB", "PNG of mode RGBA")  # only PNG has checksums
    low, high = image.getchannel("A").getextrema() if image.mode in ("LA", "RGBA") else (0, 0)
    return MaskInfo(opened.kind, pixels.shape[:2], values, counts, palette, plain, low < high)


def read_values(path: Path) -> np.ndarray:
    """(H, W) ints: the values of a mask file, as `MaskInfo.counts` has them. Raises ValueError, naming the file."""
    with naming_file(path):
        _, values, pixels = _values(path)
    return np.dot(pixels, np.uint32([1 << 16, 1 << 8, 1])) if values == "color" else pixels


def _values(path: Path) -> tuple[Opened, str, np.ndarray]:
    """(file, `MaskInfo.values`, pixels): (H, W) ints, or (H, W, 3) uint8 where the values are colours; upright."""
    opened = open_file(path)
    image = opened.image
    if image.format in ("JPEG", "MPO") or image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        todo = "make the mask again, as a PNG; for black and white ones, see 'Masks of 0 and 255 that are JPEGs' in "
        raise InvalidFile(f"it is a JPEG inside, which changes class ids; {todo}data/README.md")
    if image.format not in ("PNG", "GIF", "BMP", "TIFF"):
        raise InvalidFile("expected a mask as PNG, GIF, BMP or TIFF; save it as a PNG", opened.kind)
    if opened.more_frames:
        raise InvalidFile("it holds more than one image, expected one mask; save each as a PNG", opened.kind)
    deep = _read_deep(opened)
    if deep is not None:
        values, pixels = "deep", deep
    elif opened.depth > 8 or image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):  # of 16 bits in RGB, Pillow has 8
        raise InvalidFile("expected ids of 8 or 16 bits in one channel, or 8-bit RGB; save it as a PNG", opened.kind)
    elif image.mode == "1":
        values, pixels = "bit", np.asarray(image).astype(np.uint8)
    elif image.mode == "P":
        values, pixels = "palette", np.asarray(image)
    elif image.mode in ("L", "LA"):  # Pillow spreads 2 or 4 bits of grey over 0..255
        values, pixels = "grey", np.asarray(image.getchannel(0)) // np.uint8(255 // (2**opened.depth - 1))
    else:
        values, pixels = "color", np.asarray(image.convert("RGB"))
    return opened, values, turn(pixels, opened.turns)


def resize_image(image, size: tuple[int, int]):
    """(..., H, W, 3) uint8 -> (..., *size, 3) uint8 tensor, bilinear; antialias averages pixels where it shrinks."""
    import tensorflow as tf

    return tf.cast(tf.round(tf.image.resize(image, size, method="bilinear", antialias=True)), tf.uint8)


def resize_mask(mask, size: tuple[int, int]):
    """(..., H, W, 1) ids -> (..., *size, 1) tensor. Nearest neighbour: a mean of two ids would be a third class."""
    import tensorflow as tf

    return tf.image.resize(mask, size, method="nearest")


def fitted_box(own_size: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of an image of own_size in the middle of one of size, as large as it fits.
    Its proportions are kept, unless they are those of size but for a few percent: then it fills size. The padding
    begins and ends at even pixels, so that no pixel of a prediction of half the size lies half on it."""
    own, size = np.array(own_size), np.array(size)
    factors = size / own
    fills = factors < STRETCH * factors.min()
    fitted = np.where(fills, size, np.clip(2 * np.round(own * factors.min() / 2).astype(int), 2, size))
    before = (size - fitted) // 4 * 2
    return *before.tolist(), *(before + fitted).tolist()


def fit_image(image, size: tuple[int, int]) -> np.ndarray:
    """Letterbox: (H, W, 3) uint8 -> (*size, 3) uint8, the whole image in its `fitted_box` and grey padding."""
    top, left, bottom, right = fitted_box(image.shape[:2], size)
    fitted = np.full((*size, 3), GREY, np.uint8)
    fitted[top:bottom, left:right] = resize_image(image, (bottom - top, right - left))
    return fitted


def fit_mask(mask, size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """(H, W, 1) ids -> (*size, 1) uint8 ids for an image that `fit_image` puts into image_size; the padding is void.
    size: that of the network's output, which may be smaller than image_size. Nearest neighbour, as in `resize_mask`."""
    top, left, bottom, right = fitted_box(mask.shape[:2], image_size)
    rows, row_inside = _nearest(mask.shape[0], size[0], image_size[0], top, bottom)
    columns, column_inside = _nearest(mask.shape[1], size[1], image_size[1], left, right)
    inside = (row_inside[:, None] & column_inside)[..., None]
    return np.where(inside, np.asarray(mask)[np.ix_(rows, columns)], np.uint8(VOID))


def _nearest(own: int, output: int, whole: int, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of the output's pixels along one side, the one of own pixels that lies there, and whether any does: they
    spread over whole pixels, of which those from start to end show the image."""
    twice_centres = (2 * np.arange(output) + 1) * whole  # times output: whole numbers, which nothing rounds
    index = (twice_centres - 2 * output * start) * own // (2 * output * (end - start))
    return index.clip(0, own - 1), (index >= 0) & (index < own)
