"""A change to images and masks, as `unet_helpers.augmentation` has them, that was tried and did not help: README.md."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unet_helpers.images import resize_mask
from unet_helpers.labels import VOID


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
