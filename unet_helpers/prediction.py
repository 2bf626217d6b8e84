"""Masks of whole images, at the image's own size: letterbox, test-time augmentation, confidence."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from .devices import alone
from .images import decode_image, fit_image, fitted_box
from .model import check_image_size
from .naming import named, shown
from .networks import Network, load_network

STRIP = 1 << 22  # logits that are enlarged at once: those of all pixels of a large image would take gigabytes


def predict_logits(model: keras.Model, images, tta: bool = False) -> np.ndarray:
    """Logits of a batch: images (B, H, W, 3), 0..255, at the network's input size -> (B, H', W', K) float32.
    tta: with test-time augmentation, see `average_with_flipped`."""
    with alone():  # a batch of 1 can't be shared by several devices
        logits = model.predict_on_batch(np.asarray(images))
    return average_with_flipped(model, images, logits) if tta else logits


def average_with_flipped(model: keras.Model, images, logits: np.ndarray) -> np.ndarray:
    """Test-time augmentation (TTA): the mean of the images' logits and those of the horizontally flipped images."""
    return (logits + predict_logits(model, images[:, :, ::-1])[:, :, ::-1]) / 2


def predict_masks(model: keras.Model, images, tta: bool = True) -> np.ndarray:
    """Masks of a batch: images (B, H, W, 3), 0..255, at the network's input size -> (B, H', W') uint8 class ids.
    tta: test-time augmentation: a little better, and takes twice the time."""
    return np.argmax(predict_logits(model, images, tta), axis=-1).astype(np.uint8)


def predict_mask(
    network: Network | keras.Model | str | Path, image, image_size: tuple[int, int] | None = None, *,
    tta: bool = True, confidence: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mask of one image at the image's own size, (H, W) uint8 class ids.
    network: from `load_network`, or its `.keras` file, which is loaded anew each time, or a model alone.
    image: path of an image file, or an (H, W, 3) uint8 RGB array of any size.
    image_size: (height, width) into which the image is letterboxed for the network; None: that of its training, which
        only a model alone does not know. Objects are recognised best at the size they had in training.
    tta: test-time augmentation, see `predict_masks`.
    confidence: return (mask, confidence), (H, W) float32, 0..1: the softmax's value for the predicted class.
    Raises ValueError, naming the file or what was found, if image is neither or the network can't take that size."""
    if isinstance(network, (str, Path)):
        network = load_network(network)
    if not isinstance(network, Network):
        network = Network(network, None, None)
    pixels = decode_image(image, network.bits) if isinstance(image, (str, Path)) else image
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(f"image: expected an (H, W, 3) uint8 RGB array, found {tuple(pixels.shape)} {pixels.dtype}")
    own = network.model.input_shape[1:3]
    size = check_image_size(named("image_size"), image_size or network.image_size or own)
    letterboxed = fit_image(np.asarray(pixels), size)
    try:
        if None not in own and own != size:  # JAX would not refuse it
            raise ValueError
        (logits,) = predict_logits(network.model, letterboxed[None], tta)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError):  # of Keras, JAX, TensorFlow
        found = f"found {shown(size)}, which this network can't take"
        expected = "the size of its training, or multiples of 32" if None in own else shown(own)
        raise ValueError(f"{named('image_size')}: {found}; try {expected}") from None
    mask = np.empty(pixels.shape[:2], np.uint8)
    certainty = np.empty(mask.shape, np.float32) if confidence else None
    write_prediction(logits, size, mask, certainty)
    return (mask, certainty) if confidence else mask


def write_prediction(
    logits: np.ndarray, image_size: tuple[int, int], mask: np.ndarray, confidence: np.ndarray | None = None
) -> np.ndarray:
    """Fill mask, (H, W) uint8, and confidence, (H, W) float32, from the logits of its image; returns mask.
    logits: (h, w, K), of the image as `images.fit_image` letterboxes it into image_size; they may be coarser than that.
    The logits are enlarged, not the ids: bilinear interpolation puts an edge between two pixels."""
    top, left, bottom, right = fitted_box(mask.shape, image_size)
    per_pixel = mask.shape[0] / (bottom - top), mask.shape[1] / (right - left)  # of the letterboxed image
    scale = np.array(per_pixel) * image_size / logits.shape[:2]
    height, width = mask.shape
    n_rows = max(1, STRIP // (width * logits.shape[-1]))
    for row in range(0, height, n_rows):
        end = min(row + n_rows, height)
        with tf.device("CPU:0"):  # the only one that has this op, which is tf.image.resize for a part of the result
            strip = tf.raw_ops.ScaleAndTranslate(
                images=logits[None], size=(end - row, width), scale=scale.astype(np.float32),
                translation=np.float32([-top * per_pixel[0] - row, -left * per_pixel[1]]),
                kernel_type="triangle", antialias=False,
            )[0]  # fmt: skip
            mask[row:end] = tf.argmax(strip, axis=-1, output_type=tf.int32).numpy()
            if confidence is not None:
                confidence[row:end] = tf.reduce_max(tf.nn.softmax(strip), axis=-1).numpy()
    return mask
