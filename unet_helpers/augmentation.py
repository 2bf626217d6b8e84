"""Augmentation: random changes that show the network a new variant of each picture in each epoch.

A change is called with a whole batch and random draws, (images, masks, draws), and returns new images and masks.
images: (B, H, W, 3) 0..255. masks: (B, H', W', 1) uint8 ids. draws: (B, 256) float32, evenly spread over 0..1, a row
for each picture: `pipeline.make_batches` makes them anew for each picture in each epoch. So a change has no random
state of its own, and the same draws always give the same picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from .images import resize_mask
from .labels import VOID


@dataclass(frozen=True)
class RandomResizedCrop:
    """Another view of the same scene: mirrored, enlarged or shrunk, moved, lighter or darker; images become float32.

    zoom: range of the enlargement; below 1 the picture shrinks and its surroundings are void.
    stretch: largest change of the ratio of width to height.
    light: largest share by which brightness and contrast change; the mask keeps its ids.
    """

    zoom: tuple[float, float] = (0.9, 1.3)
    stretch: float = 1.05
    light: float = 0.2

    def __call__(self, images, masks, draws):
        enlargement, ratio, row, column, mirror, contrast, brightness = tf.unstack(2 * draws[:, :7, None] - 1, axis=1)

        # One op cuts a window out of each picture and enlarges it; a window that runs from right to left mirrors.
        # Keras has a layer for each of these changes, but several passes over the pictures would slow training down,
        # and before Keras 3.14 its RandomZoom resamples masks bilinearly and so invents classes.
        low, high = np.log(self.zoom)
        scale = tf.exp((low + high + (high - low) * enlargement) / 2)
        ratio = self.stretch ** (ratio / 2)
        height, width = ratio / scale, 1 / (ratio * scale)  # of the window, as shares of the picture
        top, left = (1 - height) * (row + 1) / 2, (1 - width) * (column + 1) / 2
        sides = tf.where(mirror < 0, [left, left + width], [left + width, left])
        boxes = tf.concat([top, sides[0], top + height, sides[1]], axis=1)

        def cut(pictures, method, fill):
            batch, height, width = tf.unstack(tf.shape(pictures)[:3])
            return tf.image.crop_and_resize(pictures, boxes, tf.range(batch), (height, width), method, fill)

        contrast, brightness = (1 + self.light * draw[..., None, None] for draw in (contrast, brightness))
        # (picture - 127.5) * contrast + 255 * brightness - 127.5, with the numbers added up first: a pass less
        lit = cut(images, "bilinear", 127.5) * contrast + (255 * brightness - 127.5 * (1 + contrast))
        return tf.clip_by_value(lit, 0, 255), tf.cast(cut(masks, "nearest", VOID), tf.uint8)


@dataclass(frozen=True)
class CopyPaste:
    """Rare things more often: pixels of these classes, cut out of the batch's next picture and pasted at their place.

    classes: ids. share: 0..1, how many of the classes, drawn for each picture, are pasted into it.
    Source: Ghiasi et al. 2021, https://arxiv.org/abs/2012.07177 (objects); Olsson et al. 2021,
    https://arxiv.org/abs/2007.07936 (all pixels of a class, as here).
    """

    classes: Sequence[int]
    share: float = 0.5

    def __post_init__(self):
        if not np.isin(self.classes, np.arange(VOID)).all():
            raise ValueError(f"classes: expected ids 0..{VOID - 1}, found {list(self.classes)}")

    def __call__(self, images, masks, draws):
        chosen = np.isin(np.arange(256), self.classes) & (draws < self.share)
        other_images, other_masks = tf.roll(images, 1, axis=0), tf.roll(masks, 1, axis=0)
        covered = tf.gather(chosen, tf.cast(other_masks[..., 0], tf.int32), batch_dims=1)[..., None]
        masks = tf.where(covered, other_masks, masks)
        covered = resize_mask(tf.cast(covered, tf.uint8), tf.shape(images)[1:3])  # the picture may be larger
        # tf.where says the same, but takes half as long again where a mask of one channel stands for three.
        return images + tf.cast(covered, images.dtype) * (other_images - images), masks
