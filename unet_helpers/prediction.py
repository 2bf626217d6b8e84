"""Masks from a trained network: the same decoding and resizing as in training, the answer at the picture's own size."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from .pipeline import decode_image, resize_image


def predict_masks(model: keras.Model, images, size: tuple[int, int] | None = None, mirror: bool = True) -> np.ndarray:
    """Masks for a batch: images (B, H, W, 3), 0..255, at the network's input size -> (B, *size) uint8 class ids.

    size: (height, width) of the masks, that of the logits if None. The logits are enlarged, not the ids: their
        bilinear mean puts an edge between two pixels, a nearest neighbour could only repeat pixels.
    mirror: ask the network a second time, about the mirrored pictures, and take the mean of both answers. It is a
        little better than one answer and takes twice the time.
    """
    logits = model.predict_on_batch(images)
    if mirror:
        logits = (logits + model.predict_on_batch(images[:, :, ::-1])[:, :, ::-1]) / 2
    if size is not None and tuple(size) != logits.shape[1:3]:
        logits = tf.image.resize(logits, size, method="bilinear")
    return tf.argmax(logits, axis=-1, output_type=tf.int32).numpy().astype(np.uint8)


def predict_mask(model: keras.Model, image, image_size: tuple[int, int] | None = None) -> np.ndarray:
    """Mask of one picture at the picture's own size, (H, W) uint8 class ids.

    image: path of a picture file, or an (H, W, 3) uint8 RGB array of any size.
    image_size: (height, width) at which the network looks at it, that of its input if None: a network that takes any
        size has to be told, because it knows things only as large as it saw them in training.
    Raises ValueError, naming the file or what was found, if image is neither or the size is not known.
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
    size = image_size or model.input_shape[1:3]
    if None in size:
        raise ValueError("image_size: this network takes any size; expected the (height, width) that it was trained at")
    batch = resize_image(image, size)[None]
    return predict_masks(model, batch, tuple(image.shape[:2]))[0]
