"""Masks from a trained network: the same decoding and resizing as in training, the answer at the picture's own size."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from .pipeline import decode_image, resize_image


def predict_logits(model: keras.Model, images, mirrored: bool = False) -> np.ndarray:
    """The network's answer to a batch: images (B, H, W, 3), 0..255, at its input size -> (B, H', W', K) logits.

    mirrored: ask about the mirrored pictures and mirror the answer back: a second opinion about the same pixels.
    """
    if mirrored:
        return model.predict_on_batch(images[:, :, ::-1])[:, :, ::-1]
    return model.predict_on_batch(images)


def to_masks(logits: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Logits (B, H, W, K) -> (B, *size) uint8 class ids; size: (height, width), that of the logits if None.

    The logits are enlarged, not the ids: their bilinear mean puts an edge between two pixels, a nearest neighbour could
    only repeat pixels.
    """
    if size is not None and tuple(size) != logits.shape[1:3]:
        logits = tf.image.resize(logits, size, method="bilinear")
    return tf.argmax(logits, axis=-1, output_type=tf.int32).numpy().astype(np.uint8)


def predict_masks(model: keras.Model, images, size: tuple[int, int] | None = None, mirror: bool = True) -> np.ndarray:
    """Masks for a batch: images (B, H, W, 3), 0..255, at the network's input size -> (B, *size) uint8 class ids.

    mirror: take the mean of two answers, one of them about the mirrored pictures. It is a little better than one answer
        and takes twice the time.
    """
    logits = predict_logits(model, images)
    if mirror:
        logits = (logits + predict_logits(model, images, mirrored=True)) / 2
    return to_masks(logits, size)


def predict_mask(model: keras.Model, image, image_size: tuple[int, int] | None = None) -> np.ndarray:
    """Mask of one picture at the picture's own size, (H, W) uint8 class ids.

    image: path of a picture file, or an (H, W, 3) uint8 RGB array of any size.
    image_size: (height, width) at which the network looks at it, that of its input if None: a network that takes any
        size has to be told, because it knows things only as large as it saw them in training.
    Raises ValueError, naming the file or what was found, if image is neither or the network can't look at that size.
    """
    if isinstance(image, (str, Path)):
        if not Path(image).is_file():
            raise ValueError(f"image: there is no file {str(image)!r}")
        try:
            image = decode_image(str(image))
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"{image}: can't be read as PNG, JPEG or BMP; convert it to PNG") from error
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected an (H, W, 3) uint8 RGB array, found {tuple(image.shape)} {image.dtype}")
    size = _known_size(model, image_size)
    try:
        return predict_masks(model, resize_image(image, size)[None], tuple(image.shape[:2]))[0]
    except (ValueError, tf.errors.InvalidArgumentError):
        raise ValueError(
            f"image_size: found {size}, at which the levels of this network do not fit together; try the size that it "
            "was trained at, or multiples of 32"
        ) from None


def _known_size(model: keras.Model, image_size: tuple[int, int] | None) -> tuple[int, int]:
    own = model.input_shape[1:3]
    size = own if image_size is None else image_size
    if None in np.ravel(size):
        raise ValueError("image_size: this network takes any size; expected the (height, width) that it was trained at")
    if np.shape(size) != (2,) or min(size) < 1:
        raise ValueError(f"image_size: found {size}, expected (height, width); try multiples of 32")
    if None not in own and tuple(size) != own:
        raise ValueError(f"image_size: found {tuple(size)}, but this network takes pictures of {own}; leave it out")
    return tuple(size)
