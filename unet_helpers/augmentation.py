"""Data augmentation: random changes that show the network a new variant of each image in each epoch.

A change is called with a whole batch and random draws, (images, masks, draws), and returns new images and masks.
images: (B, H, W, 3) 0..255. masks: (B, H', W', 1) uint8 ids. draws: (B, 256) float32, uniform in 0..1, a row for each
image, made anew in each epoch by `pipeline.make_batches`. A change has no random state: equal draws, equal images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from .images import resize_mask
from .labels import VOID


@dataclass(frozen=True)
class RandomResizedCrop:
    """Random crop, scale, aspect ratio, horizontal flip, brightness and contrast; images become float32.

    One op crops and resizes; a window that runs from right to left flips. Keras's layers would take several passes, and
    before Keras 3.14 its RandomZoom resamples masks bilinearly and so invents classes.
    """

    zoom: tuple[float, float] = (0.9, 1.3)  # range of the scale; below 1 the image shrinks, surrounded by void
    stretch: float = 1.05  # largest change of the ratio of width to height
    light: float = 0.2  # largest share by which brightness and contrast change

    def __call__(self, images, masks, draws):
        scale, ratio, row, column, flip, contrast, brightness = tf.unstack(2 * draws[:, :7, None] - 1, axis=1)
        low, high = np.log(self.zoom)
        scale = tf.exp((low + high + (high - low) * scale) / 2)
        ratio = self.stretch ** (ratio / 2)
        height, width = ratio / scale, 1 / (ratio * scale)  # of the window, as shares of the image
        top, left = (1 - height) * (row + 1) / 2, (1 - width) * (column + 1) / 2
        sides = tf.where(flip < 0, [left, left + width], [left + width, left])
        boxes = tf.concat([top, sides[0], top + height, sides[1]], axis=1)

        def crop(batch, method, fill):
            n, height, width = tf.unstack(tf.shape(batch)[:3])
            return tf.image.crop_and_resize(batch, boxes, tf.range(n), (height, width), method, fill)

        contrast, brightness = (1 + self.light * draw[..., None, None] for draw in (contrast, brightness))
        # (image - 127.5) * contrast + 255 * brightness - 127.5, with the constants added first: a pass less
        lit = crop(images, "bilinear", 127.5) * contrast + (255 * brightness - 127.5 * (1 + contrast))
        return tf.clip_by_value(lit, 0, 255), tf.cast(crop(masks, "nearest", VOID), tf.uint8)


@dataclass(frozen=True)
class CopyPaste:
    """Paste all pixels of rare classes from the batch's next image and mask, at the same place.

    Sources: Ghiasi et al. 2021, https://arxiv.org/abs/2012.07177 (objects); Olsson et al. 2021,
    https://arxiv.org/abs/2007.07936 (all pixels of a class, as here).
    """

    classes: Sequence[int]  # ids
    share: float = 0.5  # 0..1, how many of the classes, drawn for each image, are pasted into it

    def __post_init__(self):
        if not np.isin(self.classes, np.arange(VOID)).all():
            raise ValueError(f"classes: expected ids 0..{VOID - 1}, found {list(self.classes)}")

    def __call__(self, images, masks, draws):
        chosen = np.isin(np.arange(256), self.classes) & (draws < self.share)
        other_images, other_masks = tf.roll(images, 1, axis=0), tf.roll(masks, 1, axis=0)
        covered = tf.gather(chosen, tf.cast(other_masks[..., 0], tf.int32), batch_dims=1)[..., None]
        masks = tf.where(covered, other_masks, masks)
        covered = resize_mask(tf.cast(covered, tf.uint8), tf.shape(images)[1:3])  # the image may be larger
        # tf.where computes the same, but takes half as long again with a condition of one channel for three.
        return images + tf.cast(covered, images.dtype) * (other_images - images), masks
