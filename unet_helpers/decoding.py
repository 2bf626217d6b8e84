"""From a file to pixels of the size that the network looks at: training, scores and prediction all go this way."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from .labels import VOID, LabelMap

GREY = 128  # what surrounds a picture of other proportions: the network's rescaling makes it 0, as beyond its borders
STRETCH = 1.05  # proportions that differ by less count as the same: `augmentation.RandomView` stretches as much


def decode_image(path) -> tf.Tensor:
    """Picture file (PNG, JPEG, BMP) -> (H, W, 3) uint8."""
    return tf.io.decode_image(Path(path).read_bytes(), channels=3, expand_animations=False)


def decode_mask(path, labels: LabelMap) -> tf.Tensor:
    """Mask PNG with ids in its one channel or its red channel -> (H, W, 1) uint8 class ids 0..K-1 or 255 = void."""
    values = tf.io.decode_png(Path(path).read_bytes(), channels=3)[..., :1]
    return tf.gather(tf.constant(labels.value_to_id), tf.cast(values, tf.int32))


def resize_image(image, size: tuple[int, int]) -> tf.Tensor:
    """(..., H, W, 3) uint8 -> (..., *size, 3) uint8, bilinear; antialias averages pixels where it shrinks."""
    resized = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.cast(tf.round(resized), tf.uint8)


def resize_mask(mask, size: tuple[int, int]) -> tf.Tensor:
    """(..., H, W, 1) ids -> (..., *size, 1) ids. Nearest neighbour: a mean of two ids would be a third class."""
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
