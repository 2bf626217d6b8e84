"""Data augmentation: random changes that show the network a new variant of each image in each epoch.

A change is called with a whole batch and random draws, (images, masks, draws), and returns new images and masks.
images: (B, H, W, 3) 0..255. masks: (B, H', W', 1) uint8 ids. draws: (B, 256) float32, uniform in 0..1, a row for each
image, made anew in each epoch by `pipeline.make_batches`. A change has no random state: equal draws, equal images."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from .labels import VOID


@dataclass(frozen=True)
class RandomResizedCrop:
    """Random crop, scale, aspect ratio, horizontal flip, brightness and contrast; images become float32.
    One op crops and resizes; a window that runs from right to left flips. Keras's layers would take several passes, and
    before Keras 3.14 its RandomZoom resamples masks bilinearly and so invents classes."""

    zoom: tuple[float, float] = (0.9, 1.3)  # range of the scale; below 1 the image shrinks, surrounded by void
    stretch: float = 1.05  # largest change of the ratio of width to height
    light: float = 0.2  # largest share by which brightness and contrast change

    def __call__(self, images, masks, draws):
        # In float32, exp of four numbers at once would round differently from exp of one: an image would depend on B.
        uniform = 2 * tf.cast(draws[:, :7, None], tf.float64) - 1
        scale, ratio, row, column, flip, contrast, brightness = tf.unstack(uniform, axis=1)
        low, high = np.log(self.zoom)
        scale = tf.exp((low + high + (high - low) * scale) / 2)
        ratio = self.stretch ** (ratio / 2)
        height, width = ratio / scale, 1 / (ratio * scale)  # of the window, as shares of the image
        top, left = (1 - height) * (row + 1) / 2, (1 - width) * (column + 1) / 2
        sides = tf.where(flip < 0, [left, left + width], [left + width, left])
        boxes = tf.cast(tf.concat([top, sides[0], top + height, sides[1]], axis=1), tf.float32)

        def crop(batch, method, fill):
            n, height, width = tf.unstack(tf.shape(batch)[:3])
            return tf.image.crop_and_resize(batch, boxes, tf.range(n), (height, width), method, fill)

        lights = (1 + self.light * draw[..., None, None] for draw in (contrast, brightness))
        contrast, brightness = (tf.cast(light, tf.float32) for light in lights)
        # (image - 127.5) * contrast + 255 * brightness - 127.5, with the constants added first: a pass less
        lit = crop(images, "bilinear", 127.5) * contrast + (255 * brightness - 127.5 * (1 + contrast))
        return tf.clip_by_value(lit, 0, 255), tf.cast(crop(masks, "nearest", VOID), tf.uint8)
