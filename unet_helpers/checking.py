"""The check of all files before a training: it decodes them as training will, and names the one that would spoil it."""

import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from .labels import LabelMap, Pair, class_pixels
from .masks.opening import open_file
from .masks.report import Unfit

PICTURE_REMEDY = "save it anew as an 8-bit RGB PNG, or get it again if it is damaged"
MASK_REMEDY = "save it anew as an 8-bit grey PNG of class ids, or get it again if it is damaged"

# TensorFlow decodes JPEG by a faster, coarser transform than Pillow (with the exact one it gives the same), so good
# files differ as well. Measured: quality 10 to 100; 4:4:4, 4:2:2, 4:2:0, 4:1:1 and grey; progressive or not. The mean
# difference, and the largest mean of a block of 8x8, is at most 1.8 and 9.4 in photographs, 3.4 and 20 in photographs
# sharpened until they hurt, 1.5 and 6.4 in demo frames, 3.7 and 8.2 in text and stripes, 12 and 24 in noise; up to
# quality 90 nowhere more than 2.9 and 3.8. Damaged files in which the fast transform overflows reach 255, and one good
# picture 83: a chessboard of single pixels at quality 98 or more. There TensorFlow does read another picture.
JPEG_MEAN, JPEG_BLOCK = 16, 40


def check_pair(pair: Pair, labels: LabelMap) -> np.ndarray:
    """Decode both files of a pair as training does and return the pixels of each class, (K,) int64.

    Raises ValueError, naming the file, if one can't be read, or training would read other pixels from it than Pillow,
    the sizes differ, or the mask is no map of known ids.
    """
    from .decoding import decode_image, decode_mask  # here, because TensorFlow takes seconds to import

    image, mask = open_picture(pair.image), open_picture(pair.mask)
    if image.size != mask.size:
        raise ValueError(
            f"{pair.mask}: it has {mask.height}x{mask.width} pixels, but its picture {pair.image} has "
            f"{image.height}x{image.width}; both need the same size"
        )
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"{pair.image}: its mode is {image.mode!r}, more than the 8 bits of a channel that training reads, and it "
            "would look black; scale it to 0..255 and save it as an 8-bit PNG"
        )
    _check_decoding(pair.image, image, np.asarray(image.convert("RGB")), decode_image, PICTURE_REMEDY)
    values = _mask_values(pair.mask, mask, labels)
    ids = labels.value_to_id[values]
    _check_decoding(pair.mask, mask, ids[..., None], lambda path: decode_mask(path, labels), MASK_REMEDY)
    return class_pixels(ids, labels)


def check_pairs(pairs: Iterable[Pair], labels: LabelMap) -> np.ndarray:
    """`check_pair` for all pairs, on all cores: how many pixels of each class they have together, (K,) int64."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(lambda pair: check_pair(pair, labels), pairs), np.zeros(labels.n_classes, np.int64))


def open_picture(path: Path) -> Image.Image:
    """The picture, loaded to its end. Raises ValueError, naming the file, if it can't be read or is to be turned."""
    try:
        image, orientation, *_ = open_file(path)
    except Unfit as error:
        raise ValueError(error.about(path)) from error
    if orientation > 1:
        raise ValueError(
            f"{path}: its EXIF data say that it is shown turned or mirrored (orientation {orientation}), but training "
            "reads the pixels as they are stored, so picture and mask may not fit; save it upright and without EXIF"
        )
    return image


def _mask_values(path: Path, mask: Image.Image, labels: LabelMap) -> np.ndarray:
    """The (H, W) uint8 values of a mask file, all known to the labels."""
    if mask.format in ("JPEG", "MPO"):
        raise ValueError(f"{path}: it is a JPEG inside, which changes class ids; make the mask again, as a PNG")
    if mask.mode not in ("L", "RGB", "RGBA"):
        raise ValueError(
            f"{path}: its mode is {mask.mode!r}, expected 8-bit class ids in one channel or in the red channel; "
            "convert it"
        )
    values = np.asarray(mask)
    if values.ndim == 3:
        if values[..., 1:3].any():
            raise ValueError(
                f"{path}: green or blue are not 0, so it holds colours, expected class ids in the red channel; "
                "convert it"
            )
        values = values[..., 0]
    unknown = np.setdiff1d(np.unique(values), np.flatnonzero(labels.known_values))
    if unknown.size:
        raise ValueError(
            f"{path}: it holds {unknown.tolist()[:5]}, expected class ids 0..{labels.n_classes - 1} "
            f"or void {sorted(labels.void_values)}; wrong label map or a damaged mask?"
        )
    return values


def _check_decoding(path: Path, picture: Image.Image, expected: np.ndarray, decode: Callable, remedy: str) -> None:
    """Compare what decode(path) gives to training with what Pillow sees in the picture: expected, (H, W, C) uint8."""
    import tensorflow as tf

    kind = f"{picture.format} of mode {picture.mode}"
    try:
        with tf.device("CPU:0"):  # where training decodes
            decoded = decode(str(path)).numpy()
    except Exception as error:  # TensorFlow's errors have no base class of their own
        reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", str(error))
        raise ValueError(f"{path}: TensorFlow can't decode this {kind} ({reason}); {remedy}") from error
    same = _is_same_jpeg if picture.format in ("JPEG", "MPO") else np.array_equal
    if not same(decoded, expected):
        raise ValueError(f"{path}: TensorFlow and Pillow read different pixels from this {kind}; {remedy}")


def _is_same_jpeg(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two (H, W, 3) uint8 pictures differ by no more than two ways to decode a good JPEG do."""
    if a.shape != b.shape:
        return False
    difference = np.maximum(a, b) - np.minimum(a, b)
    height, width, _ = a.shape
    padded = np.pad(difference, ((0, -height % 8), (0, -width % 8), (0, 0)))
    blocks = padded.reshape(padded.shape[0] // 8, 8, -1).sum(1, dtype=np.uint16)
    blocks = blocks.reshape(len(blocks), -1, 8 * 3).mean(-1) / 8
    return difference.mean() <= JPEG_MEAN and blocks.max() <= JPEG_BLOCK
